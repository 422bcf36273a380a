"""Is there enough evidence to answer? And if not, the refusal that says why."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from rag.extract import term_share
from rag.language import language_of, terms
from rag.models import Closest, Hit, Refusal
from rag.retrieve import Found

_PASSAGES = 5  # whose words and vectors are judged
_CLOSEST = 3  # named in a refusal


def evidence(found: Found) -> float:
    """0 … 1: how surely the passages speak of what was asked, from words and vectors as far as each can be trusted."""
    if not found.hits:
        return 0.0
    top = found.hits[:_PASSAGES]
    words = max(term_share(found.rarity, f"{hit.heading}\n{hit.text}") for hit in top)
    cosine = max((hit.arms.get("vectors", 0.0) for hit in top), default=0.0)
    return 1.0 / (1.0 + math.exp(-_logit(words, cosine, found.coverage)))


def _logit(words: float, cosine: float, coverage: float) -> float:
    return -6.0 + 7.0 * words + coverage**2 * (8.0 * (cosine - 0.45))


def explain(found: Found, question: str, *, language: str) -> tuple[str, Refusal]:
    """What to say instead of an answer, and the refusal as a value."""
    closest = tuple(_closest(hit) for hit in found.hits[:_CLOSEST])
    count = sum(found.searched.values())
    missing = _missing(found, question)
    if language == "zh":
        reason = _zh(closest, count, missing)
    else:
        reason = _en(closest, count, missing)
    return reason, Refusal(reason, found.searched, closest)


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


def _missing(found: Found, question: str) -> list[str]:
    """The question's rarest words, as the asker wrote them, that no close passage has."""
    present: set[str] = set()
    for hit in found.hits[:_PASSAGES]:
        present.update(terms(f"{hit.heading}\n{hit.text}"))
    absent = {term: weight for term, weight in found.rarity.items() if term not in present}
    words = _surface(question, absent)
    return words[:3]


def _surface(question: str, absent: Mapping[str, float]) -> list[str]:
    if language_of(question) == "zh":
        pairs = [term for term in absent if len(term) > 1]
        return [f"“{term}”" for term in sorted(pairs, key=lambda term: -absent[term]) if term in question]
    words = {}
    for word in re.findall(r"[^\W_][\w'.-]*[^\W_]|\w", question):
        weights = [absent[term] for term in terms(word) if term in absent]
        if weights:
            words[word] = max(weights)
    return [f"“{word}”" for word in sorted(words, key=lambda word: -words[word])]


def _closest(hit: Hit) -> Closest:
    return Closest(hit.title, hit.uri, hit.document_id, hit.place, hit.text, hit.score)
