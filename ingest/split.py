"""Text and blocks become pieces: cut on structure, sized in the embedder's own tokens, with borders that stay put.

A text is taken apart into units (sentences, headings, list items, table rows). Between two units there may be a
border, and each has a strength: first its rank (heading, block, row, sentence …), then a hash of what follows it.
A stretch that does not fit into one piece is cut at its strongest border, and so are its parts, until all fit.
Strength depends only on the words around the border, so an edit moves the borders beside it and no others;
filling pieces from the front would move every border behind the edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import pairwise
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ingest.headings import short_headings
from rag.errors import InvalidInput
from rag.models import Block, Parsed, Piece
from rag.text.language import sentences

CountTokens = Callable[[Sequence[str]], list[int]]

_VERSION: Final = 1  # raise it when the same text would be cut elsewhere: indexes are then rebuilt

# Ranks of borders, weakest first. Headings stand above them: _HEADING for level 6 up to _HEADING + 5 for level 1.
_GLUE, _WORD, _CLAUSE, _SENTENCE, _ITEM, _BLOCK, _SECTION, _HEADING = range(8)

_HEADING_TOKENS: Final = 48  # most that title, section and table header may take from the window
_SPECIAL_TOKENS: Final = 2
_SLACK_TOKENS: Final = 4  # a joined text may have a token or two more than its parts
_SMALLEST_SHARE: Final = 0.25  # of the limit: no cut nearer to another than this where it can be helped
_SMALL_SECTION_SHARE: Final = 0.2  # of the limit: a smaller section may share a piece with its neighbour
_CHARACTERS_PER_TOKEN: Final = 20  # more than any script has; WordPiece counts a word of 10 MB as one token
_HASHED_CHARACTERS: Final = 32
_FRAGMENT_CHARACTERS: Final = 48
_SMALLEST_LIMIT: Final = 8

_CLAUSE_ENDS: Final = "；;，,、：:\n"


def fingerprint(*, target_tokens: int) -> str:
    """Two indexes whose splitters have one fingerprint cut a text in the same places."""
    return f"split-{_VERSION}:{target_tokens}"


def target_of(splitter: str) -> int | None:
    """The `target_tokens` that a fingerprint was made with; None where it is none of ours."""
    name, _, target = splitter.partition(":")
    return int(target) if name.startswith("split-") and target.isdigit() else None


def split(
    parsed: Parsed, *, title: str, count_tokens: CountTokens, window: int, target_tokens: int = 200
) -> list[Piece]:
    """Pieces of at most `target_tokens`, in order; joined they are `parsed.text`, white space and all.

    Never over the embedder's `window` (special tokens included) together with their heading. Blank text has no pieces.
    """
    heading_tokens = min(_HEADING_TOKENS, window // 4)
    limit = min(target_tokens, window - _SPECIAL_TOKENS - _SLACK_TOKENS - heading_tokens)
    if limit < _SMALLEST_LIMIT:
        raise InvalidInput(
            f"Text cannot be cut into pieces of {limit} tokens.",
            remedy="Choose an embedder with a larger window, or raise ATTEST_CHUNK_TOKENS.",
        )
    if not parsed.text.strip():
        return []
    blocks = parsed.blocks or (Block("paragraph", 0, len(parsed.text)),)
    units = _counted_units(parsed.text, blocks, count_tokens=count_tokens, limit=limit)
    spans, tokens = _fitting_spans(parsed.text, units, count_tokens=count_tokens, limit=limit)
    wanted = [((title, *_section(span, blocks)), _table_headers(span, blocks)) for span in spans]
    headings = short_headings(wanted, count_tokens=count_tokens, most_tokens=heading_tokens)
    pieces = []
    for span, heading, count in zip(spans, headings, tokens, strict=True):
        start, end, first = span[0].start, span[-1].end, blocks[span[0].block]
        pieces.append(Piece(start, end, parsed.text[start:end], heading, count, page=first.page, row=first.row))
    return pieces


# ── units ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is not cut unless it must be. It reaches to the next unit; `rank` is that of the border before it."""

    start: int
    end: int
    rank: int
    block: int
    tokens: float = 0.0


