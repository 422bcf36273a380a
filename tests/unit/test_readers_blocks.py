"""Blocks and their places: what every reader builds on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.readers.blocks import Blocks
from tests.parsed_checks import assert_exact, texts


def test_headings_open_and_close_sections() -> None:
    blocks = Blocks()
    for level, title in ((1, "A"), (3, "A deep"), (2, "B"), (1, "C")):
        blocks.heading(title, level=level)
    blocks.leave(1)
    blocks.add("paragraph", "after")
    assert [block.section for block in blocks.parsed().blocks] == [("A",), ("A", "A deep"), ("A", "B"), ("C",), ()]


def test_rows_and_items_stand_line_under_line_and_all_else_apart() -> None:
    blocks = Blocks()
    blocks.add("paragraph", " one ")
    for item in ("- a", "- b"):
        blocks.add("list_item", item)
    blocks.add("code", "\n  x\n")
    blocks.add("paragraph", " \n ")
    assert blocks.parsed().text == "one\n\n- a\n- b\n\n  x"


def test_a_page_without_text_is_an_empty_page_and_not_a_missing_one() -> None:
    blocks = Blocks()
    for number in (1, 2, 3):
        blocks.start_page(number, label=str(number))
        blocks.add("paragraph", "words" if number != 2 else "")
    pages = blocks.parsed().pages
    assert [(page.number, page.status) for page in pages] == [(1, "text"), (2, "empty"), (3, "text")]
    assert pages[1].start == pages[1].end


def test_nothing_collected_is_empty() -> None:
    assert Blocks().parsed(title=" ").status == "empty"
    assert Blocks().parsed(title=" ").title is None


_KINDS = st.sampled_from(["paragraph", "list_item", "table_row", "code", "heading"])


@given(st.lists(st.tuples(_KINDS, st.text(max_size=12)), max_size=20))
def test_any_blocks_lie_where_they_say(entries: list[tuple[str, str]]) -> None:
    blocks = Blocks()
    for kind, text in entries:
        if kind == "heading":
            blocks.heading(text, level=1 + len(text) % 4)
        else:
            blocks.add(kind, text)  # type: ignore[arg-type]  # drawn from the kinds themselves
    parsed = blocks.parsed()
    assert_exact(parsed)
    assert all(block.section for block in parsed.blocks if block.kind == "heading")
    assert len(texts(parsed)) == sum(1 for _, text in entries if text.strip())
