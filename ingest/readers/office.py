"""Word documents in their own order: headings, paragraphs, lists with their numbers, tables, text boxes, footnotes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BytesIO
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError  # noqa: N812  # an exception with the name of a function

from ingest.readers.blocks import Blocks
from ingest.readers.numbering import Numbering
from ingest.readers.options import ReadOptions
from ingest.readers.rows import add_table
from rag.errors import DocumentError
from rag.models import MetadataValue, Parsed

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_FOOTNOTES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
_HEADING_NAME = re.compile(r"(?:heading|标题|標題|überschrift|titre|título)\s*([1-9])", re.IGNORECASE)
_TITLE_NAME = re.compile(r"(?:title|标题|標題)", re.IGNORECASE)
_CONTENTS_NAME = re.compile(r"(?:toc|目录|目錄|table of (?:contents|figures))\b", re.IGNORECASE)
_LAYOUT_CELL_CHARS = 1_000
# What the Office libraries raise inside damaged packages: they trust the format, and damage shows where it is met.
DAMAGE = (
    *(BadZipFile, ZlibError, EOFError, OSError, NotImplementedError),
    *(KeyError, IndexError, ValueError, TypeError, AttributeError, SyntaxError, OverflowError),
)


def read_docx(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:  # noqa: ARG001  # every reader is called alike
    import docx
    from docx.opc.exceptions import PackageNotFoundError

    try:
        document = opened(docx.Document, data, suffix=".docx")
        walk = _Walk(document)
        walk.children(document.element.body)
    except (PackageNotFoundError, RuntimeError, *DAMAGE) as error:
        raise corrupt("Word document", error) from error
    title, metadata = about(document.core_properties)
    return walk.blocks.parsed(title=title or walk.title, metadata=metadata)


def opened(library_open: Callable[[BytesIO], Any], data: bytes, *, suffix: str) -> Any:
    """The file as its library sees it. A template, a show or macros have a content type that it refuses."""
    try:
        return library_open(BytesIO(data))
    except ValueError as error:
        detail = f"This is an Office file, but not an ordinary {suffix} file."
        raise DocumentError("unsupported", detail, remedy=f"Save it as {suffix}.") from error


def corrupt(what: str, error: Exception) -> DocumentError:
    return DocumentError(
        "corrupt",
        f"This {what} is damaged or not one ({type(error).__name__}).",
        remedy="Open it in Office, save a new copy and add that.",
    )


# When the templates of python-docx and python-pptx were saved: files that programs make with them keep it.
_TEMPLATES = (datetime(2013, 12, 23, 23, 15), datetime(2013, 1, 27, 9, 15, 58))


def about(properties: Any) -> tuple[str | None, dict[str, MetadataValue]]:
    """Title and metadata of an Office file's core properties; what only names the program is left out."""
    metadata: dict[str, MetadataValue] = {}
    author = (properties.author or "").strip()
    if author and author not in ("python-docx", "python-pptx", "openpyxl", "Steve Canny"):  # set by the libraries
        metadata["author"] = author
    changed = getattr(properties, "modified", None) or getattr(properties, "created", None)
    if isinstance(changed, datetime) and changed.replace(tzinfo=None) not in _TEMPLATES:
        metadata["date"] = changed.date()
    title = (properties.title or "").strip()
    # What the programs write when nobody did.
    return None if title.lower() in (
        "",
        "powerpoint presentation",
        "powerpoint 演示文稿",
        "word document",
    ) else title, metadata


