"""A collection's ranking is fitted on its owner's questions, and kept where others of them find measurably more."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app import cli, tune
from app.main import create_app
from app.service import Service
from ingest.split import fingerprint
from quality.intervals import Figure
from quality.models import Gold, Question
from quality.tuning import FITTED, Judged, Verdict, best_of, fit, fit_weights, half_of, judge, ranked
from rag.catalog import indexes
from rag.errors import InvalidInput
from rag.knowledge import KnowledgeBase
from rag.models import Collection
from rag.ports import Vectors
from rag.rerank.light import FEATURES, WEIGHTS, NoReranker
from rag.retrieval.fusion import DENSE_WEIGHT
from rag.retrieval.ranking import DEFAULT, Weighing, weighing_of
from rag.retrieval.retrieve import retrieve
from rag.settings import Settings
from tests.bases import Bases, publish_text, source_in
from tests.fakes import HashEmbedder

NAMES = [one + two for one, two in product(("bal", "cor", "dem", "fal"), ("dor", "mak", "nub", "pel", "rin", "sog",
         "tav", "vex", "wim", "zot"))]  # fmt: skip


class Knowing(HashEmbedder):
    """Knows the answers to questions that share no word with them."""

    def embed_query(self, text: str) -> Vectors:
        asked = re.search(r"machine (\w+)", text)
        return super().embed_query(text_about(asked[1]) if asked else text)


def text_about(name: str) -> str:
    return f"The {name[::-1]} engine weighs ninety kilograms when its tank is empty."


def talk_about(name: str) -> str:
    return f"A lot was said of the machine {name} at noon."


def asked_about(name: str) -> str:
    return f"What was said of the machine {name}?"


def question(name: str) -> Question:
    return Question("", asked_about(name), "en", gold=(Gold(f"{name}.txt"),), any_gold=True)


def fill(base: KnowledgeBase, collection: str = "notes") -> Collection:
    """What answers, and what only sounds like it."""
    into, source = source_in(base, collection=collection)
    for name in NAMES:
        publish_text(base, into, source, f"{name}.txt", text_about(name))
    publish_text(base, into, source, "talk.txt", "\n".join(map(talk_about, NAMES)))
    return into


def astray(count: int, *, seed: int = 0) -> list[Judged]:
    """Questions whose vectors say nothing, and whose terms and words tell the gold passage from nineteen others."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        rows = chance.uniform(0, 0.6, (20, len(FEATURES)))
        terms = chance.uniform(0, 0.7, 20)
        gold = int(chance.integers(20))
        terms[gold] = 1.0
        rows[gold, FEATURES.index("sentence")] = 1.0
        vectors = chance.uniform(0, 1, 20)
        rows[:, FEATURES.index("near")] = vectors
        found.append(Judged(vectors, terms, rows, 1.0, (frozenset((gold,)),)))
    return found


def hits(asked: Sequence[Judged], how: Weighing) -> float:
    return float(np.mean([ranked(item, how)[0] in item.gold[0] for item in asked]))


class TestFit:
    def test_what_leads_astray_weighs_little_and_others_of_its_kind_are_found_better(self) -> None:
        how = fit(astray(60), language="en", weigh=True)
        assert how.share < DENSE_WEIGHT
        assert how.weights is not None
        assert how.weights[FEATURES.index("near")] < WEIGHTS["en"][FEATURES.index("near")]
        others = astray(60, seed=1)
        assert hits(others, how) > hits(others, Weighing(DENSE_WEIGHT, WEIGHTS["en"])) + 0.05

    def test_without_the_light_reranker_only_the_share_is_fitted(self) -> None:
        how = fit(astray(60), language="en", weigh=False)
        assert how.weights is None
        assert how.share < DENSE_WEIGHT

    @pytest.mark.parametrize("language", ["en", "zh"])
    def test_weights_are_those_of_the_features_of_the_language_and_sum_to_one(self, language: str) -> None:
        weights = fit_weights([best_of(item, DENSE_WEIGHT) for item in astray(20)], FITTED[language])
        assert weights.sum() == pytest.approx(1.0)
        assert (weights >= 0.0).all()
        assert all(weights[at] == 0.0 for at, name in enumerate(FEATURES) if name not in FITTED[language])

    def test_few_questions_leave_the_weights_near_the_defaults(self) -> None:
        default = np.array(WEIGHTS["en"])

        def away(count: int) -> float:
            return float(np.abs(np.array(fit(astray(count), language="en", weigh=True).weights) - default).sum())

        assert away(4) < away(100)

    def test_questions_of_which_no_gold_passage_was_found_do_no_harm(self) -> None:
        lost = [Judged(item.vectors, item.terms, item.rows, 1.0, (frozenset(),)) for item in astray(20)]
        nothing = Judged(np.zeros(0), np.zeros(0), np.zeros((0, len(FEATURES))), 1.0, (frozenset(),))
        assert fit([*lost, nothing], language="en", weigh=True).share == DENSE_WEIGHT

    def test_a_question_is_always_on_the_same_side_and_about_half_of_them_are_on_each(self) -> None:
        assert half_of("When does  it open?") == half_of("when does it open? ")
        assert 10 < sum(half_of(asked_about(name)) for name in NAMES) < 30


