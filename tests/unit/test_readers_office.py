"""Word and PowerPoint: document order, headings, lists, tables, slides."""

from __future__ import annotations

from datetime import date, datetime
from io import BytesIO
from typing import Any

import docx
import pptx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from ingest.readers.numbering import in_format
from ingest.readers.office import about
from rag.errors import DocumentError
from tests.parsed_checks import block_with, parse, text_of, texts


def saved(document: Any) -> bytes:
    file = BytesIO()
    document.save(file)
    return file.getvalue()


def fill(table: Any, rows: list[list[str]]) -> None:
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            table.cell(number, column).text = value


def test_word_is_read_in_document_order() -> None:
    document = docx.Document()
    document.core_properties.title, document.core_properties.author = "劳动合同", "王明"
    document.core_properties.modified = datetime(2024, 3, 1)
    document.add_heading("Terms", 1)
    document.add_paragraph("Before the table")
    fill(document.add_table(rows=3, cols=2), [["Region", "Sales"], ["North", "12"], ["South", "15"]])
    document.add_heading("Details", 2)
    document.add_paragraph("After the table")
    document.add_paragraph("point", style="List Bullet")
    document.add_paragraph("one", style="List Number")
    document.add_paragraph("two", style="List Number")
    document.sections[0].header.paragraphs[0].text = "RUNNING HEADER"
    parsed = parse(saved(document), "a.docx")
    assert "|".join(texts(parsed)) == (
        "Terms|Before the table|Region: North; Sales: 12|Region: South; Sales: 15"
        "|Details|After the table|- point|1. one|2. two"
    )
    assert block_with(parsed, "After").section == ("Terms", "Details")
    assert block_with(parsed, "South").row == "3"
    assert (parsed.title, parsed.metadata["author"], str(parsed.metadata["date"])) == ("劳动合同", "王明", "2024-03-01")


@pytest.mark.parametrize("made", [docx.Document, pptx.Presentation])
def test_the_day_on_which_a_librarys_template_was_saved_is_no_date_of_the_document(made: Any) -> None:
    document = made()
    assert "date" not in about(document.core_properties)[1]
    document.core_properties.modified = datetime(2024, 3, 1)
    assert about(document.core_properties)[1]["date"] == date(2024, 3, 1)


def test_chinese_heading_styles_are_headings() -> None:
    document = docx.Document()
    style = document.styles.add_style("标题 2", WD_STYLE_TYPE.PARAGRAPH)
    based = document.styles.add_style("我的标题", WD_STYLE_TYPE.PARAGRAPH)
    based.base_style = style
    document.add_heading("第一章", 1)
    document.add_paragraph("第一节", style=style)
    document.add_paragraph("第二节", style=based)
    document.add_paragraph("正文")
    assert block_with(parse(saved(document), "a.docx"), "正文").section == ("第一章", "第二节")


def test_tracked_changes_read_as_if_accepted_and_text_boxes_are_not_lost() -> None:
    document = docx.Document()
    names = nsdecls("w")
    paragraph = document.add_paragraph("Pay ")._p
    inserted = f'<w:ins {names} w:id="1" w:author="x"><w:r><w:t>thirty</w:t></w:r></w:ins>'
    deleted = f'<w:del {names} w:id="2" w:author="x"><w:r><w:delText>GONE</w:delText></w:r></w:del>'
    box = (
        f"<w:r {names}><w:pict><w:txbxContent><w:p><w:r><w:t>In a box</w:t></w:r></w:p></w:txbxContent></w:pict></w:r>"
    )
    for part in (inserted, deleted, box):
        paragraph.append(parse_xml(part))
    control = f"<w:sdt {names}><w:sdtContent><w:p><w:r><w:t>In a control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    paragraph.addnext(parse_xml(control))
    assert texts(parse(saved(document), "a.docx")) == ["Pay thirty", "In a box", "In a control"]


