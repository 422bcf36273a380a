"""Pieces: exact slices that rejoin, never over the window, with borders that stay put under local edits."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.split import fingerprint, split
from rag.errors import InvalidInput
from rag.models import Block, Parsed, Piece

WINDOW = 256
_TOKEN = re.compile(r"[\u3400-\u9fff]|\w+|[^\w\s]")

_ENGLISH = re.findall(
    r"\w+",
    """the a pump valve engineer station river pressure must should may open close report inspect weekly nobody
    before after reading gauge maintenance spare part order invoice customer region growth quarter winter storm""",
)
_CHINESE = (
    "水泵阀门工程师车站河流压力应当可以打开关闭报告检查每周记录仪表维护备件订单发票客户地区增长季度冬天风暴的了在和有"
)


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Words, Han characters and marks, as a WordPiece tokenizer would count them if it knew every word."""
    return [len(_TOKEN.findall(text)) for text in texts]


def _sentence(rng: random.Random, *, chinese: bool) -> str:
    if chinese:
        length = rng.randint(6, 40)
        return "".join(rng.choices(_CHINESE, k=length)) + rng.choice("。。。！？")
    words = rng.choices(_ENGLISH, k=rng.randint(5, 30))
    return " ".join(words).capitalize() + rng.choice("...!?")


def _paragraph(rng: random.Random, *, chinese: bool | None = None) -> str:
    is_chinese = rng.random() < 0.5 if chinese is None else chinese
    sentences = (_sentence(rng, chinese=is_chinese) for _ in range(rng.randint(1, 6)))
    return ("" if is_chinese else " ").join(sentences)


def _parsed(paragraphs: Sequence[str], kind: str = "paragraph") -> Parsed:
    """Lines that begin with # are headings; white space stands between the blocks."""
    text, blocks, section = "", [], ()
    for paragraph in paragraphs:
        text += "\n\n" if text else ""
        start, text = len(text), text + paragraph
        if paragraph.startswith("#"):
            level = len(paragraph) - len(paragraph.lstrip("#"))
            section = (*section[: level - 1], paragraph.lstrip("# "))
            blocks.append(Block("heading", start, len(text), section=section, level=level))
        else:
            blocks.append(Block(kind, start, len(text), section=section))  # type: ignore[arg-type]
    return Parsed(text, tuple(blocks))


def _split(parsed: Parsed, **given: object) -> list[Piece]:
    return split(parsed, **{"title": "Handbook", "count_tokens": count_tokens, "window": WINDOW, **given})  # type: ignore[arg-type]


def _check(parsed: Parsed, pieces: Sequence[Piece], *, window: int = WINDOW) -> None:
    """What holds for every text: nothing lost, nothing twice, exact slices, exact counts, inside the window."""
    assert "".join(piece.text for piece in pieces) == parsed.text
    assert all(before.end == after.start for before, after in pairwise(pieces))
    assert all(piece.text == parsed.text[piece.start : piece.end] for piece in pieces)
    assert all(piece.text.strip() for piece in pieces)
    assert [piece.tokens for piece in pieces] == count_tokens([piece.text for piece in pieces])
    assert max(count_tokens([piece.embedded_text for piece in pieces])) <= window - 2


def _manual(rng: random.Random, paragraphs: int, *, headings: float, chinese: bool | None = None) -> list[str]:
    text = []
    for number in range(paragraphs):
        if rng.random() < headings:
            text.append(rng.choice(["# ", "## ", "## ", "### "]) + f"Part {number}")
        text.append(_paragraph(rng, chinese=chinese))
    return text


# ── what always holds ─────────────────────────────────────────────────────────────────────────