class _Walk:
    """Goes through the XML itself: python-docx passes over content controls, tracked insertions and text boxes."""

    def __init__(self, document: Any) -> None:
        self.blocks = Blocks()
        self.title: str | None = None
        self._styles = {style.style_id: style for style in document.styles}
        self._numbering = Numbering(document.part)
        self._footnotes = _footnotes(document.part)

    def children(self, element: Any) -> None:
        for child in element:
            if child.tag == f"{_W}p":
                self._paragraph(child)
            elif child.tag == f"{_W}tbl":
                self._table(child)
            elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}ins", f"{_W}moveTo"):
                self.children(child)

    def _paragraph(self, paragraph: Any) -> None:
        names = self._style_names(paragraph)
        text = "".join(_texts(paragraph)).strip()
        if text and not any(_CONTENTS_NAME.match(name) for name in names):
            self._add(paragraph, text, names)
        for box in paragraph.iter(f"{_W}txbxContent"):
            if not any(above.tag == _FALLBACK for above in box.iterancestors()):
                self.children(box)
        for reference in paragraph.iter(f"{_W}footnoteReference"):
            self.blocks.add("paragraph", self._footnotes.get(reference.get(f"{_W}id"), ""))

    def _add(self, paragraph: Any, text: str, names: list[str]) -> None:
        label = self._numbering.label(paragraph, self._style_chain(paragraph))
        level = self._heading_level(paragraph, names)
        if level is not None:
            if self.title is None and level == 1:
                self.title = text
            self.blocks.heading(f"{label} {text}" if label and label != "-" else text, level=level)
        elif label is not None or any(name.startswith("List") for name in names):
            self.blocks.add("list_item", f"{label or '-'} {text}")
        else:
            self.blocks.add("paragraph", text)

    def _style_chain(self, paragraph: Any) -> list[Any]:
        """The paragraph's style and those it is based on, nearest first."""
        named = paragraph.find(f"{_W}pPr/{_W}pStyle")
        style = self._styles.get(named.get(f"{_W}val")) if named is not None else None
        chain: list[Any] = []
        while style is not None and style not in chain:
            chain.append(style)
            style = getattr(style, "base_style", None)
        return chain

    def _style_names(self, paragraph: Any) -> list[str]:
        return [style.name or "" for style in self._style_chain(paragraph)]

    def _heading_level(self, paragraph: Any, names: list[str]) -> int | None:
        for element in (paragraph, *(style.element for style in self._style_chain(paragraph))):
            outline = element.find(f"{_W}pPr/{_W}outlineLvl")
            if outline is not None and outline.get(f"{_W}val", "9").isdigit():
                level = int(outline.get(f"{_W}val"))
                return level + 1 if level < 9 else None
        for name in names:
            if numbered := _HEADING_NAME.match(name):
                return int(numbered.group(1))
            if _TITLE_NAME.fullmatch(name):
                return 1
        return None

    def _table(self, table: Any) -> None:
        rows = _grid(table)
        texts = [[_cell_text(cell) for cell in row] for row in rows]
        longest = max((len(text) for row in texts for text in row), default=0)
        if max(map(len, rows), default=0) < 2 or longest > _LAYOUT_CELL_CHARS:
            for cell in dict.fromkeys(cell for row in rows for cell in row if cell is not None):
                self.children(cell)  # a frame around text, not a table of values
            return
        has_header = True if len(rows) > 1 and _is_header(next(_rows(table))) else None
        add_table(self.blocks, enumerate(texts, start=1), has_header=has_header)


def _texts(element: Any) -> Iterator[str]:
    """The visible words of a paragraph, not those deleted under tracking nor those in its text boxes."""
    for child in element:
        if child.tag == f"{_W}t":
            yield child.text or ""
        elif child.tag in (f"{_W}tab", f"{_W}ptab"):
            yield "\t"
        elif child.tag in (f"{_W}br", f"{_W}cr"):
            yield "\n"
        elif child.tag == f"{_W}noBreakHyphen":
            yield "-"
        elif child.tag not in (f"{_W}del", f"{_W}moveFrom", f"{_W}txbxContent", f"{_W}pPr", f"{_W}rPr", _FALLBACK):
            yield from _texts(child)


def _rows(table: Any) -> Iterator[Any]:
    for child in table:
        if child.tag == f"{_W}tr":
            yield child
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml"):
            yield from _rows(child)


def _grid(table: Any) -> list[list[Any]]:
    """A cell per grid column. One that spans rows stands in each of them, one that spans columns in the first."""
    grid: list[list[Any]] = []
    for row in _rows(table):
        cells: list[Any] = []
        for cell in row.iterchildren(f"{_W}tc"):
            merged = cell.find(f"{_W}tcPr/{_W}vMerge")
            continues = merged is not None and merged.get(f"{_W}val", "continue") == "continue"
            column = len(cells)
            above = grid[-1][column] if continues and grid and column < len(grid[-1]) else None
            span = cell.find(f"{_W}tcPr/{_W}gridSpan")
            columns = int(span.get(f"{_W}val", "1")) if span is not None else 1
            cells += [cell if above is None else above, *[None] * min(columns - 1, 100)]
        grid.append(cells)
    return grid


def _cell_text(cell: Any) -> str:
    if cell is None:
        return ""
    return " ".join(" ".join("".join(_texts(paragraph)).split()) for paragraph in cell.iter(f"{_W}p")).strip()


def _is_header(row: Any) -> bool:
    """Marked to repeat on every page, or bold throughout."""
    if row.find(f"{_W}trPr/{_W}tblHeader") is not None:
        return True
    runs = [run for run in row.iter(f"{_W}r") if "".join(_texts(run)).strip()]
    return bool(runs) and all(run.find(f"{_W}rPr/{_W}b") is not None for run in runs)


def _footnotes(part: Any) -> dict[str, str]:
    from lxml import etree

    related = [each.target_part for each in part.rels.values() if each.reltype == _FOOTNOTES and not each.is_external]
    if not related:
        return {}
    # No entities, no network: the notes come from the same untrusted file as the text.
    root = etree.fromstring(related[0].blob, etree.XMLParser(resolve_entities=False, no_network=True))
    return {note.get(f"{_W}id"): "".join(_texts(note)).strip() for note in root.iter(f"{_W}footnote")}
