"""Markdown: sections, lists, code, tables and front matter."""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from ingest.readers.markdown import read_markdown
from ingest.readers.options import ReadOptions
from tests.parsed_checks import assert_exact, block_with, parse, texts

SAMPLE = """---
title: "Handbook"
author: Wang Ming
date: 2024-03-01T10:00:00
tags: [a, b]
---
# Install

Read [the guide](https://example.com/secret-address) and **wait**.<br>Then `run it`.

![a picture](x.png)

1. First
2. Second
   - nested

   more of the second

## 价格

| 型号 | 价格 |
|------|-----:|
| A1 | 100元 |
| B2 |  |

```sh
  pip install attest
```

<script>SCRIPT()</script>
<div>kept <b>words</b> &amp; more</div>
<!-- REMARK -->

# Next
Last words
"""


def test_structure_is_kept_and_marks_are_not() -> None:
    parsed = parse(SAMPLE, "a.md")
    assert (parsed.title, parsed.metadata["author"], parsed.metadata["date"]) == (
        "Handbook",
        "Wang Ming",
        date(2024, 3, 1),
    )
    assert texts(parsed, "heading") == ["Install", "价格", "Next"]
    assert "Read the guide and wait.\nThen run it." in texts(parsed)
    assert texts(parsed, "list_item") == ["1. First", "2. Second", "- nested", "more of the second"]
    assert texts(parsed, "table_row") == ["型号: A1; 价格: 100元", "型号: B2"]
    assert texts(parsed, "code") == ["  pip install attest"]
    assert block_with(parsed, "A1").section == ("Install", "价格")
    assert block_with(parsed, "B2").row == "2"
    assert block_with(parsed, "Last words").section == ("Next",)
    assert "kept words & more" in texts(parsed)
    for absent in ("secret-address", "SCRIPT", "REMARK", "**", "tags:", "<b>"):
        assert absent not in parsed.text


def test_the_first_heading_is_the_title_where_no_front_matter_names_one() -> None:
    assert parse("## small\n\n# 员工手册\n\ntext", "a.md").title == "员工手册"
    assert parse("no heading", "a.md").title is None


def test_a_rule_at_the_top_is_not_front_matter() -> None:
    parsed = parse("---\njust words\n---\nmore", "a.md")
    assert "just words" in parsed.text


def test_a_table_written_in_html_keeps_its_cells_apart() -> None:
    parsed = parse(
        "<table>\n<tr><td>Pump</td><td>12 kg</td></tr><tr><td>Valve</td><td>3 kg</td></tr>\n</table>\n", "a.md"
    )
    assert texts(parsed) == ["Pump | 12 kg\nValve | 3 kg"]


def test_empty_markdown_is_empty() -> None:
    assert parse(b"", "a.md").status == "empty"
    assert parse("---\ntitle: x\n---\n", "a.md").status == "empty"


def test_chinese_markdown_is_read_in_its_own_encoding() -> None:
    assert "员工守则" in parse("# 员工守则\n\n请遵守以下规定。".encode("gb18030"), "a.md").text


_MARKS = (
    "# ",
    "## ",
    "- ",
    "1. ",
    "> ",
    "```\n",
    "    code",
    "*",
    "`",
    "[x](y)",
    "<b>",
    "<!--",
    "---\n",
    "&amp;",
    "\\",
)
_WORDS = ("words ", "中文。", "a: b\n", "\n", "\n\n", "\x00", "\r", "\t", "| a | b |\n|---|---|\n| 1 | 2 |\n")
_PIECES = st.sampled_from((*_MARKS, *_WORDS))


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_offsets_of_any_markdown_are_exact(text: str) -> None:
    assert_exact(read_markdown(text.encode(), options=ReadOptions()))
