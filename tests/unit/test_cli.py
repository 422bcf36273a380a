"""The command line: one face for people and scripts, and the same service behind both."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.client import Client
from app.commands.shared import FAILED, INTERRUPTED, PARTIAL, UNANSWERED
from app.server import Background, listen, url_of
from app.service import Service
from app.terminal import Told, clean, place, quoted
from rag.errors import InvalidInput
from rag.settings import Settings
from rag.storage.owner import Owner, find_owner
from tests.fakes import HashEmbedder

ROOT = Path(__file__).parents[2]
HOURS = "The Rotterdam office is open from 8:30 to 17:30 on weekdays.\n\nThe canteen serves lunch from noon."
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, in a working folder without a .env."""
    for name in [name for name in os.environ if name.startswith("ATTEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTEST_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process, with an embedder that loads at once: (exit code, stdout, stderr)."""

    def own(settings: Settings, **options: Any) -> Service:
        return Service(settings, embedder=HashEmbedder(), **options)

    monkeypatch.setattr("app.service.Service", own)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attest", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    folder = tmp_path / "manuals"
    folder.mkdir()
    (folder / "hours.md").write_text(HOURS)
    (folder / "夜班.md").write_text("夜班津贴为每班 58 元。")
    return folder


def attest(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    command = [sys.executable, "-m", "app.cli", *arguments]
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=env | path | environment, capture_output=True, text=True, timeout=60, check=False
    )


# ── help and usage ────────────────────────────────────────────────────────────────────────────


def test_help_is_quick_and_says_what_exit_codes_mean(tmp_path: Path) -> None:
    attest("--help", cwd=tmp_path)  # byte code is compiled once
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = attest("--help", cwd=tmp_path)
        times.append(time.perf_counter() - began)
    assert done.returncode == 0
    assert "Exit codes" in done.stdout
    assert min(times) < 2.0, "0.3 s on a quiet machine"
    assert not (tmp_path / "attest-data").exists()


def test_help_loads_neither_the_service_nor_its_libraries() -> None:
    code = "import sys, app.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"chromadb", "fastapi", "httpx", "langchain_core", "pydantic", "sqlalchemy", "torch", "uvicorn"}
    assert heavy & set(done.stdout.split()) == set()


def _commands() -> list[list[str]]:
    groups = {"sources": ("list", "add", "change", "remove"), "documents": ("list", "show", "add", "remove")}
    groups |= {"collections": ("list", "create", "remove"), "jobs": ("list", "show", "retry", "cancel")}
    single = [[name] for name in ("serve", "ask", "search", "sync", "doctor")]
    return single + [[group, name] for group, names in groups.items() for name in names]


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_has_help_and_json(run: Run, command: list[str]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert "--json" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["ask"],
        ["ask", "   "],
        ["ask", "Who?", "--top-k", "0"],
        ["sources", "add", "x"],
        ["sources", "change", "x"],
        ["sources", "add", "x", "--folder", ".", "--web", "https://example.org"],
        ["sources", "add", "x", "--database", "ATTEST_DB_X", "--query", "SELECT 1"],
        ["documents", "add", "there-is-no-such-file.pdf"],
        ["serve", "--log-level", "loud"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_touches_nothing(run: Run, data_dir: Path, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("variable", "value"), [("ATTEST_PORT", "eighty"), ("ATTEST_TOP_K", "0"), ("ATTEST_LLM", "gpt")]
)
def test_a_setting_that_cannot_be_used_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, out, err = run("doctor")
    assert (code, out) == (1, "")
    assert variable in err
    assert "Traceback" not in err


# ── the whole way, without a service running ──────────────────────────────────────────────────


def test_a_folder_is_added_read_asked_changed_and_removed(run: Run, manuals: Path) -> None:
    code, out, err = run("sources", "add", "manuals", "--folder", "manuals")  # relative to where one is
    assert code == 0, err
    assert out == "manuals: succeeded, 2 added\n"

    code, out, _ = run("ask", "When is the Rotterdam office open?")
    assert code == 0
    assert out.startswith("8:30 to 17:30 [1]\nThe Rotterdam office is open from 8:30 to 17:30 on weekdays. [1]\n")
    assert "[1] hours" in out
    assert "manuals/hours.md" in out

    code, out, _ = run("ask", "夜班津贴是多少？", "--json")
    assert code == 0
    assert "58 元" in json.loads(out)["answer"]

    code, out, _ = run("ask", "How heavy is the moon?")
    assert code == UNANSWERED
    assert "Closest 1" in out or "Nothing in them" in out

    code, out, _ = run("search", "canteen lunch", "--top-k", "1")
    assert code == 0
    assert out.startswith("1. ")
    assert "terms" in out

    (manuals / "hours.md").write_text(HOURS.replace("8:30", "9:45"))
    code, out, _ = run("sync", "--dry-run")
    assert (code, out[: out.rindex("\t")]) == (0, "manuals\tchanged\thours.md")
    assert out.rpartition("\t")[2].startswith("modified 20")
    planned = json.loads(run("sync", "--dry-run", "--json")[1])["plans"][0]
    assert (planned["counts"], planned["problem"]) == ({"changed": 1, "unchanged": 1}, None)
    assert planned["items"][0]["reason"].startswith("modified 20")
    code, out, _ = run("sync")
    assert (code, out) == (0, "manuals: succeeded, 1 changed, 1 unchanged\n")
    assert "9:45" in run("ask", "When is the Rotterdam office open?")[1]

    code, out, _ = run("sources", "list", "--json")
    assert [item["name"] for item in json.loads(out)["data"]] == ["manuals"]
    code, _, err = run("sources", "remove", "manuals")
    assert code == 2
    assert "--yes" in err
    assert run("sources", "remove", "manuals", "--yes")[0] == 0
    assert run("documents", "list")[1] == ""


def test_a_search_with_context_tokens_prints_what_a_model_is_shown(run: Run, manuals: Path) -> None:
    run("sources", "add", "manuals", "--folder", "manuals")
    code, out, _ = run("search", "When is the Rotterdam office open?", "--context-tokens", "400")
    assert code == 0
    assert out.startswith("[1] hours")
    assert "tokens)\n" in out
    assert "\nThe Rotterdam office is open from 8:30 to 17:30 on weekdays.\n" in out
    assert "terms" not in out  # no hit's scores
    code, out, _ = run("search", "When is the Rotterdam office open?", "--context-tokens", "400", "--json")
    assert code == 0
    assert sum(passage["tokens"] for passage in json.loads(out)["context"]) <= 400
    assert run("search", "Rotterdam", "--context-tokens", "99")[0] == 2


def test_files_are_handed_over_listed_shown_and_removed(run: Run, manuals: Path) -> None:
    code, out, _ = run("documents", "add", *map(str, sorted(manuals.iterdir())), "-c", "手册", "--json")
    assert code == 0
    assert [job["counts"]["added"] for job in json.loads(out)["jobs"]] == [1, 1]
    code, out, _ = run("documents", "list", "-c", "手册")
    rows = [line.split("\t") for line in out.splitlines()]
    assert len(rows) == 2
    assert all(row[1] == "ok" for row in rows)
    document = next(row[4] for row in rows if "hours.md" in row[3])
    assert run("documents", "show", document)[1].strip() == HOURS
    assert run("documents", "remove", "hours.md", "-c", "手册", "--yes")[0] == 0
    assert len(run("documents", "list", "-c", "手册")[1].splitlines()) == 1
    assert run("collections", "list")[1].startswith("手册\t1\t")
    assert run("collections", "remove", "手册", "--yes")[0] == 0
    assert run("collections", "list")[1] == ""


def test_one_bad_file_among_good_ones_is_exit_code_4_with_its_reason(run: Run, manuals: Path) -> None:
    (manuals / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    code, out, err = run("sources", "add", "manuals", "--folder", str(manuals))
    assert code == PARTIAL
    assert "2 added, 1 failed" in out
    assert "broken.pdf" in err


def test_nothing_but_bad_files_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    assert run("documents", "add", "broken.pdf")[0] == 1


def test_a_dry_run_says_that_the_sync_would_stop(run: Run, manuals: Path) -> None:
    run("sources", "add", "manuals", "--folder", "manuals")
    for path in manuals.iterdir():
        path.unlink()
    code, out, err = run("sync", "--dry-run")
    assert code == FAILED
    assert sorted(line.split("\t")[1:] for line in out.splitlines()) == [
        ["deleted", "hours.md", "not in the listing any more"],
        ["deleted", "夜班.md", "not in the listing any more"],
    ]
    assert "Nothing was deleted" in err
    assert "--allow-deletes" in err
    assert run("sync", "--dry-run", "--allow-deletes")[0] == 0
    assert run("sync")[0] == FAILED
    assert run("sync", "--allow-deletes")[1] == "manuals: succeeded, 2 deleted\n"


def test_the_doctor_says_that_all_is_well(run: Run) -> None:
    code, out, err = run("doctor")
    assert code == 0
    assert out.startswith("catalog\tok\t")
    assert "No service was running" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "Who?", "-c", "nobody"],
        ["sync"],
        ["sync", "nobody"],
        ["sources", "add", "x", "--folder", "/proc"],
        ["sources", "add", "x", "--database", "HOME"],
        ["documents", "show", "doc_0"],
        ["documents", "list", "-c", "nobody"],
        ["collections", "remove", "nobody", "--yes"],
        ["jobs", "cancel", "job_0"],
    ],
)
def test_what_fails_is_one_line_on_stderr_and_exit_code_1(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_the_question_is_read_from_stdin_and_may_be_chinese(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("collections", "create", "default")
    monkeypatch.setattr(sys, "stdin", io.StringIO("夜班津贴是多少？\n"))
    code, out, _ = run("ask", "-", "--json")
    assert code == UNANSWERED
    assert json.loads(out)["standalone_question"] == "夜班津贴是多少？"


def test_a_terminal_that_knows_ascii_only_gets_escapes_instead_of_an_error(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir()
    environment = {"ATTEST_DATA_DIR": str(data_dir), "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    done = attest("documents", "list", "-c", "员工手册", cwd=tmp_path, **environment)
    assert done.returncode == 1
    assert "\\u5458" in done.stderr
    assert "Traceback" not in done.stderr


# ── beside a service that runs ────────────────────────────────────────────────────────────────


@pytest.fixture
def running(data_dir: Path) -> Iterator[Background]:
    settings = Settings(_env_file=None, data_dir=data_dir)
    server = Background(Service(settings, embedder=HashEmbedder()))
    yield server
    server.close()


def test_a_command_goes_through_the_service_that_runs(run: Run, running: Background) -> None:
    code, out, _ = run("collections", "create", "shared")
    assert code == 0
    assert "shared" in out
    code, _, err = run("doctor")
    assert code == 0
    assert running.url in err


def test_a_second_service_is_refused_in_a_sentence_that_says_where_the_first_is(run: Run, running: Background) -> None:
    code, out, err = run("serve", "--port", "0")
    assert (code, out) == (1, "")
    assert running.url in err
    assert str(os.getpid()) in err


def test_a_busy_port_is_one_sentence_and_leaves_the_folder_free(run: Run, data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, out, err = run("serve", "--port", str(taken.getsockname()[1]))
    assert (code, out) == (1, "")
    assert "in use" in err
    Owner(data_dir).release()


def test_an_open_address_needs_a_key(run: Run, data_dir: Path) -> None:
    code, _, err = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert code == 1
    assert "ATTEST_ADMIN_KEY" in err
    assert not data_dir.exists()


def test_a_command_waits_for_an_owner_that_does_not_listen_yet(data_dir: Path) -> None:
    settings = Settings(_env_file=None, data_dir=data_dir)
    service = Service(settings, embedder=HashEmbedder())  # holds the folder, and does not say where it listens
    servers: list[Background] = []
    later = threading.Timer(0.6, lambda: servers.append(Background(service)))
    later.start()
    with Client(settings) as client:
        assert not client.is_own
        assert client.get("/healthz")["status"] == "ok"
    later.join()
    servers[0].close()
    assert find_owner(data_dir) is None


def test_a_command_outlives_the_service_that_it_went_through(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(_env_file=None, data_dir=data_dir)
    first = Background(Service(settings, embedder=HashEmbedder()))
    second = Client(settings)
    assert second.url == first.url
    first.close()

    def own(settings: Settings, **options: Any) -> Service:
        return Service(settings, embedder=HashEmbedder(), **options)

    monkeypatch.setattr("app.service.Service", own)
    assert second.get("/healthz")["status"] == "ok"
    assert second.is_own
    second.close()
    assert find_owner(settings.data_dir) is None


def test_two_commands_at_once_that_find_nobody_share_one_service(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def own(settings: Settings, **options: Any) -> Service:
        return Service(settings, embedder=HashEmbedder(), **options)

    monkeypatch.setattr("app.service.Service", own)
    settings = Settings(_env_file=None, data_dir=data_dir)
    made: list[str] = []
    problems: list[Exception] = []

    def command(number: int) -> None:
        try:
            with Client(settings) as client:
                made.append(client.post("/v1/collections", {"name": f"collection {number}"})["name"])
        except Exception as problem:  # noqa: BLE001  # shown by the test's own thread
            problems.append(problem)

    threads = [threading.Thread(target=command, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems
    with Client(settings) as client:
        assert {item["name"] for item in client.pages("/v1/collections")} == {f"collection {n}" for n in range(3)}


def test_an_interrupt_cancels_the_job_and_is_exit_code_130(
    run: Run, running: Background, data_dir: Path, manuals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "follow", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("sources", "add", "manuals", "--folder", str(manuals))[0] == INTERRUPTED
    with Client(Settings(_env_file=None, data_dir=data_dir)) as client:
        jobs = client.get("/v1/jobs")["data"]
    assert [job["state"] for job in jobs if job["state"] not in ("cancelled", "succeeded")] == []


# ── small parts ───────────────────────────────────────────────────────────────────────────────


def test_documents_cannot_write_to_the_terminal() -> None:
    assert clean("a\x1b[31mb\x07c\x9bd\ne\tf") == "a\ufffd[31mb\ufffdc\ufffdd\ne\tf"


def test_a_place_reads_well() -> None:
    item = {"page": 6, "page_label": "2", "section": "Leave", "row": None}
    assert place(item) == ", page 6 (printed 2), Leave"
    assert place({"page": None, "section": None, "row": "parts / 7"}) == ", row parts / 7"
    titled = {"title": "Handbook", "page": None, "section": "Handbook › 2 Leave › 2.1 Sick", "row": None}
    assert place(titled) == ", 2 Leave › 2.1 Sick"
    assert place(titled | {"section": "Handbook"}) == ""
    assert place(titled | {"section": "Handbooks › Leave"}) == ", Handbooks › Leave"
    assert quoted("a\n b") == "“a b”"
    assert len(quoted("x" * 999)) < 310


def test_a_listener_on_every_address_is_reached_on_loopback() -> None:
    with listen("0.0.0.0", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidInput, match="192\\.0\\.2\\.1"):
        listen("192.0.2.1", 0)


def test_an_interrupt_while_waiting_still_closes_the_service(data_dir: Path) -> None:
    """Ctrl-C in the demo: the folder is let go of in good order, not by the end of the process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    server = Background(Service(Settings(_env_file=None, data_dir=data_dir), embedder=HashEmbedder()))
    main_thread = threading.get_ident()
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main_thread, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        server.wait()
    timer.join()
    signal.signal(signal.SIGINT, before)
    server.close()
    assert not (data_dir / "owner.json").exists()
    Owner(data_dir).release()


def test_a_bar_whose_total_turns_out_too_small_has_none_until_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from app import terminal

    screen = io.StringIO()
    monkeypatch.setattr(terminal, "_console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    job = {"id": "job_1", "state": "running", "finished_at": None, "counts": {"added": 1}}
    with terminal.progress({"job_1": "notes"}) as moved:
        at = {"chunks": 0, "eta_seconds": None}
        moved(job | {"progress": at | {"done": 3, "total": 3}})
        moved(job | {"progress": at | {"done": 11600, "total": None}})
    assert "11600/?" in screen.getvalue()
    assert "11600/3" not in screen.getvalue()


@pytest.mark.parametrize(
    ("model", "refused", "said"),
    [
        ("extractive", False, "Answered without the language model: down"),
        ("extractive", True, "Refused without the language model: down"),
        ("qwen3:8b", False, "The language model's answer: down"),
    ],
)
def test_a_reader_is_told_what_a_failing_model_came_to(
    model: str, refused: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"closest": []} if refused else None
    answer = {"answer": "So.", "sentences": [], "citations": [], "refused": refused, "refusal": refusal}
    Told().final(answer | {"short_answer": None, "model": model, "degraded": "down"})
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("live", [True, False], ids=["terminal", "pipe"])
def test_the_phrase_that_answers_stands_on_a_line_before_the_sentences(
    live: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: live, raising=False)
    short = {"text": "36 months", "citation": 1, "start": 27, "end": 36}
    said = {"text": "The probe is covered for 36 months.", "citations": [1], "short_answer": short}
    answer = {
        "answer": "The probe is covered for 36 months. [1]",
        "short_answer": short,
        "sentences": [{**said, "support": "supported"}],
        "citations": [],
        "refusal": None,
        "degraded": None,
    }
    told = Told()
    told.sentence(said)
    told.final(answer)
    plain = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)
    assert plain.split("\n")[:2] == ["36 months [1]", answer["answer"]]
