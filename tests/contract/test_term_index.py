"""What every TermIndex promises, for the fake and for Tantivy; and how Tantivy's folder breaks."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rag.errors import InvalidInput, Unavailable
from rag.ports import TermEntry, TermIndex
from rag.search.terms import TantivyIndex
from tests.fakes import MemoryTerms

Reopen = Callable[[], TermIndex]


@pytest.fixture(params=["memory", "tantivy"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Calling it closes the index and gives the one that a new process would see."""
    made: list[TermIndex] = []

    def again() -> TermIndex:
        if made:
            made[-1].close()
        if request.param == "tantivy":
            made.append(TantivyIndex(path=tmp_path))
        elif not made:
            made.append(MemoryTerms())
        return made[-1]

    yield again
    made[-1].close()


@pytest.fixture
def index(reopen: Reopen) -> TermIndex:
    opened = reopen()
    opened.reset("s", catalog_id="a")
    return opened


def add(index: TermIndex, *texts: str, first: int = 1, seen: int = 1, space: str = "s") -> None:
    entries = [TermEntry(key, "", text) for key, text in enumerate(texts, first)]
    index.apply(space, remove=[], add=entries, seen=seen)


def found(index: TermIndex, question: str, *, k: int = 10, space: str = "s") -> list[int]:
    return [key for key, _ in index.search(space, question, k=k)]


