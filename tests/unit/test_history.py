"""The past of a document: asked as of a time, gone back to, compared; edits; what goes, by its time or by request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from rag.catalog import answers, history, knowledge, versions
from rag.catalog.engine import now
from rag.catalog.tables import activations
from rag.errors import Conflict, Gone, NotFound, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Hit
from rag.retrieval.retrieve import retrieve
from rag.upkeep import retention, revisions
from rag.upkeep.retention import Retention
from tests.bases import Bases, Runs, file, found_texts, runs_in

RULE = "The limit of valve A-17 is {} bar."


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path)
    yield bases
    bases.close()


@pytest.fixture
def runs(bases: Bases) -> Runs:
    return runs_in(bases.open())


def editions(runs: Runs, *bars: int, key: str = "valve.txt") -> tuple[str, list[datetime]]:
    """One version for each; the document's id, and a moment within each version's time."""
    moments = []
    for bar in bars:
        assert runs.sync(file(key, RULE.format(bar)), file("other.txt", "Nothing about valves.")).problem is None
        moments.append(now())
    return runs.documents()[key].id, moments


def found_then(base: KnowledgeBase, question: str, moment: datetime) -> list[Hit]:
    return list(retrieve(question, base=base, collections=base.collections([]), k=8, as_of=moment).hits)


def texts_then(base: KnowledgeBase, moment: datetime) -> list[str]:
    return [hit.text for hit in found_then(base, "What is the limit of valve A-17?", moment) if "A-17" in hit.text]


def numbers(base: KnowledgeBase, document_id: str) -> dict[int, bool]:
    """Version → whether its text is kept."""
    with base.catalog.read() as snapshot:
        listed = versions.list_versions(snapshot, document_id)
    return {item.number: item.removed_at is None for item in listed}


# ── as of ─────────────────────────────────────────────────────────────────────────────────────


def test_a_question_about_the_past_finds_what_was_active_then_and_nothing_else(runs: Runs) -> None:
    _, (first, second, third) = editions(runs, 40, 55, 70)
    assert texts_then(runs.base, first) == [RULE.format(40)]
    assert texts_then(runs.base, second) == [RULE.format(55)]
    assert texts_then(runs.base, third) == [RULE.format(70)]
    assert found_then(runs.base, "valve", first - timedelta(days=1)) == []


def test_a_deleted_document_is_found_as_of_the_time_when_it_was_there(runs: Runs) -> None:
    _, (then,) = editions(runs, 40)
    runs.sync(file("other.txt", "Nothing about valves."), allow_deletes=True)
    assert not any("A-17" in text for text in found_texts(runs.base, "limit of valve A-17"))
    assert texts_then(runs.base, then) == [RULE.format(40)]


def test_the_past_scores_as_the_present_did(runs: Runs) -> None:
    """Exact vectors and a term index of its own: nothing of today leaks into yesterday's document frequencies."""
    _, (then,) = editions(runs, 40)
    question = "What is the limit of valve A-17?"
    before = retrieve(question, base=runs.base, collections=runs.base.collections([]), k=8).hits
    for number in range(30):
        runs.sync(file("valve.txt", RULE.format(41 + number)), file("more.txt", f"valve valve A-17 {number}"))
    after = found_then(runs.base, question, then)
    assert [hit.chunk_id for hit in after] == [hit.chunk_id for hit in before]
    for was, now_ in zip(before, after, strict=True):
        assert now_.arms.keys() == was.arms.keys()
        assert all(now_.arms[name] == pytest.approx(was.arms[name], abs=1e-3) for name in was.arms)


def test_a_citation_about_the_past_carries_the_title_of_then(runs: Runs) -> None:
    runs.sync(file("a.txt", "The limit is 40 bar.", title="Draft"))
    then = now()
    runs.sync(file("a.txt", "The limit is 55 bar.", title="Final"))
    assert {hit.title for hit in found_then(runs.base, "limit", then)} == {"Draft"}


def test_versions_of_then_that_are_not_kept_are_counted(runs: Runs) -> None:
    _, moments = editions(runs, 40, 55, 70)
    retention.tidy(runs.base, Retention(versions=1))
    found = retrieve("limit", base=runs.base, collections=runs.base.collections([]), k=8, as_of=moments[0])
    assert found.not_kept == 1
    assert [hit.text for hit in found.hits] == ["Nothing about valves."]


