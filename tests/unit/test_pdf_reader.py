"""A PDF becomes text that can be cited by page and section, or an honest word on why not."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from datetime import date
from io import BytesIO

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, StreamObject
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

from ingest.readers import ocr
from ingest.readers.options import ReadOptions
from ingest.readers.pdf import pipeline, read_pdf
from rag.errors import DocumentError
from rag.models import Parsed
from tests.readers_checks import check_parsed

PROSE = (
    "The warranty covers every pump that was bought from an authorised dealer, for two years after the day of its",
    "delivery. It does not cover parts that wear out in ordinary use, such as seals and filters, or damage by frost.",
)
WITHOUT_OCR = ReadOptions(ocr=False)


def built(*pages: Callable[[Canvas], None], title: str = "", author: str = "") -> bytes:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=A4)
    canvas.setTitle(title)
    canvas.setAuthor(author)
    for page in pages:
        canvas.setFont("Helvetica", 10)
        page(canvas)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def lines(*texts: str, top: float = 760, size: float = 10, font: str = "Helvetica") -> Callable[[Canvas], None]:
    def draw(canvas: Canvas) -> None:
        canvas.setFont(font, size)
        for number, text in enumerate(texts):
            canvas.drawString(72, top - 1.2 * size * number, text)

    return draw


def both(*parts: Callable[[Canvas], None]) -> Callable[[Canvas], None]:
    return lambda canvas: [part(canvas) for part in parts] and None


def picture(canvas: Canvas) -> None:
    from PIL import Image

    canvas.drawImage(ImageReader(Image.new("L", (60, 80), 200)), 0, 0, *A4)


def read(data: bytes, options: ReadOptions = WITHOUT_OCR) -> Parsed:
    parsed = read_pdf(data, options=options)
    check_parsed(parsed)
    return parsed


def test_lines_of_a_paragraph_become_one_and_the_page_is_known() -> None:
    parsed = read(built(lines(*PROSE), lines("The second page.")))
    assert parsed.text == " ".join(PROSE) + "\n\nThe second page."
    assert [block.page for block in parsed.blocks] == [1, 2]
    assert [parsed.text[page.start : page.end] for page in parsed.pages] == [" ".join(PROSE), "The second page."]


def test_a_paragraph_goes_on_behind_a_page_break() -> None:
    """Two blocks, each on its page, and no line break between them: where pages break is no matter of the text."""
    parsed = read(built(lines(*PROSE[:1]), lines(*PROSE[1:])))
    assert parsed.text == " ".join(PROSE)
    assert [block.page for block in parsed.blocks] == [1, 2]
    assert [parsed.text[page.start : page.end] for page in parsed.pages] == [" ".join(PROSE[:1]), " ".join(PROSE[1:])]


def test_lines_of_chinese_are_joined_without_spaces() -> None:
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    text = "本手册适用于公司全体员工，自二〇二四年一月一日起施行，由人力资源部负责解释。员工每年享有"
    parsed = read(built(lines(text, "十五天带薪年假。", font="STSong-Light")))
    assert parsed.text == text + "十五天带薪年假。"


def test_large_print_makes_sections() -> None:
    page = both(
        lines("Pump handbook", top=780, size=20),
        lines("Warranty", top=740, size=14),
        lines(*PROSE, top=720),
        lines("Repairs", top=660, size=14),
        lines("Send it in.", top=640),
    )
    parsed = read(built(page))
    assert [block.section for block in parsed.blocks if block.kind == "paragraph"] == [
        ("Pump handbook", "Warranty"),
        ("Pump handbook", "Repairs"),
    ]
    assert parsed.title == "Pump handbook"


def test_the_outline_gives_sections_with_and_without_a_heading_in_the_text() -> None:
    writer = PdfWriter(clone_from=BytesIO(built(lines("Warranty", "", *PROSE), lines("Another page."), lines("End."))))
    top = writer.add_outline_item(title="Warranty", page_number=0)
    writer.add_outline_item(title="Exceptions", page_number=1, parent=top)
    writer.add_outline_item(title="Addresses", page_number=2)
    parsed = read(written(writer))
    assert [block.section for block in parsed.blocks] == [
        ("Warranty",),
        ("Warranty",),
        ("Warranty", "Exceptions"),
        ("Addresses",),
    ]


def written(writer: PdfWriter) -> bytes:
    buffer = BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_page_labels_are_those_printed_on_the_page() -> None:
    writer = PdfWriter(clone_from=BytesIO(built(*[lines(f"Page {word}") for word in ("one", "two", "three")])))
    writer.set_page_label(0, 1, style="/r")
    writer.set_page_label(2, 2, style="/D", prefix="A-")
    assert [page.label for page in read(written(writer)).pages] == ["i", "ii", "A-1"]


def test_title_author_and_date_come_from_the_document() -> None:
    parsed = read(built(lines(*PROSE), title="Pump handbook", author="Ada Wong"))
    assert parsed.title == "Pump handbook"
    assert parsed.metadata["author"] == "Ada Wong"
    assert isinstance(parsed.metadata["date"], date)


@pytest.mark.parametrize("title", ["Microsoft Word - x.doc", "untitled", "scan0001.pdf", "0000764478-23-000006"])
def test_a_title_that_a_program_made_up_is_no_title(title: str) -> None:
    assert read(built(lines(*PROSE), title=title)).title is None


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_an_encrypted_document_opens_with_its_password_and_only_with_it(algorithm: str) -> None:
    writer = PdfWriter(clone_from=BytesIO(built(lines(*PROSE))))
    writer.encrypt("sesame", algorithm=algorithm)
    data = written(writer)
    assert read(data, ReadOptions(passwords=("wrong", "sesame"), ocr=False)).status == "ok"
    for passwords in ((), ("wrong",)):
        with pytest.raises(DocumentError) as caught:
            read_pdf(data, options=ReadOptions(passwords=passwords))
        assert caught.value.status == "needs_password"


def test_a_document_locked_for_its_permissions_only_opens() -> None:
    writer = PdfWriter(clone_from=BytesIO(built(lines(*PROSE))))
    writer.encrypt("", "owner", algorithm="AES-256")
    assert read(written(writer)).status == "ok"


def test_a_picture_of_text_is_reported_and_the_readable_pages_are_kept() -> None:
    parsed = read(built(lines(*PROSE), picture, lines("The third page.")))
    assert parsed.status == "partial"
    assert [page.status for page in parsed.pages] == ["text", "needs_ocr", "text"]
    assert [(problem.code, "page 2" in problem.detail) for problem in parsed.problems] == [("needs_ocr", True)]
    assert read(built(picture, picture)).status == "needs_ocr"


def test_a_stamp_on_every_page_does_not_make_a_scan_readable() -> None:
    stamped = both(picture, lines("Downloaded from the library of the example", top=20))
    parsed = read(built(*[stamped] * 4))
    assert [page.status for page in parsed.pages] == ["needs_ocr"] * 4


def test_an_empty_page_is_empty() -> None:
    parsed = read(built(lambda canvas: None))
    assert (parsed.status, parsed.text, [page.status for page in parsed.pages]) == ("empty", "", ["empty"])


def test_garbled_pages_are_reported_and_not_indexed() -> None:
    soup = lines("#$%&'()*+ !\"#$%&' ,-./:;<= >?@[]^_` {|}~!\"#")
    parsed = read(built(soup, lines(*PROSE)))
    assert [page.status for page in parsed.pages] == ["garbled", "text"]
    assert (parsed.status, parsed.text) == ("partial", " ".join(PROSE))
    assert read(built(soup)).status == "garbled"


def test_form_fields_are_text() -> None:
    def form(canvas: Canvas) -> None:
        canvas.drawString(72, 760, "Application")
        canvas.acroForm.textfield(name="Surname", value="Wong", x=72, y=700)
        canvas.acroForm.textfield(name="Nickname", value="", x=72, y=650)
        canvas.acroForm.checkbox(name="Member", checked=True, x=72, y=600)

    parsed = read(built(form))
    assert "Surname: Wong" in parsed.text
    assert "Nickname" not in parsed.text
    assert "Member: Yes" in parsed.text


def test_a_chinese_paragraph_ends_where_its_last_line_does() -> None:
    """Its letters are as wide as the font says: lines of Latin letters and figures are no shorter than others."""
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))

    def page(canvas: Canvas) -> None:
        canvas.setFont("STSong-Light", 10)
        rows = (
            "公司于二〇一一年五月十四日成立，创始人是一位测量工程师和一位固件开发工程师，",
            "1 至 2 月, 3 至 5 月, 1 至 6 月, 5 至 8 月, Tidelark Instruments (Suzhou) Ltd., item 12 (i",
            "ll), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 (以及其他各项规定，见附录一及后",
            "文各章。",
            "工厂设生产部、质量部和工程部，各部门负责人由总经理任命。",
        )
        for number, text in enumerate(rows):
            canvas.drawString(72, 700 - 15 * number, text)

    texts = read(built(page)).text.split("\n\n")
    assert len(texts) == 2
    assert texts[0].endswith("见附录一及后文各章。")


def test_a_table_of_contents_is_a_list_and_opens_no_sections() -> None:
    titles = ["1 The company", "1.1 Where we are", "1.2 Who decides", "2 Leave", "2.1 Annual leave", "2.2 Sick leave"]

    def contents(canvas: Canvas) -> None:
        canvas.drawString(72, 760, "Contents")
        for number, title in enumerate(titles):
            canvas.drawString(72, 730 - 14 * number, title)
            canvas.drawRightString(520, 730 - 14 * number, str(2 + number // 2))

    pages = [both(lines(title, top=780, size=16), lines(*PROSE, top=740)) for title in titles]
    parsed = read(built(contents, *pages))
    entries = [block for block in parsed.blocks if block.page == 1 and block.kind == "list_item"]
    assert [parsed.text[entry.start : entry.end] for entry in entries][:2] == [
        "1 The company … 2",
        "1.1 Where we are … 2",
    ]
    assert len(entries) == len(titles)
    assert not any(
        block.kind == "heading" and "Leave" in block.section[-1] for block in parsed.blocks if block.page == 1
    )


def test_words_in_bold_at_the_start_of_paragraphs_are_no_headings_where_they_fill_a_line() -> None:
    def page(canvas: Canvas) -> None:
        answers = (
            ("Is there a canteen?", "Lunch is served from noon to one", "and costs three euros."),
            ("May I bring my dog?", "On Mondays and on Fridays only,", "after signing."),
            ("Which number do our parcels carry?", "", "The customer number."),
        )
        for number, (question, answer, more) in enumerate(answers):
            top = 700 - 40 * number
            canvas.setFont("Helvetica-Bold", 10)
            canvas.drawString(72, top, question)
            width = canvas.stringWidth(question + " ", "Helvetica-Bold", 10)
            canvas.setFont("Helvetica", 10)
            if answer:
                canvas.drawString(72 + width, top, answer)
            canvas.drawString(72, top - 13, more)

    parsed = read(built(page))
    assert [block.kind for block in parsed.blocks] == ["paragraph"] * 3
    assert parsed.text.endswith("Which number do our parcels carry? The customer number.")


def test_what_stands_on_one_line_is_read_as_one_in_whatever_order_it_was_drawn() -> None:
    def contents(canvas: Canvas) -> None:
        for number, title in enumerate(("How we came about", "Where we are", "Who decides what")):
            canvas.drawString(500, 700 - 14 * number, str(number + 1))
            canvas.drawString(72, 700 - 14 * number, title)

    assert read(built(contents)).text.splitlines() == [
        "How we came about | 1",
        "Where we are | 2",
        "Who decides what | 3",
    ]


def test_the_cells_of_a_table_row_stay_together_also_where_one_is_wrapped() -> None:
    def table(canvas: Canvas) -> None:
        for number, (label, wrapped, value) in enumerate(
            (("Invoices", "seven years,", "Deleted"), ("Visitors", "three months,", "Shredded"))
        ):
            top = 700 - 40 * number
            canvas.drawString(72, top, label)
            canvas.drawString(180, top, wrapped)
            canvas.drawString(180, top - 12, "in the archive")
            canvas.drawString(320, top, value)
            canvas.drawString(320, top - 12, "for good")

    assert read(built(table)).text.splitlines() == [
        "Invoices | seven years, in the archive | Deleted for good",
        "Visitors | three months, in the archive | Shredded for good",
    ]


@pytest.mark.parametrize(
    "data",
    [b"", b"%PDF-1.4\n", b"%PDF-1.7 hello", b"not a pdf at all", built(lines(*PROSE * 40))[:1500]],
    ids=["nothing", "header", "nonsense", "foreign", "cut short"],
)
def test_what_is_no_complete_pdf_is_corrupt(data: bytes) -> None:
    with pytest.raises(DocumentError) as caught:
        read_pdf(data, options=ReadOptions())
    assert caught.value.status == "corrupt"


def bomb() -> bytes:
    """A page whose content unpacks to 400 MB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"0 0 m " * 2**20) for _ in range(66)) + packer.flush()
    writer = PdfWriter(clone_from=BytesIO(built(lines("A page."))))
    page = writer.pages[0]
    stream = StreamObject()
    stream._data = packed
    stream[NameObject("/Filter")] = NameObject("/FlateDecode")
    page[NameObject("/Contents")] = writer._add_object(stream)
    return written(writer)


