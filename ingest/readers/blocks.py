"""Readers hand over one block after another; out come the canonical text and each block's exact place in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ingest.readers.lines import is_wide
from rag.models import Block, BlockKind, DocumentStatus, MetadataValue, Page, PageStatus, Parsed, Problem
from rag.text.language import canonical

_TIGHT: frozenset[BlockKind] = frozenset({"list_item", "table_row"})  # neighbours of one kind stand line under line
_SECTION_TITLE_CHARS = 200  # a "heading" of a whole paragraph happens; a section path of it helps nobody


class Blocks:
    """Collects blocks in reading order. Each lies in the text exactly where it says; only white space lies between."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._pages: list[Page] = []
        self._path: list[tuple[int, str]] = []
        self._section: tuple[str, ...] = ()
        self._problems: list[Problem] = []

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def characters(self) -> int:
        return self._length

    def heading(self, text: str, *, level: int) -> None:
        """A heading, and the section that everything after it belongs to."""
        title = " ".join(canonical(text).split())
        if not title:
            return
        self.leave(level)
        self._path.append((level, title[:_SECTION_TITLE_CHARS]))
        self._section = tuple(title for _, title in self._path)
        self._append("heading", title, level=level)

    def leave(self, level: int) -> None:
        """Ends all sections of this level and below."""
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        self._section = tuple(title for _, title in self._path)

    def add(
        self, kind: BlockKind, text: str, *, row: str | None = None, header: str = "", goes_on: bool = False
    ) -> None:
        """Any block but a heading; one of white space only is passed over. With `goes_on` it is the rest of the
        paragraph before it, behind a page break, and no line break lies between them."""
        text = canonical(text)
        # Code keeps the indentation of its first line: it means something there.
        text = text.rstrip().lstrip("\n") if kind == "code" else text.strip()
        if text.strip():
            self._append(kind, text, row=row, header=header, goes_on=goes_on)

    def start_page(self, number: int, *, label: str) -> None:
        self._end_page()
        self._pages.append(Page(number=number, label=label, start=-1, end=-1))

    def problem(self, code: str, detail: str, *, remedy: str = "") -> None:
        self._problems.append(Problem(code, detail, remedy))

    def parsed(
        self,
        *,
        title: str | None = None,
        metadata: Mapping[str, MetadataValue] | None = None,
        status: DocumentStatus = "ok",
    ) -> Parsed:
        """Everything collected; without any block the status is "empty"."""
        self._end_page()
        return Parsed(
            text="".join(self._parts),
            blocks=tuple(self._blocks),
            pages=tuple(self._pages),
            title=" ".join(canonical(title).split()) or None if title else None,
            metadata=metadata or {},
            status=status if self._blocks else "empty",
            problems=tuple(self._problems),
        )

    def _append(
        self,
        kind: BlockKind,
        text: str,
        *,
        level: int | None = None,
        row: str | None = None,
        header: str = "",
        goes_on: bool = False,
    ) -> None:
        if self._parts and goes_on and self._blocks[-1].kind == kind:
            self._write("" if is_wide(self._parts[-1][-1]) or is_wide(text[0]) else " ")
        elif self._parts:
            tight = kind in _TIGHT and self._blocks[-1].kind == kind
            self._write("\n" if tight else "\n\n")
        start = self._length
        self._write(text)
        if self._pages and self._pages[-1].start < 0:
            self._pages[-1] = replace(self._pages[-1], start=start)
        page = self._pages[-1].number if self._pages else None
        self._blocks.append(
            Block(kind, start, self._length, section=self._section, page=page, level=level, row=row, header=header)
        )

    def _write(self, part: str) -> None:
        self._parts.append(part)
        self._length += len(part)

    def _end_page(self) -> None:
        if not self._pages or self._pages[-1].end >= 0:
            return
        page = self._pages[-1]
        status: PageStatus = "text" if page.start >= 0 else "empty"
        start = page.start if page.start >= 0 else self._length
        self._pages[-1] = replace(page, start=start, end=self._length, status=status)
