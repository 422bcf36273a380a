"""What the words promise is there: links lead somewhere, command lines parse, settings exist, the README is short."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from app.cli import app
from app.demo import QUESTIONS
from rag.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "data" / "README.md"])
SETTINGS = {f"ATTEST_{name.upper()}" for name in Settings.model_fields}
# Variables that are no settings: what a source names by itself, a switch of the command line, one of the composition.
OTHER_VARIABLES = re.compile(
    r"ATTEST_DB_\w*|ATTEST_PDF_PASSWORDS|ATTEST_WIKI_COOKIE|ATTEST_DEBUG|ATTEST_PUBLISHED_PORT"
)
TEST_VARIABLES = {"ATTEST_EVAL_DATA"}  # what the tests read, named in CONTRIBUTING.md


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(path: Path) -> set[str]:
    """The fragments that headings can be reached by, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _prose(path.read_text("utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links(path: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", _prose(path.read_text("utf-8"))) if "://" not in target]


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_link_and_picture_leads_somewhere(path: Path) -> None:
    for target in _links(path):
        file, _, fragment = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        assert not fragment or fragment in _anchors(found), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        targets = [(path.parent / target.partition("#")[0]).resolve() for target in _links(path)]
        waiting += [target for target in targets if target.suffix == ".md"]
    assert [_name(path) for path in PAGES if path not in reached] == []


# ── command lines ─────────────────────────────────────────────────────────────────────────────


def _shell_lines(path: Path) -> Iterator[str]:
    for block in re.findall(r"^```sh\n(.*?)^```", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip())


def _spoken(path: Path) -> list[str]:
    """What stands between backticks in the text."""
    return re.findall(r"`([^`\n]+)`", _prose(path.read_text("utf-8")))


def _commands(lines: Iterable[str]) -> list[list[str]]:
    """The arguments of every `attest …`."""
    found = [re.split(r"\battest(?= )", line, maxsplit=1) for line in lines]
    return [
        shlex.split(parts[1])
        for parts in found
        if len(parts) == 2
        and re.fullmatch(r"(?:\.venv/bin/|docker compose exec api )?", parts[0])
        and "…" not in parts[1]
    ]


def _check(arguments: list[str], *, whole: bool = True) -> None:
    """Parse as the command line would, and run nothing; where a line is not `whole`, look at its names only."""
    command: Any = get_command(app)
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if name not in command.commands:
            raise typer.BadParameter(f"attest has no command {name}")
        command = command.commands[name]
    if whole and not hasattr(command, "commands"):
        command.make_context(command.name, list(arguments))
        return
    known = {"--help"} | {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for argument in arguments:
        if argument.startswith("-") and argument not in known:
            raise typer.BadParameter(f"{command.name} has no option {argument}")


LINES = [(_name(path), arguments) for path in PAGES for arguments in _commands(_shell_lines(path))]
NAMES = [(_name(path), arguments) for path in PAGES for arguments in _commands(_spoken(path))]
_ids = [f"{page}: {' '.join(arguments)}" for page, arguments in LINES]


@pytest.mark.parametrize("arguments", [arguments for _, arguments in LINES], ids=_ids)
def test_every_command_line_is_understood(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.pdf").write_bytes(b"a file that a command may name")
    _check(arguments)


def test_every_command_that_is_spoken_of_exists() -> None:
    for _, arguments in NAMES:
        _check(arguments, whole=False)


def test_the_pages_show_the_commands_that_matter() -> None:
    assert {"ask", "serve", "sync", "sources", "documents", "doctor"} <= {
        arguments[0] for _, arguments in LINES + NAMES
    }


@pytest.mark.parametrize("wrong", ["ask", "sync --no-such-option", "sources add x --depth many", "nonsense"])
def test_a_wrong_command_line_would_be_noticed(wrong: str) -> None:
    usage_error = typer.BadParameter.__mro__[1]
    with pytest.raises(usage_error):
        _check(shlex.split(wrong))


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`| )make ([a-z-]+)(?=`|$|,)", path.read_text("utf-8"), flags=re.MULTILINE))
    assert named <= targets


# ── settings ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_variable_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"\bATTEST_[A-Z_]*[A-Z]", path.read_text("utf-8")))
    unknown = {name for name in named - SETTINGS - TEST_VARIABLES if not OTHER_VARIABLES.fullmatch(name)}
    assert unknown - {"ATTEST_DB"} == set()  # the first half of ATTEST_DB_…


# ── the README ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_readme_is_one_screen_with_a_picture_and_the_commands(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert len(text.splitlines()) <= 90
    assert "docs/images/answer.svg" in text
    assert {"make demo", "make test"} <= set(_shell_lines(ROOT / name))


def test_both_readmes_show_the_same_commands() -> None:
    def without_words(name: str) -> list[str]:
        return [re.sub(r'"[^"]*"|\'[^\']*\'', "…", line) for line in _shell_lines(ROOT / name)]

    assert without_words("README.md") == without_words("README.zh.md")


def test_the_picture_shows_a_question_of_the_demo_and_no_place_on_somebodys_disk() -> None:
    picture = (ROOT / "docs" / "images" / "answer.svg").read_text("utf-8")
    assert QUESTIONS[0] in picture
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", picture)
    assert set(re.findall(r"https?://[^\s\"'<)]+", picture)) <= {"http://www.w3.org/2000/svg"}
