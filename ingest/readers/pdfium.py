"""A PDF page's text layer as printed lines, through PDFium's text pages. The door to PDFium for text.

PDFium aborts on some hostile files, hangs on others, and has no limits of its own: `pdfium_process` keeps it apart.
"""

from __future__ import annotations

import ctypes
import math
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.readers.lines import CELL, Line, tidy
from ingest.readers.pdf_lines import BOLD, ITEM_MARKER, side_by_side

_TOKEN = re.compile(r"[^\s\x00]+")
# How PDFium writes the hyphen of a word that it found divided at the end of a line; no line break follows it.
_DIVISION = "\ufffe\x02"
_LINE = re.compile(rf"[^\r\n{_DIVISION}]+[{_DIVISION}]?")
# Letters of fonts of symbols without a map: U+F0B7 is the sign at B7.
_SYMBOLS = {0xF000 + code: code for code in range(0x20, 0x100)}
_UPRIGHT = 0.02  # the slope up to which text counts as level
_LEVEL = (1.0, 0.0)
_CELL_DROP = 0.7  # of the letters' size
_SPACE = 0.15
_CELL_GAP = 1.0
_CELL_GAP_AFTER_STOP = 1.5  # justified lines stretch the space behind a sentence
_STOPS = ".,;:!?"
_FOUR = struct.Struct("4f").unpack  # left, top, right, bottom of a box
_NO_HEIGHT = 0.01  # of the width
_EAST_ASIAN = "\u2e80"  # where Chinese and Japanese letters begin
_NAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class _Font:
    """What the letters of a font on this page have in common. `direction` is the unit vector that they run along.

    Where the boxes of its letters are as high as the font says, size and height of the line are shares of a box.
    """

    bold: bool
    direction: tuple[float, float]
    borrowed: bool = False  # not in the file: PDFium takes another one that it has, or none
    size_share: float = 0.0  # 0 where a box says nothing
    base_share: float = 0.0


@dataclass(slots=True)
class _Run:
    """Letters without a space between them, in the frame of their own writing direction."""

    text: str
    left: float
    right: float
    y: float
    size: float
    font: _Font
    apart: bool  # a space stands before it in the text; else the gap decides


