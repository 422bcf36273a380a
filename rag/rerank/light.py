"""The best candidates judged once more: not at all, or by cheap features of their words. Models: `cross_encoder`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Final

from rag.ports import Candidate, Reranked
from rag.text.keywords import Keyword, readable_as, reading, share
from rag.text.language import ENGLISH_STOP_WORDS, language_of, sentences, terms

_IN_HEADING = 0.7  # what a word in the heading counts for a sentence below it

FEATURES: Final = ("fused", "near", "words", "sentence", "pair", "phrase")
# Fitted on halves of SQuAD, XQuAD, CMRC and DRCD. Over twelve sets bench/fit_rerank.py found none that are better with
# an interval above zero. Each row is divided by its sum.
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
        used = {name for name, weight in zip(FEATURES, weights, strict=True) if weight}
        found = []
        for row in features(question, wanted, candidates, used=used):
            score = sum(weight * value for weight, value in zip(weights, row, strict=True))
            found.append(Reranked(score, {"keywords": row[FEATURES.index("words")]}))
        return found


def features(
    question: str, wanted: Sequence[Keyword], candidates: Sequence[Candidate], *, used: Collection[str] = FEATURES
) -> list[tuple[float, ...]]:
    """FEATURES of each candidate, all from 0 to 1; those that are not `used` may be 0.

    `words`, `sentence`, `pair`: the share of the question's content words that stand in the passage or its heading, in
    its best sentence, in its two best neighbours. `phrase`: the share of the question's neighbouring words that are
    neighbours in one sentence too.
    """
    asked = _phrases(terms(question)) if "phrase" in used else set()
    neighbours = {term for pair in asked for term in pair}
    needed = frozenset(
        part for word in wanted for terms_ in (word.terms, *word.also) for term in terms_ for part in (term, *term)
    )
    by_sentence = not {"sentence", "pair"}.isdisjoint(used)
    shares = _Shares(wanted, by_sentence=by_sentence)
    found: list[tuple[float, ...]] = []
    for item in candidates:
        read_as, heading, said = _parts(item.heading, item.text, by_sentence or bool(asked))
        passage, sentence, pair = shares.of(read_as, needed.intersection(heading), [*map(needed.intersection, said)])
        # Most sentences have no two words of the question, and are done with here.
        near = (_phrases(part) for part in (heading, *said) if len(neighbours.intersection(part)) > 1) if asked else ()
        phrase = max((len(asked & pairs) for pairs in near), default=0) / len(asked) if asked else 0.0
        found.append((item.fused, item.near, passage, sentence, pair, phrase))
    return found


_Terms = tuple[str, ...]


@lru_cache(maxsize=4_000)  # some 20 MB: the best passages of one question are often those of the next
def _parts(heading: str, text: str, by_sentence: bool) -> tuple[tuple[bool, ...], _Terms, tuple[_Terms, ...]]:
    """What it can be read as, the terms of the heading, and those of each sentence, or of all the text at once."""
    spans = sentences(text) if by_sentence else [(0, len(text))]
    parts = (terms(heading), *(terms(text[start:end]) for start, end in spans))
    # Terms without Han are shared by `terms` as they are.
    own, *said = map(tuple, parts) if text.isascii() else (tuple(map(sys.intern, part)) for part in parts)
    return readable_as(f"{heading}\n{text}"), own, tuple(said)


class _Shares:
    """What share of the wanted words stands in passages. What was worked out for one set of terms is remembered."""

    def __init__(self, wanted: Sequence[Keyword], *, by_sentence: bool) -> None:
        self._readings = {chinese: reading(wanted, chinese=chinese) for chinese in (True, False)}
        self._by_sentence = by_sentence
        self._known: dict[tuple[bool, frozenset[str], frozenset[str]], float] = {}

    def of(
        self, read_as: Sequence[bool], heading: frozenset[str], said: Sequence[frozenset[str]]
    ) -> tuple[float, float, float]:
        """In the passage, in its best sentence, in its two best neighbours."""
        places = set(said)
        pairs = {one | two for one, two in pairwise(said)} or places
        everything = heading.union(*said)
        passage = sentence = pair = 0.0
        for chinese in read_as:
            worth = self._readings[chinese][1]
            passage = max(passage, worth * self._share(chinese, _NOTHING, everything))
            if self._by_sentence:
                best = partial(self._share, chinese, heading)
                sentence = max(sentence, worth * max(map(best, places), default=0.0))
                pair = max(pair, worth * max(map(best, pairs), default=0.0))
        return passage, sentence, pair

    def _share(self, chinese: bool, heading: frozenset[str], place: frozenset[str]) -> float:
        key = (chinese, heading, place)
        if key not in self._known:
            words = self._readings[chinese][0]
            self._known[key] = share(words, ((1.0, place), (_IN_HEADING, heading)) if heading else ((1.0, place),))
        return self._known[key]


_NOTHING: frozenset[str] = frozenset()


def _phrases(found: Sequence[str]) -> set[tuple[str, str]]:
    """Neighbours: two words, or two pairs of Han characters, which are three characters in a row."""
    kept = [term for term in found if term not in ENGLISH_STOP_WORDS and (len(term) > 1 or term.isascii())]
    return set(pairwise(kept))