def _counted_units(text: str, blocks: Sequence[Block], *, count_tokens: CountTokens, limit: int) -> list[_Unit]:
    """Units that fit into a piece each, with their tokens, in two calls of `count_tokens` at most."""
    longest = limit * _CHARACTERS_PER_TOKEN
    units: list[_Unit] = []
    for unit in _units(text, blocks):
        units.extend(_fragments(text, unit) if unit.end - unit.start > longest else [unit])
    units = _count(text, units, count_tokens)
    if all(unit.tokens <= limit for unit in units):
        return units
    parts = {unit.start: _fragments(text, unit) for unit in units if unit.tokens > limit}
    counted = iter(_count(text, [part for some in parts.values() for part in some], count_tokens))
    together: list[_Unit] = []
    for unit in units:
        together.extend([next(counted) for _ in parts[unit.start]] if unit.start in parts else [unit])
    return together


def _units(text: str, blocks: Sequence[Block]) -> list[_Unit]:
    """Units without a gap: what lies between two of them belongs to the first."""
    begins: list[tuple[int, int, int]] = []
    previous: Block | None = None
    for number, block in _whole_paragraphs(text, blocks):
        if not text[block.start : block.end].strip():
            continue
        for place, start in enumerate(_starts(text, block)):
            if place > 0:
                rank = _inner_rank(text, start, block)
            else:
                rank = _GLUE if previous is None else _rank(previous, block)
            begins.append((start, rank, number))
        previous = block
    if not begins:
        begins = [(0, _GLUE, 0)]
    ends = [start for start, _, _ in begins[1:]] + [len(text)]
    units = [_Unit(start, end, rank, block) for (start, rank, block), end in zip(begins, ends, strict=True)]
    units[0] = replace(units[0], start=0)
    return units


def _whole_paragraphs(text: str, blocks: Sequence[Block]) -> Iterator[tuple[int, Block]]:
    """The blocks with their numbers. Parts of one paragraph on two pages, no line break between them, come as one:
    a paragraph more at the front moves every page break, and no piece must change for that."""
    waiting: tuple[int, Block] | None = None
    for number, block in enumerate(blocks):
        if waiting is not None:
            first, whole = waiting
            if (
                whole.kind == block.kind == "paragraph"
                and block.page != whole.page
                and "\n" not in text[whole.end : block.start]
            ):
                waiting = first, replace(whole, end=block.end)
                continue
            yield waiting
        waiting = number, block
    if waiting is not None:
        yield waiting


def _rank(before: Block, after: Block) -> int:
    if before.kind == "heading":
        return _GLUE  # a heading is nothing without what it is the heading of
    if after.kind == "heading":
        return _HEADING + 6 - min(max(after.level or 6, 1), 6)
    is_other_table = "table_row" in (before.kind, after.kind) and (
        before.kind != after.kind or before.header != after.header
    )
    if before.section != after.section or is_other_table:
        return _SECTION
    return _ITEM if after.kind in ("list_item", "table_row") else _BLOCK


def _inner_rank(text: str, start: int, block: Block) -> int:
    """Of a border inside a block; in hard-wrapped text many a line ends in the middle of a sentence."""
    last = text[max(block.start, start - 16) : start].rstrip()[-1:]
    is_broken = block.kind != "code" and (last.isalnum() or last in "，,、")
    return _CLAUSE if is_broken else _SENTENCE


def _starts(text: str, block: Block) -> Iterator[int]:
    """Where the units of a block begin: its sentences, the lines of code, else the block as a whole."""
    inside = text[block.start : block.end]
    if block.kind in ("heading", "table_row"):
        yield block.start
    elif block.kind == "code":
        offset = 0
        for line in inside.splitlines(keepends=True):
            if line.strip():
                yield block.start + offset
            offset += len(line)
    else:
        yield from (block.start + start for start, end in sentences(inside) if inside[start:end].strip())


