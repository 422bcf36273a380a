"""Questions asked one after the other; of each, everything that is needed to judge and to explain it."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from quality import metrics
from quality.failures import BEST, Failure, classify
from quality.models import Cited, Dataset, Found, Gold, Question, Ranks, Told
from quality.subject import Subject
from rag.errors import AttestError

_EXCERPT_CHARS = 280
_SHOWN_HITS = 10


@dataclass(frozen=True, slots=True)
class Record:
    """One question: what was expected, what was found and said, its measures, and why it failed."""

    dataset: str
    id: str
    language: str
    question: str
    answerable: bool
    kind: str
    answers: list[str]
    gold: list[dict[str, Any]]
    answer: str
    refused: bool
    reason: str
    evidence: float | None
    milliseconds: float | None
    measures: dict[str, float]
    failure: Failure | None
    ranks: dict[str, int | None] = field(default_factory=dict)
    hits: list[dict[str, Any]] = field(default_factory=list)
    citations: list[dict[str, Any]] = field(default_factory=list)
    degraded: str | None = None


def run(
    dataset: Dataset,
    subject: Subject,
    *,
    asked: Callable[[Record], None] = lambda _record: None,
    known: Mapping[str, Record] = MappingProxyType({}),
) -> list[Record]:
    """Asks every question; one that fails is an `error` among the records and stops nothing. `asked` hears of each.
    `known` records, by the ids of their questions, are taken as they are."""
    left = [question for question in dataset.questions if question.id not in known]
    if left:
        _warm_up(subject, left[0])
    records = []
    for question in dataset.questions:
        if question.id in known:
            records.append(known[question.id])
            continue
        try:
            record = judge(question, subject.ask(question), subject, dataset=dataset.name)
        except AttestError as problem:
            record = _failed(question, str(problem), dataset=dataset.name)
        records.append(record)
        asked(record)
    return records


def _warm_up(subject: Subject, question: Question) -> None:
    """The first question waits for models to load, which is no question's latency."""
    try:
        subject.ask(question)
    except AttestError:
        return  # it is asked again, and its error is a record then


def judge(question: Question, told: Told, subject: Subject, *, dataset: str) -> Record:
    ranks = [_rank(gold, told.hits) for gold in question.gold]
    measures = {"refused": float(told.refused), **_retrieval(question, ranks), **_answer(question, told)}
    right = [any(cites(item, gold) for gold in question.gold) for item in told.citations]
    if not told.refused:
        measures |= _citations(question, told, right, subject)
    far = None
    if question.answerable and question.gold and not _enough(question, ranks, BEST):
        far = _furthest(question, ranks, subject)
    failure = classify(
        answerable=question.answerable,
        refused=told.refused,
        right=bool(measures["contains_gold"]) if "contains_gold" in measures else None,
        cited=any(right) if question.gold else None,
        any_gold=question.any_gold,
        there=[
            rank is not None or subject.holds(gold.document) for gold, rank in zip(question.gold, ranks, strict=True)
        ],
        fused=ranks,
        shown=told.shown,
        ranks=far,
    )
    best = min((rank for rank in ranks if rank is not None), default=None)
    return Record(
        dataset=dataset,
        id=question.id,
        language=question.language,
        question=question.text,
        answerable=question.answerable,
        kind=question.kind,
        answers=list(question.answers) or [" / ".join(part) for part in question.parts],
        gold=[asdict(gold) for gold in question.gold],
        answer="" if told.refused else told.text,
        refused=told.refused,
        reason=told.reason,
        evidence=None if told.evidence is None else round(told.evidence, 4),
        milliseconds=round(told.milliseconds, 2),
        measures={name: round(value, 4) for name, value in measures.items()},
        failure=failure,
        ranks=asdict(far) if far else {"depth": len(told.hits), "fused": best, "vectors": None, "terms": None},
        hits=[_shown(hit, question.gold) for hit in told.hits[:_SHOWN_HITS]],
        citations=[_told(item, is_gold) for item, is_gold in zip(told.citations, right, strict=True)],
        degraded=told.degraded,
    )


