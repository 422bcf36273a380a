"""An element tree to blocks. Knows HTML's own tags and those of trafilatura's result, which are fewer."""

from __future__ import annotations

import re
from typing import Any

from ingest.readers.blocks import Blocks
from ingest.readers.rows import add_table

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset({"ul", "ol", "dl", "list"})
_ITEMS = frozenset({"li", "dt", "dd", "item"})
_CODE = frozenset({"pre", "code"})
_INLINE = frozenset(
    {
        "a",
        "abbr",
        "b",
        "bdi",
        "bdo",
        "big",
        "cite",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "hi",
        "i",
        "ins",
        "kbd",
        "label",
    }
    | {"mark", "q", "ref", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time"}
    | {"tt", "u", "var", "wbr"}
)
_LINE = frozenset({"br", "lb"})
_SILENT = frozenset(
    {
        "audio",
        "button",
        "canvas",
        "embed",
        "graphic",
        "iframe",
        "img",
        "input",
        "noscript",
        "object",
        "script",
        "select",
    }
    | {"style", "svg", "template", "textarea", "title", "video"}
)
_MAX_DEPTH = 200  # of nesting; nothing written for readers comes near, and Python's own stack ends at 1,000 calls
_LAYOUT_CELL_CHARS = 1_000


class Walk:
    """Text gathers until a block begins or ends; then what has gathered becomes a block."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._text: list[str] = []
        self._item: str | None = None  # the marker of the list item we are in, "" once it is written
        self._numbers: list[int] = []  # of the ordered lists we are in; 0 where a list is not ordered

    def tree(self, element: Any) -> None:
        self._inside(element, 0)
        self._flush()

    def _inside(self, element: Any, depth: int) -> None:
        self._text.append(element.text or "")
        for child in element:
            if isinstance(child.tag, str):
                self._element(child, depth + 1)
            self._text.append(child.tail or "")

    def _element(self, element: Any, depth: int) -> None:
        tag = element.tag
        if tag in _SILENT:
            return
        if depth > _MAX_DEPTH:
            self._text.append(" ".join(element.itertext()))
        elif tag in _LINE:
            self._text.append("\x0b")  # told apart from the line ends of the source, which are spaces
        elif tag in _INLINE or (tag == "code" and not _is_code_block(element)):
            self._inside(element, depth)
        else:
            self._flush()
            self._block(element, tag, depth)
            self._flush()

    def _block(self, element: Any, tag: str, depth: int) -> None:
        level = _heading_level(element, tag)
        if level:
            self._blocks.heading(_collapse("".join(element.itertext())), level=level)
        elif tag in _CODE:
            self._blocks.add("code", "".join(_code_text(element)))
        elif tag == "table" and not _is_layout(element):
            _add_table(self._blocks, element)
        elif tag in _LISTS:
            self._list(element, tag, depth)
        elif tag in _ITEMS:
            self._list_item(element, tag, depth)
        else:
            self._inside(element, depth)

    def _list(self, element: Any, tag: str, depth: int) -> None:
        self._numbers.append(1 if "ol" in (tag, element.get("rend")) else 0)
        self._inside(element, depth)
        self._flush()
        self._numbers.pop()

    def _list_item(self, element: Any, tag: str, depth: int) -> None:
        outer, number = self._item, self._numbers[-1] if self._numbers else 0
        term = tag in ("dt", "dd") or str(element.get("rend", "")).startswith(("dt", "dd"))
        self._item = "" if term else f"{number}. " if number else "- "
        if number:
            self._numbers[-1] += 1
        self._inside(element, depth)
        self._flush()
        self._item = outer

    def _flush(self) -> None:
        text = _collapse("".join(self._text))
        self._text.clear()
        if not text:
            return
        if self._item is None:
            self._blocks.add("paragraph", text)
        else:
            self._blocks.add("list_item", self._item + text)
            self._item = ""


def _heading_level(element: Any, tag: str) -> int | None:
    if tag == "head":
        return _HEADINGS.get(element.get("rend", ""), 2)
    return _HEADINGS.get(tag)


def _collapse(text: str) -> str:
    """White space as a browser shows it."""
    lines = re.sub(r"[^\S\x0b\u3000\u00a0]+", " ", text).split("\x0b")
    return "\n".join(line.strip() for line in lines).strip()


def _is_code_block(element: Any) -> bool:
    return any(child.tag in _CODE for child in element) or "\n" in (element.text or "").strip()


def _code_text(element: Any) -> list[str]:
    parts = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str) and child.tag not in _SILENT:
            parts += ["\n"] if child.tag in _LINE else _code_text(child)
        parts.append(child.tail or "")
    return parts


def _is_layout(table: Any) -> bool:
    """Tables that place whole pages are not tables of values."""
    cells = list(table.iter("td", "th", "cell"))
    if next(table.iterdescendants("table"), None) is not None or len(cells) < 2:
        return True
    if max((len(_cells(row)) for row in table.iter("tr", "row")), default=0) < 2:
        return True
    return any(len("".join(cell.itertext())) > _LAYOUT_CELL_CHARS for cell in cells)


def _cells(row: Any) -> list[Any]:
    return [cell for cell in row if cell.tag in ("td", "th", "cell")]


def _add_table(blocks: Blocks, table: Any) -> None:
    caption = next(table.iter("caption"), None)
    if caption is not None:
        blocks.add("paragraph", _collapse("".join(caption.itertext())))
    rows = [_cells(row) for row in table.iter("tr", "row")]
    rows = [row for row in rows if row]
    texts = [[_collapse(" ".join(cell.itertext())).replace("\n", " ") for cell in row] for row in rows]
    marked = len(rows) > 1 and all(_is_head(cell) for cell in rows[0])
    # The header is row 0 where it is marked as one: people count the rows below it.
    add_table(blocks, enumerate(texts, start=0 if marked else 1), has_header=True if marked else None)


def _is_head(cell: Any) -> bool:
    return bool(cell.tag == "th" or cell.get("role") == "head")