_any_text = st.text(
    alphabet=st.one_of(
        st.sampled_from(" \n\t.。,，;：!?#|aZ9水泵的\u3000\u200b\U0001f600"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=400,
)


@given(parts=st.lists(_any_text, max_size=12), kind=st.sampled_from(["paragraph", "list_item", "table_row", "code"]))
@settings(deadline=None, max_examples=150)
def test_any_text_rejoins_from_exact_slices(parts: list[str], kind: str) -> None:
    parsed = _parsed([part for part in parts if part.strip()], kind)
    pieces = _split(parsed, target_tokens=32)
    if parsed.text.strip():
        _check(parsed, pieces)
        assert max(piece.tokens for piece in pieces) <= 32
    else:
        assert pieces == []


@given(text=_any_text, times=st.integers(1, 60), window=st.integers(32, 300))
@settings(deadline=None, max_examples=100)
def test_a_text_without_blocks_is_cut_as_well(text: str, times: int, window: int) -> None:
    parsed = Parsed(text * times, ())
    pieces = _split(parsed, window=window, title=text)
    if parsed.text.strip():
        _check(parsed, pieces, window=window)
    else:
        assert pieces == []


@pytest.mark.parametrize("seed", range(8))
def test_documents_with_headings_in_two_languages_rejoin(seed: int) -> None:
    rng = random.Random(seed)
    parsed = _parsed(_manual(rng, 60, headings=0.3))
    pieces = _split(parsed)
    _check(parsed, pieces)
    assert pieces == _split(parsed)


def test_blank_text_has_no_pieces() -> None:
    assert _split(Parsed("", ())) == []
    assert _split(Parsed(" \n\u3000\n", ())) == []


def test_white_space_around_and_between_blocks_belongs_to_a_piece() -> None:
    text = "\n\n  First.\n\n\nSecond.  \n"
    parsed = Parsed(text, (Block("paragraph", 4, 10), Block("paragraph", 13, 20)))
    assert [piece.text for piece in _split(parsed)] == [text]


def test_a_tokenizer_that_counts_a_text_higher_than_its_parts_is_believed() -> None:
    """Joining may add tokens; the pieces are counted again and cut further until they fit."""

    def jumpy(texts: Sequence[str]) -> list[int]:
        return [count + count // 3 * (count > 20) for count in count_tokens(texts)]

    parsed = _parsed(_manual(random.Random(3), 40, headings=0.1))
    pieces = _split(parsed, count_tokens=jumpy)
    assert "".join(piece.text for piece in pieces) == parsed.text
    assert max(piece.tokens for piece in pieces) <= 200


def test_a_tokenizer_that_nothing_can_satisfy_ends_all_the_same() -> None:
    parsed = _parsed(["Hello there. General remarks."])
    pieces = _split(parsed, count_tokens=lambda texts: [1_000 for _ in texts], title="")
    assert "".join(piece.text for piece in pieces) == parsed.text


def test_a_window_too_small_for_any_text_is_said() -> None:
    with pytest.raises(InvalidInput, match="cannot be cut into pieces"):
        _split(_parsed(["Hello."]), window=12)


# ── structure ─────────────────────────────────────────────────────────────────────────────────


def test_pieces_of_prose_end_where_sentences_end() -> None:
    for chinese in (True, False):
        parsed = _parsed(_manual(random.Random(5), 80, headings=0.0, chinese=chinese))
        assert all(piece.text.rstrip()[-1] in ".!?。！？" for piece in _split(parsed))


def test_prose_fills_at_least_half_of_the_target_on_average() -> None:
    for chinese in (True, False):
        pieces = _split(_parsed(_manual(random.Random(6), 300, headings=0.1, chinese=chinese)))
        assert sum(piece.tokens for piece in pieces) / len(pieces) >= 100


def test_sections_do_not_share_a_piece_and_a_heading_stays_with_its_text() -> None:
    rng = random.Random(7)
    long = " ".join(_sentence(rng, chinese=False) for _ in range(5))
    pieces = _split(_parsed(["# Pumps", "## Valves", long, "## Gauges", long]))
    assert [piece.text.split("\n")[0] for piece in pieces] == ["# Pumps", "## Gauges"]
    assert [piece.heading for piece in pieces] == ["Handbook > Pumps > Valves", "Handbook > Pumps > Gauges"]


def test_small_sections_share_a_piece() -> None:
    assert len(_split(_parsed(["## A", "One small remark.", "## B", "Another small remark."]))) == 1


def test_a_table_row_is_kept_whole_and_the_header_goes_with_every_piece() -> None:
    rows = [f"Region {number} | {number * 7} | {number * 11} | {number * 13}" for number in range(120)]
    text, blocks = "", []
    for number, row in enumerate(rows):
        start, text = len(text), text + row
        blocks.append(Block("table_row", start, len(text), row=str(number + 2), header="Region | Q1 | Q2 | Q3"))
        text += "\n"
    parsed = Parsed(text, tuple(blocks))
    pieces = _split(parsed, title="Sales")
    _check(parsed, pieces)
    assert len(pieces) > 3
    assert all(piece.heading == "Sales\nRegion | Q1 | Q2 | Q3" for piece in pieces)
    starts = {block.start: block.row for block in blocks}
    assert all(starts[piece.start] == piece.row for piece in pieces)


def test_two_tables_do_not_share_a_piece() -> None:
    text, blocks = "", []
    for sheet in ("North", "South"):
        for number in range(12):
            start, text = len(text), text + f"{sheet} station {number} | {number * 3}"
            blocks.append(Block("table_row", start, len(text), section=(sheet,), header="Station | Pumps"))
            text += "\n"
    pieces = _split(Parsed(text, tuple(blocks)))
    assert all("North" not in piece.text or "South" not in piece.text for piece in pieces)


def test_a_piece_carries_the_page_of_its_first_block() -> None:
    rng = random.Random(9)
    text, blocks = "", []
    for page in range(1, 9):
        start, text = len(text), text + _paragraph(rng, chinese=False)
        blocks.append(Block("paragraph", start, len(text), page=page))
        text += "\n\n"
    parsed = Parsed(text, tuple(blocks))
    for piece in _split(parsed):
        block = next(block for block in blocks if block.start <= piece.start < block.end)
        assert piece.page == block.page


def test_a_long_sentence_is_cut_at_clauses_before_words() -> None:
    clause = "the engineer reads every gauge beside the river, "
    pieces = _split(_parsed([clause * 60 + "and goes home."]))
    assert len(pieces) > 1
    assert all(piece.text.rstrip().endswith((",", ".")) for piece in pieces)


def test_hard_wrapped_lines_are_weaker_borders_than_sentences() -> None:
    rng = random.Random(10)
    prose = " ".join(_sentence(rng, chinese=False) for _ in range(150))
    wrapped = re.sub(r"(.{60}\S*) ", r"\1\n", prose)
    assert all(piece.text.rstrip()[-1] in ".!?" for piece in _split(_parsed([wrapped])))


# ── headings ──────────────────────────────────────────────────────────────────────────────────


def test_a_first_heading_that_repeats_the_title_is_not_said_twice() -> None:
    (piece,) = _split(_parsed(["# Handbook", "## Leave", "Ask your manager."]))
    assert piece.heading == "Handbook > Leave"
    assert piece.embedded_text == f"Handbook > Leave\n{piece.text}"


def test_a_long_heading_keeps_the_title_and_the_innermost_section() -> None:
    deep = [f"{'#' * level} Level {level} " + "of many words " * 6 for level in range(1, 5)]
    rng = random.Random(11)
    body = [_paragraph(rng, chinese=False) for _ in range(12)]
    pieces = _split(_parsed([*deep, *body]))
    assert count_tokens([pieces[-1].heading])[0] <= 48
    assert pieces[-1].heading.startswith("Handbook > Level 4")


@pytest.mark.parametrize("size", [10, 1_000, 100_000])
def test_title_section_and_table_header_of_any_length_leave_room_for_the_text(size: int) -> None:
    text = "a | b | c\n" * 40
    blocks = tuple(
        Block("table_row", start, start + 9, section=("节" * size, "s " * size), header="column | " * size)
        for start in range(0, len(text), 10)
    )
    pieces = _split(Parsed(text, blocks), title="t " * size)
    _check(Parsed(text, blocks), pieces)
    first, second = pieces[0].heading.split("\n")
    assert first.startswith("t t ")
    assert "s s" in first
    assert second.startswith("column | ")


# ── stable borders ────────────────────────────────────────────────────────────────────────────


def _edited(rng: random.Random, paragraph: str) -> str:
    other = _paragraph(rng)
    place = rng.randrange(len(paragraph))
    return rng.choice(
        [
            other,
            paragraph[:place] + " changed " + paragraph[place:],
            paragraph[:place] + "改了。" + paragraph[place:],
            paragraph + " " + other,
            other[:20] + paragraph,
            paragraph[:place] + paragraph[place + 30 :] + ".",
        ]
    )


def _new_texts(before: Sequence[Piece], after: Sequence[Piece]) -> int:
    return len({piece.embedded_text for piece in after} - {piece.embedded_text for piece in before})


@pytest.mark.parametrize("headings", [0.0, 0.15])
@pytest.mark.parametrize("chinese", [True, False, None])
def test_an_edit_of_one_paragraph_embeds_at_most_three_pieces_anew(headings: float, chinese: bool | None) -> None:
    rng = random.Random(20)
    text = _manual(rng, 150, headings=headings, chinese=chinese)
    before = _split(_parsed(text))
    bodies = [number for number, paragraph in enumerate(text) if not paragraph.startswith("#")]
    for _ in range(40):
        number = rng.choice(bodies)
        edited = [*text[:number], _edited(rng, text[number]), *text[number + 1 :]]
        assert _new_texts(before, _split(_parsed(edited))) <= 3


@pytest.mark.parametrize("headings", [0.0, 0.15])
def test_a_paragraph_at_the_front_embeds_at_most_four_pieces_anew(headings: float) -> None:
    rng = random.Random(21)
    text = _manual(rng, 150, headings=headings)
    before = _split(_parsed(text))
    for _ in range(60):
        assert _new_texts(before, _split(_parsed([_paragraph(rng), *text]))) <= 4


def test_a_deleted_paragraph_embeds_at_most_three_pieces_anew() -> None:
    rng = random.Random(22)
    text = _manual(rng, 150, headings=0.1)
    before = _split(_parsed(text))
    for _ in range(60):
        number = rng.choice([at for at, paragraph in enumerate(text) if not paragraph.startswith("#")])
        assert _new_texts(before, _split(_parsed([*text[:number], *text[number + 1 :]]))) <= 3


def test_borders_away_from_an_edit_stay_where_they_were() -> None:
    """Borders may move within three thousand characters of an edit, some five pieces; nowhere else in the text."""
    rng = random.Random(23)
    text = _manual(rng, 200, headings=0.05, chinese=False)
    old = _parsed(text)
    old_borders = {len(old.text) - piece.start for piece in _split(old)}, {piece.start for piece in _split(old)}
    for _ in range(40):
        number = rng.randrange(80, 120)
        if text[number].startswith("#"):
            continue
        block = old.blocks[number]
        new = _parsed([*text[:number], _edited(rng, text[number]), *text[number + 1 :]])
        pieces = _split(new)
        reach = 3_000
        before = {piece.start for piece in pieces if piece.start < block.start - reach}
        assert before == {start for start in old_borders[1] if start < block.start - reach}
        behind = len(old.text) - block.end - reach
        after = {len(new.text) - piece.start for piece in pieces if len(new.text) - piece.start < behind}
        assert after == {back for back in old_borders[0] if back < behind}


def test_words_without_any_punctuation_have_stable_borders_too() -> None:
    rng = random.Random(24)
    words = rng.choices(_ENGLISH, k=20_000)
    before = _split(_parsed([" ".join(words)]))
    for _ in range(10):
        place = rng.randrange(len(words))
        after = _split(_parsed([" ".join([*words[:place], "inserted", *words[place:]])]))
        assert _new_texts(before, after) <= 3


def test_equal_rows_are_cut_and_make_equal_pieces() -> None:
    pieces = _split(_parsed(["0 | 0 | 0 | none"] * 500, kind="table_row"))
    assert len(pieces) > 10
    assert len({piece.text for piece in pieces[:-2]}) == 1


# ── size ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, "水" * 300_000, "word" + " " * 300_000 + "end. " * 300, "line\n" * 60_000, "a, " * 100_000],
    ids=["one word", "one Han run", "white space", "lines", "clauses"],
)
def test_odd_long_texts_are_cut_in_seconds_with_few_counts(text: str) -> None:
    calls = []

    def counted(texts: Sequence[str]) -> list[int]:
        calls.append(sum(map(len, texts)))
        return count_tokens(texts)

    began = time.perf_counter()
    parsed = Parsed(text, (Block("paragraph", 0, len(text)),))
    _check(parsed, _split(parsed, count_tokens=counted))
    assert time.perf_counter() - began < 20
    assert len(calls) <= 8
    assert sum(calls) < 5 * len(text) + 1_000


def test_a_word_that_the_tokenizer_counts_as_one_token_does_not_become_one_piece() -> None:
    """WordPiece turns a word of more than 100 characters into one unknown token, however long it is."""
    pieces = _split(_parsed(["x" * 100_000]))
    assert max(len(piece.text) for piece in pieces) <= 4_000


def test_the_fingerprint_tells_splitters_apart_by_what_they_would_cut_differently() -> None:
    assert fingerprint(target_tokens=200) == fingerprint(target_tokens=200)
    assert fingerprint(target_tokens=200) != fingerprint(target_tokens=128)


@pytest.mark.models
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_tokenizer_agrees_that_every_piece_fits_its_window() -> None:
    from rag.embedding.embedder import SentenceTransformerEmbedder

    embedder = SentenceTransformerEmbedder()
    count: Callable[[Sequence[str]], list[int]] = embedder.count_tokens
    rng = random.Random(30)
    odd = [
        "x" * 5_000,
        "https://example.org/" + "a/b-c_d?e=f&" * 300,
        "，".join(["没有句号的长句子"] * 200),
        "😀" * 900,
    ]
    parsed = _parsed([*_manual(rng, 200, headings=0.2), *odd])
    pieces = split(parsed, title="手册 Handbook " * 30, count_tokens=count, window=embedder.window)
    assert "".join(piece.text for piece in pieces) == parsed.text
    assert max(count([piece.embedded_text for piece in pieces])) <= embedder.window - 2
    assert [piece.tokens for piece in pieces] == count([piece.text for piece in pieces])
