"""Is what must be true true? Catalog, originals, Chroma and the terms compared with each other, and repaired.

`inspect` finds and changes nothing. It reads everything that is stored once, in batches; what stays in memory is the
keys of one index at a time, some 100 bytes for each chunk. It may run while questions are asked and jobs work: the
catalog is read in one snapshot, and while a cache is compared nothing is published.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from rag.catalog import checks, history, indexes, knowledge, repairs, versions
from rag.catalog.checks import Damage
from rag.catalog.engine import Connection, last_change
from rag.catalog.versions import sha256
from rag.errors import AttestError, Unavailable
from rag.knowledge import KnowledgeBase

log = logging.getLogger(__name__)

Level = Literal["problem", "note"]

_EXAMPLES = 5
_BATCH = 1_000  # vectors compared at once
_SAME = 0.999  # cosine of a vector with its copy in Chroma, which keeps float32 of our float16
_ASKED = 20  # vectors that Chroma must find again by themselves
_EMBED_AT_ONCE = 64
_ROUNDS = 4  # one repair may show what another one has to do: a version that goes takes the answers that quote it along
_FOUND_SHARE = 0.8  # its index is approximate and may miss one here and there; a torn one misses most


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. A note takes up room, or waits for its time; a problem is wrong, or may become so."""

    code: str
    what: str
    count: int
    examples: tuple[str, ...]
    repairable: bool
    repaired: bool = False
    level: Level = "problem"
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class _Check:
    what: str
    remedy: str
    repairable: bool = True
    level: Level = "problem"


_REPAIR = "attest doctor --deep --repair "
_REBUILDS = _REPAIR + "writes it anew from the catalog; nothing is embedded."
_REREADS = _REPAIR + "takes the document out of answers; the next sync of its source reads it again."

