"""PDF: text, structure and an honest status per page. The door to pypdf.

PDFium reads the text of pages, several times as fast; pypdf reads what PDFium cannot, and all else that a PDF says of
itself.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar

from ingest.readers import ocr, pdfium_process
from ingest.readers.blocks import Blocks
from ingest.readers.lines import without_running_lines
from ingest.readers.options import ReadOptions
from ingest.readers.outline import OutlineEntry, SectionPath, placed_outline
from ingest.readers.paragraphs import to_pieces
from ingest.readers.pdf_facts import form_values, metadata_of, outline_entries, title_of
from ingest.readers.pdf_lines import image_share, page_lines
from ingest.readers.pdf_pages import (
    PageText,
    by_pypdf,
    document_status,
    is_doubtful,
    judge_pages,
    page_problems,
    raise_if_nothing,
    thin_pages,
)
from ingest.readers.pdf_pen import Font, Pen
from ingest.readers.pieces import Piece, body_size
from rag.errors import DocumentError
from rag.models import MetadataValue, Parsed, Problem

if TYPE_CHECKING:
    from pypdf import PdfReader

VERSION = "pdf/4"
T = TypeVar("T")


def pipeline(options: ReadOptions) -> str:
    """The fingerprint of this reader: what it makes of the same bytes changes only when this changes."""
    return f"{VERSION}+{ocr.VERSION}" if options.ocr and ocr.available() else VERSION


def read_pdf(data: bytes, *, options: ReadOptions) -> Parsed:
    """The text, page by page. Raises DocumentError where nothing can be had: corrupt, needs_password, too_large."""
    deadline = time.monotonic() + options.patience_seconds
    no_outline: list[OutlineEntry] = []
    no_metadata: dict[str, MetadataValue] = {}
    with _quiet_pypdf() as lost:
        reader, password = _open(data, options)
        pages = _read_pages(reader, data, password, options, deadline)
        raise_if_nothing(pages)
        judge_pages(pages)
        problems = _read_pictures(data, pages, password, options, deadline)
        problems += page_problems(pages)
        if lost:
            problems.append(Problem("corrupt", f"Some parts of pages could not be decoded ({lost[0]})."))
        total = len(reader.pages)
        if total > len(pages):
            problems.append(Problem("too_large", f"Only the first {len(pages)} of {total} pages were read."))
        outline = _try(lambda: outline_entries(reader), no_outline)
        title: str | None = _try(lambda: title_of(reader), None)
        metadata = _try(lambda: metadata_of(reader), no_metadata)
    return _assemble(pages, outline, problems, title, metadata)


# ── opening ───────────────────────────────────────────────────────────────────────────────────


def _open(data: bytes, options: ReadOptions) -> tuple[PdfReader, str]:
    """The reader, decrypted, and the password that did it ("" for none)."""
    from pypdf import PdfReader
    from pypdf.errors import LimitReachedError

    try:
        reader = PdfReader(BytesIO(data))
        password = _decrypt(reader, options.passwords) if reader.is_encrypted else ""
        len(reader.pages)
    except (MemoryError, DocumentError):
        raise
    except LimitReachedError as error:
        raise DocumentError("too_large", f"This PDF unpacks to more than is safe to read: {error}") from error
    except Exception as error:  # pypdf promises no closed set of exceptions for broken files (pypdf/errors.py)
        raise DocumentError(
            "corrupt", f"This is not a complete PDF: {error}.", remedy="Download or export it again."
        ) from error
    return reader, password


def _decrypt(reader: PdfReader, passwords: Sequence[str]) -> str:
    for password in (
        "",
        *passwords,
    ):  # many files are encrypted for their permissions only: the empty password opens them
        if reader.decrypt(password):
            return password
    tried = "none was given" if not passwords else "none of those given opens it"
    raise DocumentError("needs_password", f"This PDF wants a password, and {tried}.", remedy="Give its password.")


@contextmanager
def _quiet_pypdf() -> Iterator[list[str]]:
    """Keeps pypdf off the log; yields the list of what it had to leave out."""
    lost: list[str] = []

    class Gather(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Impossible to decode"):
                lost.append(record.getMessage())

    logger, handler = logging.getLogger("pypdf"), Gather()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old ciphers and odd files warn; the statuses say what matters
            yield lost
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _try(read: Callable[[], T], default: T) -> T:
    """What `read` returns, or the default where the file is broken in this place."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # pypdf promises no closed set of exceptions for broken files (pypdf/errors.py)
        return default


# ── pages ─────────────────────────────────────────────────────────────────────────────────────


