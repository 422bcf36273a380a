"""The command line as a person meets it: real processes, the real embedder, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.models, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
KEY = "an-admin-key-of-this-test"
HOURS = "The Rotterdam office is open from 8:30 to 17:30 on weekdays.\n\nThe canteen serves lunch from noon."


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    allowed = {"ATTEST_ALLOWED_ROOTS": str(tmp_path), "ATTEST_ADMIN_KEY": KEY}
    return clean | allowed | {"ATTEST_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    folder = tmp_path / "manuals"
    folder.mkdir()
    (folder / "hours.md").write_text(HOURS)
    return folder


def attest(*arguments: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@contextmanager
def serving(environment: dict[str, str], cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A service of its own: the process, its address, its log."""
    log = cwd / "serve.log"
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--json"]
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, log.read_text()
            text += line
        yield process, json.loads(text)["url"], log
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_service_answers_other_processes_ends_cleanly_and_survives_a_kill(
    environment: dict[str, str], manuals: Path, tmp_path: Path
) -> None:
    question = "When is the Rotterdam office open?"
    with serving(environment, tmp_path) as (process, url, log):
        added = attest("sources", "add", "manuals", "--folder", "manuals", environment=environment, cwd=tmp_path)
        assert added.returncode == 0, added.stderr
        answered = attest("ask", question, environment=environment, cwd=tmp_path)
        assert answered.returncode == 0, answered.stderr
        assert "8:30" in answered.stdout
        assert "POST /v1/ask" in log.read_text(), "the second process went through the first"

        second = attest("serve", "--port", "0", environment=environment, cwd=tmp_path)
        assert second.returncode == 1
        assert url in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1

        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert KEY not in log.read_text()
        assert "Traceback" not in log.read_text()
    assert not (tmp_path / "data" / "owner.json").exists()

    with serving(environment, tmp_path) as (process, _, _):
        process.kill()  # no time to say goodbye
        process.wait()
    answered = attest("ask", question, "--json", environment=environment, cwd=tmp_path)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["citations"][0]["quote"] in HOURS
    synced = attest("sync", environment=environment, cwd=tmp_path)
    assert synced.stdout == "manuals: succeeded, 1 unchanged\n"


def _hear_ctrl_c() -> None:
    """What a shell starts in the background is deaf to Ctrl-C, and so would be everything that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_stops_a_sync_in_good_order(environment: dict[str, str], manuals: Path, tmp_path: Path) -> None:
    for number in range(400):
        text = "\n\n".join(f"Valve {number}-{part} closes at {number + part} bar." for part in range(40))
        (manuals / f"valve-{number}.txt").write_text(text)
    command = [sys.executable, "-m", "app.cli", "sources", "add", "manuals", "--folder", "manuals"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_ctrl_c,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _owner_listens(tmp_path / "data"):
        time.sleep(0.1)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)  # a model that is loading on a busy machine is waited for
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    jobs = attest("jobs", "list", "--json", environment=environment, cwd=tmp_path)
    assert [job["state"] for job in json.loads(jobs.stdout)["data"]] == ["cancelled"]


def _owner_listens(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "owner.json").read_text())["url"])
    except (OSError, ValueError):
        return False
