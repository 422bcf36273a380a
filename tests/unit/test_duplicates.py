"""Passages that say the same are found as one; those that differ in what matters stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rag.models import Hit, Place
from rag.retrieval.retrieve import retrieve
from rag.text.duplicates import FORMAT, collapse, is_signature_of, signature
from tests.bases import Bases, assert_sound, publish_text, source_in

ENGLISH = (
    "A customer who is not satisfied with a delivery may send the goods back within 14 days of having received them. "
    "The parcel must be closed, and a copy of the invoice must lie in it. The price is paid back to the account from "
    "which it came, as soon as the warehouse has seen the goods. Gift cards and opened software are never taken back."
)
CHINESE = (
    "员工每年享有带薪年假十五天，入职不满一年的按月折算。申请年假须提前两周在人事系统中提交，由部门主管审批。"
    "未休完的年假可以结转到次年三月底，逾期作废。北京办公室的员工如有疑问，请联系人事部门的同事。"
)


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    opened = Bases(tmp_path)
    yield opened
    opened.assert_sound()
    opened.close()


def hit(key: int, text: str, *, score: float | None = None, signed: bool = True) -> Hit:
    return Hit(
        chunk_id=key,
        collection_id="c",
        document_id=f"doc_{key}",
        version=1,
        title=f"Document {key}",
        uri=f"files/{key}.txt",
        places=((0, Place(page=key)),),
        start=0,
        end=len(text),
        text=text,
        heading="",
        tokens=10,
        score=1.0 - key / 100 if score is None else score,
        arms={},
        signature=signature(text) if signed else b"",
    )


def groups(*texts: str, k: int = 10, signed: bool = True) -> list[list[int]]:
    """Chunks that came back as one, the best-ranked first."""
    found = collapse([hit(key, text, signed=signed) for key, text in enumerate(texts, 1)], k=k)
    return [[one.chunk_id, *(also.chunk_id for also in one.also)] for one in found]


class TestSignature:
    def test_it_is_the_same_on_every_machine_and_in_every_version_of_this_format(self) -> None:
        made = signature("Refunds are paid within 14 days.")
        assert made[0] == FORMAT
        assert len(made) == 258
        assert made[2:14].hex() == "e896ba957e7fd4d18d6696ca"

    def test_case_width_script_and_punctuation_do_not_matter(self) -> None:
        assert signature("The Pump, at last, stops!") == signature("the pump at last stops")
        assert signature("退款须在收货后14天内提出") == signature("退款須在收貨後１４天內提出。")

    @pytest.mark.parametrize("text", ["", "…", "word", "两字"])
    def test_a_text_of_less_than_one_shingle_has_one(self, text: str) -> None:
        assert len(signature(text)) == 258
        assert is_signature_of(signature(text), text)

    def test_another_texts_signature_is_known_as_such_unless_its_format_is_another(self) -> None:
        other = signature(ENGLISH)
        assert not is_signature_of(other, CHINESE)
        assert is_signature_of(bytes((FORMAT + 1,)) + other[1:], CHINESE)


class TestCollapse:
    @pytest.mark.parametrize("text", [ENGLISH, CHINESE])
    @pytest.mark.parametrize("signed", [True, False])
    def test_the_same_text_comes_once_and_the_next_passage_moves_up(self, text: str, signed: bool) -> None:
        assert groups(text, text, "Something else altogether.", k=2, signed=signed) == [[1, 2], [3]]

    def test_a_word_more_or_less_is_no_matter(self) -> None:
        assert groups(ENGLISH, ENGLISH.replace("A customer", "Somebody")) == [[1, 2]]
        assert groups(CHINESE, CHINESE.replace("的同事", "")) == [[1, 2]]

    @pytest.mark.parametrize(
        ("text", "old", "new"),
        [
            (ENGLISH, "14 days", "30 days"),
            (ENGLISH, "never taken", "taken"),
            (ENGLISH, "A customer", "Twelve customers"),
            (ENGLISH, "of having received them", "of having received them, since 2 May"),
            (CHINESE, "十五天", "二十天"),
            (CHINESE, "三月底", "六月底"),
            (CHINESE, "两周", "3周"),
            (CHINESE, "北京", "上海"),
            (CHINESE, "可以结转", "不可以结转"),
        ],
    )
    def test_another_number_date_name_or_denial_is_another_passage(self, text: str, old: str, new: str) -> None:
        assert groups(text, text.replace(old, new)) == [[1], [2]]

    def test_another_name_is_another_passage(self) -> None:
        text = ENGLISH.replace("the warehouse", "the warehouse in Hamburg")
        assert groups(text, text.replace("Hamburg", "Rotterdam")) == [[1], [2]]

    def test_texts_that_share_some_words_stay_apart(self) -> None:
        half = ENGLISH[: len(ENGLISH) // 2]
        assert groups(ENGLISH, half, CHINESE, CHINESE[:40]) == [[1], [2], [3], [4]]

    def test_of_equal_scores_the_one_stored_last_speaks_and_otherwise_the_best(self) -> None:
        old, new = hit(3, ENGLISH, score=0.5), hit(8, ENGLISH, score=0.5)
        assert [one.chunk_id for one in collapse([old, new], k=5)] == [8]
        assert [one.chunk_id for one in collapse([replace(old, score=0.6), new], k=5)] == [3]

    def test_it_says_where_the_others_stand(self) -> None:
        (found,) = collapse([hit(1, ENGLISH), hit(2, ENGLISH)], k=3)
        (also,) = found.also
        assert (also.document_id, also.version, also.title, also.uri) == ("doc_2", 1, "Document 2", "files/2.txt")
        assert (also.place.page, also.start, also.end) == (2, 0, len(ENGLISH))

    def test_nothing_found_is_nothing(self) -> None:
        assert collapse([], k=8) == []


class TestFound:
    def test_k_different_passages_are_found_though_one_stands_in_many_documents(self, bases: Bases) -> None:
        base = bases.open()
        collection, source = source_in(base)
        for number in range(6):
            publish_text(base, collection, source, f"copy {number}.txt", ENGLISH)
        publish_text(base, collection, source, "card.txt", "Gift cards are sent within a day.")
        publish_text(base, collection, source, "parcel.txt", "A parcel weighs ten kilograms at most.")
        found = retrieve("When are goods of a delivery paid back?", base=base, collections=[collection], k=3)
        assert len(found.hits) == 3
        assert len({one.text for one in found.hits}) == 3
        (copied,) = (one for one in found.hits if one.text == ENGLISH)
        assert {copied.uri, *(also.uri for also in copied.also)} == {f"files/copy {number}.txt" for number in range(6)}

    def test_copies_in_two_collections_are_one(self, bases: Bases) -> None:
        base = bases.open()
        for name in ("shop", "office"):
            publish_text(base, *source_in(base, collection=name), "terms.txt", CHINESE)
        (found,) = retrieve("年假有几天？", base=base, collections=base.collections([]), k=5).hits
        assert len(found.also) == 1

    def test_what_was_stored_without_a_signature_is_compared_all_the_same(self, bases: Bases) -> None:
        base = bases.open()
        collection, source = source_in(base)
        for number in range(2):
            publish_text(base, collection, source, f"{number}.txt", ENGLISH)
        with base.catalog.write() as connection:
            connection.exec_driver_sql("UPDATE chunks SET signature = NULL")
        assert_sound(base)
        (found,) = retrieve("paid back", base=base, collections=[collection], k=5).hits
        assert len(found.also) == 1
