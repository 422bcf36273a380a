"""Does this passage support this sentence? The part that comes closest is found, and judged without any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag.answering.support import SUPPORTED, Judgement, judge, share_of, without_negation
from rag.models import Passage, Support
from rag.ports import Embedder
from rag.text.language import query_terms, sentences, terms

# What a cosine tells, between that of texts that have nothing in common (0.4 for all-MiniLM-L6-v2) and 1. By
# bench/measure_verify.py on half of the questions.
FAR = 0.4
_SAYS_IT = 0.47  # of a sentence and its quote: in other words
_SAYS_SOME = 0.33
_SAME_WORD = 0.25  # of what stands in the place of other words
_READS = 0.9  # the share of the sentence that the embedder has to know

_QUOTE_SENTENCES = 2  # at the most, in a row, quoted for one sentence of the answer
_JUDGED = 3  # the best by words; of them, the one that supports best is quoted


@dataclass(frozen=True, slots=True)
class Evidence:
    """The part of a passage that supports a sentence best; offsets count in the version's canonical text."""

    passage: Passage
    start: int
    end: int
    support: Support
    share: float
    judgement: Judgement


def best_evidence(sentence: str, passage: Passage) -> Evidence:
    """The one or two sentences of the passage that come closest to the sentence, and how far they support it."""
    wanted = frozenset(query_terms(without_negation(sentence)))
    windows = [window for start, text in passage.runs for window in _windows(start, text)]
    # The shortest of the best: a second sentence is quoted only where it adds something.
    shares = {window: (share_of(wanted, frozenset(terms(window[1]))), -len(window[1])) for window in windows}
    best = sorted(windows, key=lambda window: shares[window], reverse=True)[:_JUDGED]
    judged: list[tuple[tuple[int, str], Judgement]] = []
    for window in best:
        judged.append((window, _judged(sentence, window, passage)))
        if judged[-1][1].support == "supported":
            break
    (start, quote), judgement = max(judged, key=lambda one: strength(one[1]))
    return Evidence(passage, start, start + len(quote), judgement.support, judgement.share, judgement)


def _judged(sentence: str, window: tuple[int, str], passage: Passage) -> Judgement:
    start, quote = window
    # Names of the document and its section may carry a part: "Warranty › Batteries" need not be said again.
    return judge(sentence, quote, heading=passage.span_at(start).chunk.heading, around=passage.text)


def reconsidered(
    sentence: str, found: Sequence[Evidence], embedder: Embedder, *, coverage: float = 1.0, far: float = FAR
) -> list[Evidence]:
    """The same, where words alone did not decide by vectors too: other words may say the same.

    `coverage`: how much of this language the embedder was found to read; `far`: the cosine of texts that have nothing
    in common. One call of the embedder for all, none where nothing is open.
    """
    asked = [item for item in found if item.judgement.open]
    if not asked or min(coverage, embedder.coverage(sentence)) < _READS:
        return list(found)
    texts = [sentence]
    for item in asked:
        quote = item.passage.quote(item.start, item.end)
        texts += [quote, *(text for pair in item.judgement.instead for text in pair)]
    vectors = iter(embedder.embed_passages(texts, urgent=True))
    own = next(vectors)
    decided: dict[int, Support] = {}
    for item in asked:
        near = _above(float(own @ next(vectors)), far)
        same = [_above(float(next(vectors) @ next(vectors)), far) for _ in item.judgement.instead]
        decided[id(item)] = _decided(item, near, min(same, default=1.0))
    return [replace(item, support=decided.get(id(item), item.support)) for item in found]


def _above(cosine: float, far: float) -> float:
    return (cosine - far) / (1.0 - far)


def _decided(item: Evidence, near: float, same: float) -> Support:
    if item.support == "weak" and same >= _SAME_WORD and (near >= _SAYS_IT or item.share >= SUPPORTED):
        return "supported"
    return "weak" if near >= _SAYS_SOME else item.support


def strength(item: Judgement | Evidence) -> int:
    """For comparing: a better support is more."""
    return ("unsupported", "weak", "supported").index(item.support)


def _windows(start: int, text: str) -> list[tuple[int, str]]:
    """(offset, text) of each sentence of a run of text, and of each few in a row."""
    spans = sentences(text) or [(0, len(text))]
    return [
        (start + spans[first][0], text[spans[first][0] : spans[last][1]])
        for first in range(len(spans))
        for last in range(first, min(first + _QUOTE_SENTENCES, len(spans)))
    ]
