"""The published forms of question answering data → Dataset: SQuAD and its like, BEIR folders, RGB, and folders of
`corpus.jsonl` with `queries.jsonl`. What a file is, is told by what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quality import metrics
from quality.lines import Row, bad, json_lines, parts_of, read_text, text_of, texts_of, whole_json
from quality.models import Dataset, Document, Evidence, Gold, Question
from rag.errors import InvalidInput
from rag.text.language import canonical, language_of

QUERIES, UNANSWERABLE = "queries.jsonl", "unanswerable.jsonl"
_SPLITS = ("test", "dev", "train")  # of BEIR, the first that is there


# ── folders of JSON lines ─────────────────────────────────────────────────────────────────────


def read_folder(path: Path) -> list[Dataset]:
    """BEIR where there are `qrels`, otherwise `corpus.jsonl` with `queries.jsonl` that name their gold documents."""
    if (path / "qrels").is_dir():
        return [_beir(path)]
    documents = tuple(
        Document(
            text_of(row, "doc_id", "_id", "id", path=path / "corpus.jsonl", line=line),
            str(row.get("title") or ""),
            canonical(text_of(row, "text", path=path / "corpus.jsonl", line=line)),
        )
        for line, row in json_lines(path / "corpus.jsonl")
    )
    _check_unique(path / "corpus.jsonl", (document.id for document in documents))
    files = [path / QUERIES, path / UNANSWERABLE]
    rows = [(file, line, row) for file in files if file.exists() for line, row in json_lines(file)]
    texts = {document.id: _compact(document.text) for document in documents} if _is_covered(rows) else {}
    questions = tuple(_asked(row, texts, path=file, line=line) for file, line, row in rows)
    _check_unique(path, (question.id for question in questions))
    found = [Dataset(path.name, questions, documents)]
    other = [_in_simplified(question, row) for question, (_, _, row) in zip(questions, rows, strict=True)]
    if any(other):
        found.append(Dataset(f"{path.name}-simplified", tuple(one for one in other if one), documents))
    return found


def _is_covered(rows: Iterable[tuple[Path, int, Row]]) -> bool:
    """CRUD's news are full of near-duplicates; the documents named are those that cover the parts of the answer."""
    return any("coverage" in row for _, _, row in rows)


def _compact(text: str) -> str:
    return "".join(metrics.normalised(text))


def _asked(row: Row, texts: Mapping[str, str], *, path: Path, line: int) -> Question:
    """`texts` of all documents, where another one that has every part of the answer is as good as the one named."""
    text = text_of(row, "question", "text", path=path, line=line)
    gold = texts_of(row, "gold_doc_ids", path=path, line=line)
    parts = parts_of(row, path=path, line=line)
    if "coverage" in row and parts:
        wanted = [[_compact(wording) for wording in part] for part in parts]
        whole = [name for name, said in texts.items() if all(any(one in said for one in part) for part in wanted)]
        gold = tuple(dict.fromkeys([*gold, *whole]))
    return Question(
        id=text_of(row, "qid", "_id", "id", path=path, line=line),
        text=text,
        language=str(row.get("lang") or language_of(text)),
        answers=texts_of(row, "answers", path=path, line=line),
        parts=parts,
        gold=tuple(Gold(name) for name in gold),
        any_gold=bool(row.get("any_gold")) or "coverage" in row,
        evidence=tuple(Evidence(words) for words in texts_of(row, "evidence", path=path, line=line)),
        answerable=bool(row.get("answerable", True)),
        kind=str(row.get("unanswerable_kind") or row.get("type") or ""),
        parallel=texts_of(row, "parallel_gold_doc_ids", path=path, line=line),
    )


def _in_simplified(question: Question, row: Row) -> Question | None:
    """The same question in the other script, where the data has it."""
    text = row.get("question_simplified")
    if not text:
        return None
    return replace(question, text=str(text), answers=tuple(row.get("answers_simplified") or question.answers))


