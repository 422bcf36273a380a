"""What a collection calls by two names, found in its texts and used across languages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select

from rag.answer import Assistant, Question
from rag.answering.evidence import ENOUGH, evidence
from rag.catalog import aliases
from rag.catalog.tables import aliases as table
from rag.catalog.tables import facts
from rag.knowledge import KnowledgeBase
from rag.text.glossary import Alias, Translated, mine, names_in, translate
from rag.upkeep.inspection import inspect, repair
from rag.upkeep.retention import purge
from tests.bases import Bases, file, found_texts, publish_text, runs_in, source_in
from tests.fakes import HashEmbedder


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    opened = Bases(tmp_path, embedder=HashEmbedder(reads_chinese=False))
    yield opened
    opened.assert_sound()
    opened.close()


def pairs(text: str) -> list[tuple[str, str]]:
    return [(item.zh, item.en) for item in mine(text)]


# ── mining ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("本手册规定退货政策（return policy）适用于所有订单。", [("退货政策", "return policy")]),
        (
            "服务等级协议(Service Level Agreement，SLA)",
            [("服务等级协议", "service level agreement"), ("服务等级协议", "sla")],
        ),
        ("保養期限（Warranty Periods）", [("保养期限", "warranty period")]),
        ("The flexible working policy (弹性工作制) applies to all.", [("弹性工作制", "flexible working policy")]),
        ("公司采用“零信任”（zero trust）架构。", [("零信任", "zero trust")]),
        ("人工智能（英语：artificial intelligence）", [("人工智能", "artificial intelligence")]),
        ("# Return policy 退货政策", [("退货政策", "return policy")]),
        ("3.2 年假 / Annual leave\n员工每年享有十五天。", [("年假", "annual leave")]),
        ("中文: 年假\nEnglish: annual leave", [("年假", "annual leave")]),
    ],
)
def test_pairs_that_a_text_spells_out_are_found(text: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "包装重量（kg）",
        "见下图（see Figure 3）",
        "会议在三月（Mar）举行",
        "价格为 300 元（约 42 USD，含税）",
        "He left (in 1999) for Berlin (Germany).",
        "退货须在三十天内（含节假日）提出。",
        "The price is 300 (plus tax).",
        "合计（A＋B）",
        "",
    ],
)
def test_units_references_and_remarks_are_no_names(text: str) -> None:
    assert pairs(text) == []


def test_a_name_before_a_bracket_does_not_take_in_the_sentence_before_it() -> None:
    for zh, _ in pairs("他在加州大学伯克利分校（UC Berkeley）学习。"):
        assert not zh.startswith("他在")


# ── a question's names ────────────────────────────────────────────────────────────────────────

KNOWN = [(Alias("退货政策", "return policy"), 3), (Alias("政策", "policy"), 9), (Alias("年假", "annual leave"), 1)]


def test_the_longest_name_counts_and_none_inside_it() -> None:
    assert translate("线上订单的退货政策是什么？", KNOWN) == [Translated("退货政策", ("return policy",))]
    assert translate("What are the Return Policies for gifts?", KNOWN) == [Translated("return policy", ("退货政策",))]


def test_a_question_without_such_names_is_left_alone() -> None:
    assert translate("保修期多长？", KNOWN) == []
    assert translate("Who founded the company?", KNOWN) == []


def test_traditional_characters_name_the_same() -> None:
    assert "退货政策" in names_in("退貨政策是什麼")


# ── across languages ──────────────────────────────────────────────────────────────────────────

MANUAL = (
    "Return policy: goods may be sent back within thirty days of delivery, unused.\nOpening hours are nine to five."
)
HANDBOOK = "本手册第三章规定退货政策（return policy）。\n食堂每天十一点半开放。\n班车早上七点发车。"


def with_both(base: KnowledgeBase) -> str:
    collection, source = source_in(base)
    publish_text(base, collection, source, "manual", MANUAL)
    return publish_text(base, collection, source, "handbook", HANDBOOK)[0]


def test_a_chinese_question_finds_the_english_passage_that_a_chinese_one_names(bases: Bases) -> None:
    base = bases.open()
    with_both(base)
    texts = found_texts(base, "退货政策是什么？", k=2)
    assert any(text.startswith("Return policy") for text in texts)


def test_an_english_question_finds_the_chinese_passage(bases: Bases) -> None:
    base = bases.open()
    collection, source = source_in(base)
    publish_text(base, collection, source, "handbook", "弹性工作制（flexible working）\n食堂每天十一点半开放。")
    publish_text(base, collection, source, "rules", "申请弹性工作制须提前两周。\n班车早上七点发车。")
    texts = found_texts(base, "How early must flexible working be applied for?", k=2)
    assert "申请弹性工作制须提前两周。" in texts


def test_an_english_passage_alone_is_evidence_for_a_chinese_question(bases: Bases) -> None:
    """Where no Chinese passage tells it, the words that count are those of the other language."""
    base = bases.open()
    with_both(base)
    found = Assistant(base, model=None).search(Question("退货政策是什么？"))
    english = next(hit for hit in found.hits if hit.text.startswith("Return policy"))
    assert evidence(replace(found, hits=(english,))) >= ENOUGH
    without = tuple(replace(word, also=()) for word in found.keywords)
    assert evidence(replace(found, hits=(english,), keywords=without)) < ENOUGH


def test_what_is_deleted_or_superseded_names_nothing_any_more(bases: Bases) -> None:
    base = bases.open()
    runs = runs_in(base)
    manual, handbook = file("manual.txt", MANUAL), file("handbook.txt", HANDBOOK)
    runs.sync(manual, handbook)
    asked = names_in("退货政策是什么？")

    def known() -> list[tuple[Alias, int]]:
        with base.catalog.read() as snapshot:
            return aliases.find(snapshot, asked, [runs.collection.index_id])

    assert known() == [(Alias("退货政策", "return policy"), 1)]
    runs.sync(manual, file("handbook.txt", "食堂每天十一点半开放。"))
    assert known() == []


def test_a_purge_takes_the_names_too(bases: Bases) -> None:
    base = bases.open()
    document_id = with_both(base)
    purge(base, document_id)
    with base.catalog.read() as snapshot:
        assert snapshot.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_a_catalog_without_a_glossary_gets_one_and_a_second_start_does_nothing(bases: Bases) -> None:
    base = bases.open()
    with_both(base)
    with base.catalog.read() as snapshot:
        before = snapshot.execute(select(table.c.chunk_key, table.c.zh, table.c.en)).all()
    with base.catalog.write() as connection:
        connection.execute(delete(table))
        connection.execute(delete(facts).where(facts.c.name == "glossary"))
    aliases.bring_up_to_date(base.catalog)
    with base.catalog.read() as snapshot:
        after = snapshot.execute(select(table.c.chunk_key, table.c.zh, table.c.en)).all()
    assert before == after != []
    with base.catalog.write() as connection:
        connection.execute(delete(table))
    aliases.bring_up_to_date(base.catalog)
    with base.catalog.read() as snapshot:
        assert snapshot.execute(select(func.count()).select_from(table)).scalar_one() == 0, "it was complete"
    assert all(item.repaired for item in repair(base, inspect(base))), "what was lost since then the doctor finds"