def _retrieval(question: Question, ranks: Sequence[int | None]) -> dict[str, float]:
    if not (question.answerable and question.gold):
        return {}
    needed = _needed(question, ranks)
    return {
        "hit@1": metrics.hit_at(ranks, 1),
        "hit@5": metrics.hit_at(ranks, 5),
        "hit@10": metrics.hit_at(ranks, 10),
        "mrr@10": metrics.reciprocal_rank(ranks, 10),
        "ndcg@10": metrics.ndcg(needed, 10),
        "all_gold@10": metrics.all_at(needed, 10),
    }


def _answer(question: Question, told: Told) -> dict[str, float]:
    if not (question.answerable and (question.answers or question.parts)):
        return {}
    said, first = ("", "") if told.refused else (told.text, told.first)
    found = {
        "contains_gold": metrics.contains(said, question.answers, question.parts),
        "first_contains_gold": metrics.contains(first, question.answers, question.parts),
    }
    if question.fakes:
        fake = metrics.contains(said, question.fakes)
        found["misled"] = fake * (1.0 - found["contains_gold"])
        found["both_sides"] = fake * found["contains_gold"]
    if not told.refused:
        found["sentences"], found["characters"] = float(told.sentences), float(len(told.text))
    if question.answers:
        # Of the phrase where one was given; whole sentences never match exactly.
        found["exact_match"] = metrics.exact_match(told.short or said, question.answers)
        found["f1"] = metrics.token_f1(told.short or said, question.answers)
        found["short_answers"] = float(told.short is not None)
        if told.short is not None:
            found["short_exact_match"] = metrics.exact_match(told.short, question.answers)
            found["short_f1"] = metrics.token_f1(told.short, question.answers)
    return found


def matches(hit: Found, gold: Gold) -> bool:
    """A gold place is also found in a passage that says the same and is listed with the hit."""
    return any(_stands(gold, *place) for place in ((hit.names, hit.pages, hit.rows), *_twins(hit)))


def cites(item: Cited, gold: Gold) -> bool:
    return any(_stands(gold, *place) for place in ((item.names, (item.page,), (item.row,)), *_twins(item)))


def _twins(item: Found | Cited) -> list[tuple[Container[str], Container[int | None], Container[str | None]]]:
    return [(twin.names, twin.pages, twin.rows) for twin in item.also]


def _stands(gold: Gold, names: Container[str], pages: Container[int | None], rows: Container[str | None]) -> bool:
    named = gold.document in names
    if gold.row is not None:  # a row of a table is a document that may go by the row's name alone
        return gold.row in rows and (named or gold.document == gold.row)
    return named and (gold.page is None or gold.page in pages)


def _rank(gold: Gold, hits: Sequence[Found]) -> int | None:
    return next((rank for rank, hit in enumerate(hits, 1) if matches(hit, gold)), None)


def _needed(question: Question, ranks: Sequence[int | None]) -> list[int | None]:
    """The ranks of what must be found: the best alone where any gold place will do."""
    if not question.any_gold:
        return list(ranks)
    return [min((rank for rank in ranks if rank is not None), default=None)] if ranks else []


def _enough(question: Question, ranks: Sequence[int | None], k: int) -> bool:
    return bool(metrics.all_at(_needed(question, ranks), k))


def _furthest(question: Question, ranks: Sequence[int | None], subject: Subject) -> Ranks:
    """Of the gold places that did not come up the one that is hardest to find; of alternatives the easiest."""
    missing = [gold for gold, rank in zip(question.gold, ranks, strict=True) if rank is None or rank > BEST]
    if question.any_gold:
        return subject.ranks(question, lambda hit: any(matches(hit, gold) for gold in missing))
    found = [subject.ranks(question, lambda hit, gold=gold: matches(hit, gold)) for gold in missing]  # type: ignore[misc]
    return max(
        found, key=lambda one: min(one.vectors or one.depth + 1, one.terms or one.depth + 1, one.fused or one.depth + 1)
    )


