"""Folders that are watched, and schedules, through a real service: real files, real events, real jobs."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from fastapi.testclient import TestClient

from app import cli
from app.main import create_app
from app.server import Background
from app.service import Service
from ingest import watch
from ingest.sources.folder import FolderSource
from rag.catalog import jobs, knowledge
from rag.catalog.jobs import FINISHED, Job
from rag.models import SourceRecord
from rag.ports import Vectors
from rag.settings import Settings
from tests.fakes import HashEmbedder

HOURS = "The Rotterdam office is open from 8:30 to 17:30 on weekdays."


class SlowEmbedder(HashEmbedder):
    """Embeds when it is let, so that a sync can be met half-way."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.may.set()
        self.waiting = threading.Event()

    def embed_passages(self, texts: Any, *, urgent: bool = False) -> Vectors:
        if not self.may.is_set():
            self.waiting.set()
            assert self.may.wait(30)
        return super().embed_passages(texts, urgent=urgent)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_STEP_SECONDS", 0.1)
    monkeypatch.setattr(watch, "_QUIET_SECONDS", 0.4)
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(watch, "_POLL_SECONDS", 0.3)


@pytest.fixture
def embedder() -> SlowEmbedder:
    return SlowEmbedder()


def open_service(folder: Path, embedder: HashEmbedder, **options: Any) -> Service:
    settings = Settings(_env_file=None, data_dir=folder / "data", allowed_roots=str(folder))
    return Service(settings, embedder=embedder, **options)


@pytest.fixture
def service(tmp_path: Path, embedder: SlowEmbedder) -> Iterator[Service]:
    before = set(threading.enumerate())
    service = open_service(tmp_path, embedder)
    service.start()
    yield service
    embedder.may.set()
    service.close()
    ours = {thread.name for thread in set(threading.enumerate()) - before}
    assert not any(name.startswith(("watch-", "APScheduler", "ThreadPoolExecutor")) for name in ours)


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    folder = tmp_path / "manuals"
    folder.mkdir()
    (folder / "hours.md").write_text(HOURS)
    return folder


def wait_until(condition: Callable[[], object], *, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def watched(service: Service, folder: Path, *, name: str = "manuals", **more: Any) -> SourceRecord:
    """A source of this folder, when it is being watched."""
    collection = service.collection_to_fill("default")
    with service.base.catalog.write() as connection:
        config = {"path": str(folder), **more}
        made = knowledge.create_source(connection, collection, name=name, kind="folder", config=config, watch=True)
    service.follow_sources()
    return made


def jobs_of(service: Service, source: SourceRecord) -> list[Job]:
    with service.base.catalog.read() as snapshot:
        return [job for job in jobs.list_jobs(snapshot) if job.source_id == source.id]


def keys(service: Service, source: SourceRecord) -> set[str]:
    with service.base.catalog.read() as snapshot:
        known = knowledge.known_documents(snapshot, source.id)
    return {key for key, value in known.items() if value.version is not None}


def in_step(service: Service, source: SourceRecord, expected: set[str], *, beside: str = "/") -> None:
    """Wait until the source has these documents, besides those whose keys begin so, and no work is left."""

    def found() -> set[str]:
        return {key for key in keys(service, source) if not key.startswith(beside)}

    wait_until(
        lambda: found() == expected and all(job.state in FINISHED for job in jobs_of(service, source)),
        what=f"{expected}",
    )


# ── events ────────────────────────────────────────────────────────────────────────────────────


def test_a_watched_folder_is_read_and_every_change_follows(service: Service, manuals: Path) -> None:
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})

    (manuals / "hours.md").write_text("The Rotterdam office is closed on weekdays.")
    wait_until(lambda: any(job.counts.changed for job in jobs_of(service, source)), what="the edit")
    in_step(service, source, {"hours.md"})

    (manuals / "parts").mkdir()
    (manuals / "parts" / "夜班.md").write_text("夜班津贴为每班 58 元。")
    in_step(service, source, {"hours.md", "parts/夜班.md"})

    (manuals / "hours.md").rename(manuals / "opening.md")
    in_step(service, source, {"opening.md", "parts/夜班.md"})

    (manuals / "parts").rename(manuals / "pieces")
    in_step(service, source, {"opening.md", "pieces/夜班.md"})

    shutil.rmtree(manuals / "pieces")
    in_step(service, source, {"opening.md"})
    assert all(job.request["allow_deletes"] is False for job in jobs_of(service, source))


