"""One file that restores a knowledge base: whole or not there, checked to the last bit, put back without surprises."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

from app.main import create_app
from app.service import Service
from rag.catalog import backups, jobs, knowledge, versions
from rag.catalog.engine import Catalog, now
from rag.catalog.tables import purged
from rag.catalog.versions import sha256
from rag.errors import Conflict, DiskFull, FolderInUse, InvalidInput, NotFound
from rag.knowledge import KnowledgeBase
from rag.settings import Settings
from rag.storage.owner import Owner
from rag.upkeep import backup
from rag.upkeep.backup import MEMBERS, create, restore, verify
from tests.bases import Bases, Runs, file, found_texts, runs_in
from tests.fakes import HashEmbedder

TEXTS = {
    "hours.txt": "The Rotterdam office is open from 8:30.",
    "年假.txt": "年假最多可以结转五天。",
    "prices.txt": "The TL-1207 costs 1200 euros.",
}


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    (tmp_path / "data").mkdir()
    bases = Bases(tmp_path / "data")
    yield bases
    bases.close()


@pytest.fixture
def runs(bases: Bases) -> Runs:
    runs = runs_in(bases.open())
    runs.sync(*[file(key, text) for key, text in TEXTS.items()])
    return runs


def back_up(base: KnowledgeBase, path: Path, **settings: Any) -> backups.Backup:
    return create(base.catalog, base.originals, path, settings=settings)


@pytest.fixture
def made(runs: Runs, tmp_path: Path) -> Path:
    path = tmp_path / "made.tar"
    back_up(runs.base, path, embedder="default")
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = {}
        for info in archive:
            content = archive.extractfile(info)
            assert content is not None
            found[info.name] = content.read()
        return found


def write(path: Path, content: dict[str, bytes], *, relist: bool = True) -> Path:
    """A backup with these members; its list made anew for them, or as it is."""
    if relist:
        rows = [{"name": n, "bytes": len(d), "sha256": sha256(d)} for n, d in content.items() if n != MEMBERS]
        lines = [json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows]
        last = json.dumps({"lines_sha256": sha256(b"".join(lines))}, separators=(",", ":")).encode() + b"\n"
        content = {n: d for n, d in content.items() if n != MEMBERS} | {MEMBERS: b"".join(lines) + last}
    with path.open("wb") as out:
        for name, data in content.items():
            out.write(backup._header(name, len(data), 0) + data + bytes(-len(data) % 512))
        out.write(bytes(1024))
    return path


# ── making ────────────────────────────────────────────────────────────────────────────────────


def test_a_backup_is_a_tar_with_catalog_originals_settings_and_hashes(made: Path) -> None:
    content = members(made)
    manifest = json.loads(content["manifest.json"])
    assert (manifest["format"], manifest["schema"]) == (1, "0003")
    assert manifest["counts"]["documents"] == manifest["counts"]["originals"] == 3
    assert json.loads(content["settings.json"]) == {"embedder": "default"}
    assert {Path(name).name for name in content if name.startswith("originals/")} == set(map(sha256, TEXTS.values()))
    listed = [json.loads(line) for line in content[MEMBERS].splitlines()][:-1]
    assert {row["name"]: (row["bytes"], row["sha256"]) for row in listed} == {
        name: (len(data), sha256(data)) for name, data in content.items() if name != MEMBERS
    }


def test_only_its_owner_may_read_it(made: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_the_catalog_remembers_its_backups(runs: Runs, made: Path) -> None:
    with runs.base.catalog.read() as snapshot:
        [found] = backups.list_backups(snapshot)
    assert (Path(found.path), found.bytes) == (made, made.stat().st_size)
    assert found.change == json.loads(members(made)["manifest.json"])["change"]


def test_nothing_is_left_beside_it(made: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "made.tar"]


def test_a_file_that_is_there_is_never_written_over(runs: Runs, made: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(Conflict, match="already"):
        back_up(runs.base, made)
    assert made.read_bytes() == before


def test_what_is_written_while_it_is_made_is_in_it_whole_or_not_at_all(runs: Runs, tmp_path: Path) -> None:
    """Steps of the copying and commits take turns here; the copy stays the state of its beginning."""
    texts = [file(f"{n}.txt", f"Rule {n} is old. " * 200) for n in range(60)]
    runs.sync(*texts)
    before, written = backups.facts_of(runs.base.catalog.path), 0

    def write_more() -> None:
        nonlocal written
        runs.sync(*texts, file(f"new-{written}.txt", f"Rule {written} is new. " * 100))
        written += 1

    backup_pages, backup_of = 20, tmp_path / "copy.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rag.catalog.engine._COPY_PAGES", backup_pages)
        runs.base.catalog.copy_to(backup_of, check=lambda: write_more() if written < 5 else None)
    assert written == 5, "writers were not kept waiting"
    assert backups.facts_of(backup_of) == before
    assert backups.faults_of(backup_of) == []


def test_a_backup_that_is_cancelled_or_fails_leaves_no_file(runs: Runs, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    steps = 0

    def stop_late() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise Stop

    with pytest.raises(Stop):
        create(runs.base.catalog, runs.base.originals, tmp_path / "b" / "x.tar", settings={}, check=stop_late)
    assert list((tmp_path / "b").iterdir()) == []


def test_what_a_killed_backup_left_is_written_over_and_can_be_removed(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    for name in (".x.tar.part", ".x.tar.catalog.part"):
        (folder / name).write_bytes(b"half")
    back_up(runs.base, folder / "x.tar")
    assert [path.name for path in folder.iterdir()] == ["x.tar"]
    (folder / ".y.tar.part").write_bytes(b"half")
    backup.remove_leftovers(folder)
    assert [path.name for path in folder.iterdir()] == ["x.tar"]
    assert verify(folder / "x.tar").ok


def test_without_enough_room_it_says_so_before_it_begins(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.upkeep.backup.free_bytes", lambda _folder: 1000)
    with pytest.raises(DiskFull, match="MiB more are wanted"):
        back_up(runs.base, tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()


def test_an_original_that_is_missing_or_damaged_already_is_told_and_stops_nothing(runs: Runs, tmp_path: Path) -> None:
    runs.base.originals.path(sha256(TEXTS["hours.txt"])).unlink()
    runs.base.originals.path(sha256(TEXTS["prices.txt"])).write_bytes(b"rotten")
    back_up(runs.base, tmp_path / "x.tar")
    found = verify(tmp_path / "x.tar")
    assert found.problems == []
    assert {note.partition(" in the data")[0].rpartition(" ")[2] for note in found.notes} == {"missing", "damaged"}


def test_a_document_that_is_purged_meanwhile_is_in_no_backup(runs: Runs, tmp_path: Path) -> None:
    def once(done: int, _of: int) -> None:
        if done == 1:
            with runs.base.catalog.write() as connection:
                connection.execute(insert(purged).values(document_id="doc_gone", purged_at=now()))

    with pytest.raises(Conflict, match="purged while"):
        create(runs.base.catalog, runs.base.originals, tmp_path / "x.tar", settings={}, progress=once)
    assert not (tmp_path / "x.tar").exists()
    with runs.base.catalog.read() as snapshot:
        assert backups.list_backups(snapshot) == []


# ── checking ──────────────────────────────────────────────────────────────────────────────────


def test_a_whole_file_is_found_to_be_whole_without_a_data_folder(made: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = made.rename(elsewhere / "b.tar")
    found = verify(moved)
    assert (found.problems, found.notes, found.originals) == ([], [], 3)
    assert found.manifest is not None
    assert list(elsewhere.iterdir()) == [moved], "nothing is left beside it"


def test_any_flipped_bit_is_found(made: Path) -> None:
    """Wherever it is: contents, headers, padding, the list, the end."""
    data = made.read_bytes()
    chosen = random.Random(3)
    places = {chosen.randrange(len(data)) for _ in range(60)} | {0, 156, 330, 511, 512, len(data) - 1, len(data) - 1025}
    content_end = len(data) - 1024
    places |= {content_end - n for n in (1, 100, 300, 511, 512, 600, 1000, 1500)}
    for place in sorted(places):
        flipped = bytearray(data)
        flipped[place] ^= 1 << chosen.randrange(8)
        made.write_bytes(flipped)
        try:
            found = verify(made)
        except Conflict:
            raise AssertionError(f"byte {place} is taken for a format of tomorrow") from None
        assert found.problems, f"byte {place}"


def test_a_damaged_member_is_named_with_its_place(made: Path) -> None:
    data = bytearray(made.read_bytes())
    place = data.index(TEXTS["prices.txt"].encode(), data.index(b"originals/"))
    data[place] ^= 1
    made.write_bytes(data)
    [problem] = verify(made).problems
    assert sha256(TEXTS["prices.txt"]) in problem
    assert f"byte {place - 512}" in problem


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.9999])
def test_a_file_that_is_cut_off_is_found_and_where(made: Path, share: float) -> None:
    data = made.read_bytes()
    end = int(len(data) * share)
    made.write_bytes(data[:end])
    problems = verify(made).problems
    assert any(f"cut off at byte {end}" in problem for problem in problems) or "end of the file" in problems[0]


def test_a_missing_member_is_found_by_the_list_and_by_the_catalog(made: Path, tmp_path: Path) -> None:
    content = members(made)
    name = f"originals/{sha256(TEXTS['hours.txt'])[:2]}/{sha256(TEXTS['hours.txt'])}"
    del content[name]
    assert verify(write(tmp_path / "a.tar", content, relist=False)).problems == [f"{name} is missing."]
    assert verify(write(tmp_path / "b.tar", content)).problems == [f"{name} is missing, which the catalog names."]
    del content["catalog.sqlite"]
    assert any(
        "catalog.sqlite is missing" in problem for problem in verify(write(tmp_path / "c.tar", content)).problems
    )


def test_a_broken_catalog_is_found_though_its_hash_fits(made: Path, tmp_path: Path) -> None:
    content = members(made)
    broken = bytearray(content["catalog.sqlite"])
    broken[4096 * 3 : 4096 * 3 + 2000] = bytes(2000)
    content["catalog.sqlite"] = bytes(broken)
    problems = verify(write(tmp_path / "a.tar", content)).problems
    assert problems
    assert all("catalog.sqlite" in problem for problem in problems)


def test_what_is_no_backup_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04 something else" * 100)
    assert "no backup" in " ".join(verify(tmp_path / "x").problems)
    (tmp_path / "empty").write_bytes(b"")
    assert not verify(tmp_path / "empty").ok
    with pytest.raises(NotFound):
        verify(tmp_path / "nowhere")


def test_a_backup_of_a_newer_format_is_not_called_damaged(made: Path, tmp_path: Path) -> None:
    content = members(made)
    content["manifest.json"] = json.dumps({**json.loads(content["manifest.json"]), "format": 2}).encode()
    with pytest.raises(Conflict, match="later one"):
        verify(write(tmp_path / "a.tar", content))


# ── putting back ──────────────────────────────────────────────────────────────────────────────


def test_restored_it_answers_with_the_same_documents_versions_and_quotes(
    runs: Runs, made: Path, tmp_path: Path
) -> None:
    question = "When is the Rotterdam office open?"
    expected = found_texts(runs.base, question)
    restored = restore(made, tmp_path / "new")
    assert (restored.aside, restored.cancelled) == (None, 0)
    again = Bases(tmp_path / "new")
    base = again.open()
    assert found_texts(base, question) == expected
    with runs.base.catalog.read() as old, base.catalog.read() as new:
        for key, document in runs.documents().items():
            found = knowledge.get_document(new, document.id)
            assert (found.key, found.version) == (key, document.version)
            assert (
                versions.version_row(new, document.id, None).text == versions.version_row(old, document.id, None).text
            )
            assert base.originals.get(sha256(TEXTS[key])) == TEXTS[key].encode()
    back = runs_in(base)
    assert back.sync(*[file(key, text) for key, text in TEXTS.items()]).counts == jobs.Counts(unchanged=3)
    again.close()
    assert json.loads((tmp_path / "new" / "settings-of-backup.json").read_text()) == {"embedder": "default"}


def test_a_restored_catalog_has_an_id_of_its_own_so_that_no_cache_of_another_history_is_trusted(
    runs: Runs, made: Path, tmp_path: Path
) -> None:
    restore(made, tmp_path / "new")
    # The caches went on with the first installation, and are then shown to the restored one, as a server would.
    runs.sync(*[file(key, text) for key, text in TEXTS.items()], file("later.txt", "The lift is closed on Sundays."))
    bases = Bases(tmp_path / "new", vectors=runs.base.caches._vectors, terms=runs.base.caches._terms)
    base = bases.open()
    assert base.catalog.id != runs.base.catalog.id
    assert found_texts(base, "When is the lift closed?", k=20) != []
    assert not any("lift" in text for text in found_texts(base, "When is the lift closed on Sundays?", k=20))
    bases.close()


def test_unfinished_jobs_do_not_start_in_a_restored_knowledge_base(runs: Runs, tmp_path: Path) -> None:
    with runs.base.catalog.write() as connection:
        ids = [
            jobs.create_job(
                connection,
                kind="sync",
                collection_id=runs.collection.id,
                source_id=runs.source.id,
                request={"allow_deletes": False, "verify": False},
            ).id
            for _ in range(2)
        ]
        jobs.start_job(connection, ids[0])
    back_up(runs.base, tmp_path / "x.tar")
    assert restore(tmp_path / "x.tar", tmp_path / "new").cancelled == 2
    catalog = Catalog(tmp_path / "new" / "catalog.sqlite")
    with catalog.read() as snapshot:
        assert jobs.unfinished_jobs(snapshot) == []
        found = jobs.get_job(snapshot, ids[0])
    catalog.close()
    assert (found.state, found.problem) == ("cancelled", backups.RESTORED)
    assert found.finished_at is not None


def test_a_restored_knowledge_base_knows_the_file_that_it_came_from(made: Path, tmp_path: Path) -> None:
    """A purge there has to say that this file still holds the document."""
    restore(made, tmp_path / "new")
    catalog = Catalog(tmp_path / "new" / "catalog.sqlite")
    with catalog.read() as snapshot:
        assert [item.path for item in backups.list_backups(snapshot)] == [str(made)]
    catalog.close()


def test_a_damaged_file_restores_nothing_and_touches_nothing(
    runs: Runs, bases: Bases, made: Path, tmp_path: Path
) -> None:
    data = bytearray(made.read_bytes())
    data[len(data) // 2] ^= 4
    made.write_bytes(data)
    with pytest.raises(InvalidInput, match="not whole"):
        restore(made, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    bases.close()
    before = sorted(path.name for path in bases.folder.iterdir())
    with pytest.raises(InvalidInput, match="not whole"):
        restore(made, bases.folder, replace=True)
    assert [name for name in sorted(path.name for path in bases.folder.iterdir()) if name != "owner.lock"] == before


def test_a_folder_that_is_not_empty_is_left_alone(made: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.txt").write_text("mine")
    with pytest.raises(Conflict, match="not empty"):
        restore(made, tmp_path / "new")
    assert (tmp_path / "new" / "thesis.txt").read_text() == "mine"


def test_backups_and_models_beside_a_knowledge_base_make_no_folder_full(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (folder / "backups").mkdir(parents=True)
    inside = made.rename(folder / "backups" / "b.tar")
    restore(inside, folder)
    assert inside.exists()
    assert (folder / "catalog.sqlite").exists()


def test_replacing_moves_the_old_folder_aside_and_deletes_nothing(bases: Bases, made: Path, tmp_path: Path) -> None:
    bases.close()
    before = {path.relative_to(bases.folder): path.read_bytes() for path in bases.folder.rglob("*") if path.is_file()}
    done = restore(made, bases.folder, replace=True)
    assert done.aside is not None
    assert done.aside.parent == tmp_path
    aside = {path.relative_to(done.aside): path.read_bytes() for path in done.aside.rglob("*") if path.is_file()}
    assert aside == before
    assert (bases.folder / "catalog.sqlite").exists()


def test_a_volume_keeps_what_was_there_within_itself(bases: Bases, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder that is a mount point has no room beside it."""
    bases.close()
    real = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        if ".before-restore" in self.name and self.parent == bases.folder.parent:
            raise PermissionError(13, "Permission denied")
        real(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    done = restore(made, bases.folder, replace=True)
    assert done.aside is not None
    assert done.aside.parent == bases.folder
    assert (done.aside / "catalog.sqlite").exists()


def test_a_folder_that_a_service_owns_is_not_restored_into(made: Path, tmp_path: Path) -> None:
    owner = Owner(tmp_path / "new")
    with pytest.raises(FolderInUse):
        restore(made, tmp_path / "new", replace=True)
    owner.release()


def test_a_backup_of_a_newer_schema_is_refused_with_both_versions_named(made: Path, tmp_path: Path) -> None:
    content = members(made)
    newer = tmp_path / "newer.sqlite"
    newer.write_bytes(content["catalog.sqlite"])
    with closing(sqlite3.connect(newer)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    content["catalog.sqlite"] = newer.read_bytes()
    manifest = {**json.loads(content["manifest.json"]), "schema": "0099", "attest": "9.9.0"}
    content["manifest.json"] = json.dumps(manifest).encode()
    path = write(tmp_path / "newer.tar", content)
    with pytest.raises(Conflict, match=r"Attest 9\.9\.0 \(schema 0099\).*up to 0003"):
        restore(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "originals/../../evil", "originals/ab/../evil", "chroma/x"])
def test_members_names_are_not_trusted(made: Path, tmp_path: Path, name: str) -> None:
    content = members(made)
    listed = content.pop(MEMBERS)
    path = write(tmp_path / "evil.tar", {**content, name: b"evil", MEMBERS: listed})
    with pytest.raises(InvalidInput, match="no backup has"):
        restore(path, tmp_path / "deep" / "new")
    assert not list(tmp_path.rglob("evil"))


def test_links_and_devices_are_not_followed(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "link.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in list(members(made).items())[:1]:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("catalog.sqlite")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InvalidInput, match="header of a member"):
        restore(path, tmp_path / "new")


def test_what_a_killed_restore_left_is_no_obstacle(made: Path, tmp_path: Path) -> None:
    (tmp_path / "new" / ".restore-abc").mkdir(parents=True)
    (tmp_path / "new" / ".restore-abc" / "catalog.sqlite").write_bytes(b"half")
    restore(made, tmp_path / "new")
    assert not list((tmp_path / "new").glob(".restore-*"))


def test_an_older_schema_is_restored_as_it_is_and_migrated_at_the_next_start(tmp_path: Path) -> None:
    old = tmp_path / "old.sqlite"
    dump = Path(__file__).parents[1] / "data" / "catalog-0001.sql"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
    facts = backups.facts_of(old)
    manifest = {
        "format": 1,
        "attest": "0.1.0",
        "schema": "0001",
        "catalog_id": facts.catalog_id,
        "change": facts.change,
        "created_at": "2026-11-20T13:00:00Z",
        "counts": facts.counts,
    }
    originals = {f"originals/{d[:2]}/{d}": b"lost" for d, needed in backups.originals_of(old) if needed}
    content = {"manifest.json": json.dumps(manifest).encode(), "settings.json": b"{}"}
    path = write(tmp_path / "old.tar", content | {"catalog.sqlite": old.read_bytes()} | originals)
    restore(path, tmp_path / "new")
    catalog = Catalog(tmp_path / "new" / "catalog.sqlite")
    with catalog.read() as snapshot:
        [collection] = knowledge.list_collections(snapshot)
        assert len(knowledge.list_documents(snapshot, collection)) == 5
    catalog.close()


# ── over HTTP ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(
        Settings(_env_file=None, data_dir=tmp_path / "served", llm_api_key="sk-very-secret"), embedder=HashEmbedder()
    )


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def finished(service: Service, response: Any) -> jobs.Job:
    assert response.status_code == 202, response.text
    return service.jobs.wait(response.json()["id"], poll_seconds=0.02)


def test_a_client_gets_a_backup_into_the_services_own_folder(service: Service, client: TestClient) -> None:
    job = finished(service, client.post("/v1/backup"))
    assert (job.state, len(job.items)) == ("succeeded", 1), job.problem
    path = Path(job.items[0].uri)
    assert path.parent == service.backup_dir
    assert verify(path).ok
    [listed] = client.get("/v1/backup").json()["data"]
    assert (listed["path"], listed["bytes"], listed["present"]) == (str(path), path.stat().st_size, True)
    named = finished(service, client.post("/v1/backup", json={"name": "monday.tar"}))
    assert named.items[0].uri == str(service.backup_dir / "monday.tar")
    again = client.post("/v1/backup", json={"name": "monday.tar"})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/conflict")


@pytest.mark.parametrize(
    "name", ["../x.tar", "/etc/x.tar", "a/b.tar", "..", ".hidden", "x\\y", "a\x00b", "a\nb", "", "x" * 200]
)
def test_a_client_cannot_choose_where_it_is_written(client: TestClient, service: Service, name: str) -> None:
    response = client.post("/v1/backup", json={"name": name})
    assert response.status_code == 422, response.text
    assert service.jobs is not None
    assert client.get("/v1/jobs").json()["data"] == []


def test_a_path_is_for_the_users_own_commands(client: TestClient, service: Service, tmp_path: Path) -> None:
    body = {"path": str(tmp_path / "mine.tar")}
    for header in ({}, {"Authorization": "Bearer guess"}, {"Authorization": service.token}):
        response = client.post("/v1/backup", json=body, headers=header)
        assert (response.status_code, response.json()["type"]) == (403, "/problems/not-allowed")
    own = {"Authorization": f"Bearer {service.token}"}
    assert finished(service, client.post("/v1/backup", json=body, headers=own)).state == "succeeded"
    assert verify(tmp_path / "mine.tar").ok


def test_no_secret_is_in_it(service: Service, client: TestClient) -> None:
    job = finished(service, client.post("/v1/backup"))
    data = Path(job.items[0].uri).read_bytes()
    assert b"sk-very-secret" not in data
    assert service.token.encode() not in data
    settings = json.loads(members(Path(job.items[0].uri))["settings.json"])
    assert {"llm_api_key", "admin_key"} & settings.keys() == set()
    assert settings["embedder"] == "default"


def test_addresses_in_settings_lose_user_password_and_query() -> None:
    settings = Settings(
        _env_file=None, chroma_url="https://me:pw@chroma.example:8000", llm_base_url="http://x/v1?key=k"
    )
    kept = settings.without_secrets()
    assert (kept["chroma_url"], kept["llm_base_url"]) == ("https://chroma.example:8000", "http://x/v1")
