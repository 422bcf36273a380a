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

from ingest.sync import Cancelled, Plan, Planned, SyncOptions
from rag.catalog import knowledge, versions
from rag.catalog.engine import Catalog
from rag.catalog.jobs import Counts
from rag.errors import DocumentError, NotAllowed
from rag.models import Item, Original, Parsed, Unlisted
from rag.retrieval.retrieve import retrieve
from tests.bases import Bases, ListSource, Runs, file, found_texts, lines, runs_in, unlisted

HANDBOOK = "Employees have 25 days of leave a year.\n\nThe office in Porto opens at nine."
HANDBOOK_NEW = "Employees have 30 days of leave a year.\n\nThe office in Porto opens at nine."
MANUAL = "The drill weighs 1.8 kilograms.\n\nIts battery lasts four hours."
CHINESE = "员工每年有二十五天年假。\n\n波尔图办公室九点开门。"


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path)
    yield bases
    bases.assert_sound(staged=True)
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
    [hit] = retrieve("How heavy is the drill?", base=runs.base, collections=runs.base.collections([]), k=8).hits
    assert {hit.uri, *(other.uri for other in hit.also)} == {"files/a.txt", "files/b.txt"}


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


def _options() -> SyncOptions:
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


@pytest.mark.parametrize(("share", "problem"), [(0.2, "mass-deletion"), (0.25, None), (1.0, None)])
def test_the_share_that_may_be_deleted_is_a_setting(runs: Runs, share: float, problem: str | None) -> None:
    content = [file(f"{number:02}.txt", f"Note {number} speaks of matter {number}.") for number in range(20)]
    runs.sync(*content)
    report = replace(runs.make(), max_delete_share=share).run(ListSource(content[5:]), _options())
    assert (report.problem.code if report.problem else None) == problem


def test_an_empty_listing_deletes_nothing_and_says_so(runs: Runs) -> None:
    """A disk that was not mounted leaves an empty folder behind."""
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL))
    plan = runs.plan()
    report = runs.sync()
    assert report.counts == Counts()
    assert report.problem == plan.problem
    assert report.problem is not None
    assert (report.problem.code, "had 2 at" in report.problem.detail) == ("empty-listing", True)
    assert "25 days" in found_texts(runs.base, "How many days of leave?")[0]
    assert runs.sync(allow_deletes=True).counts == Counts(deleted=2)
    assert runs.documents() == {}
    assert runs.sync().problem is None  # there was nothing, and there is nothing


def test_a_listing_of_failures_alone_deletes_nothing_of_them(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL))
    assert runs.sync(unlisted("a.txt"), unlisted("b.txt")).counts == Counts(failed=2)
    assert set(runs.documents()) == {"a.txt", "b.txt"}


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
    assert plan.problem is None
    assert plan.items == [
        Planned("unchanged", "a.txt", "files/a.txt", "its source says the same of it"),
        Planned("changed", "b.txt", "files/b.txt", "its source says that it changed"),
        Planned("added", "d.txt", "files/d.txt", "new"),
        Planned("failed", "e.txt", "files/e.txt", "files/e.txt cannot be opened."),
        Planned("deleted", "c.txt", "files/c.txt", "not in the listing any more"),
    ]
    runs.sync(*content)
    assert states(runs) == {item.key: item.state for item in plan.items if item.state != "unchanged"}


def reasons(plan: Plan) -> dict[str, tuple[str, str]]:
    return {item.key: (item.state, item.reason) for item in plan.items}


