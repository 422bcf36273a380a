"""Is there enough evidence to answer? And if not, the refusal that says why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.keywords import Keyword, presence, readings, share
from rag.language import sentences, terms
from rag.models import Closest, Hit, Refusal
from rag.retrieve import Found

ENOUGH = 0.35  # evidence below this refuses
_PASSAGES = 5  # whose words and vectors are judged
_CLOSEST = 3  # named in a refusal
_TOLD_OF = 0.35  # of the weight of the weightiest missing word, for another to be named beside it
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


def explain(found: Found, *, language: str) -> tuple[str, Refusal]:
    """What to say instead of an answer, and the refusal as a value."""
    closest = tuple(_closest(hit) for hit in found.hits[:_CLOSEST])
    count = sum(found.searched.values())
    missing = _missing(found)
    if found.filtered and not count:
        reason = _NOTHING_PASSES["zh" if language == "zh" else "en"]
    elif language == "zh":
        reason = _zh(closest, count, missing)
    else:
        reason = _en(closest, count, missing)
    return reason, Refusal(reason, found.searched, closest, missing=tuple(word[1:-1] for word in missing))


_NOTHING_PASSES = {
    "en": "No document passes the filter, so nothing was searched.",
    "zh": "没有任何文档符合筛选条件，因此没有可检索的内容。",
}


def _en(closest: tuple[Closest, ...], count: int, missing: list[str]) -> str:
    searched = f"I searched {count} document{'s' if count != 1 else ''} and found no passage that answers this."
    if not closest:
        return f"{searched} Nothing in them shares a word with the question."
    near = f" The closest is “{closest[0].title}”"
    if missing:
        return f"{searched}{near}, but nothing there speaks of {_listed(missing, 'or', ', ')}."
    return f"{searched}{near}, but it does not say enough to answer from."


def _zh(closest: tuple[Closest, ...], count: int, missing: list[str]) -> str:
    searched = f"已检索 {count} 份文档，没有找到能回答这个问题的内容。"
    if not closest:
        return f"{searched}其中没有任何内容与问题用词相同。"
    near = f"最接近的是《{closest[0].title}》"
    if missing:
        return f"{searched}{near}，但其中没有提到{_listed(missing, '或', '、')}。"
    return f"{searched}{near}，但内容不足以作答。"


def _listed(words: list[str], last: str, comma: str) -> str:
    if len(words) == 1:
        return words[0]
    gap = "" if comma == "、" else " "
    return f"{comma.join(words[:-1])}{gap}{last}{gap}{words[-1]}"


def _missing(found: Found) -> list[str]:
    """The question's rarest words, as the asker wrote them, that no close passage has. Beside a weighty one, none that
    only asks."""
    present = [_terms(hit) for hit in found.hits[:_PASSAGES]]
    absent = [word for word in found.keywords if not any(presence(word, terms_) > 0.5 for terms_ in present)]
    least = _TOLD_OF * max((word.weight for word in absent), default=0.0)
    told = [word for word in absent if word.weight >= least]
    return [f"“{word.text}”" for word in sorted(told, key=lambda word: -word.weight)[:3]]


def _terms(hit: Hit) -> set[str]:
    return set(terms(f"{hit.heading}\n{hit.text}\n{hit.file_stem}"))


def _closest(hit: Hit) -> Closest:
    return Closest(hit.title, hit.uri, hit.document_id, hit.place, hit.text, hit.score)
