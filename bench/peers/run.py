"""Attest's retrieval beside that of LangChain's and LlamaIndex's default pipelines: the same documents, questions and
embedder (all-MiniLM-L6-v2, the same weights), the same measures, differences in pairs.

    python bench/peers/run.py DATASET … [--out FOLDER] [--limit 500]

Each peer has a virtual environment of its own, made from requirements-*.txt beside this file the first time. Every
document is a text file of its title, an empty line and its text, so that all of them read the same. What a peer found
is kept in --out and not asked again. Without a language model the peers answer nothing: only retrieval is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.eval_bases import DatasetBases
from quality import datasets
from quality.compare import Change, compare
from quality.models import Dataset, Found, Question, Ranks, Told
from quality.report import Group, Report, summarise
from quality.run import Record, judge
from quality.subject import AssistantSubject, Matches
from rag import answer as answering
from rag.settings import Settings

HERE = Path(__file__).parent
PEERS = {"langchain": "LangChain", "llamaindex": "LlamaIndex"}
OURS = "Attest"
SHOWN = ("hit@1", "hit@5", "ndcg@10")
RETRIEVAL = ("hit@1", "hit@5", "hit@10", "mrr@10", "ndcg@10", "all_gold@10")
COMPARED = "ndcg@10"
DEPTH = 10
FALSE = ("-counterfactual", "-contradicted")  # RGB's sets for answers: finding a false passage is no merit


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    found = [one for path in options.datasets for one in datasets.open_dataset(path)]
    chosen = [datasets.sample(_answerable(one), options.limit, seed=0) for one in found]
    chosen = [one for one in chosen if one.questions and not one.name.endswith(FALSE)]
    reports = {OURS: _asked_ours(chosen, options.cache)}
    for peer, name in PEERS.items():
        python = environment(peer, options.environments, torch_index=options.torch_index)
        reports[name] = _report([_asked_peer(peer, python, dataset, options.out) for dataset in chosen])
    sys.stdout.write(table(reports) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="As attest eval takes them.")
    parser.add_argument("--limit", type=int, default=500, help="Questions of each dataset.")
    parser.add_argument("--out", type=Path, default=Path("peers"), help="What the peers found, and what they read.")
    parser.add_argument("--environments", type=Path, default=HERE / ".venvs", help="Where the peers are installed.")
    parser.add_argument("--torch-index", help="Another package index for torch: a CPU build, a certain CUDA.")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "attest" / "eval")
    return parser.parse_args()


def _answerable(dataset: Dataset) -> Dataset:
    return replace(dataset, questions=tuple(one for one in dataset.questions if one.answerable and one.gold))


def environment(peer: str, folder: Path, *, torch_index: str | None) -> Path:
    """Its Python. Made where it is not there."""
    python = folder.absolute() / peer / "bin" / "python"
    if not python.exists():
        sys.stderr.write(f"Installing {PEERS.get(peer, peer)}: some 2.5 GB." + "\n")
        subprocess.run([sys.executable, "-m", "venv", str(folder / peer)], check=True)  # noqa: S603
        wanted = HERE / f"requirements-{peer}.txt"
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if torch_index:
            torch = next(line for line in wanted.read_text("utf-8").splitlines() if line.startswith("torch=="))
            subprocess.run([*pip, "--index-url", torch_index, torch], check=True)  # noqa: S603
        subprocess.run([*pip, "-r", str(wanted)], check=True)  # noqa: S603
    return python


# ── asking ────────────────────────────────────────────────────────────────────────────────────


def _asked_ours(chosen: Sequence[Dataset], cache: Path) -> Report:
    bases = DatasetBases(cache, Settings(_env_file=None))
    records: list[Record] = []
    for dataset in chosen:
        sys.stderr.write(f"{OURS}: {dataset.name}" + "\n")
        with bases.open(dataset) as subject:
            ours = _Searched(subject)
            records += [
                _of_retrieval(judge(one, ours.ask(one), ours, dataset=dataset.name)) for one in dataset.questions
            ]
    return _report([records])


def _asked_peer(peer: str, python: Path, dataset: Dataset, out: Path) -> list[Record]:
    folder = out / "documents" / dataset.name
    names = _written(dataset, folder)
    hits = out / f"{peer}-{dataset.name}.jsonl"
    told = _told(hits)
    if told.keys() != {question.id for question in dataset.questions}:
        sys.stderr.write(f"{PEERS[peer]}: {dataset.name}" + "\n")
        questions = out / f"questions-{dataset.name}.jsonl"
        lines = (json.dumps({"id": one.id, "text": one.text}, ensure_ascii=False) for one in dataset.questions)
        questions.write_text("\n".join(lines) + "\n", "utf-8")
        command = [str(python), str(HERE / f"ask_{peer}.py"), str(folder), str(questions), str(hits)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        subprocess.run(command, check=True, env=clean)  # noqa: S603
        told = _told(hits)
    subject = _Replayed(told, names)
    return [_of_retrieval(judge(one, subject.ask(one), subject, dataset=dataset.name)) for one in dataset.questions]


def _of_retrieval(record: Record) -> Record:
    return replace(record, measures={"refused": 0.0} | {name: record.measures[name] for name in RETRIEVAL})


def _written(dataset: Dataset, folder: Path) -> dict[str, str]:
    """The documents as files. Returns file name → id of the document."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for number, document in enumerate(dataset.documents or ()):
        names[f"{number}.txt"] = document.id
        text = f"{document.title}\n\n{document.text}" if document.title else document.text
        (folder / f"{number}.txt").write_bytes(text.encode("utf-8", "replace"))
    return names


