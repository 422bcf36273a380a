"""Which library runs a model: what is fastest on this machine and gives the same vectors."""

from __future__ import annotations

import logging
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from rag.embedding.model_files import modules, read_json
from rag.embedding.runtimes import export
from rag.embedding.runtimes.agreement import quick_disagreement
from rag.embedding.runtimes.exported import Exported
from rag.embedding.runtimes.prepare import PACKAGES, Kept
from rag.ports import Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

_EXPORTED: Final = frozenset({"Transformer", "Pooling", "Dense", "Normalize"})
_CHILD_SECONDS: Final = 600
_ENDED: Final = "it was ended"  # the problem of a child that somebody ended


class Runtime(Protocol):
    """Texts become vectors. Thread-safe where `parallel` is more than 1: so many batches at once are worth while."""

    @property
    def name(self) -> str: ...

    @property
    def parallel(self) -> int: ...

    def encode(self, texts: Sequence[str], *, query: bool) -> Vectors:
        """Shape (texts, dimension), float32, as the model gives them."""
        ...


def exported_runtime(
    wanted: str,
    *,
    model: Path,
    identity: str,
    window: int,
    cache: Path,
    tokenizer: Callable[[], Tokenizer],
    threads: int | None = None,
) -> Exported | None:
    """What runs the model without torch; None where torch is wanted, is faster (a GPU), or alone can run it. The reason
    is in the log. `tokenizer` is the model's own, and neither pads nor cuts."""
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
        runtime = _opened(kind, folder, model, window=window, tokenizer=tokenizer, threads=threads)
        if runtime is not None:
            return runtime
    return None


def _kinds(wanted: str) -> list[str]:
    if wanted == "torch":
        return []
    if wanted in PACKAGES:
        return [wanted]
    if _has_gpu():
        return []
    both = ["openvino", "onnx"] if _computes_bf16() else ["onnx", "openvino"]
    return [kind for kind in both if find_spec(PACKAGES[kind])]


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
    """The exported model, made now by a child where it is not there yet. A failure is noted and not repeated; that
    somebody ended the child, as Ctrl-C does during the first start, is none."""
    if (folder / export.ENCODER).is_file():
        return True
    failed = folder.with_name(f"{folder.name}.failed")
    if failed.is_file():
        return False
    log.info("Preparing %s for this machine; this is done once.", model.name)
    problem = _child("export", str(model), str(folder), str(window))
    if (folder / export.ENCODER).is_file():
        return True
    if problem == _ENDED:
        log.warning("Preparing %s was interrupted; the next start does it again.", model.name)
        return False
    log.warning("%s cannot be exported and is run by torch: %s", model.name, problem.splitlines()[-1:])
    failed.parent.mkdir(parents=True, exist_ok=True)
    failed.write_text(f"{problem}\n", "utf-8")
    return False


def _opened(
    kind: str, folder: Path, model: Path, *, window: int, tokenizer: Callable[[], Tokenizer], threads: int | None
) -> Exported | None:
    """By what is kept of the library, which a child finds out where it is not known yet, or is not true any more."""
    kept = Kept(kind, folder)
    for _attempt in range(2):
        if kept.problem is None and (failure := _child("prepare", kind, str(model), str(folder), str(window))):
            log.warning("%s could not be run by %s: %s", model.name, kind, failure.splitlines()[-1:])
            return None
        if kept.problem:
            log.warning(
                "%s gives other vectors for %s than sentence-transformers (%s).", kind, model.name, kept.problem
            )
            return None
        try:
            runtime = kept.open(model, window=window, tokenizer=tokenizer(), threads=threads)
            problem = quick_disagreement(runtime, folder)
        except Exception:  # a library that does not fit this CPU, a file that it cannot read: the next one may
            log.exception("%s could not be run by %s", model.name, kind)
        else:
            if not problem:
                return runtime
            log.warning("%s gives other vectors for %s than it did (%s).", runtime.name, model.name, problem)
        kept.forget()
    return None


def _child(module: str, *arguments: str) -> str:
    """Run a module beside this one in a process of its own. What went wrong, empty where nothing did."""
    command = [sys.executable, "-m", f"rag.embedding.runtimes.{module}", *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # our own module, and paths
            command, check=False, capture_output=True, text=True, timeout=_CHILD_SECONDS, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if -done.returncode in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        return _ENDED
    return "" if done.returncode == 0 else done.stderr.strip()[-2_000:] or f"exit status {done.returncode}"