def test_a_plan_and_its_run_agree_on_everything_that_can_happen_to_a_document(runs: Runs) -> None:
    def locked() -> Original:
        raise DocumentError("failed", "The file is locked.", remedy="Close it.")

    first = ["same", "touched", "changed", "locked", "failing", "gone"]
    runs.sync(*(file(key, f"Note {key} speaks of itself.", state={"size": "10", "mtime_ns": "1"}) for key in first))
    runs.sync(
        *(file(key, "", state={"size": "10", "mtime_ns": "1"}) for key in first if key != "failing"),
        unreadable_as("failing"),
    )
    content: list[Item | Unlisted] = [
        file("same", "not looked at", state={"size": "10", "mtime_ns": "1"}),
        file("touched", "Note touched speaks of itself.", state={"size": "10", "mtime_ns": "2000000000"}),
        file("changed", "Note changed speaks of others.", state={"size": "12", "mtime_ns": "2000000000"}),
        file("locked", locked, state={"size": "11", "mtime_ns": "1"}),
        file("failing", "Note failing speaks of itself.", state={"size": "10", "mtime_ns": "1"}),
        unlisted("hidden"),
        file("new", "A new note."),
    ]
    plan = runs.plan(*content)
    assert reasons(plan) == {
        "same": ("unchanged", "same size and times"),
        "touched": ("unchanged", "same content"),
        "changed": ("changed", "size 10 → 12"),
        "locked": ("failed", "The file is locked."),
        "failing": ("changed", "could not be read last time"),
        "hidden": ("failed", "files/hidden cannot be opened."),
        "new": ("added", "new"),
        "gone": ("deleted", "not in the listing any more"),
    }
    counts = runs.sync(*content).counts
    # That bytes which could be read again say what they said is not known before they are read.
    assert states(runs) == {
        item.key: item.state for item in plan.items if item.state != "unchanged" and item.key != "failing"
    }
    assert counts == Counts(added=1, changed=1, unchanged=3, deleted=1, failed=2)


def unreadable_as(key: str) -> Item:
    return replace(unreadable(), key=key)


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        ({"size": "120"}, {"size": "140"}, "size 120 → 140"),
        ({"mtime_ns": "1"}, {"mtime_ns": "1700000000000000000"}, "modified 2023-11-14 22:13:20 UTC"),
        ({"mtime_ns": "1", "ctime_ns": "1"}, {"mtime_ns": "1", "ctime_ns": "2"}, "touched"),
        ({"ctime_ns": "1", "inode": "1"}, {"ctime_ns": "2", "inode": "2"}, "another file in its place"),
        ({"size": "1", "unsettled": "1"}, {"size": "1"}, "was changed just before it was read"),
        ({"etag": '"a"', "sha256": "a"}, {"etag": '"b"', "sha256": "b"}, "ETag changed"),
        ({"last_modified": "a"}, {"last_modified": "b"}, "Last-Modified changed"),
        ({"sha256": "a", "updated_at": "1"}, {"sha256": "b", "updated_at": "2"}, "its updated-at changed"),
        ({"sha256": "a", "updated_at": "1"}, {"sha256": "b", "updated_at": "1"}, "content changed"),
        ({"size": "1"}, {"size": "1", "inode": "5"}, "more is known of it than at the last sync"),
        ({"size": "1"}, {}, "its source does not say whether it changed"),
        ({"size": "1", "mtime_ns": "1"}, {"size": "1", "mtime_ns": "9" * 30}, "modified at another time"),
    ],
)  # fmt: skip
def test_a_plan_says_what_moved(runs: Runs, before: dict[str, str], now: dict[str, str], reason: str) -> None:
    runs.sync(file("a.txt", HANDBOOK, state=before))
    assert reasons(runs.plan(file("a.txt", HANDBOOK_NEW, state=now))) == {"a.txt": ("changed", reason)}


def test_a_plan_says_that_a_reader_is_newer(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK))
    with runs.base.catalog.write() as connection:
        connection.exec_driver_sql("UPDATE documents SET pipeline = 'text/0'")
    assert reasons(runs.plan(file("a.txt", HANDBOOK))) == {
        "a.txt": ("changed", "the reader is newer or set otherwise than text/0")
    }


