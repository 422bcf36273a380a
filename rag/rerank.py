"""The best candidates judged once more: not at all, or by cheap features of their words. Models: `cross_encoder`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from rag.keywords import Keyword, readings, share
from rag.language import ENGLISH_STOP_WORDS, language_of, sentences, terms
from rag.ports import Candidate, Reranked

_IN_HEADING = 0.7  # what a word in the heading counts for a sentence below it

FEATURES: Final = ("fused", "near", "words", "sentence", "pair", "phrase")
# Fitted by bench/fit_rerank.py, which tells the splits and the gains; each row is divided by its sum.
WEIGHTS: Final[Mapping[str, tuple[float, ...]]] = {
    "en": (0.22, 0.28, 0.0, 0.19, 0.16, 0.15),
    "zh": (0.72, 0.0, 0.28, 0.0, 0.0, 0.0),
}


class NoReranker:
    """A Reranker that leaves everything as it was found."""

    name = "none"
    depth = 0

    def rerank(
        self,
        question: str,  # noqa: ARG002  # the port's
        wanted: Sequence[Keyword],  # noqa: ARG002
        candidates: Sequence[Candidate],
    ) -> list[Reranked]:
        return [Reranked(item.fused) for item in candidates]


class LightReranker:
    """A Reranker that needs no model: a weighted sum of features, with weights for each language of the question."""

    name = "light"
    depth = 30

    def __init__(self, weights: Mapping[str, Sequence[float]] = WEIGHTS) -> None:
        self._weights = {language: [weight / sum(row) for weight in row] for language, row in weights.items()}

    def rerank(self, question: str, wanted: Sequence[Keyword], candidates: Sequence[Candidate]) -> list[Reranked]:
        weights = self._weights[language_of(question)]
        found = []
        for row in features(question, wanted, candidates):
            score = sum(weight * value for weight, value in zip(weights, row, strict=True))
            found.append(Reranked(score, {"keywords": row[FEATURES.index("words")]}))
        return found


def features(question: str, wanted: Sequence[Keyword], candidates: Sequence[Candidate]) -> list[tuple[float, ...]]:
    """FEATURES of each candidate, all from 0 to 1.

    `words`, `sentence`, `pair`: the share of the question's content words that stand in the passage or its heading, in
    its best sentence, in its two best neighbours. `phrase`: the share of the question's neighbouring words that are
    neighbours in one sentence too.
    """
    asked = _phrases(terms(question))
    needed = {part for word in wanted for term in word.terms for part in (term, *term)} | {
        term for pair in asked for term in pair
    }
    found: list[tuple[float, ...]] = []
    for item in candidates:
        parts = [terms(item.heading), *(terms(item.text[start:end]) for start, end in sentences(item.text))]
        # Most sentences have no word of the question, and are done with here.
        heading, *said = ({term for term in part if term in needed} for part in parts)
        phrase = max((len(asked & _phrases(part)) for part in parts), default=0) / len(asked) if asked else 0.0
        found.append((item.fused, item.near, *_shares(wanted, item, heading, said), phrase))
    return found


def _shares(
    wanted: Sequence[Keyword], item: Candidate, heading: set[str], said: Sequence[set[str]]
) -> tuple[float, float, float]:
    pairs = _distinct([one | two for one, two in pairwise(said)] or said)
    said = _distinct(said)
    everything = heading.union(*said)
    passage = sentence = pair = 0.0
    for _, words, worth in readings(wanted, f"{item.heading}\n{item.text}"):
        passage = max(passage, worth * share(words, ((1.0, everything),)))
        sentence = max(sentence, worth * _best(words, said, heading))
        pair = max(pair, worth * _best(words, pairs, heading))
    return passage, sentence, pair


def _distinct(places: Iterable[set[str]]) -> list[set[str]]:
    return list({frozenset(place): place for place in places}.values())


def _best(words: Sequence[Keyword], places: Iterable[set[str]], heading: set[str]) -> float:
    return max((share(words, ((1.0, place), (_IN_HEADING, heading))) for place in places), default=0.0)


def _phrases(found: Sequence[str]) -> set[tuple[str, str]]:
    """Neighbours: two words, or two pairs of Han characters, which are three characters in a row."""
    kept = [term for term in found if term not in ENGLISH_STOP_WORDS and (len(term) > 1 or term.isascii())]
    return set(pairwise(kept))
