"""Hits → Passages that fit the window: grown to what a reader needs where there is room, cut by whole sentences where
there is not. See docs/decisions/0009-what-a-reader-is-shown.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rag.answering.units import units, worth
from rag.models import Hit, Passage, Span
from rag.text.keywords import Keyword

REACH = 2  # chunks before and behind a hit that it may grow into

# What the sentences of a hit are worth beside those of other hits, as a logarithm: by its score against the best hit's,
# and by its rank. Like the weights in `rag.answering.units` they are fitted; see decision 9.
_SCORE, _RANK = 2.0, 0.7
_BESIDE = 0.7  # what a chunk beside a hit is worth against the hit itself, and one more away against that
_LOOKED_AT = 1.5  # times as many hits as fit by their mean size

Cost = Callable[[Passage], int]
Around = Callable[[Sequence[Hit]], Iterable[Hit]]  # the chunks up to REACH before and behind these
_At = tuple[str, int, int]  # document, version, offset


@dataclass(frozen=True, slots=True)
class Context:
    passages: tuple[Passage, ...]
    left_out: int  # hits of which nothing fitted


def pack(
    hits: Sequence[Hit],
    *,
    budget_tokens: int,
    count_tokens: Cost,
    wanted: Sequence[Keyword] = (),
    around: Around = lambda _hits: (),
    more: Sequence[Hit] = (),
) -> Context:
    """Passages of the hits, best first, numbered from 1; never over the budget.

    Where all hits fit whole, the rest of the budget goes to what stands `around` them in the same section and to `more`
    hits, which rank behind them; what of those does not fit is not counted as left out. Where they do not, each hit is
    cut to the sentences that have most of the keywords `wanted`, and those beside them, and what is left of one
    document stands in one passage, for titles take room too. `count_tokens` says what a passage costs in the prompt,
    its frame included.
    """
    ranked = [*hits, *more]
    sizes = _Sizes(count_tokens, hits)
    needed = sum(map(sizes.whole, hits))
    are_whole = needed <= budget_tokens
    if are_whole:
        pieces = [_Piece(hit, hit.start, hit.end, rank, worth=math.inf) for rank, hit in enumerate(hits)]
        left = budget_tokens - needed
        ranked = ranked[: len(hits) + sizes.fitting(left)]
        pieces += _chosen(_beyond(ranked, len(hits), around(ranked) if left > 0 else (), sizes), left, _rank)
    else:
        pieces = _chosen(_parts(hits, wanted, sizes), budget_tokens, _version)
    passages = _fitting(pieces, ranked, budget_tokens, sizes, apart=are_whole)
    shown = {span.chunk_id for passage in passages for span in passage.spans}
    return Context(passages, sum(hit.chunk_id not in shown for hit in hits))


# ── what could be shown ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a chunk that may be shown. `rank` is that of the hit that it is of, or stands beside.

    `tokens` are estimated; `frame` is what it costs to show anything of this hit at all. `first` must be shown with it.
    """

    chunk: Hit
    start: int
    end: int
    rank: int
    worth: float
    tokens: float = 0.0
    frame: float = 0.0
    first: _Piece | None = None


class _Sizes:
    """What passages cost, each hit counted once; parts of them, and what stands around them, are estimated from that:
    counting every sentence would take longer than all the rest."""

    def __init__(self, count: Cost, hits: Sequence[Hit]) -> None:
        self.count = count
        self._whole = {hit.chunk_id: count(Passage.whole(1, hit, 0)) for hit in hits}
        self._frame = {hit.chunk_id: count(Passage(1, hit, (), 0)) for hit in hits}
        self._usual_frame = sum(self._frame.values()) / max(len(hits), 1)
        text = sum(self._whole.values()) - sum(self._frame.values())
        self._ratio = text / max(sum(hit.tokens for hit in hits), 1)  # of the answerer's tokens to the embedder's

    def whole(self, hit: Hit) -> int:
        return self._whole[hit.chunk_id]

    def frame(self, hit: Hit) -> float:
        return self._frame.get(hit.chunk_id, self._usual_frame)

    def fitting(self, tokens: int) -> int:
        """How many more hits may fit; rather too many."""
        return max(0, math.ceil(_LOOKED_AT * tokens * len(self._whole) / max(sum(self._whole.values()), 1)))

    def part(self, chunk: Hit, start: int, end: int) -> float:
        known = self._whole.get(chunk.chunk_id)
        text = chunk.tokens * self._ratio if known is None else known - self._frame[chunk.chunk_id]
        return text * (end - start) / max(len(chunk.text), 1)