_GROUPS: dict[str, dict[str, _Check]] = {
    "database": {
        "database-damaged": _Check(
            "SQLite finds the file damaged", "Stop the service and restore a backup: attest backup restore FILE.", False
        ),
        "row-without-parent": _Check("rows belong to nothing", _REPAIR + "removes them."),
        "schema-revision": _Check("the schema is of another version", "Restart the service, which migrates it.", False),
    },
    "history": {
        "two-versions-active": _Check("documents have two active versions", _REPAIR + "keeps the later one."),
        "activations-overlap": _Check("active times of versions overlap", _REPAIR + "lets the later one win."),
        "activation-backwards": _Check("versions were active until before they began", _REPAIR + "closes the gap."),
        "activation-ahead": _Check(
            "versions became active in a change to come", _REPAIR + "counts changes from there."
        ),
        "activation-without-version": _Check(
            "active times name versions that are not there", _REPAIR + "removes them."
        ),
        "active-version-removed": _Check("active versions have lost their text to retention", _REREADS),
        "index-state": _Check("indexes are not in the state that their collection says", _REPAIR + "believes it."),
        "collection-without-index": _Check(
            "collections have no index", "Delete the collection and sync its sources into a new one.", False
        ),
        "deleted-document-active": _Check(
            "deleted documents can still be found", _REPAIR + "takes them out of answers."
        ),
        "document-without-version": _Check("documents count as read and have no active version", _REREADS),
        "document-withdrawn": _Check(
            "documents were damaged, and are not searched until they are read again",
            "attest sync reads them again; what was uploaded must be uploaded again.",
            False,
            "note",
        ),
    },
    "staged": {
        "version-never-active": _Check(
            "versions were never active: an interrupted job left them",
            _REPAIR + "removes them, and so does a restart.",
            level="note",
        ),
    },
    "texts": {
        "text-differs": _Check("texts of versions are not those that were stored", _REREADS),
        "removed-version-kept": _Check("removed versions still hold text or chunks", _REPAIR + "empties them."),
        "chunk-missing": _Check("versions lack chunks between others", _REREADS),
        "chunk-outside": _Check("chunks lie outside of their version's text", _REREADS),
        "chunk-differs": _Check("chunks differ from their version's text", _REPAIR + "cuts them out of it again."),
        "signature-differs": _Check("marks of near-duplicates are of other texts", _REPAIR + "makes them again."),
        "chunk-hash-differs": _Check("chunks are not what was embedded", _REREADS),
        "places-damaged": _Check("places of chunks make no sense", _REREADS),
        "text-without-chunks": _Check("active texts have no chunks in the index", _REREADS),
    },
    "glossary": {
        "names-differ": _Check(
            "names in two languages are not those that the texts spell out", _REPAIR + "finds them again."
        ),
    },
    "vectors": {
        "vector-missing": _Check("chunks have no vector", _REPAIR + "embeds them again."),
        "vector-damaged": _Check("vectors are damaged", _REPAIR + "embeds their texts again."),
    },
    "orphans": {
        "vector-orphan": _Check("vectors belong to no chunk", _REPAIR + "removes them.", level="note"),
    },
    "caches": {
        "flip-pending": _Check("changes have not reached the terms", _REBUILDS),
        "terms-closed": _Check("the terms of an index are not open", _REBUILDS),
        "terms-missing": _Check("active chunks are missing in the terms", _REBUILDS),
        "terms-orphan": _Check("the terms hold chunks that are not active", _REBUILDS),
        "terms-twice": _Check("chunks stand twice in the terms, and count twice", _REBUILDS),
        "terms-ahead": _Check("the terms have seen changes that the catalog does not know", _REBUILDS),
        "terms-stray": _Check("terms belong to no index", _REPAIR + "removes them.", level="note"),
        "chroma-missing": _Check("active chunks are missing in Chroma", _REBUILDS),
        "chroma-orphan": _Check("Chroma holds chunks that are not active", _REBUILDS),
        "chroma-differs": _Check("vectors in Chroma are not those of the catalog", _REBUILDS),
        "chroma-blind": _Check("Chroma does not find its own vectors again", _REBUILDS),
        "chroma-ahead": _Check("Chroma has seen changes that the catalog does not know", _REBUILDS),
        "chroma-stray": _Check("vectors in Chroma belong to no index", _REPAIR + "removes them.", level="note"),
    },
    "originals": {
        "original-missing": _Check(
            "originals of active versions are not there",
            _REPAIR + "lets the next sync of their sources read them again.",
        ),
        "original-lost": _Check(
            "originals are not there; their texts are",
            "attest sync reads what the source still has. Those of earlier versions come back with a backup only.",
            False,
            "note",
        ),
        "original-damaged": _Check(
            "originals are not the bytes that were stored", _REPAIR + "removes them; the next sync reads them again."
        ),
    },
    "unwanted": {
        "original-orphan": _Check("originals that nothing refers to", _REPAIR + "removes them.", level="note"),
        "original-partial": _Check("half-written originals are left over", _REPAIR + "removes them.", level="note"),
    },
    "answers": {
        "answer-damaged": _Check("kept answers cannot be read", _REPAIR + "removes them."),
        "quote-differs": _Check(
            "kept answers quote what their source does not say", _REPAIR + "removes these answers."
        ),
        "quote-lost": _Check("kept answers quote versions that are not kept", _REPAIR + "removes these answers."),
        "citation-unlisted": _Check(
            "kept answers cite versions that retention does not know of", _REPAIR + "notes them for it."
        ),
    },
}
CHECKS = {code: check for group in _GROUPS.values() for code, check in group.items()}


