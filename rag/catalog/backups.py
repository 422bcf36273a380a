"""Backups that were made of this catalog, and what a backup needs to know of a catalog's file whatever its schema.

A copy may be of an older schema than the tables of today, so what reads one is SQL that every schema answers.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, insert, select

from rag.catalog.engine import new_id, now
from rag.catalog.tables import backups, purged
from rag.models import Problem

_COUNTED = ("collections", "sources", "documents", "versions", "chunks", "vectors")
_MOST_FAULTS = 5

RESTORED = Problem(
    "restored",
    "This job was unfinished when the backup was made that this knowledge base was restored from.",
    "Where its source is there, start it again: attest sync, or POST /v1/jobs/{id}/retry.",
)


@dataclass(frozen=True, slots=True)
class Backup:
    id: str
    path: str  # where it was put; somebody may have moved it since
    change: int  # the last one that it holds
    bytes: int
    created_at: datetime


def list_backups(connection: Connection) -> list[Backup]:
    """Newest first."""
    query = select(backups).order_by(backups.c.created_at.desc(), backups.c.id.desc())
    return [Backup(row.id, row.path, row.change, row.bytes, row.created_at) for row in connection.execute(query)]


def record_backup(connection: Connection, *, path: Path, change: int, size: int) -> Backup:
    made = Backup(new_id("bak"), str(path), change, size, now())
    connection.execute(insert(backups).values(**asdict(made)))
    return made


def purged_documents(connection: Connection) -> set[str]:
    return set(connection.execute(select(purged.c.document_id)).scalars())


# ── a catalog's file, of any schema ───────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CopyFacts:
    """What a copy of a catalog says of itself."""

    schema: str
    catalog_id: str
    change: int
    counts: dict[str, int]


def purged_in(copy: Path) -> set[str]:
    """Documents that had been purged when the copy was made; of a copy with the tables of today."""
    with closing(_opened(copy)) as connection:
        return {str(row[0]) for row in connection.execute("SELECT document_id FROM purged")}


def facts_of(copy: Path) -> CopyFacts:
    """Raises sqlite3.DatabaseError for a file that is no catalog."""
    with closing(_opened(copy)) as connection:
        facts = dict(connection.execute("SELECT name, value FROM facts"))
        connection.execute("DELETE FROM jobs WHERE kind = 'backup' AND state IN ('queued', 'running')")  # this one
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        counts = {
            table: int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  # our names
            for table in _COUNTED
        }
    return CopyFacts(str(row[0]), str(facts.get("catalog_id", "")), int(facts.get("change", 0)), counts)


def faults_of(copy: Path) -> list[str]:
    """What SQLite finds wrong with the file, in its words; the first few."""
    with closing(_opened(copy)) as connection:
        found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_MOST_FAULTS})")]
        if found != ["ok"]:
            return found
        broken = connection.execute("PRAGMA foreign_key_check").fetchmany(_MOST_FAULTS)
    return [f"a row of {table} refers to a row of {parent} that is not there" for table, _, parent, _ in broken]


def originals_of(copy: Path) -> Iterator[tuple[str, bool]]:
    """(SHA-256, whether it must be there) of the originals that the catalog names, in order.

    A version that was read from a file must have it. A document that could not be read, or whose new bytes said the
    same, may have one; so may an upload that waits. Rows of databases have none, nor have versions that retention took.
    """
    with closing(_opened(copy)) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(versions)")}
        kept = "AND removed_at IS NULL" if "removed_at" in columns else ""
        waiting = "kind = 'upload' AND state IN ('queued', 'running')"
        query = (
            "SELECT digest, max(needed) FROM ("  # noqa: S608  # made of constants
            f"SELECT content_sha256 AS digest, 1 AS needed FROM versions WHERE pipeline NOT LIKE 'row/%' {kept} "
            "UNION ALL SELECT content_sha256, 0 FROM documents WHERE content_sha256 IS NOT NULL "
            f"UNION ALL SELECT json_extract(request, '$.sha256'), 0 FROM jobs WHERE {waiting}"
            ") WHERE length(digest) = 64 GROUP BY digest ORDER BY digest"
        )
        for digest, needed in connection.execute(query):
            yield str(digest), bool(needed)


def prepare_restored(copy: Path, *, archive: Path, size: int, created_at: datetime) -> int:
    """Make a copy the catalog of an installation of its own. Returns how many unfinished jobs were cancelled.

    It gets an id of its own: the caches name their maker, and two installations with one id would take each other's
    collections on a Chroma server for theirs. It would also number its next changes like those that came after the
    backup, so that a cache of the old history could look as if it were up to date.
    """
    moment = datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        facts = dict(connection.execute("SELECT name, value FROM facts"))
        for name, value in (("catalog_id", secrets.token_hex(16)), ("restored_from", facts["catalog_id"])):
            connection.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))
        cancelled = connection.execute(
            "UPDATE jobs SET state = 'cancelled', problem = ?, finished_at = ? WHERE state IN ('queued', 'running')",
            (json.dumps(asdict(RESTORED)), moment),
        ).rowcount
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'backups'").fetchone():
            # The file that this comes from holds what it holds; it was not among its own backups when it was made.
            made = created_at.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
            connection.execute(
                "INSERT INTO backups (id, path, change, bytes, created_at) VALUES (?, ?, ?, ?, ?)",
                (new_id("bak"), str(archive), int(facts["change"]), size, made),
            )
        connection.execute("COMMIT")
    return cancelled


def _opened(copy: Path) -> sqlite3.Connection:
    return sqlite3.connect(copy, isolation_level=None)
