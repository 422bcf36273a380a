"""How much of the evidence that was found reaches the reader, by the tokens there are for it, and what packing costs.

    ATTEST_EVAL_DATA=… .venv/bin/python bench/context_evidence.py --cache FOLDER [--filings DATA_FOLDER]

Asks HotpotQA, MuSiQue and MultiHop-RAG of knowledge bases that are kept in the cache, and FinanceBench of a data folder
that its PDFs were read into (`attest sources add filings --folder …/financebench/pdfs`). Tokens are estimated as for a
model whose tokenizer nobody knows. Beside the present packing stands the one before it: whole hits, best first, while
they fit. Weights were fitted on the questions with an even hash; `--half` says which are shown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.eval_bases import DatasetBases
from quality.formats import read_folder
from rag.answer import Assistant, Question
from rag.catalog import versions
from rag.catalog.tables import documents
from rag.knowledge import KnowledgeBase
from rag.llm.prompts import passage_tokens
from rag.llm.window import estimate_tokens
from rag.models import Hit, Passage
from rag.retrieval.retrieve import Found
from rag.settings import Settings
from rag.text.language import sentences, terms
from rag.wiring import ready_knowledge_base

DATASETS = ("hotpotqa_en", "musique_en", "multihoprag_en")
BUDGETS = (1_000, 2_000, 4_000, 32_000)
TOP_K = 8

Row = dict[str, Any]
Range = tuple[str, int, int, int]  # document, version, start, end


@dataclass(frozen=True)
class Asked:
    """A question, what was found, and the places that prove its answer."""

    found: Found
    evidence: tuple[Range, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTEST_EVAL_DATA"), help="ATTEST_EVAL_DATA")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the datasets' knowledge bases")
    parser.add_argument("--filings", type=Path, help="data folder with FinanceBench's PDFs")
    parser.add_argument("--half", choices=["even", "odd", "all"], default="odd", help="of the questions (odd)")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data is: --data or ATTEST_EVAL_DATA")
    sys.stdout.write(
        f"| set | packing | {' | '.join(f'{one:,}' for one in BUDGETS)} | ms at {TOP_K} hits | ms at all |\n"
        f"{'| --- ' * (len(BUDGETS) + 4)}|\n"
    )
    bases = DatasetBases(arguments.cache, Settings())
    for name in DATASETS:
        rows = _rows(arguments.data / name, arguments.half)
        with bases.open(read_folder(arguments.data / name)[0]) as subject:
            _report(name, subject.base, subject.assistant, rows, _stated)
    if arguments.filings is not None:
        with ready_knowledge_base(arguments.filings) as base:
            rows = _rows(arguments.data / "financebench", arguments.half)
            _report("financebench", base, Assistant(base, model=None), rows, _on_page)


def _rows(folder: Path, half: str) -> list[Row]:
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text("utf-8").splitlines()]
    wanted = {"even": {0}, "odd": {1}, "all": {0, 1}}[half]
    return [
        row
        for row in rows
        if row.get("answerable", True)
        and row["gold_doc_ids"]
        and int(hashlib.sha256(row["qid"].encode()).hexdigest(), 16) % 2 in wanted
    ]


# ── where the evidence stands ─────────────────────────────────────────────────────────────────


def _stated(row: Row, texts: Callable[[str], Any]) -> Iterator[Range]:
    """The sentences that the dataset names; where it names none, of each gold document the one with the answer of a
    step of the question that shares most words with it."""
    gold = [texts(name) for name in row["gold_doc_ids"]]
    for wanted in row.get("evidence") or ():
        pattern = re.compile(r"\s+".join(map(re.escape, wanted.split())))
        found = next(((one, match) for one in gold if (match := pattern.search(one.text))), None)
        if found is not None:
            yield found[0].document_id, found[0].number, found[1].start(), found[1].end()
    if row.get("evidence"):
        return
    for one in gold:
        fitting = [
            (len(set(terms(f"{step['q']} {row['question']}")) & set(terms(one.text[start:end]))), -start, end)
            for step in row["decomposition"]
            for start, end in sentences(one.text)
            if step["a"].lower() in one.text[start:end].lower()
        ]
        if fitting:
            _, start, end = max(fitting)
            yield one.document_id, one.number, -start, end


def _on_page(row: Row, texts: Callable[[str], Any]) -> Iterator[Range]:
    """The lines and sentences of the gold pages whose words are in the excerpt that the dataset gives: another reader
    made that, so its characters differ."""
    for gold, excerpt in zip(row["gold_pages"], row["evidence"], strict=True):
        one, known = texts(gold["pdf"]), set(terms(excerpt))
        page = next(page for page in one.pages if page["number"] == gold["page"])
        for start, end in sentences(one.text[page["start"] : page["end"]]):
            own = set(terms(one.text[page["start"] + start : page["start"] + end]))
            if len(own) >= 3 and len(own & known) >= 0.9 * len(own):
                yield one.document_id, one.number, page["start"] + start, page["start"] + end


# ── what reaches the reader ───────────────────────────────────────────────────────────────────


def _report(
    name: str,
    base: KnowledgeBase,
    assistant: Assistant,
    rows: Sequence[Row],
    evidence: Callable[[Row, Callable[[str], Any]], Iterator[Range]],
) -> None:
    asked = []
    with base.catalog.read() as snapshot:
        listed = snapshot.execute(select(documents.c.uri, documents.c.id))
        ids = {uri.rsplit("/", 1)[-1]: document_id for uri, document_id in listed}
        for row in rows:
            found = assistant.search(Question(row["question"], top_k=TOP_K))
            places = evidence(row, lambda uri: versions.version_row(snapshot, ids[uri], None))
            asked.append(Asked(found, tuple(dict.fromkeys(places))))

    def now(found: Found, budget: int) -> Sequence[Passage]:
        return assistant.context(found, tokens=budget, language="en").passages

    for label, pack in (("before", _before), ("now", now)):
        cells = [_share(asked, pack, budget) for budget in BUDGETS]
        sys.stdout.write(f"| {name} | {label} | {' | '.join(cells)} | {_cost(asked, pack, 4_000)} |")
        sys.stdout.write(f" {_cost(asked, pack, 32_000)} |\n")
        sys.stdout.flush()


def _before(found: Found, budget: int) -> list[Passage]:
    shown: list[Passage] = []
    for hit in found.hits:
        tokens = _tokens(Passage.whole(1, hit, 0))
        if tokens <= budget:
            shown.append(Passage.whole(len(shown) + 1, hit, tokens))
            budget -= tokens
    return shown


def _tokens(passage: Passage) -> int:
    return passage_tokens(estimate_tokens, passage, language="en")


def _share(asked: Sequence[Asked], pack: Callable[[Found, int], Sequence[Passage]], budget: int) -> str:
    """Of the evidence that was among the hits, and of all of it."""
    found, every = [], []
    for one in asked:
        shown = [(p.hit, span.start, span.end) for p in pack(one.found, budget) for span in p.spans]
        hits = [(hit, hit.start, hit.end) for hit in one.found.hits]
        for place in one.evidence:
            every.append(_covered(place, shown))
            if _covered(place, hits):
                found.append(every[-1])
    return (
        f"{sum(found) / max(len(found), 1):.3f} of {len(found)}, {sum(every) / max(len(every), 1):.3f} of {len(every)}"
    )


def _covered(place: Range, spans: Iterable[tuple[Hit, int, int]]) -> bool:
    """Whether all of it is there; white space at an end does not matter."""
    document, version, start, end = place
    own = [(first, last) for hit, first, last in spans if (hit.document_id, hit.version) == (document, version)]
    return sum(max(0, min(end, last) - max(start, first)) for first, last in own) >= 0.98 * (end - start)


def _cost(asked: Sequence[Asked], pack: Callable[[Found, int], Sequence[Passage]], budget: int) -> str:
    """Milliseconds of this thread for one question, reading from the catalog included."""
    began = time.thread_time()
    for one in asked:
        pack(one.found, budget)
    return f"{1000 * (time.thread_time() - began) / max(len(asked), 1):.1f}"


if __name__ == "__main__":
    main()
