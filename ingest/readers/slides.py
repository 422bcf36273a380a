"""Presentations, slide by slide: the title is the section, the slide the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ingest.readers.blocks import Blocks
from ingest.readers.office import DAMAGE, about, corrupt, opened
from ingest.readers.options import ReadOptions
from ingest.readers.rows import add_table, show_value
from rag.models import Parsed


def read_pptx(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:  # noqa: ARG001  # every reader is called alike
    import pptx
    from pptx.exc import PackageNotFoundError

    blocks = Blocks()
    first_title: str | None = None
    try:
        presentation = opened(pptx.Presentation, data, suffix=".pptx")
        for number, slide in enumerate(presentation.slides, start=1):
            title = _add_slide(blocks, slide, number)
            first_title = first_title or title
    except (PackageNotFoundError, RuntimeError, *DAMAGE) as error:
        raise corrupt("presentation", error) from error
    title, metadata = about(presentation.core_properties)
    return blocks.parsed(title=title or first_title, metadata=metadata)


def _add_slide(blocks: Blocks, slide: Any, number: int) -> str | None:
    blocks.start_page(number, label=str(number))
    blocks.leave(1)
    title = slide.shapes.title
    text = title.text_frame.text.replace("\v", " ").strip() if title is not None and title.has_text_frame else ""
    blocks.heading(text, level=1)
    for shape in _reading_order(slide.shapes):
        if title is None or shape.shape_id != title.shape_id:
            _add_shape(blocks, shape)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        for line in slide.notes_slide.notes_text_frame.text.splitlines():
            blocks.add("paragraph", line)
    return text or None


def _reading_order(shapes: Iterable[Any]) -> Iterator[Any]:
    """From top to bottom, then left to right; groups are opened in their place."""
    for shape in sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)):
        if hasattr(shape, "shapes"):
            yield from _reading_order(shape.shapes)
        else:
            yield shape


def _add_shape(blocks: Blocks, shape: Any) -> None:
    if getattr(shape, "has_table", False):
        rows = [[_cell_text(cell) for cell in row.cells] for row in shape.table.rows]
        # PowerPoint marks the header row of a table by its look; new tables have one.
        add_table(
            blocks, enumerate(rows, start=1), has_header=True if shape.table.first_row and len(rows) > 1 else None
        )
    elif getattr(shape, "has_chart", False):
        _add_chart(blocks, shape.chart)
    elif shape.has_text_frame:
        bulleted = shape.is_placeholder
        for paragraph in shape.text_frame.paragraphs:
            text = paragraph.text.replace("\v", "\n").strip()
            if text and (bulleted or paragraph.level):
                blocks.add("list_item", f"{'  ' * paragraph.level}- {text}")
            else:
                blocks.add("paragraph", text)


def _cell_text(cell: Any) -> str:
    return "" if cell.is_spanned else " ".join(cell.text_frame.text.split())


def _add_chart(blocks: Blocks, chart: Any) -> None:
    """The numbers behind a chart, a row per category."""
    if chart.has_title and chart.chart_title.has_text_frame:
        blocks.add("paragraph", chart.chart_title.text_frame.text)
    for plot in chart.plots:
        series = list(plot.series)
        rows = [["", *(show_value(each.name) for each in series)]]
        for index, category in enumerate(plot.categories):
            values = [each.values[index] if index < len(each.values) else None for each in series]
            rows.append([show_value(category), *(show_value(value) for value in values)])
        add_table(blocks, enumerate(rows), has_header=True)
