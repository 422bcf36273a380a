"""The measures of `attest eval`, against examples that were worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quality import intervals, metrics

# ── retrieval ─────────────────────────────────────────────────────────────────────────────────


def test_a_hit_at_k_is_any_gold_place_among_the_first_k() -> None:
    assert metrics.hit_at([None, 3], 1) == 0.0
    assert metrics.hit_at([None, 3], 3) == 1.0
    assert metrics.hit_at([], 10) == 0.0


def test_all_gold_wants_every_gold_place() -> None:
    assert metrics.all_at([1, 10], 10) == 1.0
    assert metrics.all_at([1, 11], 10) == 0.0
    assert metrics.all_at([1, None], 10) == 0.0
    assert metrics.all_at([], 10) == 0.0


def test_the_reciprocal_rank_is_that_of_the_first_gold_place_and_0_behind_k() -> None:
    assert metrics.reciprocal_rank([4, 2], 10) == 0.5
    assert metrics.reciprocal_rank([11], 10) == 0.0
    assert metrics.reciprocal_rank([None], 10) == 0.0


def test_ndcg_is_what_was_gained_over_what_the_best_order_gains() -> None:
    assert metrics.ndcg([1], 10) == 1.0
    assert metrics.ndcg([3], 10) == 0.5  # 1 / log2(4)
    best = 1 / math.log2(2) + 1 / math.log2(3)
    assert metrics.ndcg([2, 5], 10) == pytest.approx((1 / math.log2(3) + 1 / math.log2(6)) / best)
    assert metrics.ndcg([1, None], 10) == pytest.approx(1 / best)
    assert metrics.ndcg([1, 1], 10) == 1.0, "two gold places in one passage cannot gain more than everything"
    assert metrics.ndcg([None], 10) == metrics.ndcg([], 10) == 0.0


# ── answers ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Denver Broncos!", ["denver", "broncos"]),
        ("an 1,207-page report", ["1207", "page", "report"]),
        ("“2014年8月23日”", ["2014", "年", "8", "月", "23", "日"]),
        ("ＡＢＣ公司", ["abc", "公", "司"]),
        ("後漢書", ["后", "汉", "书"]),
    ],
)
def test_answers_are_compared_without_case_articles_punctuation_width_and_script(text: str, words: list[str]) -> None:
    assert metrics.normalised(text) == words


def test_exact_match_takes_any_of_the_gold_answers() -> None:
    assert metrics.exact_match("the Rollo.", ["Rolf", "Rollo"]) == 1.0
    assert metrics.exact_match("It was Rollo.", ["Rollo"]) == 0.0


def test_f1_counts_words_in_english_and_characters_in_chinese() -> None:
    # said: 3 words, gold: 2, in common 2 → 2·2 / (3 + 2)
    assert metrics.token_f1("under leader Rollo", ["leader Rollo"]) == pytest.approx(0.8)
    # said: 6 characters, gold: 4, in common 4 → 2·4 / (6 + 4)
    assert metrics.token_f1("他在澳大利亚", ["澳大利亚"]) == pytest.approx(0.8)
    assert metrics.token_f1("the the", ["the"]) == 1.0, "both are nothing without their articles"
    assert metrics.token_f1("", ["Rollo"]) == 0.0


def test_an_answer_contains_a_gold_one_as_whole_words_in_a_row() -> None:
    assert metrics.contains("It was founded in 1891, in Denver.", ["1891"]) == 1.0
    assert metrics.contains("It has 18910 seats.", ["1891"]) == 0.0
    assert metrics.contains("他出生于1958年，在上海。", ["1958年"]) == 1.0
    assert metrics.contains("他出生于1958年。", ["1959年"]) == 0.0
    assert metrics.contains("anything", [""]) == 0.0


def test_of_parts_each_must_be_said_in_any_of_its_wordings() -> None:
    parts = [["1月3日", "一月三日"], ["1月12日"]]
    assert metrics.contains("宣誓在1月3日，会议在1月12日。", ["1月3日 / 1月12日"], parts) == 1.0
    assert metrics.contains("宣誓在1月3日。", ["1月3日 / 1月12日"], parts) == 0.0


# ── citations ─────────────────────────────────────────────────────────────────────────────────


def test_citation_precision_is_the_share_of_the_cited_that_is_gold() -> None:
    assert metrics.precision([True, False, True, False]) == 0.5
    assert metrics.precision([]) is None


def test_evidence_is_found_at_the_place_nearest_to_where_it_was() -> None:
    text = "Rollo led. Later,\nRollo ruled."
    assert metrics.nearest(text, "Rollo", 0) == (0, 5)
    assert metrics.nearest(text, "Rollo", 20) == (18, 23)
    assert metrics.nearest(text, "Later, Rollo", 0) == (11, 23), "white space may have changed"
    assert metrics.nearest(text, "Drogo", 0) is metrics.nearest(text, " ", 0) is None


def test_spans_overlap_when_they_share_a_character() -> None:
    assert metrics.overlaps(5, 10, [(9, 12)])
    assert not metrics.overlaps(5, 10, [(10, 12), (0, 5)])


# ── refusal ───────────────────────────────────────────────────────────────────────────────────


def test_auroc_is_the_chance_that_an_answerable_question_has_more_evidence() -> None:
    yes, no = np.array([0.9, 0.8, 0.4]), np.array([0.5, 0.4])
    # Of the six pairs: .9 and .8 win both, .4 loses one and ties one → 4.5 / 6.
    assert metrics.auroc(yes, no) == pytest.approx(4.5 / 6)
    assert metrics.auroc(np.ones(3), np.ones(2)) == 0.5
    assert math.isnan(metrics.auroc(np.array([]), no))


def test_the_refusal_curve_counts_what_lies_below_each_threshold() -> None:
    curve = metrics.refusal_curve([0.9, 0.4], [0.5, 0.1], points=3)
    assert curve == [(0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)]


# ── intervals ─────────────────────────────────────────────────────────────────────────────────


def test_an_interval_holds_the_mean_and_is_the_same_every_time() -> None:
    values = [1.0] * 70 + [0.0] * 30
    figure = intervals.of_values(values, seed=7)
    assert figure is not None
    assert (figure.value, figure.n) == (0.7, 100)
    # The standard error is sqrt(.7 · .3 / 100) = .046, so 95 % are about ±.09.
    assert figure.low == pytest.approx(0.61, abs=0.02)
    assert figure.high == pytest.approx(0.79, abs=0.02)
    assert figure == intervals.of_values(values, seed=7)
    assert intervals.of_values([]) is None


def test_an_interval_of_a_percentile_holds_it() -> None:
    figure = intervals.of_values([float(n) for n in range(101)], statistic=intervals.percentile(95))
    assert figure is not None
    assert figure.value == 95.0
    assert figure.low < 95.0 < figure.high


def test_pairs_show_a_difference_that_two_separate_intervals_would_hide() -> None:
    before = [float(n % 2) for n in range(100)]
    after = [1.0 if n < 10 else value for n, value in enumerate(before)]  # five questions more are right
    figure = intervals.of_differences(before, after)
    assert figure is not None
    assert figure.value == 0.05
    assert figure.low > 0
    alone = intervals.of_values(before)
    assert alone is not None
    assert alone.high - alone.low > 0.15, "by themselves both lie within the noise of the other"


def test_the_difference_of_two_equal_runs_is_nothing_at_all() -> None:
    figure = intervals.of_differences([0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    assert figure == intervals.Figure(0.0, 0.0, 0.0, 3)
    same = ([0.9, 0.8], [0.1, 0.85])
    assert intervals.of_auroc_difference(same, same) == intervals.Figure(0.0, 0.0, 0.0, 4)


def test_auroc_and_its_difference_have_intervals() -> None:
    before = ([0.6, 0.4, 0.7, 0.5] * 10, [0.5, 0.6, 0.4, 0.3] * 10)
    after = ([0.9, 0.8, 0.95, 0.85] * 10, [0.1, 0.2, 0.3, 0.1] * 10)
    old, change = intervals.of_auroc(*before), intervals.of_auroc_difference(before, after)
    assert old is not None
    assert change is not None
    assert old.low < old.value < old.high
    assert change.low > 0.0
    assert change.value == pytest.approx(1.0 - old.value, abs=1e-4)
    assert intervals.of_auroc([], [0.5]) is intervals.of_auroc_difference(([], []), ([], [])) is None