def _told(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    return {row["id"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())}


class _OnlyFound:
    """What `quality` asks, where it is not asked for an answer and looks no deeper than ten passages."""

    def ranks(self, question: Question, matches: Matches) -> Ranks:  # noqa: ARG002  # the port's
        return Ranks(DEPTH)

    def text(self, document_id: str, version: int) -> str | None:  # noqa: ARG002  # the port's
        return None

    def holds(self, document: str) -> bool:  # noqa: ARG002  # the port's
        return True


@dataclass(frozen=True)
class _Searched(_OnlyFound):
    """Attest's search, without the answer that it would be the beginning of."""

    subject: AssistantSubject

    def ask(self, question: Question) -> Told:
        asked = answering.Question(question.text, (self.subject.collection,), top_k=DEPTH)
        return _told_of(
            {hit.uri, *(also.uri for also in hit.also)} for hit in self.subject.assistant.search(asked).hits
        )


@dataclass(frozen=True)
class _Replayed(_OnlyFound):
    """What a peer found."""

    told: dict[str, dict[str, Any]]
    names: dict[str, str]

    def ask(self, question: Question) -> Told:
        return _told_of({self.names[name]} for name in self.told[question.id]["hits"])


def _told_of(passages: Iterable[set[str]]) -> Told:
    """Of each passage, best first, the documents in which it stands."""
    hits = tuple(Found("", 1, frozenset(names), "", "", 0, 0, "", 0.0) for names in passages)
    return Told(hits, "", False, "", (), None, len(hits), 0.0)


# ── showing ───────────────────────────────────────────────────────────────────────────────────


def _report(records: Sequence[Sequence[Record]]) -> Report:
    every = [record for some in records for record in some]
    return Report({}, [], summarise(every, seed=0), every)


def table(reports: dict[str, Report]) -> str:
    """Markdown: each figure, and how much nDCG@10 is ahead of each peer with its paired interval."""
    columns = [f"{name} {metric}" for name in reports for metric in SHOWN]
    ahead = [f"{OURS} − {name}, {COMPARED}" for name in reports if name != OURS]
    heads = ["Dataset", "Language", "n", *columns, *ahead]
    lines = [heads, ["---"] * len(heads)]
    groups = {name: {(one.dataset, one.language): one for one in report.groups} for name, report in reports.items()}
    changes = {name: _changes(report, reports[OURS]) for name, report in reports.items() if name != OURS}
    for key, ours in groups[OURS].items():
        values = [_shown(groups[name][key], metric) for name in reports for metric in SHOWN]
        moved = [_ahead(changes[name][key]) for name in changes]
        lines.append([key[0], key[1], str(ours.questions), *values, *moved])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _changes(peer: Report, ours: Report) -> dict[tuple[str, str], Change]:
    return {
        (one.dataset, one.language): one for one in compare(peer, ours, tolerance=0.0).changes if one.metric == COMPARED
    }


def _shown(group: Group, metric: str) -> str:
    return f"{group.metrics[metric].value:.3f}"


def _ahead(change: Change) -> str:
    return f"{change.change.value:+.3f} [{change.change.low:+.3f}, {change.change.high:+.3f}]"


if __name__ == "__main__":
    main()
