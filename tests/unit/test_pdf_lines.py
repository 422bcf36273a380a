"""Printed lines become text that reads as it was written."""

from __future__ import annotations

from collections import Counter

import pytest

from ingest.readers.cells import joined_cells
from ingest.readers.contents import with_contents
from ingest.readers.lines import Line, is_garbled, is_table_row, tidy, without_running_lines
from ingest.readers.outline import OutlineEntry, placed_outline
from ingest.readers.paragraphs import join_lines, to_pieces
from ingest.readers.reading_order import Box, in_reading_order

SIZE = 10.0


def line(
    text: str, *, x: float = 72, y: float = 700, right: float = 500, size: float = SIZE, bold: bool = False
) -> Line:
    return Line(text, x=x, y=y, right=right, size=size, bold=bold)


@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        ("a long", "sentence", "a long sentence"),
        ("编制说明的第", "二部分", "编制说明的第二部分"),
        ("截至 2024", "年底", "截至 2024年底"),
        ("the com-", "piler", "the compiler"),
        ("in mixed-", "mode", "in mixed-mode"),
        ("a Non-", "GAAP figure", "a Non-GAAP figure"),
        ("a 10-", "year bond", "a 10-year bond"),
        ("from 2019 -", "2020", "from 2019 - 2020"),
    ],
)
def test_lines_of_a_paragraph_are_joined_as_they_were_before_they_were_set(
    before: str, after: str, joined: str
) -> None:
    assert join_lines(before, after, Counter({"mixed-mode": 2, "compiler": 1})) == joined


@pytest.mark.parametrize(
    "text",
    [
        "حبيبي السلام عليكم ورحمة الله وبركاته",
        "东北电气发展股份有限公司 2018 年第一季度报告全文",
        "1,234 (56) 7.8% — — $ 12 1,234 (56) 7.8%",
        "2023-01-28 | 10:30 | +12.5% | (3,456)",
        "........ 12\n------ 13\n***",
        "Rhythm myths try my dry lynx by the sly gym. " * 10,
        "E = mc² ∑ᵢ αᵢ ≤ √(x² + y²)",
        "",
    ],
)
def test_text_of_any_script_and_tables_of_numbers_are_not_garbled(text: str) -> None:
    assert not is_garbled(text)


@pytest.mark.parametrize(
    "text",
    [
        '"7+%-',
        "\ue001\ue002\ue003 \ue004\ue005 abc",
        "\x01\x02\x03\x04 \x05\x06",
        "���� ��� ����� ok",
        "(cid:12)(cid:33)(cid:4) (cid:7)(cid:9)",
        "7KLV GRFXPHQW GHVFULEHV KRZ ZRUGV DUH VKLIWHG LQ WKH IRQW " * 6,
    ],
)
def test_a_text_layer_without_meaning_is_garbled(text: str) -> None:
    assert is_garbled(text)


def test_letters_in_their_printed_disguise_become_the_letters_people_type() -> None:
    assert tidy("e\ufb03cient\u00a0 \ufb01re\u00ad") == "efficient fire"
    assert tidy("\u2f00\u2f8f") == "一行"


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("Revenue $ 46,298 $ 51,761 $ 47,262", True),
        ("Tax effect of above items (32) (2.1) — (4.0)", True),
        ("营业收入（元） 4,755,785.11 5,699,227.63 -16.55%", True),
        ("The year ended June 30, 2022", False),
        ("margins declined by 1.1% between fiscal 2022 and fiscal 2023.", False),
        ("Chapter 12", False),
    ],
)
def test_a_table_row_is_told_from_prose(text: str, row: bool) -> None:
    assert is_table_row(line(text)) is row


def test_a_wrapped_label_and_the_number_beside_it_are_one_row() -> None:
    lines = [
        line("归属于上市公司股东的扣除非经常性损", y=500, right=250),
        line("益的净利润（元）", y=486, right=150),
        line("-7,889,855.34 -15,424,679.15", x=260, y=493),
    ]
    assert [row.text for row in joined_cells(lines)] == [
        "归属于上市公司股东的扣除非经常性损益的净利润（元）\t-7,889,855.34 -15,424,679.15"
    ]


def test_running_headers_and_page_numbers_go_and_the_first_header_stays() -> None:
    pages = [
        [line("Annual report 2023", y=780), *body(number), line(f"- {number} -", y=40, x=290)] for number in range(1, 6)
    ]
    kept = without_running_lines(pages)
    assert [row.text for row in kept[0]] == ["Annual report 2023", *(row.text for row in body(1))]
    assert [row.text for row in kept[3]] == [row.text for row in body(4)]


