"""A Markdown file with a small header becomes a printed book: cover, contents, outline, page labels, tables, columns.

The Markdown is plain CommonMark with tables. A few comments steer the layout:
`<!-- body -->` ends the front matter (roman page numbers), `<!-- columns 2 -->` starts a new page in two columns,
`<!-- widths 2 1 1 -->` gives the next table's columns their shares of the width.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token
from reportlab.lib.colors import HexColor, white
from reportlab.lib.enums import TA_LEFT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    NextPageTemplate,
    PageBreak,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)
from reportlab.platypus.tableofcontents import TableOfContents

INK = HexColor("#16323a")
TEAL = HexColor("#0f6b70")
PALE = HexColor("#eef5f5")
LINE = HexColor("#b9cfd1")
MARGIN = 25 * mm
CHINESE_FONT = "STSong-Light"  # every PDF viewer knows it, so that no font file lies in the repository


@dataclass(frozen=True)
class Source:
    header: dict[str, str]
    body: str


def read_source(path: Path) -> Source:
    """The `key: value` header between the two `---` lines, and the Markdown after it."""
    _, header, body = path.read_text(encoding="utf-8").split("---\n", 2)
    pairs = (line.split(":", 1) for line in header.splitlines() if line.strip())
    return Source({key.strip(): value.strip() for key, value in pairs}, body)


def make_book(source_path: Path, target: Path) -> None:
    """Writes the PDF of a handbook; the same source gives the same bytes."""
    source = read_source(source_path)
    chinese = source.header["language"] == "zh"
    if chinese:
        pdfmetrics.registerFont(UnicodeCIDFont(CHINESE_FONT))
    styles = _styles(chinese)
    with _fixed_clock(source.header["date"]):
        book = Book(target, source.header, styles)
        book.multiBuild([*_cover(source.header, styles), *_contents(source.header, styles), *_story(source, styles)])


@contextmanager
def _fixed_clock(day: str) -> Iterator[None]:
    """ReportLab takes a document's dates from this variable, and its identifier from the content in invariant mode."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromisoformat(day).replace(hour=9, tzinfo=UTC)
    os.environ["SOURCE_DATE_EPOCH"] = str(int(moment.timestamp()))
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = before


# ── looks ─────────────────────────────────────────────────────────────────────────────────────


def _styles(chinese: bool) -> dict[str, ParagraphStyle]:
    text, bold, sans = (CHINESE_FONT,) * 3 if chinese else ("Times-Roman", "Helvetica-Bold", "Helvetica")
    common: dict[str, Any] = {"wordWrap": "CJK"} if chinese else {}
    size, leading = (10.8, 18.5) if chinese else (11, 16)

    def style(name: str, font: str, points: float, line: float, **more: Any) -> ParagraphStyle:
        return ParagraphStyle(name, fontName=font, fontSize=points, leading=line, alignment=TA_LEFT, **common, **more)

    return {
        "p": style("p", text, size, leading, textColor=INK, spaceAfter=7),
        "li": style(
            "li", text, size, leading, textColor=INK, leftIndent=20, bulletIndent=5, spaceAfter=4,
            bulletFontName=sans if not chinese else CHINESE_FONT, bulletFontSize=size - 0.8,
        ),
        "h1": style("h1", bold, 20, 26, textColor=TEAL, spaceAfter=14, keepWithNext=1),
        "h2": style("h2", bold, 13.5, 19, textColor=TEAL, spaceBefore=12, spaceAfter=5, keepWithNext=1),
        "h3": style("h3", bold, 11, 16, textColor=INK, spaceBefore=8, spaceAfter=4, keepWithNext=1),
        "td": style("td", sans, 9.2, 13, textColor=INK),
        "th": style("th", bold, 9.2, 13, textColor=white),
        "cover": style("cover", bold, 30, 40, textColor=TEAL, spaceAfter=12),
        "cover2": style("cover2", sans, 14, 24, textColor=INK),
        "toc0": style("toc0", bold, 10.5, 17, textColor=INK, spaceBefore=4),
        "toc1": style("toc1", sans, 9.5, 14, textColor=INK, leftIndent=14),
    }  # fmt: skip


