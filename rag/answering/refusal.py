"""What to say instead of an answer: what was searched, what came closest, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.answering.asked import Kind, asked
from rag.answering.shapes import evident
from rag.models import Closest, Hit, Refusal, RefusalKind
from rag.retrieval.retrieve import Found
from rag.text.keywords import Keyword, is_weak, presence, share
from rag.text.language import language_of, sentences, terms

_PASSAGES = 5  # whose words are looked at
_CLOSEST = 3  # named in a refusal
_TOLD_OF = 0.35  # of the weight of the weightiest missing word, for another to be named beside it
_THERE = 0.5  # of a word's terms, for it to be there
_ABOUT = 0.5  # of the content words' weight, for a sentence to be about the question
_READS = 0.8  # of a text's tokens, for the embedder to read its language


@dataclass(frozen=True, slots=True)
class _Why:
    """What a refusal is put together from."""

    count: int  # documents searched
    closest: tuple[Closest, ...]
    missing: tuple[str, ...]  # words of the question that nothing close has
    present: tuple[str, ...]  # its weightiest words that the closest passage has
    lacks: Kind | None
    embedder: str | None  # its name, where the passages are in a language that it does not connect with the question's


def explain(found: Found, *, language: str) -> tuple[str, Refusal]:
    """What to say instead of an answer, and the refusal as a value."""
    count = sum(found.searched.values())
    if found.filtered and not count:
        reason = _NOTHING_PASSES["zh" if language == "zh" else "en"]
        return reason, Refusal(reason, found.searched, (), kind="filtered_out")
    missing = _missing(found)
    why = _Why(
        count=count,
        closest=tuple(_closest(hit) for hit in found.hits[:_CLOSEST]),
        missing=missing,
        present=_present(found),
        lacks=None if missing else _lacks(found, found.question),
        embedder=_cannot_connect(found, language),
    )
    reason = _zh(why) if language == "zh" else _en(why)
    kind: RefusalKind = "across_languages" if why.embedder else "no_evidence"
    return reason, Refusal(reason, found.searched, why.closest, missing=missing, kind=kind, lacks=why.lacks)


_NOTHING_PASSES = {
    "en": "No document passes the filter, so nothing was searched.",
    "zh": "没有任何文档符合筛选条件，因此没有可检索的内容。",
}
_KINDS_EN = {"date": "date", "number": "number", "person": "person", "place": "place"}
_KINDS_ZH = {"date": "日期或时间", "number": "数字", "person": "人名", "place": "地点"}


def _en(why: _Why) -> str:
    searched = f"I searched {why.count} document{'s' if why.count != 1 else ''} and found no passage that answers this."
    if not why.count:
        return "There was no document to search."
    if not why.closest:
        return f"{searched} Nothing in them shares a word with the question."
    near = f"{searched} The closest is “{why.closest[0].title}”"
    if why.embedder:
        return (
            f"{near}, which is in Chinese. The embedder in use, {why.embedder}, cannot look across languages: ask in "
            "Chinese, or set ATTEST_EMBEDDER to a multilingual model and run `attest reindex`."
        )
    if why.missing:
        return f"{near}, but nothing there speaks of {_listed(why.missing, 'or', ', ', '“{}”')}."
    if why.lacks and why.present:
        told = _listed(why.present, "and", ", ", "“{}”")
        return f"{near}: it speaks of {told}, but names no {_KINDS_EN[why.lacks]} with it."
    return f"{near}, but it does not say enough to answer from."


def _zh(why: _Why) -> str:
    searched = f"已检索 {why.count} 份文档，没有找到能回答这个问题的内容。"
    if not why.count:
        return "没有可供检索的文档。"
    if not why.closest:
        return f"{searched}其中没有任何内容与问题用词相同。"
    near = f"{searched}最接近的是《{why.closest[0].title}》"
    if why.embedder:
        return (
            f"{near}，但它是英文的。当前的向量模型 {why.embedder} 不能跨语言检索：请用英文提问，"
            "或将 ATTEST_EMBEDDER 设为多语言模型后运行 `attest reindex`。"
        )
    if why.missing:
        return f"{near}，但其中没有提到{_listed(why.missing, '或', '、', '“{}”')}。"
    if why.lacks and why.present:
        told = _listed(why.present, "和", "、", "“{}”")
        return f"{near}：其中提到了{told}，但没有给出相关的{_KINDS_ZH[why.lacks]}。"
    return f"{near}，但内容不足以作答。"


def _listed(words: Sequence[str], last: str, comma: str, quoted: str) -> str:
    words = [quoted.format(word) for word in words]
    if len(words) == 1:
        return words[0]
    gap = "" if comma == "、" else " "
    return f"{comma.join(words[:-1])}{gap}{last}{gap}{words[-1]}"


# ── what is missing ───────────────────────────────────────────────────────────────────────────


def _missing(found: Found) -> tuple[str, ...]:
    """The question's rarest words, as the asker wrote them, that no close passage has. Beside a weighty one, none that
    only asks."""
    present = [_terms(hit) for hit in found.hits[:_PASSAGES]]
    asked_of = [word for word in found.keywords if not is_weak(word)]
    absent = [word for word in asked_of if not any(presence(word, terms_) > _THERE for terms_ in present)]
    least = _TOLD_OF * max((word.weight for word in absent), default=0.0)
    return _weightiest([word for word in absent if word.weight >= least])


def _present(found: Found) -> tuple[str, ...]:
    there = _terms(found.hits[0]) if found.hits else set()
    return _weightiest([word for word in found.keywords if not is_weak(word) and presence(word, there) > _THERE])


def _weightiest(words: Sequence[Keyword]) -> tuple[str, ...]:
    return tuple(word.text for word in sorted(words, key=lambda word: -word.weight)[:3])


def _terms(hit: Hit) -> set[str]:
    return set(terms(f"{hit.heading}\n{hit.text}\n{hit.file_stem}"))


def _lacks(found: Found, question: str) -> Kind | None:
    """What was asked for, a date, a number, a person or a place, where no sentence that is about the question has one
    beside what the question itself names. Of Chinese names no shape is known."""
    wanted = asked(question)
    shapes = ("date", "number") if wanted.chinese else tuple(_KINDS_EN)
    if wanted.kind not in shapes:
        return None
    named = set(terms(question))
    for hit in found.hits[:_CLOSEST]:
        above = set(terms(hit.heading))
        for start, end in sentences(hit.text):
            text = hit.text[start:end]
            about = share(found.keywords, ((1.0, set(terms(text)) | above),)) >= _ABOUT
            spans = evident(text, wanted) if about else set()
            if any(not set(terms(text[one:other])) <= named for one, other in spans):
                return None
    return wanted.kind


# ── across languages ──────────────────────────────────────────────────────────────────────────


def _cannot_connect(found: Found, language: str) -> str | None:
    """The embedder's name, where all that came close is in the other language and it does not read both."""
    closest = found.hits[:_CLOSEST]
    if not closest or any(language_of(hit.text) == language for hit in closest):
        return None
    view = found.view
    read = min(view.coverage, view.embedder.coverage(closest[0].text))
    return view.embedder.name if read < _READS else None


def _closest(hit: Hit) -> Closest:
    return Closest(hit.title, hit.uri, hit.document_id, hit.place, hit.text, hit.score)