class TestTermIndex:
    def test_it_says_what_it_has_seen_and_how_much_it_holds(self, index: TermIndex) -> None:
        add(index, "one", "two", seen=7)
        add(index, "two again", first=2, seen=8)
        assert (index.seen("s"), index.count("s")) == (8, 2)

    def test_a_missing_space_has_seen_nothing_and_is_unavailable(self, reopen: Reopen) -> None:
        index = reopen()
        assert index.open("missing", catalog_id="a") is None
        with pytest.raises(Unavailable):
            index.search("missing", "anything", k=1)

    def test_an_empty_space_has_seen_change_zero_and_finds_nothing(self, index: TermIndex) -> None:
        assert index.open("s", catalog_id="a") == 0
        assert index.search("s", "anything", k=5) == []
        assert index.keys("s") == set()

    def test_the_best_match_comes_first(self, index: TermIndex) -> None:
        add(index, "Refunds are paid within 14 days.", "Days are long in summer.", "Our office is in Lisbon.")
        hits = index.search("s", "When is a refund paid, in how many days?", k=10)
        assert [key for key, _ in hits] == [1, 2]
        assert hits[0][1] > hits[1][1] > 0

    def test_a_rare_term_counts_more_than_a_common_one(self, index: TermIndex) -> None:
        add(index, *["The warranty of the pump."] * 5, "The warranty of the compressor.")
        assert found(index, "compressor warranty")[0] == 6

    def test_at_most_k_are_returned_and_asking_for_more_gives_what_there_is(self, index: TermIndex) -> None:
        add(index, *["pump"] * 7)
        assert len(found(index, "pump", k=3)) == 3
        assert len(found(index, "pump", k=1_000)) == 7
        assert found(index, "pump", k=0) == []

    def test_among_some_keys_is_what_is_left_of_a_search_among_all(self, index: TermIndex) -> None:
        add(index, *[f"pump {'valve ' * (number % 7)}seal{number % 3}" for number in range(200)])
        everything = index.search("s", "valve seal1 pump", k=1_000)
        for keys in ([3], [5, 500, 7], list(range(1, 200, 2)), list(range(1, 201))):
            left = [hit for hit in everything if hit[0] in keys]
            assert index.search("s", "valve seal1 pump", k=1_000, among=keys) == left
            scores = [score for _, score in index.search("s", "valve seal1 pump", k=5, among=keys)]
            assert scores == [score for _, score in left[:5]]
        assert index.search("s", "pump", k=5, among=[]) == []
        assert index.search("s", "pump", k=5, among=[500]) == []

    @pytest.mark.parametrize("question", ["", "  ", "?!", "zeppelin", "🙂"])
    def test_a_question_without_a_known_term_finds_nothing(self, index: TermIndex, question: str) -> None:
        add(index, "The pump is blue.")
        assert index.search("s", question, k=5) == []

    @pytest.mark.parametrize(
        ("text", "question"),
        [
            ("員工每年享有十五天帶薪年假。", "员工有多少天年假？"),  # traditional text, simplified question
            ("员工每年享有十五天带薪年假。", "員工有多少天年假？"),
            ("依照第十二条办理。", "第12条说什么？"),
            ("Part A-1207 replaces A-1100.", "ａ－１２０７"),
            ("The fee is 1,234 euros.", "1234"),
            ("Call user_id from foo@bar.com", "user id"),
            ("Les employés de la société", "employes"),
            ("東京タワーの高さ", "タワー"),
            ("회의는 서울에서 열린다", "서울"),
            ("مرحبا بالعالم", "بالعالم"),
        ],
    )
    def test_text_is_found_however_it_is_written(self, index: TermIndex, text: str, question: str) -> None:
        add(index, text, "Something else altogether.", "完全不相干的一句话。")
        assert found(index, question)[:1] == [1]

    def test_a_heading_is_searched_too_and_adds_to_the_text(self, index: TermIndex) -> None:
        entries = [
            TermEntry(1, "staff rules", "holiday and pay"),
            TermEntry(2, "holiday rules", "staff and pay"),
            TermEntry(4, "holiday rules", "holiday and pay"),
        ]
        index.apply("s", remove=[], add=[*entries, TermEntry(3, "other rules", "words and more")], seen=1)
        assert found(index, "holiday")[0] == 4
        assert sorted(found(index, "holiday")) == [1, 2, 4]

    def test_adding_twice_is_once_and_the_last_text_counts(self, index: TermIndex) -> None:
        add(index, "blue pump", "green pump")
        add(index, "blue pump", "green pump")
        index.apply("s", remove=[], add=[TermEntry(2, "", "lost"), TermEntry(2, "", "yellow valve")], seen=2)
        assert index.keys("s") == {1, 2}
        assert found(index, "pump") == [1]
        assert found(index, "yellow") == [2]
        assert found(index, "lost") == []

    def test_what_is_removed_is_not_found_and_removing_nothing_is_fine(self, index: TermIndex) -> None:
        add(index, "blue pump", "green pump", "red pump")
        index.apply("s", remove=[2, 99], add=[], seen=2)
        index.apply("s", remove=[2], add=[], seen=3)
        index.apply("s", remove=[], add=[], seen=4)
        assert index.keys("s") == {1, 3}
        assert found(index, "green") == []
        assert index.open("s", catalog_id="a") == 4

    def test_old_and_new_are_exchanged_in_one_step(self, index: TermIndex) -> None:
        add(index, "version one of the text")
        index.apply("s", remove=[1], add=[TermEntry(2, "", "version two of the text")], seen=2)
        assert found(index, "version") == [2]

    def test_a_term_is_the_rarer_the_fewer_texts_have_it(self, index: TermIndex) -> None:
        add(index, "blue pump", "green pump", "red pump 年假")
        pump, blue, leave, nowhere = index.rarity("s", ["pump", "blue", "年假", "zeppelin"])
        assert pump < blue == leave < nowhere
        assert blue == pytest.approx(math.log(1 + 2.5 / 1.5))
        assert nowhere == pytest.approx(math.log(1 + 3.5 / 0.5))
        assert index.rarity("s", []) == []

    def test_large_keys_are_kept(self, index: TermIndex) -> None:
        add(index, "far away", first=2**62)
        assert index.keys("s") == {2**62}
        assert found(index, "far") == [2**62]
        index.apply("s", remove=[2**62], add=[], seen=2)
        assert index.keys("s") == set()

    def test_a_reset_space_is_empty(self, index: TermIndex) -> None:
        add(index, "blue pump", seen=9)
        index.reset("s", catalog_id="a")
        assert index.open("s", catalog_id="a") == 0
        assert found(index, "pump") == []
        add(index, "red pump")
        assert found(index, "pump") == [1]

    def test_a_dropped_space_is_gone_and_may_be_dropped_again(self, index: TermIndex) -> None:
        add(index, "blue pump")
        index.drop("s")
        index.drop("s")
        assert index.open("s", catalog_id="a") is None

    def test_spaces_do_not_influence_each_other(self, index: TermIndex) -> None:
        add(index, "blue pump", "green valve")
        before = index.search("s", "pump", k=5)
        index.reset("t", catalog_id="a")
        add(index, *["blue pump"] * 20, space="t")
        assert index.search("s", "pump", k=5) == before
        assert found(index, "valve", space="t") == []

    def test_what_was_written_and_seen_survives_closing(self, reopen: Reopen, index: TermIndex) -> None:
        add(index, "blue pump", "年假規定", seen=41)
        index.apply("s", remove=[1], add=[], seen=42)
        again = reopen()
        assert again.open("s", catalog_id="a") == 42
        assert again.keys("s") == {2}
        assert found(again, "年假规定") == [2]
        add(again, "red pump", first=5, seen=43)
        assert again.keys("s") == {2, 5}

    def test_another_catalog_has_seen_nothing(self, reopen: Reopen, index: TermIndex) -> None:
        add(index, "blue pump", seen=3)
        again = reopen()
        assert again.open("s", catalog_id="b") is None
        assert again.open("s", catalog_id="a") == 3

    def test_an_index_for_the_occasion_answers_as_a_space_with_the_same_entries(self, index: TermIndex) -> None:
        entries = [
            TermEntry(key, heading, f"{text} {'word ' * key}")
            for key, (heading, text) in enumerate(
                [("holiday rules", "staff and pay"), ("", "员工每年享有十五天带薪年假。"), ("", "E-07 on the pump")] * 9
            )
        ]
        index.apply("s", remove=[], add=entries, seen=1)
        add(index, "Something that is not of the occasion: pump holiday", first=100, space="s")
        index.apply("s", remove=[100], add=[], seen=2)
        index.reset("t", catalog_id="a")
        index.apply("t", remove=[], add=entries, seen=1)
        occasion = index.occasion(entry for entry in [TermEntry(3, "", "replaced below"), *entries])
        for question in ("holiday pay", "有多少天年假？", "E-07", "pump word", "zeppelin", ""):
            assert occasion.search(question, k=20) == index.search("t", question, k=20)
        assert occasion.search("holiday", k=0) == []
        asked = ["holiday", "pump", "年假", "zeppelin"]
        assert occasion.rarity(asked) == index.rarity("t", asked)

    def test_an_index_for_the_occasion_is_independent_of_spaces_and_may_be_empty(self, index: TermIndex) -> None:
        add(index, "blue pump")
        empty = index.occasion([])
        assert empty.search("pump", k=5) == []
        occasion = index.occasion([TermEntry(7, "", "red pump")])
        index.drop("s")
        assert occasion.search("pump", k=5)[0][0] == 7
        assert index.spaces() == set()

    def test_the_spaces_that_there_are_have_names(self, reopen: Reopen, index: TermIndex) -> None:
        index.reset("t", catalog_id="b")
        assert index.spaces() == {"s", "t"}
        index.drop("s")
        assert reopen().spaces() == {"t"}

    def test_a_long_document_as_a_question_is_answered(self, index: TermIndex) -> None:
        add(index, "blue pump", "green valve")
        assert found(index, "pump " + " ".join(f"word{n}" for n in range(5_000)))[0] == 1

    def test_threads_may_read_and_write_together(self, index: TermIndex) -> None:
        def work(part: int) -> None:
            for step in range(10):
                add(index, f"pump number{part * 10 + step}", first=part * 10 + step + 1, seen=part * 10 + step)
                assert found(index, f"number{part * 10 + step}") == [part * 10 + step + 1]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert index.keys("s") == set(range(1, 41))


