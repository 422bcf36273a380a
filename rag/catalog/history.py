"""The past: what was active at a time, which versions have outlived their use, and what goes without a trace.

Functions over a connection, like those of `versions`, which are about the present.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, and_, cast, delete, func, insert, or_, select, tuple_, update

from rag.catalog.engine import batches, next_change, now
from rag.catalog.feedback import purge_feedback
from rag.catalog.tables import (
    activations,
    answer_citations,
    answers,
    chunk_is_active_at,
    chunks,
    documents,
    idempotency,
    indexes,
    job_items,
    jobs,
    pending,
    purged,
    sources,
    vectors,
    versions,
)
from rag.errors import Gone, NotFound

_MANY = 200  # values in one IN (…)


# ── asking as of a time ───────────────────────────────────────────────────────────────────────


def change_at(connection: Connection, moment: datetime) -> int:
    """The last change that had happened by then; 0 before the first."""
    begun = select(func.max(activations.c.from_change)).where(activations.c.from_at <= moment)
    ended = select(func.max(activations.c.to_change)).where(activations.c.to_at <= moment)
    return max(connection.execute(begun).scalar() or 0, connection.execute(ended).scalar() or 0)


def keys_at(connection: Connection, index_id: int, change: int) -> list[int]:
    """Keys of the chunks that a question could find right after this change, as far as they are still kept."""
    query = (
        select(chunks.c.key)
        .join(activations, chunk_is_active_at(change))
        .where(chunks.c.index_id == index_id)
        .order_by(chunks.c.key)
    )
    return list(connection.execute(query).scalars())


def count_at(connection: Connection, index_id: int, change: int) -> int:
    """How many documents a question could find right after this change."""
    query = (
        select(func.count(func.distinct(chunks.c.document_id)))
        .join(activations, chunk_is_active_at(change))
        .join(documents, documents.c.id == chunks.c.document_id)
        .where(chunks.c.index_id == index_id, documents.c.enabled)
    )
    return int(connection.execute(query).scalar_one())


def not_kept_at(connection: Connection, collection_id: str, change: int) -> int:
    """How many documents had a version then that retention has removed since."""
    query = (
        select(func.count())
        .select_from(activations)
        .join(versions, _same_version(versions, activations))
        .join(documents, documents.c.id == activations.c.document_id)
        .join(sources, sources.c.id == documents.c.source_id)
        .where(
            sources.c.collection_id == collection_id,
            versions.c.removed_at.is_not(None),
            activations.c.from_change <= change,
            or_(activations.c.to_change.is_(None), activations.c.to_change > change),
        )
    )
    return int(connection.execute(query).scalar_one())


# ── retention ─────────────────────────────────────────────────────────────────────────────────


def outlived(connection: Connection, *, keep: int, deleted_before: datetime, limit: int) -> list[tuple[str, int]]:
    """(document, version) of versions that nobody is promised any more, at most `limit` of them.

    They are older than the last `keep` of their document, or their document was deleted before the given time; they
    are not active, and no kept answer cites them. What was never active is not a version yet, and not ours to judge.
    """
    kept = versions.c.removed_at.is_(None)
    crowded = select(versions.c.document_id).where(kept).group_by(versions.c.document_id).having(func.count() > keep)
    ranked = (
        select(
            versions.c.document_id,
            versions.c.number,
            func.row_number()
            .over(partition_by=versions.c.document_id, order_by=versions.c.number.desc())
            .label("rank"),
        )
        .where(kept, versions.c.document_id.in_(crowded))
        .subquery()
    )
    gone = select(documents.c.id).where(documents.c.deleted_at < deleted_before)
    candidates = (
        select(ranked.c.document_id, ranked.c.number)
        .where(ranked.c.rank > keep)
        .union(select(versions.c.document_id, versions.c.number).where(kept, versions.c.document_id.in_(gone)))
        .subquery()
    )
    spans = select(activations.c.id).where(_same_version(activations, candidates))
    cited = select(answer_citations.c.answer_id).where(
        answer_citations.c.document_id == candidates.c.document_id, answer_citations.c.version == candidates.c.number
    )
    query = (
        select(candidates)
        .where(spans.exists(), ~spans.where(activations.c.to_change.is_(None)).exists(), ~cited.exists())
        .limit(limit)
    )
    return [(row.document_id, row.number) for row in connection.execute(query)]


def remove_versions(connection: Connection, gone: Sequence[tuple[str, int]]) -> set[str]:
    """Empty these versions; their rows stay and say when. Returns the hashes of the originals that they were read from.

    Vectors that only they wanted go with them.
    """
    originals: set[str] = set()
    for some in batches(gone, _MANY):
        of_chunks = tuple_(chunks.c.document_id, chunks.c.version).in_(some)
        of_versions = tuple_(versions.c.document_id, versions.c.number).in_(some)
        wanted = _vectors_of(connection, of_chunks)
        connection.execute(delete(chunks).where(of_chunks))
        _delete_unwanted(connection, wanted)
        originals.update(connection.execute(select(versions.c.content_sha256).where(of_versions)).scalars())
        values = {"text": "", "blocks": [], "pages": [], "removed_at": now()}
        connection.execute(update(versions).where(of_versions).values(**values))
    return originals


def unreferenced(connection: Connection, digests: Iterable[str]) -> set[str]:
    """Those of the originals that no version, no document and no job that still has to run wants."""
    left = set(digests)
    for some in batches(sorted(left), _MANY):
        of_versions = select(versions.c.content_sha256).where(
            versions.c.content_sha256.in_(some), versions.c.removed_at.is_(None)
        )
        of_documents = select(documents.c.content_sha256).where(documents.c.content_sha256.in_(some))
        left.difference_update(connection.execute(of_versions).scalars())
        left.difference_update(connection.execute(of_documents).scalars())
    waiting = connection.execute(select(jobs.c.request).where(jobs.c.state.in_(["queued", "running"]))).scalars()
    return left - {str(request.get("sha256")) for request in waiting}


def _vectors_of(connection: Connection, condition: ColumnElement[bool]) -> set[tuple[int, str]]:
    """(embedder, hash) of the vectors of these chunks."""
    query = (
        select(indexes.c.embedder_id, chunks.c.embedded_sha256)
        .join(indexes, indexes.c.id == chunks.c.index_id)
        .where(condition)
        .distinct()
    )
    return {(row.embedder_id, row.embedded_sha256) for row in connection.execute(query)}


def _delete_unwanted(connection: Connection, candidates: Iterable[tuple[int, str]]) -> None:
    """Those of the vectors that no chunk wants any more."""
    still = (
        select(chunks.c.key)
        .join(indexes, indexes.c.id == chunks.c.index_id)
        .where(chunks.c.embedded_sha256 == vectors.c.sha256, indexes.c.embedder_id == vectors.c.embedder_id)
        .exists()
    )
    for some in batches(sorted(candidates), _MANY):
        connection.execute(delete(vectors).where(tuple_(vectors.c.embedder_id, vectors.c.sha256).in_(some), ~still))


# ── without a trace ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Traces:
    """Where a document is, outside of its own rows."""

    document_id: str
    source_id: str
    collection_id: str
    kind: str  # of its source
    keys: dict[int, list[int]]  # index → chunks of all versions
    originals: frozenset[str]
    first_change: int  # backups made before it do not hold it


def traces_of(connection: Connection, document_id: str) -> Traces:
    """Raises NotFound, and Gone for one that was purged; a deleted document has traces like any other."""
    row = connection.execute(
        select(documents, sources.c.collection_id, sources.c.kind)
        .join(sources, sources.c.id == documents.c.source_id)
        .where(documents.c.id == document_id)
    ).first()
    if row is None:
        raise_if_purged(connection, document_id)
        raise NotFound(f"There is no document {document_id}.", remedy="GET …/documents lists those that there are.")
    keys: dict[int, list[int]] = {}
    for found in connection.execute(select(chunks.c.index_id, chunks.c.key).where(chunks.c.document_id == document_id)):
        keys.setdefault(found.index_id, []).append(found.key)
    originals = set(
        connection.execute(select(versions.c.content_sha256).where(versions.c.document_id == document_id)).scalars()
    ) | ({row.content_sha256} - {None})
    first = connection.execute(
        select(func.min(activations.c.from_change)).where(activations.c.document_id == document_id)
    ).scalar()
    return Traces(document_id, row.source_id, row.collection_id, row.kind, keys, frozenset(originals), int(first or 0))


def purge_rows(connection: Connection, traces: Traces) -> None:
    """Take every row away that holds something of the document; `purged` remembers its id and nothing else."""
    document_id = traces.document_id
    key = connection.execute(select(documents.c.key).where(documents.c.id == document_id)).scalar_one()
    # Answers that quote it, and refusals that show it among what came closest.
    holding = func.instr(cast(answers.c.answer, Text), document_id) > 0
    connection.execute(delete(answers).where(holding))
    purge_feedback(connection, document_id)
    of_source = select(jobs.c.id).where(jobs.c.source_id == traces.source_id)
    connection.execute(
        delete(job_items).where(
            or_(job_items.c.document_id == document_id, and_(job_items.c.key == key, job_items.c.job_id.in_(of_source)))
        )
    )
    for job in connection.execute(select(jobs.c.id, jobs.c.request).where(jobs.c.source_id == traces.source_id)):
        if job.request.get("key") == key:  # an upload carries its title and metadata
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(request={}))
        elif key in (job.request.get("only") or []):  # a retry names what it loads
            only = [other for other in job.request["only"] if other != key]
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(request={**job.request, "only": only}))
    # Answers kept for repetitions may name it: an edited title, the plan of a sync. Those still at work hold none yet.
    connection.execute(delete(idempotency).where(idempotency.c.status.is_not(None)))
    wanted = _vectors_of(connection, chunks.c.document_id == document_id)
    connection.execute(delete(pending).where(pending.c.document_id == document_id))
    connection.execute(delete(documents).where(documents.c.id == document_id))  # its versions and chunks go with it
    _delete_unwanted(connection, wanted)
    connection.execute(insert(purged).values(document_id=document_id, purged_at=now()))
    next_change(connection)


def unfinished_purges(connection: Connection) -> list[str]:
    """Documents whose rows are gone while files may still hold them: a crash came in between."""
    return list(connection.execute(select(purged.c.document_id).where(purged.c.finished_at.is_(None))).scalars())


def finish_purge(connection: Connection, document_ids: Sequence[str]) -> None:
    connection.execute(update(purged).where(purged.c.document_id.in_(document_ids)).values(finished_at=now()))


def raise_if_purged(connection: Connection, document_id: str) -> None:
    moment = connection.execute(select(purged.c.purged_at).where(purged.c.document_id == document_id)).scalar()
    if moment is not None:
        raise Gone(
            f"Document {document_id} was purged on {moment:%Y-%m-%d}: nothing of it is kept.",
            remedy="Only a backup from before can bring it back.",
        )


def _same_version(left: Any, right: Any) -> ColumnElement[bool]:
    """Whether rows of two tables speak of one version; it is called `version` or, in its own table, `number`."""
    numbers = [table.c.version if "version" in table.c else table.c.number for table in (left, right)]
    return and_(left.c.document_id == right.c.document_id, numbers[0] == numbers[1])
