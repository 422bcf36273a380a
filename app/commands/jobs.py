"""Jobs: watched, done again, stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.shared import AsJson, connected, follow

group = typer.Typer(help="Long work.", no_args_is_help=True)


@group.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None, as_json: AsJson = False
) -> None:
    """Print the latest jobs."""
    from app.terminal import counts, show_json, table

    with connected() as client:
        found = client.get("/v1/jobs", state=state, limit=50)["data"]
    if as_json:
        show_json({"data": found})
    else:
        rows = [(item["id"], item["kind"], item["state"], counts(item["counts"]), item["created_at"]) for item in found]
        table(("id", "kind", "state", "counts", "created"), rows)


@group.command("show")
def show_job_command(
    job: Annotated[str, typer.Argument(help="Its id.")],
    state: Annotated[str | None, typer.Option(help="Only items in this state, e.g. failed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a job and its items, each failure with its reason."""
    from app.client import part
    from app.terminal import hint, show_job, show_json, table

    with connected() as client:
        found = client.get(f"/v1/jobs/{part(job)}")
        found["items"] = list(client.pages(f"/v1/jobs/{part(job)}/items", state=state, limit=500))
    if as_json:
        show_json(found)
        return
    show_job({**found, "items": []}, name=f"{found['kind']} {job}")
    rows = [(item["state"], item["key"], (item["problem"] or {"detail": ""})["detail"]) for item in found["items"]]
    table(("state", "document", "why"), rows)
    if any(item["state"] == "failed" for item in found["items"]):
        hint(f"attest jobs retry {job} loads again what failed.")


@group.command("retry")
def retry_job(
    job: Annotated[str, typer.Argument(help="Its id.")],
    only_failed: Annotated[
        bool | None, typer.Option("--only-failed/--all", help="What failed, or all. Default: what failed, if any.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option(help="Only this item of it; repeat for several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Do a finished job again, or what failed of it, and wait for it."""
    from app.client import part

    if key and only_failed is not None:
        raise typer.BadParameter("--key stands without --only-failed and --all.")
    body = {"keys": key} if key else {} if only_failed is None else {"only_failed": only_failed}
    with connected() as client:
        again = client.post(f"/v1/jobs/{part(job)}/retry", body)
        follow(client, {again["id"]: f"{again['kind']} {job}"}, as_json=as_json)


@group.command("cancel")
def cancel_job(job: Annotated[str, typer.Argument(help="Its id.")], as_json: AsJson = False) -> None:
    """Stop a job. What was read stays."""
    from app.client import part
    from app.terminal import say, show_json

    with connected() as client:
        client.cancel([job])
        found = client.get(f"/v1/jobs/{part(job)}")
    if as_json:
        show_json(found)
    else:
        say(f"{job} is {found['state']}.")
