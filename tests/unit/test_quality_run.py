"""Questions asked and judged, failures told apart, the report, the comparison with an earlier one, the page."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import rag.answering.extract
import rag.retrieval.retrieve
from quality import report as reports
from quality.compare import compare
from quality.failures import CANDIDATES, MEANING, classify
from quality.models import Cited, Dataset, Evidence, Found, Gold, Question, Ranks, Told
from quality.page import page
from quality.report import Report, summarise
from quality.run import Record, judge, run
from quality.subject import DEPTH, EXTRACTED_FROM, AssistantSubject, Matches, rank_of
from rag.answer import Assistant
from rag.errors import InvalidInput, NotFound, Unavailable
from tests.bases import Bases, publish_text, source_in

TEXTS = {"a": "Rollo led the Normans.", "b": "Drogo ruled in Apulia. He died early.", "c": "Nothing of use."}


def found(document: str, *, page_number: int | None = None) -> Found:
    text = TEXTS.get(document, document)
    pages = frozenset(() if page_number is None else (page_number,))
    return Found(
        f"doc_{document}", 1, frozenset((document,)), document.upper(), document, 0, len(text), text, 0.5, pages=pages
    )


def cited(document: str, quote: str) -> Cited:
    start = TEXTS[document].find(quote)
    names = frozenset((document,))
    return Cited(f"doc_{document}", 1, names, document, document, start, start + len(quote), quote, "supported")


def told(*documents: str, text: str = "", refused: bool = False, citations: tuple[Cited, ...] = ()) -> Told:
    hits = tuple(map(found, documents))
    reason = "Nothing answers this." if refused else ""
    evidence = 0.1 if refused else 0.8
    return Told(hits, text, refused, reason, citations, evidence, 5, 12.0, first=text, sentences=1)


@dataclass
class Scripted:
    """A subject that says what it is told to."""

    answers: dict[str, Told | Exception] = field(default_factory=dict)
    deep: tuple[str, ...] = ()
    there: frozenset[str] = frozenset("abc")
    asked: list[str] = field(default_factory=list)

    def ask(self, question: Question) -> Told:
        self.asked.append(question.id)
        answer = self.answers[question.id]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ranks(self, question: Question, matches: Matches) -> Ranks:
        rank = rank_of([found(name) for name in self.deep], matches)
        return Ranks(1000, rank, rank, None)

    def text(self, document_id: str, version: int) -> str | None:
        return TEXTS.get(document_id.removeprefix("doc_"))

    def holds(self, document: str) -> bool:
        return document in self.there


WHO = Question("who", "Who led the Normans?", "en", ("Rollo",), gold=(Gold("a"),), evidence=(Evidence("Rollo", "a"),))


def judged(question: Question, said: Told, **subject: Any) -> Record:
    return judge(question, said, Scripted(**subject), dataset="set")


# ── judging one question ──────────────────────────────────────────────────────────────────────


def test_a_right_answer_has_every_measure_and_no_failure() -> None:
    text = "Rollo led the Normans."
    said = replace(told("b", "a", text=text, citations=(cited("a", text),)), first=text, sentences=1)
    record = judged(WHO, said)
    assert record.failure is None
    assert record.measures == {
        "refused": 0.0,
        "hit@1": 0.0,
        "hit@5": 1.0,
        "hit@10": 1.0,
        "mrr@10": 0.5,
        "ndcg@10": 0.6309,
        "all_gold@10": 1.0,
        "contains_gold": 1.0,
        "first_contains_gold": 1.0,
        "sentences": 1.0,
        "characters": 22.0,
        "short_answers": 0.0,
        "exact_match": 0.0,
        "f1": 0.5,  # rollo, of rollo led normans
        "exact_quote": 1.0,
        "citation_precision": 1.0,
        "citation_recall": 1.0,
        "cited_gold": 1.0,
        "evidence_overlap": 1.0,
    }
    assert [hit["gold"] for hit in record.hits] == [False, True]


def test_a_short_answer_is_what_is_compared_exactly_and_is_measured_by_itself_too() -> None:
    said = replace(told("a", text="Rollo led the Normans.", citations=(cited("a", "Rollo led"),)), short="Rollo")
    measures = judged(WHO, said).measures
    assert (measures["exact_match"], measures["f1"]) == (1.0, 1.0)
    assert (measures["short_answers"], measures["short_exact_match"], measures["short_f1"]) == (1.0, 1.0, 1.0)
    wrong = judged(WHO, replace(said, short="Normans")).measures
    assert (wrong["contains_gold"], wrong["exact_match"], wrong["short_exact_match"]) == (1.0, 0.0, 0.0)


def test_a_quote_that_is_not_the_stored_text_is_told() -> None:
    wrong = replace(cited("a", "Rollo"), quote="Rolf ")
    record = judged(WHO, told("a", text="Rollo", citations=(wrong,)))
    assert record.measures["exact_quote"] == 0.0
    nothing = judged(WHO, told("a", text="Rollo"))
    assert nothing.measures["exact_quote"] == nothing.measures["citation_precision"] == 0.0
    assert nothing.failure == "wrong_citation"


def test_evidence_overlaps_where_it_stands_and_not_where_the_same_words_stand_elsewhere() -> None:
    question = replace(WHO, evidence=(Evidence("He died early.", "b"),), gold=(Gold("b"),), answers=("Drogo",))
    beside = told("b", text="Drogo", citations=(cited("b", "Drogo ruled in Apulia."),))
    assert judged(question, beside).measures["evidence_overlap"] == 0.0
    on_it = told("b", text="Drogo", citations=(cited("b", "died"),))
    assert judged(question, on_it).measures["evidence_overlap"] == 1.0


def test_citations_count_places_where_more_than_one_is_needed() -> None:
    both = replace(WHO, gold=(Gold("a"), Gold("b")), evidence=())
    said = told("a", "b", text="Rollo", citations=(cited("a", "Rollo"), cited("c", "Nothing")))
    record = judged(both, said)
    assert (record.measures["citation_precision"], record.measures["citation_recall"]) == (0.5, 0.5)
    either = judged(replace(both, any_gold=True), told("a", text="Rollo", citations=(cited("a", "Rollo"),)))
    assert either.measures["citation_recall"] == either.measures["all_gold@10"] == either.measures["ndcg@10"] == 1.0


def test_the_right_document_on_the_wrong_page_is_wrong() -> None:
    on_page = replace(WHO, gold=(Gold("a", 6),))
    hits = (found("a", page_number=5), found("a", page_number=6))
    record = judged(on_page, replace(told(text="Rollo", citations=(cited("a", "Rollo"),)), hits=hits))
    assert record.measures["mrr@10"] == 0.5
    assert record.measures["cited_gold"] == record.measures["cited_page"] == 0.0
    assert record.measures["cited_document"] == 1.0
    right = judged(on_page, told(text="Rollo", citations=(replace(cited("a", "Rollo"), page=6),)))
    assert right.measures["cited_page"] == right.measures["cited_gold"] == 1.0


def test_where_passages_contradict_each_other_an_answer_is_misled_or_tells_both() -> None:
    doubted = replace(WHO, fakes=("Drogo",))
    for text, misled, both in (("Rollo.", 0.0, 0.0), ("Drogo.", 1.0, 0.0), ("Rollo, or Drogo.", 0.0, 1.0)):
        record = judged(doubted, told("a", text=text, citations=(cited("a", "Rollo"),)))
        assert (record.measures["misled"], record.measures["both_sides"]) == (misled, both), text
    assert judged(doubted, told("a", refused=True)).measures["misled"] == 0.0


def test_known_records_are_not_asked_again() -> None:
    subject = Scripted({"who": told("a"), "next": told("b")})
    known = run(Dataset("set", (WHO,)), subject)
    subject.asked.clear()
    records = run(Dataset("set", (WHO, replace(WHO, id="next"))), subject, known={"who": known[0]})
    assert subject.asked == ["next", "next"], "the first once more, unmeasured"
    assert records[0] is known[0]
    subject.asked.clear()
    assert run(Dataset("set", (WHO,)), subject, known={"who": known[0]}) == known
    assert subject.asked == []


# ── why it failed ─────────────────────────────────────────────────────────────────────────────


def test_every_failure_has_its_class() -> None:
    right = (cited("a", "Rollo"),)
    far = tuple("c" * 12)
    nobody = Question("nobody", "Who?", "en", answerable=False)
    found_classes = {
        judged(WHO, told("c", refused=True), there=frozenset("c")).failure,
        judged(WHO, told("c", text="Drogo", citations=(cited("b", "Drogo"),)), deep=()).failure,
        judged(WHO, told("c", refused=True), deep=(*far, "a")).failure,
        judged(WHO, told(*"ccccccca", refused=True)).failure,
        judged(WHO, told("a", refused=True)).failure,
        judged(WHO, told("a", text="Drogo", citations=right)).failure,
        judged(WHO, told("a", text="Rollo", citations=(cited("b", "Drogo"),))).failure,
        judged(nobody, told("a", text="Rollo", citations=right)).failure,
        *(record.failure for record in run(Dataset("set", (WHO,)), Scripted({"who": Unavailable("Gone.")}))),
    }
    assert found_classes == set(MEANING)


def test_the_first_step_that_lost_it_is_the_class() -> None:
    def why(**changes: Any) -> str | None:
        usual: dict[str, Any] = {
            "answerable": True,
            "refused": True,
            "right": False,
            "cited": False,
            "any_gold": False,
            "there": [True],
            "fused": [None],
            "shown": 5,
            "ranks": Ranks(1000),
        }
        return classify(**{**usual, **changes})

    assert why(there=[False]) == "gold_absent"
    assert why() == "not_found"
    assert why(ranks=Ranks(1000, 300, vectors=61, terms=None)) == "not_found"
    assert why(ranks=Ranks(1000, 300, vectors=200, terms=60)) == "lost_in_fusion"
    assert why(ranks=Ranks(50, 40)) == "lost_in_fusion", "a service shows what came up, and no arm's rank"
    assert why(fused=[11], ranks=Ranks(1000, 11, 3, None)) == "lost_in_fusion"
    assert why(fused=[6]) == "lost_in_packing"
    assert why(fused=[5]) == "false_refusal"
    assert why(fused=[5], refused=False) == "wrong_answer"
    assert why(fused=[5], refused=False, right=True) == "wrong_citation"
    assert why(fused=[None], refused=False, right=True, cited=True) is None, "right is right, however it came about"
    assert why(there=[True, False], fused=[1, None], any_gold=True) == "false_refusal"
    assert why(there=[], fused=[]) == "false_refusal", "nobody said where the answer stands"
    assert why(there=[], fused=[], refused=False, right=None, cited=None) is None
    assert why(answerable=False) is None
    assert why(answerable=False, refused=False) == "false_answer"


def test_what_the_classes_know_of_retrieval_is_what_it_does() -> None:
    assert CANDIDATES == rag.retrieval.retrieve._CANDIDATES
    assert 2 * DEPTH <= rag.retrieval.retrieve._CANDIDATES, "deeper, and each arm would be asked for more"
    assert EXTRACTED_FROM == rag.answering.extract._PASSAGES


# ── a run ─────────────────────────────────────────────────────────────────────────────────────


def test_a_question_that_fails_stops_nothing_and_is_not_the_first_one_to_be_timed() -> None:
    nobody = Question("nobody", "Who?", "en", answerable=False)
    answers: dict[str, Told | Exception] = {"who": NotFound("Gone."), "nobody": told("c", refused=True)}
    subject = Scripted(answers)
    seen: list[str] = []
    records = run(Dataset("set", (WHO, nobody)), subject, asked=lambda record: seen.append(record.id))
    assert subject.asked == ["who", "who", "nobody"], "the first is asked once to warm up"
    assert seen == ["who", "nobody"]
    assert [record.failure for record in records] == ["error", None]
    assert records[0].measures["hit@10"] == records[0].measures["contains_gold"] == 0.0
    assert "Gone." in records[0].reason


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path)
    yield bases
    bases.close()


def test_a_knowledge_base_is_asked_and_looked_into(bases: Bases) -> None:
    base = bases.open()
    collection, source = source_in(base)
    for key, text in TEXTS.items():
        publish_text(base, collection, source, key, text)
    subject = AssistantSubject(base, Assistant(base, model=None), "notes", 8)
    question = replace(WHO, gold=(Gold("files/a"),), evidence=(Evidence("Rollo", "files/a"),))
    nobody = Question("nobody", "Which harbour exports quartz to Lisbon?", "en", answerable=False)
    records = run(Dataset("notes", (question, nobody)), subject)
    assert [record.failure for record in records] == [None, None]
    assert records[0].measures["hit@1"] == records[0].measures["exact_quote"] == 1.0
    assert records[0].measures["evidence_overlap"] == 1.0
    yes, no = reports.evidence_of(records)
    assert yes[0] > no[0]
    assert subject.holds("files/a")
    assert not subject.holds("files/z")
    ranks = subject.ranks(question, lambda hit: hit.uri == "files/a")
    assert (ranks.fused, ranks.terms, ranks.vectors) == (1, 1, 1)
    hit = records[0].hits[0]
    stored = subject.text(hit["document_id"], 1)
    assert stored == TEXTS["a"]
    assert subject.text("doc_unknown", 1) is None


# ── the report ────────────────────────────────────────────────────────────────────────────────


def _records(*, right: int = 30, dataset: str = "set", language: str = "en", refuses: int = 8) -> list[Record]:
    """Forty questions with an answer, of which so many are right, and ten without, of which so many are refused."""
    good = told("a", text="Rollo", citations=(cited("a", "Rollo"),))
    wrong = told("c", "b", text="Drogo", citations=(cited("b", "Drogo"),))
    nobody = Question("nobody", "Who <b>else</b>?", language, answerable=False, kind="out_of_corpus")
    other = replace(nobody, kind="adversarial")
    records = [judged(replace(WHO, language=language), good if n < right else wrong) for n in range(40)]
    for n in range(10):
        asked = nobody if n % 2 else other
        records.append(judged(asked, told("c", refused=True) if n < refuses else good))
    return [replace(record, id=str(n), dataset=dataset) for n, record in enumerate(records)]


def _report(records: list[Record]) -> Report:
    about = {"name": "set", "documents": 3, "questions": 50, "answerable": 40}
    return Report({"at": "2026-11-20T12:00:00+00:00", "seed": 0}, [about], summarise(records, seed=0), records)


def test_figures_are_of_one_dataset_and_one_language_and_never_a_mean_over_them() -> None:
    records = [*_records(), *_records(right=10, language="zh"), *_records(right=40, dataset="other")]
    groups = summarise(records, seed=0)
    assert [(group.dataset, group.language) for group in groups] == [("set", "en"), ("set", "zh"), ("other", "en")]
    assert [group.metrics["contains_gold"].value for group in groups] == [0.75, 0.25, 1.0]
    first = groups[0]
    assert (first.questions, first.answerable) == (50, 40)
    assert first.metrics["contains_gold"].n == 40
    assert first.metrics["refusal_rate"].value == 0.8
    assert first.metrics["refusal_rate:out_of_corpus"].value == first.metrics["refusal_rate:adversarial"].value == 0.8
    assert first.metrics["false_refusal_rate"].value == 0.0
    assert first.metrics["evidence_auroc"].value == 0.9, "eight of ten have .1 instead of the .8 of all others"
    assert first.metrics["latency_p50_ms"].value == 12.0
    assert first.failures == {"not_found": 10, "false_answer": 2}
    assert first.metrics["contains_gold"].low < 0.75 < first.metrics["contains_gold"].high


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    report = _report(_records())
    reports.save(report, tmp_path / "report.json")
    assert reports.load(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    "content", ["[]", '{"schema": "attest-eval/0"}', '{"schema": "attest-eval/1", "made": {}}', "x"]
)
def test_what_is_no_report_is_refused_before_the_work(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(InvalidInput):
        reports.load(tmp_path / "report.json")
    with pytest.raises(NotFound):
        reports.load(tmp_path / "none.json")


def test_a_baseline_of_an_older_version_is_compared_without_what_meant_something_else(tmp_path: Path) -> None:
    report = _report(_records())
    assert any("f1" in record.measures for record in report.questions)
    content = {**reports.to_json(report), "schema": "attest-eval/1"}
    (tmp_path / "report.json").write_text(json.dumps(content), encoding="utf-8")
    comparison = compare(reports.load(tmp_path / "report.json"), report)
    compared = {change.metric for change in comparison.changes}
    assert "contains_gold" in compared
    assert not compared & {"exact_match", "f1"}
    assert comparison.left_out == ["exact_match", "f1"]
    assert comparison.to_json()["left_out"] == ["exact_match", "f1"]
    assert compare(report, report).left_out == []
    assert "exact_match, f1" in page(replace(report, comparison=comparison.to_json()))


# ── two runs ──────────────────────────────────────────────────────────────────────────────────


def test_the_same_run_again_is_neither_better_nor_worse() -> None:
    same = compare(_report(_records()), _report(_records()))
    assert same.changes
    assert all(change.change.value == 0 and not change.worse and not change.better for change in same.changes)
    assert same.flips == []


def test_a_loss_beyond_chance_and_tolerance_is_worse_and_names_its_questions() -> None:
    comparison = compare(_report(_records()), _report(_records(right=20)))
    worse = {change.metric for change in comparison.worse}
    assert {"hit@10", "contains_gold", "cited_gold"} <= worse
    assert not {"refusal_rate", "latency_p50_ms"} & worse
    assert [(flip.id, flip.before, flip.after) for flip in comparison.flips] == [
        (str(n), None, "not_found") for n in range(20, 30)
    ]
    assert compare(_report(_records(right=20)), _report(_records())).worse == []


def test_a_loss_within_the_tolerance_or_chance_is_not_called_one() -> None:
    one_lost = _report(_records(right=29))
    assert compare(_report(_records()), one_lost).worse == [], "one of forty may be chance"
    assert compare(_report(_records()), _report(_records(right=20)), tolerance=0.5).worse == []


def test_fewer_false_refusals_are_better() -> None:
    refused = [
        replace(record, refused=True, measures={**record.measures, "refused": 1.0}) if number < 15 else record
        for number, record in enumerate(_records())
    ]
    more = compare(_report(_records()), _report(refused))
    assert [change.metric for change in more.worse] == ["false_refusal_rate"]
    fewer = compare(_report(refused), _report(_records()))
    assert [change.metric for change in fewer.changes if change.better] == ["false_refusal_rate"]


def test_what_was_not_measured_has_not_passed() -> None:
    baseline = _report([*_records(), *_records(dataset="other")])
    with pytest.raises(InvalidInput, match=r"measured on other \(en\), and this run asked none"):
        compare(baseline, _report(_records()))


def test_only_questions_that_both_runs_asked_are_compared() -> None:
    part = [record for record in _records(right=30) if int(record.id) % 2]
    comparison = compare(_report(_records()), _report(part))
    hits = next(change for change in comparison.changes if change.metric == "hit@10")
    assert (hits.change.n, hits.change.value) == (20, 0.0)


# ── the page ──────────────────────────────────────────────────────────────────────────────────


class _Checked(HTMLParser):
    """Elements that load something from elsewhere, and the tags that are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.outside += [f"{tag} {name}" for name, _ in attributes if name in ("src", "href")]
        if tag not in ("meta", "br", "input", "th", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "th":
            assert self.open.pop() == tag, tag


def test_the_page_needs_nothing_from_elsewhere_and_is_well_formed() -> None:
    report = _report(_records(right=20))
    report = replace(report, comparison=compare(_report(_records()), report).to_json())
    html = page(report)
    checked = _Checked()
    checked.feed(html)
    assert checked.outside == checked.open == []
    assert "http" not in html
    assert "Who &lt;b&gt;else" in html
    assert "<b>else</b>" not in html
    assert html.count('<details class="question"') == 22
    for svg in html.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + svg.split("</svg>")[0] + "</svg>")


def test_every_failure_is_on_the_page_with_what_was_found_and_can_be_picked_by_its_class() -> None:
    html = page(_report(_records()))
    assert '<option value="not_found">' in html
    assert 'data-failure="not_found" data-dataset="set"' in html
    assert "Drogo ruled in Apulia." in html
    assert escape(MEANING["not_found"]) in html
    assert page(_report(_records(right=40, refuses=10))).count("<option") == 0


def test_a_report_is_json_through_and_through() -> None:
    assert json.loads(json.dumps(reports.to_json(_report(_records()))))["schema"] == "attest-eval/2"
