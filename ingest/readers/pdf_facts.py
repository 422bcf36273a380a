"""What a PDF says about itself: outline, title, author, date, and the values of its form fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ingest.readers.outline import OutlineEntry

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

    from rag.models import MetadataValue

_NO_TITLE = re.compile(
    r"^(?:microsoft\s+\w+\s+-\s|untitled|unspecified$|unknown$|none$|document\s?\d*$|slide\s?\d+$|powerpoint|无标题|文档\s?\d*$|幻灯片)"
    r"|\.(?:docx?|xlsx?|pptx?|pdf|tex|dvi|html?|txt|indd|qxd|rtf|odt|wps)$",
    re.IGNORECASE,
)
_NO_AUTHOR = frozenset(
    {"administrator", "admin", "anonymous", "user", "owner", "unknown", "author", "root", "微软用户"}
)


def title_of(reader: PdfReader) -> str | None:
    """The title of the document information, or its subject where the title is none that a person gave."""
    information = reader.metadata
    if information is None:
        return None
    return _sensible(information.get("/Title")) or _sensible(information.get("/Subject"))


def _sensible(value: object) -> str | None:
    title = " ".join(str(value or "").split())
    letters = sum(character.isalpha() for character in title)
    return title[:300] if letters >= 2 and letters * 3 >= len(title) and not _NO_TITLE.search(title) else None


def metadata_of(reader: PdfReader) -> dict[str, MetadataValue]:
    """Author and date of creation, where they are there and mean something."""
    found: dict[str, MetadataValue] = {}
    information = reader.metadata
    if information is None:
        return found
    author = " ".join(str(information.get("/Author") or "").split())
    if author and author.casefold() not in _NO_AUTHOR:
        found["author"] = author[:300]
    try:
        created = information.creation_date or information.modification_date
    except (ValueError, TypeError, OverflowError):  # a date that is none; the document is no worse for it
        created = None
    if created is not None:
        found["date"] = created.date()
    return found


def outline_entries(reader: PdfReader) -> list[OutlineEntry]:
    """The outline from top to bottom, with the page and height that each entry leads to."""
    return list(_flattened(reader, reader.outline, 1))


def _flattened(reader: PdfReader, entries: Any, level: int) -> Iterator[OutlineEntry]:
    for entry in entries:
        if isinstance(entry, list):
            yield from _flattened(reader, entry, level + 1)
            continue
        page = reader.get_destination_page_number(entry)
        title = " ".join(str(entry.title or "").split())
        if page is not None and page >= 0 and title:
            top = entry.top
            yield OutlineEntry(title, level, page, float(top) if isinstance(top, (int, float)) else None)


def form_values(page: PageObject) -> Iterator[str]:
    """ "name: value" of every filled-in field that is shown on the page."""
    seen: set[str] = set()
    for annotation in page.get("/Annots") or ():
        widget = annotation.get_object()
        if widget.get("/Subtype") != "/Widget":
            continue
        name, value = _field(widget)
        if name and value and name not in seen:
            seen.add(name)
            yield f"{name}: {value}"


def _field(widget: Any) -> tuple[str, str]:
    """Name and value of a form field; both may be written on its parents."""
    names: list[str] = []
    shown, value, node = "", None, widget
    for _ in range(10):  # parents may form a circle in a hostile file
        shown = shown or str(node.get("/TU") or "")
        if node.get("/T"):
            names.insert(0, str(node["/T"]))
        value = node.get("/V") if value is None else value
        if "/Parent" not in node:
            break
        node = node["/Parent"]
    if isinstance(value, list):
        value = ", ".join(str(part) for part in value)
    text = str(value).lstrip("/").strip() if value is not None else ""
    return (shown or ".".join(names)).strip(), "" if text == "Off" else " ".join(text.split())