class TestTantivy:
    def test_more_collections_than_kept_writers_can_be_written(self, tmp_path: Path) -> None:
        index = TantivyIndex(path=tmp_path)
        for number in range(10):
            index.reset(f"c{number}", catalog_id="a")
        for turn in range(2):
            for number in range(10):
                add(index, f"pump {number}", first=turn + 1, space=f"c{number}")
        assert all(index.keys(f"c{number}") == {1, 2} for number in range(10))
        index.close()

    def test_another_format_has_seen_nothing(self, tmp_path: Path) -> None:
        index = filled(tmp_path)
        marker = json.loads((tmp_path / "s" / "marker.json").read_text())
        (tmp_path / "s" / "marker.json").write_text(json.dumps(marker | {"format": marker["format"] + 1}))
        assert index.open("s", catalog_id="a") is None

    @pytest.mark.parametrize("damage", ["marker", "marker-empty", "meta", "segment", "files-gone"])
    def test_a_broken_folder_has_seen_nothing_and_a_reset_mends_it(self, tmp_path: Path, damage: str) -> None:
        index = filled(tmp_path)
        folder = tmp_path / "s"
        match damage:
            case "marker":
                (folder / "marker.json").unlink()
            case "marker-empty":
                (folder / "marker.json").write_text("")
            case "meta":
                (folder / "index" / "meta.json").write_text("{")
            case "segment":
                for file in (folder / "index").glob("*.term"):
                    file.write_bytes(b"")
            case _:
                for file in (folder / "index").iterdir():
                    file.unlink()
        assert index.open("s", catalog_id="a") is None
        index.reset("s", catalog_id="a")
        add(index, "red pump")
        assert found(index, "pump") == [1]
        index.close()

    def test_a_flipped_bit_in_any_file_of_a_segment_is_noticed(self, tmp_path: Path) -> None:
        index = filled(tmp_path)
        index.open("s", catalog_id="a")
        index.apply("s", remove=[1], add=[], seen=2)
        index.close()
        files = [file for file in (tmp_path / "s" / "index").iterdir() if file.suffix not in (".json", ".lock")]
        assert {file.suffix for file in files} >= {".term", ".idx", ".fast", ".del", ".fieldnorm"}
        for file in files:
            sound = file.read_bytes()
            middle = len(sound) // 4
            file.write_bytes(sound[:middle] + bytes([sound[middle] ^ 4]) + sound[middle + 1 :])
            assert index.open("s", catalog_id="a") is None, file.suffix
            file.write_bytes(sound)
        assert index.open("s", catalog_id="a") == 2
        index.close()

    def test_files_that_no_commit_names_are_collected_at_open(self, tmp_path: Path) -> None:
        index = filled(tmp_path)
        index.open("s", catalog_id="a")
        for number in range(5):
            add(index, f"pump {number}", first=number + 10, seen=number)
        before = len(list((tmp_path / "s" / "index").iterdir()))
        index.close()
        assert index.open("s", catalog_id="a") == 4
        assert len(list((tmp_path / "s" / "index").iterdir())) <= before
        index.close()

    @pytest.mark.parametrize("space", ["", "../up", "a/b", ".", "名字"])
    def test_a_space_that_is_no_plain_name_is_refused(self, tmp_path: Path, space: str) -> None:
        with pytest.raises(InvalidInput):
            TantivyIndex(path=tmp_path).reset(space, catalog_id="a")

    def test_passages_in_another_language_hardly_change_what_chinese_questions_find(self, tmp_path: Path) -> None:
        """Ten times as many English ones, each saying as much. Counted as one, 61 of 100 questions kept their first
        passage and 2 their first five: characters are rare there, and Chinese passages long beside English ones."""
        chance = random.Random(7)
        characters = "泵站报告维修记录北南东西水温压力检查工人夜班津贴阀门更换日期时间地点部门负责安全规程"
        words = ["pump", "north", "south", "water", "valve", "worker", "night", "shift", "check", "place", "rule"]
        chinese = ["".join(chance.choices(characters, k=chance.choice([20, 60, 200]))) for _ in range(60)]
        english = [" ".join(chance.choices(words, k=chance.choice([14, 42, 140]))) for _ in range(600)]
        questions = ["".join(chance.choices(characters, k=6)) for _ in range(100)]
        index = TantivyIndex(path=tmp_path)
        alone, mixed = (
            index.occasion(TermEntry(key, "", text) for key, text in enumerate(texts))
            for texts in (chinese, chinese + english)
        )
        pairs = [tuple([key for key, _ in one.search(q, k=5)] for one in (alone, mixed)) for q in questions]
        assert sum(own[0] == among[0] for own, among in pairs) >= 90
        assert sum(own == among for own, among in pairs) >= 50


def filled(folder: Path) -> TantivyIndex:
    index = TantivyIndex(path=folder)
    index.reset("s", catalog_id="a")
    add(index, "blue pump", "green pump")
    index.close()
    return index
