"""Why a question went wrong: the first step on its way at which what it needs was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quality.models import Ranks

Failure = Literal[
    "gold_absent",
    "not_found",
    "lost_in_fusion",
    "lost_in_packing",
    "false_refusal",
    "wrong_answer",
    "wrong_citation",
    "false_answer",
    "error",
]

# In the order in which a question passes them.
MEANING: dict[Failure, str] = {
    "gold_absent": "nothing in the knowledge base: the document that answers is not there",
    "not_found": "in neither index's candidates: no passage of it came up",
    "lost_in_fusion": "in an index's candidates, and not among the best ten once both were put together",
    "lost_in_packing": "found, and not among the passages that the answer is made from",
    "false_refusal": "the passage was there, and the question was refused",
    "wrong_answer": "the passage was there, and the answer does not say what was expected",
    "wrong_citation": "the answer is right, and what it cites is not the document that answers",
    "false_answer": "answered, although nothing in the knowledge base answers it",
    "error": "asking failed",
}

CANDIDATES = 60  # per arm, as `rag.retrieval.retrieve` asks for; a test compares them
BEST = 10


def classify(
    *,
    answerable: bool,
    refused: bool,
    right: bool | None,
    cited: bool | None,
    any_gold: bool,
    there: Sequence[bool],
    fused: Sequence[int | None],
    shown: int,
    ranks: Ranks | None,
) -> Failure | None:
    """None where nothing went wrong. `right` and `cited` are None where no answer or no document is expected.

    `there` and `fused` have one entry for each gold place: whether it is in the knowledge base, and its rank. `ranks`
    is that of the gold place that is furthest away, where any is not among the best ten.
    """
    if not answerable:
        return None if refused else "false_answer"
    if not refused and right is not False and cited is not False:
        return None
    if there:  # it is known where the answer stands
        enough = any if any_gold else all
        if not enough(there):
            return "gold_absent"
        if not enough(rank is not None and rank <= BEST for rank in fused):
            return "lost_in_fusion" if ranks is None or _is_candidate(ranks) else "not_found"
        if not enough(rank is not None and rank <= shown for rank in fused):
            return "lost_in_packing"
    if refused:
        return "false_refusal"
    return "wrong_answer" if right is False else "wrong_citation"


def _is_candidate(ranks: Ranks) -> bool:
    """A service tells no rank of an arm; that it shows the passage at all says that an arm had it."""
    if ranks.vectors is None and ranks.terms is None:
        return ranks.fused is not None
    return any(rank is not None and rank <= CANDIDATES for rank in (ranks.vectors, ranks.terms))
