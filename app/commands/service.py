"""The service itself, and whether all is well with it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.shared import FAILED, AsJson, connected, read_settings

if TYPE_CHECKING:
    from rag.settings import Settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: ATTEST_HOST, 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default: ATTEST_PORT, 8000.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    as_json: AsJson = False,
) -> None:
    """Run the service until Ctrl-C or SIGTERM."""
    import logging

    from app.terminal import say, show_json

    levels = ("debug", "info", "warning", "error")
    if log_level not in levels:
        raise typer.BadParameter(f"Use one of {', '.join(levels)}.", param_hint="--log-level")
    settings = read_settings(host=host, port=port)
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for library in (
        *("httpx", "httpcore", "chromadb", "urllib3", "sentence_transformers", "transformers", "alembic"),
        *("apscheduler", "watchfiles"),
    ):
        logging.getLogger(library).setLevel(logging.WARNING)

    def listening(url: str) -> None:
        if as_json:
            show_json({"url": url, "docs": f"{url}/docs", "data_dir": str(settings.data_dir), "pid": os.getpid()})
        else:
            say(f"Attest listens on {url} · {url}/docs · data in {settings.data_dir} · Ctrl-C stops it")
        sys.stdout.flush()

    try:
        run_service(settings, listening)
    except KeyboardInterrupt:  # a signal, after everything was closed
        return


def run_service(settings: Settings, listening: Any) -> None:
    from app.main import check_exposure
    from app.server import Server, listen
    from app.service import Service

    check_exposure(settings)
    service = Service(settings)
    try:
        server = Server(service, listen(settings.host, settings.port), listening=listening)
    except BaseException:
        service.close()
        raise
    server.serve_until_stopped()


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare all that is stored with each other. Reads everything.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what --deep finds and can be put right; implies --deep.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Is all well? Exit code 1 when something is not, or is still not after --repair."""
    from app.terminal import hint, show_json, table

    with connected(working=True) as client:
        client.wait_until_ready()
        # No time limit: reading everything takes as long as there is.
        mended = client.call("POST", "/v1/doctor/repair", timeout=None) if repair else {"ok": True}
        found = client.call("GET", "/v1/doctor", params={"deep": deep and not repair}, timeout=None)
        found = {**found, **mended, "ok": found["ok"] and mended["ok"]}
        if as_json:
            show_json(found)
        else:
            rows = [(item["name"], item["level"], item["detail"], "") for item in found["checks"]]
            rows += [_finding(item) for item in found.get("findings", [])]
            table(("check", "level", "finding", "what to do"), rows)
            if (deep or repair) and not found["findings"]:
                hint("Everything that is stored was compared, and agrees.")
            hint("No service was running." if client.is_own else f"The service runs at {client.url}.")
    if not found["ok"]:
        raise typer.Exit(FAILED)


def _finding(item: dict[str, Any]) -> tuple[str, str, str, str]:
    some = ", ".join(item["examples"]) + (", …" if item["count"] > len(item["examples"]) else "")
    finding = f"{item['count']} × {item['what']}: {some}"
    level, remedy = ("repaired", "") if item["repaired"] else (item["level"], item["remedy"])
    return item["code"], level, finding, remedy
