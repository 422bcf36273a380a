"""What must hold for everything that a reader returns, whatever it read."""

from __future__ import annotations

from rag.models import Parsed
from rag.text.language import canonical


def check_parsed(parsed: Parsed) -> None:
    """Blocks are in order, apart and not empty; what lies between is white space; pages agree with them."""
    text = parsed.text
    assert text == canonical(text)
    position = 0
    for block in parsed.blocks:
        assert position <= block.start < block.end <= len(text), block
        assert not text[position : block.start].strip(), f"text before {block} is in no block"
        assert text[block.start : block.end].strip(), f"{block} is white space"
        if block.kind == "heading":
            assert block.level, block
            assert block.level >= 1, block
            assert block.section, block
        position = block.end
    assert not text[position:].strip(), "text after the last block is in no block"
    assert [page.number for page in parsed.pages] == list(range(1, len(parsed.pages) + 1))
    position = 0
    for page in parsed.pages:
        assert position <= page.start <= page.end <= len(text), page
        position = page.end
    by_number = {page.number: page for page in parsed.pages}
    for block in parsed.blocks:
        if block.page is not None:
            page = by_number[block.page]
            assert page.start <= block.start, (block, page)
            assert block.end <= page.end, (block, page)
    if parsed.status in ("ok", "partial"):
        assert parsed.blocks
