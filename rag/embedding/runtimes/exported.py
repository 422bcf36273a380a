"""The doors to ONNX Runtime and OpenVINO: run an exported encoder without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from rag.embedding.runtimes.export import ENCODER, INPUTS
from rag.ports import Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Lengths that texts are padded to. OpenVINO makes code for every shape that it has not seen lately, 4 ms of CPU for a
# question and 20 for some passages, and is quicker where lengths are whole tiles: 201 tokens take longer than 208.
MULTIPLES: Final = {"onnx": 1, "openvino": 16}

# Token ids and their mask, both of shape (texts, tokens) → vectors of the texts
Run = Callable[[NDArray[np.int64], NDArray[np.int64]], Vectors]


@dataclass(frozen=True)
class Exported:
    """A Runtime. As many batches at once as there are cores, each on one: a pool that spins for all cores beside a busy
    neighbour took 10 to 50 times as long. `prompts`: before a question, and before a passage. Texts are padded to a
    multiple of `multiple` tokens."""

    name: str
    parallel: int
    run: Run
    tokenizer: Tokenizer  # neither pads nor cuts
    window: int
    prompts: tuple[str, str]
    multiple: int = 1

    def encode(self, texts: Sequence[str], *, query: bool) -> Vectors:
        return self.vectors(self.tokens(texts, query=query))

    def tokens(self, texts: Sequence[str], *, query: bool) -> list[NDArray[np.int64]]:
        """The ids of each text's tokens, prompt and special ones included, cut at the window."""
        prompt = self.prompts[0 if query else 1]
        prompted = [f"{prompt}{text}".strip() for text in texts]
        tokens = [np.array(one.ids, dtype=np.int64) for one in self.tokenizer.encode_batch_fast(prompted)]
        for row, own in enumerate(tokens):
            if len(own) > self.window:
                tokens[row] = np.array(self._cutting.encode(prompted[row]).ids, dtype=np.int64)
        return tokens

    def vectors(self, tokens: Sequence[NDArray[np.int64]]) -> Vectors:
        """Shape (texts, dimension), float32, as the model gives them."""
        ids = np.zeros((len(tokens), self.padded(max(map(len, tokens)))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, own in enumerate(tokens):
            ids[row, : len(own)] = own
            mask[row, : len(own)] = 1
        return self.run(ids, mask)

    @cached_property
    def _cutting(self) -> Tokenizer:
        """Another one, which takes 14 MiB and which few services need: passages are made to fit the window."""
        cutting = self.tokenizer.from_str(self.tokenizer.to_str())
        cutting.enable_truncation(self.window)
        return cutting

    def padded(self, length: int) -> int:
        """To how many tokens so many are padded; never beyond the window, for which a model has positions."""
        return max(length, min(-(-length // self.multiple) * self.multiple, self.window))


def whole_tokenizer(described: str) -> Tokenizer:
    """The one of a tokenizer.json, but neither padding nor cutting. Never changed again, so that threads may use it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(described)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ── ONNX Runtime ──────────────────────────────────────────────────────────────────────────────


def onnx_session(encoder: Path, threads: int) -> tuple[str, Run]:
    """Raises whatever onnxruntime raises for a file that it cannot read."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.29 on it looks up a host seconds after the import
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # every batch has a shape of its own
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(encoder), options, providers=["CPUExecutionProvider"])
    del threads  # one session serves any number of threads, each on its own core

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Vectors:
        vectors: Vectors = session.run(None, dict(zip(INPUTS, (ids, mask), strict=True)))[0]
        return vectors

    return f"onnxruntime {onnxruntime.__version__}", run


# ── OpenVINO ──────────────────────────────────────────────────────────────────────────────────


@cache
def _openvino_core() -> Any:
    """One for the process, for as long as it lives. OpenVINO gives a thread that compiles a stack for signals and frees
    that with the Core, in whatever thread this happens: Ctrl-C in the first one was a segmentation fault then."""
    # Importing openvino imports this, which contacts a host and writes into the home folder.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _openvino_options(threads: int) -> tuple[str, dict[str, Any]]:
    """The precision, and all that it is compiled and opened with: bf16 where the CPU computes with it."""
    precision = "bf16" if "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    return precision, {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
        # Nearly every batch has a shape of its own, and what is kept for 5,000 of them serves nobody: 584 MB instead
        # of 646 after 1,800 texts, in the same time.
        "CPU_RUNTIME_CACHE_CAPACITY": 100,
    }


def compile_for_openvino(folder: Path, into: Path) -> None:
    """The exported encoder as OpenVINO has it after compiling, as one file. `into` lies in a folder of its own, where
    the model is kept meanwhile. Raises whatever OpenVINO raises.

    Opening the file takes a third of the time that compiling does, and 100 MiB less: nothing is held twice, and the
    weights stay in the file, of which memory holds the pages that are used. Where bf16 computes, fp16 holds every digit
    that it sees, in half the room.
    """
    core = _openvino_core()
    import openvino

    precision, options = _openvino_options(cores())
    model = into.with_suffix(".xml")
    openvino.save_model(core.read_model(str(folder / ENCODER)), str(model), compress_to_fp16=precision == "bf16")
    into.write_bytes(core.compile_model(str(model), "CPU", options).export_model().getbuffer())


def openvino_session(compiled: Path, threads: int) -> tuple[str, Run]:
    """Raises whatever OpenVINO raises for a file that it cannot read, or that another version or CPU made."""
    core = _openvino_core()
    import openvino

    precision, options = _openvino_options(threads)
    # Mapped, so that the weights are the file's pages; nobody writes into the copies of them that this would allow.
    mapped = openvino.Tensor(np.memmap(compiled, dtype=np.uint8, mode="c"), shared_memory=True)
    opened = core.import_model(mapped, "CPU", options)
    free: SimpleQueue[Any] = SimpleQueue()
    for _ in range(threads + 2):  # a question need not wait for passages
        free.put(opened.create_infer_request())

    @contextmanager
    def request() -> Any:
        one = free.get()
        try:
            yield one
        finally:
            free.put(one)

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64], _weights: Any = mapped) -> Vectors:
        with request() as one:
            found = one.infer(dict(zip(INPUTS, (ids, mask), strict=True)), share_inputs=True, share_outputs=True)
            vectors: Vectors = np.array(found[0], dtype=np.float32)  # before another thread takes the request
            return vectors

    return f"openvino {openvino.__version__.split('-')[0]} {precision}", run
