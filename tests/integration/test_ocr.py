"""Pictures of text are read in the sandbox where the libraries are installed, page by page and column by column."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pytest
from PIL import Image
from pypdf import PdfReader, PdfWriter
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from ingest.readers import ocr
from ingest.readers.options import ReadOptions
from ingest.readers.sandbox import Sandbox
from tests.readers_checks import check_parsed

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(not ocr.available(), reason="the `ocr` extra is not installed"),
]
LEFT = ("The pump runs for", "twelve hours on one", "charge of its battery.", "Charge it at night.")
RIGHT = ("Clean the filter once", "a month with warm", "water and no soap at", "all, then let it dry.")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox(memory_bytes=2048 * 2**20, timeout_seconds=300)
    yield box
    box.close()


def scanned(*columns: tuple[str, ...]) -> bytes:
    """A PDF of one picture of a page with these columns."""
    import pypdfium2

    printed = BytesIO()
    canvas = Canvas(printed, pagesize=A4)
    canvas.setFont("Helvetica", 14)
    for number, column in enumerate(columns):
        for row, text in enumerate(column):
            canvas.drawString(72 + 240 * number, 700 - 20 * row, text)
    canvas.save()
    document = pypdfium2.PdfDocument(printed.getvalue())
    image: Image.Image = document[0].render(scale=150 / 72).to_pil()
    document.close()
    return as_pdf(image)


def as_pdf(image: Image.Image) -> bytes:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=A4)
    canvas.drawImage(ImageReader(image), 0, 0, *A4)
    canvas.save()
    return buffer.getvalue()


def test_two_scanned_columns_are_read_one_after_the_other(sandbox: Sandbox) -> None:
    parsed = sandbox.read(scanned(LEFT, RIGHT), name="scan.pdf", media_type=None, options=ReadOptions())
    check_parsed(parsed)
    assert (parsed.status, parsed.pages[0].status) == ("ok", "ocr")
    words = parsed.text.split()
    assert words == [word for text in LEFT + RIGHT for word in text.split()]


def test_a_document_of_print_and_scan_is_read_page_by_page(sandbox: Sandbox) -> None:
    writer = PdfWriter()
    printed = BytesIO()
    canvas = Canvas(printed, pagesize=A4)
    canvas.drawString(72, 700, "This page was printed, and has its text with it.")
    canvas.save()
    for data in (printed.getvalue(), scanned(LEFT)):
        writer.append(PdfReader(BytesIO(data)))
    whole = BytesIO()
    writer.write(whole)
    parsed = sandbox.read(whole.getvalue(), name="mixed.pdf", media_type=None, options=ReadOptions())
    assert [page.status for page in parsed.pages] == ["text", "ocr"]
    assert parsed.status == "ok"
    assert "twelve hours" in parsed.text[parsed.pages[1].start : parsed.pages[1].end]


def test_without_time_for_it_the_pages_are_reported(sandbox: Sandbox) -> None:
    options = ReadOptions(patience_seconds=-1)
    parsed = sandbox.read(scanned(LEFT), name="scan.pdf", media_type=None, options=options)
    assert parsed.status == "needs_ocr"
    assert {problem.code for problem in parsed.problems} == {"too_large", "needs_ocr"}


def test_a_blank_picture_is_an_empty_page(sandbox: Sandbox) -> None:
    data = as_pdf(Image.new("L", (600, 800), 255))
    parsed = sandbox.read(data, name="blank.pdf", media_type=None, options=ReadOptions())
    assert (parsed.status, parsed.pages[0].status) == ("empty", "empty")


def test_with_too_little_memory_for_it_the_pages_are_reported() -> None:
    box = Sandbox(memory_bytes=300 * 2**20, timeout_seconds=300)
    try:
        parsed = box.read(scanned(LEFT), name="scan.pdf", media_type=None, options=ReadOptions())
    finally:
        box.close()
    assert parsed.status == "needs_ocr"