def _of_hit(rank: int, hits: Sequence[Hit]) -> float:
    best = hits[0].score
    return math.exp(_SCORE * (hits[rank].score / best if best > 0 else 1.0)) * float((1 + rank) ** -_RANK)


def _parts(hits: Sequence[Hit], wanted: Sequence[Keyword], sizes: _Sizes) -> Iterator[_Piece]:
    """The sentences of the hits, each with the heading that it stands under."""
    for rank, hit in enumerate(hits):
        parts = units(hit)
        own = _of_hit(rank, hits)
        pieces: list[_Piece] = []
        for part, value in zip(parts, worth(hit, parts, wanted), strict=True):
            pieces.append(
                _Piece(
                    hit,
                    part.start,
                    part.end,
                    rank,
                    worth=own * value,
                    tokens=sizes.part(hit, part.start, part.end),
                    frame=sizes.frame(hit),
                    first=None if part.heading is None else pieces[part.heading],
                )
            )
        yield from pieces


def _beyond(ranked: Sequence[Hit], known: int, beside: Iterable[Hit], sizes: _Sizes) -> Iterator[_Piece]:
    """What is not among the `known` best hits: those that rank behind them, and what stands beside each."""
    found: dict[int, _Piece] = {}
    for rank in range(known, len(ranked)):
        hit = ranked[rank]
        tokens = sizes.part(hit, hit.start, hit.end)
        found[hit.chunk_id] = _Piece(
            hit, hit.start, hit.end, rank, worth=_of_hit(rank, ranked), tokens=tokens, frame=sizes.frame(hit)
        )
    whole = {hit.chunk_id for hit in ranked[:known]}
    chunks = [chunk for chunk in (*ranked, *beside) if chunk.start < chunk.end]
    starting = {(chunk.document_id, chunk.version, chunk.start): chunk for chunk in chunks}
    ending = {(chunk.document_id, chunk.version, chunk.end): chunk for chunk in chunks}
    for rank, hit in enumerate(ranked):
        own = _of_hit(rank, ranked)
        for side in (_behind(hit, starting), _before(hit, ending)):
            nearer = found.get(hit.chunk_id)
            for distance, (chunk, start, end) in enumerate(side, 1):
                if chunk.chunk_id in whole or distance > REACH:
                    break  # from there on it is for that hit to grow
                value = own * _BESIDE**distance
                before = found.get(chunk.chunk_id)
                if before is None or before.worth < value:
                    tokens = sizes.part(chunk, start, end)
                    found[chunk.chunk_id] = _Piece(chunk, start, end, rank, value, tokens, first=nearer)
                nearer = found[chunk.chunk_id]
    yield from found.values()


def _behind(hit: Hit, starting: Mapping[_At, Hit]) -> Iterator[tuple[Hit, int, int]]:
    """What follows a hit in the section that it ends in: (chunk, start, end), the nearest first."""
    section = _section(hit, hit.end - 1)
    chunk = starting.get((hit.document_id, hit.version, hit.end))
    while chunk is not None:
        other = next((start for start, place in chunk.places if place.section != section), chunk.end)
        if other > chunk.start:
            yield chunk, chunk.start, min(other, chunk.end)
        if other < chunk.end:
            return
        chunk = starting.get((hit.document_id, hit.version, chunk.end))


def _before(hit: Hit, ending: Mapping[_At, Hit]) -> Iterator[tuple[Hit, int, int]]:
    """What precedes a hit in the section that it begins in, its heading included; the nearest first."""
    section = _section(hit, hit.start)
    chunk = ending.get((hit.document_id, hit.version, hit.start))
    while chunk is not None:
        same = chunk.end
        for start, place in reversed(chunk.places):
            if place.section != section:
                break
            same = max(start, chunk.start)
        if same < chunk.end:
            yield chunk, same, chunk.end
        if same > chunk.start:
            return
        chunk = ending.get((hit.document_id, hit.version, chunk.start))