def _read_pages(reader: PdfReader, data: bytes, password: str, options: ReadOptions, deadline: float) -> list[PageText]:
    total = len(reader.pages)
    count = min(total, options.max_pages)
    no_labels: list[str] = []
    labels = _try(lambda: reader.page_labels, no_labels)
    has_form = _try(lambda: "/AcroForm" in reader.root_object, True)
    pages: list[PageText] = []
    fonts: dict[object, Font | None] = {}
    by_pdfium = pdfium_process.read_pages(data, count=count, total=total, password=password, deadline=deadline)
    with closing(by_pdfium):
        for index, lines in enumerate(by_pdfium):
            if index > 0 and time.monotonic() > deadline:
                break
            label = labels[index] if index < len(labels) and labels[index] else str(index + 1)
            if lines is None or is_doubtful(lines):
                seen = _read_page(reader, index, label, fonts)
                pages.append(seen if seen.lines else seen.with_lines(lines or []))
            else:
                pages.append(PageText(label, lines))
                if has_form:
                    pages[-1].fields = _fields(reader, index)
            # pypdf keeps every object it has met; a long filing need not stay in memory whole.
            if index % 50 == 49:
                reader.resolved_objects.clear()
    for index in thin_pages(pages):  # their pictures count, which pypdf measures
        if not pages[index].by_pypdf and (index == 0 or time.monotonic() <= deadline):
            seen = _read_page(reader, index, pages[index].label, fonts)
            pages[index] = seen if seen.letters > pages[index].letters else seen.with_lines(pages[index].lines)
    return pages


def _read_page(reader: PdfReader, index: int, label: str, fonts: dict[object, Font | None]) -> PageText:
    from pypdf.errors import LimitReachedError

    page = PageText(label, by_pypdf=True)
    try:
        source = reader.pages[index]
        page.lines, drawn = page_lines(source, Pen(fonts))
        page.picture = image_share(source, drawn, has_text=bool(page.lines))
    except MemoryError:
        raise
    except LimitReachedError:
        page.fault, page.status = "too_large", "empty"
        return page
    except Exception:  # noqa: BLE001  # pypdf promises no closed set of exceptions for broken files (pypdf/errors.py)
        page.fault, page.status = "corrupt", "empty"
        return page
    page.fields = _fields(reader, index)
    return page


def _fields(reader: PdfReader, index: int) -> list[str]:
    nothing: list[str] = []
    return _try(lambda: list(form_values(reader.pages[index])), nothing)


def _read_pictures(
    data: bytes, pages: list[PageText], password: str, options: ReadOptions, deadline: float
) -> list[Problem]:
    """Reads the image-only pages by OCR where it is wanted and installed; what went wrong."""
    wanted = [index for index, page in enumerate(pages) if page.status == "needs_ocr"]
    if not wanted or not options.ocr or not ocr.available():
        return []
    problems = []
    results = ocr.read_pages(data, wanted, password=password, deadline=deadline)
    for index, lines in zip(wanted, results, strict=False):
        if lines is None:
            problems.append(Problem("failed", f"OCR of page {index + 1} failed."))
        else:
            pages[index].lines = lines
            pages[index].status = "ocr" if lines else "empty"
    if any(pages[index].status == "needs_ocr" for index in wanted) and not problems:
        problems.append(
            Problem(
                "too_large", "OCR ran out of time or memory before the last page.", "Allow more, or split the file."
            )
        )
    return problems


# ── assembling ────────────────────────────────────────────────────────────────────────────────


def _assemble(
    pages: Sequence[PageText],
    outline: Sequence[OutlineEntry],
    problems: Sequence[Problem],
    title: str | None,
    metadata: Mapping[str, MetadataValue],
) -> Parsed:
    """Canonical text, blocks and pages."""
    pieces = to_pieces(without_running_lines([page.lines for page in pages]))
    fields = [Piece("list_item", text, index) for index, page in enumerate(pages) for text in page.fields]
    pieces = sorted(
        [*pieces, *fields], key=lambda piece: piece.page
    )  # stable: the fields of a page come after its text
    pieces, marks = placed_outline(pieces, outline)
    blocks = Blocks()
    sections: list[tuple[str, ...]] = []
    path = SectionPath()
    position = 0
    for index, page in enumerate(pages):
        blocks.start_page(index + 1, label=page.label)
        while position < len(pieces) and pieces[position].page == index:
            piece = pieces[position]
            for level, heading in marks.get(position, ()):
                path.enter(level, heading)
            if piece.kind == "heading" and piece.level is not None:
                blocks.heading(piece.text, level=piece.level)
                path.enter(piece.level, piece.text)
            else:
                # Nothing may have come between: a field of the form of the page before, an outline's entry.
                goes_on = piece.goes_on and position not in marks and pieces[position - 1].page == index - 1
                blocks.add(piece.kind, piece.text, header=piece.header, goes_on=goes_on)
            sections.append(path.titles())
            position += 1
    parsed = blocks.parsed(title=title or _printed_title(pieces), metadata=metadata)
    return replace(
        parsed,
        blocks=tuple(replace(block, section=section) for block, section in zip(parsed.blocks, sections, strict=True)),
        pages=tuple(replace(place, status=page.status) for place, page in zip(parsed.pages, pages, strict=True)),
        status=document_status(pages, bool(parsed.blocks), bool(problems)),
        problems=(*problems, *by_pypdf(pages)),
    )


def _printed_title(pieces: Sequence[Piece]) -> str | None:
    """The largest heading of the first page, where it is much larger than the text."""
    first = [piece for piece in pieces if piece.page == 0 and piece.kind == "heading"]
    largest = max(first, key=lambda piece: piece.size, default=None)
    return largest.text if largest and largest.size >= 1.4 * body_size(pieces) else None
