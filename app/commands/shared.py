"""What commands share: options, exit codes, the way to the service."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag.errors import InvalidInput

if TYPE_CHECKING:
    from app.client import Client
    from rag.settings import Settings

FAILED, USAGE, UNANSWERED, PARTIAL, INTERRUPTED = 1, 2, 3, 4, 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the HTTP interface has it.")]
InCollection = Annotated[str, typer.Option("--collection", "-c", help="Name or id of the collection.")]
InCollections = Annotated[list[str] | None, typer.Option("--collection", "-c", help="Name; repeat for several. All.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def read_settings(**changes: Any) -> Settings:
    """From the environment and `.env`; `changes` that are not None win."""
    from pydantic import ValidationError

    from rag.settings import Settings

    try:
        return Settings(**{name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "ATTEST_" + "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidInput(f"{name} cannot be used: {first['msg']}.", remedy="Change it, or leave it out.") from error


@contextmanager
def connected(*, working: bool = False) -> Iterator[Client]:
    """The running service, or one of this process's own for as long as the command takes."""

    import logging

    from app.client import Client
    from app.terminal import hint

    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    with Client(read_settings(), working=working, hint=hint) as client:
        yield client


def follow(client: Client, names: dict[str, str], *, as_json: bool) -> None:
    """Wait for jobs (id → name) with a bar for each, say how they went, and end with the exit code that fits."""
    from app.client import interruptible
    from app.terminal import progress, show_job, show_json

    with interruptible(client, names), progress(names) as moved:
        jobs = client.follow(names, moved)
    if as_json:
        show_json({"jobs": jobs})
    else:
        for job in jobs:
            show_job(job, name=names[job["id"]])
    states = Counter(job["state"] for job in jobs)
    if states["succeeded"] == len(jobs):
        return
    raise typer.Exit(PARTIAL if states["succeeded"] or states["partial"] else FAILED)


def make_sure(question: str, *, yes: bool) -> None:
    """Ask, unless --yes says that it is meant. No ends the command with exit code 1."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("Nobody is there to be asked; --yes says that it is meant.", param_hint="--yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(FAILED)


def say_removed(item: dict[str, Any], *, as_json: bool) -> None:
    """Tell what is gone, by its name or title and its id."""
    from app.terminal import say, show_json

    if as_json:
        show_json({"removed": item["id"]})
    else:
        say(f"Removed {item.get('name') or item.get('title')} ({item['id']}).")


def given(**values: Any) -> dict[str, Any]:
    """The options that were given; empty ones are left to the service."""
    return {name: value for name, value in values.items() if value}
