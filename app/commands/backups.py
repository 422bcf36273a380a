"""Backups: made, listed, checked, restored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.shared import FAILED, AsJson, connected, read_settings
from rag.errors import AttestError

group = typer.Typer(help="One file that restores everything.", no_args_is_help=True)


@group.command("create")
def create_backup(
    path: Annotated[
        Path | None, typer.Argument(help="A new file, or a folder. Default: ATTEST_BACKUP_DIR, with the time as name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put everything that restores this knowledge base into one file, while the service goes on."""
    from app.client import interruptible
    from app.terminal import progress, say, show_json

    body = {} if path is None else {"path": str(path.expanduser().absolute())}
    with connected() as client:
        job = client.post("/v1/backup", body)
        with interruptible(client, [job["id"]]), progress({job["id"]: "backup"}) as moved:
            [done] = client.follow([job["id"]], moved)
        if done["state"] != "succeeded":
            found = done["problem"] or {}
            raise AttestError(found.get("detail") or f"The backup is {done['state']}.", remedy=found.get("remedy", ""))
        made = next(item for item in client.get("/v1/backup")["data"] if item["id"] == done["items"][0]["key"])
    if as_json:
        show_json(made)
    else:
        say(f"Made {made['path']} ({_size(made['bytes'])}). attest backup verify checks it.")


@group.command("list")
def list_backups(as_json: AsJson = False) -> None:
    """Print the backups that were made of this knowledge base."""
    from app.terminal import show_json, table

    with connected() as client:
        found = client.get("/v1/backup")["data"]
    if as_json:
        show_json({"data": found})
        return
    rows = [
        (item["created_at"], _size(item["bytes"]), item["path"], "" if item["present"] else "not there")
        for item in found
    ]
    table(("made", "size", "file", ""), rows)


@group.command("verify")
def verify_backup(
    file: Annotated[Path, typer.Argument(help="The file.")],
    as_json: AsJson = False,
) -> None:
    """Look at every byte of a backup. Exit code 1 when something is wrong with it."""
    from app.terminal import complain, hint, say, show_json
    from rag.upkeep.backup import verify

    found = verify(file)
    made = found.manifest
    if as_json:
        about = {"attest": made.attest, "schema": made.schema, "counts": dict(made.counts)} if made else {}
        created = {"created_at": made.created_at.isoformat()} if made else {}
        show_json({"ok": found.ok, "problems": found.problems, "notes": found.notes, **about, **created})
    else:
        for problem in found.problems:
            complain(problem)
        for note in found.notes:
            hint(note)
        if found.ok and made is not None:
            say(
                f"{file} is whole: {made.counts.get('documents', 0)} documents, {found.originals} originals, "
                f"made {made.created_at:%Y-%m-%d %H:%M} UTC by Attest {made.attest} (schema {made.schema})."
            )
    if not found.ok:
        raise typer.Exit(FAILED)


@group.command("restore")
def restore_backup(
    file: Annotated[Path, typer.Argument(help="The file.")],
    data_dir: Annotated[Path | None, typer.Option(help="Into this folder. Default: ATTEST_DATA_DIR.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move what is in the folder aside; nothing is deleted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the knowledge base of a backup in an empty folder, with no service running on it."""
    from app.terminal import hint, say, show_json
    from rag.upkeep.backup import RESTORED_SETTINGS, restore

    settings = read_settings(data_dir=data_dir)
    done = restore(file, settings.data_dir, replace=replace)
    if as_json:
        aside = str(done.aside) if done.aside else None
        show_json({"data_dir": str(done.data_dir), "aside": aside, "cancelled_jobs": done.cancelled})
        return
    say(f"Restored into {done.data_dir}. The next start makes the caches from it.")
    if done.aside:
        hint(f"What was there before is in {done.aside}.")
    if done.cancelled:
        jobs = "1 unfinished job was" if done.cancelled == 1 else f"{done.cancelled} unfinished jobs were"
        hint(f"{jobs} cancelled: attest jobs retry starts one again, where its source is there.")
    for note in done.verified.notes:
        hint(note)
    hint(f"The settings that it was made with are in {done.data_dir / RESTORED_SETTINGS}; keys were not kept.")


def _size(count: int) -> str:
    return f"{count / 1024**2:,.1f} MiB"