def body(number: int) -> list[Line]:
    words = ("alpha", "bravo", "charlie", "delta", "echo")
    return [
        line(f"{words[number - 1]} {word} stands in the text", y=700 - 12 * at) for at, word in enumerate(words * 2)
    ]


def test_a_running_line_whose_words_stand_elsewhere_goes_from_every_page() -> None:
    pages = [[*body(number), line(f"Alpha and bravo {number}", y=40)] for number in range(1, 6)]
    pages[0].insert(0, line("Of alpha and of bravo", y=760))
    assert not any("Alpha and" in row.text for page in without_running_lines(pages) for row in page)


def test_entries_of_contents_are_known_by_their_dots_and_by_their_number() -> None:
    led = [line(f"Chapter {number} of many ........ {number * 3}", y=700 - 14 * number) for number in range(1, 6)]
    bare = [
        line(f"{number}.1 Rules of kind {chr(64 + number)}\t{number}", y=700 - 14 * number) for number in range(1, 9)
    ]
    marked = with_contents([led, bare, []])
    assert [row.text for row in marked[0]][:2] == ["Chapter 1 of many … 3", "Chapter 2 of many … 6"]
    assert all(row.contents for page in marked for row in page)


def test_a_table_of_figures_is_no_contents() -> None:
    pages = [[line(f"Region {chr(64 + number)} 12 {number}", y=700 - 14 * number) for number in range(1, 12)]]
    falling = [[line(f"Region {chr(64 + number)} {90 - number}", y=700 - 14 * number) for number in range(1, 12)]]
    assert not any(row.contents for row in with_contents(pages)[0] + with_contents(falling)[0])


def test_numbers_inside_a_table_are_never_taken_for_page_numbers() -> None:
    pages = [
        [line("Units sold", y=780), *(line(str(at + number), y=700 - 12 * at) for at in range(10))]
        for number in range(4)
    ]
    assert all("3" in [row.text for row in page] for page in without_running_lines(pages)[:3])


def test_headings_are_found_by_print_and_by_numbering_and_ranked() -> None:
    prose = "是一段足够长的正文，用来说明正文的字号，并且以句号结束，这样它就不会被当作标题。"
    pages = [
        [
            line("员工手册", y=760, size=20),
            line("第一章 总则", y=720, size=14),
            line("一" + prose, y=690),
            line("第一节 适用范围", y=660, size=12),
            line("二" + prose, y=630),
            line("第二章 休假", y=600, size=14),
            line("三" + prose, y=570),
        ]
    ]
    pieces = to_pieces(pages)
    assert [(piece.text, piece.level) for piece in pieces if piece.kind == "heading"] == [
        ("员工手册", 1),
        ("第一章 总则", 2),
        ("第一节 适用范围", 3),
        ("第二章 休假", 2),
    ]


def test_each_row_of_a_table_knows_the_names_of_its_columns() -> None:
    pages = [
        [
            line("Fiscal years ended 2023 2022 2021", y=700),
            line("Revenue 46,298 51,761 47,262", y=688),
            line("Cost of sales 36,386 40,121 36,689", y=676),
        ]
    ]
    pieces = to_pieces(pages)
    assert [piece.kind for piece in pieces] == ["table_row"] * 3
    assert [piece.header for piece in pieces] == ["", *["Fiscal years ended 2023 2022 2021"] * 2]


def test_a_first_row_of_words_above_rows_of_figures_names_the_columns() -> None:
    def row(text: str, y: float) -> Line:
        return Line(text, x=72, y=y, right=400, size=SIZE)

    pieces = to_pieces(
        [
            [
                row("Model\tRange\tBattery", 700),
                row("TL-1101\t-30 °C\t120 days", 688),
                row("TL-1207\t-40 °C\t3 years", 676),
            ],
            [row("TL-1310\t-200 °C\t18 months", 700)],
        ]
    )
    assert [piece.header for piece in pieces] == ["", *["Model | Range | Battery"] * 3]
    assert pieces[1].text == "TL-1101 | -30 °C | 120 days"


def test_column_names_that_were_stacked_above_their_columns_become_one_row() -> None:
    def cell(text: str, x: float, y: float, bold: bool = True) -> Line:
        return Line(text, x=x, y=y, right=x + 5 * len(text), size=SIZE, bold=bold, measured=True)

    rows = [
        Line(f"{month}\t3,558\t$\t71.60", x=72, y=y, right=500, size=SIZE, measured=True)
        for month, y in (("October", 660), ("November", 648))
    ]
    names = [
        cell("Period", 72, 676),
        cell("Total Number", 200, 688),
        cell("of Shares", 208, 676),
        cell("Average Price", 400, 688),
        cell("per Share", 408, 676),
    ]
    pieces = to_pieces([[*names, *rows]])
    assert pieces[0].text == "Period | Total Number of Shares | Average Price per Share"
    assert [piece.header for piece in pieces[1:]] == [pieces[0].text] * 2


