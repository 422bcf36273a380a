"""Sentences of a model's reply, checked against the passages that it was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag.answering.citations import Claim
from rag.answering.support import days_told, judge, numbers_told
from rag.answering.verify import FAR, Evidence, best_evidence, reconsidered, strength
from rag.models import Passage, Support
from rag.retrieval.retrieve import Found
from rag.text.facts import Named, facts
from rag.text.language import is_han, language_of
from rag.text.quantities import folded

_RECONSIDERED = 3  # of the passages that a sentence did not name, by their vectors
_JUDGED_HITS = 5  # those behind them say what is far for this embedder


@dataclass(frozen=True, slots=True)
class Checked:
    """What supports a sentence, the best first; nothing that does not. Together they may support it further than any
    of them alone."""

    found: tuple[Evidence, ...]
    support: Support


class Checker:
    """Checks the claims of one reply. What was checked is remembered: a reply is read once more when it is complete."""

    def __init__(self, passages: Sequence[Passage], found: Found) -> None:
        self._passages = {passage.n: passage for passage in passages}
        self._view = found.view
        self._far = far(found)
        self._known: dict[Claim, Checked] = {}
        self._languages = {n: language_of(passage.text) for n, passage in self._passages.items()}

    def check(self, claim: Claim) -> Checked:
        """Numbers of passages that were not offered are dropped. A sentence without any, or whose own do not support
        it, gets the passage that does, if one does: models often know the answer and point at its neighbour."""
        if claim not in self._known:
            self._known[claim] = self._check(claim)
        return self._known[claim]

    def speaks(self, language: str) -> bool:
        """Whether any of the passages is in this language."""
        return language in self._languages.values()

    def _check(self, claim: Claim) -> Checked:
        named = self._judged(claim.text, [self._passages[n] for n in claim.passages if n in self._passages])
        if not any(item.support == "supported" for item in named):
            rest = [passage for n, passage in self._passages.items() if n not in claim.passages]
            others = self._judged(claim.text, rest)
            if others and _strength(others[0]) > max(map(_strength, named), default=(0, 0.0)):
                if others[0].support != "supported" and (both := _together(claim.text, [*named, *others])) is not None:
                    return both
                named = others[:1]
            elif (both := _together(claim.text, named)) is not None:
                return both
        kept = sorted((item for item in named if item.support != "unsupported"), key=_strength, reverse=True)
        return Checked(tuple(kept), kept[0].support if kept else "unsupported")

    def _judged(self, sentence: str, passages: Sequence[Passage]) -> list[Evidence]:
        found = sorted((self._evidence(sentence, passage) for passage in passages), key=_strength, reverse=True)
        if not found or found[0].support == "supported":
            return found
        likely = reconsidered(
            sentence, found[:_RECONSIDERED], self._view.embedder, coverage=self._view.coverage, far=self._far
        )
        return sorted([*likely, *found[_RECONSIDERED:]], key=_strength, reverse=True)

    def _evidence(self, sentence: str, passage: Passage) -> Evidence:
        found = best_evidence(sentence, passage)
        if found.support == "unsupported" and self._languages[passage.n] != language_of(sentence):
            quote = passage.quote(found.start, found.end)
            return replace(found, support=_across(sentence, quote, passage.hit.heading))
        return found


def _across(sentence: str, quote: str, heading: str) -> Support:
    """Between languages only numbers, days, codes and Latin names can be looked for: weak where there are some and all
    of them are there."""
    claim, said, above = facts(sentence), facts(quote), facts(heading)
    latin = [name for name in claim.names if not is_han(name[0])]
    if not (latin or claim.days or any(number.told for number in claim.numbers)):
        return "unsupported"
    there = numbers_told(claim, said, above) and days_told(claim, said, above)
    return "weak" if there and all(map(Named(folded(f"{quote}\n{heading}")).has, latin)) else "unsupported"


def _together(sentence: str, found: Sequence[Evidence]) -> Checked | None:
    """Two quotes that say between them what neither says alone; each is weak."""
    best = sorted(found, key=_strength, reverse=True)[:2]
    if len(best) < 2 or best[0].support == "supported":
        return None
    quotes = [item.passage.quote(item.start, item.end) for item in best]
    headings = [item.passage.span_at(item.start).chunk.heading for item in best]
    both = judge(sentence, "\n".join(quotes), heading="\n".join(headings))
    if both.support != "supported":
        return None
    return Checked(tuple(replace(item, support="weak") for item in best), "supported")


def far(found: Found) -> float:
    """The cosine from which on a text is near: an embedder that finds everything near says so of what ranks behind."""
    behind = [hit.arms["vectors"] for hit in found.hits[_JUDGED_HITS : _JUDGED_HITS + 3] if "vectors" in hit.arms]
    return min(max(FAR, min(behind, default=FAR)), 0.95)


def _strength(item: Evidence) -> tuple[int, float]:
    return strength(item), item.share


def weakest(supports: Sequence[Support]) -> Support | None:
    """Of a whole answer: as its weakest sentence."""
    return min(supports, key=("unsupported", "weak", "supported").index, default=None)
