"""`attest eval`: datasets in knowledge bases of their own, collections through the service, gates."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.service import Service
from quality import run as quality_run
from quality.models import Question
from quality.questions import read_questions
from quality.report import load
from quality.run import Record
from rag.settings import Settings
from tests.fakes import HashEmbedder

Run = Callable[..., tuple[int, str, str]]

PAPERS = {
    "rollo": "Rollo led the Normans to Rouen.",
    "drogo": "Drogo ruled the county of Apulia.",
    "hours": "The harbour office of Porto opens at seven.",
    "valve": "The main valve closes at nine bar.",
    "夜班": "夜班津贴为每班58元。",
    "年假": "员工每年有二十天年假。",
}
ASKED = [
    ("q1", "Who led the Normans to Rouen?", ["Rollo"], "rollo"),
    ("q2", "Which county did Drogo rule?", ["Apulia"], "drogo"),
    ("q3", "When does the harbour office of Porto open?", ["seven"], "hours"),
    ("q4", "At what pressure does the main valve close?", ["nine bar"], "valve"),
    ("q5", "夜班津贴是多少？", ["58元"], "夜班"),
    ("q6", "员工每年有多少天年假？", ["二十天"], "年假"),
]
EMBEDDER = HashEmbedder()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process, with an embedder that loads at once: (exit code, stdout, stderr)."""
    for name in [name for name in os.environ if name.startswith("ATTEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTEST_DATA_DIR", str(tmp_path / "data"))

    def own(settings: Settings, **options: Any) -> Service:
        return Service(settings, embedder=EMBEDDER, **options)

    monkeypatch.setattr("app.service.Service", own)
    monkeypatch.setattr("app.eval_bases.open_embedder", lambda _settings: EMBEDDER)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attest", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    write(folder / "corpus.jsonl", *({"doc_id": name, "title": "", "text": text} for name, text in PAPERS.items()))
    write(
        folder / "queries.jsonl",
        *(
            {"qid": name, "question": text, "answers": answers, "gold_doc_ids": [gold]}
            for name, text, answers, gold in ASKED
        ),
    )
    write(folder / "unanswerable.jsonl", {"qid": "u", "question": "Which harbour sells quartz?", "answerable": False})
    return folder


def test_a_dataset_is_measured_by_language_and_its_knowledge_base_is_kept(
    run: Run, dataset: Path, tmp_path: Path
) -> None:
    command = ("eval", dataset, "--cache", tmp_path / "cache", "--out", tmp_path / "out")
    code, out, err = run(*command)
    assert code == 0, err
    lines = [line.split("\t") for line in out.splitlines()]
    assert ["papers", "en", "5", "1.000 [1.00, 1.00]"] in [line[:4] for line in lines]
    assert ["papers", "zh", "2", "1.000 [1.00, 1.00]"] in [line[:4] for line in lines]
    report = load(tmp_path / "out" / "report.json")
    assert [(group.language, group.questions) for group in report.groups] == [("en", 5), ("zh", 2)]
    assert report.datasets == [{"name": "papers", "documents": 6, "questions": 7, "answerable": 6}]
    assert report.made["embedder"]["identity"] == EMBEDDER.identity
    assert all(group.metrics["exact_quote"].value == 1.0 for group in report.groups)
    assert str(tmp_path) not in json.dumps(report.made), "where things lie on this machine is nobody's business"
    assert "<!doctype html>" in (tmp_path / "out" / "report.html").read_text("utf-8")

    (kept,) = (tmp_path / "cache").iterdir()
    made = (kept / "complete.json").stat().st_mtime_ns
    assert run(*command)[0] == 0
    assert (kept / "complete.json").stat().st_mtime_ns == made, "nothing was read again"
    again = load(tmp_path / "out" / "report.json")
    assert [record.measures for record in again.questions] == [record.measures for record in report.questions]

    (kept / "complete.json").unlink()  # as a kill half-way would have left it
    assert run(*command)[0] == 0
    assert (kept / "complete.json").exists()


def test_a_gate_fails_when_something_got_measurably_worse_and_says_what(
    run: Run, dataset: Path, tmp_path: Path
) -> None:
    cache, baseline = tmp_path / "cache", tmp_path / "before" / "report.json"
    assert run("eval", dataset, "--cache", cache, "--out", baseline.parent)[0] == 0
    code, _, err = run("eval", dataset, "--cache", cache, "--gate", baseline)
    assert (code, "0 of" in err) == (0, True)

    texts = [*PAPERS.values()][:4]
    swapped = PAPERS | dict(zip(PAPERS, [*texts[1:], texts[0]], strict=False))  # English texts under others' names
    write(dataset / "corpus.jsonl", *({"doc_id": name, "text": text} for name, text in swapped.items()))
    code, out, err = run("eval", dataset, "--cache", cache, "--gate", baseline, "--out", tmp_path / "after")
    assert code == 5
    assert "Worse: hit@1 of papers (en), 1.000 → 0.000" in err
    assert "papers\tzh\thit@1" not in out, "what did not move is not shown"
    assert load(tmp_path / "after" / "report.json").comparison is not None
    assert run("eval", dataset, "--cache", cache, "--compare", baseline)[0] == 0, "comparing fails nobody"


def test_a_baseline_of_other_questions_is_an_error_that_loses_no_measurement(
    run: Run, dataset: Path, tmp_path: Path
) -> None:
    cache, baseline = tmp_path / "cache", tmp_path / "before" / "report.json"
    assert run("eval", dataset, "--cache", cache, "--out", baseline.parent)[0] == 0
    baseline.write_text(baseline.read_text("utf-8").replace('"papers"', '"essays"'), "utf-8")
    code, out, err = run("eval", dataset, "--cache", cache, "--compare", baseline, "--out", tmp_path / "after")
    assert (code, "measured on essays" in err) == (1, True)
    assert "papers\ten" in out
    assert load(tmp_path / "after" / "report.json").groups


def test_a_baseline_is_read_before_the_work_and_a_bad_one_ends_it(run: Run, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    code, _, err = run("eval", dataset, "--cache", tmp_path / "cache", "--gate", tmp_path / "old.json")
    assert code == 1
    assert "cannot" in err or "can be compared" in err
    assert not (tmp_path / "cache").exists()
    assert run("eval", dataset, "--gate", "a.json", "--compare", "b.json")[0] == 2


def test_a_collection_of_ones_own_is_asked_through_the_service(run: Run, tmp_path: Path) -> None:
    for name, text in PAPERS.items():
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    assert run("documents", "add", *(tmp_path / f"{name}.txt" for name in PAPERS), "-c", "own")[0] == 0
    questions = write(
        tmp_path / "mine.jsonl",
        *(  # a file is known with its ending and without
            {"question": text, "answers": answers, "documents": [gold if name == "q2" else f"{gold}.txt"]}
            for name, text, answers, gold in ASKED
        ),
        {"question": "Which harbour sells quartz?", "unanswerable": True},
        {"question": "Who wrote the saga?", "documents": ["saga.txt"]},
    )
    code, out, err = run("eval", questions, "-c", "own", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["schema"] == "attest-eval/2"
    assert report["made"]["service"]["collection"] == "own"
    by_text = {record["question"]: record for record in report["questions"]}
    for _, text, _, gold in ASKED:
        record = by_text[text]
        assert record["measures"]["hit@1"] == record["measures"]["exact_quote"] == 1.0
        assert record["hits"][0]["uri"] == f"uploads/{gold}.txt"
        assert record["evidence"] is not None
    assert by_text["Who wrote the saga?"]["failure"] == "gold_absent"
    (english, _) = report["groups"]
    assert "evidence_auroc" in english["metrics"]

    code, out, err = run("eval", questions, "-c", "own", "--held-out", "0.5", "--cache", tmp_path / "cache", "--json")
    assert code == 0, err
    held_out = [record for record in json.loads(out)["questions"] if record["kind"] == "held_out"]
    assert len(held_out) == 3, "half of the six documents, in a copy"
    assert all(not record["answerable"] and not record["gold"] for record in held_out)
    assert run("documents", "list", "-c", "own")[1].count("uploads/") == 6, "the collection itself has all of them"


def test_mistakes_are_one_sentence_each(run: Run, dataset: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "a"}\n{"frage": "b"}\n')
    code, _, err = run("eval", bad)
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert "Line 2" in err
    assert run("eval", tmp_path / "nowhere")[0] == 1
    code, _, err = run("eval", dataset, dataset)
    assert (code, "Two datasets are called papers" in err) == (1, True)
    code, _, err = run("eval", write(tmp_path / "mine.jsonl", {"question": "a"}))
    assert (code, "no collection “default”" in err) == (1, True)


def test_two_languages_in_one_pool_and_across(run: Run, tmp_path: Path) -> None:
    for name, other, text, asked in (
        ("en", "zh", "Rollo led the Normans.", "Who led the Normans?"),
        ("zh", "en", "罗洛 (Rollo) 领导诺曼人。", "谁领导诺曼人？"),
    ):
        write(tmp_path / name / "corpus.jsonl", {"doc_id": f"{name}:1", "text": text})
        query = {"qid": f"{name}-q", "question": asked, "gold_doc_ids": [f"{name}:1"]}
        write(tmp_path / name / "queries.jsonl", {**query, "parallel_gold_doc_ids": [f"{other}:1"]})
    both = (tmp_path / "en", tmp_path / "zh", "--cache", tmp_path / "cache", "--json")
    code, out, err = run("eval", *both, "--across")
    assert code == 0, err
    assert [one["name"] for one in json.loads(out)["datasets"]] == ["en", "zh", "en → zh", "zh → en"]
    code, out, err = run("eval", *both, "--pooled")
    assert code == 0, err
    assert [(one["name"], one["documents"]) for one in json.loads(out)["datasets"]] == [
        ("en (pooled)", 2),
        ("zh (pooled)", 2),
    ]


def test_an_interrupted_run_reports_what_it_measured_and_goes_on_where_it_was(
    run: Run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, command = tmp_path / "out", ("eval", dataset, "--cache", tmp_path / "cache", "--out", tmp_path / "out")
    asked: list[str] = []

    def judge(question: Question, *others: Any, **named: Any) -> Record:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(question.id)
        return whole(question, *others, **named)

    whole = quality_run.judge
    monkeypatch.setattr(quality_run, "judge", judge)
    code, _, err = run(*command)
    assert (code, "Interrupted after 3 questions" in err) == (130, True)
    part = load(out / "report.json")
    assert ([record.id for record in part.questions], part.made["complete"]) == (["q1", "q2", "q3"], False)

    with (out / "records.jsonl").open("a") as journal:
        journal.write('{"dataset": "papers", "id": "q4", "lang')  # as a kill in the middle of a line leaves it
    code, _, err = run("eval", dataset, "--limit", 6, *command[2:], "--resume")
    assert (code, "is of another run" in err) == (1, True)
    asked.append("")  # no more interruptions
    code, _, err = run(*command, "--resume")
    assert code == 0, err
    assert asked == ["q1", "q2", "q3", "", "q4", "q5", "q6", "u"], "each was asked once"
    assert load(out / "report.json").made["complete"]
    assert not (out / "records.jsonl").exists()
    resumed = load(out / "report.json")
    assert run(*command)[0] == 0
    unbroken = load(out / "report.json")
    assert [one.measures for one in resumed.questions] == [one.measures for one in unbroken.questions]
    assert run(*command, "--resume")[0] == 1, "there is nothing to resume"
    assert run("eval", dataset, "--resume")[0] == 2


def test_what_people_said_of_answers_is_measured(run: Run, tmp_path: Path) -> None:
    for name, text in PAPERS.items():
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    assert run("documents", "add", *(tmp_path / f"{name}.txt" for name in PAPERS), "-c", "own")[0] == 0
    code, _, err = run("eval", "--feedback", "-c", "own")
    assert (code, "No feedback" in err) == (1, True)
    assert run("eval")[0] == 2
    answers = [json.loads(run("ask", text, "-c", "own", "--json")[1]) for _, text, _, _ in ASKED]
    assert not any(answer["refused"] for answer in answers)
    assert run("feedback", answers[0]["id"], "--wrong", "--expected", "Drogo")[0] == 0
    assert run("feedback", answers[0]["id"], "--right", "--expected", "Rollo")[0] == 0
    assert run("feedback", answers[4]["id"], "--right")[0] == 0
    assert run("feedback", "--wrong", answers[1]["id"])[0] == 0
    assert run("feedback", "--question", "Which harbour sells quartz?", "--expected", "Vigo", "-c", "own")[0] == 0
    assert run("feedback", answers[2]["id"])[0] == 2, "nothing was said"
    code, out, _ = run("feedback", "list", "-c", "own")
    assert (code, len(out.splitlines())) == (0, 5)
    assert run("feedback", "list", "--wrong", "--json")[1].count('"helpful": false') == 2

    mine = write(tmp_path / "mine.jsonl", {"question": "Who led the Normans?", "answers": ["Rollo"]})
    code, out, err = run("eval", mine, "--feedback", "-c", "own", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [one["name"] for one in report["datasets"]] == ["mine", "feedback"]
    asked = {record["question"]: record for record in report["questions"] if record["dataset"] == "feedback"}
    assert asked.keys() == {ASKED[0][1], ASKED[4][1], "Which harbour sells quartz?"}, (
        "one says nothing of what is right"
    )
    first, night, quartz = asked[ASKED[0][1]], asked[ASKED[4][1]], asked["Which harbour sells quartz?"]
    assert first["answers"] == ["Rollo"], "what was said last"
    assert first["measures"]["contains_gold"] == first["measures"]["cited_gold"] == 1.0
    assert night["measures"]["cited_gold"] == 1.0, "what a right answer cited is where it stands"
    assert (quartz["answers"], quartz["gold"], quartz["failure"]) == (["Vigo"], [], "false_refusal")
    assert json.loads(run("gaps", "--json")[1])["data"] == [], "what an evaluation asks is nobody's question"

    assert run("ask", "Which harbour sells quartz?", "-c", "own")[0] == 3
    (line,) = run("gaps", "--questions")[1].splitlines()
    (missing,) = read_questions(write(tmp_path / "missing.jsonl", json.loads(line)))
    assert missing.text == "Which harbour sells quartz?"

    (newest, *_) = json.loads(run("feedback", "list", "--json")[1])["data"]
    assert run("feedback", "remove", newest["id"])[0] == 0
    assert run("feedback", "remove", newest["id"])[0] == 1
