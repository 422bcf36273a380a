"""Plain text: the right characters out of any encoding, and structure where it is certain."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.readers.encoding import decode, looks_binary
from tests.parsed_checks import block_with, parse, texts

SIMPLIFIED = (
    "中文",
    "联通",
    "北京",
    "合同编号",
    "产品手册",
    "你好，世界",
    "第三条 甲方应当在收到货物后付款。",
    "姓名,年龄\n张三,30\n李四,25",
    "公司在第三季度的收入为1200万元，比去年同期增长百分之十二。\n董事会决定在上海设立研发中心。\n" * 40,
)
TRADITIONAL = (
    "合約編號",
    "國家圖書館",
    "第三條 甲方應於收到貨物後付款。",
    "公司在第三季度的收入為1200萬元，比去年同期增長百分之十二。\n董事會決定在上海設立研發中心。\n" * 40,
)
GERMAN = ("für", "Müller", "Straße", "Grüße aus Köln", "Ärger über Öl: die Größe beträgt 12 m², der Preis 5 €.")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", SIMPLIFIED)
def test_simplified_chinese_is_read_in_every_encoding_however_short(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


@pytest.mark.parametrize("encoding", ["utf-8", "big5", "gb18030", "utf-16-le"])
@pytest.mark.parametrize("text", TRADITIONAL)
def test_traditional_chinese_is_read_in_every_encoding_however_short(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16-le"])
@pytest.mark.parametrize("text", GERMAN)
def test_german_is_not_taken_for_chinese(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Привет, как дела? Это тестовое сообщение на русском языке.", "cp1251"),
        ("Zażółć gęślą jaźń w Łodzi", "cp1250"),
        ("これは日本語のテキストです。会社の説明を読みます。", "cp932"),
    ],
)
def test_other_scripts_are_read(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


@pytest.mark.parametrize("cut", range(1, 6))
def test_utf8_cut_within_a_character_stays_utf8(cut: int) -> None:
    data = SIMPLIFIED[-1].encode()
    assert decode(data[:-cut])[1] == "utf-8"
    assert decode(data[cut:])[1] == "utf-8"
    assert decode(data[:500] + data[500 + cut :])[1] == "utf-8"


@pytest.mark.parametrize("cut", range(1, 4))
def test_gb18030_cut_within_a_character_stays_gb18030(cut: int) -> None:
    assert decode(SIMPLIFIED[-1].encode("gb18030")[:-cut])[1] == "gb18030"


def test_a_declared_encoding_counts_where_it_makes_sense_and_only_there() -> None:
    assert decode("안녕하세요 이것은 한국어 텍스트입니다".encode("cp949"), "euc-kr")[0].startswith("안녕하세요")
    assert decode("合同编号".encode("gb18030"), "iso-8859-1")[0] == "合同编号"
    assert decode("合同编号".encode(), "gb2312")[0] == "合同编号"
    assert decode("合同".encode("gbk"), "no-such-encoding")[0] == "合同"
    assert decode("合同".encode("gbk"), "base64")[0] == "合同"


@given(st.binary(max_size=300))
def test_any_bytes_give_some_text(data: bytes) -> None:
    text, encoding = decode(data)
    assert isinstance(text, str)
    assert encoding


def test_rubbish_is_told_from_text() -> None:
    assert looks_binary(bytes(range(256)))
    assert all(looks_binary(os.urandom(4_000)) for _ in range(5))
    assert not any(looks_binary(text.encode("gb18030")) for text in SIMPLIFIED)
    assert not any(looks_binary(text.encode("cp1252")) for text in GERMAN)


def test_unreadable_characters_are_reported() -> None:
    good = SIMPLIFIED[-1][:100].encode()
    damaged = b"".join(good[at : at + 30] + b"\xe4" for at in range(0, 300, 30))
    assert [problem.code for problem in parse(damaged, "a.txt").problems] == ["encoding-uncertain"]
    assert not parse(good, "a.txt").problems


def test_nothing_but_white_space_is_empty() -> None:
    assert parse(b"", "a.txt").status == "empty"
    assert parse(b" \r\n\t\n", "a.txt").status == "empty"


def test_a_law_has_its_chapters_as_sections() -> None:
    parsed = parse(
        "劳动合同管理办法\n\n第一章 总则\n\n第一条 为了明确双方权利义务，制定本办法。\n第二条 适用于全体员工。\n\n"
        "第二章 订立\n一、书面形式\n劳动合同应当以书面形式订立。\n",
        "a.txt",
    )
    assert parsed.title == "劳动合同管理办法"
    assert block_with(parsed, "为了明确").section == ("第一章 总则",)
    assert block_with(parsed, "书面形式订立").section == ("第二章 订立", "一、书面形式")
    assert block_with(parsed, "第二条").kind == "paragraph"


def test_a_replacement_character_in_the_bytes_is_not_chinese() -> None:
    for text in ("The gate\ufffdopens at nine.", "Two\ufffd\ufffdof them are on their way.", "the caf\ufffd there"):
        assert decode(text.encode()) == (text, "utf-8")
        assert not looks_binary(text.encode())


def test_english_headings_are_certain_only_between_blank_lines() -> None:
    parsed = parse("1.2 Scope\n\nAdd\n1.5 kg of flour\nas Section 5 of the Act\nsays.\n\n- one\n- two\n", "a.txt")
    assert texts(parsed, "heading") == ["1.2 Scope"]
    assert texts(parsed, "list_item") == ["- one", "- two"]
    assert block_with(parsed, "flour").section == ("1.2 Scope",)


@given(st.text(alphabet=st.sampled_from("ab 第一章二条、。.:-\n\r\t\u3000\x00\x0b\u2028é1"), max_size=200))
def test_offsets_of_any_text_are_exact(text: str) -> None:
    from ingest.readers.options import ReadOptions
    from ingest.readers.text import read_text
    from tests.parsed_checks import assert_exact

    parsed = read_text(text.encode(), options=ReadOptions())
    assert_exact(parsed)
    assert not set(text.replace("\x00", "").split()) - set(parsed.text.split()) or "\x00" in text
