"""The retriever for LangChain's users, inside real chains, over a knowledge base and over a running service."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate, format_document
from langchain_core.runnables import ConfigurableField, Runnable, RunnablePassthrough

from app.server import Background
from app.service import Service as House
from rag.errors import EmbedderMismatch, FolderInUse, InvalidInput, NotAllowed, NotFound, Unavailable
from rag.knowledge import KnowledgeBase
from rag.langchain import AttestRetriever, Service, open_retriever
from rag.settings import Settings
from rag.storage.owner import Owner, find_owner
from tests.bases import Bases, publish_text, source_in
from tests.fakes import HashEmbedder

HANDBOOK = "The warranty of the TL-1207 lasts three years.\nBatteries are replaced by the user."
MANUAL_ZH = "潮记的保修期是三年，从发货之日算起。\n电池由用户自行更换。"
MENU = "Soup is served on Mondays."
ZH_QUESTION = "保修期是多久？"


def fill(base: KnowledgeBase) -> None:
    handbook, files = source_in(base, collection="handbook")
    publish_text(base, handbook, files, "warranty.md", HANDBOOK, title="Warranty")
    publish_text(base, handbook, files, "保修.md", MANUAL_ZH, title="保修")
    canteen, menus = source_in(base, collection="食堂", name="menus")
    publish_text(base, canteen, menus, "menu.md", MENU, title="Menu")


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    bases = Bases(tmp_path)
    opened = bases.open()
    fill(opened)
    yield opened
    bases.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A filled data folder that nobody owns."""
    (tmp_path / "data").mkdir()
    bases = Bases(tmp_path / "data")
    fill(bases.open())
    bases.close()
    return tmp_path / "data"


@pytest.fixture
def house(folder: Path) -> Iterator[House]:
    """A real service on the folder, one that wants the key `sesame`."""
    settings = Settings(_env_file=None, data_dir=folder, admin_key="sesame", llm="none")  # type: ignore[call-arg,arg-type]
    house = House(settings, embedder=HashEmbedder())
    background = Background(house)
    yield house
    background.close()


@pytest.fixture
def service(house: House) -> str:
    """The running service's address."""
    owner = find_owner(house.settings.data_dir)
    assert owner is not None
    return owner[0]


def formatted(documents: list[Document]) -> str:
    prompt = PromptTemplate.from_template("[{title}, {start}] {page_content}")
    return "\n".join(format_document(document, prompt) for document in documents)


def chain(retriever: Runnable[str, list[Document]], replies: list[str]) -> Runnable[str, str]:
    prompt = ChatPromptTemplate.from_template("{passages}\n\n{question}")
    facts = {"passages": retriever | formatted, "question": RunnablePassthrough()}
    return facts | prompt | FakeListChatModel(responses=replies) | StrOutputParser()


# ── over a knowledge base of this process ─────────────────────────────────────────────────────


def test_a_document_is_a_passage_with_its_place(base: KnowledgeBase) -> None:
    found = AttestRetriever(base=base, collections=("handbook",), k=1).invoke("How long is the TL-1207's warranty?")
    [document] = found
    assert document.page_content == HANDBOOK.split("\n")[0]
    metadata = dict(document.metadata)
    assert document.id == f"{metadata['document_id']}/1/0-{len(document.page_content)}"
    assert 0 < metadata.pop("score") <= 1
    assert set(metadata.pop("arms")) == {"vectors", "terms", "keywords"}
    assert metadata.pop("document_id")
    assert metadata == {
        **{
            "version": 1,
            "title": "Warranty",
            "uri": "files/warranty.md",
            "start": 0,
            "end": len(document.page_content),
        },
        **{"page": None, "page_label": None, "section": None, "row": None},
    }


def test_offsets_count_code_points_of_the_stored_text(base: KnowledgeBase) -> None:
    for document in AttestRetriever(base=base, collections=("handbook",)).invoke("电池"):
        text = MANUAL_ZH if document.metadata["title"] == "保修" else HANDBOOK
        assert text[document.metadata["start"] : document.metadata["end"]] == document.page_content


def test_it_works_in_a_chain(base: KnowledgeBase) -> None:
    """With a question in Chinese, whole, streamed, and awaited."""
    retriever = AttestRetriever(base=base, collections=("handbook",), k=1)
    assert (retriever | formatted).invoke(ZH_QUESTION) == "[保修, 0] 潮记的保修期是三年，从发货之日算起。"
    answering = chain(retriever, ["三年。"])
    assert answering.invoke(ZH_QUESTION) == "三年。"
    assert "".join(answering.stream(ZH_QUESTION)) == "三年。"
    assert asyncio.run(answering.ainvoke(ZH_QUESTION)) == "三年。"


def test_batches_and_awaited_calls_find_what_single_calls_find(base: KnowledgeBase) -> None:
    retriever = AttestRetriever(base=base, k=2)
    questions = ["warranty", ZH_QUESTION, "soup on Mondays", "电池"] * 4
    alone = [retriever.invoke(question) for question in questions]
    assert retriever.batch(questions, config={"max_concurrency": 4}) == alone
    assert asyncio.run(retriever.abatch(questions)) == alone
    assert asyncio.run(retriever.ainvoke(ZH_QUESTION)) == alone[1]


def test_collections_are_one_several_or_all(base: KnowledgeBase) -> None:
    assert [d.page_content for d in AttestRetriever(base=base, collections="食堂").invoke("soup")] == [MENU]  # type: ignore[arg-type]
    both = AttestRetriever(base=base, collections=("食堂", "handbook"))
    everything = AttestRetriever(base=base)
    titles = {document.metadata["title"] for document in everything.invoke("warranty and soup")}
    assert titles == {document.metadata["title"] for document in both.invoke("warranty and soup")}
    assert {"Menu", "Warranty"} <= titles
    with pytest.raises(NotFound, match="cellar"):
        AttestRetriever(base=base, collections=("cellar",)).invoke("wine")