def _count(text: str, units: Sequence[_Unit], count_tokens: CountTokens) -> list[_Unit]:
    texts = [text[unit.start : unit.end].strip() for unit in units]
    return [
        replace(unit, tokens=float(max(count, len(own) / _CHARACTERS_PER_TOKEN)))
        for unit, own, count in zip(units, texts, count_tokens(texts), strict=True)
    ]


def _fragments(text: str, unit: _Unit) -> list[_Unit]:
    """A unit too long for a piece, as clauses and runs of words that can be cut apart without looking far."""
    fragments: list[_Unit] = []
    start, rank = unit.start, unit.rank
    for end in _fragment_ends(text[unit.start : unit.end]):
        fragments.append(replace(unit, start=start, end=unit.start + end, rank=rank, tokens=0.0))
        start = unit.start + end
        rank = _CLAUSE if text[start - 1] in _CLAUSE_ENDS else _WORD
    return fragments


def _fragment_ends(text: str) -> Iterator[int]:
    """Ends of clauses, and of words where their own letters say so: that way an inserted word shifts nothing."""
    start = position = 0
    for atom in _atoms(text):
        position += len(atom)
        if text[position : position + 1].isspace():
            continue  # white space goes with the words before it
        is_stop = crc32(atom.encode()) % 4 == 0 or position - start >= _FRAGMENT_CHARACTERS
        if (is_stop or atom[-1] in _CLAUSE_ENDS) and text[start:position].strip():
            yield position
            start = position
    if start < len(text):
        yield len(text)


def _atoms(text: str) -> Iterator[str]:
    # 450 ms to import, and few texts have a sentence that is longer than a piece.
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    # A length of 2 for what is short and 3 for what is not keeps the splitter from putting parts together again:
    # it does so from the front, and every later border would move with an inserted word.
    splitter = RecursiveCharacterTextSplitter(
        separators=["\n\n", "\n", "；", "; ", "，", ", ", "、", "：", ": ", "\t", " "],
        keep_separator="end",
        strip_whitespace=False,
        chunk_size=3,
        chunk_overlap=0,
        length_function=lambda part: 0 if not part else 2 if len(part) <= _FRAGMENT_CHARACTERS // 2 else 3,
    )
    for part in splitter.split_text(text):
        for start in range(0, len(part), _FRAGMENT_CHARACTERS):
            yield part[start : start + _FRAGMENT_CHARACTERS]


# ── where to cut ──────────────────────────────────────────────────────────────────────────────


def _fitting_spans(
    text: str, units: list[_Unit], *, count_tokens: CountTokens, limit: int
) -> tuple[list[list[_Unit]], list[int]]:
    """Runs of units that make a piece each, and the tokens of their texts as the embedder counts them."""
    spans = _spans(text, units, limit)
    counts = count_tokens([text[span[0].start : span[-1].end] for span in spans])
    while any(count > limit for count in counts):  # rare: the parts of a text had fewer tokens than the text
        kept: list[list[_Unit]] = []
        for span, count in zip(spans, counts, strict=True):
            if count <= limit or span[-1].end - span[0].start < 2:
                kept.append(span)
                continue
            span = span if len(span) > 1 else _halves(span[0])
            share = count / sum(unit.tokens or 1.0 for unit in span)
            kept.extend(_spans(text, [replace(unit, tokens=(unit.tokens or 1.0) * share) for unit in span], limit))
        if len(kept) == len(spans):
            break  # single characters of more tokens than the limit: nothing is left to cut
        spans = kept
        counts = count_tokens([text[span[0].start : span[-1].end] for span in spans])
    return spans, counts


def _halves(unit: _Unit) -> list[_Unit]:
    middle = (unit.start + unit.end) // 2
    return [replace(unit, end=middle), replace(unit, start=middle, rank=_WORD)]


