"""Where a PDF's text ends: the pen, moved by the widths that its fonts state. Works on pypdf's operators and fonts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Matrix = Sequence[float]
Widths = Mapping[int, float]  # of a code, in thousandths of an em

_POSITIONING = frozenset({b"BT", b"Td", b"TD", b"Tm", b"T*"})
_SETTINGS = frozenset({b"Tc", b"Tw", b"Tz", b"Tf"})
_MOST_WIDTHS = 70_000  # no font has more codes; a hostile file may claim so
_NARROW, _WIDE = "ijlIft.,;:'!|()[]/ -", "mwMW@%—"


@dataclass(frozen=True, slots=True)
class _Setting:
    """What the advance of a letter depends on, beside its width."""

    size: float = 1.0
    letter_spacing: float = 0.0
    word_spacing: float = 0.0
    stretch: float = 1.0


@dataclass(frozen=True, slots=True)
class _Show:
    """One string or array shown, and the line matrix it starts from; not `fresh`, it follows on the one before."""

    elements: Sequence[Any]
    matrix: Matrix
    setting: _Setting
    fresh: bool


@dataclass(frozen=True, slots=True)
class Font:
    """The widths of a font by code, and how many bytes make a code."""

    widths: Widths
    default: float
    two_bytes: bool = False
    predefined: bool = False  # codes are characters, or bytes of an old Chinese encoding, and not glyphs
    mixed: bool = False  # one byte for ASCII, two for the others


@dataclass(slots=True)
class Pen:
    """Follows the operators of one page; `lifted` tells where the text shown since the last call starts and ends."""

    fonts: dict[object, Font | None]  # kept for the whole document
    _setting: _Setting = _Setting()
    _saved: list[_Setting] = field(default_factory=list)
    _shows: list[_Show] = field(default_factory=list)
    _fresh: bool = True
    _end: float | None = None  # of the last text, along its direction; None where that cannot be told

    def see(self, operator: bytes, operands: Any, matrix: Matrix) -> None:
        """Takes note of an operator before it is carried out; `matrix` is where its text would start."""
        if operator in _POSITIONING:
            self._fresh = True
        elif operator in (b"Tj", b"TJ") and operands:
            elements = operands[0] if operator == b"TJ" else operands
            if isinstance(elements, list):
                self._shows.append(_Show(list(elements), list(matrix), self._setting, self._fresh))
            self._fresh = False
        elif operator in (b"'", b'"'):
            self._shows.append(_Show([], [], self._setting, True))  # moves and shows at once: its start is not known
        elif operator == b"q":
            self._saved.append(self._setting)
        elif operator == b"Q":
            self._setting = self._saved.pop() if self._saved else self._setting
        elif operator in _SETTINGS and operands:
            self._set(operator, operands)

    def _set(self, operator: bytes, operands: Any) -> None:
        value = operands[1] if operator == b"Tf" and len(operands) > 1 else operands[0]
        if not isinstance(value, (int, float)):
            return
        number = float(value)
        if operator == b"Tf":
            self._setting = replace(self._setting, size=number)
        elif operator == b"Tc":
            self._setting = replace(self._setting, letter_spacing=number)
        elif operator == b"Tw":
            self._setting = replace(self._setting, word_spacing=number)
        else:
            self._setting = replace(self._setting, stretch=number / 100)

    def lifted(self, font: Any) -> tuple[float, float] | None:
        """Where the text shown in this font starts and ends along its own direction; None where that cannot be told."""
        shows, self._shows = self._shows, []
        known = self._font(font) if font is not None and shows else None
        if known is None or not all(show.matrix for show in shows) or (not shows[0].fresh and self._end is None):
            self._end = None
            return None
        start, end = None, self._end or 0.0
        for show in shows:
            a, b, *_ = show.matrix
            scale = math.hypot(a, b) or 1.0
            if show.fresh:
                end = (show.matrix[4] * a + show.matrix[5] * b) / scale
            start = end if start is None else start
            end += scale * _advance(show, known)
        self._end = end
        return (end if start is None else start), end

    def _font(self, font: Any) -> Font | None:
        reference = getattr(font, "indirect_reference", None)
        key = (reference.idnum, reference.generation) if reference is not None else id(font)
        if key not in self.fonts:
            try:
                self.fonts[key] = _read_font(font)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # a damaged font; widths are guessed
                self.fonts[key] = None
        return self.fonts[key]


def _advance(show: _Show, font: Font) -> float:
    """How far the pen moves, in units of text space."""
    setting, distance = show.setting, 0.0
    for element in show.elements:
        if isinstance(element, (int, float)):
            distance -= float(element) / 1000 * setting.size
            continue
        for code, is_space in _codes(element, font):
            width = font.widths.get(code, font.default)
            distance += width / 1000 * setting.size + setting.letter_spacing + is_space * setting.word_spacing
    return distance * setting.stretch


def _codes(shown: Any, font: Font) -> Iterator[tuple[int, bool]]:
    """The codes of a string, and whether each is the single byte 32 that word spacing widens."""
    if not isinstance(shown, bytes):
        shown = str(shown).encode("utf-16-be" if font.two_bytes else "latin-1", "replace")
    if font.mixed:
        at = 0
        while at < len(shown):
            single = shown[at] < 0x80
            yield (shown[at] - 31 if single else -1), single and shown[at] == 32
            at += 1 if single else 2
    elif font.two_bytes:
        for at in range(0, len(shown) - 1, 2):
            code = shown[at] << 8 | shown[at + 1]
            # In all of Adobe's East Asian collections, glyphs 1 to 95 are the letters of ASCII.
            yield (code - 31 if 32 <= code < 127 else -1) if font.predefined else code, False
    else:
        for code in shown:
            yield code, code == 32


# ── what a font says ──────────────────────────────────────────────────────────────────────────


def _read_font(font: Any) -> Font | None:
    if font.get("/Subtype") == "/Type0":
        return _read_composite(font)
    if "/Widths" in font:
        first = int(font.get("/FirstChar", 0))
        listed = [float(width.get_object()) for width in font["/Widths"].get_object()[:256]]
        descriptor = font.get("/FontDescriptor")
        missing = float((descriptor.get_object() if descriptor is not None else {}).get("/MissingWidth", 0))
        scale = 1.0
        if font.get("/Subtype") == "/Type3":
            scale = abs(float(font["/FontMatrix"].get_object()[0])) * 1000
        return Font({first + at: width * scale for at, width in enumerate(listed)}, missing * scale)
    return Font(_usual_widths(str(font.get("/BaseFont", ""))), 500.0)


def _usual_widths(name: str) -> Widths:
    """About the widths of the standard fonts, which a PDF need not state."""
    if "Courier" in name:
        return dict.fromkeys(range(256), 600.0)
    sans = "Helvetica" in name or "Arial" in name
    bold = 1.06 if "Bold" in name else 1.0
    widths = {}
    for code in range(32, 256):
        letter = bytes([code]).decode("cp1252", "replace")
        if letter in _NARROW:
            width = 270.0 if sans else 285.0
        elif letter in _WIDE:
            width = 830.0 if sans else 780.0
        elif letter.isupper():
            width = 690.0 if sans else 670.0
        elif letter.isdigit():
            width = 556.0 if sans else 500.0
        else:
            width = 545.0 if sans else 460.0
        widths[code] = width * bold
    widths[32] = 278.0 if sans else 250.0
    return widths


def _read_composite(font: Any) -> Font:
    descendant = font["/DescendantFonts"].get_object()[0].get_object()
    encoding = font.get("/Encoding")
    name = encoding if isinstance(encoding, str) else "/Identity-H"
    predefined = not name.startswith("/Identity")
    mixed = predefined and not any(word in name for word in ("UCS2", "UTF16"))
    widths = dict(_composite_widths(descendant["/W"].get_object() if "/W" in descendant else []))
    return Font(widths, float(descendant.get("/DW", 1000)), two_bytes=True, predefined=predefined, mixed=mixed)


def _composite_widths(entries: Sequence[Any]) -> Iterator[tuple[int, float]]:
    """(code, width) of a /W array: `first [width …]` and `first last width` in turns."""
    at, told = 0, 0
    while at + 1 < len(entries) and told < _MOST_WIDTHS:
        first, second = int(entries[at].get_object()), entries[at + 1].get_object()
        if isinstance(second, list):
            for offset, width in enumerate(second[:_MOST_WIDTHS]):
                yield first + offset, float(width.get_object())
                told += 1
            at += 2
        elif at + 2 < len(entries):
            width = float(entries[at + 2].get_object())
            for code in range(first, min(int(second), first + _MOST_WIDTHS) + 1):
                yield code, width
                told += 1
            at += 3
        else:
            break
