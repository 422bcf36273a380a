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
_SEVERAL_PARTS = 10  # content words from which on no single passage has to speak of all that is asked


@dataclass(frozen=True, slots=True)
class Features:
    """What one passage, or several taken together, read in one language, say for an answer (+) or against it (-). All
    but `cosine` are 0 … 1.

    Of the content words, those count that it could have in that language.
    """

    words: float  # + the share of the content words that it has
    together: float  # + the share of neighbouring pairs of them that stand in one sentence
    cosine: float  # + above what is far, as far as the embedder reads the question; 0 across languages
    lacking: float  # - the share of the codes and names that it lacks
    unheard: float  # - the share of the content words that no document searched has
    bare: float  # - the share of the codes that it has, as far as it lacks what is asked of them; 0 across languages


@dataclass(frozen=True, slots=True)
class Weights:
    """Of a logistic function."""

    bias: float
    words: float
    together: float
    cosine: float
    lacking: float
    unheard: float
    bare: float


@dataclass(frozen=True, slots=True)
class _Reading:
    """A passage as it is read in one language."""

    words: tuple[Keyword, ...]  # that it could have
    asked: float  # what their being there is worth
    above: set[str]  # terms of its headings
    spoken: list[set[str]]  # terms of its sentences
    cosine: float
    across: bool  # it is not the question's language

    @property
    def present(self) -> set[str]:
        return self.above.union(*self.spoken)


# By bench/fit_evidence.py, from half of the questions; docs/decisions/0003 says what they are worth on the other half.
# The bias holds the threshold: at ENOUGH, 5 % of the answerable questions that fitted are refused. `bare` is by hand.
ENGLISH = Weights(bias=-2.08, words=3.35, together=1.57, cosine=5.68, lacking=-3.00, unheard=0.00, bare=-1.50)
CHINESE = Weights(bias=-3.61, words=6.41, together=0.08, cosine=2.84, lacking=-5.08, unheard=-2.66, bare=0.00)


def evidence(found: Found) -> float:
    """0 … 1: how probable it is that the passages answer, from words and vectors as far as each can be trusted."""
    if not any(word.weight for word in found.keywords):
        return 0.0  # nothing was asked
    weights = CHINESE if _asked_in_chinese(found) else ENGLISH
    return max((_probability(weights, item) for item in features(found)), default=0.0)


def features(found: Found) -> list[Features]:
    """Of the five best passages, once for each language that a passage can be read in, and of all five together where
    the question has several parts.

    A passage in another language than the question's is asked for codes and names alone. It counts where one of them
    stands in no passage in the question's language: there the rest of the question could have been found as well.
    """
    chinese = _asked_in_chinese(found)
    far = _far(found.hits)
    read = [one for hit in found.hits[:_PASSAGES] for one in _read(found, hit, far=far, chinese=chinese)]
    own = [one for one in read if not one.across]
    told = {word.text for one in own for word in _told(one.words, one.present)}
    counted = [
        [one] for one in read if not one.across or any(word.text not in told for word in _told(one.words, one.present))
    ]
    if len(own) > 1 and len(own[0].words) >= _SEVERAL_PARTS:
        counted.append(own)
    return [_features(several) for several in counted]


def _far(hits: Sequence[Hit]) -> float:
    """The cosine from which on a passage is near. Some embedders find everything near: with cosines of .7 and more
    between any two texts, it is that of the passages behind the ones that are judged. For all-MiniLM-L6-v2 it is .4."""
    behind = [hit.arms["vectors"] for hit in hits[_PASSAGES : _PASSAGES + 3] if "vectors" in hit.arms]
    return max(_FAR, min(behind, default=_FAR))


def _read(found: Found, hit: Hit, *, far: float, chinese: bool) -> Iterator[_Reading]:
    above = set(terms(f"{hit.heading}\n{hit.file_stem}"))
    spoken = [set(terms(hit.text[start:end])) for start, end in sentences(hit.text)]
    near = found.view_of(hit).coverage ** 2 * (hit.arms.get("vectors", 0.0) - far)
    for read_as_chinese, words, asked in readings(found.keywords, hit.text):
        across = read_as_chinese != chinese  # where an embedder that reads one of them has nothing to say
        yield _Reading(tuple(words), asked, above, spoken, 0.0 if across else near, across)


def _features(several: Sequence[_Reading]) -> Features:
    """Of passages in one language, as if they were one."""
    first = several[0]
    words, present = first.words, set[str]().union(*(one.present for one in several))
    return Features(
        words=first.asked * share(words, ((1.0, present),)),
        together=first.asked * _together(several),
        cosine=max(one.cosine for one in several),
        lacking=_lacking(words, present),
        unheard=_unheard(words),
        bare=0.0 if first.across else _bare(words, present),
    )


def _told(words: Sequence[Keyword], present: set[str]) -> list[Keyword]:
    return [word for word in words if presence(word, present) > _TOLD]


def _asked_in_chinese(found: Found) -> bool:
    return any(word.chinese for word in found.keywords)


def _together(several: Sequence[_Reading]) -> float:
    """The share of the words' neighbouring pairs, as they were asked, of which a sentence has one and the sentence or
    a heading above it the other. Of a single word: whether it is there."""
    words = several[0].words
    found: set[int] = set()
    for one in several:
        there = [{at for at, word in enumerate(words) if presence(word, sentence) > _TOLD} for sentence in one.spoken]
        titled = {at for at, word in enumerate(words) if presence(word, one.above) > _TOLD}
        if len(words) < 2:
            return float(any(there) or bool(titled))
        for at in range(len(words) - 1):
            pair = {at, at + 1}
            if any(pair & said and pair <= said | titled for said in there):
                found.add(at)
    return len(found) / (len(words) - 1)


def _lacking(words: Sequence[Keyword], present: set[str]) -> float:
    """The share of the codes and names that is not there. One that no document has counts in full: the sources have
    never heard of it. One that stands elsewhere counts a third: this passage may know it under another name."""
    anchors = [word for word in words if word.anchor]
    total = sum(word.weight for word in anchors)
    lacking = sum(
        word.weight * (1.0 - presence(word, present)) * (_KNOWN_ELSEWHERE if word.known else 1.0) for word in anchors
    )
    return lacking / total if total else 0.0


def _bare(words: Sequence[Keyword], present: set[str]) -> float:
    """A passage that has the code and nothing of what is asked about it speaks of the right thing and does not answer.
    Names are left out: what is asked of them is told in more ways."""
    codes = [word for word in words if word.anchor and _is_code(word.text)]
    others = [word for word in words if not word.anchor]
    if not codes or not others:
        return 0.0
    return share(codes, ((1.0, present),)) * (1.0 - share(others, ((1.0, present),)))


def _is_code(text: str) -> bool:
    return not text.isdigit() and any(map(str.isdigit, text))


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
        + weights.bare * item.bare
    )
    return 1.0 / (1.0 + math.exp(-logit))
