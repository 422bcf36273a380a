"""What a passage supports is said mechanically: numbers, negation and most of the words have to agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answering.support import judge
from rag.answering.verify import best_evidence, reconsidered
from rag.models import Hit, Passage, Support
from rag.ports import Vectors
from tests.fakes import HashEmbedder

ENGLISH = (
    "The X200 drill weighs 1.8 kilograms and costs 1,299 euros. Its battery lasts four hours. "
    "The warranty does not cover the battery. Spare parts are sold for ten years."
)
CHINESE = "X200电钻重1.8公斤，售价1299元。电池可用四小时。保修不包括电池。备件供应十年。"


def passage(text: str, *, heading: str = "", start: int = 100) -> Passage:
    hit = Hit(1, "col", "doc", 1, "Manual", "m", (), start, start + len(text), text, heading, 9, 1.0, {})
    return Passage.whole(1, hit, 9)


def support(sentence: str, text: str, *, heading: str = "") -> Support:
    return best_evidence(sentence, passage(text, heading=heading)).support


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The X200 drill weighs 1.8 kilograms.", "supported"),
        ("The drill costs 1299 euros.", "supported"),
        ("Its battery lasts four hours.", "supported"),
        ("The drill weighs 2.8 kilograms.", "unsupported"),  # another number
        ("The X300 drill weighs 1.8 kilograms.", "unsupported"),
        ("The canteen serves soup on Fridays.", "unsupported"),
    ],
)
def test_english_is_judged_by_numbers_and_words(sentence: str, expected: Support) -> None:
    assert support(sentence, ENGLISH) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("X200电钻重1.8公斤。", "supported"),
        ("电池可用四小时。", "supported"),
        ("X200电钻重2.8公斤。", "unsupported"),
        ("食堂周五供应汤。", "unsupported"),
    ],
)
def test_chinese_is_judged_by_numbers_and_words(sentence: str, expected: Support) -> None:
    assert support(sentence, CHINESE) == expected


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("The warranty covers the battery.", ENGLISH),
        ("Its battery does not last four hours.", ENGLISH),
        ("保修包括电池。", CHINESE),
        ("备件不供应十年。", CHINESE),
    ],
)
def test_a_flipped_negation_is_not_supported(sentence: str, text: str) -> None:
    assert support(sentence, text) != "supported"


def test_the_quote_is_the_part_that_says_it() -> None:
    found = best_evidence("Its battery lasts four hours.", passage(ENGLISH))
    assert ENGLISH[found.start - 100 : found.end - 100] == "Its battery lasts four hours."
    found = best_evidence("电池可用四小时。", passage(CHINESE))
    assert CHINESE[found.start - 100 : found.end - 100] == "电池可用四小时。"


def test_two_sentences_are_quoted_where_one_does_not_say_it_all() -> None:
    text = "Rain fell all day. The depot closed at six. Its gate was locked by Maria. Nobody saw it."
    found = best_evidence("The depot closed at six and the gate was locked by Maria.", passage(text))
    assert text[found.start - 100 : found.end - 100] == "The depot closed at six. Its gate was locked by Maria."


def test_the_headings_words_and_numbers_count_as_said() -> None:
    row = "Weight: 1.8 kg"
    assert support("The X200 drill weighs 1.8 kg.", row) == "unsupported"
    assert support("The X200 drill's weight is 1.8 kg.", row, heading="Products › X200 drill") == "supported"


@pytest.mark.parametrize("sentence", ["It is.", "是的。", "They do."])
def test_a_sentence_without_a_word_to_check_is_never_called_supported(sentence: str) -> None:
    assert support(sentence, ENGLISH) != "supported"


@given(st.text(max_size=60), st.text(max_size=120))
def test_the_quote_always_lies_inside_the_passage(sentence: str, text: str) -> None:
    found = best_evidence(sentence, passage(text))
    assert 100 <= found.start <= found.end <= 100 + len(text)
    assert found.support in ("supported", "weak", "unsupported")


def test_a_scrap_of_a_heading_is_not_called_supported() -> None:
    found = best_evidence("Warranty", passage("Warranty\n\nThe warranty is 24 months for loggers."))
    assert found.support == "weak"


# ── numbers, days, names ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sentence", "quote"),
    [
        ("The city has 1,200 schools.", "The city has 1200 schools."),
        ("The bridge cost 3 million dollars.", "The bridge cost $3,000,000."),
        ("The fee is 5 % of the price.", "The fee is five percent of the price."),
        ("The contract ended on May 1, 2023.", "The contract ended on 2023-05-01."),
        ("The contract ended in 2023.", "The contract ended on 1 May 2023."),
        ("手续费为价格的5%。", "手续费为价格的百分之五。"),
        ("试用期为三十天。", "试用期为30天。"),
        ("合同于2023年5月1日到期。", "合同于2023-05-01到期。"),
        ("合同于2023年到期。", "合同于2023年5月1日到期。"),
        ("该市有一千二百所学校。", "该市有1200所学校。"),
        ("這座橋耗資300萬元。", "这座桥耗资3,000,000元。"),
    ],
)
def test_a_number_or_a_day_in_another_form_is_the_same(sentence: str, quote: str) -> None:
    assert judge(sentence, quote).support == "supported"


@pytest.mark.parametrize(
    ("sentence", "quote"),
    [
        ("The fee is 5 % of the price.", "The fee of the price is 5 units."),
        ("The contract ended on May 1, 2023.", "The contract ended in 2023."),
        ("The contract ended on May 1, 2023.", "The contract ended on June 1, 2023."),
        ("More than 500 people work there.", "Fewer than 500 people work there."),
        ("The firm has 35 days of leave.", "The firm has 35 employees and 25 days of leave."),
        ("手续费为价格的5%。", "手续费为价格的5元。"),
        ("试用期为三十天。", "试用期为三十个月。"),
        ("合同于2023年5月1日到期。", "合同于2023年到期。"),
        ("该厂有超过500名员工。", "该厂有不足500名员工。"),
        ("Acme was founded in Hamburg in 1990.", "Acme was founded in Bremen in 1990."),
        ("The TL-1207 weighs two kilograms.", "The TL-1208 weighs two kilograms."),
        ("该公司于1990年在苏州成立。", "该公司于1990年在杭州成立。"),
    ],
)
def test_a_number_a_day_or_a_name_that_is_not_there_is_unsupported(sentence: str, quote: str) -> None:
    assert judge(sentence, quote).support == "unsupported"


NAMES = ["Hamburg", "Acme", "X200", "1987", "17 %", "3 May 2019", "苏州市", "《滕王阁序》"]


@given(
    st.sampled_from(["The depot {} was closed after the flood in spring.", "春天洪水之后{}的仓库关闭了。"]),
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
)
def test_never_supported_with_a_number_day_or_name_that_is_not_there(frame: str, one: str, other: str) -> None:
    support = judge(frame.format(one), frame.format(other)).support
    assert (support == "supported") == (one == other)


def test_what_a_he_means_may_stand_in_the_passage_and_is_then_not_called_supported() -> None:
    text = "Ada Lovelace joined the firm in spring. She built the first press of the town in 1912."
    quote = "She built the first press of the town in 1912."
    assert judge("Lovelace built the first press of the town in 1912.", quote, around=text).support == "weak"
    assert judge("In 1912 Babbage built the first press of the town.", quote, around=text).support == "unsupported"
    assert (
        judge("Lovelace built the first press of the town in 1912.", quote, heading="Ada Lovelace").support
        == "supported"
    )


def test_a_name_is_known_by_its_letters_and_its_people() -> None:
    assert judge("The UN sent observers.", "The United Nations sent observers.").support == "supported"
    assert judge("The TL 1207 is sold.", "The TL-1207 is sold.").support == "supported"


# ── denied, opposite, in the place of something else ──────────────────────────────────────────


@pytest.mark.parametrize(
    ("sentence", "quote"),
    [
        ("The warranty does not cover the battery.", "The warranty covers the battery."),
        ("The warranty covers the battery.", "The warranty does not cover the battery."),
        ("The pump fails to start at night.", "The pump starts at night."),
        ("Visitors are permitted in the hall.", "Visitors are prohibited in the hall."),
        ("Sales rose in spring.", "Sales fell in spring."),
        ("保修包括电池。", "保修不包括电池。"),
        ("员工不得携带钥匙。", "员工可以携带钥匙。"),
        ("春季销售额增长。", "春季销售额下降。"),
        ("厅内允许拍照。", "厅内禁止拍照。"),
    ],
)
def test_what_the_quote_denies_is_unsupported(sentence: str, quote: str) -> None:
    assert judge(sentence, quote).support == "unsupported"


@pytest.mark.parametrize(
    ("sentence", "quote"),
    [
        ("Its battery lasts four hours.", "Its battery lasts four hours. The warranty does not cover misuse."),
        ("The battery is not covered by the warranty.", "The warranty does not cover the battery."),
        ("The depot is not only old but also damp.", "The depot is not only old but also damp."),
        ("员工不得不离开大楼。", "员工不得不离开大楼。"),
        ("电池不在保修范围内。", "电池不在保修范围内，屏幕在保修范围内。"),
    ],
)
def test_a_negation_of_something_else_does_not_matter(sentence: str, quote: str) -> None:
    assert judge(sentence, quote).support == "supported"


@pytest.mark.parametrize(
    ("sentence", "quote"),
    [
        ("The lithosphere lies below a layer of gold ore.", "The lithosphere lies below a layer of wet sand."),
        ("The mayor was elected by the members of the guild.", "The mayor was elected by the owners of the mill."),
        ("该鱼常拟态为一块石头于潮水中漂游。", "该鱼常拟态为一片落叶于潮水中漂游。"),
    ],
)
def test_a_word_put_in_the_place_of_another_is_not_called_supported(sentence: str, quote: str) -> None:
    found = judge(sentence, quote)
    assert found.support == "weak"
    assert found.instead


def test_a_name_from_the_next_sentence_in_the_place_of_the_right_one_is_not_called_supported() -> None:
    text = "The office in Porto opens at nine in the morning. The one in Bordeaux opens at ten in the morning."
    assert support("The office in Porto opens at nine in the morning.", text) == "supported"
    assert support("The office in Bordeaux opens at nine in the morning.", text) != "supported"
    assert support("The office in Porto opens at ten in the morning.", text) != "supported"


# ── vectors ───────────────────────────────────────────────────────────────────────────────────


class Reader(HashEmbedder):
    """Finds everything near, or nothing."""

    def __init__(self, cosine: float, *, knows: float = 1.0) -> None:
        super().__init__()
        self.cosine, self.knows, self.calls = cosine, knows, 0

    def coverage(self, text: str) -> float:
        return self.knows

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        self.calls += 1
        beside = math.sqrt(1 - self.cosine**2)
        return np.array([[1.0, 0.0]] + [[self.cosine, beside]] * (len(texts) - 1), dtype=np.float32)


PARAPHRASE = "The drill runs about half a day before its battery is empty."


def test_other_words_that_a_vector_finds_near_are_supported_and_numbers_are_not() -> None:
    text = "The drill works half a day until the battery is flat."
    found = best_evidence(PARAPHRASE, passage(text))
    assert found.support == "weak"
    assert reconsidered(PARAPHRASE, [found], Reader(0.9))[0].support == "supported"
    assert reconsidered(PARAPHRASE, [found], Reader(0.5))[0].support == "weak"
    other = best_evidence("The drill weighs 9 kilograms.", passage(ENGLISH))
    assert reconsidered("The drill weighs 9 kilograms.", [other], Reader(0.99))[0].support == "unsupported"


def test_an_embedder_that_does_not_read_the_language_is_not_asked() -> None:
    found = best_evidence(PARAPHRASE, passage("The drill works half a day until the battery is flat."))
    for reader, coverage in ((Reader(0.9, knows=0.4), 1.0), (Reader(0.9), 0.5)):
        assert reconsidered(PARAPHRASE, [found], reader, coverage=coverage) == [found]
        assert reader.calls == 0


def test_all_quotes_are_embedded_at_once_and_only_where_words_do_not_decide() -> None:
    reader = Reader(0.9)
    sure = best_evidence("Its battery lasts four hours.", passage(ENGLISH))
    assert reconsidered("Its battery lasts four hours.", [sure], reader) == [sure]
    assert reader.calls == 0
    found = [best_evidence(PARAPHRASE, passage(f"The drill works half a day until {word} is flat.")) for word in "ab"]
    reconsidered(PARAPHRASE, found, reader)
    assert reader.calls == 1
