"""The records of a run that is under way: on disk after each question, so that what was asked need not be asked again
when the run is interrupted, by whatever."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from quality.run import Record
from rag.errors import InvalidInput

FILE = "records.jsonl"
_FIELDS = frozenset(one.name for one in fields(Record))

Known = dict[str, dict[str, Record]]  # dataset → question id → record


class Journal:
    """A file of JSON lines: what the run is, then its records. Each is on disk when `add` returns."""

    def __init__(self, path: Path, run: Mapping[str, Any], *, resume: bool) -> None:
        """Begins the file, or with `resume` goes on in it. Raises InvalidInput where what is there is of another run,
        and where there is nothing to resume."""
        self.path = path
        self.known: Known = {}
        if resume:
            self.known, end = _read(path, run)
            self._file: IO[bytes] = path.open("r+b")
            self._file.truncate(end)  # a kill may have left half a line
            self._file.seek(end)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
            self._write({"run": dict(run)})

    def add(self, record: Record) -> None:
        self._write(asdict(record))

    def close(self, *, complete: bool) -> None:
        """A complete run needs no journal any more: its report has all of it."""
        self._file.close()
        if complete:
            self.path.unlink()

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()


def _read(path: Path, run: Mapping[str, Any]) -> tuple[Known, int]:
    """The records, and where the last whole line ends."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as problem:
        raise InvalidInput(
            f"There is no unfinished run in {path.parent}.", remedy="Leave out --resume to begin one."
        ) from problem
    known: Known = {}
    whole = content[: content.rfind(b"\n") + 1]
    try:
        head, *lines = [json.loads(line) for line in whole.splitlines()] or [{}]
        if head.get("run") != json.loads(json.dumps(dict(run))):
            raise InvalidInput(
                f"{path} is of another run: other questions, options or settings.",
                remedy="Resume it with the command that began it, or leave out --resume to begin anew.",
            )
        for line in lines:
            record = Record(**{name: value for name, value in line.items() if name in _FIELDS})
            known.setdefault(record.dataset, {})[record.id] = record
    except (ValueError, TypeError, AttributeError) as problem:
        raise InvalidInput(f"{path} is damaged: {problem}.", remedy="Leave out --resume to begin anew.") from problem
    return known, len(whole)
