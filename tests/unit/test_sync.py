"""A sync brings the knowledge base to what its source says, costs what changed, and survives what goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ingest.sync import Cancelled
from rag.catalog import knowledge, versions
from rag.catalog.engine import Catalog
from rag.catalog.jobs import Counts
from rag.errors import DocumentError, NotAllowed, SourceError
from rag.models import Item, Original, Parsed, Unlisted
from tests.bases import Bases, ListSource, Runs, file, found_texts, lines, runs_in, unlisted

HANDBOOK = "Employees have 25 days of leave a year.\n\nThe office in Porto opens at nine."
HANDBOOK_NEW = "Employees have 30 days of leave a year.\n\nThe office in Porto opens at nine."
MANUAL = "The drill weighs 1.8 kilograms.\n\nIts battery lasts four hours."
CHINESE = "员工每年有二十五天年假。\n\n波尔图办公室九点开门。"


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path)
    yield bases
    bases.close()


@pytest.fixture
def runs(bases: Bases) -> Runs:
    return runs_in(bases.open())


def states(runs: Runs) -> dict[str, str]:
    return {item.key: item.state for item in runs.items}


def everything(catalog: Catalog) -> dict[str, list[Any]]:
    """Every row of every table, apart from the number of the last change."""
    from rag.catalog.tables import metadata

    with catalog.read() as snapshot:
        return {
            table.name: sorted(map(str, snapshot.execute(table.select())))
            for table in metadata.sorted_tables
            if table.name not in ("facts", "sources")  # when it was synced last is no content
        }


def unreadable(status: str = "failed") -> Item:
    def load() -> Original:
        raise DocumentError(status, "The file is locked.", remedy="Close it.")

    return file("handbook.txt", load, state={"hash": "locked"})


# ── counting what changed ─────────────────────────────────────────────────────────────────────


def test_what_is_new_is_added_and_found(runs: Runs) -> None:
    report = runs.sync(file("handbook.txt", HANDBOOK), file("manual.txt", MANUAL), file("手册.txt", CHINESE))
    assert (report.counts, report.problem) == (Counts(added=3), None)
    assert states(runs) == {"handbook.txt": "added", "manual.txt": "added", "手册.txt": "added"}
    assert "25 days" in found_texts(runs.base, "How many days of leave?")[0]
    assert "二十五天" in found_texts(runs.base, "员工有多少天年假？")[0]


def test_a_second_run_embeds_nothing_and_changes_no_row(runs: Runs, bases: Bases) -> None:
    content = [file("handbook.txt", HANDBOOK), file("manual.txt", MANUAL)]
    runs.sync(*content)
    before, embedded = everything(runs.base.catalog), len(bases.embedder.embedded)
    report = runs.sync(*content)
    assert report.counts == Counts(unchanged=2)
    assert len(bases.embedder.embedded) == embedded
    assert everything(runs.base.catalog) == before
    assert runs.items == []


def test_what_changed_is_replaced_and_its_old_text_is_gone(runs: Runs) -> None:
    runs.sync(file("handbook.txt", HANDBOOK), file("manual.txt", MANUAL))
    report = runs.sync(file("handbook.txt", HANDBOOK_NEW), file("manual.txt", MANUAL))
    assert report.counts == Counts(changed=1, unchanged=1)
    texts = " ".join(found_texts(runs.base, "How many days of leave?"))
    assert "30 days" in texts
    assert "25 days" not in texts
    assert runs.documents()["handbook.txt"].version == 2


def test_what_is_gone_is_found_no_more(runs: Runs) -> None:
    runs.sync(file("handbook.txt", HANDBOOK), file("manual.txt", MANUAL))
    report = runs.sync(file("manual.txt", MANUAL))
    assert report.counts == Counts(unchanged=1, deleted=1)
    assert states(runs) == {"handbook.txt": "deleted"}
    assert not any("leave" in text for text in found_texts(runs.base, "How many days of leave?"))
    assert set(runs.documents()) == {"manual.txt"}


def test_a_renamed_file_embeds_nothing(runs: Runs, bases: Bases) -> None:
    runs.sync(file("handbook.txt", HANDBOOK, title="Handbook"))
    embedded = len(bases.embedder.embedded)
    report = runs.sync(file("handbook-2026.txt", HANDBOOK, title="Handbook"))
    assert report.counts == Counts(added=1, deleted=1)
    assert len(bases.embedder.embedded) == embedded
    assert found_texts(runs.base, "How many days of leave?")


def test_equal_texts_share_their_vectors(runs: Runs, bases: Bases) -> None:
    runs.sync(file("a.txt", MANUAL, title="Manual"), file("b.txt", MANUAL, title="Manual"))
    assert len(bases.embedder.embedded) == len(set(bases.embedder.embedded))
    assert len(found_texts(runs.base, "How heavy is the drill?")) == 2


def test_other_bytes_with_the_same_text_are_unchanged_and_make_no_version(runs: Runs, bases: Bases) -> None:
    runs.sync(file("handbook.txt", HANDBOOK))
    embedded = len(bases.embedder.embedded)
    report = runs.sync(file("handbook.txt", HANDBOOK.replace("\n", "\r\n")))
    assert report.counts == Counts(unchanged=1)
    assert (runs.documents()["handbook.txt"].version, len(bases.embedder.embedded)) == (1, embedded)
    assert runs.sync(file("handbook.txt", HANDBOOK.replace("\n", "\r\n"))).counts == Counts(unchanged=1)


def test_the_same_bytes_in_another_state_are_unchanged(runs: Runs) -> None:
    """A file that was touched, or copied back from a backup."""
    runs.sync(file("handbook.txt", HANDBOOK, state={"mtime": "1"}))
    assert runs.sync(file("handbook.txt", HANDBOOK, state={"mtime": "2"})).counts == Counts(unchanged=1)

    def never() -> Original:
        raise AssertionError("its state is the one that was kept")

    assert runs.sync(file("handbook.txt", never, state={"mtime": "2"})).counts == Counts(unchanged=1)


def test_a_source_without_states_is_read_every_time(runs: Runs) -> None:
    runs.sync(file("handbook.txt", HANDBOOK, state={}))
    assert runs.sync(file("handbook.txt", HANDBOOK_NEW, state={})).counts == Counts(changed=1)


def test_verify_reads_what_the_source_calls_unchanged(runs: Runs) -> None:
    runs.sync(file("handbook.txt", HANDBOOK, state={"mtime": "1"}))
    quietly_changed = file("handbook.txt", HANDBOOK_NEW, state={"mtime": "1"})
    assert runs.sync(quietly_changed).counts == Counts(unchanged=1)
    assert runs.sync(quietly_changed, verify=True).counts == Counts(changed=1)


def test_metadata_that_changes_beside_the_text_is_kept_without_a_new_version(runs: Runs) -> None:
    def row(price: float) -> Item:
        def load() -> Original:
            parsed, _ = lines("name: Drill")
            return Original(
                b"name: Drill",
                "drill",
                title="Drill",
                metadata={"price": price, "since": date(2026, 1, 2)},
                parsed=parsed,
            )

        return file("products/1", load, state={"updated": str(price)})

    runs.sync(row(99.0))
    assert runs.sync(row(89.0)).counts == Counts(unchanged=1)
    document = runs.documents()["products/1"]
    assert (document.metadata, document.version) == ({"price": 89, "since": date(2026, 1, 2)}, 1)


def test_a_new_title_of_the_same_bytes_is_a_change(runs: Runs) -> None:
    """The title is embedded with each chunk."""
    runs.sync(file("a.txt", MANUAL, title="Old title", state={"title": "old"}))
    assert runs.sync(file("a.txt", MANUAL, title="New title", state={"title": "new"})).counts == Counts(changed=1)
    assert runs.documents()["a.txt"].title == "New title"


def test_a_document_that_comes_back_has_its_id_and_a_higher_version(runs: Runs, bases: Bases) -> None:
    runs.sync(file("handbook.txt", HANDBOOK), file("manual.txt", MANUAL))
    before = runs.documents()["handbook.txt"]
    runs.sync(file("manual.txt", MANUAL))
    embedded = len(bases.embedder.embedded)
    report = runs.sync(file("handbook.txt", HANDBOOK), file("manual.txt", MANUAL))
    after = runs.documents()["handbook.txt"]
    assert report.counts == Counts(added=1, unchanged=1)
    assert (after.id, after.version) == (before.id, 2)
    assert len(bases.embedder.embedded) == embedded
    assert "25 days" in found_texts(runs.base, "How many days of leave?")[0]


def test_a_key_listed_twice_counts_once(runs: Runs) -> None:
    assert runs.sync(file("a.txt", MANUAL), file("a.txt", HANDBOOK)).counts == Counts(added=1)


# ── what cannot be read ───────────────────────────────────────────────────────────────────────


def test_a_failed_reading_keeps_the_last_good_version_with_its_title_and_says_so(runs: Runs) -> None:
    runs.sync(file("handbook.txt", HANDBOOK, title="The Handbook"))
    report = runs.sync(unreadable())
    assert report.counts == Counts(failed=1)
    [item] = runs.items
    assert item.problem is not None
    assert item.problem.detail == "The file is locked."
    assert "stays searchable" in item.problem.remedy
    document = runs.documents()["handbook.txt"]
    assert (document.status, document.version, document.title) == ("failed", 1, "The Handbook")
    assert document.problems[0].detail == "The file is locked."
    assert "25 days" in found_texts(runs.base, "How many days of leave?")[0]


@pytest.mark.parametrize("status", ["failed", "unsupported"])
def test_what_can_be_read_again_is_ok_again_and_no_new_version(runs: Runs, status: str) -> None:
    runs.sync(file("handbook.txt", HANDBOOK))
    runs.sync(unreadable(status))
    assert runs.sync(file("handbook.txt", HANDBOOK)).counts == Counts(unchanged=1)
    document = runs.documents()["handbook.txt"]
    assert (document.status, document.version, document.problems) == ("ok", 1, ())


def test_a_failure_is_tried_again_though_its_state_is_the_same(runs: Runs) -> None:
    runs.sync(unreadable())
    good = file("handbook.txt", HANDBOOK, state={"hash": "locked"})
    assert runs.sync(good).counts == Counts(added=1)


def test_a_document_that_never_could_be_read_is_listed_with_its_reason(runs: Runs) -> None:
    report = runs.sync(unreadable("needs_password"), file("manual.txt", MANUAL))
    assert report.counts == Counts(added=1, failed=1)
    document = runs.documents()["handbook.txt"]
    assert (document.status, document.version) == ("needs_password", None)
    assert document.problems[0].remedy == "Close it."


def test_a_scan_without_ocr_is_kept_for_later_and_not_read_twice(runs: Runs) -> None:
    def scan() -> Original:
        return Original(b"%PDF- a picture", "scan.pdf")

    read: list[str] = []

    def reader(data: bytes, *, name: str, **_: object) -> Parsed:
        read.append(name)
        return Parsed("", (), status="needs_ocr")

    def sync(*items: Item) -> Counts:
        return replace(runs.make(), read=reader).run(ListSource(items), _options()).counts

    assert sync(file("scan.pdf", scan, state={"size": "15"})) == Counts(failed=1)
    assert sync(file("scan.pdf", scan, state={"size": "15"})) == Counts(unchanged=1)
    assert read == ["scan.pdf"]
    document = runs.documents()["scan.pdf"]
    assert (document.status, document.version, document.problems[0].code) == ("needs_ocr", None, "needs-ocr")
    with runs.base.catalog.read() as snapshot:
        digest = knowledge.known_documents(snapshot, runs.source.id)["scan.pdf"].content_sha256
    assert digest is not None
    assert runs.base.originals.get(digest) == b"%PDF- a picture"


def _options() -> Any:
    from ingest.sync import SyncOptions

    return SyncOptions()


def test_a_document_of_nothing_is_empty_not_ok(runs: Runs) -> None:
    def load() -> Original:
        return Original(b"", "row", parsed=Parsed("", ()))

    assert runs.sync(file("row", load)).counts == Counts(failed=1)
    document = runs.documents()["row"]
    assert (document.status, document.problems[0].code) == ("empty", "empty")


@pytest.mark.parametrize("error", [RuntimeError("a bug in a reader"), NotAllowed("That address is private.")])
def test_one_bad_item_never_stops_the_others(runs: Runs, error: Exception) -> None:
    def load() -> Original:
        raise error

    report = runs.sync(file("bad.txt", load), file("manual.txt", MANUAL))
    assert (report.counts, report.problem) == (Counts(added=1, failed=1), None)
    assert runs.documents()["bad.txt"].status == "failed"


def test_an_item_that_could_not_be_listed_keeps_its_copy_and_counts_as_failed(runs: Runs) -> None:
    runs.sync(file("handbook.txt", HANDBOOK))
    report = runs.sync(unlisted("handbook.txt"))
    assert (report.counts, report.problem) == (Counts(failed=1), None)
    assert runs.items[0].problem is not None
    assert "25 days" in found_texts(runs.base, "How many days of leave?")[0]


# ── what may be deleted ───────────────────────────────────────────────────────────────────────


def test_a_listing_that_broke_off_deletes_nothing_and_keeps_what_it_brought(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL))
    report = runs.sync(file("c.txt", CHINESE), file("d.txt", "The canteen is closed on Sundays."), fails_after=2)
    assert report.problem is not None
    assert (report.problem.code, report.problem.remedy) == ("source-unreachable", "Mount it again.")
    assert report.counts == Counts(added=2)
    assert set(runs.documents()) == {"a.txt", "b.txt", "c.txt", "d.txt"}


def test_a_source_that_is_away_from_the_start_deletes_nothing(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK))
    report = runs.sync(fails_after=0)
    assert report.problem is not None
    assert set(runs.documents()) == {"a.txt"}


def test_deleting_more_than_a_fifth_stops_and_asks(runs: Runs) -> None:
    content = [file(f"{number:02}.txt", f"Note {number} speaks of matter {number}.") for number in range(20)]
    runs.sync(*content)
    report = runs.sync(*content[5:])
    assert report.problem is not None
    assert report.problem.code == "mass-deletion"
    assert "5 of 20" in report.problem.detail
    assert len(runs.documents()) == 20
    assert runs.sync(*content[5:], allow_deletes=True).counts == Counts(unchanged=15, deleted=5)
    assert len(runs.documents()) == 15


def test_a_partial_listing_deletes_nothing(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK))
    assert runs.sync(file("b.txt", MANUAL), partial=True).counts == Counts(added=1)
    assert set(runs.documents()) == {"a.txt", "b.txt"}


# ── planning ──────────────────────────────────────────────────────────────────────────────────


def test_a_plan_touches_nothing_and_says_what_the_run_does(runs: Runs, bases: Bases) -> None:
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL), file("c.txt", CHINESE))
    before, embedded = everything(runs.base.catalog), len(bases.embedder.embedded)
    content: list[Item | Unlisted] = [
        file("a.txt", HANDBOOK),
        file("b.txt", HANDBOOK_NEW),
        file("d.txt", "New here."),
        unlisted("e.txt"),
    ]
    plan = runs.plan(*content)
    assert (everything(runs.base.catalog), len(bases.embedder.embedded)) == (before, embedded)
    assert plan == [
        ("unchanged", "a.txt", "files/a.txt"),
        ("changed", "b.txt", "files/b.txt"),
        ("added", "d.txt", "files/d.txt"),
        ("failed", "e.txt", "files/e.txt"),
        ("deleted", "c.txt", "files/c.txt"),
    ]
    runs.sync(*content)
    assert states(runs) == {key: state for state, key, _ in plan if state != "unchanged"}


def test_a_plan_of_a_source_that_is_away_says_so(runs: Runs) -> None:
    with pytest.raises(SourceError):
        runs.make().plan(ListSource([], fails_after=0), _options())


# ── stopping and crashing ─────────────────────────────────────────────────────────────────────


def test_cancelling_leaves_whole_documents_only_and_the_next_run_brings_the_rest(runs: Runs) -> None:
    content = [file(f"{number:02}.txt", f"Note {number} speaks of matter {number}.") for number in range(12)]
    asked = 0

    def after_a_while() -> bool:
        nonlocal asked
        asked += 1
        return asked > 15

    runs.cancelled = after_a_while
    with pytest.raises(Cancelled):
        runs.sync(*content)
    for document in runs.documents().values():
        assert document.version is not None
        assert document.chunks > 0
    runs.cancelled = lambda: False
    report = runs.sync(*content)
    assert report.counts.added + report.counts.unchanged == 12
    assert len(runs.documents()) == 12


def cancelled_after(runs: Runs, started: threading.Event, sync: Callable[[], object]) -> float:
    """Seconds from a cancel in the middle of the work to its end."""
    asked = threading.Event()
    runs.cancelled = asked.is_set
    ended: list[float] = []

    def work() -> None:
        with pytest.raises(Cancelled):
            sync()
        ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10)
    cancelled_at = time.monotonic()
    asked.set()
    thread.join(10)
    return ended[0] - cancelled_at


def test_a_cancel_does_not_wait_for_what_is_being_read(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    reading, go = threading.Event(), threading.Event()

    def slow(data: bytes, *, name: str, **_: object) -> Parsed:
        reading.set()
        go.wait(10)
        raise RuntimeError("This sandbox is closed.")

    sync = replace(runs.make(), read=slow)
    content = [file(f"{number}.txt", f"Note {number}.") for number in range(5)]
    seconds = cancelled_after(runs, reading, lambda: sync.run(ListSource(content), _options()))
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("read"):
            thread.join(10)
    assert seconds < 1
    assert runs.documents() == {}
    assert caplog.text == ""  # what the closed sandbox says to a job that stops is no error


def test_a_cancel_is_heard_between_two_embeddings(runs: Runs, bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = threading.Event()
    embed = bases.embedder.embed_passages
    batches: list[int] = []

    def slow(texts: Sequence[str], **options: Any) -> Any:
        batches.append(len(texts))
        embedding.set()
        while len(batches) == 1 and not runs.cancelled():
            time.sleep(0.002)
        return embed(texts, **options)

    monkeypatch.setattr(bases.embedder, "embed_passages", slow)
    book = "\n\n".join(f"Paragraph {number} speaks of {'matter ' * 30}{number}." for number in range(300))
    cancelled_after(runs, embedding, lambda: runs.sync(file("book.txt", book)))
    assert len(batches) == 1
    assert runs.documents() == {}
    runs.cancelled = lambda: False
    assert runs.sync(file("book.txt", book)).counts == Counts(added=1)
    assert len(batches) > 3
    assert (
        len(bases.embedder.embedded) == len(set(bases.embedder.embedded)) + batches[0]
    )  # the first one was for nothing


@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "same process"])
def test_a_crash_before_the_flip_leaves_the_old_version_and_a_rerun_completes(bases: Bases, restart: bool) -> None:
    runs = runs_in(bases.open())
    runs.sync(file("a.txt", HANDBOOK))
    content = [file("a.txt", HANDBOOK_NEW), file("b.txt", MANUAL)]

    class Crash(BaseException):
        """What no handler of ours may stop."""

    def crash(*_: object, **__: object) -> int:
        raise Crash

    runs.base.caches.publish = crash  # type: ignore[method-assign]
    with pytest.raises(Crash):
        runs.sync(*content)
    assert "25 days" in found_texts(runs.base, "How many days of leave?")[0]
    assert set(runs.documents()) == {"a.txt"}

    if restart:
        runs = runs_in(bases.open())
        with runs.base.catalog.read() as snapshot:
            assert len(versions.list_versions(snapshot, runs.documents()["a.txt"].id)) == 1
    else:
        del runs.base.caches.publish
    embedded = len(bases.embedder.embedded)
    assert runs.sync(*content).counts == Counts(added=1, changed=1)
    assert len(bases.embedder.embedded) == embedded  # their vectors were stored with what was staged
    texts = found_texts(runs.base, "How many days of leave?")
    assert "30 days" in texts[0]
    assert not any("25 days" in text for text in texts)
    assert len(texts) == len(set(texts))
    assert runs.sync(*content).counts == Counts(unchanged=2)


def test_progress_ends_with_everything_done(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL))
    runs.sync(file("a.txt", HANDBOOK_NEW), file("b.txt", MANUAL))
    last = runs.progress[-1]
    assert (last.done, last.total, last.counts) == (2, 2, Counts(changed=1, unchanged=1))
    done = [progress.done for progress in runs.progress]
    assert done == sorted(done)


def test_progress_never_runs_past_its_total(runs: Runs) -> None:
    """A run that was cut off leaves fewer documents than there are: then the total is unknown, not too small."""
    content = [file(f"{number:02}.txt", f"Note {number} speaks of matter {number}.") for number in range(40)]
    runs.sync(*content[:3])
    runs.sync(*content)
    assert runs.progress[0].total == 3
    assert all(progress.total is None or progress.done <= progress.total for progress in runs.progress)
    assert {progress.total for progress in runs.progress} <= {3, None, 40}
    assert (runs.progress[-1].done, runs.progress[-1].total) == (40, 40)


def test_progress_of_a_listing_that_broke_off_never_runs_past_its_total_either(runs: Runs) -> None:
    content = [file(f"{number:02}.txt", f"Note {number} speaks of matter {number}.") for number in range(40)]
    runs.sync(*content[:3])
    runs.sync(*content, fails_after=30)
    assert all(progress.total is None or progress.done <= progress.total for progress in runs.progress)
    assert (runs.progress[-1].done, runs.progress[-1].total) == (30, None)


def test_a_finished_listing_is_dated_and_a_broken_one_is_not(runs: Runs) -> None:
    def synced() -> bool:
        with runs.base.catalog.read() as snapshot:
            return knowledge.get_source(snapshot, runs.source.id).synced_at is not None

    runs.sync(file("a.txt", HANDBOOK), fails_after=1)
    assert not synced()
    runs.sync(file("a.txt", HANDBOOK))
    assert synced()