@dataclass
class _Tally:
    """Counts damage by check, and keeps a few examples of each."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, found: Iterable[Damage]) -> None:
        for damage in found:
            self.counts[damage.code] = self.counts.get(damage.code, 0) + 1
            some = self.examples.setdefault(damage.code, [])
            if len(some) < _EXAMPLES:
                some.append(damage.example)

    def findings(self) -> list[Finding]:
        return [
            Finding(
                code,
                check.what,
                self.counts[code],
                tuple(self.examples[code]),
                check.repairable,
                level=check.level,
                remedy=check.remedy,
            )
            for code, check in CHECKS.items()
            if code in self.counts
        ]


def inspect(base: KnowledgeBase, *, sample: int | None = None) -> list[Finding]:
    """What is not as it must be, in the order of `CHECKS`; an empty list where all is sound.

    `sample`: read the texts and originals of so many documents only. Everything else is compared whole.
    """
    tally = _Tally()
    with base.catalog.read() as snapshot:
        for group in _groups_to_look_at(snapshot):
            tally.add(_LOOKS[group](base, snapshot, sample))
    tally.add(_caches(base))
    return tally.findings()


def _groups_to_look_at(snapshot: Connection) -> list[str]:
    idle = checks.is_idle(snapshot)  # what a job has staged or put aside belongs to nobody yet
    return [group for group in _LOOKS if idle or group not in _WHEN_IDLE]


# ── caches ────────────────────────────────────────────────────────────────────────────────────


def _caches(base: KnowledgeBase) -> Iterator[Damage]:
    with base.catalog.read() as snapshot:
        everything = versions.all_indexes(snapshot)
    for index_id, _, dimension in everything:
        # Nothing is published between the snapshot and the look into the caches, so a difference is a difference.
        with base.caches.still(), base.catalog.read() as snapshot:
            if index_id in {still_there for still_there, _, _ in versions.all_indexes(snapshot)}:
                yield from _index(base, snapshot, index_id, dimension)
    with base.caches.still(), base.catalog.read() as snapshot:
        yield from checks.pending_flips(snapshot)
        yield from _strays(base, snapshot)


def _index(base: KnowledgeBase, snapshot: Connection, index_id: int, dimension: int) -> Iterator[Damage]:
    wanted = versions.active_keys(snapshot, index_id)
    try:
        terms = base.caches.held_terms(index_id)
    except Unavailable as problem:
        yield Damage("terms-closed", str(problem), index_id)
        return
    else:
        yield from _compared("terms", index_id, wanted, terms)
        count = base.caches.count_terms(index_id)
        if count != len(terms):
            yield Damage("terms-twice", f"index {index_id}: {count} entries of {len(terms)} chunks", index_id)
    if not base.caches.is_attached(index_id):
        yield from _marks(base, index_id, change=last_change(snapshot))
        return  # vectors are searched exactly meanwhile, and attaching compares the keys
    try:
        held = base.caches.held_vectors(index_id)
        yield from _compared("chroma", index_id, wanted, held)
        yield from _vectors(base, snapshot, index_id, sorted(wanted & held), dimension=dimension)
        yield from _marks(base, index_id, change=last_change(snapshot))
    except Unavailable as problem:
        yield Damage("chroma-blind", str(problem), index_id)


def _compared(cache: str, index_id: int, wanted: set[int], held: set[int]) -> Iterator[Damage]:
    for name, keys in (("missing", wanted - held), ("orphan", held - wanted)):
        for key in sorted(keys):
            yield Damage(f"{cache}-{name}", f"chunk {key} of index {index_id}", index_id)


def _vectors(
    base: KnowledgeBase, snapshot: Connection, index_id: int, keys: list[int], *, dimension: int
) -> Iterator[Damage]:
    """Whether Chroma's vectors are the catalog's, and whether Chroma finds them."""
    for start in range(0, len(keys), _BATCH):
        some, ours = checks.readable_vectors(snapshot, keys[start : start + _BATCH], dimension=dimension)
        theirs = base.caches.vectors_in_chroma(index_id, some)
        for key, vector in zip(some, ours, strict=True):
            copy = theirs.get(key)
            if copy is not None and not float(vector @ copy) >= _SAME * max(float(np.linalg.norm(copy)), 1e-9):
                yield Damage("chroma-differs", f"chunk {key} of index {index_id}", index_id)
    asked, matrix = checks.readable_vectors(
        snapshot, keys[:: max(1, len(keys) // _ASKED)][:_ASKED], dimension=dimension
    )
    missed = []
    for key, vector in zip(asked, matrix, strict=True):
        nearest = base.caches.ask_chroma(index_id, vector, k=10)
        # Equal texts have equal vectors, and any of them will do.
        if key not in {other for other, _ in nearest} and max((score for _, score in nearest), default=0.0) < _SAME:
            missed.append(key)
    if len(missed) > (1 - _FOUND_SHARE) * len(asked):
        for key in missed:
            yield Damage("chroma-blind", f"chunk {key} of index {index_id}", index_id)


def _marks(base: KnowledgeBase, index_id: int, *, change: int) -> Iterator[Damage]:
    for cache, seen in zip(("terms", "chroma"), base.caches.seen(index_id), strict=True):
        if seen is not None and seen > change:
            yield Damage(f"{cache}-ahead", f"index {index_id}: {seen} of {change}", index_id)


def _strays(base: KnowledgeBase, snapshot: Connection) -> Iterator[Damage]:
    terms, vectors = base.caches.strays(checks.index_ids(snapshot))
    for space in terms:
        yield Damage("terms-stray", space)
    for index_id in vectors:
        yield Damage("chroma-stray", f"index {index_id}")


# ── originals ─────────────────────────────────────────────────────────────────────────────────


def _originals(base: KnowledgeBase, snapshot: Connection, *, sample: int | None) -> Iterator[Damage]:
    """Each original that must be there: is it, and are its bytes those it is named by?"""
    read = 0
    last, state = "", ""
    for digest, document_id, number, active in checks.wanted_originals(snapshot):
        if digest != last:
            last, state = digest, base.originals.examine(digest, deep=sample is None or read < sample)
            read += 1
            if state == "damaged":
                yield Damage("original-damaged", f"{digest[:12]}…", digest)
        if state == "missing":
            code = "original-missing" if active else "original-lost"
            yield Damage(code, f"{document_id} version {number}", (document_id, number))


def _unwanted_originals(base: KnowledgeBase, snapshot: Connection) -> Iterator[Damage]:
    """Both in order of their hashes: two lists side by side, neither of them in memory."""
    wanted = checks.referenced_originals(snapshot)
    following = next(wanted, None)
    for digest in base.originals.digests():
        while following is not None and following < digest:
            following = next(wanted, None)
        if digest != following and not base.originals.is_fresh(digest):
            yield Damage("original-orphan", f"{digest[:12]}…", digest)
    for path in base.originals.partial():
        yield Damage("original-partial", path.name, path)


# ── looking, by group ─────────────────────────────────────────────────────────────────────────


def _history(_base: KnowledgeBase, snapshot: Connection, _sample: int | None) -> Iterator[Damage]:
    yield from checks.history(snapshot)
    yield from checks.index_states(snapshot)
    yield from checks.lives(snapshot)


def _vectors_of_catalog(_base: KnowledgeBase, snapshot: Connection, _sample: int | None) -> Iterator[Damage]:
    yield from checks.missing_vectors(snapshot)
    yield from checks.damaged_vectors(snapshot)


_Look = Callable[[KnowledgeBase, Connection, int | None], Iterator[Damage]]
_LOOKS: dict[str, _Look] = {
    "database": lambda _base, snapshot, _sample: checks.database(snapshot),
    "history": _history,
    "staged": lambda _base, snapshot, _sample: checks.never_active(snapshot),
    "texts": lambda _base, snapshot, sample: checks.texts(snapshot, sample=sample),
    "glossary": lambda _base, snapshot, sample: checks.glossary(snapshot, sample=sample),
    "vectors": _vectors_of_catalog,
    "orphans": lambda _base, snapshot, _sample: checks.orphan_vectors(snapshot),
    "originals": lambda base, snapshot, sample: _originals(base, snapshot, sample=sample),
    "unwanted": lambda base, snapshot, _sample: _unwanted_originals(base, snapshot),
    "answers": lambda _base, snapshot, _sample: checks.kept_answers(snapshot),
}
_WHEN_IDLE = frozenset({"staged", "orphans", "unwanted"})


# ── repairing ─────────────────────────────────────────────────────────────────────────────────


def repair(base: KnowledgeBase, findings: Sequence[Finding]) -> list[Finding]:
    """Put right what can be put right; may run while questions are asked and jobs work.

    Returns the findings, each `repaired` or not, and after them what is left to its owner. What was damaged in a text
    cannot be made up: its document is not searched until its source is synced again.
    """
    left = list(findings)
    for _ in range(_ROUNDS):
        codes = {item.code for item in left if item.repairable}
        if not codes:
            break
        before = {(item.code, item.count) for item in left}
        for group, repairing in _REPAIRS.items():
            if codes & _GROUPS[group].keys():
                found = [damage for damage in _look_again(base, group) if damage.code in codes]
                repairing(base, found)
        left = inspect(base)
        if {(item.code, item.count) for item in left} == before:
            break
    still = {item.code: item for item in left}
    known = {item.code for item in findings}
    done = [still.get(item.code, replace(item, repaired=True)) for item in findings]
    return [*done, *(item for item in left if item.code not in known)]


def _look_again(base: KnowledgeBase, group: str) -> list[Damage]:
    """All the damage of a group, as it is now: a finding names a few examples only."""
    if group == "caches":
        return list(_caches(base))
    with base.catalog.read() as snapshot:
        return list(_LOOKS[group](base, snapshot, None)) if group in _groups_to_look_at(snapshot) else []


def _repair_database(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    with base.caches.still(), base.catalog.write() as connection:
        repairs.remove_rows(connection, [damage.target for damage in found if damage.code == "row-without-parent"])


def _repair_history(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    for damage in found:
        match damage.code:
            case "two-versions-active" | "activations-overlap" | "activation-backwards":
                with base.caches.still(), base.catalog.write() as connection:
                    repairs.order_activations(connection, damage.target)
            case "activation-without-version":
                with base.caches.still(), base.catalog.write() as connection:
                    repairs.remove_activations(connection, [damage.target])
            case "index-state":
                with base.caches.still(), base.catalog.write() as connection:
                    repairs.state_indexes(connection, damage.target)
            case "activation-ahead":
                with base.caches.still(), base.catalog.write() as connection:
                    repairs.catch_up(connection)
            case "deleted-document-active":
                with base.caches.still():
                    _retire(base, damage.target)
            case "active-version-removed" | "document-without-version":
                _withdraw(base, *damage.target)


def _repair_texts(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    cut = [damage.target for damage in found if damage.code == "chunk-differs"]
    with base.caches.still():
        with base.catalog.write() as connection:
            touched = {repairs.cut_again(connection, key, text) for key, text in cut}
        _rebuild(base, {index_id for index_id in touched if index_id is not None}, terms=True, vectors=False)
        with base.catalog.write() as connection:
            for key, text in (damage.target for damage in found if damage.code == "signature-differs"):
                repairs.sign_again(connection, key, text)
    mended = ("chunk-differs", "signature-differs")
    for target in dict.fromkeys(damage.target for damage in found if damage.code not in mended):
        _withdraw(base, *target)


def _repair_glossary(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    with base.caches.still(), base.catalog.write() as connection:
        repairs.spell_out_again(connection, dict(damage.target for damage in found))


def _withdraw(base: KnowledgeBase, document_id: str, number: int | None) -> None:
    """Empty a version that is damaged; where it is the active one, nothing of its document is searched any more."""
    with base.caches.still():  # no sync puts a good one in its place meanwhile
        with base.catalog.read() as snapshot:
            is_active = versions.active_version(snapshot, document_id) == number
        if is_active and number is not None:
            _retire(base, document_id)
        with base.catalog.write() as connection:
            if is_active:
                repairs.withdraw(connection, document_id)
            if number is not None:
                history.remove_versions(connection, [(document_id, number)])
    log.warning("Document %s was damaged. It is read again by the next sync of its source.", document_id)


def _retire(base: KnowledgeBase, document_id: str) -> None:
    with base.catalog.read() as snapshot:
        collection = knowledge.get_collection(snapshot, repairs.collection_of(snapshot, document_id))
        number = versions.active_version(snapshot, document_id)
    base.caches.retire([(document_id, number)], collection=collection)


def _repair_vectors(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    """What is damaged or missing is embedded again, as far as its embedder can be loaded."""
    for embedder_id in sorted({damage.target[0] for damage in found}):
        of_this = [damage for damage in found if damage.target[0] == embedder_id]
        damaged = {damage.target for damage in of_this if damage.code == "vector-damaged"}
        with base.catalog.read() as snapshot:
            texts = repairs.embedded_texts(snapshot, [damage.target[1] for damage in of_this])
            index_id = repairs.index_with(snapshot, embedder_id)
            index = None if index_id is None else indexes.get_index(snapshot, index_id)
        with base.catalog.write() as connection:  # damaged, and wanted by nobody
            repairs.remove_vectors(connection, [target for target in damaged if target[1] not in texts])
        if index is None or not texts:
            continue
        try:
            embedder = base.embedder_for(index, index.collection_id)
        except AttestError as problem:
            log.error("Vectors stay damaged, because their embedder is not there: %s", problem)
            continue
        hashes = sorted(key for key, text in texts.items() if sha256(text) == key)
        for start in range(0, len(hashes), _EMBED_AT_ONCE):
            some = hashes[start : start + _EMBED_AT_ONCE]
            matrix = embedder.embed_passages([texts[key] for key in some])
            with base.catalog.write() as connection:
                repairs.remove_vectors(connection, damaged & {(embedder_id, key) for key in some})
                versions.save_vectors(connection, embedder_id, dict(zip(some, matrix, strict=True)))


def _repair_orphans(base: KnowledgeBase, _found: Sequence[Damage]) -> None:
    with base.catalog.write() as connection:  # again, now that no job can begin: one may have found a use for them
        if checks.is_idle(connection):
            repairs.remove_vectors(connection, [damage.target for damage in checks.orphan_vectors(connection)])


def _repair_staged(base: KnowledgeBase, _found: Sequence[Damage]) -> None:
    with base.catalog.write() as connection:
        if checks.is_idle(connection):
            versions.collect_staged(connection)


def _repair_originals(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    for damage in found:
        if damage.code == "original-damaged":
            base.originals.remove(damage.target)
    with base.catalog.write() as connection:
        for damage in found:
            if damage.code == "original-missing":
                repairs.ask_for_original(connection, *damage.target)


def _repair_unwanted(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    with base.catalog.write() as connection:  # nobody begins to want one while this looks
        orphans = [damage.target for damage in found if damage.code == "original-orphan"]
        for digest in history.unreferenced(connection, orphans):
            if not base.originals.is_fresh(digest):
                base.originals.remove(digest)
    for path in base.originals.partial():
        path.unlink(missing_ok=True)


def _repair_answers(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    with base.catalog.write() as connection:
        lost = {"answer-damaged", "quote-differs", "quote-lost"}
        repairs.remove_answers(connection, [damage.target for damage in found if damage.code in lost])
    with base.catalog.write() as connection:
        repairs.list_citations(connection, [item.target for item in found if item.code == "citation-unlisted"])


def _repair_caches(base: KnowledgeBase, found: Sequence[Damage]) -> None:
    with base.catalog.read() as snapshot:
        every = {index_id for index_id, _, _ in versions.all_indexes(snapshot)}
        owned = checks.index_ids(snapshot)
    late = {damage.target for damage in found if damage.code == "flip-pending"}
    terms = {item.target for item in found if item.code.startswith("terms-") and item.target is not None} | late
    chroma = {item.target for item in found if item.code.startswith("chroma-") and item.target is not None}
    with base.caches.still():
        _rebuild(base, terms & every, terms=True, vectors=False)
        _rebuild(base, chroma & every, terms=False, vectors=True)
        with base.catalog.write() as connection:
            repairs.forget_pending(connection, late)
        base.caches.drop_strays(owned)


def _rebuild(base: KnowledgeBase, index_ids: Iterable[int], *, terms: bool, vectors: bool) -> None:
    for index_id in sorted(index_ids):
        base.caches.rebuild(index_id, terms=terms, vectors=vectors)


# What is true of the catalog comes first: the caches are made from it.
_REPAIRS: dict[str, Callable[[KnowledgeBase, Sequence[Damage]], None]] = {
    "database": _repair_database,
    "history": _repair_history,
    "staged": _repair_staged,
    "originals": _repair_originals,
    "texts": _repair_texts,
    "glossary": _repair_glossary,
    "vectors": _repair_vectors,
    "orphans": _repair_orphans,
    "answers": _repair_answers,
    "caches": _repair_caches,
    "unwanted": _repair_unwanted,
}
