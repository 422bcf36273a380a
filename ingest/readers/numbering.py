"""The numbers that Word shows before paragraphs and does not store in them: "第三条", "2.1", "(a)"."""

from __future__ import annotations

import re
from typing import Any

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HAN_DIGITS = "零一二三四五六七八九"
_ROMAN = ((100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))


class Numbering:
    """Counts along as paragraphs come, in the document's order."""

    def __init__(self, part: Any) -> None:
        self._abstract: dict[str, dict[int, Any]] = {}
        self._of_number: dict[str, str] = {}
        self._counts: dict[tuple[str, int], int] = {}
        root = _numbering_root(part)
        if root is None:
            return
        for abstract in root.findall(f"{_W}abstractNum"):
            levels = {int(level.get(f"{_W}ilvl", "0")): level for level in abstract.findall(f"{_W}lvl")}
            self._abstract[abstract.get(f"{_W}abstractNumId")] = levels
        for number in root.findall(f"{_W}num"):
            self._of_number[number.get(f"{_W}numId")] = _value(number, "abstractNumId") or ""

    def label(self, paragraph: Any, styles: list[Any]) -> str | None:
        """What stands before the paragraph; "-" for any bullet; None when it is in no list."""
        number, depth = _place(paragraph, styles)
        levels = self._abstract.get(self._of_number.get(number or "", ""), {})
        if number in (None, "0") or not levels:
            return None
        level = levels.get(depth)
        if level is None:
            return "-"
        list_id = self._of_number[number or ""]
        self._counts[list_id, depth] = self._counts.get((list_id, depth), _start(level) - 1) + 1
        for deeper in [key for key in self._counts if key[0] == list_id and key[1] > depth]:
            del self._counts[deeper]
        if _value(level, "numFmt") in ("bullet", "none"):
            return "-" if _value(level, "numFmt") == "bullet" else None
        return re.sub(
            r"%(\d)",
            lambda found: self._shown(list_id, levels, int(found.group(1)) - 1),
            _value(level, "lvlText") or "",
        )

    def _shown(self, list_id: str, levels: dict[int, Any], depth: int) -> str:
        level = levels.get(depth)
        if level is None:
            return ""
        return in_format(self._counts.get((list_id, depth), _start(level)), _value(level, "numFmt") or "decimal")


def in_format(number: int, number_format: str) -> str:
    """The number as Word writes it in the formats that documents use; decimal in all others."""
    match number_format:
        case "lowerLetter" | "upperLetter":
            letters = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
            return letters.upper() if number_format == "upperLetter" else letters
        case "lowerRoman" | "upperRoman":
            roman, rest = "", number
            for value, sign in _ROMAN:
                roman += sign * (rest // value)
                rest %= value
            return roman.upper() if number_format == "upperRoman" else roman
        case (
            "chineseCounting"
            | "chineseCountingThousand"
            | "ideographDigital"
            | "japaneseCounting"
            | "taiwaneseCountingThousand"
        ):
            return _han(number) if 0 < number < 1000 else str(number)
        case _:
            return str(number)


def _han(number: int) -> str:
    hundreds, tens, ones = number // 100, number // 10 % 10, number % 10
    text = _HAN_DIGITS[hundreds] + "百" if hundreds else ""
    if tens:
        text += ("" if tens == 1 and not hundreds else _HAN_DIGITS[tens]) + "十"
    elif hundreds and ones:
        text += "零"
    return text + (_HAN_DIGITS[ones] if ones else "")


def _numbering_root(part: Any) -> Any | None:
    for related in part.rels.values():
        if related.reltype.endswith("/numbering") and not related.is_external:
            return related.target_part.element
    return None


def _place(paragraph: Any, styles: list[Any]) -> tuple[str | None, int]:
    """The list's number and the depth in it: the paragraph's own, or those of its style."""
    number = depth = None
    for element in (paragraph, *(style.element for style in styles)):
        properties = element.find(f"{_W}pPr/{_W}numPr")
        if properties is not None:
            number = number or _value(properties, "numId")
            depth = depth or _value(properties, "ilvl")
    return number, int(depth) if depth and depth.isdigit() else 0


def _start(level: Any) -> int:
    start = _value(level, "start")
    return int(start) if start and start.isdigit() else 1


def _value(element: Any, name: str) -> str | None:
    child = element.find(f"{_W}{name}")
    return None if child is None else str(child.get(f"{_W}val"))
