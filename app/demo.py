"""`make demo`: reads the sample corpus, asks two questions of it, and goes on serving. A second run embeds nothing."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.client import Client, Refused, interruptible, part
from app.commands.shared import FAILED, INTERRUPTED, read_settings
from app.terminal import Told, complain, hint, prepare, progress, say, show_job
from rag.errors import AttestError, NotFound, Unavailable
from rag.storage.owner import find_owner
from rag.wiring import allowed_roots

if TYPE_CHECKING:
    from socket import socket

    from app.server import Background
    from rag.settings import Settings

COLLECTION = "demo"
DATA = Path(__file__).resolve().parent.parent / "data"
QUESTIONS = ("How much annual leave do full-time people in Rotterdam get?", "苏州校准实验室每个月哪一天维护、不收件？")
TO_TRY = ("What is the list price of the TL-1422?", "放疫苗冰箱探头用的乙二醇瓶是哪个货号？")

# Always the same, so that a second run finds the same addresses; another one where it is taken.
_SITE_PORT = 8765
_PORTS_TO_TRY = 50
_DATABASE = "ATTEST_DB_DEMO"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the answers instead of serving on")
    once = parser.parse_args().once or bool(os.environ.get("ATTEST_DEMO_ONCE"))
    prepare()
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _demo(once=once)
    except AttestError as problem:
        complain(str(problem))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _demo(*, once: bool) -> int:
    if not (DATA / "corpus").is_dir():
        raise NotFound(f"There is no sample corpus in {DATA}.", remedy="Run the demo from a clone of the repository.")
    settings = _settings()
    with _site() as site_url, _service(settings) as server, Client(settings) as client:
        say("Reading the sample corpus: two handbooks and office files, a web site, a product database.")
        well = _read(client, site_url)
        for question in QUESTIONS:
            _ask(client, question)
        _show_how(client.url, key_needed=settings.admin_key is not None)
        if once or server is None:
            return 0 if well else FAILED
        say("Ctrl-C stops it.")
        sys.stdout.flush()
        try:
            server.wait()
        except KeyboardInterrupt:
            say("Stopping.")
        return 0 if well else FAILED


def _settings() -> Settings:
    """As configured, and what the demo needs beside: its data allowed, no pause between the pages of its own site."""
    os.environ[_DATABASE] = f"sqlite:///{DATA / 'products.sqlite'}"
    settings = read_settings()
    roots = ":".join(str(root) for root in [*allowed_roots(settings), DATA])
    return settings.model_copy(update={"allowed_roots": roots, "web_delay_seconds": 0.0})


# ── what runs ─────────────────────────────────────────────────────────────────────────────────


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the standard library's
        """Nobody wants to read about every page."""


@contextmanager
def _site() -> Iterator[str]:
    """The sample web site on loopback; yields its address."""
    handler = partial(_Quiet, directory=str(DATA / "site"))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", _SITE_PORT), handler)
    except OSError:  # taken
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="site", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _service(settings: Settings) -> Iterator[Background | None]:
    """The service in this process, or None where one runs already."""
    owner = find_owner(settings.data_dir)
    if owner is not None:
        hint(f"A service runs already at {owner[0]}; the demo goes through it.")
        yield None
        return
    from app.main import check_exposure
    from app.server import Background
    from app.service import Service

    check_exposure(settings)
    say("Starting the service …")
    server = Background(Service(settings), _free(settings))
    try:
        yield server
    finally:
        server.close()


def _free(settings: Settings) -> socket:
    """The configured port, or the next that is free."""
    from app.server import listen, url_of

    for port in range(settings.port, min(settings.port + _PORTS_TO_TRY, 65536)):
        try:
            listener = listen(settings.host, port)
        except Unavailable:
            continue
        if port != settings.port:
            hint(f"Port {settings.port} is taken, so the service is at {url_of(listener)}.")
        return listener
    raise Unavailable(f"Port {settings.port} and those after it are taken.", remedy="Set ATTEST_PORT to a free one.")


# ── what it shows ─────────────────────────────────────────────────────────────────────────────


def _read(client: Client, site_url: str) -> bool:
    """Bring the three sources up to date. False when something could not be read."""
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "handbooks and office files": ("folder", {"path": str(DATA / "corpus")}),
        "web site": ("web", {"urls": [f"{site_url}/index.html"], "crawl": {"depth": 3}, "allow_private": True}),
        "product database": ("database", {"url_env": _DATABASE}),
    }
    collection = client.collection(COLLECTION, create=True)
    known = {source["name"]: source for source in client.sources(collection=COLLECTION)}
    names: dict[str, str] = {}
    well = True
    for name, (kind, config) in wanted.items():
        try:
            source = _ensure(client, collection["id"], known.get(name), {"name": name, "kind": kind, "config": config})
            names[client.post(f"/v1/sources/{part(source['id'])}/sync", {"allow_deletes": True})["id"]] = name
        except Refused as problem:  # a service that was running already may not be allowed what the demo is
            complain(f"{name}: {problem}")
            well = False
    with interruptible(client, names), progress(names) as moved:
        jobs = client.follow(names, moved)
    for job in jobs:
        show_job(job, name=names[job["id"]])
    return well and all(job["state"] == "succeeded" for job in jobs)


def _ensure(client: Client, collection_id: str, known: dict[str, Any] | None, wanted: dict[str, Any]) -> dict[str, Any]:
    if known is None:
        made: dict[str, Any] = client.post(f"/v1/collections/{part(collection_id)}/sources", wanted)
        return made
    if known["config"] != wanted["config"]:
        client.call("PATCH", f"/v1/sources/{part(known['id'])}", json={"config": wanted["config"]})
    return known


def _ask(client: Client, question: str) -> None:
    say()
    say(f"> {question}", style="bold cyan")
    told = Told()
    for event, content in client.stream("/v1/ask", {"question": question, "collection": COLLECTION, "stream": True}):
        if event == "sentence":
            told.sentence(content)
        elif event == "final":
            told.final(content)


def _command() -> str:
    """`attest`, as it can be typed here."""
    beside = Path(sys.executable).with_name("attest")
    if shutil.which("attest") or not beside.is_file():
        return "attest"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def _show_how(url: str, *, key_needed: bool) -> None:
    say()
    say(f"The service is at {url} · try every call at {url}/docs · ask from here: {_command()} ask “…”")
    say("Two lines to try:")
    key = ' -H "Authorization: Bearer $ATTEST_ADMIN_KEY"' if key_needed else ""
    for question in TO_TRY:
        body = json.dumps({"question": question, "collection": COLLECTION}, ensure_ascii=False)
        say()
        say(f"curl -s {url}/v1/ask -H 'Content-Type: application/json'{key} -d '{body}'")
    say()


if __name__ == "__main__":
    sys.exit(main())
