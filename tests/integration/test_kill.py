"""Killed at any instant of a sync: what was committed is there, what was not is redone, nothing is there twice.

A short run here; `make soak` kills 200 times. `tests/crash.py` is the one who dies, and the one who kills.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.crash import FINAL, Killer, Life, edition

pytestmark = pytest.mark.slow

_KILLS = int(os.environ.get("ATTEST_SOAK", "12"))
_DOCUMENTS = 300  # of five chunks: Chroma rewrites its files with every edition or so
# Of twelve. A kill while Chroma rewrites its files leaves a folder that cannot be read more often than not.
_AIMS = ("random", "index", "flip", "terms", "start", "index", "rebuild", "compact", "terms", "flip", "index", "start")


def test_killed_at_any_instant_it_loses_nothing_shows_nothing_half_and_repeats_nothing(tmp_path: Path) -> None:
    """Each life checks what the one before left: everything in step, each document whole and of the edition that was
    finished or of the next one, nothing embedded again. In the end all is as if nobody had been killed."""
    began = time.monotonic()
    undisturbed = Life(tmp_path / "undisturbed", documents=_DOCUMENTS)
    undisturbed.order("finish")
    killer = Killer(tmp_path / "killed", documents=_DOCUMENTS, seed=7)
    aims = [_AIMS[number % len(_AIMS)] for number in range(_KILLS)]
    try:
        killer.begin()
        for aim in aims:
            killer.kill(aim)
        state = killer.finish()
        expected = undisturbed.finished()
    finally:
        print(f"\n{killer.summary()}; {time.monotonic() - began:.0f} s")  # noqa: T201  # what `make soak` is run for
        killer.close()
        undisturbed.kill()
    assert state == expected
    assert state["texts"] == edition(FINAL, documents=_DOCUMENTS)
    assert state["unchanged"] == len(state["texts"])
    for question, answer, cited in state["answers"]:
        assert cited, question
        assert f"as of {FINAL - 2}" in answer or f"as of {FINAL - 1}" in answer or f"as of {FINAL}" in answer
    assert killer.hits["index"] > killer.kills["index"] // 2, "Chroma's index files are somewhere else now"
