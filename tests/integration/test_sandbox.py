"""Whatever a document does to the process that reads it, the service lives and the next document is read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.readers.options import ReadOptions
from ingest.readers.sandbox import Sandbox, _trusted
from rag.errors import DocumentError, Unavailable
from rag.models import Parsed
from tests.readers_checks import check_parsed

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 2**20

# What a hostile document would make a reader do, told by the document itself. It stands in for the table of readers.
READERS = """
import os, sys, time
from rag.errors import DocumentError
from rag.models import Block, Parsed

def read(data, *, name, media_type, options):
    command = data.decode()
    if command == "loop":
        while True:
            pass
    if command == "sleep":
        time.sleep(600)
    if command == "memory":
        hog = [bytearray(1 << 20) for _ in range(1 << 20)]
    if command == "abort":
        os.abort()
    if command == "exit":
        os._exit(3)
    if command == "recurse":
        return read(data, name=name, media_type=media_type, options=options)
    if command == "raise":
        raise KeyError("a reader's own mistake")
    if command == "refuse":
        raise DocumentError("corrupt", f"{name} is broken.", remedy="Send another one.")
    if command == "print":
        print("noise"); sys.stdout.flush(); os.write(1, b"more noise"); sys.stdin.read()
    if command == "look":
        command = f"{os.getcwd()} {sorted(os.environ)}"
    if command == "write":
        try:
            with open(os.environ["TMPDIR"] + "/full", "wb") as file:
                file.write(bytes(100 << 20))
        except OSError as error:
            command = type(error).__name__
    text = f"{os.getpid()} {command}"
    return Parsed(text, (Block("paragraph", 0, len(text)),))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children import the stand-in for `ingest.readers.registry`; the parent keeps the real one."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\nmodule = types.ModuleType('ingest.readers.registry')\n"
        f"exec(compile({READERS!r}, 'stand-in', 'exec'), module.__dict__)\n"
        "sys.modules['ingest.readers.registry'] = module\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("ATTEST_LLM_API_KEY", "secret")


@pytest.fixture
def sandbox(stand_in: None) -> Iterator[Sandbox]:
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=60)
    yield box
    box.close()


@pytest.fixture
def hasty_sandbox(stand_in: None) -> Iterator[Sandbox]:
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=3)
    yield box
    box.close()


def read(sandbox: Sandbox, command: str, name: str = "document.txt") -> str:
    return sandbox.read(command.encode(), name=name, media_type=None, options=ReadOptions()).text


def refusal(sandbox: Sandbox, command: str) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        read(sandbox, command)
    assert "document.txt" in caught.value.detail
    return caught.value


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("memory", "too_large", "512 MiB of memory"),
        ("recurse", "too_large", "nested too deeply"),
        ("abort", "failed", "signal 6"),
        ("exit", "failed", "exit code 3"),
        ("raise", "failed", "a reader's own mistake"),
        ("refuse", "corrupt", "is broken"),
    ],
)
def test_a_document_that_harms_its_reader_is_reported_and_the_next_is_read(
    sandbox: Sandbox, command: str, status: str, said: str
) -> None:
    error = refusal(sandbox, command)
    assert error.status == status
    assert said in error.detail
    assert read(sandbox, "well").endswith("well")


@pytest.mark.parametrize("command", ["loop", "sleep"])
def test_a_document_that_takes_too_long_is_given_up(hasty_sandbox: Sandbox, command: str) -> None:
    error = refusal(hasty_sandbox, command)
    assert error.status == "too_large"
    assert "longer than 3 s" in error.detail
    assert read(hasty_sandbox, "well").endswith("well")


def test_one_process_reads_many_documents_and_is_replaced_in_time(stand_in: None) -> None:
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=20, recycle_after=3)
    try:
        processes = [read(box, "well").split()[0] for _ in range(7)]
    finally:
        box.close()
    assert [len(set(processes[start : start + 3])) for start in (0, 3)] == [1, 1]
    assert len(set(processes)) == 3
    assert all(gone(int(process)) for process in processes)


