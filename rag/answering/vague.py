"""Questions too vague to answer: instead of a guess, up to four readings from the collection's own sections.

A question is vague where it names a topic and asks nothing of it (“Tell me about limits”, 价格？), and the topic stands
in several sections that answer about equally well; or where it has no content word at all. It must fire rarely: a
question of three content words, with a code, a name or a number in it, or whose topic one section bears in its
heading, is never vague.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rag.models import Hit, Reading, Refusal
from rag.retrieval.retrieve import Found
from rag.text.keywords import Keyword, is_weak, presence
from rag.text.language import language_of, terms

MOST = 4  # readings offered
_MOST_WORDS = 2
_SECTIONS = 3  # in so many the topic must stand, or asking for it is clear enough
_FLAT = 0.6  # of the best score the one of the third section must have

_OPENING = re.compile(
    r"^\W*(?:(?:please|can you|could you|and|so) )*(?:tell me (?:more |something |everything )?(?:about|on)|what about"
    r"|how about|(?:any(?:thing)?|more|some)? ?(?:info|information|details?|facts) (?:about|on|for|regarding)|anything"
    r" (?:about|on)|(?:i have )?(?:a )?questions? (?:about|on)|(?:i need )?(?:some )?help with|explain|describe"
    r"|what can you (?:tell|say)(?: me)? about|what do you know about|talk about|show me|regarding|about)\b",
    re.IGNORECASE,
)
_ASKS_ENGLISH = re.compile(
    r"\b(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|has|have|had|can|could|will|would"
    r"|shall|should|may|might|must|name|list|give|define|compare)\b",
    re.IGNORECASE,
)
# What is the limit? asks for one of many as soon as there are many.
_ATTRIBUTE = re.compile(r"^\W*what(?:['’]s| is| are) the [\w-]+\W*$", re.IGNORECASE)
_OPENING_CHINESE = re.compile(
    "^(?:请|我想|想|麻烦|能否|可以|帮我)*(?:问一下|问问|了解一下|了解|知道|介绍一下|介绍|说说|讲讲|讲一下|说一下|谈谈|聊聊|解释一下|"
    "关于|有关|告诉我)(?:关于)?|(?:怎么样|的?相关(?:信息|内容|规定|情况)?|的?(?:信息|情况|介绍|事情|问题))[吗呢]?[？?。]?$|呢[？?]?$"
)
_ASKS_CHINESE = re.compile(
    "什么|怎么|怎样|如何|为何|哪|谁|几|多少|多久|多长|多大|多高|多远|多重|是否|有没有|是不是|能不能|可不可以|吗|何时|可以|能"
)
_ATTRIBUTE_CHINESE = re.compile("^[^，,。的]{1,6}(?:是多少|是什么|有多少|多少)[？?]?$")


def vague(question: str, found: Found, *, enough: bool) -> tuple[Reading, ...]:
    """What the question, as it stands alone, may mean, best first; empty where it is clear enough to be answered.
    `enough`: the passages speak of what was asked."""
    topic, opened = _opened(question)
    words = [word for word in found.keywords if not is_weak(word) and (not opened or word.text in topic)]
    if not found.hits or len(words) > _MOST_WORDS or any(word.anchor or _has_digit(word) for word in found.keywords):
        return ()
    if not words:
        return () if enough else tuple(_readings(found.hits, "", question))
    if not _asks_nothing(question, topic, opened=opened, words=len(words)):
        return ()
    about = [hit for hit in found.hits if _speaks_of(hit, words)]
    sections = _by_section(about)
    if len(sections) < _SECTIONS or sections[_SECTIONS - 1].score < _FLAT * found.hits[0].score:
        return ()
    if sum(_bears(hit, words) for hit in sections) == 1 and _bears(sections[0], words):
        return ()  # one section is about nothing else
    topic = topic.strip(" \t?？。.!！,，") if _is_short(topic) else " ".join(word.text for word in words)
    return tuple(_readings(sections, topic, question))


def explain_vague(found: Found, readings: tuple[Reading, ...], *, language: str) -> tuple[str, Refusal]:
    """What to say instead of an answer, and the same as a value."""
    about = any(word.weight and not is_weak(word) for word in found.keywords)
    if language == "zh":
        reason = f"这个问题太笼统{'，文档中有多处与它有关' if about else ''}。您想问的是："
    else:
        reason = "That is too vague to answer from one passage. Did you mean:"
    reason += "".join(f"\n- {item.question}" for item in readings)
    return reason, Refusal(reason, found.searched, (), readings=readings, kind="vague")


def _has_digit(word: Keyword) -> bool:
    return any(map(str.isdigit, word.text))


def _opened(question: str) -> tuple[str, bool]:
    """The question without “Tell me about …”, and whether it had such an opening."""
    pattern = _OPENING_CHINESE if language_of(question) == "zh" else _OPENING
    rest, opened = pattern.subn("", question.strip())
    return rest, bool(opened)


def _asks_nothing(question: str, topic: str, *, opened: bool, words: int) -> bool:
    """Whether a topic is named and nothing is asked of it."""
    if language_of(question) == "zh":
        return not _ASKS_CHINESE.search(topic) or (words == 1 and bool(_ATTRIBUTE_CHINESE.match(question.strip())))
    if not _ASKS_ENGLISH.search(topic) and (opened or _is_short(topic)):
        return True
    return words == 1 and bool(_ATTRIBUTE.match(question))


def _is_short(topic: str) -> bool:
    return len(topic.split()) <= _MOST_WORDS + 1 and not _ASKS_ENGLISH.search(topic) and not _ASKS_CHINESE.search(topic)


def _speaks_of(hit: Hit, words: Sequence[Keyword]) -> bool:
    present = set(terms(f"{hit.heading}\n{hit.text}"))
    return all(presence(word, present) > 0.5 for word in words)


def _bears(hit: Hit, words: Sequence[Keyword]) -> bool:
    """Whether the heading names the topic."""
    present = set(terms(f"{hit.title}\n{hit.place.section or ''}"))
    return all(presence(word, present) > 0.5 for word in words)


def _by_section(hits: Sequence[Hit]) -> list[Hit]:
    """The best hit of each section, or of each document without any."""
    best: dict[tuple[str, str | None], Hit] = {}
    for hit in hits:
        best.setdefault((hit.title, hit.place.section), hit)
    return list(best.values())


def _readings(hits: Sequence[Hit], topic: str, question: str) -> Iterator[Reading]:
    """Of different documents first, of their sections then."""
    sections = _by_section(hits)
    first = list({hit.document_id: hit for hit in reversed(sections)}.values())[::-1]
    chosen = [*first, *(hit for hit in sections if hit not in first)][:MOST]
    for hit in chosen:
        section = (hit.place.section or "").rpartition("›")[2].strip() or None
        asked = _zh(hit.title, section, topic) if language_of(question) == "zh" else _en(hit.title, section, topic)
        yield Reading(asked, hit.title, hit.place.section, hit.document_id)


def _en(title: str, section: str | None, topic: str) -> str:
    where = f"“{section}” in “{title}”" if section and section != title else f"“{title}”"
    return f"What does {where} say about {topic}?" if topic else f"What does {where} say?"


def _zh(title: str, section: str | None, topic: str) -> str:
    where = f"《{title}》的“{section}”" if section and section != title else f"《{title}》"
    return f"{where}中关于{topic}是怎么说的？" if topic else f"{where}说了什么？"
