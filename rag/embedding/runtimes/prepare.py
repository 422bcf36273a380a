"""Finds out once for a machine whether a library runs an exported model and gives the same vectors, and keeps that.

Runs in a child process (`python -m rag.embedding.runtimes.prepare KIND MODEL FOLDER WINDOW`): a service that is started
later opens what was kept, and never holds what only the comparison and compiling need.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rag.embedding.model_files import prompts_of
from rag.embedding.runtimes.agreement import disagreement
from rag.embedding.runtimes.export import ENCODER, EXPECTED
from rag.embedding.runtimes.exported import (
    MULTIPLES,
    Exported,
    Run,
    compile_for_openvino,
    cores,
    onnx_session,
    openvino_session,
    whole_tokenizer,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGES: Final = {"onnx": "onnxruntime", "openvino": "openvino"}
_SESSIONS: Final[dict[str, Callable[[Path, int], tuple[str, Run]]]] = {
    "onnx": onnx_session,
    "openvino": openvino_session,
}
_FORMAT: Final = 1  # raised when what is kept, or what it is compiled with, would be another
_CPU: Final = frozenset(
    {
        *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),  # x86
        *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"),  # Arm
    }
)
_LONGEST_SECONDS: Final = 900  # that another process may be at it


class Kept:
    """What is known of a library and an exported model in `folder`, on this machine and with this version of it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind = kind
        self._folder = folder
        self._stem = f"{kind}-{_fingerprint(kind, folder)}"
        self._note = folder / f"{self._stem}.json"
        self._compiled = folder / f"{self._stem}.blob"

    @property
    def problem(self) -> str | None:
        """Why the library is not used; empty where it is, None as long as that is not known."""
        try:
            problem = str(json.loads(self._note.read_text("utf-8"))["problem"])
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: it is found out once more
            return None
        return problem if problem or self._encoder.is_file() else None

    @property
    def _encoder(self) -> Path:
        return self._compiled if self._kind == "openvino" else self._folder / ENCODER

    def open(self, model: Path, *, window: int, tokenizer: Tokenizer, threads: int | None = None) -> Exported:
        """Raises whatever the library raises."""
        parallel = threads or cores()
        name, run = _SESSIONS[self._kind](self._encoder, parallel)
        return Exported(name, parallel, run, tokenizer, window, prompts_of(model), MULTIPLES[self._kind])

    def forget(self) -> None:
        self._note.unlink(missing_ok=True)

    def make(self, model: Path, *, window: int) -> None:
        """Find out and keep it, whole or not at all. Raises whatever the library raises."""
        begun = self._folder / f"{self._stem}.{os.getpid()}"
        begun.mkdir()
        try:
            if self._kind == "openvino":
                compile_for_openvino(self._folder, begun / self._compiled.name)
                with (begun / self._compiled.name).open("rb") as file:
                    os.fsync(file.fileno())  # under its own name it is whole
                (begun / self._compiled.name).replace(self._compiled)
            tokenizer = whole_tokenizer((model / "tokenizer.json").read_text("utf-8"))
            problem = disagreement(self.open(model, window=window, tokenizer=tokenizer), self._folder)
            note = begun / self._note.name
            note.write_text(json.dumps({"problem": problem}), "utf-8")
            note.replace(self._note)
        finally:
            shutil.rmtree(begun, ignore_errors=True)
        self._remove_others()

    def _remove_others(self) -> None:
        """What other versions and machines kept, and what a kill left. A file in use goes on being used."""
        for entry in self._folder.glob(f"{self._kind}-*"):
            if entry in (self._note, self._compiled):
                continue
            if not entry.is_dir():
                with suppress(OSError):  # where files in use cannot be deleted
                    entry.unlink(missing_ok=True)
            elif time.time() - entry.stat().st_mtime > _LONGEST_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)


def _fingerprint(kind: str, folder: Path) -> str:
    expected = hashlib.sha256((folder / EXPECTED).read_bytes()).hexdigest()
    system = (platform.system(), platform.release(), platform.machine())
    parts = (_FORMAT, _version(PACKAGES[kind]), system, _cpu(), (folder / ENCODER).stat().st_size, expected)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    """Without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # it came by another name, as onnxruntime-gpu does
        spec = find_spec(package)
        return str(Path(spec.origin).stat().st_mtime_ns) if spec and spec.origin else ""


def _cpu() -> str:
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8").partition("\n\n")[0]
    except OSError:
        return platform.processor()
    return "\n".join(line for line in first.splitlines() if line.partition(":")[0].strip() in _CPU)


if __name__ == "__main__":
    Kept(sys.argv[1], Path(sys.argv[3])).make(Path(sys.argv[2]), window=int(sys.argv[4]))