def test_a_bomb_is_too_large() -> None:
    with pytest.raises(DocumentError) as caught:
        read_pdf(bomb(), options=ReadOptions())
    assert caught.value.status == "too_large"


def test_a_form_that_draws_itself_ends() -> None:
    writer = PdfWriter(clone_from=BytesIO(built(lines(*PROSE))))
    page = writer.pages[0]
    form = DecodedStreamObject()
    form.set_data(b"/X Do")
    form.update({NameObject("/Type"): NameObject("/XObject"), NameObject("/Subtype"): NameObject("/Form")})
    reference = writer._add_object(form)
    form[NameObject("/Resources")] = page["/Resources"]
    page["/Resources"][NameObject("/XObject")] = writer._add_object(DictionaryObject({NameObject("/X"): reference}))
    assert " ".join(PROSE) in read(written(writer)).text


def test_pages_beyond_the_limit_are_named() -> None:
    parsed = read(built(*[lines(f"Page {word}.") for word in ("one", "two", "three")]), ReadOptions(max_pages=2))
    assert (parsed.status, len(parsed.pages)) == ("partial", 2)
    assert parsed.problems[0].code == "too_large"


def test_when_patience_is_up_what_was_read_counts() -> None:
    parsed = read(built(lines("Page one."), lines("Page two.")), ReadOptions(patience_seconds=-1))
    assert (parsed.status, parsed.text) == ("partial", "Page one.")
    assert "1 of 2 pages" in parsed.problems[0].detail


def test_words_at_the_top_of_page_after_page_are_no_headings() -> None:
    pages = [
        both(lines("NOTES TO THE ACCOUNTS", font="Helvetica-Bold"), lines(f"{word} {PROSE[0]}", PROSE[1], top=700))
        for word in ("Alpha", "Bravo", "Charlie", "Delta", "Echo")
    ]
    parsed = read(built(*pages, *[lines(*PROSE)] * 6))
    assert all(block.kind == "paragraph" for block in parsed.blocks)


def test_pypdf_is_silent(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    data = built(lines(*PROSE)).replace(b"startxref\n", b"startxref\n1")
    with caplog.at_level(logging.DEBUG):
        read(data)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_the_fingerprint_says_whether_pictures_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "available", lambda: True)
    assert pipeline(ReadOptions()) == "pdf/4+ocr/1"
    assert pipeline(ReadOptions(ocr=False)) == "pdf/4"
    monkeypatch.setattr(ocr, "available", lambda: False)
    assert pipeline(ReadOptions()) == "pdf/4"
