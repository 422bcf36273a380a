"""The pen ends where the widths of the fonts put it, and a damaged font costs the measure only."""

from __future__ import annotations

from typing import Any

import pytest
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NullObject, NumberObject, TextStringObject

from ingest.readers.pdf_pen import Pen

AT = (1.0, 0.0, 0.0, 1.0, 100.0, 700.0)


def simple(**entries: Any) -> DictionaryObject:
    font = DictionaryObject({NameObject("/Subtype"): NameObject("/TrueType")})
    font.update({NameObject(f"/{name}"): value for name, value in entries.items()})
    return font


def numbers(*values: int) -> ArrayObject:
    return ArrayObject([NumberObject(value) for value in values])


def composite(encoding: str, widths: ArrayObject) -> DictionaryObject:
    descendant = DictionaryObject({NameObject("/W"): widths, NameObject("/DW"): NumberObject(1000)})
    return DictionaryObject(
        {
            NameObject("/Subtype"): NameObject("/Type0"),
            NameObject("/Encoding"): NameObject(encoding),
            NameObject("/DescendantFonts"): ArrayObject([descendant]),
        }
    )


def shown(font: DictionaryObject, string: bytes, *settings: tuple[bytes, float]) -> tuple[float, float] | None:
    pen = Pen({})
    pen.see(b"BT", [], ())
    pen.see(b"Tf", [NameObject("/F1"), 10], ())
    for operator, value in settings:
        pen.see(operator, [value], ())
    pen.see(b"Tj", [string], AT)
    return pen.lifted(font)


LATIN = simple(FirstChar=NumberObject(32), Widths=numbers(250, *[500] * 90))


@pytest.mark.parametrize(
    ("font", "string", "settings", "width"),
    [
        (LATIN, b"abcd", (), 20),
        (LATIN, b"ab cd", (), 22.5),
        (LATIN, b"ab cd", ((b"Tw", 3.0),), 25.5),
        (LATIN, b"abcd", ((b"Tc", 1.0),), 24),
        (LATIN, b"abcd", ((b"Tz", 50.0),), 10),
        (composite("/Identity-H", ArrayObject([NumberObject(5), numbers(300, 400)])), b"\0\5\0\6\0\7", (), 17),
        (composite("/Identity-H", numbers(5, 6, 250)), b"\0\5\0\6\0\7", (), 15),
        (composite("/UniGB-UCS2-H", numbers(1, 95, 500)), "年 1".encode("utf-16-be"), (), 20),
        (composite("/GBK-EUC-H", numbers(1, 95, 500)), "年 1".encode("gbk"), (), 20),
    ],
)
def test_text_is_as_wide_as_its_font_and_its_settings_say(
    font: DictionaryObject, string: bytes, settings: tuple[tuple[bytes, float], ...], width: float
) -> None:
    assert shown(font, string, *settings) == pytest.approx((100, 100 + width))


def test_a_gap_inside_of_an_array_and_text_in_another_font_move_the_pen_on() -> None:
    pen = Pen({})
    pen.see(b"Tf", [NameObject("/F1"), 10], ())
    pen.see(b"TJ", [ArrayObject([b"ab", NumberObject(-1000), b"cd"])], AT)
    assert pen.lifted(LATIN) == pytest.approx((100, 130))
    pen.see(b"Tj", [b"ef"], AT)
    assert pen.lifted(LATIN) == pytest.approx((130, 140))


@pytest.mark.parametrize(
    "font",
    [
        simple(Widths=NumberObject(5)),
        simple(FirstChar=TextStringObject("x"), Widths=numbers(1)),
        composite("/Identity-H", ArrayObject([TextStringObject("x"), numbers(1)])),
        composite("/Identity-H", ArrayObject([NumberObject(0), ArrayObject([NullObject()])])),
    ],
)
def test_a_damaged_font_has_no_measure(font: DictionaryObject) -> None:
    assert shown(font, b"abcd") is None


def test_a_font_that_claims_millions_of_widths_is_read_in_no_time() -> None:
    assert shown(composite("/Identity-H", numbers(0, 2**31 - 1, 500)), b"\0\5") == pytest.approx((100, 105))