def test_a_clock_set_back_does_not_mix_the_past_up(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    document_id, _ = editions(runs, 40)
    monkeypatch.setattr("rag.catalog.engine.now", lambda: datetime(2001, 1, 1, tzinfo=UTC))
    runs.sync(file("valve.txt", RULE.format(55)), file("other.txt", "Nothing about valves."))
    monkeypatch.undo()
    with runs.base.catalog.read() as snapshot:
        began = snapshot.execute(
            select(activations.c.from_at)
            .where(activations.c.document_id == document_id)
            .order_by(activations.c.from_change)
        ).scalars()
        first, second = list(began)
    assert first < second
    assert texts_then(runs.base, first) == [RULE.format(40)]
    assert texts_then(runs.base, second) == [RULE.format(55)]


# ── going back ────────────────────────────────────────────────────────────────────────────────


def test_rolling_back_is_seen_at_once_and_embeds_nothing(runs: Runs, bases: Bases) -> None:
    document_id, _ = editions(runs, 40, 55)
    embedded = len(bases.embedder.embedded)
    assert revisions.roll_back(runs.base, document_id, 1).version == 1
    assert len(bases.embedder.embedded) == embedded
    assert RULE.format(40) in found_texts(runs.base, "limit of valve A-17")
    assert RULE.format(55) not in found_texts(runs.base, "limit of valve A-17")
    assert revisions.roll_back(runs.base, document_id, 1).version == 1  # again: nothing to do


def test_a_roll_back_stays_until_the_source_has_something_new(runs: Runs) -> None:
    document_id, _ = editions(runs, 40, 55)
    revisions.roll_back(runs.base, document_id, 1)
    other = file("other.txt", "Nothing about valves.")
    runs.sync(file("valve.txt", RULE.format(55)), other)
    assert runs.documents()["valve.txt"].version == 1
    runs.sync(file("valve.txt", RULE.format(55)), other, verify=True)
    assert runs.documents()["valve.txt"].version == 1
    runs.sync(file("valve.txt", RULE.format(70)), other)
    assert runs.documents()["valve.txt"].version == 3
    assert RULE.format(70) in found_texts(runs.base, "limit of valve A-17")


def test_going_back_to_what_is_not_there_is_refused(runs: Runs) -> None:
    document_id, _ = editions(runs, 40, 55, 70)
    with pytest.raises(NotFound):
        revisions.roll_back(runs.base, document_id, 9)
    with pytest.raises(NotFound):
        revisions.roll_back(runs.base, "doc_none", 1)
    retention.tidy(runs.base, Retention(versions=1))
    with pytest.raises(Gone, match="Version 1"):
        revisions.roll_back(runs.base, document_id, 1)


def test_a_version_that_the_index_lacks_is_not_gone_back_to(runs: Runs) -> None:
    document_id, _ = editions(runs, 40, 55)
    with runs.base.catalog.write() as connection:
        connection.exec_driver_sql("DELETE FROM chunks WHERE version = 1 AND document_id = ?", (document_id,))
    with pytest.raises(Conflict, match="not in the index"):
        revisions.roll_back(runs.base, document_id, 1)


def test_two_versions_are_compared_line_by_line(runs: Runs) -> None:
    runs.sync(file("a.txt", "One.\n\nTwo.\n\nThree.", title="Steps"))
    runs.sync(file("a.txt", "One.\n\n第二步。\n\nThree.", title="Steps"))
    document_id = runs.documents()["a.txt"].id
    lines = revisions.diff(runs.base, document_id, old=1, new=2).split("\n")
    assert lines[0].startswith("--- Steps (version 1)")
    assert "-Two." in lines
    assert "+第二步。" in lines
    assert revisions.diff(runs.base, document_id, old=2, new=2) == ""
    with pytest.raises(NotFound):
        revisions.diff(runs.base, document_id, old=1, new=7)


# ── retention ─────────────────────────────────────────────────────────────────────────────────


def test_the_last_versions_stay_and_older_ones_say_when_they_went(runs: Runs) -> None:
    document_id, _ = editions(runs, 40, 45, 50, 55, 60)
    assert retention.tidy(runs.base, Retention(versions=2)) == 3
    assert numbers(runs.base, document_id) == {1: False, 2: False, 3: False, 4: True, 5: True}
    with runs.base.catalog.read() as snapshot, pytest.raises(Gone, match=r"Version 1 .* was removed on"):
        versions.version_row(snapshot, document_id, 1)
    assert retention.tidy(runs.base, Retention(versions=2)) == 0
    assert RULE.format(60) in found_texts(runs.base, "limit of valve A-17")


def test_the_active_version_stays_though_newer_ones_crowd_it_out(runs: Runs) -> None:
    document_id, _ = editions(runs, 40, 45, 50, 55)
    revisions.roll_back(runs.base, document_id, 1)
    retention.tidy(runs.base, Retention(versions=2))
    assert numbers(runs.base, document_id) == {1: True, 2: False, 3: True, 4: True}
    assert RULE.format(40) in found_texts(runs.base, "limit of valve A-17")


def test_a_version_that_a_kept_answer_cites_stays_as_long_as_the_answer(runs: Runs) -> None:
    document_id, _ = editions(runs, 40, 45, 50)
    with runs.base.catalog.write() as connection:
        answers.keep_answer(
            connection, "ans_1", question="?", refused=False, answer={"id": "ans_1"}, cites=[(document_id, 1)]
        )
    retention.tidy(runs.base, Retention(versions=1))
    assert numbers(runs.base, document_id) == {1: True, 2: False, 3: True}
    retention.tidy(runs.base, Retention(versions=1, answers_days=-1))
    assert numbers(runs.base, document_id) == {1: False, 2: False, 3: True}
    with runs.base.catalog.read() as snapshot, pytest.raises(NotFound):
        answers.get_answer(snapshot, "ans_1")


def test_a_deleted_documents_versions_stay_for_their_time(runs: Runs) -> None:
    document_id, _ = editions(runs, 40, 45)
    runs.sync(file("other.txt", "Nothing about valves."), allow_deletes=True)
    retention.tidy(runs.base, Retention(versions=5, deleted_days=30))
    assert numbers(runs.base, document_id) == {1: True, 2: True}
    retention.tidy(runs.base, Retention(versions=5, deleted_days=-1))
    assert numbers(runs.base, document_id) == {1: False, 2: False}


def test_a_document_that_comes_back_after_its_versions_went_is_read_again(runs: Runs) -> None:
    document_id, _ = editions(runs, 40)
    other = file("other.txt", "Nothing about valves.")
    runs.sync(other, allow_deletes=True)
    retention.tidy(runs.base, Retention(deleted_days=-1))
    runs.sync(file("valve.txt", RULE.format(40)), other)
    assert runs.documents()["valve.txt"].id == document_id
    assert RULE.format(40) in found_texts(runs.base, "limit of valve A-17")


def test_vectors_and_originals_go_with_the_last_version_that_wants_them(runs: Runs) -> None:
    document_id, _ = editions(runs, 40, 45)
    runs.base.originals.put(b"somebody is about to refer to this")
    with runs.base.catalog.read() as snapshot:
        old = versions.version_row(snapshot, document_id, 1).content_sha256
        shared = versions.version_row(snapshot, runs.documents()["other.txt"].id, 1).content_sha256
        vectors_before = snapshot.exec_driver_sql("SELECT count(*) FROM vectors").scalar_one()
    runs.base.originals.path(old)
    make_old(runs.base)
    retention.tidy(runs.base, Retention(versions=1))
    with runs.base.catalog.read() as snapshot:
        assert snapshot.exec_driver_sql("SELECT count(*) FROM vectors").scalar_one() == vectors_before - 1
    with pytest.raises(Gone):
        runs.base.originals.path(old)
    assert runs.base.originals.get(shared)


def make_old(base: KnowledgeBase) -> None:
    """As if every original had been put there long ago."""
    import os

    for digest in base.originals.digests():
        os.utime(base.originals.path(digest), (0, 0))


def test_what_is_staged_and_was_never_active_is_not_retentions_to_judge(runs: Runs) -> None:
    from tests.bases import publish_text

    document_id, _ = editions(runs, 40)
    publish_text(runs.base, runs.collection, runs.source, "valve.txt", RULE.format(99), flip=False)
    retention.tidy(runs.base, Retention(versions=1))
    assert numbers(runs.base, document_id) == {1: True, 2: True}


# ── edits ─────────────────────────────────────────────────────────────────────────────────────


def test_edits_are_kept_by_every_sync_and_change_answers_at_once(runs: Runs, bases: Bases) -> None:
    document_id, _ = editions(runs, 40)
    embedded = len(bases.embedder.embedded)
    changed = revisions.edit(
        runs.base, document_id, title="Ventilhandbuch", metadata={"team": "Presses"}, tags=["safety", "safety", " "]
    )
    assert (changed.title, changed.tags, changed.metadata) == ("Ventilhandbuch", ("safety",), {"team": "Presses"})
    assert len(bases.embedder.embedded) == embedded
    runs.sync(file("valve.txt", RULE.format(55)), file("other.txt", "Nothing about valves."))
    kept = runs.documents()["valve.txt"]
    assert (kept.title, kept.tags, kept.metadata, kept.version) == (
        "Ventilhandbuch",
        ("safety",),
        {"team": "Presses"},
        2,
    )
    hits = retrieve("Ventilhandbuch", base=runs.base, collections=runs.base.collections([]), k=1).hits
    assert hits[0].document_id == document_id  # it is found by its new title
    assert hits[0].title == "Ventilhandbuch"


def test_what_the_source_says_comes_back_when_an_edit_is_taken_back(runs: Runs) -> None:
    with runs.base.catalog.write() as connection:
        document_id = knowledge.reserve_document(connection, runs.source.id, key="a", uri="files/a")
    editions(runs, 40)
    document_id = runs.documents()["valve.txt"].id
    own = runs.documents()["valve.txt"].title
    with runs.base.catalog.write() as connection:
        knowledge.set_metadata(connection, document_id, {"author": "Linn", "year": 2025})
    revisions.edit(runs.base, document_id, title="X", metadata={"author": None, "year": 2026})
    assert runs.documents()["valve.txt"].metadata == {"year": 2026}
    revisions.edit(runs.base, document_id, title="", back_to_source=["author", "year"])
    back = runs.documents()["valve.txt"]
    assert (back.title, back.metadata) == (own, {"author": "Linn", "year": 2025})


def test_a_disabled_document_is_in_no_answer_until_it_is_enabled(runs: Runs) -> None:
    document_id, (then,) = editions(runs, 40)
    revisions.edit(runs.base, document_id, enabled=False)
    assert not any("A-17" in text for text in found_texts(runs.base, "limit of valve A-17"))
    assert texts_then(runs.base, then) == []
    runs.sync(file("valve.txt", RULE.format(55)), file("other.txt", "Nothing about valves."))
    assert not any("A-17" in text for text in found_texts(runs.base, "limit of valve A-17"))
    revisions.edit(runs.base, document_id, enabled=True)
    assert RULE.format(55) in found_texts(runs.base, "limit of valve A-17")


# ── without a trace ───────────────────────────────────────────────────────────────────────────


def test_a_purged_document_is_gone_and_says_so(runs: Runs) -> None:
    document_id, (then,) = editions(runs, 40)
    purged = retention.purge(runs.base, document_id)
    assert (purged.comes_back, purged.backups) == (True, ())
    with runs.base.catalog.read() as snapshot, pytest.raises(Gone, match="purged"):
        knowledge.get_document(snapshot, document_id)
    with pytest.raises(Gone):
        retention.purge(runs.base, document_id)
    with pytest.raises(NotFound):
        retention.purge(runs.base, "doc_none")
    assert not any("A-17" in text for text in found_texts(runs.base, "limit of valve A-17"))
    assert texts_then(runs.base, then) == []


def test_answers_that_quote_a_purged_document_go_with_it(runs: Runs) -> None:
    document_id, _ = editions(runs, 40)
    other = runs.documents()["other.txt"].id
    with runs.base.catalog.write() as connection:
        for name, cited in (("ans_1", document_id), ("ans_2", other)):
            body = {"citations": [{"document_id": cited}]}
            answers.keep_answer(connection, name, question="?", refused=False, answer=body, cites=[(cited, 1)])
        closest = {"refusal": {"closest": [{"document_id": document_id}]}}
        answers.keep_answer(connection, "ans_3", question="?", refused=True, answer=closest, cites=[])
    retention.purge(runs.base, document_id)
    with runs.base.catalog.read() as snapshot:
        assert answers.get_answer(snapshot, "ans_2").id == "ans_2"
        for name in ("ans_1", "ans_3"):
            with pytest.raises(NotFound):
                answers.get_answer(snapshot, name)


def test_a_purge_that_was_killed_is_completed_at_the_next_start(runs: Runs, bases: Bases) -> None:
    document_id, _ = editions(runs, 40)
    with runs.base.catalog.read() as snapshot:
        traces = history.traces_of(snapshot, document_id)
    runs.base.caches.purge(traces)  # … and killed here
    digest = next(iter(traces.originals))
    runs.base.originals.path(digest)
    again = bases.open()
    retention.finish_purges(again)
    with pytest.raises(Gone):
        again.originals.path(digest)
    with again.catalog.read() as snapshot:
        assert history.unfinished_purges(snapshot) == []


def test_a_purge_that_cannot_reach_chroma_says_so_and_is_completed_later(
    runs: Runs, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    document_id, _ = editions(runs, 40)

    def away() -> None:
        raise Unavailable("Chroma is away.")

    monkeypatch.setattr(bases.vectors, "wipe", away)
    with pytest.raises(Unavailable, match="may hold vectors"):
        retention.purge(runs.base, document_id)
    assert not any("A-17" in text for text in found_texts(runs.base, "limit of valve A-17"))
    monkeypatch.undo()
    again = bases.open()
    retention.finish_purges(again)
    with again.catalog.read() as snapshot:
        assert history.unfinished_purges(snapshot) == []
