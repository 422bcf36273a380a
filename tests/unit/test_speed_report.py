"""What bench/speed makes of its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.speed import report
from bench.speed.corpus import build
from bench.speed.roofline import arithmetic

OURS = [{"ingest CPU s": 2.0, "hit@5": 0.9}, {"ingest CPU s": 4.0}, {"ingest CPU s": 3.0}]
THEIRS = [{"ingest CPU s": 8.0, "hit@5": 0.0}, {"ingest CPU s": 8.0}, {"ingest CPU s": 9.0}]


def test_the_median_of_a_measure_is_over_the_rounds_that_took_it() -> None:
    assert report.medians(OURS) == {"ingest CPU s": 3.0, "hit@5": 0.9}


def test_ratios_are_taken_within_a_round() -> None:
    assert report.ratios(THEIRS, OURS, "ingest CPU s") == (3.0, 2.0, 4.0)


def test_there_is_no_ratio_to_what_was_not_measured_or_is_nothing() -> None:
    assert report.ratios(THEIRS, OURS, "disk MiB") is None
    assert report.ratios(OURS, THEIRS, "hit@5") is None


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 3), (0.6, 3), (0.61, 4), (0.95, 5), (1.0, 5)])
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(share: float, expected: float) -> None:
    assert report.percentile([5, 1, 4, 2, 3], share) == expected


def test_the_95th_percentile_of_a_hundred_is_the_95th() -> None:
    assert report.percentile(range(1, 101), 0.95) == 95


def test_the_table_has_medians_and_ratios_with_their_range() -> None:
    assert report.table({"A": OURS, "B": THEIRS}, ours="A").splitlines()[2:] == [
        "| ingest CPU s | 3.00 | 8.00 | 3.00 (2.00–4.00) |",
        "| hit@5 | 0.90 | 0.00 |  |",
    ]


def test_two_runs_are_compared_by_their_medians_where_both_measured() -> None:
    old = {"A": [{"ingest CPU s": 6.0, "disk MiB": 1.0}], "gone": THEIRS}
    assert report.compared({"A": OURS, "new": THEIRS}, old).splitlines() == [
        "| now ÷ then | A |",
        "| --- | --- |",
        "| ingest CPU s | 0.50 |",
    ]


def test_the_longest_bar_is_the_largest_value() -> None:
    drawn = ElementTree.fromstring(report.picture({"A <1>": OURS, "B": THEIRS}))
    bars = [float(one.attrib["width"]) for one in drawn.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert bars[0] / bars[1] == pytest.approx(3 / 8, abs=0.001)


def test_the_multiplied_sample_corpus_repeats_no_text_and_no_question(tmp_path: Path) -> None:
    corpus = build(tmp_path / "corpus", documents=60, evaluation=None)
    texts = [path.read_text("utf-8") for path in corpus.folder.glob("*.txt")]
    assert len(texts) == len(set(texts)) == 60
    assert len(corpus.questions) == len({one.text for one in corpus.questions}) > 7


def test_the_text_of_a_corpus_is_counted_with_that_of_its_pdfs(tmp_path: Path) -> None:
    corpus = build(tmp_path / "corpus", documents=3, evaluation=None)

    def characters(texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    files = sum(len(path.read_text("utf-8")) for path in corpus.folder.glob("*.txt"))
    assert len(list(corpus.folder.glob("*.pdf"))) == 2
    assert corpus.tokens(characters) > files + 10_000


def test_attention_costs_more_than_its_share_in_a_long_text() -> None:
    assert arithmetic([135]) == pytest.approx(135 * 21.2e6 + 9_216 * 135**2)
    assert arithmetic([256]) > arithmetic([128, 128])
