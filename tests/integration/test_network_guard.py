"""Nothing calls home: the whole walk, with every connection but those to loopback made impossible and noted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.models, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

# Loaded by every Python process of the walk before anything else, the children that read documents included.
# An audit hook sees each connection and look-up of the interpreter, whichever library asks for it.
_GUARD = """
import os, sys

_HOME = ("127.", "::1", "localhost", "0.0.0.0")

def _guard(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a socket file: this machine
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if not name or str(name).startswith(_HOME):
        return
    line = f"{event} {name} by {sys.argv[:3]}\\n"
    descriptor = os.open(os.environ["GUARD_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)
    raise OSError(f"the guard stopped {event} to {name}")

sys.addaudithook(_guard)
with open(os.environ["GUARD_LOG"] + ".processes", "a") as log:
    log.write(f"{os.getpid()}\\n")
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As on a person's machine: no CI, none of the variables that switch telemetry off."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(_GUARD)
    quiet = {"CI", "GITHUB_ACTIONS", "DO_NOT_TRACK", "ANONYMIZED_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"}
    quiet |= {"HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in quiet and not name.startswith("ATTEST_") and "proxy" not in name.lower()
    }
    paths = os.pathsep.join([str(guard), str(ROOT)])
    data = {"ATTEST_DATA_DIR": str(tmp_path / "data"), "ATTEST_ALLOWED_ROOTS": str(tmp_path)}
    return kept | data | {"PYTHONPATH": paths, "GUARD_LOG": str(tmp_path / "calls.log")}


def _alone() -> list[str]:
    """Before a command: a network of its own with nothing but loopback, where this system lets us make one."""
    prefix = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return []
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else []


def _run(arguments: list[str], *, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    # The audit hook does not see what compiled libraries do by themselves; a network without a way out stops that.
    command = [*_alone(), sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_reading_and_answering_speak_to_nobody(environment: dict[str, str], tmp_path: Path) -> None:
    manuals = tmp_path / "manuals"
    manuals.mkdir()
    (manuals / "hours.md").write_text("The Rotterdam office is open from 8:30 to 17:30 on weekdays.")
    (manuals / "夜班.html").write_text("<html><body><p>夜班津贴为每班 58 元。</p></body></html>")
    (manuals / "handbook.pdf").write_bytes((ROOT / "data" / "corpus" / "handbook-en.pdf").read_bytes())

    added = _run(
        ["-m", "app.cli", "sources", "add", "manuals", "--folder", "manuals"], environment=environment, cwd=tmp_path
    )
    assert added.returncode == 0, added.stderr
    for question in ("When is the Rotterdam office open?", "夜班津贴是多少？"):
        answered = _run(["-m", "app.cli", "ask", question], environment=environment, cwd=tmp_path)
        assert answered.returncode == 0, answered.stdout + answered.stderr
    well = _run(["-m", "app.cli", "doctor"], environment=environment, cwd=tmp_path)
    assert well.returncode == 0, well.stdout

    calls = tmp_path / "calls.log"
    assert not calls.exists(), calls.read_text()
    processes = (tmp_path / "calls.log.processes").read_text().split()
    assert len(set(processes)) > 4, "the children that read documents are guarded too"


def test_the_guard_guards(environment: dict[str, str], tmp_path: Path) -> None:
    """A process that does call somebody is noticed, by name and by address."""
    code = """
import socket
for call in (lambda: socket.getaddrinfo("example.org", 80), lambda: socket.create_connection(("192.0.2.1", 80))):
    try:
        call()
    except OSError as problem:
        assert "the guard stopped" in str(problem), problem
    else:
        raise SystemExit("not stopped")
"""
    done = _run(["-c", code], environment=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    noted = (tmp_path / "calls.log").read_text()
    assert "example.org" in noted
    assert "192.0.2.1" in noted