def _citations(question: Question, told: Told, right: Sequence[bool], subject: Subject) -> dict[str, float]:
    """Of an answer that was given. What cites nothing has precision 0: an answer without a source is wrong."""
    texts = [subject.text(item.document_id, item.version) for item in told.citations]
    exact = [
        text is not None and text[c.start : c.end] == c.quote for text, c in zip(texts, told.citations, strict=True)
    ]
    found = {"exact_quote": float(bool(exact) and all(exact))}
    if not question.answerable:
        return found
    if question.gold:
        cited = [any(cites(item, gold) for item in told.citations) for gold in question.gold]
        recall = float(any(cited)) if question.any_gold else sum(cited) / len(cited)
        found |= {
            "citation_precision": metrics.precision(right) or 0.0,
            "citation_recall": recall,
            "cited_gold": float(any(right)),
        }
        if any(gold.page is not None for gold in question.gold):
            found["cited_page"] = float(any(right))
            documents = {gold.document for gold in question.gold}
            found["cited_document"] = float(any(documents & item.names for item in told.citations))
    if question.evidence:
        hit = any(
            _proves(question, item, text) for item, text in zip(told.citations, texts, strict=True) if text is not None
        )
        found["evidence_overlap"] = float(hit)
    return found


def _proves(question: Question, item: Cited, text: str) -> bool:
    """Whether the quote shares a character with the words that prove the answer, at their place in the document."""
    if question.gold and not any(cites(item, gold) for gold in question.gold):
        return False
    spans = [
        metrics.nearest(text, one.text, one.near)
        for one in question.evidence
        if one.document is None or one.document in item.names
    ]
    return metrics.overlaps(item.start, item.end, [span for span in spans if span is not None])


def _failed(question: Question, problem: str, *, dataset: str) -> Record:
    """Asking raised an error. It counts as not found, not answered and not refused."""
    zeros = ("hit@1", "hit@5", "hit@10", "mrr@10", "ndcg@10", "all_gold@10") if question.gold else ()
    answers = ("contains_gold", "exact_match", "f1") if question.answers or question.parts else ()
    measures = dict.fromkeys((*zeros, *answers) if question.answerable else (), 0.0)
    return Record(
        dataset=dataset,
        id=question.id,
        language=question.language,
        question=question.text,
        answerable=question.answerable,
        kind=question.kind,
        answers=list(question.answers),
        gold=[asdict(gold) for gold in question.gold],
        answer="",
        refused=False,
        reason=problem,
        evidence=None,
        milliseconds=None,
        # A question that failed was not answered wrongly either: among the unanswerable it refused nothing.
        measures={**measures, "refused": 0.0 if not question.answerable else 1.0},
        failure="error",
    )


def _shown(hit: Found, gold: Sequence[Gold]) -> dict[str, Any]:
    return {
        "document_id": hit.document_id,
        "uri": hit.uri,
        "title": hit.title,
        "start": hit.start,
        "end": hit.end,
        "text": _excerpt(hit.text),
        "score": round(hit.score, 4),
        "arms": {name: round(score, 4) for name, score in hit.arms.items()},
        "gold": any(matches(hit, one) for one in gold),
    }


def _told(item: Cited, is_gold: bool) -> dict[str, Any]:
    return {
        "document_id": item.document_id,
        "version": item.version,
        "uri": item.uri,
        "title": item.title,
        "start": item.start,
        "end": item.end,
        "quote": item.quote,
        "support": item.support,
        "gold": is_gold,
    }


def _excerpt(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _EXCERPT_CHARS else f"{one_line[:_EXCERPT_CHARS]}…"
