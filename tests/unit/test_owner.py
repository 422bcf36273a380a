"""One process owns the data folder; another is refused in a sentence, and death releases it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag.errors import FolderInUse, InvalidInput
from rag.storage.owner import Owner, find_owner

HOLD = """
import sys, time
from pathlib import Path
from rag.storage.owner import Owner
owner = Owner(Path(sys.argv[1]))
owner.announce("http://127.0.0.1:4711", token="let me in")
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the folder while in the block, unless it is killed there."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_with_the_firsts_pid_and_address(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        with pytest.raises(FolderInUse) as refused:
            Owner(tmp_path)
        assert f"process {process.pid}" in refused.value.detail
        assert "http://127.0.0.1:4711" in refused.value.detail
        assert "ATTEST_DATA_DIR" in refused.value.remedy
        assert "\n" not in str(refused.value)
        assert find_owner(tmp_path) == ("http://127.0.0.1:4711", "let me in")


def test_a_killed_process_owns_nothing(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert find_owner(tmp_path) is None  # though its note is still there
        owner = Owner(tmp_path)
        with pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
            Owner(tmp_path)
        owner.release()


def test_in_one_process_there_is_one_owner_too(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    with pytest.raises(FolderInUse):
        Owner(tmp_path)
    assert find_owner(tmp_path) is None  # it does not listen yet
    owner.announce("http://127.0.0.1:8000", token="t")
    assert find_owner(tmp_path) == ("http://127.0.0.1:8000", "t")
    owner.release()
    assert find_owner(tmp_path) is None
    Owner(tmp_path).release()


def test_nobody_owns_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert find_owner(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()


def test_looking_for_the_owner_does_not_get_in_the_way_of_one_that_starts(tmp_path: Path) -> None:
    end = time.monotonic() + 0.3
    script = (
        "import sys; from pathlib import Path; from rag.storage.owner import find_owner\n"
        "while True: find_owner(Path(sys.argv[1]))"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=root) as process:
        try:
            while time.monotonic() < end:
                (tmp_path / "owner.json").write_text(
                    '{"pid": 1, "url": "http://127.0.0.1:1"}'
                )  # of one that was killed
                Owner(tmp_path).release()
        finally:
            process.kill()


def test_the_note_with_its_token_is_for_its_owners_eyes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    owner = Owner(folder)
    owner.announce("http://127.0.0.1:8000", token="secret")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "owner.json").stat().st_mode) == 0o600
    owner.release()
    assert not (folder / "owner.json").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match="cannot be made"):
        Owner(tmp_path / "file" / "data")
