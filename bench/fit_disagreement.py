"""Counts how often `rag.answering.disagreement` reports one, where there is one and where there is none.

    ATTEST_EVAL_DATA=… python bench/fit_disagreement.py --cache /tmp/bases

False alarms: on the answerable questions of datasets whose documents do not contradict each other. Found: on RGB's
counterfactual sets, where passages that state the answer and the same passages with another answer lie side by side;
of these questions, those whose two answers are numbers or dates. Rules were made on the even half of the questions, by
a hash of their ids. `--show` prints what is reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.eval_bases import DatasetBases
from quality.formats import read_folder
from rag import answer as answering
from rag.answering.disagreement import Conflict, conflicts
from rag.models import Hit
from rag.settings import Settings
from rag.text.duplicates import collapse
from rag.text.keywords import keywords

DATASETS = ("squad_en", "xquad_en", "multihoprag_en", "cmrc_zh", "xquad_zh", "drcd_zh_hant", "crud_zh_news")
RGB = ("en_fact", "zh_fact")
TOP_K = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTEST_EVAL_DATA"), help="ATTEST_EVAL_DATA")
    parser.add_argument("--cache", type=Path, required=True, help="knowledge bases, made where they are missing")
    parser.add_argument("--show", action="store_true", help="what is reported on the even half, or is not found")
    parser.add_argument("names", nargs="*", default=[*DATASETS, *RGB])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data is: --data or ATTEST_EVAL_DATA")
    bases = DatasetBases(arguments.cache, Settings(_env_file=None))  # type: ignore[call-arg]
    for name in arguments.names:
        if name in RGB:
            _rgb(arguments.data / "rgb" / f"{name}.jsonl", show=arguments.show)
        else:
            _alarms(arguments.data, name, bases, show=arguments.show)


def _half(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2


def _alarms(data: Path, name: str, bases: DatasetBases, *, show: bool) -> None:
    (dataset,) = (one for one in read_folder(data / name) if one.name == name)
    counts, seconds = {0: [0, 0], 1: [0, 0]}, 0.0
    with bases.open(dataset) as subject:
        for question in (one for one in dataset.questions if one.answerable):
            found = subject.assistant.search(answering.Question(question.text, top_k=TOP_K))
            began = time.process_time()
            reported = conflicts(question.text, found.hits, found.keywords)
            seconds += time.process_time() - began
            half = _half(question.id)
            counts[half][0] += 1
            counts[half][1] += bool(reported)
            if show and half == 0:
                _show(question.text, reported)
    _say(name, "false alarms", counts)
    asked = sum(count for count, _ in counts.values())
    sys.stdout.write(f"{name}: {1000 * seconds / max(1, asked):.2f} ms a question\n")


def _rgb(path: Path, *, show: bool) -> None:
    found, alone = {0: [0, 0], 1: [0, 0]}, {0: [0, 0], 1: [0, 0]}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        if not row.get("positive_wrong"):
            continue
        question, half = row["query" if "query" in row else "question"], _half(str(row.get("qid", row.get("id"))))
        words = keywords(question, lambda terms: [1.0] * len(terms))
        right = collapse(list(_hits(row["positive"], 0)), k=TOP_K)
        reported = conflicts(question, right, words)
        alone[half][0] += 1
        alone[half][1] += bool(reported)
        if show and half == 0 and reported:
            sys.stdout.write("ALONE ")
            _show(question, reported)
        if not (_is_value(row["answer" if "answer" in row else "answers"]) and _is_value(row["fake_answer"])):
            continue
        pairs = zip(_hits(row["positive"], 0), _hits(row["positive_wrong"], 100), strict=False)
        reported = conflicts(question, collapse([hit for pair in pairs for hit in pair], k=TOP_K), words)
        found[half][0] += 1
        found[half][1] += bool(reported)
        if show and half == 0:
            sys.stdout.write(f"{'FOUND' if reported else 'MISSED'} {question} {row['fake_answer']}\n")
            _show(question, reported)
    _say(path.stem, "found", found)
    _say(path.stem, "reported without the false passages", alone)


def _is_value(answer: object) -> bool:
    return any(character.isdigit() for character in str(answer))


def _hits(texts: Sequence[str], first: int) -> Iterator[Hit]:
    for key, text in enumerate(texts, first):
        yield Hit(key, "c", f"d{key}", 1, "", "", (), 0, len(text), text, "", 0, 1.0 - (key % 100) / 100, {})


def _say(name: str, what: str, counts: dict[int, list[int]]) -> None:
    for half, (asked, reported) in counts.items():
        share = reported / asked if asked else 0.0
        sys.stdout.write(f"{name} {'odd' if half else 'even'}: {what} {reported} of {asked} ({share:.1%})\n")
    sys.stdout.flush()


def _show(question: str, reported: Sequence[Conflict]) -> None:
    for conflict in reported:
        sys.stdout.write(f"  {question}\n  about: {conflict.about}\n")
        for statement in conflict.statements:
            sys.stdout.write(f"    {statement.value}: {statement.text}   «{statement.hit.title}»\n")


if __name__ == "__main__":
    main()
