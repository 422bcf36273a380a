"""Plain text in whatever encoding it was written: paragraphs, list items, and headings where they are certain."""

from __future__ import annotations

import re

from ingest.readers.blocks import Blocks
from ingest.readers.encoding import decode
from ingest.readers.options import ReadOptions
from rag.models import Parsed
from rag.text.language import canonical

__all__ = ["decode", "note_encoding", "read_text"]

_NUMERAL = r"[一二三四五六七八九十百千零〇两\d]{1,6}"
_CHINESE_HEADINGS = (
    (1, re.compile(rf"第\s*{_NUMERAL}\s*[编編篇卷]")),
    (2, re.compile(rf"第\s*{_NUMERAL}\s*章")),
    (3, re.compile(rf"第\s*{_NUMERAL}\s*[节節]")),
    (4, re.compile(r"[一二三四五六七八九十]{1,3}、")),
    (5, re.compile(rf"第\s*{_NUMERAL}\s*[条條]")),
)
_ENGLISH_HEADING = re.compile(r"(?:chapter|part|section|article|appendix)\s+(?:\d+|[ivxlc]+|[a-z])\b", re.IGNORECASE)
_DECIMAL_HEADING = re.compile(r"(\d{1,2}(?:\.\d{1,2}){1,4})\.?\s+[^\W\d_]")
_LIST_ITEM = re.compile(r"\s*(?:[-*•·●○▪]\s+|\d{1,3}[.)]\s+|[（(]\d{1,2}[）)])\S")
_ENDS_A_SENTENCE = re.compile(r"[.!?。！？；;：:，,、…]['\"”’）)]*$")
_ENDS_A_PARAGRAPH = re.compile(r"[。！？…：:]['\"”’）)]*$")
_HEADING_CHARS = 60
_TITLE_CHARS = 60


def read_text(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:  # noqa: ARG001  # every reader is called alike
    text, _ = decode(data, declared_charset(media_type))
    blocks = Blocks()
    note_encoding(blocks, text)
    chunks = re.split(r"\n[^\S\n]*(?:\n[^\S\n]*)+", canonical(text).strip())
    for chunk in chunks:
        for paragraph in _paragraphs(chunk):
            level = heading_level(paragraph.strip(), stands_alone=paragraph == chunk)
            if level is not None:
                blocks.heading(paragraph, level=level)
            else:
                blocks.add("list_item" if _LIST_ITEM.match(paragraph) else "paragraph", paragraph)
    first = chunks[0].strip()
    titled = len(chunks) > 1 and "\n" not in first and len(first) <= _TITLE_CHARS and not _ENDS_A_SENTENCE.search(first)
    return blocks.parsed(title=first if titled else None)


def declared_charset(media_type: str | None) -> str | None:
    """ "gbk" of `text/html; charset=gbk`."""
    found = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", media_type or "", re.IGNORECASE)
    return found.group(1) if found else None


def note_encoding(blocks: Blocks, text: str) -> None:
    """A problem where more than one character in a hundred could not be read."""
    unreadable = text.count("\ufffd")
    if unreadable > len(text) / 100:
        blocks.problem(
            "encoding-uncertain",
            f"{unreadable:,} of {len(text):,} characters could not be read in any encoding.",
            remedy="Save the file as UTF-8 and add it again.",
        )


def _paragraphs(chunk: str) -> list[str]:
    """Lines that belong together. Hard-wrapped prose stays whole; what begins or ends visibly stands alone."""
    lines = chunk.split("\n")
    paragraphs: list[list[str]] = []
    open_ended = False
    for line in lines:
        alone = heading_level(line.strip(), stands_alone=len(lines) == 1) is not None
        starts = alone or _LIST_ITEM.match(line) or line.startswith(("\u3000\u3000", "\t")) or not open_ended
        if starts or not paragraphs:
            paragraphs.append([line])
        else:
            paragraphs[-1].append(line)
        # A full stop at a line's end ends a Chinese paragraph; English prose is wrapped anywhere, but not past 200.
        open_ended = not alone and len(line) <= 200 and not _ENDS_A_PARAGRAPH.search(line.rstrip())
    return ["\n".join(lines) for lines in paragraphs]


def heading_level(line: str, *, stands_alone: bool) -> int | None:
    """The level of a line that is certainly a heading, else None.

    `1.5 kg of flour` and `Section 5 of the Act` begin lines of prose, so those patterns count only between blank lines.
    """
    if not line or len(line) > _HEADING_CHARS or "\n" in line or _ENDS_A_SENTENCE.search(line):
        return None
    for level, pattern in _CHINESE_HEADINGS:
        if pattern.match(line):
            return level if len(line) <= _HEADING_CHARS // 2 else None
    if not stands_alone:
        return None
    if decimal := _DECIMAL_HEADING.match(line):
        return 1 + decimal.group(1).count(".")
    if _ENGLISH_HEADING.match(line):
        return 1
    return None
