"""Hits → Passages that fit the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.models import Hit, Passage


@dataclass(frozen=True, slots=True)
class Context:
    passages: tuple[Passage, ...]
    left_out: int  # hits that did not fit


def pack(hits: Sequence[Hit], *, budget_tokens: int, count_tokens: Callable[[Hit], int]) -> Context:
    """Whole passages, best first, numbered from 1, while they fit. Nothing is cut in the middle.

    `count_tokens` says what a hit costs in the prompt, its frame included. One that does not fit is left out, and a
    shorter one behind it may still go in.
    """
    passages: list[Passage] = []
    left = budget_tokens
    for hit in hits:
        tokens = count_tokens(hit)
        if tokens <= left:
            passages.append(Passage(len(passages) + 1, hit, hit.text, tokens))
            left -= tokens
    return Context(tuple(passages), len(hits) - len(passages))