def _spans(text: str, units: list[_Unit], limit: int) -> list[list[_Unit]]:
    cuts = _cuts(_strengths(text, units), np.cumsum([0.0] + [unit.tokens for unit in units]), limit)
    return [units[start:end] for start, end in pairwise([0, *cuts, len(units)])]


def _strengths(text: str, units: Sequence[_Unit]) -> NDArray[np.uint64]:
    """Of the border before each unit: its rank, then hashes of the words behind it, and lastly of those before it.

    Only the first words of a unit count unless that leaves two borders equal, so that most edits change no strength.
    """
    strengths = np.zeros(len(units), dtype=np.uint64)
    whole_before = 0
    for number, unit in enumerate(units):
        own = text[unit.start : unit.end].strip()
        first, whole = _hash(own[:_HASHED_CHARACTERS], bits=28), _hash(own, bits=16)
        strengths[number] = unit.rank << 60 | first << 32 | whole << 16 | whole_before
        whole_before = whole
    return strengths


def _hash(text: str, *, bits: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") >> (32 - bits)


def _cuts(strengths: NDArray[np.uint64], offsets: NDArray[np.float64], limit: int) -> list[int]:
    """Numbers of the units before which to cut. `offsets` holds the tokens before each unit, and at last their sum."""
    cuts = _section_cuts(strengths, offsets, limit * _SMALL_SECTION_SHARE)
    stretches = list(pairwise([0, *cuts, len(strengths)]))
    while stretches:
        start, end = stretches.pop()
        if offsets[end] - offsets[start] <= limit or end - start < 2:
            continue
        cut = _strongest(strengths, offsets, start, end, limit)
        cuts.append(cut)
        stretches += [(start, cut), (cut, end)]
    return sorted(cuts)


def _section_cuts(strengths: NDArray[np.uint64], offsets: NDArray[np.float64], small: float) -> list[int]:
    """Sections do not share a piece, unless one of two neighbours is small."""
    borders = [0, *np.flatnonzero(strengths >> np.uint64(60) >= _SECTION).tolist(), len(strengths)]
    sizes = np.diff(offsets[borders])
    return [
        border
        for border, before, after in zip(borders[1:-1], sizes[:-1], sizes[1:], strict=True)
        if before >= small and after >= small
    ]


def _strongest(strengths: NDArray[np.uint64], offsets: NDArray[np.float64], start: int, end: int, limit: int) -> int:
    """The strongest border between two units; not too near to the ends, and not inside a sentence, where possible."""
    margin = limit * _SMALLEST_SHARE
    for distance, least in (
        (margin, _SENTENCE),
        (margin / 2, _SENTENCE),
        (margin, _WORD),
        (0.0, _WORD),
        (0.0, _GLUE),
    ):
        low = max(start + 1, int(np.searchsorted(offsets, offsets[start] + distance)))
        high = min(end, int(np.searchsorted(offsets, offsets[end] - distance, side="right")))
        if low >= high:
            continue
        inside = strengths[low:high]
        best = inside.max()
        if int(best) >> 60 >= least:
            # Equal ones have equal words on both sides: rows of a table that repeat. Filled from the front, they
            # make equal pieces, which are embedded once.
            equal = low + np.flatnonzero(inside == best)
            fitting = int(np.searchsorted(offsets[equal], offsets[start] + limit, side="right"))
            return int(equal[max(fitting - 1, 0)])
    raise AssertionError("a stretch of two units has a border")


# ── what is said about a piece ────────────────────────────────────────────────────────────────


def _section(span: Sequence[_Unit], blocks: Sequence[Block]) -> tuple[str, ...]:
    """Of the first text under the headings that a span begins with."""
    own = (blocks[unit.block] for unit in span)
    return next((block.section for block in own if block.kind != "heading"), blocks[span[-1].block].section)


def _table_headers(span: Sequence[_Unit], blocks: Sequence[Block]) -> str:
    headers = (" ".join(blocks[unit.block].header.split()) for unit in span)
    return "\n".join(dict.fromkeys(header for header in headers if header))
