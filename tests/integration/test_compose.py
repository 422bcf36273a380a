"""docker-compose.yml without Docker: its very commands, environment and health checks, as processes of this machine.

Only what a container would give is replaced: the names of hosts, the ports, the folders of volumes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

pytestmark = [pytest.mark.models, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
KEY = "a key for this test alone"
PORT_INSIDE = "8000"


@dataclass(frozen=True)
class Composition:
    """Where each service listens on this machine, and where its volumes and logs are."""

    folder: Path
    ports: dict[str, int]

    def localised(self, text: str, service: str) -> str:
        """The text as it has to be outside of a container."""
        text = re.sub(r"\$\{ATTEST_ADMIN_KEY:\?[^}]*\}", KEY, text)
        for name, port in self.ports.items():
            text = text.replace(f"//{name}:{PORT_INSIDE}", f"//127.0.0.1:<{port}>")
        text = re.sub(rf"(?<![\d.<]){PORT_INSIDE}(?!\d)", str(self.ports[service]), text)
        for volume in COMPOSE["services"][service]["volumes"]:
            name, inside = volume.split(":")[:2]
            text = re.sub(rf"(?<!\w){inside}(?!\w)", str(self.folder / name), text)
        return re.sub(r"<(\d+)>", r"\1", text)

    def environment(self, service: str) -> dict[str, str]:
        """What the image and the composition set, and of ours only what a process cannot do without."""
        given = {**_image_environment(), **COMPOSE["services"][service]["environment"]}
        ours = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.folder / "home")}
        return {**{name: self.localised(str(value), service) for name, value in given.items()}, **ours}

    def start(self, service: str) -> subprocess.Popen[bytes]:
        command = [self.localised(part, service) for part in COMPOSE["services"][service]["command"]]
        environment = self.environment(service)
        executable = shutil.which(command[0], path=environment["PATH"])
        assert executable, f"{command[0]} is not installed"
        with (self.folder / f"{service}.log").open("wb") as log:
            return subprocess.Popen(
                [executable, *command[1:]], env=environment, cwd=self.folder / "home", stdout=log, stderr=log
            )

    def wait_until_healthy(self, service: str, process: subprocess.Popen[bytes]) -> None:
        """Repeats the very health check, within the time that the composition gives the service."""
        check = COMPOSE["services"][service]["healthcheck"]
        kind, program, *arguments = (self.localised(part, service) for part in check["test"])
        assert (kind, program) == ("CMD", "python")
        patience = _seconds(check["start_period"]) + check["retries"] * _seconds(check["interval"])
        end = time.monotonic() + patience
        while time.monotonic() < end:
            assert process.poll() is None, f"{service} ended:\n{self.log(service)}"
            done = subprocess.run(
                [sys.executable, *arguments],
                env=self.environment(service),
                capture_output=True,
                timeout=_seconds(check["timeout"]) + 5,
                check=False,
            )
            if done.returncode == 0:
                return
            time.sleep(0.5)
        raise AssertionError(f"{service} was not healthy after {patience} seconds:\n{self.log(service)}")

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text("utf-8", "replace")[-4_000:]


def _seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


def _image_environment() -> dict[str, str]:
    """The ENV lines of the image's last stage; search paths are this machine's own."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = re.findall(r"^ENV (.*)$", text[text.rindex("\nFROM ") :], re.MULTILINE)
    pairs = (pair.partition("=") for line in lines for pair in line.split())
    return {name: value for name, _, value in pairs if name not in ("PATH", "PYTHONPATH")}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _in_order(services: dict[str, Any]) -> list[str]:
    """Our own services, each after those it depends on."""
    ours = {name: set(service.get("depends_on", ())) for name, service in services.items() if service.get("build")}
    order: list[str] = []
    while len(order) < len(ours):
        order += sorted(name for name in ours if name not in order and ours[name] <= set(order))
    return order


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    order = _in_order(COMPOSE["services"])
    folder = tmp_path_factory.mktemp("compose")
    for name in ("home", *COMPOSE["volumes"]):
        (folder / name).mkdir()
    composition = Composition(folder, {name: _free_port() for name in order})
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in order:
            running[name] = composition.start(name)
            composition.wait_until_healthy(name, running[name])
        yield composition
        for name in reversed(order):
            running[name].send_signal(signal.SIGTERM)
            grace = _seconds(COMPOSE["services"][name]["stop_grace_period"])
            assert running[name].wait(timeout=grace) in (0, -signal.SIGTERM), composition.log(name)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def client(composition: Composition) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"http://127.0.0.1:{composition.ports['api']}"
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def test_a_document_handed_over_is_answered_from_with_a_citation(
    client: httpx.Client, composition: Composition
) -> None:
    text = "The pump station at Harlow was opened in 1987. Its two pumps are inspected every eleven weeks."
    handed_over = client.post("/v1/collections/default/documents", json={"title": "Harlow", "text": text})
    assert handed_over.status_code == 202, handed_over.text
    job = handed_over.json()
    end = time.monotonic() + 90
    while job["state"] in ("queued", "running") and time.monotonic() < end:
        time.sleep(0.2)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", (job, composition.log("api"))

    answer = client.post("/v1/ask", json={"question": "When was the pump station at Harlow opened?"}).json()
    assert answer["refused"] is False, answer
    assert "1987" in answer["answer"]
    citation = answer["citations"][0]
    assert citation["title"] == "Harlow"
    assert text[citation["start"] : citation["end"]] == citation["quote"]


def test_vectors_are_kept_by_the_chroma_service_and_not_in_the_data_folder(
    client: httpx.Client, composition: Composition
) -> None:
    assert client.get("/readyz").status_code == 200
    assert (composition.folder / "chroma-data" / "chroma.sqlite3").exists()
    assert (composition.folder / "attest-data" / "catalog.sqlite").exists()
    assert not (composition.folder / "attest-data" / "chroma" / "chroma.sqlite3").exists()


def test_nobody_gets_in_without_the_key(client: httpx.Client) -> None:
    assert client.get("/v1/collections", headers={"Authorization": "Bearer another key"}).status_code == 401
    assert client.get("/healthz", headers={"Authorization": ""}).status_code == 200


def test_services_leave_nothing_outside_their_volumes(composition: Composition) -> None:
    """Their containers' file systems are read-only."""
    assert os.listdir(composition.folder / "home") == []
