"""Is there enough evidence to answer? And if not, the refusal that says why."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rag.keywords import Keyword, presence, readings, share
from rag.language import terms
from rag.models import Closest, Hit, Refusal
from rag.retrieve import Found

ENOUGH = 0.35  # evidence below this refuses
_PASSAGES = 5  # whose words and vectors are judged
_CLOSEST = 3  # named in a refusal


def evidence(found: Found) -> float:
    """0 … 1: how surely the passages speak of what was asked, from words and vectors as far as each can be trusted."""
    if not any(word.weight for word in found.keywords):
        return 0.0  # nothing was asked
    judged = (_probability(*item) for hit in found.hits[:_PASSAGES] for item in features(found, hit))
    return max(judged, default=0.0)


def features(found: Found, hit: Hit) -> list[tuple[float, float, float]]:
    """(share of the content words it has, share of the codes and names it lacks, cosine as far as it means anything),
    once for each language that the passage can be read in."""
    present = _terms(hit)
    asked_in_chinese = any(word.chinese for word in found.keywords)
    known = found.view_of(hit).coverage ** 2
    judged = []
    for chinese, words, asked in readings(found.keywords, hit.text):
        # Across languages an embedder that reads one of them has nothing to say.
        cosine = hit.arms.get("vectors", 0.0) - 0.4 if chinese == asked_in_chinese else 0.0
        judged.append((asked * share(words, ((1.0, present),)), _lacking(words, present), known * cosine))
    return judged


def _lacking(words: Sequence[Keyword], present: set[str]) -> float:
    """The share of the codes and names that is not there. One that no document has counts in full: the sources have
    never heard of it. One that stands elsewhere counts a third: this passage may know it under another name."""
    anchors = [word for word in words if word.anchor]
    total = sum(word.weight for word in anchors)
    lacking = sum(word.weight * (1.0 - presence(word, present)) * (0.35 if word.known else 1.0) for word in anchors)
    return lacking / total if total else 0.0


def _probability(words: float, lacking: float, cosine: float) -> float:
    # Fitted on half of 250 SQuAD and 250 CMRC questions that their corpus answers and of 200 that it does not, except
    # `lacking`: those sets hold no traps near the truth, and it is what refuses the warranty of a product that does not
    # exist. On the other half, at 0.35: 100 % (en) and 71 % (zh) of the unanswerable are refused, and 7 % and 0 % of
    # the answerable (docs/decisions/0003).
    return 1.0 / (1.0 + math.exp(5.2 - 9.2 * words + 3.0 * lacking - 6.3 * cosine))


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
    """The question's rarest words, as the asker wrote them, that no close passage has."""
    present = [_terms(hit) for hit in found.hits[:_PASSAGES]]
    absent = [word for word in found.keywords if not any(presence(word, terms_) > 0.5 for terms_ in present)]
    return [f"“{word.text}”" for word in sorted(absent, key=lambda word: -word.weight)[:3]]


def _terms(hit: Hit) -> set[str]:
    return set(terms(f"{hit.heading}\n{hit.text}\n{hit.file_stem}"))


def _closest(hit: Hit) -> Closest:
    return Closest(hit.title, hit.uri, hit.document_id, hit.place, hit.text, hit.score)
