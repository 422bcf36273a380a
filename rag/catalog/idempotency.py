"""What was answered to a writing call, kept for a day to be answered again. Functions over a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, delete, insert, select, update

from rag.catalog.engine import now
from rag.catalog.tables import idempotency

KEEP_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Kept:
    """The first call under a key. `status` is None while it is at work, or if its process died at it."""

    fingerprint: str
    status: int | None
    headers: Mapping[str, str]
    body: bytes


def find(connection: Connection, key: str) -> Kept | None:
    """What is kept under the key and is not a day old."""
    query = select(idempotency).where(idempotency.c.key == key, idempotency.c.created_at >= now() - KEEP_FOR)
    row = connection.execute(query).first()
    return Kept(row.fingerprint, row.status, row.headers or {}, row.body or b"") if row else None


def begin(connection: Connection, key: str, *, fingerprint: str) -> None:
    """A first call begins. What was kept under its key, and all that is too old, is forgotten."""
    connection.execute(delete(idempotency).where(idempotency.c.created_at < now() - KEEP_FOR))
    forget(connection, key)
    connection.execute(insert(idempotency).values(key=key, fingerprint=fingerprint, created_at=now()))


def finish(connection: Connection, key: str, *, status: int, headers: Mapping[str, str], body: bytes) -> None:
    values = {"status": status, "headers": dict(headers), "body": body}
    connection.execute(update(idempotency).where(idempotency.c.key == key).values(**values))


def forget(connection: Connection, key: str) -> None:
    connection.execute(delete(idempotency).where(idempotency.c.key == key))