def _section(chunk: Hit, offset: int) -> str | None:
    return chunk.place_at(max(offset, chunk.places[0][0])).section if chunk.places else None


# ── what is shown ─────────────────────────────────────────────────────────────────────────────


def _chosen(pieces: Iterable[_Piece], tokens: float, frame: Callable[[_Piece], object]) -> list[_Piece]:
    """As many as fit by estimate, what is worth most first; in the order of their choice. `frame` tells pieces apart
    that each need one of their own."""
    chosen: dict[tuple[int, int], _Piece] = {}
    framed: set[object] = set()
    for piece in sorted(pieces, key=lambda piece: -piece.worth):
        new: list[_Piece] = []
        part: _Piece | None = piece
        while part is not None and (part.chunk.chunk_id, part.start) not in chosen:
            new.insert(0, part)
            part = part.first
        cost = sum(part.tokens for part in new) + (0.0 if frame(piece) in framed else piece.frame)
        if new and cost <= tokens:
            tokens -= cost
            framed.add(frame(piece))
            chosen |= {(part.chunk.chunk_id, part.start): part for part in new}
    return list(chosen.values())


def _fitting(
    pieces: list[_Piece], ranked: Sequence[Hit], budget: int, sizes: _Sizes, *, apart: bool
) -> tuple[Passage, ...]:
    """The passages that the pieces make, as they are counted; while that is too much, what came last goes."""
    counted: dict[tuple[tuple[int, int, int], ...], int] = {}
    while True:
        passages: list[Passage] = []
        for passage in _passages(pieces, ranked, apart=apart):
            key = tuple((span.chunk_id, span.start, span.end) for span in passage.spans)
            if key not in counted:
                counted[key] = sizes.count(passage)
            passages.append(replace(passage, n=len(passages) + 1, tokens=counted[key]))
        excess = sum(passage.tokens for passage in passages) - budget
        if excess <= 0 or not pieces:
            return tuple(passages) if pieces else ()
        while pieces and excess > 0:
            excess -= math.ceil(pieces.pop().tokens) or 1


def _passages(pieces: Iterable[_Piece], ranked: Sequence[Hit], *, apart: bool) -> list[Passage]:
    """Pieces of one version make one passage, at the place of its best hit; `apart`: only those whose chunks touch."""
    found: list[tuple[int, Passage]] = []
    in_order = sorted(pieces, key=lambda piece: (*_version(piece), piece.start))
    for _, of_version in groupby(in_order, key=_version):
        group: list[_Piece] = []
        for piece in of_version:
            if apart and group and group[-1].chunk.end < piece.chunk.start:
                found.append(_passage(group, ranked))
                group = []
            group.append(piece)
        found.append(_passage(group, ranked))
    return [passage for _, passage in sorted(found, key=lambda item: item[0]) if passage.spans]


def _rank(piece: _Piece) -> int:
    return piece.rank


def _version(piece: _Piece) -> tuple[str, int]:
    return piece.chunk.document_id, piece.chunk.version


def _passage(pieces: Sequence[_Piece], ranked: Sequence[Hit]) -> tuple[int, Passage]:
    spans: list[Span] = []
    for piece in pieces:
        start = max(piece.start, spans[-1].end) if spans else piece.start
        if spans and spans[-1].chunk is piece.chunk and spans[-1].end == start:
            spans[-1] = replace(spans[-1], end=max(piece.end, start))
        elif start < piece.end:
            spans.append(Span(piece.chunk, start, piece.end))
    rank = min(map(_rank, pieces))
    return rank, Passage(1, ranked[rank], _trimmed(spans), 0)


def _trimmed(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Without white space where a run of text begins or ends; spans of nothing else are dropped."""
    kept: list[Span] = []
    for span in spans:
        if kept and kept[-1].end != span.start:
            _strip_end(kept)
        if not kept or kept[-1].end != span.start:
            text = span.text
            span = replace(span, start=span.end - len(text.lstrip()))
        if span.start < span.end:
            kept.append(span)
    _strip_end(kept)
    return tuple(kept)


def _strip_end(spans: list[Span]) -> None:
    while spans:
        last = spans.pop()
        end = last.start + len(last.text.rstrip())
        if end > last.start:
            spans.append(last if end == last.end else replace(last, end=end))
            return