def test_a_burst_of_a_thousand_writes_is_one_sync_or_two(service: Service, manuals: Path) -> None:
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    before = len(jobs_of(service, source))
    for number in range(1000):
        (manuals / f"{number % 20}.txt").write_text(f"Part {number} weighs {number} grams.")
    in_step(service, source, {"hours.md"} | {f"{number}.txt" for number in range(20)})
    assert 1 <= len(jobs_of(service, source)) - before <= 2


def test_a_change_during_a_sync_is_followed_by_one_more(
    service: Service, manuals: Path, embedder: SlowEmbedder
) -> None:
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    before = len(jobs_of(service, source))
    embedder.may.clear()
    (manuals / "first.md").write_text("The first one.")
    assert embedder.waiting.wait(30)
    for number in range(3):  # each at rest long enough to be noticed on its own
        (manuals / f"later-{number}.md").write_text(f"A later one, {number}.")
        wait_until(lambda: len(jobs_of(service, source)) - before == 2, what="one that waits")
        (manuals / "hours.md").write_text(f"{HOURS} {number}")
    embedder.may.set()
    in_step(service, source, {"hours.md", "first.md", "later-0.md", "later-1.md", "later-2.md"})
    assert len(jobs_of(service, source)) - before <= 3


def test_a_file_that_is_written_slowly_is_read_when_it_is_at_rest(
    service: Service, manuals: Path, embedder: SlowEmbedder
) -> None:
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    with (manuals / "slow.txt").open("w", buffering=1) as stream:
        for number in range(20):
            stream.write(f"Line {number} of a long report.\n")
            time.sleep(0.05)
    in_step(service, source, {"hours.md", "slow.txt"})
    assert [text for text in embedder.embedded if "Line 0" in text and "Line 19" not in text] == []


