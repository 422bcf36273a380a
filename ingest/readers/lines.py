"""Printed lines: text with its place on the page. What PDF text layers and OCR have in common."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

CELL = "\t"  # stands between the cells of a table row, where a wide gap tells them apart
EDGE_LINES = 3  # running headers and footers are looked for in this many lines at the top and the bottom

_NUMBER = re.compile(
    r"[(\[]?[-+−–]?[$¥€£￥]?[(\[]?[-+−–]?(?:\d(?:[\d,.:/]*\d)?|\.\d+)(?:[%‰x倍年月日元股]|bps|pp)?[)\]]{0,2}[%*]?(?:\(\d\))?$"
    r"|[$¥€£￥%)—–-]$"
)
_PAGE_NUMBER = re.compile(
    r"^\W*(?:page|p\.|第)?\s*(\d{1,4}|[ivxlc]{1,7})\s*(?:页)?\s*(?:(?:of|/|，?\s*共)\s*\d{1,4}\s*页?)?\W*$",
    re.IGNORECASE,
)
# Shapes that stand for ordinary letters (ligatures, Kangxi radicals, Arabic presentation forms): no question has them.
_PRESENTATION = re.compile("[\u2f00-\u2fd5\ufb00-\ufb06\ufb50-\ufdcf\ufdf0-\ufdfb\ufe70-\ufefc]+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
_DASHES = "—–-"  # nothing, in the cell of a table
_SPACES = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000\f\v]+")
_CLAUSE_END = re.compile(r"[。；]")
_SYMBOLS = re.compile(r"[!-/:-@\[-`{-~]")


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line. `x` and `y` are where it starts, in points, y upwards.

    `right` is where it ends, measured by the widths of its font, or else a guess.
    """

    text: str
    x: float
    y: float
    right: float
    size: float  # of its letters, in points
    bold: bool = False
    measured: bool = False
    starts_bold: bool = False
    contents: bool = False  # an entry of a table of contents

    @property
    def gaps(self) -> int:
        """How many wide gaps are inside it, as between the cells of a table."""
        return self.text.count(CELL)


def tidy(text: str) -> str:
    """One line without invisible characters, runs of spaces, and letters in their printed disguise."""
    text = _PRESENTATION.sub(lambda found: unicodedata.normalize("NFKC", found.group()), _INVISIBLE.sub("", text))
    return _SPACES.sub(" ", text.replace("\n", " ")).strip()


def is_wide(character: str) -> bool:
    """Chinese and Japanese letters and their punctuation: one em wide, no space between them."""
    return unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7af"


def text_width(text: str, size: float) -> float:
    """About how wide it prints: one em for a wide letter, half of one for the others."""
    return size * sum(1.0 if is_wide(character) else 0.5 for character in text)


def is_number(token: str) -> bool:
    return not token[:1].isalpha() and _NUMBER.match(token) is not None


def trailing_numbers(text: str) -> int:
    """How many numbers the line ends with: "Net sales $ 2,777 897" has two."""
    count = 0
    for token in reversed(text.split()):
        if not is_number(token):
            break
        count += any(character.isdigit() for character in token) or token in _DASHES
    return count


def is_table_row(line: Line) -> bool:
    """Whether the line looks like a label with numbers, or like cells side by side."""
    if line.contents:
        return False
    numbers = trailing_numbers(line.text)
    tokens = line.text.split()
    if numbers >= 2 and any(character.isdigit() for character in line.text):
        return True
    figures = sum(is_number(token) and token[-1:] not in ",;:" for token in tokens)
    if figures >= 3 and figures * 2 >= len(tokens) and not _CLAUSE_END.search(line.text):
        return True
    return len(tokens) >= 2 and (line.gaps >= 2 or (line.gaps >= 1 and figures >= 1 and len(line.text) < 100))


# ── is it text at all? ────────────────────────────────────────────────────────────────────────


# Nearly all letters are among these, and need no look at their category.
_MAPPED = re.compile(
    r"[\s!-~\u00a1-\u02ff\u2010-\u2027\u2030-\u205e\u3001-\u303e\u3041-\u3096\u30a1-\u30fe\u3400-\u9fff\uff01-\uffbe]+"
)


def unmapped_share(text: str) -> float:
    """The share of visible characters that no letter stands behind: private, unassigned, control, replacement."""
    visible = sum(map(len, text.split()))
    odd = _MAPPED.sub("", text)
    unmapped = sum(unicodedata.category(character) in ("Co", "Cn", "Cc") or character == "\ufffd" for character in odd)
    return unmapped / visible if visible else 0.0