def test_merged_cells_stand_in_every_row_they_span_and_once_in_each() -> None:
    document = docx.Document()
    table = document.add_table(rows=3, cols=3)
    fill(table, [["Region", "Kind", "Sales"], ["", "a", "1"], ["", "b", "2"]])
    table.cell(1, 0).merge(table.cell(2, 0)).text = "North"
    document.add_paragraph("between")
    wide = document.add_table(rows=3, cols=2)
    fill(wide, [["Item", "Price"], ["all", ""], ["x", "1"]])
    wide.cell(1, 0).merge(wide.cell(1, 1))
    assert texts(parse(saved(document), "a.docx"), "table_row") == (
        ["Region: North; Kind: a; Sales: 1", "Region: North; Kind: b; Sales: 2", "Item: all", "Item: x; Price: 1"]
    )


def test_an_empty_word_document_is_empty() -> None:
    assert parse(saved(docx.Document()), "a.docx").status == "empty"


def test_a_word_document_that_is_cut_off_is_corrupt() -> None:
    with pytest.raises(DocumentError) as raised:
        parse(saved(docx.Document())[:-500], "a.docx")
    assert raised.value.status == "corrupt"


@pytest.mark.parametrize(
    ("number", "number_format", "shown"),
    [
        (3, "chineseCounting", "三"),
        (10, "chineseCounting", "十"),
        (21, "japaneseCounting", "二十一"),
        (105, "chineseCountingThousand", "一百零五"),
        (110, "chineseCounting", "一百一十"),
        (4, "lowerRoman", "iv"),
        (28, "upperLetter", "BB"),
        (7, "decimalZero", "7"),
    ],
)
def test_numbers_look_as_in_word(number: int, number_format: str, shown: str) -> None:
    assert in_format(number, number_format) == shown


def presentation() -> Any:
    show = pptx.Presentation()
    first = show.slides.add_slide(show.slide_layouts[1])
    first.shapes.title.text = "Goals"
    first.placeholders[1].text = "Grow\nListen"
    first.notes_slide.notes_text_frame.text = "Say this slowly"
    show.slides.add_slide(show.slide_layouts[6])
    third = show.slides.add_slide(show.slide_layouts[5])
    third.shapes.title.text = "价格表"
    fill(
        third.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table,
        [["型号", "价格"], ["A1", "100元"]],
    )
    chart = CategoryChartData()
    chart.categories = ["East", "West"]
    chart.add_series("Q1", (19.5, 21))
    third.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(5), Inches(4), Inches(2), chart)
    box = third.shapes.add_textbox(Inches(1), Inches(8), Inches(4), Inches(1))
    box.text_frame.text = "Last line"
    return show


def test_slides_are_pages_and_their_titles_sections() -> None:
    parsed = parse(saved(presentation()), "a.pptx")
    assert parsed.title == "Goals"
    assert "|".join(texts(parsed)) == (
        "Goals|- Grow|- Listen|Say this slowly|价格表|型号: A1; 价格: 100元|East; Q1: 19.5|West; Q1: 21|Last line"
    )
    assert [(page.number, page.label, page.status) for page in parsed.pages] == [
        (1, "1", "text"),
        (2, "2", "empty"),
        (3, "3", "text"),
    ]
    for block in parsed.blocks:
        assert block.page is not None
        page = parsed.pages[block.page - 1]
        assert page.start <= block.start < block.end <= page.end, text_of(parsed, block)
    assert block_with(parsed, "slowly").section == ("Goals",)
    assert block_with(parsed, "A1").section == ("价格表",)


def test_an_empty_presentation_is_empty() -> None:
    assert parse(saved(pptx.Presentation()), "a.pptx").status == "empty"


def test_a_presentation_that_is_cut_off_is_corrupt() -> None:
    with pytest.raises(DocumentError) as raised:
        parse(saved(presentation())[:-2_000], "a.pptx")
    assert raised.value.status == "corrupt"