class _Calls:
    """PDFium's getters that are called for every word, without the conversions and locks of the usual bindings.

    Measured on a page of 5,700 letters: 0.34 µs a call instead of 0.65 µs. One thread only may use them.
    """

    def __init__(self) -> None:
        import pypdfium2.raw as raw

        self.raw = raw
        self.loose_box = self._getter(raw.FPDFText_GetLooseCharBox, ctypes.c_int, ctypes.c_void_p)
        self.text_object = self._getter(raw.FPDFText_GetTextObject, ctypes.c_void_p)
        self.font_size = self._getter(raw.FPDFText_GetFontSize, ctypes.c_double)
        self.matrix = self._getter(raw.FPDFText_GetMatrix, ctypes.c_int, ctypes.c_void_p)
        self.origin = self._getter(raw.FPDFText_GetCharOrigin, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self.tight_box = self._getter(raw.FPDFText_GetCharBox, ctypes.c_int, *[ctypes.c_void_p] * 4)
        self.font = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(_address(raw.FPDFTextObj_GetFont))
        self.unicode = self._getter(raw.FPDFText_GetUnicode, ctypes.c_uint)

    @staticmethod
    def _getter(function: Any, result: Any, *out: Any) -> Any:
        """The function of a text page and the index of a character on it."""
        return ctypes.PYFUNCTYPE(result, ctypes.c_void_p, ctypes.c_int, *out)(_address(function))


def _address(thing: Any) -> int:
    return ctypes.cast(thing, ctypes.c_void_p).value or 0


def load() -> bool:
    """Loads PDFium, which takes 50 ms once; whether it is there."""
    try:
        import pypdfium2  # noqa: F401
    except (ImportError, OSError):  # OSError: its library does not fit this system
        return False
    return True


class Document:
    """An open PDF. Raises ValueError where PDFium cannot open it."""

    def __init__(self, data: bytes, *, password: str) -> None:
        import pypdfium2

        self._calls = _Calls()
        try:
            self._document = pypdfium2.PdfDocument(data, password=password or None)
        except pypdfium2.PdfiumError as error:
            raise ValueError(str(error)) from error

    def __len__(self) -> int:
        return len(self._document)

    def page_lines(self, index: int) -> list[Line] | None:
        """The lines in PDFium's order, which is that of the content stream; None where letters may be missing."""
        raw = self._calls.raw
        page = raw.FPDF_LoadPage(self._document.raw, index)
        if not page:
            return None
        try:
            text_page = raw.FPDFText_LoadPage(page)
            if not text_page:
                return None
            try:
                read = _TextPage(self._calls, text_page)
                lines = read.lines()
                return None if read.hollow and self._left_out(page, read) else lines
            finally:
                raw.FPDFText_ClosePage(text_page)
        finally:
            raw.FPDF_ClosePage(page)

    def _left_out(self, page: Any, read: _TextPage) -> bool:
        """Whether PDFium may have left a text out, taking it for one printed twice.

        Letters without outlines, those of a Chinese font that is neither embedded nor installed, have no height for it,
        so that two cells of a column that say the same seem to lie on each other.
        """
        raw = self._calls.raw
        seen = read.text_objects()
        things = (raw.FPDFPage_GetObject(page, at) for at in range(raw.FPDFPage_CountObjects(page)))
        kinds = ((raw.FPDFPageObj_GetType(thing), _address(thing)) for thing in things)
        return any(
            kind == raw.FPDF_PAGEOBJ_FORM or (kind == raw.FPDF_PAGEOBJ_TEXT and address not in seen)
            for kind, address in kinds
        )


class _TextPage:
    """The letters of one page, and where they stand."""

    def __init__(self, calls: _Calls, page: Any) -> None:
        self._calls = calls
        self._page = page
        self._address = _address(page)
        self._box = (ctypes.c_float * 4)()
        self._matrix = (ctypes.c_float * 6)()
        self._numbers = (ctypes.c_double * 4)()
        self._fonts: dict[int, _Font] = {}  # by address, which lives as long as the page
        self.hollow = False  # some Chinese letters have no outlines

    def lines(self) -> list[Line]:
        return side_by_side(_line(runs) for runs in _rows(self._runs()))

    def text_objects(self) -> set[int]:
        """The addresses of all text objects that letters of the page come from."""
        count = self._calls.raw.FPDFText_CountChars(self._page)
        return {self._calls.text_object(self._address, at) for at in range(count)}

    def _text(self) -> str:
        """The page's text, one character for each of PDFium's, so that an index means the same in both."""
        raw = self._calls.raw
        count = max(0, raw.FPDFText_CountChars(self._page))
        buffer = (ctypes.c_ushort * (count + 1))()
        written = raw.FPDFText_GetText(self._page, 0, count, buffer)
        text = bytes(buffer)[: 2 * max(0, written - 1)].decode("utf-16-le", "surrogatepass")
        if len(text) != count:
            # Characters without a letter are left out of the text, and those beyond 16 bits are two of PDFium's.
            codes = (self._calls.unicode(self._address, at) for at in range(count))
            text = "".join(chr(code) if 0 < code < 0x110000 else "\ufffd" for code in codes)
        return text.translate(_SYMBOLS)

    def _runs(self) -> Iterator[_Run]:
        text_object, address = self._calls.text_object, self._address
        object_before, font = 0, _Font(False, _LEVEL)
        for found in _LINE.finditer(self._text()):
            start, apart = found.start(), False
            for token in _TOKEN.finditer(found.group()):
                first, last = start + token.start(), start + token.end() - 1
                thing = text_object(address, first)
                if thing != object_before or not thing:
                    font, object_before = self._font(thing, first), thing
                printed = token.group()
                if font.borrowed and not self.hollow and printed[-1] >= _EAST_ASIAN:
                    self._tight_box(last)
                    left, right, bottom, top = self._numbers
                    self.hollow = top - bottom < _NO_HEIGHT * (right - left)
                if printed[-1] in _DIVISION:
                    printed = f"{printed[:-1]}-"
                yield self._run(printed, first, last, font, apart)
                apart = True

    def _run(self, text: str, first: int, last: int, font: _Font, apart: bool) -> _Run:
        if not font.size_share:
            size, y = self._measured(first, font.direction)
            return _Run(text, self._along(first, font)[0], self._along(last, font)[1], y, size, font, apart)
        box, loose_box = self._box, self._calls.loose_box
        loose_box(self._address, first, box)
        left, top, right, bottom = _FOUR(box)
        if last > first:
            loose_box(self._address, last, box)
            right = box[2]
        height = top - bottom
        return _Run(text, left, right, bottom + font.base_share * height, font.size_share * height, font, apart)

    def _along(self, index: int, font: _Font) -> tuple[float, float]:
        """Where a letter starts and ends along its direction, by its outline."""
        self._tight_box(index)
        x, y = font.direction
        corners = [across * x + up * y for across in self._numbers[:2] for up in self._numbers[2:]]
        return min(corners), max(corners)

    def _tight_box(self, index: int) -> None:
        """Puts left, right, bottom and top of a letter's outline into the numbers."""
        at, size = ctypes.addressof(self._numbers), ctypes.sizeof(ctypes.c_double)
        self._calls.tight_box(self._address, index, at, at + size, at + 2 * size, at + 3 * size)

    def _measured(self, index: int, direction: tuple[float, float]) -> tuple[float, float]:
        """The size of a letter, and the height of its line in the frame of its direction."""
        self._calls.matrix(self._address, index, self._matrix)
        at = ctypes.addressof(self._numbers)
        self._calls.origin(self._address, index, at, at + ctypes.sizeof(ctypes.c_double))
        size = abs(self._calls.font_size(self._address, index)) * math.hypot(self._matrix[2], self._matrix[3])
        return size, self._numbers[1] * direction[0] - self._numbers[0] * direction[1]

    def _font(self, text_object: int, index: int) -> _Font:
        address = self._calls.font(text_object) if text_object else None
        known = self._fonts.get(address) if address else None
        if known is None or known.direction is not _LEVEL:
            known = self._read_font(address, index)
            if address:
                self._fonts[address] = known
        return known

    def _read_font(self, address: int | None, index: int) -> _Font:
        bold = bool(address) and BOLD.search(self._font_name(address)) is not None
        raw = self._calls.raw
        borrowed = bool(address) and not raw.FPDFFont_GetIsEmbedded(ctypes.cast(address or 0, raw.FPDF_FONT))
        self._calls.matrix(self._address, index, self._matrix)
        a, b = self._matrix[:2]
        length = math.hypot(a, b)
        if length and (a <= 0 or abs(b) > _UPRIGHT * a):
            return _Font(bold, (round(a / length, 3), round(b / length, 3)), borrowed)
        size, y = self._measured(index, _LEVEL)
        self._calls.loose_box(self._address, index, self._box)
        _, top, _, bottom = _FOUR(self._box)
        height = top - bottom
        if not address or height < 0.3 * size:  # a font that says nothing of its height
            return _Font(bold, _LEVEL, borrowed)
        return _Font(bold, _LEVEL, borrowed, size / height, (y - bottom) / height)

    def _font_name(self, address: int | None) -> str:
        raw = self._calls.raw
        buffer = ctypes.create_string_buffer(_NAME_BYTES)
        length = raw.FPDFFont_GetBaseFontName(ctypes.cast(address or 0, raw.FPDF_FONT), buffer, _NAME_BYTES)
        return buffer.raw[: max(0, length - 1)].decode("utf-8", "replace")


def _rows(runs: Iterable[_Run]) -> Iterator[list[_Run]]:
    """The runs line by line. PDFium's own lines are taken apart where the height changes, and joined across."""
    row: list[_Run] = []
    y = size = reach = 0.0
    for run in runs:
        if row and _goes_on(row[-1].font, y, size, reach, run):
            if run.size > size:  # what came before was a footnote's mark
                y, size = run.y, run.size
            reach = max(reach, run.right)
        else:
            if row:
                yield row
                row = []
            y, size, reach = run.y, run.size, run.right
        row.append(run)
    if row:
        yield row


def _goes_on(font: _Font, y: float, size: float, reach: float, run: _Run) -> bool:
    """Whether a run belongs to the line that ends at `reach`, and not to the next one."""
    large = size if size > run.size else run.size
    gap, drop = run.left - reach, abs(run.y - y)
    if gap < -large or run.font.direction != font.direction:
        return False
    if drop <= 0.15 * large:
        return True
    if min(size, run.size) < 0.85 * large and gap < 0.6 * large:  # a footnote's mark, an index
        return drop <= 0.6 * large
    return gap > large and drop <= _CELL_DROP * large  # a cell beside a label of two lines stands between them


def _line(runs: Sequence[_Run]) -> Line:
    largest = max(runs, key=lambda run: len(run.text))  # footnote marks are smaller than their line
    return Line(
        _joined(runs),
        x=min(run.left for run in runs),
        y=largest.y,
        right=max(run.right for run in runs),
        size=round(largest.size, 1),
        bold=all(run.font.bold for run in runs),
        measured=True,
        starts_bold=runs[0].font.bold,
    )


def _joined(runs: Sequence[_Run]) -> str:
    """The text of the runs of a line, its cells apart where gaps are wide."""
    cells: list[str] = []
    cell, reach = runs[0].text, runs[0].right
    for run in runs[1:]:
        gap = run.left - reach
        widest = (_CELL_GAP_AFTER_STOP if cell[-1] in _STOPS else _CELL_GAP) * run.size
        if gap > widest and not (not cells and ITEM_MARKER.match(cell)):
            cells.append(cell)
            cell = run.text
        else:
            cell = f"{cell} {run.text}" if run.apart or gap > _SPACE * run.size else cell + run.text
        reach = max(reach, run.right)
    cells.append(cell)
    return CELL.join(text for text in map(tidy, cells) if text)
