"""The door for LangChain's users: a retriever over a knowledge base of this process, or of a running service."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field, SkipValidation, field_validator

from rag.errors import AttestError, Conflict, Gone, InvalidInput, NotAllowed, NotFound, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Hit
from rag.ports import Embedder
from rag.retrieval.retrieve import retrieve
from rag.storage.owner import find_owner

_TIMEOUT_SECONDS = 60.0  # the first question of a service may wait for its embedder to load
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ERRORS: Mapping[int, type[AttestError]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: InvalidInput,
    503: Unavailable,
}
_METADATA = (
    *("document_id", "version", "title", "uri", "page", "page_label", "section", "row", "start", "end"),
    *("score", "arms"),
)


class Service:
    """The knowledge base of a running service, asked over HTTP. Thread-safe; connections close with the object."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL as problem:
            raise InvalidInput(f"The service's address cannot be used: {problem}.") from None
        if not url.startswith(("http://", "https://")) or not host:
            raise InvalidInput(
                f"The service's address cannot be used: {url}.", remedy="Write it as http://127.0.0.1:8000."
            )
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_seconds, connect=5.0),
            trust_env=host not in _LOOPBACK,  # a proxy of the environment has no business between us and ourselves
        )
        weakref.finalize(self, self._http.close)

    def __repr__(self) -> str:
        return f"Service({self.url!r})"

    def search(self, question: str, *, collections: Sequence[str], k: int) -> list[Document]:
        """Raises what the service answered, as the same errors that a knowledge base of this process raises."""
        body = {"question": question, "collection": list(collections) or None, "top_k": k}
        try:
            response = self._http.post("/v1/search", json=body)
        except httpx.TransportError as problem:
            raise Unavailable(
                f"The service at {self.url} does not answer: {problem or type(problem).__name__}.",
                remedy="Start it with `attest serve`, or check the address.",
            ) from problem
        content = _content(response)
        if response.status_code != 200 or "hits" not in content:
            kind = _ERRORS.get(response.status_code, AttestError)
            detail = content.get("detail") or f"The service at {self.url} answered {response.status_code} to a search."
            raise kind(str(detail), remedy=str(content.get("remedy") or ""))
        return [_document(found["text"], found) for found in content["hits"]]


class AttestRetriever(BaseRetriever):
    """Passages that answer to a question, best first, each with its place in its source.

    `base` is a knowledge base whose caches are attached, or a running service; `open_retriever` and `from_url` make
    the retriever with one. Without `collections` all are searched. A document's `id` names its version and offsets,
    so it stays the same until the text changes; `metadata` has the same keys for every document, None where one does
    not apply. Neither `base` nor its key is part of the serialised retriever.
    """

    base: Annotated[KnowledgeBase | Service, SkipValidation] = Field(exclude=True, repr=False)
    collections: tuple[str, ...] = ()
    k: int = Field(8, ge=1, le=50)

    @field_validator("base")
    @classmethod
    def _can_be_asked(cls, base: object) -> object:
        if not isinstance(base, KnowledgeBase | Service):
            raise ValueError("base must be a KnowledgeBase or a Service")
        return base

    @field_validator("collections", mode="before")
    @classmethod
    def _one_or_several(cls, collections: object) -> object:
        return _names(collections) if isinstance(collections, str) else collections

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        collection: str | Sequence[str] = (),
        k: int = 8,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> AttestRetriever:
        """A retriever over collections of a running service; nothing is contacted before the first question."""
        base = Service(url, api_key=api_key, timeout_seconds=timeout_seconds)
        return cls(base=base, collections=_names(collection), k=k)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # LangChain passes it by name
    ) -> list[Document]:
        if not query.strip():
            return []
        if isinstance(self.base, Service):
            return self.base.search(query, collections=self.collections, k=self.k)
        return _search(self.base, query, collections=self.collections, k=self.k)


@contextmanager
def open_retriever(
    data_dir: Path | str, *, collection: str | Sequence[str] = (), k: int = 8, embedder: Embedder | None = None
) -> Iterator[AttestRetriever]:
    """A retriever over the data folder: through the service that runs on it, else by owning the folder meanwhile.

    Raises NotFound where no knowledge base is there, and FolderInUse where another process has it and does not listen.
    """
    from rag.wiring import ready_knowledge_base  # chooses every implementation; `from_url` needs none of them

    folder = Path(data_dir).expanduser()
    running = find_owner(folder)
    if running is not None:
        url, token = running
        yield AttestRetriever.from_url(url, api_key=token, collection=collection, k=k)
        return
    with ready_knowledge_base(folder, embedder=embedder) as base:
        yield AttestRetriever(base=base, collections=_names(collection), k=k)


def _names(collection: str | Sequence[str]) -> tuple[str, ...]:
    return (collection,) if isinstance(collection, str) else tuple(collection)


def _search(base: KnowledgeBase, question: str, *, collections: Sequence[str], k: int) -> list[Document]:
    found = retrieve(question, base=base, collections=base.collections(collections), k=k)
    return [_document(hit.text, _fields(hit)) for hit in found.hits]


def _fields(hit: Hit) -> dict[str, Any]:
    """What /v1/search says of a hit, so that both ways give the same documents."""
    place = hit.place
    return {
        "document_id": hit.document_id,
        "version": hit.version,
        "title": hit.title,
        "uri": hit.uri,
        "page": place.page,
        "page_label": place.page_label,
        "section": place.section,
        "row": place.row,
        "start": hit.start,
        "end": hit.end,
        "score": round(hit.score, 4),
        "arms": {name: round(score, 4) for name, score in hit.arms.items()},
    }


def _document(text: str, found: Mapping[str, Any]) -> Document:
    metadata = {name: found[name] for name in _METADATA}
    name = "{document_id}/{version}/{start}-{end}".format_map(found)
    return Document(id=name, page_content=text, metadata=metadata)


def _content(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:  # a proxy's page, or another program on that port
        return {}
    return content if isinstance(content, dict) else {}
