"""Is there enough evidence to answer? A probability, from words and vectors, each as far as it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.models import Hit
from rag.retrieval.retrieve import Found
from rag.text.keywords import Keyword, presence, readings, share
from rag.text.language import sentences, terms

ENOUGH = 0.35  # evidence below this refuses
_PASSAGES = 5  # whose words and vectors are judged
_FAR = 0.4
_KNOWN_ELSEWHERE = 0.35  # what a code or name counts that this passage lacks and another document has
_TOLD = 0.5  # of a word's terms, for it to be there


@dataclass(frozen=True, slots=True)
class Features:
    """What one passage, read in one language, says for an answer (+) or against it (-). All but `cosine` are 0 … 1.

    Of the content words, those count that it could have in that language.
    """

    words: float  # + the share of the content words that it has
    together: float  # + the share of neighbouring pairs of them that stand in one sentence
    cosine: float  # + above what is far, as far as the embedder reads the question; 0 across languages
    lacking: float  # - the share of the codes and names that it lacks
    unheard: float  # - the share of the content words that no document searched has


@dataclass(frozen=True, slots=True)
class Weights:
    """Of a logistic function."""

    bias: float
    words: float
    together: float
    cosine: float
    lacking: float
    unheard: float


# By bench/fit_evidence.py, from half of the questions; docs/decisions/0003 says what they are worth on the other half.
# The bias holds the threshold: at ENOUGH, 5 % of the answerable questions that fitted are refused.
ENGLISH = Weights(bias=-2.08, words=3.35, together=1.57, cosine=5.68, lacking=-3.00, unheard=0.00)
CHINESE = Weights(bias=-3.61, words=6.41, together=0.08, cosine=2.84, lacking=-5.08, unheard=-2.66)


def evidence(found: Found) -> float:
    """0 … 1: how probable it is that the passages answer, from words and vectors as far as each can be trusted."""
    if not any(word.weight for word in found.keywords):
        return 0.0  # nothing was asked
    weights = CHINESE if _asked_in_chinese(found) else ENGLISH
    return max((_probability(weights, item) for item in features(found)), default=0.0)


def features(found: Found) -> list[Features]:
    """Of the five best passages, once for each language that a passage can be read in."""
    chinese = _asked_in_chinese(found)
    far = _far(found.hits)
    return [item for hit in found.hits[:_PASSAGES] for item in _features(found, hit, far=far, chinese=chinese)]


def _far(hits: Sequence[Hit]) -> float:
    """The cosine from which on a passage is near. Some embedders find everything near: with cosines of .7 and more
    between any two texts, it is that of the passages behind the ones that are judged. For all-MiniLM-L6-v2 it is .4."""
    behind = [hit.arms["vectors"] for hit in hits[_PASSAGES : _PASSAGES + 3] if "vectors" in hit.arms]
    return max(_FAR, min(behind, default=_FAR))


def _features(found: Found, hit: Hit, *, far: float, chinese: bool) -> Iterator[Features]:
    above = set(terms(f"{hit.heading}\n{hit.file_stem}"))
    spoken = [set(terms(hit.text[start:end])) for start, end in sentences(hit.text)]
    present = above.union(*spoken)
    coverage = found.view_of(hit).coverage
    for read_as_chinese, words, asked in readings(found.keywords, hit.text):
        # Across languages an embedder that reads one of them has nothing to say.
        cosine = hit.arms.get("vectors", 0.0) - far if read_as_chinese == chinese else 0.0
        yield Features(
            words=asked * share(words, ((1.0, present),)),
            together=asked * _together(words, spoken, above),
            cosine=coverage**2 * cosine,
            lacking=_lacking(words, present),
            unheard=_unheard(words),
        )


def _asked_in_chinese(found: Found) -> bool:
    return any(word.chinese for word in found.keywords)


def _together(words: Sequence[Keyword], spoken: Sequence[set[str]], above: set[str]) -> float:
    """The share of the words' neighbouring pairs, as they were asked, of which a sentence has one and the sentence or
    a heading above it the other. Of a single word: whether it is there."""
    there = [{at for at, word in enumerate(words) if presence(word, sentence) > _TOLD} for sentence in spoken]
    titled = {at for at, word in enumerate(words) if presence(word, above) > _TOLD}
    if len(words) < 2:
        return float(any(there) or bool(titled))
    pairs = [{at, at + 1} for at in range(len(words) - 1)]
    return sum(any(pair & one and pair <= one | titled for one in there) for pair in pairs) / len(pairs)


def _lacking(words: Sequence[Keyword], present: set[str]) -> float:
    """The share of the codes and names that is not there. One that no document has counts in full: the sources have
    never heard of it. One that stands elsewhere counts a third: this passage may know it under another name."""
    anchors = [word for word in words if word.anchor]
    total = sum(word.weight for word in anchors)
    lacking = sum(
        word.weight * (1.0 - presence(word, present)) * (_KNOWN_ELSEWHERE if word.known else 1.0) for word in anchors
    )
    return lacking / total if total else 0.0


def _unheard(words: Sequence[Keyword]) -> float:
    total = sum(word.weight for word in words)
    return sum(word.weight for word in words if not word.known) / total if total else 0.0


def _probability(weights: Weights, item: Features) -> float:
    logit = (
        weights.bias
        + weights.words * item.words
        + weights.together * item.together
        + weights.cosine * item.cosine
        + weights.lacking * item.lacking
        + weights.unheard * item.unheard
    )
    return 1.0 / (1.0 + math.exp(-logit))
