"""Which row of a table names its columns, and how a row reads: "Rotterdam | 86 | Marit Osterveld"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ingest.readers.lines import CELL, is_number, is_wide, trailing_numbers
from ingest.readers.pieces import SENTENCE_END, Piece

HEADER_CHARS = 160
_LABEL_CHARS = 60
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")


def with_table_headers(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with each table row knowing the text that names its columns, where one can be told."""
    result: list[Piece] = []
    header, distance, names_at = "", 0, -1
    for index, piece in enumerate(pieces):
        if piece.kind == "heading" or (result and result[-1].page != piece.page and not _goes_on(result[-1], piece)):
            header, distance = "", 0
        if piece.kind != "table_row":
            distance += 1
            if distance > 2:
                header = ""
            result.append(piece)
            continue
        above = _caption(result, piece.page)
        before = result[-1] if result else None
        following = _row_below(pieces, index)
        if _names_columns(piece.text):
            header, names_at = f"{above} {piece.text}".strip(), index
            result.append(piece)
        elif before and names_at == index - 1 and _tops(piece, following) and _is_second_row_of_names(before, piece):
            header, names_at = f"{header} {piece.text}".strip(), index
            result.append(piece)
        elif not _is_row_on(before, piece.page) and _tops(piece, following):
            header = piece.text
            names_at = index
            result.append(piece)
        else:
            if before and before.page == piece.page and before.kind == "paragraph" and _names_columns(before.text):
                header = before.text
                result[-1] = replace(before, kind="table_row")
            elif not header and len(_YEAR.findall(above)) >= 2:
                header = above
            result.append(replace(piece, header=header))
        distance = 0
    return result


def _row_below(pieces: Sequence[Piece], index: int) -> Piece | None:
    """The next row; the label of a group of rows may stand before it."""
    for piece in pieces[index + 1 : index + 3]:
        if piece.kind == "table_row":
            return piece
        if piece.kind != "paragraph" or len(piece.text) > _LABEL_CHARS:
            break
    return None


def _is_second_row_of_names(first: Piece, second: Piece) -> bool:
    """Whether names fill two rows: years or groups of columns, and what is said of each."""
    alike = (first.bold and second.bold) or len(_YEAR.findall(first.text)) >= 2
    return alike and not any(map(str.isdigit, re.sub(r"\(\d\)", "", second.text)))


def _is_row_on(piece: Piece | None, page: int) -> bool:
    return piece is not None and piece.kind == "table_row" and piece.page == page


def _goes_on(before: Piece, piece: Piece) -> bool:
    """Whether a table goes on at the top of the next page: rows of as many cells."""
    cells = before.text.count(CELL)
    return before.kind == piece.kind == "table_row" and cells > 0 and cells == piece.text.count(CELL)


def _tops(piece: Piece, following: Piece | None) -> bool:
    """Whether a table's first row is in bold and the next one not, or holds words only and the next one figures."""
    if following is None or following.kind != "table_row" or following.page != piece.page:
        return False
    if piece.bold and not following.bold and CELL in piece.text and len(piece.text) <= 2 * HEADER_CHARS:
        return not trailing_numbers(piece.text)
    tokens = piece.text.split()
    words_only = len(piece.text) <= HEADER_CHARS and trailing_numbers(piece.text) == 0 and not tokens[0][0].isdigit()
    figures = sum(is_number(token) for token in tokens)
    return words_only and figures * 3 <= len(tokens) and any(map(str.isdigit, following.text))


def _caption(before: Sequence[Piece], page: int) -> str:
    """The short lines right above a table: what it is, in which unit, and its columns where each name stands alone."""
    parts: list[str] = []
    for piece in reversed(before[-8:]):
        if piece.kind != "paragraph" or piece.page != page or SENTENCE_END.search(piece.text):
            break
        if sum(map(len, parts)) + len(piece.text) > HEADER_CHARS:
            break
        parts.insert(0, piece.text)
    return " ".join(parts)


def _names_columns(text: str) -> bool:
    """Whether a line reads like column names: years and dates, or a few short words side by side, and no figures."""
    if len(text) > HEADER_CHARS or SENTENCE_END.search(text):
        return False
    tokens = text.split()
    figures = [token for token in tokens if is_number(token) and any(character.isdigit() for character in token)]
    if not all(_YEAR.fullmatch(figure) or re.fullmatch(r"[12]?\d|3[01]", figure) for figure in figures):
        return False
    if len(_YEAR.findall(text)) >= 2:
        return True
    return not figures and len(tokens) >= 3 and any(map(is_wide, text)) and max(map(len, tokens)) <= 14


def with_cells(piece: Piece) -> Piece:
    """The piece with the cells of a table row told apart for a reader; other texts have spaces there."""
    if piece.kind == "table_row":
        return replace(piece, text=_cells(piece.text), header=_cells(piece.header))
    return replace(piece, text=piece.text.replace(CELL, " "))


def _cells(row: str) -> str:
    """The row with bars between its cells; signs that stand apart from their number are no cells."""
    # "项 目": two letters of one word, spread to fill their column.
    text = re.sub(rf"(^|{CELL})([\u3400-\u9fff]){CELL}([\u3400-\u9fff])(?={CELL}|$)", r"\1\2\3", row)
    text = re.sub(rf"(?<=\S) ([$€¥£￥]){CELL}", rf"{CELL}\1 ", text)
    text = re.sub(rf"(^|{CELL})([$€¥£￥(]){CELL}", r"\1\2 ", text)
    return re.sub(rf"{CELL}([)%]+)(?={CELL}|$)", r" \1", text).replace(CELL, " | ")
