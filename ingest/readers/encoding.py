"""Bytes to text when nobody, or the wrong body, says how they were encoded.

Every encoding that could be meant reads the bytes, and the reading that looks most like language wins. Detectors that
count byte patterns need long texts; a Chinese file name list of forty bytes has to come out right, too.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from functools import cache, lru_cache

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What pages and servers declare is often the smaller set of what they send (https://encoding.spec.whatwg.org/#names-and-labels).
_WIDER = {
    "ascii": "utf-8",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "hz": "gb18030",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "iso8859-1": "cp1252",
    "latin-1": "cp1252",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
# Names of transformations, not of character sets; some fail on what they cannot undo.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "raw-unicode-escape", "utf-7"})
# In the order that decides a tie.
_CANDIDATES = ("utf-8", "gb18030", "big5hkscs", "cp1252", "utf-16-le", "utf-16-be")
_GOOD_ENOUGH = 0.55  # below it, the wider guess of charset-normalizer is heard too
_SAMPLE_BYTES = 60_000
# Among the hundred commonest of modern Chinese in either script; every real sentence holds some of them.
_COMMONEST = frozenset(
    "的一是不了在人有我他这这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可"
    "這來國個說們為時會著過學對裡後麼里后么发發成事用第行方公司作理分现現能前所同经經日本高法文进進与與"
)
_LINE_SPACE = "\t\n\r\f\v"
_CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # no part of any character but in UTF-16 and UTF-32
_LONE_HAN = re.compile("[A-Za-z][\u4e00-\u9fff](?![\u4e00-\u9fff])")  # "Straße" in Latin-1 reads as "Stra遝"
_ACCENTS_IN_A_ROW = re.compile("[\u00c0-\u00ff]{3,}")  # what Cyrillic or Chinese looks like in Latin-1
_HANGUL = re.compile("[\uac00-\ud7a3]")


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text and the encoding it was read with. Never fails: what cannot be read is U+FFFD.

    A byte order mark decides, then UTF-8 that fits, then what was declared where it makes sense, then looks.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace"), encoding
    if not _maybe_utf16(data):
        if data.isascii():
            return data.decode("ascii"), "utf-8"
        whole = _utf8(data)
        # A replacement character that stands in the bytes is what became of a character, in UTF-8 and nothing else.
        if whole is not None and (_long_enough(whole) or b"\xef\xbf\xbd" in data):
            return whole, "utf-8"
    encoding = _best(data, _known(declared))
    return data.decode(encoding, errors="replace"), encoding


def plausibility(text: str) -> float:
    """How much this looks like language: about 1 for good text, below 0 for rubbish; plain ASCII is 1."""
    foreign = [character for character in text if not " " <= character <= "~" and character not in _LINE_SPACE]
    if not foreign:
        return 1.0
    return sum(map(_weight, foreign)) / len(foreign)


def looks_binary(data: bytes) -> bool:
    """Whether these bytes are no text in any encoding."""
    sample = data[:_SAMPLE_BYTES]
    if not sample:
        return False
    text, encoding = decode(sample)
    controls = len(_CONTROL_BYTES.findall(sample))
    # A few lost characters that were saved as U+FFFD leave a text a text.
    if encoding in ("ascii", "utf-8") and not controls and text[:-4].count("\ufffd") <= len(text) / 10:
        return False  # rubbish is not valid UTF-8, and a paragraph of nothing but figures is text
    if encoding.startswith("utf-16"):  # half of almost any rubbish is a character of something
        return plausibility(text) < 0.3
    return controls > len(sample) / 200 or plausibility(text) < -0.3


def _is_control(character: str) -> bool:
    return (character < " " and character not in _LINE_SPACE + "\x1b") or "\x7f" <= character <= "\x9f"


def _utf8(data: bytes) -> str | None:
    """Strict UTF-8; a character cut off at either end, as by a size limit, is no reason to doubt it."""
    for skip in range(min(4, len(data))):
        if skip and not 0x80 <= data[skip - 1] < 0xC0:
            return None
        try:
            return "\ufffd" * bool(skip) + data[skip:].decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and skip + error.start >= len(data) - 3 > 0:
                return "\ufffd" * bool(skip) + data[skip : skip + error.start].decode("utf-8") + "\ufffd"
            if error.start > 0:
                return None
    return None


def _long_enough(text: str) -> bool:
    """Two bytes of GB18030 can be valid UTF-8 by accident ("一" is); eight, or three in a character, hardly can."""
    foreign = [character for character in text if character > "~"]
    if len(foreign) >= 4 or all(character < "\u0250" for character in foreign):
        return True
    return any(character > "\u07ff" and character != "\ufffd" for character in foreign)


def _known(declared: str | None) -> str | None:
    try:
        name = codecs.lookup((declared or "").strip().strip("\"'")).name
        b"a".decode(name, errors="replace")
    except (LookupError, ValueError):  # no such encoding, or one that is not for text ("base64")
        return None
    return None if name in _NO_CHARSETS else _WIDER.get(name, name)


def _best(data: bytes, declared: str | None) -> str:
    sample = _sample(data)
    candidates = list(dict.fromkeys(([declared] if declared else []) + list(_CANDIDATES)))
    if not _maybe_utf16(data):
        candidates = [name for name in candidates if not name.startswith("utf-16") or name == declared]
    scores = {name: _score(sample, name) for name in candidates}
    if declared and scores[declared] >= _GOOD_ENOUGH and scores[declared] >= max(scores.values()) - 0.25:
        return declared
    if max(scores.values()) < _GOOD_ENOUGH:
        guessed = _known(_guess(sample))
        if guessed:
            scores.setdefault(guessed, _score(sample, guessed))
    best = max(scores, key=lambda name: scores[name])
    return "latin-1" if best == "cp1252" and re.search(rb"[\x81\x8d\x8f\x90\x9d]", data) else best


def _sample(data: bytes) -> bytes:
    """Enough of it to judge: the beginning, or the lines that are not ASCII where the beginning is."""
    if len(data) <= _SAMPLE_BYTES:
        return data
    if not data[:_SAMPLE_BYTES].isascii() or b"\x00" in data[:_SAMPLE_BYTES]:
        return data[: _SAMPLE_BYTES - _SAMPLE_BYTES % 4]
    lines, size = [], 0
    for line in data.splitlines():
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size > _SAMPLE_BYTES:
                break
    return b"\n".join(lines)[: 2 * _SAMPLE_BYTES]


def _score(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, errors="replace")
    if len(text) > 8:  # a sample is cut anywhere: half a character at its end says nothing
        text = text.rstrip("\ufffd")
    foreign = sum(1 for character in text if character > "~") or 1
    if encoding.startswith("utf-16"):
        doubt = 2 * len(_HANGUL.findall(text)) + foreign * (0 if b"\x00" in sample else 0.3)
    elif encoding in ("cp1252", "latin-1"):
        doubt = sum(map(len, _ACCENTS_IN_A_ROW.findall(text)))
    else:
        doubt = 0.8 * len(_LONE_HAN.findall(text))
    return plausibility(text) - doubt / foreign


def _guess(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best else None


def _maybe_utf16(data: bytes) -> bool:
    """UTF-16 without a mark: even in length, and not valid UTF-8 or full of zero bytes on one side."""
    if len(data) % 2 or len(data) < 2:
        return False
    sample = data[:_SAMPLE_BYTES]
    zeros = (sample[0::2].count(0), sample[1::2].count(0))
    if max(zeros) > len(sample) / 20:
        return min(zeros) <= max(zeros) / 10
    # Chinese without a single space or line end has no zero byte at all.
    return _utf8(data) is None


@lru_cache(maxsize=20_000)
def _weight(character: str) -> float:
    """What one character beyond ASCII says for (or against) the reading it occurs in."""
    if character in _COMMONEST:
        return 1.5
    code = ord(character)
    if 0x4E00 <= code <= 0x9FFF:
        return 1.0 if character in _everyday_han() else -0.4
    if _is_control(character):
        return -2.0
    if character == "\ufffd":
        return -5.0
    if 0x3000 <= code <= 0x30FF or 0xFF01 <= code <= 0xFF5E:  # punctuation, kana, full-width forms
        return 1.0
    if 0xAC00 <= code <= 0xD7A3:
        return 1.05
    if 0xFF61 <= code <= 0xFFDC:  # half-width kana: what single bytes become in cp932
        return -0.5
    return _weight_by_category(character, code)


def _weight_by_category(character: str, code: int) -> float:
    category = unicodedata.category(character)
    if category in ("Co", "Cn", "Cs"):
        return -3.0
    if category.startswith("L"):
        # Latin, Greek, Cyrillic; then other scripts; Han extensions and compatibility forms are next to never meant.
        return 0.6 if code < 0x0530 else 0.5 if code < 0x3100 else -0.6
    if character in "“”‘’–—…€£°·«»©®™•№§´×\u00a0\u200b\ufeff":
        return 0.5
    return 0.3 if code >= 0x2010 else -0.5


@cache
def _everyday_han() -> frozenset[str]:
    """The first level of GB 2312 and of Big5: the characters of everyday text, 3,755 and 5,401."""
    simplified = bytes(byte for lead in range(0xB0, 0xD8) for trail in range(0xA1, 0xFF) for byte in (lead, trail))
    trails = (*range(0x40, 0x7F), *range(0xA1, 0xFF))
    traditional = bytes(byte for lead in range(0xA4, 0xC7) for trail in trails for byte in (lead, trail))
    return frozenset(simplified.decode("gb2312", errors="ignore") + traditional.decode("big5", errors="ignore"))