def _beir(path: Path) -> Dataset:
    documents = tuple(
        Document(
            text_of(row, "_id", path=path / "corpus.jsonl", line=line),
            str(row.get("title") or ""),
            canonical(str(row.get("text") or "")),
        )
        for line, row in json_lines(path / "corpus.jsonl")
    )
    _check_unique(path / "corpus.jsonl", (document.id for document in documents))
    file = next(
        (path / "qrels" / f"{split}.tsv" for split in _SPLITS if (path / "qrels" / f"{split}.tsv").exists()), None
    )
    if file is None:
        raise InvalidInput(f"{path / 'qrels'} has no test.tsv, dev.tsv or train.tsv.", remedy="BEIR folders have one.")
    gold: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and not cells[-1].strip().lstrip("-").isdigit()):
            continue
        if len(cells) != 3 or not cells[2].strip().lstrip("-").isdigit():
            raise bad(file, number, "is not “query, document, score”", "Separate three columns by tabs.")
        gold.setdefault(cells[0], [])
        if int(cells[2]) > 0:
            gold[cells[0]].append(cells[1])
    questions = tuple(
        Question(
            id=str(row["_id"]),
            text=text_of(row, "text", path=path / "queries.jsonl", line=line),
            language=language_of(str(row["text"])),
            gold=tuple(Gold(name) for name in gold[str(row["_id"])]),
        )
        for line, row in json_lines(path / "queries.jsonl")
        if gold.get(text_of(row, "_id", path=path / "queries.jsonl", line=line))
    )
    return Dataset(path.name, questions, documents)


# ── SQuAD, CMRC, DRCD, XQuAD ──────────────────────────────────────────────────────────────────


def read_json(path: Path) -> list[Dataset]:
    """SQuAD's form, in which CMRC 2018, DRCD and XQuAD come too, or CMRC's own."""
    content = whole_json(path)
    try:
        if isinstance(content, dict) and isinstance(content.get("data"), list):
            return [_squad(path.stem, content["data"])]
        if isinstance(content, list) and content and "context_text" in content[0]:
            return [_cmrc(path.stem, content)]
    except (KeyError, TypeError) as problem:
        raise InvalidInput(
            f"{path} looks like SQuAD or CMRC and has an entry without {problem}.", remedy="Check the file."
        ) from problem
    raise InvalidInput(
        f"{path} is in no form that is known here.", remedy="SQuAD and CMRC are read from .json, others from .jsonl."
    )


def _squad(name: str, articles: Iterable[Any]) -> Dataset:
    documents: list[Document] = []
    questions: list[Question] = []
    for at, article in enumerate(articles):
        for number, paragraph in enumerate(article["paragraphs"]):
            document = Document(f"{name}:{at}:{number}", str(article.get("title", "")), canonical(paragraph["context"]))
            documents.append(document)
            for asked in paragraph["qas"]:
                answers = asked.get("answers") or []
                spans = [(str(answer["text"]), _moved(paragraph["context"], answer)) for answer in answers]
                impossible = bool(asked.get("is_impossible"))
                questions.append(
                    Question(
                        id=str(asked["id"]),
                        text=asked["question"],
                        language=language_of(asked["question"]),
                        answers=tuple(dict.fromkeys(text for text, _ in spans)),
                        gold=() if impossible else (Gold(document.id),),
                        evidence=tuple(Evidence(text, document.id, start) for text, start in dict.fromkeys(spans)),
                        answerable=not impossible,
                        kind="adversarial_paragraph" if impossible else "",
                    )
                )
    return Dataset(name, tuple(questions), tuple(documents))


def _moved(context: str, answer: Any) -> int:
    """Where the answer begins in the canonical text."""
    return len(canonical(context[: int(answer.get("answer_start", 0))]))


def _cmrc(name: str, contexts: Iterable[Any]) -> Dataset:
    documents, questions = [], []
    for context in contexts:
        document = Document(
            str(context["context_id"]), str(context.get("title", "")), canonical(context["context_text"])
        )
        documents.append(document)
        for asked in context["qas"]:
            answers = tuple(dict.fromkeys(str(answer) for answer in asked["answers"]))
            questions.append(
                Question(
                    id=str(asked["query_id"]),
                    text=asked["query_text"],
                    language=language_of(asked["query_text"]),
                    answers=answers,
                    gold=(Gold(document.id),),
                    evidence=tuple(Evidence(answer, document.id) for answer in answers),
                )
            )
    return Dataset(name, tuple(questions), tuple(documents))


# ── RGB ───────────────────────────────────────────────────────────────────────────────────────


def is_rgb(row: Row) -> bool:
    return "positive" in row and "negative" in row


