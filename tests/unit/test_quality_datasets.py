"""Datasets in the forms in which they are published, questions of one's own, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quality import datasets
from quality.datasets import open_dataset
from quality.models import Dataset, Document, Evidence, Gold, Question
from quality.questions import from_feedback, read_questions
from rag.errors import InvalidInput, NotFound
from rag.models import Turn

ROOT = Path(__file__).parents[2]


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def one(path: Path) -> Dataset:
    (found,) = open_dataset(path)
    return found


# ── published forms ───────────────────────────────────────────────────────────────────────────


def test_a_squad_file_keeps_where_each_answer_stands_and_what_has_none(tmp_path: Path) -> None:
    answer = {"text": "Rollo", "answer_start": 14}
    paragraph = {
        "context": "Rollo\r\nled on. Rollo ruled.",
        "qas": [
            {"id": "a", "question": "Who ruled?", "answers": [answer, answer]},
            {"id": "b", "question": "Who failed?", "answers": [], "is_impossible": True},
        ],
    }
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"data": [{"title": "Normans", "paragraphs": [paragraph]}]}))
    found = one(path)
    assert found.documents == (Document("dev:0:0", "Normans", "Rollo\nled on. Rollo ruled."),)
    first, second = found.questions
    assert first.answers == ("Rollo",)
    assert first.gold == (Gold("dev:0:0"),)
    assert first.evidence == (Evidence("Rollo", "dev:0:0", 13),), "counted in the text as it is stored"
    assert (second.answerable, second.gold, second.kind) == (False, (), "adversarial_paragraph")


def test_cmrc_in_squads_form_and_in_its_own_and_drcd_and_xquad_are_read(tmp_path: Path) -> None:
    squad = {
        "data": [
            {
                "title": "儒略日",
                "paragraphs": [
                    {
                        "context": "28年為一太陽周期。",
                        "qas": [
                            {"id": "q", "question": "太陽周期多長？", "answers": [{"text": "28年", "answer_start": 0}]}
                        ],
                    }
                ],
            }
        ]
    }
    (tmp_path / "DRCD_dev.json").write_text(json.dumps(squad))
    drcd = one(tmp_path / "DRCD_dev.json")
    assert (drcd.questions[0].language, drcd.questions[0].answers) == ("zh", ("28年",))
    own = [
        {
            "context_id": "TRIAL_1",
            "context_text": "基于《跑跑卡丁车》。",
            "title": "泡泡战士",
            "qas": [{"query_id": "TRIAL_1_Q", "query_text": "基于什么？", "answers": ["《跑跑卡丁车》"]}],
        }
    ]
    (tmp_path / "cmrc.json").write_text(json.dumps(own))
    cmrc = one(tmp_path / "cmrc.json")
    assert cmrc.documents == (Document("TRIAL_1", "泡泡战士", "基于《跑跑卡丁车》。"),)
    assert cmrc.questions[0].gold == (Gold("TRIAL_1"),)


def test_a_beir_folder_is_read_by_its_qrels(tmp_path: Path) -> None:
    folder = tmp_path / "scifact"
    lines(
        folder / "corpus.jsonl", {"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "title": "", "text": "two"}
    )
    lines(folder / "queries.jsonl", {"_id": "q1", "text": "Which one?"}, {"_id": "q2", "text": "Of another split?"})
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n")
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\n")
    found = one(folder)
    assert found.name == "scifact"
    assert [(question.id, question.gold) for question in found.questions] == [("q1", (Gold("d1"),))]
    assert len(found.documents or ()) == 2
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1 d1 1\n")
    with pytest.raises(InvalidInput, match=r"Line 2 of .*test\.tsv is not “query, document, score”\. Separate"):
        open_dataset(folder)


def test_a_folder_of_corpus_and_queries_has_its_unanswerable_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "drcd"
    lines(folder / "corpus.jsonl", {"doc_id": "d", "title": "儒略日", "text": "28年為一太陽周期。"})
    lines(
        folder / "queries.jsonl",
        {
            "qid": "q",
            "question": "週期多長？",
            "question_simplified": "周期多长？",
            "answers": ["28年"],
            "answers_simplified": ["28年整"],
            "gold_doc_ids": ["d"],
            "lang": "zh-Hant",
            "answerable": True,
            "evidence": ["28年為一太陽周期。"],
        },
    )
    lines(
        folder / "unanswerable.jsonl",
        {"qid": "u", "question": "誰？", "answerable": False, "unanswerable_kind": "out_of_corpus", "answers": []},
    )
    original, simplified = open_dataset(folder)
    assert [question.answerable for question in original.questions] == [True, False]
    assert original.questions[0].evidence == (Evidence("28年為一太陽周期。"),)
    assert original.questions[1].kind == "out_of_corpus"
    assert simplified.name == "drcd-simplified"
    assert [(item.text, item.answers) for item in simplified.questions] == [("周期多长？", ("28年整",))]


def test_rgb_is_a_collection_of_all_passages_and_one_of_those_that_do_not_tell(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "en.json",
        {
            "id": 0,
            "query": "Super Bowl 2021 location",
            "answer": ["Tampa"],
            "positive": ["In Tampa."],
            "negative": ["No."],
        },
        {
            "id": 1,
            "query": "What and when?",
            "answer": [["rain"], ["Monday", "monday"]],
            "positive": [["Rain."], ["On Monday."]],
            "negative": ["The game is in Tampa, Florida."],
        },
    )
    noisy, rejection = open_dataset(path)
    assert len(noisy.documents or ()) == 5
    assert noisy.questions[0].gold == (Gold("0:+0"),)
    assert noisy.questions[1].parts == (("rain",), ("Monday", "monday"))
    assert [document.text for document in rejection.documents or ()] == ["No.", "The game is in Tampa, Florida."]
    assert [question.id for question in rejection.questions] == ["1"], "another question's passage answers the first"
    assert not rejection.questions[0].answerable


def test_rgbs_false_passages_are_believed_where_they_stand_alone_and_doubted_where_they_do_not(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "en.json",
        {
            "id": 0,
            "query": "Super Bowl 2021 location",
            "answer": ["Tampa"],
            "fake_answer": "Glendale",
            "positive": ["In Tampa."],
            "positive_wrong": ["In Glendale."],
            "negative": ["No."],
        },
        {"id": 1, "query": "Who?", "answer": ["Rollo"], "positive": ["Rollo."], "negative": ["Nobody."]},
    )
    _, believed, doubted, _ = open_dataset(path)
    assert [dataset.name for dataset in (believed, doubted)] == ["rgb_en-counterfactual", "rgb_en-contradicted"]
    assert [document.text for document in believed.documents or ()] == ["In Glendale.", "No.", "Nobody."]
    assert [(one.answers, one.gold, one.fakes) for one in believed.questions] == [(("Glendale",), (Gold("0:!0"),), ())]
    assert {document.text for document in doubted.documents or ()} >= {"In Tampa.", "In Glendale."}
    (question,) = doubted.questions
    assert (question.answers, question.gold, question.fakes) == (("Tampa",), (Gold("0:+0"),), ("Glendale",))


def test_another_document_that_has_every_part_of_the_answer_is_as_good_as_the_one_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "news"
    texts = {"named": "会期两周，5月20日开幕。", "same": "5 月 20 日开幕的会议，为期两周。", "half": "5月20日开幕。"}
    lines(folder / "corpus.jsonl", *({"doc_id": name, "text": text} for name, text in texts.items()))
    asked = {
        "qid": "q",
        "question": "何时开幕，多久？",
        "answer_parts": [["5月20日"], ["两周", "14天"]],
        "gold_doc_ids": ["named"],
    }
    lines(folder / "queries.jsonl", {**asked, "coverage": 1.0}, {**asked, "qid": "r"})
    first, second = one(folder).questions
    assert (first.gold, first.any_gold) == ((Gold("named"), Gold("same")), True)
    assert (second.gold, second.any_gold) == ((Gold("named"),), False), "only where the data says that it is derived"


def test_questions_about_files_are_asked_of_a_collection_and_name_pages(tmp_path: Path) -> None:
    folder = tmp_path / "filings"
    asked = {"question": "How much?", "answers": ["5"]}
    lines(
        folder / "queries.jsonl",
        {**asked, "qid": "a", "gold_pages": [{"pdf": "x.pdf", "page": 3}], "gold_doc_ids": ["x#p3"], "type": "table"},
        {**asked, "qid": "b", "documents": [{"file": "x.pdf", "pages": [3, 4]}, "y.pdf#page=7", "z.pdf#page=0"]},
        {**asked, "qid": "c", "gold_doc_ids": ["page one"]},
        {**asked, "qid": "d", "documents": [{"key": "Customer / 5", "row": "Customer / 5"}]},
    )
    lines(folder / "unanswerable.jsonl", {"question": "Who?", "answerable": False, "unanswerable_kind": "out"})
    dataset = one(folder)
    assert (dataset.name, dataset.documents) == ("filings", None)
    assert [question.gold for question in dataset.questions] == [
        (Gold("x.pdf", 3),),
        (Gold("x.pdf", 3), Gold("x.pdf", 4), Gold("y.pdf", 7), Gold("z.pdf#page=0")),
        (Gold("page one"),),
        (Gold("Customer / 5", None, "Customer / 5"),),
        (),
    ]
    assert [question.kind for question in dataset.questions] == ["table", "", "", "", "out"]
    assert one(folder / "queries.jsonl").name == "filings"


def test_what_was_said_of_answers_makes_questions(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "helpful": None,
        "evidence": None,
        "expected": None,
        "documents": [],
        "refused": False,
        "cited": ["doc_1"],
    }
    given = [
        {**said, "question": "Right?", "helpful": True},
        {**said, "question": " right? ", "helpful": False, "expected": "older, and of the same question"},
        {**said, "question": "Wrong, and nothing more?", "helpful": False},
        {**said, "question": "Corrected?", "helpful": False, "expected": "noon", "documents": ["doc_2"]},
        {**said, "question": "Right, from the wrong place?", "helpful": True, "evidence": False, "expected": "noon"},
        {**said, "question": "Rightly refused?", "helpful": True, "refused": True, "cited": []},
        {
            **said,
            "question": "Wrongly refused?",
            "helpful": False,
            "refused": True,
            "cited": [],
            "documents": ["doc_3"],
        },
    ]
    found = {one.text: one for one in from_feedback(given)}
    assert [(text, one.answers, one.gold, one.answerable) for text, one in found.items()] == [
        ("Right?", (), (Gold("doc_1"),), True),
        ("Corrected?", ("noon",), (Gold("doc_2"),), True),
        ("Right, from the wrong place?", ("noon",), (), True),
        ("Rightly refused?", (), (), False),
        ("Wrongly refused?", (), (Gold("doc_3"),), True),
    ]
    assert found["Right?"].id == from_feedback([given[1]])[0].id, "the same question goes by the same name"


def test_a_folder_of_datasets_is_all_of_them(tmp_path: Path) -> None:
    for name in ("b", "a"):
        lines(tmp_path / name / "corpus.jsonl", {"doc_id": "d", "text": "x"})
        lines(tmp_path / name / "queries.jsonl", {"qid": "q", "question": "x?", "gold_doc_ids": ["d"]})
    (tmp_path / "pictures").mkdir()
    assert [found.name for found in open_dataset(tmp_path)] == ["a", "b"]
    with pytest.raises(InvalidInput, match="is no dataset"):
        open_dataset(tmp_path / "pictures")
    with pytest.raises(NotFound, match="nothing at"):
        open_dataset(tmp_path / "nowhere")


def test_what_is_broken_is_named_by_its_line(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    lines(folder / "corpus.jsonl", {"doc_id": "d", "text": "x"}, {"doc_id": "d", "text": "y"})
    lines(folder / "queries.jsonl", {"qid": "q", "question": "x?"})
    with pytest.raises(InvalidInput, match="has the id “d” twice"):
        open_dataset(folder)
    lines(folder / "corpus.jsonl", {"doc_id": "d", "text": "x"}, {"doc_id": "e"})
    with pytest.raises(InvalidInput, match=r"Line 2 of .*corpus\.jsonl has no “text”"):
        open_dataset(folder)
    (tmp_path / "other.json").write_text('{"rows": []}')
    with pytest.raises(InvalidInput, match="in no form that is known"):
        open_dataset(tmp_path / "other.json")


# ── questions of one's own ────────────────────────────────────────────────────────────────────


def test_questions_need_nothing_but_a_question(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "questions.jsonl",
        {"question": "What is the warranty?"},
        {
            "id": "z",
            "question": "保修多久？",
            "answers": ["两年", "24个月"],
            "documents": ["handbook.pdf", {"document": "b.pdf", "page": 6}],
            "history": [{"role": "user", "content": "TL-1207"}],
        },
        {"question": "Who?", "answer": "Rollo", "unanswerable": True, "language": "en"},
    )
    first, second, third = read_questions(path)
    assert first == Question("line 1", "What is the warranty?", "en", any_gold=True)
    assert (second.language, second.answers) == ("zh", ("两年", "24个月"))
    assert second.gold == (Gold("handbook.pdf"), Gold("b.pdf", 6))
    assert second.any_gold, "people list every place that answers"
    assert second.history == (Turn("user", "TL-1207"),)
    assert (third.answerable, third.answers) == (False, ("Rollo",))


def test_a_table_of_questions_has_several_values_between_bars(tmp_path: Path) -> None:
    path = tmp_path / "questions.csv"
    path.write_text(
        '\ufeffQuestion,answers,documents,unanswerable\n"When, and where?",noon | 12:00,a.pdf|b.pdf,\n\nWho?,,,yes\n',
        "utf-8",
    )
    first, second = read_questions(path)
    assert (first.id, first.text) == ("line 2", "When, and where?")
    assert first.answers == ("noon", "12:00")
    assert first.gold == (Gold("a.pdf"), Gold("b.pdf"))
    assert not second.answerable


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.jsonl", '{"question": "a"}\n\n{"question"}\n', "Line 3 of .* is no JSON"),
        ("q.jsonl", "[1]\n", "Line 1 of .* is no JSON object"),
        ("q.jsonl", '{"text": "a"}\n', "Line 1 of .* has no “question”. Give it a text"),
        ("q.jsonl", '{"question": "a", "unanswerable": "perhaps"}\n', "says “perhaps” for “unanswerable”. Write true"),
        (
            "q.jsonl",
            '{"question": "a", "unanswerable": true, "answerable": true}\n',
            "both answerable and unanswerable",
        ),
        ("q.jsonl", '{"question": "a", "answers": {"b": 1}}\n', "has a “answers” that is no list of texts"),
        ("q.jsonl", '{"question": "a", "documents": [3]}\n', "has documents that cannot be read"),
        ("q.jsonl", '{"question": "a", "documents": [{"document": "b", "page": 0}]}\n', "names the page “0”"),
        ("q.jsonl", '{"question": "a", "history": ["b"]}\n', "has a history that cannot be read"),
        (
            "q.jsonl",
            '{"id": 1, "question": "a"}\n{"id": 1, "question": "b"}\n',
            "Line 2 of .* has the id “1” of line 1",
        ),
        ("q.jsonl", "", "has no question"),
        ("q.csv", "frage\na\n", "Line 1 of .* names no column “question”"),
        ("q.csv", "question,answers\na,b,c\n", "Line 2 of .* has more cells than columns"),
        ("q.csv", 'question,answers\n"a,b\n', "is no CSV"),
        ("q.txt", "a\n", "in no form that is known"),
    ],
)
def test_a_bad_line_is_named_and_says_what_to_do(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(InvalidInput, match=message) as problem:
        open_dataset(path)
    assert problem.value.remedy


def test_the_sample_questions_of_the_project_are_such_a_file() -> None:
    found = one(ROOT / "data" / "eval" / "questions.jsonl")
    assert found.documents is None
    assert len(found.questions) == 60
    assert sum(question.answerable for question in found.questions) == 45
    assert found.questions[0].gold == (Gold("handbook-en.pdf", 6),)
    rows = [gold for question in found.questions for gold in question.gold if gold.row]
    assert rows
    assert all(gold.document == gold.row for gold in rows)


# ── samples, held-out documents, pools ────────────────────────────────────────────────────────


def _many(count: int = 40) -> Dataset:
    documents = tuple(Document(f"d{n}", f"title {n // 2}", f"text {n}") for n in range(count))
    questions = tuple(Question(f"q{n}", "?", "en", ("a",), gold=(Gold(f"d{n}"),)) for n in range(count))
    return Dataset("many", questions, documents)


def test_a_sample_is_always_the_same_and_part_of_every_larger_one() -> None:
    small, large = (datasets.sample(_many(), n, seed=1) for n in (5, 20))
    assert len(small.questions) == 5
    assert set(small.questions) < set(large.questions)
    assert small.documents == _many().documents
    assert datasets.sample(_many(), 5, seed=1) == small
    assert datasets.sample(_many(), 5, seed=2) != small
    assert datasets.sample(_many(), 100, seed=1) == datasets.sample(_many(), None, seed=1) == _many()


def test_questions_whose_documents_were_taken_out_have_no_answer() -> None:
    whole = _many()
    part = datasets.hold_out(whole, 0.25, seed=3)
    assert part == datasets.hold_out(whole, 0.25, seed=3)
    there = {document.id for document in part.documents or ()}
    assert len(there) == 30, "five of twenty titles, of two documents each"
    for question, before in zip(part.questions, whole.questions, strict=True):
        assert question.answerable == (before.gold[0].document in there)
        assert question.answerable or (question.kind, question.gold, question.answers) == ("held_out", (), ())
    titles = {document.title for document in part.documents or ()}
    assert not titles & {document.title for document in whole.documents or () if document.id not in there}


def test_documents_that_answer_one_question_go_together() -> None:
    documents = tuple(Document(name, "", name) for name in "abcdef")
    questions = (
        Question("both", "?", "en", gold=(Gold("a"), Gold("b"))),
        Question("either", "?", "en", gold=(Gold("b"), Gold("c")), any_gold=True),
        Question("other", "?", "en", gold=(Gold("d"),)),
        Question("none", "?", "en", answerable=False),
    )
    for seed in range(8):
        part = datasets.hold_out(Dataset("few", questions, documents), 0.5, seed=seed)
        there = {document.id for document in part.documents or ()}
        assert there in ({"a", "b", "c", "e", "f"}, {"d", "e", "f"})
        for question in part.questions:
            assert all(gold.document in there for gold in question.gold)
            assert question.answerable == bool(question.gold)


def test_what_cannot_be_taken_out_is_said() -> None:
    question = Question("q", "?", "en", gold=(Gold("a"),))
    with pytest.raises(InvalidInput, match="brings no documents"):
        datasets.hold_out(Dataset("none", (question,)), 0.5, seed=0)
    with pytest.raises(InvalidInput, match="share all their documents"):
        datasets.hold_out(Dataset("one", (question,), (Document("a", "", "x"),)), 0.5, seed=0)


def test_a_pool_has_the_documents_of_all_and_knows_which_are_the_same() -> None:
    english = Question("q", "Who?", "en", gold=(Gold("en:1"),), parallel=("zh:1",))
    one_, two = (
        Dataset("english", (english,), (Document("en:1", "", "Rollo"), Document("en:2", "", "Drogo"))),
        Dataset("chinese", (Question("z", "谁？", "zh", gold=(Gold("zh:1"),)),), (Document("zh:1", "", "罗洛"),)),
    )
    pooled, other = datasets.pooled([one_, two], {"en:2": "other:2"})
    assert {document.id for document in pooled.documents or ()} == {"en:1", "other:2", "zh:1"}
    assert pooled.documents == other.documents
    assert (pooled.questions[0].gold, pooled.questions[0].any_gold) == ((Gold("en:1"), Gold("zh:1")), True)
    (crossed,) = datasets.across([one_, two])
    assert crossed.name == "english → chinese"
    assert (crossed.documents, crossed.questions[0].gold) == (two.documents, (Gold("zh:1"),))
