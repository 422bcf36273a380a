"""Terms, languages and sentences, Chinese and English alike."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.text.language import canonical, is_han, language_of, query_terms, sentences, simplified, terms

TRADITIONAL = "員工每年享有帶薪年假，請參閱《手冊》第十二條。書籤與發票應當保存後續對賬，裡面乾淨。"
SIMPLIFIED = "员工每年享有带薪年假，请参阅《手册》第十二条。书签与发票应当保存后续对账，里面干净。"
MIXED = st.text(
    st.one_of(st.sampled_from("。！？；…“”「」.!?\"')(] \n\t:，、e.g.Mr.A1 年假的") | st.characters(codec="utf-8")),
    max_size=80,
)


def texts(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


class TestCanonical:
    def test_line_ends_nul_and_lone_surrogates(self) -> None:
        assert canonical("a\r\nb\rc\x00\ud800\u3000Ａ") == "a\nb\nc\ufffd\ufffd\u3000Ａ"


class TestTerms:
    def test_han_become_characters_and_pairs(self) -> None:
        assert terms("年假规定") == ["年", "假", "规", "定", "年假", "假规", "规定"]

    def test_english_words_are_stemmed_and_lower_case(self) -> None:
        assert terms("Employees' REFUNDED policies") == ["employe", "refund", "polici"]

    @pytest.mark.parametrize(
        ("british", "american"),
        [
            ("behaviour", "behaviors"),
            ("favourite", "favorite"),
            ("organisations", "organization"),
            ("analysed", "analyzing"),
            ("kilometres", "kilometer"),
            ("licence", "licensed"),
        ],
    )
    def test_british_and_american_spelling_are_one_term(self, british: str, american: str) -> None:
        assert terms(british) == terms(american)
        assert terms("our hour") == ["our", "hour"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("A-1207", {"a-1207", "a1207", "1207"}),
            ("v2.3.1", {"v2.3.1", "2.3.1"}),
            ("user_id", {"user_id", "user", "id"}),
            ("maxPoolSize", {"max", "pool", "size"}),
            ("foo@bar.com", {"foo@bar.com", "foo", "bar"}),
            ("e-mail", {"email", "mail"}),
            ("C++ and C#", {"c++", "c#"}),
            ("1,234", {"1234"}),
            ("1,234,567.89", {"1234567.89"}),
            ("2024-03-05", {"2024-03-05", "2024", "3", "5"}),
            ("2024年3月5日", {"2024", "3", "3月", "5日"}),
            ("第十二条", {"第12条", "12", "十二"}),
            ("第12条", {"第12条", "12", "12条"}),
            ("依照第 12 条", {"第12条"}),
            ("第一百零三章", {"第103章"}),
            ("30天", {"30", "30天", "天"}),
            ("休假 30 天", {"30", "30天"}),
            ("café", {"cafe"}),
            ("the 1980s", {"1980s", "1980"}),
            ("Müller’s", {"muller"}),
            ("AT&T", {"at&t"}),
        ],
    )
    def test_codes_numbers_and_identifiers_are_found_whole_and_in_parts(self, text: str, expected: set[str]) -> None:
        assert expected <= set(terms(text))

    @pytest.mark.parametrize("text", ["テキスト", "한국어", "العربية", "हिन्दी", "ไทย", "Ελλάδα", "Россия", "עברית"])
    def test_letters_of_every_script_are_kept(self, text: str) -> None:
        assert terms(text)

    def test_a_word_with_vowel_signs_is_one_word(self) -> None:
        assert terms("हिन्दी भाषा") == ["हिन्दी", "भाषा"]

    def test_lists_of_numbers_are_not_one_number(self) -> None:
        assert {"1", "2", "3"} <= set(terms("1, 2, 3"))
        assert "1234" not in terms("version 1,23,4")

    def test_traditional_and_simplified_text_have_the_same_terms(self) -> None:
        assert terms(TRADITIONAL) == terms(SIMPLIFIED)
        assert simplified("Ａ資料bc") == "Ａ资料bc"

    def test_monstrous_words_are_cut(self) -> None:
        assert max(map(len, terms("x" * 10_000 + " " + "a." * 5_000))) <= 64

    @given(st.text())
    def test_no_term_is_empty_or_has_white_space(self, text: str) -> None:
        assert all(term and not any(map(str.isspace, term)) for term in terms(text) + query_terms(text))

    @given(st.text())
    def test_folding_to_simplified_first_changes_nothing(self, text: str) -> None:
        assert terms(simplified(unicodedata.normalize("NFKC", text))) == terms(text)

    @given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E) | st.sampled_from(" 年假中文"), max_size=40))
    def test_full_width_and_half_width_have_the_same_terms(self, text: str) -> None:
        wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
        assert terms(wide) == terms(text)

    @given(st.text(), st.sampled_from(["\n", "。", " | "]), st.text(st.characters(exclude_categories=["M"])))
    def test_terms_do_not_reach_across_a_border(self, left: str, border: str, right: str) -> None:
        assert set(terms(f"zz{border}zz")) == {"zz"}
        assert set(terms("年" + border + "假")) == {"年", "假"}


class TestQueryTerms:
    def test_each_once_and_without_the_words_that_only_ask(self) -> None:
        assert query_terms("What is the refund policy for refunds?") == ["refund", "polici"]

    def test_chinese_question_words_are_left_out(self) -> None:
        asked = query_terms("请问公司的年假是多少天？")
        assert {"公司", "年假", "天"} <= set(asked)
        assert not {"多少", "的", "是", "请", "司的", "的年"} & set(asked)

    @pytest.mark.parametrize("text", ["what is it", "是什么", "的", "To be or not to be"])
    def test_a_question_of_nothing_else_keeps_them(self, text: str) -> None:
        assert query_terms(text) == list(dict.fromkeys(terms(text)))

    def test_words_that_look_like_function_words_stay(self) -> None:
        assert "目的" in query_terms("这个项目的目的是什么？")
        assert "了解" in query_terms("如何了解进度")

    def test_capitals_are_names(self) -> None:
        assert "it" in query_terms("Who runs the IT department?")
        assert "it" not in query_terms("Who runs it?")

    @given(st.text())
    def test_every_query_term_is_a_term_of_the_same_text_or_of_a_part(self, text: str) -> None:
        asked = query_terms(text)
        assert len(asked) == len(set(asked))
        assert bool(asked) == bool(terms(text))


class TestLanguage:
    @pytest.mark.parametrize(
        ("text", "language"),
        [
            ("What is the refund policy?", "en"),
            ("年假有几天？", "zh"),
            ("iPhone 15 Pro 的价格是多少？", "zh"),
            ("Kubernetes 是什么", "zh"),
            ("什么是 retrieval augmented generation", "zh"),
            ("What does 年假 mean?", "en"),
            ("What is the meaning of 社会主义 in the text?", "en"),
            ("", "en"),
            ("12345 !?", "en"),
            ("員工年假", "zh"),
        ],
    )
    def test_of_a_question(self, text: str, language: str) -> None:
        assert language_of(text) == language

    def test_han_are_told_from_other_letters(self) -> None:
        assert [is_han(c) for c in "年々〇㐀𠀀aあア한1。"] == [True] * 5 + [False] * 6


class TestSentences:
    @pytest.mark.parametrize(
        "sentence",
        [
            "Mr. Smith met Dr. J. R. Jones in the U.S. Senate.",
            "Use 3.14, e.g. for circles, i.e. round things, etc. in v2.0.1 of it.",
            "See Fig. 3, No. 5 and pp. 12 of Smith et al. 2020.",
            "Visit https://example.com/a.html?q=1!x for more.",
            "“Really?” he asked.",
            "He waited ... and waited… and left.",
            "1. Introduction to the rules.",
            "It grew by 3.5 per cent from Jan. 5 to Feb. 7.",
            "Acme Inc. announced it.",
            "“为什么？”，他问道。",
            "价格为3.14元，版本为v2.0。",
        ],
    )
    def test_dots_inside_a_sentence_do_not_end_it(self, sentence: str) -> None:
        assert texts(sentence) == [sentence]

    @pytest.mark.parametrize(
        "parts",
        [
            ["First one.", "Second one!", "Third one?", "Fourth."],
            ["第一句。", "第二句！", "第三句？", "第四句；", "第五句"],
            ["他说：“好。”", "然后他走了。"],
            ["（见附件。）", "另行通知。"],
        ],
    )
    def test_ends_divide(self, parts: list[str]) -> None:
        assert texts("".join(parts) if is_han(parts[-1][0]) else " ".join(parts)) == parts

    @pytest.mark.parametrize(
        "parts",
        [
            ["He lives in the U.S.", "The weather is fine."],
            ["That is plan B.", "It failed."],
            ["It closed in 2020.", "12 people left."],
            ["(It was late.)", "She left."],
            ["“It works.”", "“So it does.”"],
            ["We sell pens, ink, etc.", "The shop is open."],
            ["She left...", "Then it rained."],
            ["What?!", "No."],
        ],
    )
    def test_english_ends_are_seen(self, parts: list[str]) -> None:
        assert texts(" ".join(parts)) == parts

    def test_a_line_end_is_a_border(self) -> None:
        assert texts("A heading\nA sentence that\n\n  goes on.") == ["A heading", "A sentence that", "goes on."]

    def test_chinese_and_english_in_one_text(self) -> None:
        assert texts("我们使用Linux.它很稳定。It is stable. 是的。") == [
            "我们使用Linux.",
            "它很稳定。",
            "It is stable.",
            "是的。",
        ]

    @given(MIXED)
    @settings(max_examples=300)
    def test_spans_are_ordered_and_cover_all_but_white_space(self, text: str) -> None:
        last = 0
        for start, end in sentences(text):
            assert last <= start < end <= len(text)
            assert not text[last:start].strip()
            assert text[start:end] == text[start:end].strip()
            assert "\n" not in text[start:end]
            last = end
        assert not text[last:].strip()


def test_importing_loads_no_dictionary_and_no_stemmer() -> None:
    code = "import rag.text.language, sys; sys.exit(bool({'opencc', 'Stemmer', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