class TestVerdict:
    def test_it_is_kept_where_the_gain_is_surely_above_zero(self) -> None:
        second, first = (frozenset((1,)),), (frozenset((0,)),)
        assert judge([second] * 40, [first] * 30 + [second] * 10).kept
        assert not judge([first] * 30 + [second] * 10, [second] * 40).kept

    def test_what_changed_nothing_is_not_kept(self) -> None:
        same = [(frozenset((0,)),), (frozenset(),), (frozenset((2, 5)),)] * 10
        verdict = judge(same, same)
        assert (verdict.gain.value, verdict.kept) == (0.0, False)

    def test_what_a_few_questions_may_have_won_by_chance_is_not_kept(self) -> None:
        second, first = (frozenset((1,)),), (frozenset((0,)),)
        assert not judge([second] * 40, [first] * 2 + [second] * 38).kept

    def test_more_wrong_first_passages_outweigh_any_gain(self) -> None:
        gain = Figure(0.05, 0.02, 0.08, 40)
        assert Verdict({"hit@1": 0.8}, {"hit@1": 0.8}, gain).kept
        assert not Verdict({"hit@1": 0.8}, {"hit@1": 0.79}, gain).kept


class TestKept:
    FITTED_SO: ClassVar[dict[str, Any]] = {
        "kept": True,
        "share": 0.1,
        "weights": {name: float(name == "words") for name in FEATURES},
    }

    def test_what_was_kept_ranks_questions_in_its_language_alone(self) -> None:
        ranking = {"languages": {"en": self.FITTED_SO}}
        assert weighing_of(ranking, "en") == Weighing(0.1, (0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
        assert weighing_of(ranking, "zh") == DEFAULT
        assert weighing_of(None, "en") == DEFAULT

    def test_what_was_not_kept_ranks_nothing(self) -> None:
        assert weighing_of({"languages": {"en": {**self.FITTED_SO, "kept": False}}}, "en") == DEFAULT

    def test_weights_of_features_that_are_no_more_rank_nothing(self) -> None:
        other = {**self.FITTED_SO, "weights": {"fused": 0.5, "moon": 0.5}}
        assert weighing_of({"languages": {"en": other}}, "en") == DEFAULT


# ── a collection ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[KnowledgeBase, Collection]]:
    bases = Bases(tmp_path, embedder=Knowing())
    base = bases.open()
    collection = fill(base)
    yield base, collection
    bases.assert_sound()
    bases.close()


def first(base: KnowledgeBase, collections: Sequence[Collection]) -> float:
    """The share of the questions whose own document comes first."""
    found = [retrieve(asked_about(name), base=base, collections=collections, k=3).hits for name in NAMES]
    return sum(hits[0].title == f"{name}.txt" for name, hits in zip(NAMES, found, strict=True)) / len(NAMES)


def test_what_is_fitted_ranks_the_next_question_and_reset_goes_back(world: tuple[KnowledgeBase, Collection]) -> None:
    base, collection = world
    before = first(base, [collection])
    told = tune.tune(base, collection, [question(name) for name in NAMES])
    fitted = told["languages"]["en"]
    assert fitted["kept"], fitted
    assert fitted["fitted_on"] + fitted["measured_on"] == len(NAMES)
    assert fitted["gain"]["low"] > 0.0
    assert first(base, [collection]) > before + 0.2
    tune.reset(base, collection)
    assert first(base, [collection]) == before


def test_offline_the_candidates_are_ranked_as_questions_are(world: tuple[KnowledgeBase, Collection]) -> None:
    base, collection = world
    how = Weighing(0.2, (0.3, 0.1, 0.1, 0.2, 0.2, 0.1))
    for name in NAMES[:10]:
        place = Question("", asked_about(name), "en", gold=tuple(Gold(f"{one}.txt") for one in NAMES))
        with base.catalog.read() as snapshot:
            names = tune.names_in(snapshot, collection)
        item = tune.judged(place, base, collection, names)
        of_row = {row: NAMES[at] for at, rows in enumerate(item.gold) for row in rows}
        found = retrieve(place.text, base=base, collections=[collection], k=100, how=how).hits
        assert [f"{of_row[row]}.txt" for row in ranked(item, how) if row in of_row] == [
            hit.title for hit in found if hit.title != "talk.txt"
        ]


def test_collections_that_are_asked_together_are_ranked_by_the_defaults(
    world: tuple[KnowledgeBase, Collection],
) -> None:
    base, collection = world
    other, source = source_in(base, collection="other")
    publish_text(base, other, source, "a.txt", "Nothing about machines stands here.")
    before = first(base, [collection, other])
    tune.tune(base, collection, [question(name) for name in NAMES])
    assert first(base, [collection, other]) == before


def test_another_index_begins_with_the_defaults(world: tuple[KnowledgeBase, Collection]) -> None:
    base, collection = world
    tune.tune(base, collection, [question(name) for name in NAMES])
    with base.catalog.write() as connection:
        index = indexes.begin(connection, collection.id, embedder=base.embedder, splitter=fingerprint(target_tokens=40))
        assert indexes.ranking_of(connection, index.id) is None
        assert indexes.ranking_of(connection, collection.index_id) is not None


def test_beside_another_reranker_only_the_share_counts(world: tuple[KnowledgeBase, Collection]) -> None:
    base, collection = world
    plain = KnowledgeBase(base.catalog, base.caches, base.originals, base.embedder, base.others, reranker=NoReranker())
    weights = tuple(float(name == "words") for name in FEATURES)
    for name in NAMES[:5]:
        one, two = (
            retrieve(asked_about(name), base=plain, collections=[collection], k=5, how=how).hits
            for how in (Weighing(0.1), Weighing(0.1, weights))
        )
        assert [(hit.chunk_id, hit.score) for hit in one] == [(hit.chunk_id, hit.score) for hit in two]
    told = tune.tune(plain, collection, [question(name) for name in NAMES])
    assert told["languages"]["en"]["weights"] is None
    assert told["languages"]["en"]["reranker"] == "none"


def test_a_question_that_is_asked_twice_counts_once_and_too_few_are_an_error(
    world: tuple[KnowledgeBase, Collection],
) -> None:
    base, collection = world
    elsewhere = Question("", "Where is it?", "en", gold=(Gold("elsewhere.txt"),))
    some = [question(name) for name in NAMES[: tune.MIN_QUESTIONS - 1]]
    with pytest.raises(InvalidInput, match=r"30 questions.*of the 59 given, that is so of 29 \(en\)"):
        tune.tune(base, collection, [*some, *some, elsewhere])
    with base.catalog.read() as snapshot:
        assert indexes.ranking_of(snapshot, collection.index_id) is None


# ── over HTTP and from the command line ───────────────────────────────────────────────────────


def test_over_http_a_ranking_is_fitted_shown_and_taken_back(tmp_path: Path) -> None:
    service = Service(Settings(_env_file=None, data_dir=tmp_path), embedder=Knowing())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        fill(service.base, "engines")
        path = "/v1/collections/engines/ranking"
        assert client.get(path).json() == {"languages": {}}
        wanted = [{"question": asked_about(name), "documents": [{"document": f"{name}.txt"}]} for name in NAMES]
        few = client.post(path, json={"questions": wanted[:5]})
        assert (few.status_code, "5 (en)" in few.json()["detail"]) == (422, True)
        missing = {"question": "Where is it?", "documents": [{"document": "elsewhere"}]}
        told = client.post(path, json={"questions": [*wanted, missing]})
        assert told.status_code == 200, told.text
        assert (told.json()["languages"]["en"]["kept"], told.json()["not_here"]) == (True, 1)
        assert client.get(path).json()["languages"] == told.json()["languages"]
        checks = {check["name"]: check for check in client.get("/v1/doctor").json()["checks"]}
        assert "“engines”, en: fitted on" in checks["ranking"]["detail"]
        assert client.delete(path).status_code == 204
        assert client.get(path).json() == {"languages": {}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A command in this process: (exit code, stdout, stderr)."""
    for name in [name for name in os.environ if name.startswith("ATTEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTEST_DATA_DIR", str(tmp_path / "data"))
    embedder = Knowing()
    monkeypatch.setattr(
        "app.service.Service", lambda settings, **options: Service(settings, embedder=embedder, **options)
    )
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attest", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_command_says_what_was_fitted_and_what_it_was_worth(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name in NAMES:
        (tmp_path / "notes" / f"{name}.txt").write_text(text_about(name), "utf-8")
    (tmp_path / "notes" / "talk.txt").write_text("\n\n".join(map(talk_about, NAMES)), "utf-8")
    lines = [json.dumps({"question": asked_about(name), "documents": [f"{name}.txt"]}) for name in NAMES]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines), "utf-8")
    assert run("sources", "add", "notes", "--folder", tmp_path / "notes")[0] == 0
    assert run("sync")[0] == 0
    code, shown, error = run("tune", tmp_path / "questions.jsonl")
    assert code == 0, error
    assert "“default”, en: ranked as fitted on" in shown
    assert "95 % interval" in shown
    assert run("tune", "--json")[1].count('"kept": true') == 1
    code, _, error = run("tune", "--feedback")
    assert (code, "No feedback says" in error) == (1, True)
    assert run("tune", "--reset")[1] == "“default” is ranked by the defaults.\n"