def is_garbled(text: str) -> bool:
    """Whether a text layer is rubbish: no letters behind its glyphs, or wrong ones. Numbers and scripts are fine."""
    visible = sum(map(len, text.split()))
    if not visible:
        return False
    unmapped = unmapped_share(text) * visible
    # "/i255" and "(cid:12)" are how extractors spell a glyph without a letter.
    spelled = sum(len(found) for found in re.findall(r"\(cid:\d+\)|/[a-z]\d{1,4}(?=/|\s|$)", text))
    soup = sum(len(token) for token in text.split() if _is_symbol_soup(token))
    return (unmapped + spelled) * 4 > visible or soup * 2 > visible or _is_shifted(text)


def _is_symbol_soup(token: str) -> bool:
    if len(token) < 3 or token.isalnum() or any(map(str.isalpha, token)) or is_number(token):
        return False
    return len(set(_SYMBOLS.findall(token))) >= 3


_COMMON_WORDS = re.compile(
    r"\b(?:the|of|and|to|in|is|for|on|with|that|by|as|at|be|are|from|this|it|not|de|la|le|les|des|et|en|un|une|der|die|das"
    r"|und|ist|den|von|zu|mit|el|los|las|que|por|con|il|di|che|per|da|do|os|uma|em)\b",
    re.IGNORECASE,
)


def _is_shifted(text: str) -> bool:
    """Whether Latin letters read like a cipher ("7KLV LV D WHVW"): few vowels, and no common word of six languages."""
    if _COMMON_WORDS.search(text):
        return False
    letters = re.sub(r"[^a-z]+", "", text.lower())
    if len(letters) < 150 or len(letters) * 2 < sum(map(len, text.split())):
        return False
    vowels = sum(letters.count(vowel) for vowel in "aeiou")
    return vowels < 0.22 * len(letters)


# ── what is repeated on every page ────────────────────────────────────────────────────────────


def without_running_lines(pages: Sequence[Sequence[Line]], *, keep_first: bool = True) -> list[list[Line]]:
    """The pages without bare page numbers and without headers and footers that most pages repeat.

    With `keep_first` a running line stays where it occurs first if it has words that the other lines never say.
    """
    edges = [_edge_lines(lines) for lines in pages]
    counts = Counter(key for lines in edges for key in {_running_key(line.text) for line in lines} if key)
    written = sum(bool(lines) for lines in edges)
    running = {key for key, count in counts.items() if count >= 3 and count * 2 > written}
    offset = _page_number_offset(edges)
    seen = set(running)
    if keep_first and running:
        others = [line.text.casefold() for lines in pages for line in lines if _running_key(line.text) not in running]
        seen = {key for key in running if _says_nothing_new(key, others)}
    kept: list[list[Line]] = []
    for index, lines in enumerate(pages):
        page: list[Line] = []
        for line in lines:
            at_edge = line in edges[index]
            key = _running_key(line.text)
            if at_edge and key in running and key in seen:
                continue
            if at_edge and offset is not None and _page_number(line.text) == index + offset:
                continue
            if at_edge and key in running:
                seen.add(key)
            page.append(line)
        kept.append(page)
    return kept


def _says_nothing_new(key: str, others: Sequence[str]) -> bool:
    """Whether each word of a running line, or each pair of its Chinese letters, occurs in the other lines too."""
    words = [part for word in re.findall(r"[^\W\d_]+", key) for part in _words(word)]
    missing = set(words)
    for text in others:
        missing = {word for word in missing if word not in text}
        if not missing:
            return True
    return not missing


def _words(word: str) -> list[str]:
    if any(map(is_wide, word)):
        return [word[at : at + 2] for at in range(max(1, len(word) - 1))]
    return [word] if len(word) > 2 else []


def _edge_lines(lines: Sequence[Line]) -> list[Line]:
    by_height = sorted(lines, key=lambda line: -line.y)
    return by_height[:EDGE_LINES] + by_height[max(EDGE_LINES, len(by_height) - EDGE_LINES) :]


@lru_cache(maxsize=20_000)
def _running_key(text: str) -> str:
    """The line with its digits levelled, so that "Report 12" and "Report 13" are one; "" where few letters are left."""
    key = re.sub(r"\d+|(?<=\s)[ivxlc]+$", "#", text.strip().casefold())
    return key if len(key) <= 200 and sum(map(str.isalpha, key)) >= 3 else ""


def _page_number(text: str) -> int | None:
    found = _PAGE_NUMBER.match(text)
    return int(found[1]) if found and found[1].isdigit() else None


def _page_number_offset(edges: Sequence[Iterable[Line]]) -> int | None:
    """What to add to a page's index to get its printed number, where three pages, and a third of all, agree."""
    offsets = Counter(
        number - index
        for index, lines in enumerate(edges)
        for number in {_page_number(line.text) for line in lines}
        if number is not None
    )
    if not offsets:
        return None
    offset, count = offsets.most_common(1)[0]
    return offset if count >= 3 and count * 3 >= len(edges) else None
