"""Does this passage support this sentence? Checked mechanically: numbers must be there, and most of the words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag.language import query_terms, sentences, terms
from rag.models import Passage, Support

_SUPPORTED = 0.7  # share of the sentence's terms that the passage has
_WEAK = 0.4
_TELLING = 2  # terms, at the least, of a sentence that tells anything: “Warranty” and “F” do not
_QUOTE_SENTENCES = 2  # at the most, in a row, quoted for one sentence of the answer

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot)\b|n't\b|不|没有|无需|无法|未曾|尚未|禁止", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The part of a passage that supports a sentence best; offsets count in the version's canonical text."""

    passage: Passage
    start: int
    end: int
    support: Support
    share: float


def best_evidence(sentence: str, passage: Passage) -> Evidence:
    """The one or two sentences of the passage that come closest to the sentence, and how far they support it."""
    # Without its negation, or the sentence beside the right one would be quoted too, for the sake of its “not”.
    wanted = set(query_terms(_NEGATION.sub(" ", sentence)))
    spans = sentences(passage.text) or [(0, len(passage.text))]
    windows = [
        (spans[first][0], spans[last][1])
        for first in range(len(spans))
        for last in range(first, min(first + _QUOTE_SENTENCES, len(spans)))
    ]
    # The shortest of the best: a second sentence is quoted only where it adds something.
    start, end = max(windows, key=lambda span: (_share(wanted, passage.text[span[0] : span[1]]), span[0] - span[1]))
    quote = passage.text[start:end]
    # Names of the document and its section may carry a part: "Warranty › Batteries" need not be said again.
    share = _share(wanted, f"{passage.hit.heading}\n{quote}")
    offset = passage.hit.start
    return Evidence(passage, offset + start, offset + end, _judge(sentence, quote, passage.hit.heading, share), share)


def _judge(sentence: str, quote: str, heading: str, share: float) -> Support:
    missing_numbers = _numbers(sentence) - _numbers(f"{heading}\n{quote}")
    if missing_numbers or share < _WEAK:
        return "unsupported"
    if len(query_terms(sentence)) < _TELLING:
        return "weak"
    if share < _SUPPORTED or bool(_NEGATION.search(sentence)) != bool(_NEGATION.search(quote)):
        return "weak"
    return "supported"


def _share(wanted: set[str], text: str) -> float:
    if not wanted:
        return 0.5  # no word that could be checked: weak, whatever the passage says
    return len(wanted & set(terms(text))) / len(wanted)


def _numbers(text: str) -> set[str]:
    return {match.group().replace(",", "") for match in _NUMBER.finditer(text)}
