"""Markdown: headings become sections, tables rows with their header, links their words; front matter is metadata."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from ingest.readers.blocks import Blocks
from ingest.readers.options import ReadOptions
from ingest.readers.rows import add_table
from ingest.readers.text import declared_charset, decode, note_encoding
from rag.models import MetadataValue, Parsed
from rag.text.language import canonical

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"([A-Za-z_][\w-]*)[ \t]*:[ \t]*(.*)")
_KEPT_FIELDS = {"author": "author", "authors": "author", "lang": "language", "language": "language"}
_TAG = re.compile(r"<!--.*?-->|</?[A-Za-z][^>]*>", re.DOTALL)
_LINE_END = re.compile(r"</(?:tr|p|li|div|h[1-6]|dd|dt|summary)\s*>|<br\s*/?>", re.IGNORECASE)
_CELL_END = re.compile(r"</t[dh]\s*>", re.IGNORECASE)
_SILENT_ELEMENT = re.compile(r"<(script|style|template)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)


def read_markdown(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:  # noqa: ARG001  # every reader is called alike
    from markdown_it import MarkdownIt

    text, _ = decode(data, declared_charset(media_type))
    blocks = Blocks()
    note_encoding(blocks, text)
    title, metadata, body = _front_matter(canonical(text))
    _add_tokens(blocks, MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body))
    parsed = blocks.parsed(title=title, metadata=metadata)
    if title:
        return parsed
    first = next((block for block in parsed.blocks if block.kind == "heading" and block.level == 1), None)
    return blocks.parsed(title=parsed.text[first.start : first.end] if first else None, metadata=metadata)


def _front_matter(text: str) -> tuple[str | None, dict[str, MetadataValue], str]:
    """Title, metadata and the body below. Simple `key: value` lines only: no YAML is run."""
    found = _FRONT_MATTER.match(text)
    fields = dict(_FIELD.findall(found.group(1))) if found else {}
    if not found or not fields:
        return None, {}, text
    values = {key.lower(): value.strip().strip("\"'[]").strip() for key, value in fields.items()}
    metadata: dict[str, MetadataValue] = {
        _KEPT_FIELDS[key]: value for key, value in values.items() if key in _KEPT_FIELDS and value
    }
    day = re.match(r"\d{4}-\d{2}-\d{2}", values.get("date", ""))
    if day:
        try:
            metadata["date"] = date.fromisoformat(day.group())
        except ValueError:  # the 31st of February: as if no date were given
            metadata.pop("date", None)
    return values.get("title") or None, metadata, text[found.end() :]


def _add_tokens(blocks: Blocks, tokens: Sequence[Token]) -> None:
    index, lists = 0, []
    item_marker = ""
    while index < len(tokens):
        token = tokens[index]
        match token.type:
            case "heading_open":
                blocks.heading(_plain(tokens[index + 1]), level=int(token.tag[1]))
                index += 2
            case "bullet_list_open" | "ordered_list_open":
                lists.append(token)
            case "bullet_list_close" | "ordered_list_close":
                lists.pop()
            case "list_item_open":
                # Numbers are kept: "step 3" should be found. `info` holds the number as it was written.
                item_marker = f"{token.info}{token.markup} " if lists[-1].type == "ordered_list_open" else "- "
            case "inline":
                text = _plain(token)
                blocks.add("list_item" if lists else "paragraph", item_marker + text if text.strip() else "")
                item_marker = ""
            case "fence" | "code_block":
                blocks.add("code", token.content)
            case "html_block":
                blocks.add("paragraph", _without_tags(token.content))
            case "table_open":
                end = next(at for at in range(index, len(tokens)) if tokens[at].type == "table_close")
                add_table(blocks, enumerate(_table(tokens[index:end])), has_header=True)
                index = end
        index += 1


def _plain(inline: Token) -> str:
    """The words of a line, without marks and addresses."""
    parts = []
    for token in inline.children or ():
        match token.type:
            case "text" | "code_inline":
                parts.append(token.content)
            case "softbreak" | "hardbreak":
                parts.append("\n")
            case "image":
                parts.append(token.content)
            case "html_inline" if token.content.lower().startswith("<br"):
                parts.append("\n")
    return "".join(parts)


def _without_tags(html: str) -> str:
    from html import unescape

    html = _CELL_END.sub(" | ", _LINE_END.sub("\n", _SILENT_ELEMENT.sub("", html)))
    lines = (" ".join(line.split()).removesuffix("|") for line in unescape(_TAG.sub("", html)).split("\n"))
    return "\n".join(line.strip() for line in lines if line.strip())


def _table(tokens: Sequence[Token]) -> list[list[str]]:
    """Row 0 is the header, as Markdown demands; the first row below it is row 1."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(" ".join(_plain(token).split()))
    return rows