def test_two_columns_of_words_are_a_table_where_rows_follow_each_other() -> None:
    def pair(text: str, y: float) -> Line:
        return Line(text, x=72, y=y, right=300, size=SIZE, measured=True)

    pieces = to_pieces([[pair("CMA\tconditional marketing authorisation", 700), pair("BOD\tBoard of Directors", 688)]])
    assert [(piece.kind, piece.text) for piece in pieces] == [
        ("table_row", "CMA | conditional marketing authorisation"),
        ("table_row", "BOD | Board of Directors"),
    ]
    alone = to_pieces([[pair("Chapter four\tLeave", 700), line("The rules on leave stand in this chapter.", y=670)]])
    assert [piece.kind for piece in alone] == ["paragraph"] * 2


@pytest.mark.parametrize("number", ["4", "4.2", "4.2.1", "Chapter 4", "Item 1A.", "第四章", "第十二条", "（二）"])
def test_a_number_set_apart_from_its_title_makes_no_table(number: str) -> None:
    pieces = to_pieces([[line(f"{number}\tAnnual leave", y=700, bold=True), line("Everyone has some days.", y=670)]])
    assert pieces[0].text == f"{number} Annual leave"
    assert pieces[0].kind in ("heading", "paragraph")


def test_signs_that_stand_apart_from_their_number_are_no_cells_of_their_own() -> None:
    pieces = to_pieces([[line("项\t目\t$\t1,200\t(3\t)\t12\t%"), line("Revenue\t$ 0.69 $\t0.23", y=680)]])
    assert [piece.text for piece in pieces] == ["项目 | $ 1,200 | (3 ) | 12 %", "Revenue | $ 0.69 | $ 0.23"]


def test_the_outline_decides_the_sections_where_there_is_one() -> None:
    pages = [[line("Intro duction", y=700), line("Words of the introduction.", y=650)], [line("More words.", y=700)]]
    outline = [
        OutlineEntry("Introduction", 1, 0, None),
        OutlineEntry("Scope", 2, 1, None),
        OutlineEntry("End", 1, 9, None),
    ]
    pieces, marks = placed_outline(to_pieces(pages), outline)
    assert (pieces[0].kind, pieces[0].level) == ("heading", 1)
    assert marks == {2: [(2, "Scope")]}


def box(text: str, left: float, top: float, width: float = 200) -> Box:
    return Box(text, left, top, left + width, top + 12)


def test_recognised_columns_are_read_one_after_the_other_under_their_title() -> None:
    left = [box(f"left {number}", 50, 100 + 15 * number) for number in range(5)]
    right = [box(f"right {number}", 300, 102 + 15 * number) for number in range(5)]
    boxes = [box("Title", 150, 40, 260), *(each for pair in zip(left, right, strict=True) for each in pair)]
    texts = [row.text for row in in_reading_order(boxes)]
    assert texts == ["Title", *(f"left {n}" for n in range(5)), *(f"right {n}" for n in range(5))]


def test_the_cells_of_a_recognised_table_row_stay_on_one_line() -> None:
    rows = [(box(f"Item {n}", 50, 100 + 20 * n, 40), box(f"{n},000", 400, 101 + 20 * n, 30)) for n in range(4)]
    texts = [row.text for row in in_reading_order([cell for row in rows for cell in row])]
    assert texts == [f"Item {n}\t{n},000" for n in range(4)]


def test_a_plain_number_heads_a_chinese_section_where_it_stands_alone() -> None:
    prose = ("公司报告期内的经营情况与上一报告期相比没有发生重大变化，具体的数", "字见下面的表格，单位为元。")

    def headings(*texts: str) -> list[str]:
        """Each text and, under it, two lines of prose where it is empty."""
        lines, y = [], 700.0
        for text in texts:
            for part in (text,) if text else prose:
                lines.append(line(part, y=y, right=72 + 10 * len(part)))
                y -= 12
            y -= 18
        return [piece.text for piece in to_pieces([lines]) if piece.kind == "heading"]

    numbered = ("5、合并现金流量表", "6、母公司现金流量表")
    assert headings(numbered[0], "", numbered[1], "") == [*numbered]
    assert headings("", "1、记下序列号", "2、问清时区", "3、报告温度", "") == []
    assert headings("", "1、营业收入下降，利润上升", "", "2、同比下降 12%", "") == []