class Book(BaseDocTemplate):  # type: ignore[misc]  # ReportLab has no types
    """Keeps what only the typesetting knows: where the body starts, and which heading fell on which page."""

    def __init__(self, target: Path, header: dict[str, str], styles: dict[str, ParagraphStyle]) -> None:
        super().__init__(
            str(target), pagesize=A4, invariant=1, lang=header["language"], title=header["title"],
            author=header["author"], subject=header["subject"], keywords=header["keywords"],
            creator="Tidelark publishing",
        )  # fmt: skip
        self.footer, self.font = header["footer"], styles["td"].fontName
        self.body_start, self.marks = 0, 0
        width, height = A4[0] - 2 * MARGIN, A4[1] - 2 * MARGIN
        column = (width - 10 * mm) / 2
        whole = [Frame(MARGIN, MARGIN, width, height, 0, 0, 0, 0)]
        halves = [
            Frame(MARGIN + shift, MARGIN, column, height, 0, 0, 0, 0, id=name)
            for name, shift in (("left", 0), ("right", column + 10 * mm))
        ]
        self.addPageTemplates(
            [
                PageTemplate("cover", whole, onPage=self._cover_page),
                PageTemplate("front", whole, onPageEnd=self._page),
                PageTemplate("body", whole, onPage=self._start_body, onPageEnd=self._page),
                PageTemplate("columns", halves, onPageEnd=self._page),
            ]
        )

    def beforeDocument(self) -> None:  # noqa: N802  # ReportLab's name
        self.body_start, self.marks = 0, 0

    def label(self) -> str:
        """The page number as printed: roman in the front matter, arabic from the body on."""
        if not self.body_start:
            return ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii")[self.page - 1]
        return str(self.page - self.body_start + 1)

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802  # ReportLab's name
        level = {"h1": 0, "h2": 1}.get(getattr(getattr(flowable, "style", None), "name", ""))
        if level is None or getattr(flowable, "unlisted", False):
            return
        self.marks += 1
        key, title = f"heading-{self.marks}", flowable.getPlainText()
        self.canv.bookmarkPage(key)
        self.canv.addOutlineEntry(title, key, level, closed=level == 0)
        if self.body_start:  # the contents list what follows them
            self.notify("TOCEntry", (level, escape(title), self.page - self.body_start + 1, key))

    def _cover_page(self, canvas: Any, _: BaseDocTemplate) -> None:
        canvas.addPageLabel(0, "ROMAN_LOWER", 1)
        canvas.setFillColor(TEAL)
        canvas.rect(0, A4[1] - 60 * mm, A4[0], 60 * mm, stroke=0, fill=1)
        canvas.setStrokeColor(white)
        canvas.setLineWidth(2)
        for step in range(6):  # the company's mark: a tide
            y = A4[1] - (30 + 3 * step) * mm
            canvas.bezier(MARGIN, y, MARGIN + 20 * mm, y + 9 * mm, MARGIN + 35 * mm, y - 9 * mm, MARGIN + 55 * mm, y)

    def _start_body(self, canvas: Any, _: BaseDocTemplate) -> None:
        if not self.body_start:
            self.body_start = self.page
            canvas.addPageLabel(self.page - 1, "ARABIC", 1)

    def _page(self, canvas: Any, _: BaseDocTemplate) -> None:
        canvas.setStrokeColor(LINE)
        canvas.line(MARGIN, 18 * mm, A4[0] - MARGIN, 18 * mm)
        canvas.setFont(self.font, 8)
        canvas.setFillColor(INK)
        canvas.drawString(MARGIN, 13 * mm, self.footer)
        canvas.drawRightString(A4[0] - MARGIN, 13 * mm, self.label())


# ── content ───────────────────────────────────────────────────────────────────────────────────