def test_nothing_is_found_for_nothing(base: KnowledgeBase) -> None:
    assert AttestRetriever(base=base).invoke(" \n") == []


def test_a_change_is_seen_by_the_next_question(base: KnowledgeBase) -> None:
    retriever = AttestRetriever(base=base, collections=("handbook",), k=1)
    before = retriever.invoke("warranty TL-1207")
    handbook, files = source_in(base, collection="handbook")
    publish_text(base, handbook, files, "warranty.md", "The warranty of the TL-1207 lasts five years.")
    after = retriever.invoke("warranty TL-1207")
    assert "three" in before[0].page_content
    assert "five" in after[0].page_content
    assert after[0].metadata["version"] == 2
    assert after[0].id != before[0].id


def test_an_embedder_that_did_not_make_the_index_is_refused(base: KnowledgeBase) -> None:
    other = KnowledgeBase(base.catalog, base.caches, base.originals, HashEmbedder(name="another"))
    with pytest.raises(EmbedderMismatch):
        AttestRetriever(base=other, collections=("handbook",)).invoke("warranty")


# ── as a pydantic model and a runnable ────────────────────────────────────────────────────────


def test_it_is_serialised_without_what_it_asks(base: KnowledgeBase) -> None:
    retriever = AttestRetriever(base=base, collections=("handbook",), k=3, tags=["docs"])
    assert retriever.model_dump(exclude_none=True) == {"collections": ("handbook",), "k": 3, "tags": ["docs"]}
    assert retriever.model_dump_json(exclude_none=True) == '{"tags":["docs"],"collections":["handbook"],"k":3}'
    remote = AttestRetriever.from_url("http://127.0.0.1:1", api_key="sesame")
    for said in (dumps(remote), remote.model_dump_json(), repr(remote), repr(remote.base), dumps(chain(remote, ["x"]))):
        assert "sesame" not in said
    assert "handbook" in dumps(retriever)


def test_it_can_be_copied_and_configured(base: KnowledgeBase) -> None:
    retriever = AttestRetriever(base=base, k=1)
    assert len(retriever.model_copy(update={"k": 3}).invoke("warranty battery soup")) == 3
    flexible = retriever.configurable_fields(k=ConfigurableField(id="k"))
    assert len(flexible.invoke("warranty battery soup")) == 1
    assert len(flexible.invoke("warranty battery soup", config={"configurable": {"k": 2}})) == 2


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": 51}, {"base": "http://127.0.0.1:8000"}, {"collections": 7}])
def test_what_cannot_be_used_is_refused_when_it_is_made(base: KnowledgeBase, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AttestRetriever(**{"base": base, **wrong})  # type: ignore[arg-type]


# ── from a folder, and from a running service ─────────────────────────────────────────────────


def test_a_folder_is_owned_while_its_retriever_is_open(folder: Path) -> None:
    with open_retriever(folder, collection="handbook", k=1, embedder=HashEmbedder()) as retriever:
        assert "三年" in retriever.invoke(ZH_QUESTION)[0].page_content
        with pytest.raises(FolderInUse), open_retriever(folder, embedder=HashEmbedder()):
            pass
    with open_retriever(str(folder), embedder=HashEmbedder()) as again:
        assert again.invoke("soup")[0].page_content == MENU


def test_a_folder_without_a_knowledge_base_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="mispelt"), open_retriever(tmp_path / "mispelt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_it_is_open_lets_go_of_the_folder(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_retriever(folder, embedder=HashEmbedder()):
        _ = 1 / 0
    Owner(folder).release()


def test_a_running_service_gives_the_same_documents(service: str, house: House) -> None:
    questions = ["warranty", ZH_QUESTION, "soup", "电池"]
    remote = AttestRetriever.from_url(f"{service}/", api_key="sesame", collection="handbook", k=2)
    found = remote.batch(questions)
    assert asyncio.run(remote.abatch(questions)) == found
    assert chain(remote, ["三年。"]).invoke(ZH_QUESTION) == "三年。"
    assert AttestRetriever(base=house.base, collections=("handbook",), k=2).batch(questions) == found


def test_the_folder_of_a_running_service_is_asked_through_it(service: str, folder: Path) -> None:
    with open_retriever(folder, collection=["食堂"]) as retriever:
        assert isinstance(retriever.base, Service)
        assert retriever.base.url == service
        assert [document.page_content for document in retriever.invoke("soup")] == [MENU]


def test_what_a_service_refuses_is_the_same_error_as_here(service: str) -> None:
    with pytest.raises(NotFound, match="cellar"):
        AttestRetriever.from_url(service, api_key="sesame", collection="cellar").invoke("wine")
    with pytest.raises(NotAllowed, match="ATTEST_ADMIN_KEY"):
        AttestRetriever.from_url(service, api_key="wrong").invoke("wine")
    with pytest.raises(InvalidInput, match="question"):
        AttestRetriever.from_url(service, api_key="sesame").invoke("x" * 5000)
    assert AttestRetriever.from_url(service).invoke("  ") == []


def test_a_service_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")  # not asked about our own machine
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        AttestRetriever.from_url("http://127.0.0.1:9").invoke("anything")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port", ""])
def test_an_address_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        AttestRetriever.from_url(url)


def test_connections_close_with_the_retriever(service: str) -> None:
    remote = AttestRetriever.from_url(service, api_key="sesame")
    remote.invoke("soup")
    http = remote.base._http  # type: ignore[union-attr]
    del remote
    gc.collect()
    assert http.is_closed
