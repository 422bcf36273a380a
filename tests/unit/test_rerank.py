"""The best candidates judged once more: by nothing, by cheap features, by a cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import InvalidInput, Unavailable
from rag.ports import Candidate
from rag.rerank.cross_encoder import CrossEncoderReranker
from rag.rerank.light import FEATURES, WEIGHTS, LightReranker, NoReranker, features
from rag.retrieval.retrieve import retrieve
from rag.settings import Settings
from rag.text.keywords import Keyword, keywords
from rag.wiring import open_reranker
from tests.bases import Bases, publish_text, source_in

QUESTION = "Who wrote the maintenance report about the north pump?"
TEXT = st.text(st.sampled_from("pump north wrote. 泵站的报告。A-1207 \n"), max_size=60)
SHARE = st.floats(0, 1, allow_nan=False)


def wanted(question: str) -> tuple[Keyword, ...]:
    return keywords(question, lambda terms: [1.0] * len(terms))


def candidate(text: str, *, heading: str = "", fused: float = 0.5, near: float = 0.5) -> Candidate:
    return Candidate(heading, text, fused, near)


def feature(name: str, question: str, item: Candidate) -> float:
    return features(question, wanted(question), [item])[0][FEATURES.index(name)]


class TestNone:
    def test_it_leaves_the_scores_as_they_were(self) -> None:
        found = NoReranker().rerank(QUESTION, wanted(QUESTION), [candidate("a", fused=0.3), candidate("b", fused=0.9)])
        assert [item.score for item in found] == [0.3, 0.9]


class TestLight:
    def test_words_in_one_sentence_beat_the_same_words_spread_out(self) -> None:
        together = candidate(
            "The north pump stands still. Lee wrote the maintenance report about the north pump. Rain."
        )
        apart = candidate(
            "The pump stands still. A report came. Lee wrote home. North of it is maintenance. About rain."
        )
        one, other = LightReranker().rerank(QUESTION, wanted(QUESTION), [apart, together])
        assert one.arms["keywords"] == other.arms["keywords"]
        assert other.score > one.score

    def test_the_better_found_wins_where_the_words_are_the_same(self) -> None:
        text = "Lee wrote the report."
        first, second = LightReranker().rerank(
            QUESTION, wanted(QUESTION), [candidate(text, fused=0.8), candidate(text, fused=0.4)]
        )
        assert first.score > second.score

    @settings(deadline=None)  # the first Chinese question loads a dictionary
    @given(
        st.lists(st.tuples(TEXT, TEXT, SHARE, SHARE), max_size=4), st.sampled_from([QUESTION, "泵站的报告 A-1207？"])
    )
    def test_every_candidate_has_one_score_between_0_and_1(
        self, rows: list[tuple[str, str, float, float]], question: str
    ) -> None:
        found = LightReranker().rerank(question, wanted(question), [Candidate(*row) for row in rows])
        assert len(found) == len(rows)
        assert all(0.0 <= item.score <= 1.0 + 1e-9 for item in found)

    def test_what_is_in_the_heading_counts_a_little_less_for_a_sentence(self) -> None:
        said = feature("sentence", QUESTION, candidate("Lee wrote the maintenance report about the north pump."))
        above = feature("sentence", QUESTION, candidate("Lee wrote the maintenance report.", heading="North pump"))
        assert 0.0 < above < said

    def test_neighbours_in_the_question_that_are_neighbours_in_a_sentence_are_a_phrase(self) -> None:
        assert feature("phrase", QUESTION, candidate("Look at the north pump.")) > 0
        assert feature("phrase", QUESTION, candidate("The pump is north. Maintenance. Report.")) == 0
        assert feature("phrase", "维修报告由谁写？", candidate("写维修报告的是李工。")) > 0

    def test_a_row_in_both_languages_is_read_in_either(self) -> None:
        """Of two readings the better one counts, also where both ask for as many words."""
        question = "泵站 pump"
        for row in ("泵站 | north hall | 值班", "值班 | north pump | 日期"):
            assert feature("sentence", question, candidate(row)) > 0

    def test_a_passage_is_judged_alike_whatever_was_asked_of_it_before(self) -> None:
        passages = [
            candidate("Lee wrote the report. The north pump stands.", heading="Hall"),
            candidate("泵站的报告。"),
        ]
        first = features(QUESTION, wanted(QUESTION), passages)
        features("When does the hall open?", wanted("When does the hall open?"), passages)
        assert features(QUESTION, wanted(QUESTION), passages) == first

    def test_what_has_no_weight_need_not_be_known(self) -> None:
        passages = [candidate("Lee wrote the maintenance report about the north pump."), candidate("Rain.")]
        every = features(QUESTION, wanted(QUESTION), passages)
        some = features(QUESTION, wanted(QUESTION), passages, used=("fused", "words"))
        at = FEATURES.index("words")
        assert [row[at] for row in some] == [row[at] for row in every]

    def test_a_question_without_a_word_and_a_passage_without_a_sentence_harm_nothing(self) -> None:
        assert LightReranker().rerank("?", (), [candidate("")])[0].score <= 1.0
        assert LightReranker().rerank(QUESTION, wanted(QUESTION), []) == []

    def test_there_is_a_weight_for_each_feature_in_each_language(self) -> None:
        assert {language: len(row) for language, row in WEIGHTS.items()} == dict.fromkeys(("en", "zh"), len(FEATURES))
        assert all(weight >= 0.0 for row in WEIGHTS.values() for weight in row)


class TestSetting:
    @pytest.mark.parametrize(("spec", "name"), [("light", "light"), ("none", "none"), (" ", "none")])
    def test_light_is_the_default_and_none_is_none(self, spec: str, name: str) -> None:
        assert open_reranker(spec).name == name
        assert open_reranker(Settings(_env_file=None).reranker).name == "light"

    def test_a_folder_without_a_model_is_an_error_at_once_that_names_the_setting(self, tmp_path: Path) -> None:
        for missing in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(InvalidInput, match="ATTEST_RERANKER"):
                open_reranker(str(missing))


@pytest.mark.models
class TestCrossEncoder:
    """With a tiny BERT of random weights: that a real one is better is its makers' to prove."""

    def test_its_scores_go_from_0_to_1_decide_and_do_not_depend_on_the_batch(self, tiny: Path) -> None:
        reranker = CrossEncoderReranker(str(tiny), device="cpu")
        texts = [f"pump {'north ' * count}report" for count in range(20)]
        every = reranker.rerank(QUESTION, (), [candidate(text) for text in texts])
        alone = [reranker.rerank(QUESTION, (), [candidate(text)])[0] for text in texts]
        scores = [item.score for item in every]
        assert scores == pytest.approx([item.score for item in alone], abs=1e-5)
        assert all(0.0 < score < 1.0 for score in scores)
        assert len({round(score, 6) for score in scores}) > 10
        assert [item.arms for item in every] == [{"rerank": score} for score in scores]
        assert reranker.rerank(QUESTION, (), []) == []

    def test_it_decides_the_order_of_what_is_found_and_shows_its_score(self, tiny: Path, tmp_path: Path) -> None:
        base = replace(Bases(tmp_path).open(), reranker=CrossEncoderReranker(str(tiny), device="cpu"))
        place = source_in(base)
        for number in range(6):
            publish_text(base, *place, f"{number}.txt", f"The pump {'wrote north ' * number}stands in hall {number}.")
        hits = retrieve("Where is the pump?", base=base, collections=base.collections([]), k=6).hits
        assert [hit.arms["rerank"] for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        without = replace(base, reranker=NoReranker())
        others = retrieve("Where is the pump?", base=without, collections=base.collections([]), k=6).hits
        assert {hit.chunk_id for hit in hits} == {hit.chunk_id for hit in others}
        assert [hit.chunk_id for hit in hits] != [hit.chunk_id for hit in others]

    def test_a_passage_longer_than_its_window_is_cut(self, tiny: Path) -> None:
        reranker = CrossEncoderReranker(str(tiny), device="cpu")
        assert len(reranker.rerank("pump " * 2_000, (), [candidate("north " * 5_000, heading="report")])) == 1

    def test_a_folder_whose_weights_are_broken_is_an_error_that_names_the_setting(self, tiny: Path) -> None:
        (tiny / "model.safetensors").write_bytes(b"broken")
        with pytest.raises(Unavailable, match="ATTEST_RERANKER"):
            CrossEncoderReranker(str(tiny), device="cpu").rerank(QUESTION, (), [candidate("pump")])

    def test_a_classifier_of_several_classes_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="3 scores"):
            CrossEncoderReranker(str(made(tmp_path, labels=3)), device="cpu").rerank(QUESTION, (), [candidate("pump")])


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return made(tmp_path, labels=1)


def made(folder: Path, *, labels: int, words: Sequence[str] = ("pump", "north", "report", "who", "wrote")) -> Path:
    """A cross-encoder of two small layers, as transformers saves it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), encoding="utf-8")
    config = BertConfig(
        vocab_size=5 + len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=labels,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    return folder
