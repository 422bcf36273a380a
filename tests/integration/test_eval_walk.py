"""`attest eval` as a person meets it: real processes, the real embedder, the running service, real data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from quality import datasets
from quality.report import load
from tests.integration.test_cli_walk import serving

ROOT = Path(__file__).parents[2]
FOLDER = os.environ.get("ATTEST_EVAL_DATA")
real_model = [pytest.mark.models, pytest.mark.slow]
evaluation_pack = [
    pytest.mark.eval_data,
    pytest.mark.skipif(not FOLDER, reason="ATTEST_EVAL_DATA names no folder with the evaluation pack"),
]

TEXTS = {
    "warranty.md": "# Warranty\n\nThe TL-1207 data logger has a warranty of three years from the day of delivery.",
    "office.md": "# Office\n\nThe Rotterdam office is open from 8:30 to 17:30 on weekdays.",
    "夜班.md": "# 夜班\n\n夜班津贴为每班 58 元，次月发放。",
}
QUESTIONS: list[dict[str, Any]] = [
    {
        "id": "w",
        "question": "How long is the warranty of the TL-1207?",
        "answers": ["three years"],
        "documents": ["warranty.md"],
    },
    {
        "id": "o",
        "question": "When is the Rotterdam office open?",
        "answers": ["8:30 to 17:30"],
        "documents": ["office.md"],
    },
    {"id": "n", "question": "夜班津贴是多少？", "answers": ["58 元"], "documents": ["夜班.md"]},
    {"id": "u", "question": "Who won the chess championship in Reykjavik?", "unanswerable": True},
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    allowed = {"ATTEST_ALLOWED_ROOTS": str(tmp_path), "ATTEST_DATA_DIR": str(tmp_path / "data")}
    return clean | allowed | {"PYTHONPATH": str(ROOT)}


def attest(*arguments: str | Path, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


class TestWithTheRealEmbedder:
    pytestmark = real_model

    def test_a_collection_is_measured_through_the_running_service_and_a_gate_sees_what_it_lost(
        self, environment: dict[str, str], tmp_path: Path
    ) -> None:
        folder = tmp_path / "manuals"
        folder.mkdir()
        for name, text in TEXTS.items():
            (folder / name).write_text(text, "utf-8")
        questions = tmp_path / "questions.jsonl"
        questions.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in QUESTIONS), "utf-8")

        def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
            return attest(*arguments, environment=environment, cwd=tmp_path)

        with serving(environment, tmp_path) as (_, _, log):
            added = run("sources", "add", "manuals", "--folder", "manuals")
            assert added.returncode == 0, added.stderr
            measured = run("eval", "questions.jsonl", "--out", "before")
            assert measured.returncode == 0, measured.stderr
            assert log.read_text().count("POST /v1/ask") >= len(QUESTIONS), "it went through the service"
            same = run("eval", "questions.jsonl", "--gate", "before/report.json")
            assert same.returncode == 0, same.stderr

            (folder / "warranty.md").unlink()
            (folder / "office.md").unlink()
            assert run("sync", "--allow-deletes").returncode == 0
            lost = run("eval", "questions.jsonl", "--gate", "before/report.json", "--out", "after")
            assert lost.returncode == 5, lost.stdout + lost.stderr
            assert "Worse: hit@1 of questions (en), 1.000 → 0.000" in lost.stderr

        before, after = (load(tmp_path / name / "report.json") for name in ("before", "after"))
        assert [record.failure for record in before.questions] == [None, None, None, None]
        assert [record.failure for record in after.questions] == ["gold_absent", "gold_absent", None, None]
        assert (tmp_path / "after" / "report.html").stat().st_size > 5_000

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_a_run_that_is_broken_off_is_resumed_and_asks_nothing_twice(
        self, environment: dict[str, str], tmp_path: Path, how: signal.Signals
    ) -> None:
        folder, out = tmp_path / "shelf", tmp_path / "out"
        rooms = range(1, 61)
        corpus = [{"doc_id": f"r{n}", "text": f"Room {n} of the depot is kept by clerk {n * 7}."} for n in rooms]
        asked = [
            {"qid": f"q{n}", "question": f"Who keeps room {n} of the depot?", "gold_doc_ids": [f"r{n}"]} for n in rooms
        ]
        folder.mkdir()
        for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", asked)):
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        command = ("eval", folder, "--cache", tmp_path / "cache", "--out", out)
        records = out / "records.jsonl"
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may ignore it by birth
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *map(str, command)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
        )
        with process:
            while process.poll() is None and (not records.exists() or records.read_bytes().count(b"\n") < 6):
                time.sleep(0.01)
            process.send_signal(how)
            _, told = process.communicate(timeout=120)
        before = records.read_bytes().count(b"\n") - 1  # without the first line, which says what the run is
        assert 5 <= before < len(asked), told
        assert process.returncode == (130 if how == signal.SIGINT else -how), told
        if how == signal.SIGINT:
            part = load(out / "report.json")
            assert (len(part.questions), part.made["complete"]) == (before, False)
        else:
            assert not (out / "report.json").exists()

        resumed = attest(*command, "--resume", environment=environment, cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
        whole = load(out / "report.json")
        assert [record.id for record in whole.questions] == [row["qid"] for row in asked]
        assert whole.made["complete"]
        assert not records.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("squad_en", "cmrc_zh", "drcd_zh_hant", "xquad_en", "xquad_zh", "expmrc_en", "expmrc_zh"),
        *("hotpotqa_en", "musique_en", "multihoprag_en", "crud_zh_news", "rgb"),
    ],
)
class TestOnTheEvaluationPack:
    pytestmark = evaluation_pack

    def test_every_set_is_read_and_its_gold_documents_are_there(self, name: str) -> None:
        found = datasets.open_dataset(Path(FOLDER or "") / name)
        assert found
        for dataset in found:
            there = {document.id for document in dataset.documents or ()}
            assert dataset.questions, dataset.name
            assert {gold.document for question in dataset.questions for gold in question.gold} <= there
            assert all(question.gold or not question.answerable for question in dataset.questions)

    def test_documents_can_be_taken_out_of_every_set(self, name: str) -> None:
        for dataset in datasets.open_dataset(Path(FOLDER or "") / name):
            if not any(question.answerable for question in dataset.questions):
                continue
            part = datasets.hold_out(dataset, 0.2, seed=0)
            kinds = Counter(question.kind for question in part.questions if not question.answerable)
            assert kinds["held_out"] > 0, dataset.name
            assert any(question.answerable for question in part.questions), dataset.name


class TestWholeEvaluationPack:
    pytestmark = evaluation_pack

    def test_what_is_no_set_of_texts_is_asked_of_a_collection_and_names_its_places(self) -> None:
        """Files, pages and tables, which real readers have to read first."""
        found = {
            name: datasets.open_dataset(Path(FOLDER or "") / name) for name in ("financebench", "pdf", "html", "db")
        }
        asked = {name: sets[0] for name, sets in found.items()}
        assert all(dataset.documents is None and dataset.name == name for name, dataset in asked.items())
        for name in ("financebench", "pdf"):
            answerable = [question for question in asked[name].questions if question.answerable]
            assert all(gold.page for question in answerable for gold in question.gold), name
            assert all(gold.document.endswith(".pdf") for question in answerable for gold in question.gold), name
        assert all(question.gold for question in asked["html"].questions if question.answerable)
        assert {question.kind for question in asked["db"].questions} >= {"lookup", "join", "aggregate"}

    def test_in_the_pool_no_text_is_there_twice_and_every_gold_document_is_there(self) -> None:
        folder = Path(FOLDER or "")
        names = ("squad_en", "cmrc_zh", "xquad_en", "xquad_zh", "expmrc_en", "expmrc_zh", "drcd_zh_hant")
        separate = [one for name in names for one in datasets.open_dataset(folder / name)]
        pool = datasets.pooled(separate, datasets.read_aliases(folder / "pool_aliases.json"))
        (documents,) = {dataset.documents for dataset in pool}
        assert documents is not None
        texts = Counter(document.text.strip() for document in documents)
        assert [text for text, count in texts.items() if count > 1] == []
        there = {document.id for document in documents}
        for dataset, before in zip(pool, separate, strict=True):
            assert len(dataset.questions) == len(before.questions)
            assert {gold.document for question in dataset.questions for gold in question.gold} <= there, dataset.name


class TestMeasuredOnTheEvaluationPack:
    pytestmark = real_model + evaluation_pack

    def test_chinese_passages_are_found_and_every_quote_is_exact(
        self, environment: dict[str, str], tmp_path: Path
    ) -> None:
        """Floors far below today's figures (docs/quality.md): this holds that measuring works, not how well it goes."""
        done = attest(
            *("eval", Path(FOLDER or "") / "xquad_zh", "--limit", "20", "--cache", tmp_path / "cache", "--json"),
            environment=environment,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        (group,) = json.loads(done.stdout)["groups"]
        figures = {name: figure["value"] for name, figure in group["metrics"].items()}
        assert figures["hit@5"] >= 0.8
        assert figures["exact_quote"] == 1.0
        assert figures["contains_gold"] >= 0.4