def read_rgb(path: Path) -> list[Dataset]:
    """Collections of passages: all of them, with every question; and those alone that do not tell the answer, where
    every question is to be refused. Where the file has passages that tell a false answer (`positive_wrong`), two more:
    without any that tell the true one, and with both. RGB gives a model five passages; here they have to be found."""
    rows = list(json_lines(path))
    every: dict[str, Document] = {}
    negative: dict[str, Document] = {}
    questions = []
    for line, row in rows:
        name = str(row.get("qid", row.get("id", line)))
        right = _passages(row["positive"], f"{name}:+", every)
        _passages(row["negative"], f"{name}:-", every)
        _passages(row["negative"], f"{name}:-", negative)
        text = text_of(row, "question", "query", path=path, line=line)
        parts = parts_of(row, path=path, line=line) or parts_of({"answer_parts": _rgb_parts(row)}, path=path, line=line)
        questions.append(
            Question(
                id=name,
                text=text,
                language=str(row.get("lang") or language_of(text)),
                answers=texts_of(row, "answers", path=path, line=line) or texts_of(row, "answer", path=path, line=line),
                parts=parts,
                gold=tuple(Gold(one) for one in right),
                any_gold=True,
            )
        )
    without = tuple(
        replace(question, answerable=False, kind="negative_rejection", gold=(), answers=(), parts=())
        for question in questions
    )
    # A passage that says the answer to another question of the file is no distractor to that one.
    told = {question_id for question_id, text in _answered(questions, list(negative.values()))}
    return [
        Dataset(f"rgb_{path.stem}", tuple(questions), tuple(every.values())),
        *_counterfactual(f"rgb_{path.stem}", rows, questions, every=every, negative=negative),
        Dataset(
            f"rgb_{path.stem}-rejection",
            tuple(question for question in without if question.id not in told),
            tuple(negative.values()),
        ),
    ]


def _counterfactual(
    name: str,
    rows: Iterable[tuple[int, Row]],
    questions: Iterable[Question],
    *,
    every: Mapping[str, Document],
    negative: Mapping[str, Document],
) -> list[Dataset]:
    """`-counterfactual`: all that is there says the false answer, and so should an answer that keeps to its sources.
    `-contradicted`: some passages say the one, some the other."""
    false: dict[str, Document] = {}
    believed, doubted = [], []
    for question, (_, row) in zip(questions, rows, strict=True):
        fake = str(row.get("fake_answer") or "").strip()
        if not fake or not row.get("positive_wrong"):
            continue
        places = tuple(Gold(one) for one in _passages(row["positive_wrong"], f"{question.id}:!", false))
        believed.append(replace(question, answers=(fake,), gold=places))
        doubted.append(replace(question, fakes=(fake,)))
    if not believed:
        return []
    return [
        Dataset(f"{name}-counterfactual", tuple(believed), tuple((false | dict(negative)).values())),
        Dataset(f"{name}-contradicted", tuple(doubted), tuple((dict(every) | false).values())),
    ]


def _answered(questions: Iterable[Question], documents: list[Document]) -> Iterable[tuple[str, str]]:
    """Questions whose answer stands in another question's passage. Its own were chosen not to tell it."""
    for question in questions:
        answers = [answer for answer in (*question.answers, *sum(question.parts, ())) if len(answer) > 3]
        for document in documents:
            if not document.id.startswith(f"{question.id}:") and any(answer in document.text for answer in answers):
                yield question.id, document.id
                break


def _rgb_parts(row: Row) -> list[Any]:
    """RGB writes what must all be said as a list that holds lists of wordings."""
    answer = row.get("answer")
    return answer if isinstance(answer, list) and any(isinstance(one, list) for one in answer) else []


def _passages(texts: Any, prefix: str, into: dict[str, Document]) -> list[str]:
    names = []
    for number, text in enumerate(one for item in texts for one in (item if isinstance(item, list) else [item])):
        name = f"{prefix}{number}"
        if str(text).strip():
            into[name] = Document(name, "", canonical(str(text)))
            names.append(name)
    return names


def _check_unique(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInput(f"{path} has the id “{name}” twice.", remedy="Give every entry an id of its own.")
        seen.add(name)


def holds_rgb(path: Path) -> bool:
    """Whether its first line is a question of RGB, whose files are called .json and have one on each line."""
    try:
        return is_rgb(next(json_lines(path), (0, {}))[1])
    except InvalidInput:
        return False  # whoever reads the file as what it is says what is wrong with it
