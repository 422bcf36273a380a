"""What holds for every reader's result, and short ways to look at one."""

from __future__ import annotations

from ingest.readers.options import ReadOptions
from ingest.readers.registry import read
from rag.models import Block, Parsed
from rag.text.language import canonical


def parse(data: bytes | str, name: str, *, media_type: str | None = None) -> Parsed:
    """What the registry makes of these bytes, after checking what must always hold."""
    raw = data.encode() if isinstance(data, str) else data
    parsed = read(raw, name=name, media_type=media_type, options=ReadOptions())
    assert_exact(parsed)
    return parsed


def assert_exact(parsed: Parsed) -> None:
    """Blocks are in order, do not overlap, and leave out nothing but white space; the text is canonical."""
    assert parsed.text == canonical(parsed.text)
    position = 0
    for block in parsed.blocks:
        assert position <= block.start < block.end <= len(parsed.text)
        assert not parsed.text[position : block.start].strip()
        assert text_of(parsed, block).strip()
        position = block.end
    assert not parsed.text[position:].strip()
    assert (parsed.status == "empty") == (not parsed.blocks)


def text_of(parsed: Parsed, block: Block) -> str:
    return parsed.text[block.start : block.end]


def texts(parsed: Parsed, kind: str | None = None) -> list[str]:
    return [text_of(parsed, block) for block in parsed.blocks if kind in (None, block.kind)]


def block_with(parsed: Parsed, words: str) -> Block:
    return next(block for block in parsed.blocks if words in text_of(parsed, block))
