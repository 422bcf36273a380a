"""Which library runs a model: what is fastest on this machine and gives the same vectors."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from rag.embedding.model_files import modules, prompts_of, read_json
from rag.embedding.runtimes import export
from rag.embedding.runtimes.exported import Exported, Run, cores, onnx_session, openvino_session
from rag.ports import Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

_EXPORTED: Final = frozenset({"Transformer", "Pooling", "Dense", "Normalize"})
_EXPORT_SECONDS: Final = 600
# Cosines with what sentence-transformers makes of the same texts. fp32 measured 1.0000, bf16 .9999 and more.
_LEAST_COSINE: Final = 0.999
_LEAST_AGREEMENT: Final = 0.9  # of the five nearest


class Runtime(Protocol):
    """Texts become vectors. Thread-safe where `parallel` is more than 1: so many batches at once are worth while."""

    @property
    def name(self) -> str: ...

    @property
    def parallel(self) -> int: ...

    def encode(self, texts: Sequence[str], *, query: bool) -> Vectors:
        """Shape (texts, dimension), float32, as the model gives them."""
        ...


_SESSIONS: Final[dict[str, Callable[[Path, int], tuple[str, Run]]]] = {
    "onnx": onnx_session,
    "openvino": openvino_session,
}


def exported_runtime(
    wanted: str, *, model: Path, identity: str, window: int, cache: Path, threads: int | None = None
) -> Exported | None:
    """What runs the model without torch; None where torch is wanted, is faster (a GPU), or alone can run it. The reason
    is in the log."""
    kinds = _kinds(wanted)
    if not kinds:
        return None
    if problem := _not_exportable(model):
        log.info("%s is run by torch: %s.", model.name, problem)
        return None
    folder = cache / f"{identity}-{export.FORMAT}"
    if not _is_there(folder, model, window=window):
        return None
    for kind in kinds:
        try:
            name, run = _SESSIONS[kind](folder, threads or cores())
            runtime = Exported(name, threads or cores(), run, _tokenizer(model, window), prompts_of(model))
            if problem := _disagreement(runtime, folder):
                log.warning("%s gives other vectors for %s than sentence-transformers (%s).", name, model.name, problem)
                continue
        except Exception:  # a library that does not fit this CPU, a file that it cannot read: the next one may
            log.exception("%s could not be run by %s", model.name, kind)
            continue
        return runtime
    return None


def _kinds(wanted: str) -> list[str]:
    if wanted == "torch":
        return []
    if wanted in _SESSIONS:
        return [wanted]
    if _has_gpu():
        return []
    both = ["openvino", "onnx"] if _computes_bf16() else ["onnx", "openvino"]
    return [kind for kind in both if find_spec("onnxruntime" if kind == "onnx" else kind)]


def _has_gpu() -> bool:
    """Without importing torch, which takes seconds: one that torch could use."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    return "+cpu" not in metadata.version("torch") and any(Path("/dev").glob("nvidia[0-9]*"))


def _computes_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def _not_exportable(model: Path) -> str:
    kinds = [kind for kind, _ in modules(model)]
    if strange := sorted(set(kinds) - _EXPORTED):
        return f"it has modules of its own ({', '.join(strange)})"
    if not (model / "tokenizer.json").is_file():
        return "it has no tokenizer.json"
    for kind, part in modules(model):
        if kind == "Pooling" and read_json(part / "config.json").get("include_prompt") is False:
            return "its pooling leaves the prompt out"
    return ""


def _is_there(folder: Path, model: Path, *, window: int) -> bool:
    """The exported model, made now by a child where it is not there yet. A failure is noted and not repeated."""
    if (folder / export.ENCODER).is_file():
        return True
    failed = folder.with_name(f"{folder.name}.failed")
    if failed.is_file():
        return False
    log.info("Preparing %s for this machine; this is done once.", model.name)
    command = [sys.executable, "-m", "rag.embedding.runtimes.export", str(model), str(folder), str(window)]
    try:
        done = subprocess.run(  # noqa: S603  # our own module, and paths
            command, check=False, capture_output=True, text=True, timeout=_EXPORT_SECONDS, errors="replace"
        )
        problem = "" if done.returncode == 0 else done.stderr.strip()[-2_000:] or f"exit status {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if (folder / export.ENCODER).is_file():
        return True
    log.warning("%s cannot be exported and is run by torch: %s", model.name, problem.splitlines()[-1:])
    failed.parent.mkdir(parents=True, exist_ok=True)
    failed.write_text(f"{problem}\n", "utf-8")
    return False


def _tokenizer(model: Path, window: int) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(window)
    return tokenizer


def _disagreement(runtime: Exported, folder: Path) -> str:
    """How its vectors differ from the library's own, where that is too much."""
    expected = np.load(folder / export.EXPECTED)
    for asked in (False, True):
        theirs = unit(expected["questions" if asked else "passages"])
        # One by one: OpenVINO keeps room for the largest batch that it ever saw.
        ours = unit(np.concatenate([runtime.encode([text], query=asked) for text in export.PROBES]))
        worst = float((theirs * ours).sum(axis=1).min())
        if worst < _LEAST_COSINE:
            return f"cosine {worst:.4f}"
        nearest = [np.argsort(-(side @ side.T), axis=1, kind="stable")[:, :5] for side in (theirs, ours)]
        same = np.mean([len({*one} & {*other}) / 5 for one, other in zip(*nearest, strict=True)])
        if same < _LEAST_AGREEMENT:
            return f"{same:.2f} of the five nearest are the same"
    return ""


def unit(vectors: Vectors) -> Vectors:
    """Each row with length 1, in float32."""
    single = np.asarray(vectors, dtype=np.float32)
    scaled: Vectors = single / np.maximum(np.linalg.norm(single, axis=1, keepdims=True), 1e-12)
    return scaled
