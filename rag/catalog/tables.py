"""The catalog's tables.

The catalog is the only truth: Chroma and Tantivy can be rebuilt from it without embedding anything again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    and_,
    false,
    or_,
)
from sqlalchemy.engine import Dialect


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC. SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _fk(target: str, *, cascade: bool = True) -> ForeignKey:
    return ForeignKey(target, ondelete="CASCADE" if cascade else None)


facts = Table(  # `catalog_id`; `change`, the number of the last change; `moment`, when that was
    "facts",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

embedders = Table(
    "embedders",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("identity", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("spec", String, nullable=True),  # what loads it: `default`, a folder, a name on the hub
    sqlite_autoincrement=True,
)

collections = Table(
    "collections",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("index_id", Integer, nullable=True),  # the active index
    Column("metadata_schema", JSON, nullable=False),  # reserved
    Column("access", JSON, nullable=True),  # reserved
    Column("created_at", UtcDateTime, nullable=False),
)

indexes = Table(
    "indexes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("collection_id", String, _fk("collections.id"), nullable=False, index=True),
    Column("embedder_id", Integer, _fk("embedders.id", cascade=False), nullable=False),
    Column("splitter", String, nullable=False),
    Column("state", String, nullable=False),  # building | active | retired
    Column("checked", JSON, nullable=True),  # what the quality check before the switch found
    Column("ranking", JSON, nullable=True),  # weights fitted on the owner's questions, and what they were worth
    Column("created_at", UtcDateTime, nullable=False),
    Column("activated_at", UtcDateTime, nullable=True),
    Column("retired_at", UtcDateTime, nullable=True),
    sqlite_autoincrement=True,
)

embedder_probes = Table(  # whether an index's embedder can read its collection's texts, per language
    "embedder_probes",
    metadata,
    Column("index_id", Integer, _fk("indexes.id"), primary_key=True),
    Column("language", String, primary_key=True),  # en | zh
    Column("coverage", Float, nullable=False),  # share of the tokens that its vocabulary knows
    Column("found", Float, nullable=False),  # share of chunks that a sentence of theirs finds again
    Column("samples", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),  # of this language when it was probed
    Column("probed_at", UtcDateTime, nullable=False),
)

sources = Table(
    "sources",
    metadata,
    Column("id", String, primary_key=True),
    Column("collection_id", String, _fk("collections.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("config", JSON, nullable=False),
    Column("refresh", String, nullable=True),  # "15m", "daily 03:00", a cron line; none: only when asked
    Column("watch", Boolean, nullable=False, server_default=false()),  # a folder's file events start a sync
    Column("created_at", UtcDateTime, nullable=False),
    Column("synced_at", UtcDateTime, nullable=True),
    UniqueConstraint("collection_id", "name"),
)

documents = Table(
    "documents",
    metadata,
    Column("id", String, primary_key=True),
    Column("source_id", String, _fk("sources.id"), nullable=False),
    Column("key", String, nullable=False),
    Column("uri", String, nullable=False),
    Column("title", String, nullable=False),  # as the source has it
    Column("edited_title", String, nullable=True),  # goes before it, and survives every sync
    Column("tags", JSON, nullable=False, server_default="[]"),
    Column("name", String, nullable=False),  # file name of the original
    Column("media_type", String, nullable=True),
    Column("status", String, nullable=False),
    Column("problems", JSON, nullable=False),
    Column("state", JSON, nullable=False),  # what the source said when its bytes were last read
    Column("content_sha256", String, nullable=True),  # of the bytes last read, whether or not they could be understood
    Column("pipeline", String, nullable=True),  # of the reader that last read them
    Column("enabled", Boolean, nullable=False),
    Column("access", JSON, nullable=True),  # reserved
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime, nullable=True),
    UniqueConstraint("source_id", "key"),
)

document_metadata = Table(
    "document_metadata",
    metadata,
    Column("document_id", String, _fk("documents.id"), primary_key=True),
    Column("key", String, primary_key=True),
    Column("edited", Boolean, primary_key=True),  # somebody's own value: goes before the source's, survives every sync
    Column("type", String, nullable=False),  # text | number | boolean | date; of an edited one also: none
    Column("text", String, nullable=False),
    Column("number", Float, nullable=True),
)
# What filters look through: 7 documents of 20,000 are found in 0.1 ms, and without these in 60.
for _column in (document_metadata.c.text, document_metadata.c.number):
    Index(
        f"ix_document_metadata_{_column.name}",
        document_metadata.c.key,
        document_metadata.c.edited,
        document_metadata.c.type,
        _column,
    )

versions = Table(
    "versions",
    metadata,
    Column("document_id", String, _fk("documents.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content_sha256", String, nullable=False),
    Column("text_sha256", String, nullable=False),
    Column("pipeline", String, nullable=False),
    Column("media_type", String, nullable=True),
    Column("name", String, nullable=False),
    Column("title", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("blocks", JSON, nullable=False),
    Column("pages", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Retention empties text, blocks and pages and takes the chunks; the row stays and says so.
    Column("removed_at", UtcDateTime, nullable=True),
)
# What retention looks through after every sync: without it each look reads the versions themselves.
Index(
    "ix_versions_kept",
    versions.c.document_id,
    versions.c.number,
    sqlite_where=versions.c.removed_at.is_(None),
    postgresql_where=versions.c.removed_at.is_(None),
)

activations = Table(  # which version was active from which change to which; an open one has no end
    "activations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("document_id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("from_change", Integer, nullable=False),
    Column("to_change", Integer, nullable=True),
    Column("from_at", UtcDateTime, nullable=False),
    Column("to_at", UtcDateTime, nullable=True),
    ForeignKeyConstraint(["document_id", "version"], ["versions.document_id", "versions.number"], ondelete="CASCADE"),
    sqlite_autoincrement=True,
)
# Without it every version that goes scans all activations: deleting a source of 8,000 documents took 4.5 s, now 0.1.
Index("ix_activations_version", activations.c.document_id, activations.c.version)
# One open activation per document, held by the database itself: two versions are never active at once.
Index(
    "ix_activations_open",
    activations.c.document_id,
    unique=True,
    sqlite_where=activations.c.to_change.is_(None),
    postgresql_where=activations.c.to_change.is_(None),
)

chunks = Table(
    "chunks",
    metadata,
    # AUTOINCREMENT: SQLite reuses rowids otherwise, and a key in a cache must never come to mean another chunk.
    Column("key", Integer, primary_key=True, autoincrement=True),
    Column("document_id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("index_id", Integer, _fk("indexes.id"), nullable=False, index=True),
    Column("ordinal", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    # The slice itself, kept beside its offsets: substr() over a 300-page text per hit costs more than the look-up.
    Column("text", Text, nullable=False),
    Column("heading", Text, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("places", JSON, nullable=False),  # [[start, page, page label, section, row], …] in order of start
    Column("embedded_sha256", String, nullable=False, index=True),  # whether a vector is still wanted is asked by it
    Column("signature", LargeBinary, nullable=True),  # MinHash of the text; none: it was written before there were any
    ForeignKeyConstraint(["document_id", "version"], ["versions.document_id", "versions.number"], ondelete="CASCADE"),
    UniqueConstraint("document_id", "version", "index_id", "ordinal"),
    sqlite_autoincrement=True,
)


def chunk_is_active_at(change: int | None) -> ColumnElement[bool]:
    """A question may find a chunk while this holds: its version is the active one of its document, now (None) or right
    after a change."""
    same = and_(activations.c.document_id == chunks.c.document_id, activations.c.version == chunks.c.version)
    if change is None:
        return and_(same, activations.c.to_change.is_(None))
    ended = or_(activations.c.to_change.is_(None), activations.c.to_change > change)
    return and_(same, activations.c.from_change <= change, ended)


chunk_is_active = chunk_is_active_at(None)

aliases = Table(  # what a chunk itself calls by two names, one Chinese and one English: “退货政策 (return policy)”
    "aliases",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("chunk_key", Integer, _fk("chunks.key"), nullable=False, index=True),
    Column("zh", String, nullable=False, index=True),  # both as terms are folded
    Column("en", String, nullable=False, index=True),
    sqlite_autoincrement=True,
)

vectors = Table(  # float16, by the text that was embedded: a renamed or copied document embeds nothing
    "vectors",
    metadata,
    Column("embedder_id", Integer, _fk("embedders.id", cascade=False), primary_key=True),
    Column("sha256", String, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

pending = Table(  # flips that are true in the catalog and not yet in the terms
    "pending",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("change", Integer, nullable=False),
    Column("collection_id", String, nullable=False),
    Column("index_id", Integer, nullable=False),
    Column("document_id", String, nullable=False),
    Column("old_version", Integer, nullable=True),
    Column("new_version", Integer, nullable=True),
    sqlite_autoincrement=True,
)

purged = Table(  # all that is left of a document whose every trace was asked to go
    "purged",
    metadata,
    Column("document_id", String, primary_key=True),
    Column("purged_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=True),  # none: the files have not been rewritten without it yet
)

answers = Table(  # kept for a while, so that what they cite can be looked up
    "answers",
    metadata,
    Column("id", String, primary_key=True),
    Column("question", Text, nullable=False),
    Column("refused", Boolean, nullable=False),
    Column("answer", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)

answer_citations = Table(  # versions named here outlive retention
    "answer_citations",
    metadata,
    Column("answer_id", String, _fk("answers.id"), primary_key=True),
    Column("document_id", String, primary_key=True),
    Column("version", Integer, primary_key=True),
)
Index("ix_answer_citations_version", answer_citations.c.document_id, answer_citations.c.version)

feedback = Table(  # what askers said of answers; questions to measure with. It outlives the answer
    "feedback",
    metadata,
    Column("id", String, primary_key=True),
    Column("answer_id", String, nullable=True, index=True),
    Column("question", Text, nullable=False),  # as it was understood: whole, without the conversation before it
    Column("collections", JSON, nullable=False),  # ids of those that were asked
    Column("helpful", Boolean, nullable=True),
    Column("expected", Text, nullable=True),  # the right answer, where somebody gave it
    Column("documents", JSON, nullable=False),  # ids of those named, cited and shown; see rag/catalog/feedback.py
    Column("comment", Text, nullable=True),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)

backups = Table(  # that were made of this catalog: a purge says which of them still hold the document
    "backups",
    metadata,
    Column("id", String, primary_key=True),
    Column("path", String, nullable=False),
    Column("change", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

idempotency = Table(  # what was answered to a writing call, to be answered again to its repetition
    "idempotency",
    metadata,
    Column("key", String, primary_key=True),
    Column("fingerprint", String, nullable=False),  # of method, path and body
    Column("status", Integer, nullable=True),  # none while the first call is at work
    Column("headers", JSON, nullable=True),
    Column("body", LargeBinary, nullable=True),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),  # queued | running | succeeded | partial | failed | cancelled
    Column("collection_id", String, _fk("collections.id"), nullable=True),
    Column("source_id", String, _fk("sources.id"), nullable=True),
    Column("request", JSON, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=True),
    Column("unit", String, nullable=False),
    Column("chunks", Integer, nullable=False, server_default="0"),  # written so far
    Column("bytes", Integer, nullable=False, server_default="0"),  # read so far
    Column("counts", JSON, nullable=False),
    Column("problem", JSON, nullable=True),
    Column("cancel_requested", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime, nullable=True),
    Column("finished_at", UtcDateTime, nullable=True),
)

job_items = Table(
    "job_items",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String, _fk("jobs.id"), nullable=False, index=True),
    Column("key", String, nullable=False),
    Column("uri", String, nullable=False),
    Column("state", String, nullable=False),  # added | changed | deleted | failed | partial
    Column("document_id", String, nullable=True),
    Column("problem", JSON, nullable=True),
    sqlite_autoincrement=True,
)
