"""Questions that the knowledge has no answer to: the same one asked again and again is one gap."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rag.text.language import is_han, query_terms, simplified

_ALIKE = 0.75  # share of content words that two questions have in common, to be one; numbers and codes all of them
_WORDINGS = 5  # shown of each gap

# When was it founded, and who founded it: the same words, and two gaps.
_ASKS = {
    "when": r"\b(?:when|since when|what (?:time|date|year))\b|什么时候|何时|几点|几号|哪天|哪年|哪一年|什么时间",
    "where": r"\bwhere\b|哪里|哪儿|在哪|什么地方",
    "who": r"\bwho(?:m|se)?\b|谁|哪位",
    "why": r"\bwhy\b|为什么|为何",
    "how long": r"\bhow (?:long|soon|often|quickly)\b|多久|多长",
    "how much": r"\bhow (?:much|many|high|large|big|far|heavy)\b|多少|几|多大|多高|多远|多重",
    "how": r"\bhow\b|怎么|怎样|如何",
}
_ASKING = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _ASKS.items()}


@dataclass(frozen=True, slots=True)
class Asked:
    """One kept answer. `gap`: nothing was found that answers it; `searched`: the collections that were asked."""

    id: str
    question: str  # as it stands alone
    at: datetime
    gap: bool
    searched: frozenset[str] = frozenset()


@dataclass(slots=True)
class Gap:
    """A question without an answer. `asked`: every time it had none, oldest first."""

    id: str
    asked: list[Asked] = field(default_factory=list)
    answered_since: datetime | None = None  # there was an answer the last time it was asked

    @property
    def count(self) -> int:
        return len(self.asked)

    @property
    def wordings(self) -> list[str]:
        """Newest first, each once."""
        return list(dict.fromkeys(item.question for item in reversed(self.asked)))[:_WORDINGS]


def gaps_of(asked: Iterable[Asked]) -> list[Gap]:
    """Most often asked first, of those the latest. What was answered once more after it was not is marked."""
    groups = _grouped(sorted(asked, key=lambda item: (item.at, item.id)))
    found = []
    for group in groups:
        missed = [item for item in group if item.gap]
        if not missed:
            continue
        later = [item.at for item in group if not item.gap and item.at > missed[-1].at]
        found.append(Gap(_id(group[0].question), missed, max(later, default=None)))
    return sorted(found, key=lambda gap: (-gap.count, -gap.asked[-1].at.timestamp(), gap.id))


def _grouped(asked: Sequence[Asked]) -> list[list[Asked]]:
    """In the order of their first question, which every other one of the group is like."""
    groups: list[list[Asked]] = []
    signs: list[_Sign] = []
    by_sign: dict[_Sign, int] = {}
    by_word: defaultdict[str, list[int]] = defaultdict(list)
    for item in asked:
        sign = _sign(item.question)
        at = by_sign.get(sign)
        if at is None:
            shared: defaultdict[int, int] = defaultdict(int)
            for word in sign.words:
                for group in by_word[word]:
                    shared[group] += 1
            alike = [(_likeness(signs[group], sign, common), -group) for group, common in shared.items()]
            best, group = max(alike, default=(0.0, 0))
            at = -group if best >= _ALIKE else None
        if at is None:
            at = len(groups)
            groups.append([])
            signs.append(sign)
            for word in sign.words:
                by_word[word].append(at)
        by_sign[sign] = at
        groups[at].append(item)
    return groups


@dataclass(frozen=True, slots=True)
class _Sign:
    """What two wordings of a question have in common: content words, numbers and codes, and what is asked of them."""

    words: frozenset[str]
    exact: frozenset[str]
    asks: str


def _sign(question: str) -> _Sign:
    text = simplified(question)
    words = frozenset(word for word in query_terms(text) if len(word) > 1 or not is_han(word))
    exact = frozenset(word for word in words if any(map(str.isdigit, word)))
    asks = next((name for name, pattern in _ASKING.items() if pattern.search(text)), "what")
    return _Sign(words or frozenset(query_terms(text)), exact, asks)


def _likeness(one: _Sign, other: _Sign, common: int) -> float:
    if one.exact != other.exact or one.asks != other.asks:
        return 0.0
    return common / len(one.words | other.words)


def _id(question: str) -> str:
    sign = _sign(question)
    told = "\0".join([sign.asks, *sorted(sign.words)])
    return f"gap_{hashlib.sha256(told.encode()).hexdigest()[:16]}"