def _cover(header: dict[str, str], styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    lines = [Paragraph(escape(header[key]), styles["cover2"]) for key in ("subtitle", "edition", "author")]
    title = Paragraph(escape(header["title"]), styles["cover"])
    return [Spacer(1, 75 * mm), title, *lines, NextPageTemplate("front"), PageBreak()]


def _contents(header: dict[str, str], styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    title = Paragraph(header["contents"], styles["h1"])
    title.unlisted = True
    tight = TableStyle([("TOPPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 0)])
    table = TableOfContents(levelStyles=[styles["toc0"], styles["toc1"]], dotsMinLevel=-1, tableStyle=tight)
    return [title, table]


def _story(source: Source, styles: dict[str, ParagraphStyle]) -> Iterator[Flowable]:
    chinese = source.header["language"] == "zh"
    tokens = MarkdownIt("commonmark").enable("table").parse(source.body)
    shares: list[float] = []
    width = A4[0] - 2 * MARGIN
    fresh = False  # a page break has just been made, so that a chapter need not make another
    lists: list[int | None] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token.type == "html_block":
            command, *values = re.sub(r"<!--|-->", "", token.content).split()
            if command == "widths":
                shares = [float(value) for value in values]
            else:
                template = "columns" if (command, values) == ("columns", ["2"]) else "body"
                yield from (NextPageTemplate(template), PageBreak())
                fresh = True
        elif token.type == "heading_open":
            if token.tag == "h1" and not fresh:
                yield PageBreak()
            fresh = False
            yield Paragraph(_inline(tokens[position + 1], chinese), styles[token.tag])
        elif token.type in ("ordered_list_open", "bullet_list_open"):
            lists.append(0 if token.type == "ordered_list_open" else None)
        elif token.type in ("ordered_list_close", "bullet_list_close"):
            lists.pop()
            yield Spacer(1, 4)
        elif token.type == "paragraph_open":
            yield _paragraph(_inline(tokens[position + 1], chinese), lists, styles)
        elif token.type == "table_open":
            end = next(n for n in range(position, len(tokens)) if tokens[n].type == "table_close")
            yield _table(tokens[position:end], shares, width, styles, chinese)
            yield Spacer(1, 9)
            shares, position = [], end
        position += 1


def _paragraph(markup: str, lists: list[int | None], styles: dict[str, ParagraphStyle]) -> Paragraph:
    if not lists:
        return Paragraph(markup, styles["p"])
    if lists[-1] is None:
        return Paragraph(markup, styles["li"], bulletText="–")
    lists[-1] += 1
    return Paragraph(markup, styles["li"], bulletText=f"{lists[-1]}.")


def _table(
    tokens: list[Token], shares: list[float], width: float, styles: dict[str, ParagraphStyle], chinese: bool
) -> Table:
    rows: list[list[Paragraph]] = []
    for position, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(Paragraph(_inline(tokens[position + 1], chinese), styles[token.tag]))
    shares = shares or [1.0] * len(rows[0])
    table = Table(rows, [width * share / sum(shares) for share in shares], repeatRows=1, spaceBefore=5, hAlign="LEFT")
    table.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, 0), TEAL),
                ("ROWBACKGROUNDS", (0, 1), (-1, -1), [white, PALE]),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 5),
                ("RIGHTPADDING", (0, 0), (-1, -1), 5),
                ("TOPPADDING", (0, 0), (-1, -1), 3.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 4.5),
            ]
        )
    )
    return table


def _inline(token: Token, chinese: bool) -> str:
    """ReportLab's markup of one line of Markdown. The Chinese font has no bold cut, so colour stands for it."""
    strong = ('<font color="#0f6b70">', "</font>") if chinese else ("<b>", "</b>")
    marks = {"strong_open": strong[0], "strong_close": strong[1], "em_open": "<i>", "em_close": "</i>"}
    marks["softbreak"] = "" if chinese else " "
    return "".join(
        escape(child.content) if child.type in ("text", "code_inline") else marks.get(child.type, "")
        for child in token.children or ()
    )
