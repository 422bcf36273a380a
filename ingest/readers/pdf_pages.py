"""What each page of a PDF gave, whether that is readable, and what it means for the whole document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ingest.readers.lines import Line, is_garbled, unmapped_share, without_running_lines
from rag.errors import DocumentError
from rag.models import DocumentStatus, PageStatus, Problem

# Fewer visible characters than this beside a picture, and the page's words are in the picture.
FEW_CHARACTERS = 20
_IMAGE_SHARE = 0.05  # of the page; smaller pictures are logos
_UNMAPPED = 0.005  # of the visible characters
_TO_THE_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")  # Hebrew, Arabic and their relatives

_UNREADABLE = {
    "needs_ocr": ("pictures of text", "Install the `ocr` extra, and sync again."),
    "garbled": ("a text layer without meaning", "Export the PDF again with its fonts embedded."),
    "corrupt": ("damaged", "Download or export it again."),
    "too_large": ("more than is safe to unpack", ""),
}


@dataclass(slots=True)
class PageText:
    """What one page gave: its lines, and its status so far."""

    label: str
    lines: list[Line] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)  # "name: value" of a form
    picture: float = 0.0  # share of the page that pictures cover
    status: PageStatus = "text"
    fault: str = ""  # "corrupt" or "too_large" where pypdf could not read it
    by_pypdf: bool = False  # its text was read by pypdf

    @property
    def letters(self) -> int:
        return sum(len("".join(line.text.split())) for line in self.lines)

    def with_lines(self, lines: list[Line]) -> PageText:
        """The page with PDFium's lines instead of pypdf's, where there are any."""
        if not lines:
            return self
        status: PageStatus = "text"
        return replace(self, lines=lines, fault="", status=status, by_pypdf=False)


def raise_if_nothing(pages: Sequence[PageText]) -> None:
    faults = [page.fault for page in pages]
    if faults and all(faults):
        status = "too_large" if "too_large" in faults else "corrupt"
        reason = "unpacks to more than is safe to read" if status == "too_large" else "is damaged"
        raise DocumentError(status, f"Every page of this PDF {reason}.", remedy="Download or export it again.")


def is_doubtful(lines: Sequence[Line]) -> bool:
    """Whether pypdf should read the page: letters run to the left, whose order PDFium confuses, or have no name."""
    text = "\n".join(line.text for line in lines)
    return _TO_THE_LEFT.search(text) is not None or unmapped_share(text) > _UNMAPPED or is_garbled(text)


def thin_pages(pages: Sequence[PageText]) -> list[int]:
    """The pages, by index, with so few letters of their own that their words may be in a picture."""
    return [index for index, few in enumerate(_few_characters(pages)) if few]


def judge_pages(pages: Sequence[PageText]) -> None:
    """Settles which pages have no usable text of their own."""
    for page in pages:
        if page.status == "text" and is_garbled("\n".join(line.text for line in page.lines)):
            page.status, page.lines = "garbled", []
    for page, few in zip(pages, _few_characters(pages), strict=True):
        if page.status == "text" and few and page.picture >= _IMAGE_SHARE:
            page.status = "needs_ocr"
        elif page.status == "text" and not page.lines and not page.fields:
            page.status = "empty"


def _few_characters(pages: Sequence[PageText]) -> list[bool]:
    """Whether each page has few letters of its own.

    A stamp that a scanner or a library puts on every page does not make the page readable.
    """
    own_lines = without_running_lines([page.lines for page in pages], keep_first=False)
    return [sum(len("".join(line.text.split())) for line in own) < FEW_CHARACTERS for own in own_lines]


def page_problems(pages: Sequence[PageText]) -> list[Problem]:
    """Which pages could not be read, and what to do about each kind."""
    found = {
        "needs_ocr": [page.status == "needs_ocr" for page in pages],
        "garbled": [page.status == "garbled" for page in pages],
        "corrupt": [page.fault == "corrupt" for page in pages],
        "too_large": [page.fault == "too_large" for page in pages],
    }
    problems = []
    for code, applies in found.items():
        numbers = [index + 1 for index, applies_here in enumerate(applies) if applies_here]
        if numbers:
            what, remedy = _UNREADABLE[code]
            problems.append(Problem(code, f"Not readable ({what}): {_page_list(numbers)}.", remedy))
    return problems


def by_pypdf(pages: Sequence[PageText]) -> list[Problem]:
    """Which pages pypdf read, and not PDFium. A note for the record: nothing is wrong with such a page."""
    numbers = [index + 1 for index, page in enumerate(pages) if page.by_pypdf and page.status == "text"]
    return [Problem("reader", f"Read by pypdf instead of PDFium: {_page_list(numbers)}.")] if numbers else []


def _page_list(numbers: Sequence[int]) -> str:
    """ "pages 1-3, 7" """
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    return ("page " if len(numbers) == 1 else "pages ") + ", ".join(parts)


def document_status(pages: Sequence[PageText], any_text: bool, any_problem: bool) -> DocumentStatus:
    if any_text:
        return "partial" if any_problem else "ok"
    statuses = {page.status for page in pages}
    return "needs_ocr" if "needs_ocr" in statuses else "garbled" if "garbled" in statuses else "empty"