def test_a_file_that_never_rests_holds_up_no_other(
    service: Service, manuals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_RESTLESS_SECONDS", 1.0)
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    stop = threading.Event()

    def scribble() -> None:
        number = 0
        while not stop.wait(0.05):
            (manuals / "log.txt").write_text(f"Entry {(number := number + 1)}.")

    scribbling = threading.Thread(target=scribble)
    scribbling.start()
    try:
        (manuals / "quiet.md").write_text("A quiet file.")
        wait_until(lambda: "quiet.md" in keys(service, source), what="the quiet file")
    finally:
        stop.set()
        scribbling.join()


def test_what_no_sync_would_read_starts_none(service: Service, tmp_path: Path) -> None:
    """Also not the service's own data folder, where every sync writes: it would never end."""
    (tmp_path / "hours.md").write_text(HOURS)
    source = watched(service, tmp_path, exclude=["drafts/**"])
    (tmp_path / "drafts").mkdir()
    in_step(service, source, {"hours.md"}, beside="data/")
    before = len(jobs_of(service, source))
    with FolderEvents(tmp_path) as events:  # the watcher has seen as much when they are over
        for name in (".hidden.md", "~$hours.md", "hours.md.tmp", "photo.raw", "drafts/a.md"):
            (tmp_path / name).write_text("x")
        service.submit_sync(source)
        events.wait()
    (tmp_path / "end.md").write_text("The end.")
    in_step(service, source, {"hours.md", "end.md"}, beside="data/")
    assert len(jobs_of(service, source)) - before == 2, "ours, and the one for the last file"


class FolderEvents:
    """Waits until file events of a folder have come and gone."""

    def __init__(self, folder: Path) -> None:
        self._stop = threading.Event()
        self._watching = watchfiles.watch(
            folder, stop_event=self._stop, step=100, rust_timeout=1500, yield_on_timeout=True, watch_filter=None
        )
        self._seen: list[bool] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for changes in self._watching:
            self._seen.append(bool(changes))

    def __enter__(self) -> FolderEvents:
        self._thread.start()
        wait_until(lambda: False in self._seen, what="the watch has begun")
        return self

    def wait(self) -> None:
        wait_until(lambda: True in self._seen, what="an event")
        seen = len(self._seen)
        wait_until(lambda: False in self._seen[seen:], what="a rest")

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_name_that_is_not_utf8_does_not_end_the_watching(service: Service, manuals: Path) -> None:
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    Path(os.fsdecode(os.fsencode(manuals) + b"/\xb9.md")).write_text("A file from an old disk.")
    in_step(service, source, {"hours.md", "\\xb9.md"})
    (manuals / "after.md").write_text("And one after it.")
    in_step(service, source, {"hours.md", "\\xb9.md", "after.md"})
    assert service.watchers.state(source.id) == "watching"


# ── folders that come and go ──────────────────────────────────────────────────────────────────


def test_a_folder_that_goes_away_is_watched_again_when_it_is_back(
    service: Service, manuals: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    before = len(jobs_of(service, source))
    aside = manuals.rename(manuals.with_name("aside"))
    wait_until(lambda: "waiting for the folder" in (service.watchers.state(source.id) or ""), what="noticed")
    assert "went away" in caplog.text
    (aside / "meanwhile.md").write_text("Written while nobody looked.")
    aside.rename(manuals)
    in_step(service, source, {"hours.md", "meanwhile.md"})
    (manuals / "after.md").write_text("Written afterwards.")
    in_step(service, source, {"hours.md", "meanwhile.md", "after.md"})
    assert len(jobs_of(service, source)) > before


def test_an_empty_folder_in_its_place_is_a_disk_that_is_not_mounted(service: Service, manuals: Path) -> None:
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    before = len(jobs_of(service, source))
    disk = manuals.rename(manuals.with_name("disk"))
    manuals.mkdir()
    wait_until(lambda: "is empty" in (service.watchers.state(source.id) or ""), what="noticed")
    manuals.rmdir()
    (disk / "new.md").write_text("New on the disk.")
    disk.rename(manuals)
    in_step(service, source, {"hours.md", "new.md"})
    counts = [job.counts for job in jobs_of(service, source)]
    assert sum(count.deleted for count in counts) == 0
    assert len(counts) - before >= 1


def test_a_folder_that_is_not_there_at_the_start_is_waited_for(
    tmp_path: Path, manuals: Path, embedder: SlowEmbedder
) -> None:
    first = open_service(tmp_path, embedder)
    first.start()
    source = watched(first, manuals)
    in_step(first, source, {"hours.md"})
    first.close()
    aside = manuals.rename(manuals.with_name("aside"))
    second = open_service(tmp_path, embedder)
    second.start()
    try:
        wait_until(lambda: "is not there" in (second.watchers.state(source.id) or ""), what="said")
        (aside / "new.md").write_text("New.")
        aside.rename(manuals)
        in_step(second, source, {"hours.md", "new.md"})
    finally:
        second.close()


def test_what_changed_while_the_service_was_down_is_caught_up(
    tmp_path: Path, manuals: Path, embedder: SlowEmbedder
) -> None:
    with contextlib.closing(open_service(tmp_path, embedder)) as first:
        first.start()
        source = watched(first, manuals)
        in_step(first, source, {"hours.md"})
    (manuals / "new.md").write_text("New.")
    with contextlib.closing(open_service(tmp_path, embedder)) as second:
        second.start()
        in_step(second, source, {"hours.md", "new.md"})


def test_a_link_that_leads_out_of_the_allowed_folders_is_not_watched(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, embedder: SlowEmbedder
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.md").write_text("Secret.")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a.md").write_text("Not secret.")
    (tmp_path / "link").symlink_to(tmp_path / "inside")
    with contextlib.closing(open_service(tmp_path, embedder)) as service:
        service.start()
        source = watched(service, tmp_path / "link")
        in_step(service, source, {"a.md"})
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(outside)
        (tmp_path / "inside").rename(tmp_path / "moved")
        wait_until(lambda: "does not lie under" in (service.watchers.state(source.id) or ""), what="refused")
        assert keys(service, source) == {"a.md"}


def test_without_file_events_the_folder_is_polled_and_says_why(
    service: Service, manuals: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = watchfiles.watch

    def at_the_limit(*paths: Path, force_polling: bool | None = None, **options: Any) -> Iterator[set[Any]]:
        if not force_polling:
            raise OSError('OS file watch limit reached. about ["/srv"]')  # the words of watchfiles 1.3
        return real(*paths, force_polling=force_polling, **options)

    monkeypatch.setattr("watchfiles.watch", at_the_limit)
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    wait_until(lambda: (service.watchers.state(source.id) or "").startswith("polling"), what="polling")
    assert "limit reached" in (service.watchers.state(source.id) or "")
    assert "limit reached" in caplog.text
    (manuals / "new.md").write_text("New.")
    in_step(service, source, {"hours.md", "new.md"})


# ── beginning and ending ──────────────────────────────────────────────────────────────────────


def test_a_close_is_quick_and_ends_every_thread(tmp_path: Path, manuals: Path, embedder: SlowEmbedder) -> None:
    before = set(threading.enumerate())
    service = open_service(tmp_path, embedder)
    service.start()
    for number in range(5):
        watched(service, manuals, name=f"manuals {number}")
    wait_until(lambda: sum(thread.name.startswith("watch-") for thread in threading.enumerate()) == 5, what="all watch")
    service.close()
    left = set(threading.enumerate()) - before
    assert not [thread.name for thread in left if thread.name.startswith(("watch-", "APScheduler"))]


@pytest.mark.parametrize("options", [{"warm": False}, {"stays": False}])
def test_a_short_lived_service_keeps_no_schedule_and_watches_nothing(
    tmp_path: Path, manuals: Path, embedder: SlowEmbedder, options: dict[str, bool]
) -> None:
    service = open_service(tmp_path, embedder, **options)
    service.start()
    source = watched(service, manuals)
    with service.base.catalog.write() as connection:
        knowledge.update_source(connection, source, refresh="1m")
    service.follow_sources(make_up=True)
    assert service.watchers.state(source.id) is None
    assert service.schedules.next_run(source.id) is None
    service.close()


def test_a_source_that_is_deleted_is_watched_no_longer(service: Service, manuals: Path) -> None:
    source = watched(service, manuals)
    in_step(service, source, {"hours.md"})
    service.delete_source(source)
    assert service.watchers.state(source.id) is None
    wait_until(lambda: not any(thread.name == f"watch-{source.id}" for thread in threading.enumerate()), what="the end")


# ── schedules through the service ─────────────────────────────────────────────────────────────


def test_a_tick_while_a_sync_runs_adds_no_job(service: Service, manuals: Path, embedder: SlowEmbedder) -> None:
    collection = service.collection_to_fill("default")
    with service.base.catalog.write() as connection:
        source = knowledge.create_source(
            connection, collection, name="manuals", kind="folder", config={"path": str(manuals)}
        )
    embedder.may.clear()
    service._sync_when_due(source.id)
    assert embedder.waiting.wait(30)
    for _ in range(5):
        service._sync_when_due(source.id)
    assert len(jobs_of(service, source)) == 1
    embedder.may.set()
    in_step(service, source, {"hours.md"})
    service._sync_when_due(source.id)
    assert [job.request["allow_deletes"] for job in jobs_of(service, source)] == [False, False]


def test_a_sync_that_was_missed_is_made_up_after_the_start(
    tmp_path: Path, manuals: Path, embedder: SlowEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.schedule._MOST_JITTER_SECONDS", 0.0)
    with contextlib.closing(open_service(tmp_path, embedder, warm=False)) as first:
        collection = first.collection_to_fill("default")
        with first.base.catalog.write() as connection:
            source = knowledge.create_source(
                connection, collection, name="m", kind="folder", config={"path": str(manuals)}, refresh="* * * * *"
            )
            from rag.catalog.tables import sources

            long_ago = source.created_at.replace(year=2020)
            connection.execute(sources.update().values(synced_at=long_ago))
    with contextlib.closing(open_service(tmp_path, embedder)) as second:
        second.start()
        in_step(second, source, {"hours.md"})


# ── the HTTP face ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    service = open_service(tmp_path, HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client


def add(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/collections/default/sources", json=body)


def test_schedule_and_watch_are_set_seen_changed_and_ended(client: TestClient, manuals: Path) -> None:
    config = {"path": str(manuals)}
    made = add(client, name="m", kind="folder", config=config, refresh="  Daily  03:00 ", watch=True).json()
    assert (made["refresh"], made["watch"]) == ("daily 03:00", True)
    assert made["next_sync_at"].endswith("Z")
    path = f"/v1/sources/{made['id']}"
    wait_until(lambda: client.get(path).json()["watch_state"] == "watching", what="watching")
    listed = client.get("/v1/collections/default/sources").json()["data"]
    assert listed[0]["next_sync_at"] == made["next_sync_at"]

    changed = client.patch(path, json={"refresh": "15m"}).json()
    assert changed["refresh"] == "15m"
    assert changed["next_sync_at"] not in (None, made["next_sync_at"])
    assert changed["watch"] is True
    assert client.patch(path, json={"name": "n"}).json()["next_sync_at"] == changed["next_sync_at"]
    for nothing in ("", None):
        client.patch(path, json={"refresh": "15m"})
        ended = client.patch(path, json={"refresh": nothing, "watch": False}).json()
        assert [ended[name] for name in ("refresh", "next_sync_at", "watch", "watch_state")] == [
            None,
            None,
            False,
            None,
        ]


def test_a_source_that_is_deleted_has_no_schedule_either_way(client: TestClient, manuals: Path) -> None:
    schedules = client.app.state.service.schedules  # type: ignore[attr-defined]
    for remove in ("/v1/sources/{id}", "/v1/collections/default"):
        made = add(client, name="m", kind="folder", config={"path": str(manuals)}, refresh="1h").json()
        assert schedules.next_run(made["id"]) is not None
        assert client.delete(remove.format(id=made["id"])).status_code == 204
        assert schedules.next_run(made["id"]) is None


def test_what_cannot_be_is_refused_in_a_sentence(client: TestClient, manuals: Path) -> None:
    folder = {"path": str(manuals)}
    web = {"urls": ["https://example.org/"]}
    refused = [
        (add(client, name="a", kind="folder", config=folder, refresh="often"), "often", "daily 03:00"),
        (add(client, name="a", kind="folder", config=folder, refresh="30s"), "30s", "a minute"),
        (add(client, name="a", kind="web", config=web, watch=True), "only folders can be watched", "refresh"),
        (
            add(client, name="a", kind="folder", config={"path": str(manuals / "hours.md")}, watch=True),
            "a single file",
            "include",
        ),
    ]
    made = add(client, name="web", kind="web", config=web, refresh="15m").json()
    path = f"/v1/sources/{made['id']}"
    refused.append((client.patch(path, json={"watch": True}), "only folders", "refresh"))
    refused.append((client.patch(path, json={"refresh": "0 0 30 2 *"}), "0 0 30 2 *", "cron"))
    client.post("/v1/collections/default/documents", json={"title": "t", "text": "A text."})
    listed = client.get("/v1/collections/default/sources").json()["data"]
    uploads = next(item["id"] for item in listed if item["kind"] == "upload")
    for body in ({"refresh": "15m"}, {"watch": True}):
        refused.append((client.patch(f"/v1/sources/{uploads}", json=body), "handed over", "folder"))
    for response, said, remedy in refused:
        problem = response.json()
        assert response.status_code == 422, problem
        assert response.headers["content-type"] == "application/problem+json"
        assert said in problem["detail"]
        assert remedy in problem["remedy"]
    assert client.get(path).json()["refresh"] == "15m"
    assert [item["name"] for item in client.get("/v1/collections/default/sources").json()["data"]] == ["web", "uploads"]


def test_the_command_line_sets_shows_and_ends_both(
    tmp_path: Path, manuals: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTEST_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ATTEST_ALLOWED_ROOTS", str(tmp_path))

    def attest(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["attest", *arguments])
        cli.app(standalone_mode=False)
        shown = capsys.readouterr()
        return " ".join(shown.out.split()), shown.err

    server = Background(open_service(tmp_path, HashEmbedder()))
    try:
        added = ("sources", "add", "m", "--folder", "manuals", "--watch", "--refresh", "1h", "--no-sync", "--json")
        assert '"refresh": "1h"' in attest(*added)[0]
        listed, hints = attest("sources", "list")
        assert "1h, next 20" in listed
        assert "attest serve" not in hints
        assert "daily 03:00, next 20" in attest("sources", "change", "m", "--refresh", "Daily 03:00")[0]
        assert "watch" not in attest("sources", "change", "m", "--no-watch")[0]
        assert "synced only when asked" in attest("sources", "change", "m", "--refresh", "")[0]
    finally:
        server.close()

    def own(settings: Settings, **options: Any) -> Service:
        return Service(settings, embedder=HashEmbedder(), **options)

    monkeypatch.setattr("app.service.Service", own)
    said, hints = attest("sources", "change", "m", "--refresh", "15m", "--watch")
    assert said.endswith(": 15m; watch")
    assert "while `attest serve` runs" in hints


def test_a_folder_source_says_what_concerns_it(manuals: Path, tmp_path: Path) -> None:
    source = FolderSource(
        path=manuals, exclude=["drafts/**"], allowed_roots=[tmp_path], max_bytes=1000, suffixes=frozenset({".md"})
    )
    (manuals / "notes.log").write_text("x")
    assert source.folder == manuals
    concerns = {"hours.md": True, "gone.md": True, "gone-folder": True, "notes.log": False, ".git/HEAD": False}
    concerns |= {"drafts/a.md": False, "a.md~": False, "../outside.md": False, ".": False}
    for name, expected in concerns.items():
        assert source.may_list(Path(os.path.normpath(manuals / name))) is expected, name
