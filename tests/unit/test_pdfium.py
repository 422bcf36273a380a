"""PDFium reads the text of PDFs; whatever it does to itself, pypdf takes over, and the record says so."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from io import BytesIO

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

from ingest.readers import pdfium, pdfium_process
from ingest.readers.lines import CELL, Line, unmapped_share
from ingest.readers.options import ReadOptions
from ingest.readers.pdf import read_pdf
from ingest.readers.pdf_pages import is_doubtful
from rag.models import Parsed
from tests.readers_checks import check_parsed

PAGES = ("The first page says this in full.", "The second page says that in full.", "The third page says no more.")
NAMES = ("Alpha", "Bravo", "Charlie", "Delta", "Echo")
Draw = Callable[[Canvas], None]


def built(*pages: Draw) -> bytes:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=A4)
    for page in pages:
        canvas.setFont("Helvetica", 10)
        page(canvas)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def saying(text: str) -> Draw:
    return lambda canvas: canvas.drawString(72, 700, text)


def three_pages() -> bytes:
    return built(*map(saying, PAGES))


def page_lines(draw: Draw) -> list[Line]:
    lines = pdfium.Document(built(draw), password="").page_lines(0)
    assert lines is not None
    return lines


def read(data: bytes) -> Parsed:
    parsed = read_pdf(data, options=ReadOptions(ocr=False))
    check_parsed(parsed)
    return parsed


def notes(parsed: Parsed) -> list[str]:
    return [problem.detail for problem in parsed.problems if problem.code == "reader"]


# ── what a line is ────────────────────────────────────────────────────────────────────────────


def test_a_line_knows_its_place_size_and_weight() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica-Bold", 14)
        canvas.drawString(72, 700, "Repairs")
        canvas.setFont("Helvetica", 10)
        canvas.drawString(90, 680, "Send it in.")

    heading, text = page_lines(draw)
    assert (heading.text, heading.size, heading.bold) == ("Repairs", 14, True)
    assert (text.text, text.size, text.bold) == ("Send it in.", 10, False)
    assert [(round(line.x), round(line.y)) for line in (heading, text)] == [(72, 700), (90, 680)]
    assert text.right == pytest.approx(90 + pdfmetrics.stringWidth("Send it in.", "Helvetica", 10), abs=0.5)


def test_cells_are_apart_and_stretched_sentences_are_not() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(72, 700, "Rotterdam")
        canvas.drawString(200, 700, "86")
        canvas.drawString(72, 680, "It ends here.")
        canvas.drawString(72 + pdfmetrics.stringWidth("It ends here.", "Helvetica", 10) + 13, 680, "And goes on.")

    assert [line.text for line in page_lines(draw)] == [f"Rotterdam{CELL}86", "It ends here. And goes on."]


def test_a_footnote_mark_stays_at_its_word_and_the_row_whole() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(72, 700, "Adjustments")
        canvas.setFont("Helvetica", 6)
        canvas.drawString(72 + pdfmetrics.stringWidth("Adjustments", "Helvetica", 10), 704, "(1)")
        canvas.setFont("Helvetica", 10)
        canvas.drawString(300, 700, "(15)")

    assert [line.text for line in page_lines(draw)] == [f"Adjustments(1){CELL}(15)"]


def test_text_that_runs_upwards_has_its_own_frame() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.rotate(90)
        canvas.drawString(100, -200, "Running upwards")
        canvas.drawString(100, -220, "in two lines")

    first, second = page_lines(draw)
    assert (first.text, second.text) == ("Running upwards", "in two lines")
    assert first.y - second.y == pytest.approx(20, abs=0.5)
    assert first.x == pytest.approx(100, abs=1.5)


# ── where pypdf reads ─────────────────────────────────────────────────────────────────────────


def test_both_readers_make_the_same_of_a_plain_document(monkeypatch: pytest.MonkeyPatch) -> None:
    by_pdfium = read(three_pages())
    assert not by_pdfium.problems
    monkeypatch.setattr(pdfium, "load", lambda: False)
    by_pypdf = read(three_pages())
    assert (by_pypdf.text, by_pypdf.blocks, by_pypdf.status) == (by_pdfium.text, by_pdfium.blocks, "ok")
    assert notes(by_pypdf) == ["Read by pypdf instead of PDFium: pages 1-3."]


def test_cells_of_a_column_that_say_the_same_are_all_kept() -> None:
    """PDFium takes letters without outlines that say the same for one printed twice."""
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))

    def draw(canvas: Canvas) -> None:
        canvas.setFont("STSong-Light", 10)
        for row, name in enumerate(("春节", "清明节", "端午节", "中秋节")):
            canvas.drawString(72, 700 - 20 * row, f"{row + 1} {name}")
            canvas.drawString(200, 700 - 20 * row, "无")

    assert read(built(draw)).text.count("无") == 4


def test_letters_that_run_to_the_left_and_letters_without_a_name_are_for_pypdf() -> None:
    def line(text: str) -> list[Line]:
        return [Line(text, x=72, y=700, right=500, size=10)]

    assert is_doubtful(line("שלום עולם"))
    assert is_doubtful(line("مرحبا"))
    assert is_doubtful(line("a sign \ue001 that no font names"))
    assert not is_doubtful(line("Ordinary text, 普通的文字。 12 % of 3 €."))
    assert unmapped_share("ab\ufffd\ue000") == 0.5
    assert unmapped_share("") == 0.0


# ── what PDFium does to itself ────────────────────────────────────────────────────────────────


def abort() -> None:
    os.abort()


def hang() -> None:
    time.sleep(600)


def fill_the_memory() -> None:
    hog = [bytearray(2**24) for _ in range(256)]
    assert hog


@pytest.mark.parametrize("harm", [abort, hang, fill_the_memory])
def test_a_page_that_harms_pdfium_is_read_by_pypdf_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch, harm: Callable[[], None]
) -> None:
    page_lines = pdfium.Document.page_lines

    def harmful(document: pdfium.Document, index: int) -> list[Line] | None:
        if index == 1:
            harm()
        return page_lines(document, index)

    monkeypatch.setattr(pdfium.Document, "page_lines", harmful)
    monkeypatch.setattr(pdfium_process, "_PAGE_SECONDS", 2.0)
    parsed = read(three_pages())
    assert parsed.text == "\n\n".join(PAGES)
    assert parsed.status == "ok"
    assert notes(parsed) == ["Read by pypdf instead of PDFium: page 2."]


def test_pdfium_is_given_up_where_it_dies_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    forks = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    monkeypatch.setattr(pdfium.Document, "page_lines", lambda *_: abort())
    parsed = read(built(*[saying(f"{word} stands here.") for word in NAMES]))
    assert parsed.text == "\n\n".join(f"{word} stands here." for word in NAMES)
    assert len(forks) == 3


def test_its_process_ends_with_the_reading() -> None:
    reading = pdfium_process.read_pages(three_pages(), count=3, total=3, password="", deadline=math.inf)
    next(reading)
    assert reading.gi_frame is not None
    process = reading.gi_frame.f_locals["process"]
    reading.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process._id, 0)


def test_pages_that_it_counts_otherwise_are_not_mixed_up() -> None:
    pages = pdfium_process.read_pages(three_pages(), count=2, total=2, password="", deadline=math.inf)
    assert list(pages) == [None, None]


def test_an_encrypted_document_opens_with_its_password_only() -> None:
    writer = PdfWriter(clone_from=BytesIO(three_pages()))
    writer.encrypt("secret", algorithm="AES-256")
    buffer = BytesIO()
    writer.write(buffer)
    with pytest.raises(ValueError, match="assword"):
        pdfium.Document(buffer.getvalue(), password="wrong")
    parsed = read_pdf(buffer.getvalue(), options=ReadOptions(passwords=("wrong", "secret"), ocr=False))
    assert parsed.text == "\n\n".join(PAGES)
    assert not notes(parsed)


def test_forms_that_contain_each_other_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdfium_process, "_PAGE_SECONDS", 2.0)  # PDFium may hang on them, or abort
    writer = PdfWriter(clone_from=BytesIO(built(saying(PAGES[0]))))
    forms = [DecodedStreamObject(), DecodedStreamObject()]
    references = [writer._add_object(form) for form in forms]
    for form, other in zip(forms, reversed(references), strict=True):
        form.set_data(b"/X Do /X Do")
        form.update({NameObject("/Type"): NameObject("/XObject"), NameObject("/Subtype"): NameObject("/Form")})
        form[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/XObject"): DictionaryObject({NameObject("/X"): other})}
        )
    page = writer.pages[0]
    page["/Resources"][NameObject("/XObject")] = DictionaryObject({NameObject("/X"): references[0]})
    content = DecodedStreamObject()
    content.set_data(page.get_contents().get_data() + b"\n/X Do")  # type: ignore[union-attr]
    page[NameObject("/Contents")] = writer._add_object(content)
    buffer = BytesIO()
    writer.write(buffer)
    assert PAGES[0] in read(buffer.getvalue()).text
