"""What each page of a PDF gave, whether that is readable, and what it means for the whole document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest.readers.lines import Line, is_garbled, without_running_lines
from rag.errors import DocumentError
from rag.models import DocumentStatus, PageStatus, Problem

# Fewer visible characters than this beside a picture, and the page's words are in the picture.
FEW_CHARACTERS = 20
_IMAGE_SHARE = 0.05  # of the page; smaller pictures are logos

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


def raise_if_nothing(pages: Sequence[PageText]) -> None:
    faults = [page.fault for page in pages]
    if faults and all(faults):
        status = "too_large" if "too_large" in faults else "corrupt"
        reason = "unpacks to more than is safe to read" if status == "too_large" else "is damaged"
        raise DocumentError(status, f"Every page of this PDF {reason}.", remedy="Download or export it again.")


def judge_pages(pages: Sequence[PageText]) -> None:
    """Settles which pages have no usable text of their own."""
    for page in pages:
        if page.status == "text" and is_garbled("\n".join(line.text for line in page.lines)):
            page.status, page.lines = "garbled", []
    # A stamp that a scanner or a library puts on every page does not make the page readable.
    own_lines = without_running_lines([page.lines for page in pages], keep_first=False)
    for page, own in zip(pages, own_lines, strict=True):
        characters = sum(len("".join(line.text.split())) for line in own)
        if page.status == "text" and characters < FEW_CHARACTERS and page.picture >= _IMAGE_SHARE:
            page.status = "needs_ocr"
        elif page.status == "text" and not page.lines and not page.fields:
            page.status = "empty"


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