def test_a_process_that_has_grown_large_is_replaced_earlier(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.readers.sandbox._SETTLED", 2)
    monkeypatch.setattr("ingest.readers.sandbox._LARGE_SHARE", 0.0)
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=20)
    try:
        processes = [read(box, "well").split()[0] for _ in range(4)]
    finally:
        box.close()
    assert [len(set(processes[:2])), len(set(processes[2:])), len(set(processes))] == [1, 1, 2]


def gone(process: int, *, within_seconds: float = 10) -> bool:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_reader_killed_from_outside_costs_one_document(stand_in: None) -> None:
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=60)
    try:
        process = int(read(box, "well").split()[0])
        threading.Timer(0.3, os.kill, (process, signal.SIGKILL)).start()
        error = refusal(box, "sleep")
        assert error.status == "failed"
        assert "signal 9" in error.detail
        assert int(read(box, "well").split()[0]) != process
    finally:
        box.close()


def test_four_threads_share_two_readers(stand_in: None) -> None:
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=20, workers=2)
    commands = [f"document {number}" for number in range(24)]
    try:
        with ThreadPoolExecutor(4) as pool:
            texts = list(pool.map(lambda command: read(box, command), commands))
    finally:
        box.close()
    assert [text.partition(" ")[2] for text in texts] == commands
    assert len({text.split()[0] for text in texts}) <= 2


def test_closing_ends_a_reading_in_progress(stand_in: None) -> None:
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=60)
    threading.Timer(1, box.close).start()
    started = time.monotonic()
    assert refusal(box, "sleep").status == "failed"
    assert time.monotonic() - started < 20


def test_a_reading_that_nobody_wants_any_more_ends_and_frees_its_place(stand_in: None) -> None:
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=60, workers=1)
    unwanted = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(
                box.read, b"sleep", name="it.txt", media_type=None, options=ReadOptions(), stopped=unwanted.is_set
            )
            for _ in range(2)  # one sleeps, the other waits for its place
        ]
        while not box._busy:
            time.sleep(0.01)
        unwanted.set()
        for reading in waiting:
            with pytest.raises(Unavailable):
                reading.result(30)  # it would have slept for 600 s, or been given up after 60
    assert read(box, "hello").endswith("hello")
    box.close()


def test_what_a_library_prints_does_not_mix_with_the_reply(sandbox: Sandbox) -> None:
    assert read(sandbox, "print").endswith("print")


def test_a_reader_knows_neither_our_keys_nor_our_folder_and_cannot_fill_the_disk(sandbox: Sandbox) -> None:
    seen = read(sandbox, "look")
    assert "ATTEST" not in seen
    assert seen.split()[1] == "/"
    assert read(sandbox, "write").endswith("OSError")


def test_no_reader_outlives_its_parent(stand_in: None, tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import threading, time
        from ingest.readers.options import ReadOptions
        from ingest.readers.sandbox import Sandbox
        box = Sandbox(memory_bytes=512 << 20, timeout_seconds=60)
        read = lambda command: box.read(command, name="x", media_type=None, options=ReadOptions()).text
        print(read(b"well").split()[0], flush=True)
        read(b"loop")
        """
    )
    path = tmp_path / "parent.py"
    path.write_text(script)  # without a __main__ guard: a child must not run it again
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    parent = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, env=environment, text=True)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    assert gone(child)


def test_a_reply_with_anything_but_a_reading_is_not_opened() -> None:
    hostile = b"cos\nsystem\n(S'touch /tmp/owned'\ntR."
    assert _trusted(hostile) == (None, False)
    assert _trusted(b"") == (None, False)


def test_a_real_document_is_read(tmp_path: Path) -> None:
    box = Sandbox(memory_bytes=512 * MEBIBYTE, timeout_seconds=60)
    try:
        parsed = box.read(
            "第一章 总则\n\n本手册适用于全体员工。".encode(), name="手册.txt", media_type=None, options=ReadOptions()
        )
    finally:
        box.close()
    assert isinstance(parsed, Parsed)
    check_parsed(parsed)
    assert "本手册适用于全体员工。" in parsed.text
    with pytest.raises(RuntimeError):
        box.read(b"x", name="x.txt", media_type=None, options=ReadOptions())
