"""The one screen that chooses implementations. Settings come in here and go no further."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag.answer import Assistant
from rag.catalog.engine import Catalog
from rag.embedding.embedder import SentenceTransformerEmbedder
from rag.embedding.embedders import Embedders
from rag.errors import InvalidInput, NotFound
from rag.knowledge import KnowledgeBase
from rag.llm.chat import open_chat_model
from rag.ports import ChatModel, Embedder, Reranker, VectorIndex
from rag.rerank.cross_encoder import CrossEncoderReranker
from rag.rerank.light import LightReranker, NoReranker
from rag.search.caches import Caches
from rag.search.terms import TantivyIndex
from rag.search.vectors import ChromaIndex, probe
from rag.settings import Settings
from rag.storage.originals import Originals
from rag.storage.owner import Owner

log = logging.getLogger(__name__)

_CATALOG = "catalog.sqlite"


def open_knowledge_base(settings: Settings, *, embedder: Embedder | None = None) -> KnowledgeBase:
    """The knowledge base in the data folder. The caller owns the folder (`rag.storage.owner`). Quick: no model is
    loaded and Chroma is not touched; `caches.attach_terms` and `caches.attach` come next."""
    folder = settings.data_dir
    catalog = Catalog(folder / _CATALOG)
    chroma_folder = folder / "chroma"
    vectors: VectorIndex = (
        ChromaIndex(url=settings.chroma_url) if settings.chroma_url else ChromaIndex(path=chroma_folder)
    )
    caches = Caches(
        catalog,
        vectors=vectors,
        terms=TantivyIndex(path=folder / "terms"),
        # A server was chosen to be used.
        exact_up_to=0 if settings.chroma_url else settings.exact_vectors,
        prepare_vectors=(lambda: None) if settings.chroma_url else (lambda: _set_torn_folder_aside(chroma_folder)),
    )
    return KnowledgeBase(
        catalog=catalog,
        caches=caches,
        originals=Originals(folder / "originals"),
        embedder=embedder or open_embedder(settings),
        others=Embedders(lambda spec: open_embedder(settings, spec)),
        reranker=open_reranker(settings.reranker),
    )


def open_embedder(settings: Settings, spec: str | None = None) -> SentenceTransformerEmbedder:
    """The embedder of the settings, or another one run like it; not loaded yet."""
    cache = settings.model_cache or settings.data_dir / "models"
    return SentenceTransformerEmbedder(spec or settings.embedder, cache=cache, runtime=settings.runtime)


def open_reranker(spec: str) -> Reranker:
    """Raises InvalidInput for a folder that holds no model; a model is loaded when the first question needs it."""
    spec = spec.strip()
    if spec in ("", "none"):
        return NoReranker()
    return LightReranker() if spec == "light" else CrossEncoderReranker(spec)


@contextmanager
def ready_knowledge_base(data_dir: Path, *, embedder: Embedder | None = None) -> Iterator[KnowledgeBase]:
    """For scripts and notebooks: the knowledge base of a folder, its lock held and its caches attached until the end.

    Raises NotFound rather than make one where a path is misspelt, and FolderInUse where a service runs on it.
    """
    if not (data_dir / _CATALOG).is_file():
        raise NotFound(f"There is no knowledge base in {data_dir}.", remedy="Check the path; `attest sync` makes one.")
    owner = Owner(data_dir)
    try:
        base = open_knowledge_base(Settings(data_dir=data_dir), embedder=embedder)
        try:
            base.caches.attach_terms()
            base.caches.attach()
            yield base
        finally:
            base.caches.close()
            base.catalog.close()
    finally:
        owner.release()


def open_assistant(settings: Settings, base: KnowledgeBase) -> Assistant:
    return Assistant(
        base,
        model=open_model(settings),
        max_tokens=settings.llm_max_tokens,
        enough_evidence=settings.min_evidence,
        context_tokens=settings.llm_context_tokens,
        query_rewrites=settings.query_rewrites,
    )


def open_model(settings: Settings) -> ChatModel | None:
    """The language model of the settings, not loaded or asked yet; None for `none`."""
    spec = settings.llm.strip()
    if spec in ("", "none"):
        return None
    if ":" not in spec:
        raise InvalidInput(
            f"ATTEST_LLM is “{spec}”, which names no provider.", remedy="Use none, openai:MODEL or transformers:PATH."
        )
    return open_chat_model(
        spec,
        base_url=settings.llm_base_url,
        api_key=settings.llm_api_key.get_secret_value() if settings.llm_api_key else None,
        window=settings.llm_window,
        timeout_seconds=settings.llm_timeout_seconds,
        retries=settings.llm_retries,
    )


def allowed_roots(settings: Settings) -> list[Path]:
    """Folders that sources may lie under: those configured, else home and working folder where only we can ask."""
    if settings.allowed_roots is not None:
        return [Path(part).expanduser() for part in settings.allowed_roots.split(":") if part.strip()]
    if settings.is_loopback and settings.admin_key is None:
        return [Path.home(), Path.cwd()]
    return []


def _set_torn_folder_aside(folder: Path) -> None:
    """A kill while Chroma rewrote its files leaves a folder that hangs or crashes its reader: a child tries it."""
    if folder.exists() and not probe(folder):
        for older in folder.parent.glob("chroma-torn-*"):  # one is enough to find out why
            shutil.rmtree(older, ignore_errors=True)
        aside = folder.with_name(f"chroma-torn-{int(time.time())}")
        log.warning("Chroma's folder is damaged. It is kept as %s, and the catalog rebuilds it.", aside.name)
        folder.rename(aside)
