"""Versions: staged is invisible, flipped is visible, leftovers go, vectors and places come back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from rag.catalog import knowledge, versions
from rag.catalog.engine import Connection
from rag.catalog.tables import documents, pending
from rag.catalog.tables import versions as version_table
from rag.catalog.versions import Flip, NewVersion, sha256
from rag.errors import NotFound
from rag.knowledge import KnowledgeBase
from rag.models import Block, Collection, Hit, Page, Parsed, Piece, Place, SourceRecord
from tests.bases import Bases, lines, publish_text, source_in


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    bases = Bases(tmp_path)
    yield bases.open()
    bases.close()


@pytest.fixture
def into(base: KnowledgeBase) -> tuple[Collection, SourceRecord]:
    return source_in(base)


def stage(
    connection: Connection, document_id: str, parsed: Parsed, pieces: list[Piece], *, index_id: int
) -> tuple[int, list[int]]:
    new = NewVersion(document_id, "c", "text/1", None, "a.txt", "A", parsed, pieces)
    return versions.stage(connection, new, index_id=index_id)


def hits(base: KnowledgeBase, keys: list[int]) -> dict[int, Hit]:
    with base.catalog.read() as snapshot:
        found = versions.read_chunks(snapshot, keys)
    return {key: chunk.hit(score=0.0, arms={"terms": 1.0}) for key, chunk in found.items()}


def active(base: KnowledgeBase, collection: Collection) -> set[int]:
    with base.catalog.read() as snapshot:
        return versions.active_keys(snapshot, collection.index_id)


# ── what is active ────────────────────────────────────────────────────────────────────────────


def test_staged_is_invisible_and_flipped_is_visible(base: KnowledgeBase, into: tuple[Collection, SourceRecord]) -> None:
    document_id, number, keys = publish_text(base, *into, "a.txt", "One.\nTwo.", flip=False)
    assert (hits(base, keys), active(base, into[0])) == ({}, set())
    publish_text(base, *into, "a.txt", "Three.")
    assert hits(base, keys) == {}
    with base.catalog.write() as connection:
        flip = [Flip(document_id, 2, number)]
        versions.flip(connection, flip, collection_id=into[0].id, index_id=into[0].index_id)
    assert sorted(hits(base, keys)) == keys
    assert active(base, into[0]) == set(keys)


def test_the_next_version_takes_the_place_of_the_last(
    base: KnowledgeBase, into: tuple[Collection, SourceRecord]
) -> None:
    document_id, first, old = publish_text(base, *into, "a.txt", "One.\nTwo.")
    same_id, second, new = publish_text(base, *into, "a.txt", "Three.\nFour.\nFive.")
    assert (same_id, first, second) == (document_id, 1, 2)
    found = hits(base, old + new)
    assert sorted(found) == new
    assert {hit.version for hit in found.values()} == {2}
    assert active(base, into[0]) == set(new)
    with base.catalog.read() as snapshot:
        listed = versions.list_versions(snapshot, document_id)
        assert [(version.number, version.active) for version in listed] == [(2, True), (1, False)]


def test_a_flip_to_nothing_hides_the_document(base: KnowledgeBase, into: tuple[Collection, SourceRecord]) -> None:
    document_id, number, keys = publish_text(base, *into, "a.txt", "One.")
    base.caches.retire([(document_id, number)], collection=into[0])
    assert (hits(base, keys), active(base, into[0])) == ({}, set())
    with base.catalog.read() as snapshot:
        assert versions.active_version(snapshot, document_id) is None
        with pytest.raises(NotFound):
            knowledge.get_document(snapshot, document_id)
        with pytest.raises(NotFound):
            versions.version_row(snapshot, document_id, None)
        assert versions.version_row(snapshot, document_id, 1).text == "One."


def test_disabled_documents_give_no_hits_and_keep_their_keys(
    base: KnowledgeBase, into: tuple[Collection, SourceRecord]
) -> None:
    document_id, _, keys = publish_text(base, *into, "a.txt", "One.")
    with base.catalog.write() as connection:
        connection.execute(update(documents).where(documents.c.id == document_id).values(enabled=False))
    assert hits(base, keys) == {}
    assert active(base, into[0]) == set(keys)  # so that enabling it again needs no embedding


def test_chunks_of_an_index_that_is_not_the_collections_own_give_no_hits(
    base: KnowledgeBase, into: tuple[Collection, SourceRecord]
) -> None:
    other, _ = source_in(base, collection="other")
    parsed, pieces = lines("One.")
    document_id, _, keys = publish_text(base, *into, "a.txt", "One.")
    with base.catalog.write() as connection:
        number, foreign = stage(connection, document_id, parsed, pieces, index_id=other.index_id)
        flip = [Flip(document_id, 1, number)]
        versions.flip(connection, flip, collection_id=into[0].id, index_id=into[0].index_id)
    assert hits(base, [*keys, *foreign]) == {}


def test_a_hit_is_the_stored_text_at_its_offsets(base: KnowledgeBase, into: tuple[Collection, SourceRecord]) -> None:
    text = "年假二十五天。\nThe office opens at nine. 😀\nThird."
    document_id, _, keys = publish_text(base, *into, "a.txt", text, title="手册")
    for hit in hits(base, keys).values():
        assert text[hit.start : hit.end] == hit.text
        assert (hit.document_id, hit.title, hit.uri, hit.collection_id) == (
            document_id,
            "手册",
            "files/a.txt",
            into[0].id,
        )
        assert hit.arms == {"terms": 1.0}


# ── leftovers and pending flips ───────────────────────────────────────────────────────────────


def test_collecting_removes_what_was_only_staged_and_no_version_that_ever_was_active(
    base: KnowledgeBase, into: tuple[Collection, SourceRecord]
) -> None:
    kept_id, *_ = publish_text(base, *into, "kept.txt", "One.")
    publish_text(base, *into, "kept.txt", "Two.")  # 1 was active once
    publish_text(base, *into, "kept.txt", "Three.", flip=False)
    gone_id, _, staged = publish_text(base, *into, "new.txt", "Four.", flip=False)
    retired_id, *_ = publish_text(base, *into, "retired.txt", "Five.")
    base.caches.retire([(retired_id, 1)], collection=into[0])
    with base.catalog.write() as connection:
        assert versions.collect_staged(connection) == 2
        assert versions.collect_staged(connection) == 0
        rows = connection.execute(select(version_table.c.document_id, version_table.c.number)).all()
        assert sorted(map(tuple, rows)) == sorted([(kept_id, 1), (kept_id, 2), (retired_id, 1)])
        assert versions.chunk_keys(connection, [(gone_id, 1)], index_id=into[0].index_id) == []
        assert list(versions.term_entries(connection, staged)) == []


def test_a_flip_is_noted_until_the_terms_have_followed(
    base: KnowledgeBase, into: tuple[Collection, SourceRecord]
) -> None:
    document_id, _, _ = publish_text(base, *into, "a.txt", "One.", flip=False)
    with base.catalog.write() as connection:
        flip = Flip(document_id, None, 1)
        change = versions.flip(connection, [flip], collection_id=into[0].id, index_id=into[0].index_id)
        [noted] = versions.pending_flips(connection)
        assert (noted.collection_id, noted.index_id, noted.flip) == (into[0].id, into[0].index_id, flip)
        versions.clear_pending(connection, collection_id="another", up_to_change=change)
        versions.clear_pending(connection, collection_id=into[0].id, up_to_change=change - 1)
        assert versions.pending_flips(connection) == [noted]
        versions.clear_pending(connection, collection_id=into[0].id, up_to_change=change)
        assert connection.execute(select(pending)).all() == []


# ── vectors ───────────────────────────────────────────────────────────────────────────────────


def test_vectors_come_back_nearly_as_they_were_with_length_one(
    base: KnowledgeBase, into: tuple[Collection, SourceRecord]
) -> None:
    text = "\n".join(f"Sentence {number} about subject {number * 7}." for number in range(50))
    _, _, keys = publish_text(base, *into, "a.txt", text)
    with base.catalog.read() as snapshot:
        found, matrix = versions.vectors_of(snapshot, keys)
        all_found, all_matrix = versions.active_vectors(snapshot, into[0].index_id)
    assert sorted(found) == keys
    assert sorted(all_found) == keys
    assert matrix.dtype == np.float32
    assert np.allclose(np.linalg.norm(matrix, axis=1), 1.0, atol=1e-6)
    original = dict(zip(keys, base.embedder.embed_passages(text.split("\n")), strict=True))
    for some_keys, some in ((found, matrix), (all_found, all_matrix)):
        for key, vector in zip(some_keys, some, strict=True):
            assert float(vector @ original[key]) > 0.999


def test_only_vectors_that_are_not_there_are_missing_and_the_first_one_stays(
    base: KnowledgeBase, into: tuple[Collection, SourceRecord]
) -> None:
    first, second = np.eye(4, dtype=np.float32)[:2]
    with base.catalog.write() as connection:
        embedder_id = versions.embedder_of(connection, into[0].index_id)[0]
        versions.save_vectors(connection, embedder_id, {"a": first})
        versions.save_vectors(connection, embedder_id, {"a": second, "b": second})
        versions.save_vectors(connection, embedder_id, {})
        assert versions.missing_vectors(connection, embedder_id, ["a", "b", "c", "c"]) == {"c"}
        assert versions.missing_vectors(connection, embedder_id, [f"x{n}" for n in range(1200)] + ["a"]) == {
            f"x{n}" for n in range(1200)
        }


def test_no_keys_have_no_vectors(base: KnowledgeBase, into: tuple[Collection, SourceRecord]) -> None:
    with base.catalog.read() as snapshot:
        assert versions.vectors_of(snapshot, [])[0] == []
        assert versions.active_vectors(snapshot, into[0].index_id)[0] == []


def test_vectors_belong_to_the_text_embedded_heading_included() -> None:
    plain, headed = Piece(0, 4, "text", "", 1), Piece(0, 4, "text", "Title", 1)
    assert sha256(plain.embedded_text) != sha256(headed.embedded_text)


# ── places ────────────────────────────────────────────────────────────────────────────────────


def test_every_offset_of_a_hit_knows_its_page_section_and_row(
    base: KnowledgeBase, into: tuple[Collection, SourceRecord]
) -> None:
    #       0         1         2         3
    #       0123456789012345678901234567890123456
    text = "Preface.\n\nRules\nFirst.\nSecond.\nRow 1"
    parsed = Parsed(
        text,
        (
            Block("paragraph", 0, 8, page=1),
            Block("heading", 10, 15, ("Rules",), page=2, level=1),
            Block("paragraph", 16, 22, ("Rules",), page=2),
            Block("paragraph", 23, 30, ("Rules",), page=3),
            Block("table_row", 31, 36, ("Rules", "Prices"), page=3, row="Drill / 1"),
        ),
        pages=(Page(1, "i", 0, 9), Page(2, "1", 10, 22), Page(3, "2", 23, 36)),
    )
    pieces = [
        Piece(0, 8, text[0:8], "", 1),
        Piece(10, 30, text[10:30], "", 4),  # over two pages
        Piece(26, 36, text[26:36], "", 3),  # from the middle of a block
    ]
    with base.catalog.write() as connection:
        document_id = knowledge.reserve_document(connection, into[1].id, key="a.pdf", uri="files/a.pdf")
        number, keys = stage(connection, document_id, parsed, pieces, index_id=into[0].index_id)
    publish = [Flip(document_id, None, number)]
    base.caches.publish(publish, collection=into[0], staged_keys=[])
    preface, rules, row = (hits(base, keys)[key] for key in keys)

    assert preface.place == Place(1, "i", None, None)
    assert rules.place == Place(2, "1", "Rules", None)
    assert [rules.place_at(offset).page for offset in (10, 15, 16, 22, 23, 29)] == [2, 2, 2, 2, 3, 3]
    assert len(rules.places) == 2  # the heading and its paragraph stand at the same place
    assert row.place_at(26) == Place(3, "2", "Rules", None)
    assert row.place_at(31) == Place(3, "2", "Rules › Prices", "Drill / 1")
    assert row.place == Place(3, "2", "Rules", None)


def test_a_hit_without_blocks_stands_nowhere_in_particular() -> None:
    parsed = Parsed("text", ())
    assert versions._places(parsed, [Piece(0, 4, "text", "", 1)]) == [[]]
