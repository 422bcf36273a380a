"""Is there enough evidence to answer? And if not, the refusal that says why."""

from __future__ import annotations

import math

from rag.keywords import comparable, presence, share
from rag.language import language_of, terms
from rag.models import Closest, Hit, Refusal
from rag.retrieve import Found

ENOUGH = 0.4  # evidence below this refuses
_PASSAGES = 5  # whose words and vectors are judged
_CLOSEST = 3  # named in a refusal


def evidence(found: Found) -> float:
    """0 … 1: how surely the passages speak of what was asked, from words and vectors as far as each can be trusted."""
    return max((_probability(*features(found, hit)) for hit in found.hits[:_PASSAGES]), default=0.0)


def features(found: Found, hit: Hit) -> tuple[float, float, float]:
    """(share of the content words it has, share of the codes and names it lacks, cosine as far as it means anything).

    Only words that a passage could have are asked of it: none of the Chinese ones of English text, and the reverse.
    """
    present = _terms(hit)
    wanted = comparable(found.keywords, chinese=language_of(hit.text) == "zh")
    anchors = [word for word in wanted if word.anchor]
    lacking = 1.0 - share(anchors, ((1.0, present),)) if anchors else 0.0
    cosine = found.coverage**2 * (hit.arms.get("vectors", 0.0) - 0.4)
    return (share(wanted, ((1.0, present),)) if wanted else 0.0), lacking, cosine


def _probability(words: float, lacking: float, cosine: float) -> float:
    # Fitted on half of the SQuAD and CMRC questions with and without an answer in the corpus; on the other half,
    # at 0.4: 98 % and 93 % of the unanswerable refused, 8 % and 5 % of the answerable (docs/decisions/0003).
    return 1.0 / (1.0 + math.exp(5.9 - 10.4 * words + 2.0 * lacking - 9.3 * cosine))


def explain(found: Found, *, language: str) -> tuple[str, Refusal]:
    """What to say instead of an answer, and the refusal as a value."""
    closest = tuple(_closest(hit) for hit in found.hits[:_CLOSEST])
    count = sum(found.searched.values())
    missing = _missing(found)
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


def _missing(found: Found) -> list[str]:
    """The question's rarest words, as the asker wrote them, that no close passage has."""
    present = [_terms(hit) for hit in found.hits[:_PASSAGES]]
    absent = [word for word in found.keywords if not any(presence(word, terms_) > 0.5 for terms_ in present)]
    return [f"“{word.text}”" for word in sorted(absent, key=lambda word: -word.weight)[:3]]


def _terms(hit: Hit) -> set[str]:
    return set(terms(f"{hit.heading}\n{hit.text}"))


def _closest(hit: Hit) -> Closest:
    return Closest(hit.title, hit.uri, hit.document_id, hit.place, hit.text, hit.score)