def test_a_plan_that_verifies_says_what_really_changed(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK, state={"size": "1"}), file("b.txt", MANUAL, state={"size": "1"}))
    content = [file("a.txt", HANDBOOK_NEW, state={"size": "1"}), file("b.txt", MANUAL, state={"size": "1"})]
    trusting = ("unchanged", "its source says the same of it")
    assert reasons(runs.plan(*content)) == {"a.txt": trusting, "b.txt": trusting}
    assert reasons(runs.plan(*content, verify=True)) == {
        "a.txt": ("changed", "content changed"),
        "b.txt": ("unchanged", "same content"),
    }
    assert runs.sync(*content, verify=True).counts == Counts(changed=1, unchanged=1)


def test_a_plan_of_a_source_that_is_away_says_so_and_plans_no_deletion(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL))
    plan = runs.plan(file("a.txt", HANDBOOK), fails_after=1)
    assert plan.problem is not None
    assert (plan.problem.code, plan.problem.remedy) == ("source-unreachable", "Mount it again.")
    assert reasons(plan) == {"a.txt": ("unchanged", "its source says the same of it")}


def test_a_plan_says_that_the_run_would_stop_and_what_it_would_delete(runs: Runs) -> None:
    content = [file(f"{number:02}.txt", f"Note {number} speaks of matter {number}.") for number in range(20)]
    runs.sync(*content)
    plan = runs.plan(*content[5:])
    assert plan.problem == runs.sync(*content[5:]).problem
    assert plan.problem is not None
    assert sum(item.state == "deleted" for item in plan.items) == 5
    assert runs.plan(*content[5:], allow_deletes=True).problem is None


# ── only some ─────────────────────────────────────────────────────────────────────────────────


def test_only_what_was_asked_for_is_loaded_and_nothing_is_deleted(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL), file("gone.txt", CHINESE))
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL), unreadable_as("c.txt"), file("gone.txt", CHINESE))

    def never() -> Original:
        raise AssertionError("nobody asked for it")

    content: list[Item | Unlisted] = [
        file("a.txt", HANDBOOK_NEW),
        file("b.txt", never, state={"changed": "1"}),
        file("c.txt", "It can be read now.", state={"hash": "locked"}),
        file("new.txt", never),
        unlisted("hidden.txt"),
    ]
    only = frozenset({"a.txt", "c.txt", "not-there.txt"})
    plan = runs.plan(*content, only=only)
    assert reasons(plan) == {
        "a.txt": ("changed", "asked for"),
        "b.txt": ("unchanged", "not among those asked for"),
        "c.txt": ("added", "could not be read last time"),
    }
    assert runs.sync(*content, only=only).counts == Counts(added=1, changed=1, unchanged=1)
    assert states(runs) == {"a.txt": "changed", "c.txt": "added"}
    assert set(runs.documents()) == {"a.txt", "b.txt", "c.txt", "gone.txt"}


def test_a_failure_that_was_asked_for_is_read_again_though_its_bytes_are_the_same(runs: Runs) -> None:
    """Perhaps OCR was installed, or a reader fell over something that has passed."""
    reads: list[str] = []

    def reader(data: bytes, *, name: str, **_: object) -> Parsed:
        reads.append(name)
        return Parsed("", (), status="needs_ocr")

    def sync(**options: Any) -> Counts:
        items = [file("scan.txt", "a picture", state={"size": "9"})]
        return replace(runs.make(), read=reader).run(ListSource(items), SyncOptions(**options)).counts

    assert sync() == Counts(failed=1)
    assert sync() == Counts(unchanged=1)
    assert sync(only=frozenset({"scan.txt"})) == Counts(failed=1)
    assert reads == ["scan.txt", "scan.txt"]


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


