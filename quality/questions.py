"""Questions of one's own: JSON lines, or a table as CSV, asked of a collection that is there already."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from quality.lines import Row, bad, flag_of, json_lines, parts_of, read_text, text_of, texts_of
from quality.models import Evidence, Gold, Question
from rag.models import Turn
from rag.text.language import language_of

_BETWEEN = "|"  # of several values in one cell of a CSV file
_KINDS = ("kind", "unanswerable_kind", "type", "needs")  # the first that is there
_LISTS = ("answers", "documents", "evidence")


def read_questions(path: Path) -> tuple[Question, ...]:
    """`question`, and where known `answers`, `documents` (uri, key, title or file name), `evidence` (the words that
    prove it), `unanswerable`, `language`, `id`, `history`. Raises InvalidInput with the line that is wrong."""
    rows = _table(path) if path.suffix.lower() in (".csv", ".tsv") else json_lines(path)
    questions: list[Question] = []
    seen: dict[str, int] = {}
    for line, row in rows:
        question = _question(row, path=path, line=line)
        if question.id in seen:
            raise bad(path, line, f"has the id “{question.id}” of line {seen[question.id]}", "Give each its own id.")
        seen[question.id] = line
        questions.append(question)
    if not questions:
        raise bad(path, 1, "has no question", 'Write one JSON object per line: {"question": "…"}.')
    return tuple(questions)


def from_feedback(given: Iterable[Row]) -> tuple[Question, ...]:
    """Questions of what people said of answers (`GET /v1/feedback`, newest first); of the same question what was said
    last. Left out is what says nothing of how it should be answered.

    What was expected is the answer, the documents named are where it stands; else those that a right answer cited. A
    refusal that was right makes a question that nothing answers.
    """
    questions: dict[str, Question] = {}
    for row in given:
        text = str(row["question"])
        key = " ".join(text.casefold().split())
        if key in questions:
            continue
        rightly_none = row["refused"] and row["helpful"] and not row["expected"] and not row["documents"]
        good_source = row["helpful"] is True if row["evidence"] is None else row["evidence"]
        places = row["documents"] or (row["cited"] if good_source else [])
        if rightly_none or places or row["expected"]:
            questions[key] = Question(
                id=f"feedback {hashlib.sha256(key.encode()).hexdigest()[:12]}",  # the same when more is said of it
                text=text,
                language=language_of(text),
                answers=(str(row["expected"]),) if row["expected"] else (),
                gold=tuple(Gold(str(name)) for name in places),
                any_gold=True,
                answerable=not rightly_none,
                kind="feedback",
            )
    return tuple(questions.values())


def _table(path: Path) -> Iterator[tuple[int, Row]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if "question" not in names:
            raise bad(path, 1, "names no column “question”", "Its first line must name the columns: question,answers,…")
        reader.fieldnames = names
        for row in reader:
            if None in row:
                raise bad(path, reader.line_num, "has more cells than columns", "Put texts with a comma into quotes.")
            if any(value and value.strip() for value in row.values()):
                yield reader.line_num, {name: _cell(name, value) for name, value in row.items()}
    except csv.Error as problem:
        raise bad(path, reader.line_num, f"is no CSV ({problem})", "Check its quotes.") from problem


def _cell(name: str, value: str | None) -> object:
    text = (value or "").strip()
    return [part.strip() for part in text.split(_BETWEEN) if part.strip()] if name in _LISTS else text


def _question(row: Row, *, path: Path, line: int) -> Question:
    text = text_of(row, "question", path=path, line=line).strip()
    unanswerable = flag_of(row, "unanswerable", path=path, line=line)
    answerable = flag_of(row, "answerable", path=path, line=line)
    if unanswerable is not None and unanswerable == answerable:
        raise bad(path, line, "says both answerable and unanswerable", "Keep one of the two.")
    gold = _gold(row, path=path, line=line)
    return Question(
        id=_id(row) or f"line {line}",
        text=text,
        language=str(row.get("language") or row.get("lang") or language_of(text)),
        answers=texts_of(row, "answers", path=path, line=line) or texts_of(row, "answer", path=path, line=line),
        parts=parts_of(row, path=path, line=line),
        gold=gold,
        # People list every place that answers; that all of them are needed is said with `needs_all`.
        any_gold=not flag_of(row, "needs_all", path=path, line=line),
        evidence=tuple(Evidence(words) for words in texts_of(row, "evidence", path=path, line=line)),
        answerable=answerable if answerable is not None else not unanswerable,
        kind=next((str(row[name]) for name in _KINDS if row.get(name)), ""),
        history=_history(row, path=path, line=line),
    )


def _id(row: Row) -> str:
    return str(next((row[name] for name in ("id", "qid") if row.get(name) is not None), ""))


def _gold(row: Row, *, path: Path, line: int) -> tuple[Gold, ...]:
    """`documents`, each a name or {document, page?, pages?, row?}; or `expected`, as in `data/eval/questions.jsonl`; or
    `gold_pages` and `gold_doc_ids`, as datasets have them. Pages say more than the ids of the same documents."""
    listed: Any = next((row[name] for name in _PLACES if row.get(name)), ())
    items = listed if isinstance(listed, list | tuple) else [listed]
    return tuple(gold for item in items for gold in _places(item, path=path, line=line))


_PLACES = ("documents", "expected", "gold_pages", "gold_doc_ids")  # the first that is there
_NAMES = ("document", "source", "file", "pdf", "uri", "key")  # what people call a document's name


def _places(item: Any, *, path: Path, line: int) -> Iterator[Gold]:
    if isinstance(item, str) and item.strip():
        name, _, page = item.strip().rpartition("#page=")  # as links into a PDF are written
        yield Gold(name, int(page)) if name and page.isdecimal() and int(page) else Gold(item.strip())
        return
    named = next((item[name] for name in _NAMES if item.get(name)), None) if isinstance(item, dict) else None
    if named is None:
        remedy = 'Write "documents": ["handbook.pdf"], or [{"document": "handbook.pdf", "page": 6}].'
        raise bad(path, line, "has documents that cannot be read", remedy)
    # `products.sqlite: TABLE / KEY` names a row; its document is called by that too.
    name, _, place = str(named).partition(": ")
    pages = item.get("pages") or [item.get("page")]
    for page in pages if isinstance(pages, list) else [pages]:
        if page is not None and (not isinstance(page, int) or page < 1):
            raise bad(path, line, f"names the page “{page}”", "Pages are numbers from 1.")
        yield Gold(place or name, page, str(item["row"]) if item.get("row") else place or None)


def _history(row: Row, *, path: Path, line: int) -> tuple[Turn, ...]:
    turns = row.get("history") or ()
    try:
        return tuple(Turn(turn["role"], str(turn["content"])) for turn in turns)
    except (TypeError, KeyError) as problem:
        remedy = 'Write "history": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}].'
        raise bad(path, line, "has a history that cannot be read", remedy) from problem
