"""Questions without an answer."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from app.commands.shared import AsJson, connected


def gaps(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Name or id. Default: all.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="2026-03-31, or a time with its zone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Print at most so many.")] = 50,
    hide: Annotated[str | None, typer.Option(metavar="ID", help="Hide this one until it is asked again.")] = None,
    questions: Annotated[
        bool, typer.Option("--questions", help="Print lines for a questions.jsonl, to be completed for attest eval.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the questions that the sources did not answer, most often asked first."""
    import json

    from app.client import part
    from app.terminal import hint, say, show_json, table

    with connected() as client:
        if hide is not None:
            client.delete(f"/v1/gaps/{part(hide)}")
            if as_json:
                show_json({"removed": hide})
            else:
                say(f"Hidden: {hide}.")
            return
        first = client.get("/v1/gaps", collection=collection, since=since, limit=1)
        found = list(islice(client.pages("/v1/gaps", collection=collection, since=since, limit=limit), limit))
    if as_json:
        show_json({"data": found, "note": first["note"]})
        return
    if questions:
        for item in found:
            say(json.dumps({"id": item["id"], "question": item["question"], "answers": []}, ensure_ascii=False))
        return
    if first["note"]:
        hint(first["note"])
    rows = [
        (item["count"], item["question"], ", ".join(item["missing"]), item["last_at"], _state(item), item["id"])
        for item in found
    ]
    table(("asked", "question", "missing", "last", "since then", "id"), rows)


def _state(item: dict[str, object]) -> str:
    return "answered" if item["answered_since"] else ""
