"""Blocks on their way: what printed lines become before their place in the canonical text is known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rag.models import BlockKind

BULLET = re.compile(r"^(?:[•●▪■◦‣∙○◆◇➢✓❖·*–—-]\s|[•●▪■◦‣➢❖□☐☑√✔]\s?\S)")
SENTENCE_END = re.compile(r"[.!?。！？;；:：…][\"'”’」』)）\]]*$")
LEADERS = re.compile(r"[.…·]{4,}|(?:\. ){4,}")  # the dots that lead to a page number in a table of contents


@dataclass(frozen=True, slots=True)
class Piece:
    """A re-flowed block."""

    kind: BlockKind
    text: str
    page: int  # index
    y: float = 0.0  # of its first line
    size: float = 0.0
    bold: bool = False
    line_count: int = 1
    level: int | None = None
    header: str = ""
    contents: bool = False  # of a table of contents: names a heading, and is none
    goes_on: bool = False  # the paragraph that the page before ended in


def body_size(pieces: Iterable[Piece]) -> float:
    """The letter size that most of the text is set in."""
    sizes: Counter[float] = Counter()
    for piece in pieces:
        sizes[round(piece.size * 2) / 2] += len(piece.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0