def test_a_batch_is_embedded_while_the_one_before_it_is_written(
    runs: Runs, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.sync._BATCH_DOCUMENTS", 1)
    embed, publish = bases.embedder.embed_passages, runs.base.caches.publish
    second = threading.Event()
    beside: list[bool] = []

    def embedded(texts: Sequence[str], **options: Any) -> Any:
        if any("drill" in text for text in texts):
            second.set()
        return embed(texts, **options)

    def published(*args: Any, **options: Any) -> int:
        beside.append(second.wait(5))
        return publish(*args, **options)

    monkeypatch.setattr(bases.embedder, "embed_passages", embedded)
    monkeypatch.setattr(runs.base.caches, "publish", published)
    assert runs.sync(file("handbook.txt", HANDBOOK), file("manual.txt", MANUAL)).counts == Counts(added=2)
    assert beside == [True, True]


def test_a_text_of_two_batches_that_are_under_way_is_embedded_once(
    runs: Runs, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.sync._BATCH_DOCUMENTS", 1)
    runs.sync(*(file(f"{number}.txt", HANDBOOK) for number in range(4)))
    assert len(runs.documents()) == 4
    assert bases.embedder.embedded == list(dict.fromkeys(bases.embedder.embedded))


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


def test_many_documents_that_turn_out_unchanged_cost_one_commit(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    content = [
        file(f"{number:02}.txt", f"Note {number} speaks of matter {number}.", state={"mtime": "1"})
        for number in range(30)
    ]
    runs.sync(*content)
    commits = 0
    write = runs.base.catalog.write

    def counted() -> Any:
        nonlocal commits
        commits += 1
        return write()

    monkeypatch.setattr(runs.base.catalog, "write", counted)
    touched = [replace(item, state={"mtime": "2"}) for item in content]
    assert runs.sync(*touched).counts == Counts(unchanged=30)
    assert commits == 2  # one for all of them, one for the time of the sync
    assert runs.sync(*[replace(item, load=lambda: pytest.fail("read")) for item in touched]).counts.unchanged == 30


def test_a_new_etag_of_an_unchanged_page_is_kept(runs: Runs) -> None:
    """Else a server that was moved is asked by an ETag that it does not know, and sends the whole page, every time."""
    runs.sync(file("page", HANDBOOK, state={"etag": "1", "sha256": "a"}))
    moved = file("page", HANDBOOK, state={"etag": "2", "sha256": "a"}, unchanged=True)
    assert runs.sync(moved).counts == Counts(unchanged=1)
    with runs.base.catalog.read() as snapshot:
        assert knowledge.known_documents(snapshot, runs.source.id)["page"].state == {"etag": "2", "sha256": "a"}


def test_what_was_found_unchanged_before_a_listing_broke_off_is_kept(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK, state={"mtime": "1"}))
    runs.sync(file("a.txt", HANDBOOK, state={"mtime": "2"}), fails_after=1)
    with runs.base.catalog.read() as snapshot:
        assert knowledge.known_documents(snapshot, runs.source.id)["a.txt"].state == {"mtime": "2"}


def test_an_upload_loads_what_is_known_of_itself_alone(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL))
    asked: list[str | None] = []
    known = knowledge.known_documents

    def counted(connection: Any, source_id: str, *, key: str | None = None) -> Any:
        asked.append(key)
        return known(connection, source_id, key=key)

    monkeypatch.setattr(knowledge, "known_documents", counted)
    assert runs.sync(file("b.txt", HANDBOOK), partial=True).counts == Counts(changed=1)
    assert runs.sync(file("b.txt", HANDBOOK), partial=True).counts == Counts(unchanged=1)
    assert asked == ["b.txt", "b.txt"]


def test_a_listing_that_hangs_hears_a_cancel(runs: Runs) -> None:
    listing, go = threading.Event(), threading.Event()

    class Slow:
        def items(self, known: object) -> Iterator[Item | Unlisted]:
            listing.set()
            go.wait(10)
            yield file("a.txt", HANDBOOK)

    seconds = cancelled_after(runs, listing, lambda: runs.make().run(Slow(), _options()))
    go.set()
    assert seconds < 1
    assert runs.documents() == {}


def test_progress_counts_chunks_written_and_bytes_read(runs: Runs) -> None:
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL))
    chunks = sum(document.chunks for document in runs.documents().values())
    last = runs.progress[-1]
    assert (last.chunks, last.bytes) == (chunks, len(HANDBOOK) + len(MANUAL))
    runs.sync(file("a.txt", HANDBOOK), file("b.txt", MANUAL))
    assert (runs.progress[-1].chunks, runs.progress[-1].bytes) == (0, 0)


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
