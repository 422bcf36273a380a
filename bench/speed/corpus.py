"""The same files and questions for all: public paragraphs and PDFs where there are some, else the sample corpus."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ingest.readers import registry
from ingest.readers.options import ReadOptions

CountTokens = Callable[[Sequence[str]], list[int]]
DATA = Path(__file__).parents[2] / "data"
_SETS = ("squad_en", "cmrc_zh")
PDFS = ("tracemonkey.pdf", "two_column_lorem.pdf")


@dataclass(frozen=True)
class Asked:
    text: str
    files: frozenset[str]  # where the answer stands; empty where that is not known


@dataclass(frozen=True)
class Corpus:
    name: str
    folder: Path
    questions: tuple[Asked, ...]  # no two alike, in a fixed order

    def tokens(self, count_tokens: CountTokens) -> int:
        """Of all its text, that of the PDFs as Attest reads it."""
        return sum(count_tokens([_text_of(path) for path in sorted(self.folder.iterdir())]))

    def about(self) -> dict[str, Any]:
        files = sorted(self.folder.iterdir())
        return {
            "name": self.name,
            "files": len(files),
            "pdf": sum(path.suffix == ".pdf" for path in files),
            "bytes": sum(path.stat().st_size for path in files),
            "questions": len(self.questions),
        }


def build(folder: Path, *, documents: int, evaluation: Path | None, pdfs: Sequence[str] = PDFS) -> Corpus:
    """`documents` text files, half of them English and half Chinese, and a few PDFs: those of the names, of the
    evaluation pack."""
    folder.mkdir(parents=True)
    if evaluation is None:
        name, asked = "data/ multiplied", _multiplied(folder, documents)
    else:
        name = "paragraphs of SQuAD 2.0 and CMRC 2018, PDFs"
        asked = [one for which in _SETS for one in _paragraphs(evaluation / which, folder, documents // len(_SETS))]
        for pdf in pdfs:
            shutil.copyfile(evaluation / "pdf" / "files" / pdf, folder / pdf)
    distinct = {one.text: one for one in asked}
    questions = list(distinct.values())
    random.Random(0).shuffle(questions)  # noqa: S311  # an order, no secret
    return Corpus(name, folder, tuple(questions))


def _paragraphs(dataset: Path, folder: Path, count: int) -> Iterator[Asked]:
    """Those that are asked about first."""
    questions = [row for row in _rows(dataset / "queries.jsonl") if row["answerable"]]
    wanted = dict.fromkeys(document for row in questions for document in row["gold_doc_ids"])
    texts = {row["doc_id"]: f"{row['title']}\n\n{row['text']}\n" for row in _rows(dataset / "corpus.jsonl")}
    kept = list(dict.fromkeys([*wanted, *texts]))[:count]
    names = {document: f"{dataset.name}-{number:04}.txt" for number, document in enumerate(kept)}
    for document, name in names.items():
        (folder / name).write_text(texts[document], "utf-8")
    for row in questions:
        if set(row["gold_doc_ids"]) <= names.keys():
            yield Asked(row["question"], frozenset(names[document] for document in row["gold_doc_ids"]))


def _multiplied(folder: Path, count: int) -> Iterator[Asked]:
    """Every section of the handbooks again and again, each time of another branch, so that no two texts are equal."""
    sections = [
        section
        for path in sorted((DATA / "source").glob("handbook-*.md"))
        for section in re.split(r"^(?=#)", path.read_text("utf-8"), flags=re.MULTILINE)
        if len(section) > 100
    ]
    for number in range(count):
        branch, which = divmod(number, len(sections))
        text = re.sub(r"^(?=[^\s#|])", f"Branch {branch}: ", sections[which], flags=re.MULTILINE)
        (folder / f"section-{number:04}.txt").write_text(text, "utf-8")
    for path in (DATA / "corpus").glob("*.pdf"):
        shutil.copyfile(path, folder / path.name)
    for branch in range(count // len(sections) + 1):
        for row in _rows(DATA / "eval" / "questions.jsonl"):
            yield Asked(f"Branch {branch}: {row['question']}", frozenset())


@cache
def _text_of(path: Path) -> str:
    if path.suffix != ".pdf":
        return path.read_text("utf-8")
    return registry.read(path.read_bytes(), name=path.name, media_type="application/pdf", options=ReadOptions()).text


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
