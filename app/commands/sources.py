"""Sources: added, changed, removed, and brought up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.shared import (
    FAILED,
    PARTIAL,
    AsJson,
    InCollection,
    Yes,
    connected,
    follow,
    given,
    make_sure,
    say_removed,
)
from rag.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from app.client import Client

group = typer.Typer(help="Folders, web sites and databases that knowledge comes from.", no_args_is_help=True)

_MOST_PLAN_LINES = 200
_NOBODY_KEEPS_UP = "Schedules are kept and folders are watched while `attest serve` runs."
_UPLOADS = "upload"  # the kind of source that has nowhere to look for news

AllowDeletes = Annotated[
    bool, typer.Option(help="Permit removing more than ATTEST_MAX_DELETE_SHARE (a fifth) of a source, or all of it.")
]
Refresh = Annotated[
    str | None,
    typer.Option(
        help='Sync by itself: 15m, 2h, 1d, "daily 03:00", "weekly mon 03:00", five cron fields; "" for never.'
    ),
]
Verify = Annotated[bool, typer.Option(help="Read everything, whatever the source says has not changed.")]


def sync(
    source: Annotated[list[str] | None, typer.Argument(help="Names or ids. Default: all.")] = None,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only of this collection.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    allow_deletes: AllowDeletes = False,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Bring the knowledge base to what its sources have now. Exit code 4 when some documents could not be read."""
    with connected() as client:
        chosen = _choose(client.sources(collection=collection), source or [])
        if dry_run:
            _show_plans(client, chosen, allow_deletes=allow_deletes, verify=verify, as_json=as_json)
            return
        run_sync(client, chosen, allow_deletes=allow_deletes, verify=verify, as_json=as_json)


def _choose(sources: list[dict[str, Any]], wanted: list[str]) -> list[dict[str, Any]]:
    if not wanted:
        chosen = [item for item in sources if item["kind"] != _UPLOADS]
        if not chosen:
            raise NotFound("There is no source yet.", remedy="attest sources add NAME --folder PATH makes one.")
        return chosen
    chosen = []
    for name in wanted:
        found = [item for item in sources if name in (item["id"], item["name"])]
        if not found:
            raise NotFound(f"There is no source “{name}”.", remedy="attest sources list shows those that there are.")
        chosen += [item for item in found if item not in chosen]
    return chosen


def _show_plans(
    client: Client, sources: list[dict[str, Any]], *, allow_deletes: bool, verify: bool, as_json: bool
) -> None:
    from app.client import part
    from app.terminal import counts, hint, show_json, table

    body = {"dry_run": True, "allow_deletes": allow_deletes, "verify": verify}
    plans = [(item, client.post(f"/v1/sources/{part(item['id'])}/sync", body)) for item in sources]
    if as_json:
        show_json({"plans": [{"source_id": item["id"], "source": item["name"], **plan} for item, plan in plans]})
    else:
        rows = [
            (source["name"], line["state"], line["key"], line["reason"])
            for source, plan in plans
            for line in plan["items"]
        ]
        table(("source", "plan", "document", "why"), rows[:_MOST_PLAN_LINES])
        if len(rows) > _MOST_PLAN_LINES:
            hint(f"… and {len(rows) - _MOST_PLAN_LINES} more; --json has all of them.")
        for item, plan in plans:
            hint(f"{item['name']}: {counts(plan['counts']) or 'nothing there'}")
            if plan["problem"]:
                hint(f"{item['name']}: {plan['problem']['detail']} {plan['problem']['remedy']}".rstrip())
    if any(plan["problem"] for _, plan in plans):  # as the sync itself would end
        worked = any({"added", "changed", "unchanged"} & plan["counts"].keys() for _, plan in plans)
        raise typer.Exit(PARTIAL if worked else FAILED)


def run_sync(
    client: Client, sources: list[dict[str, Any]], *, allow_deletes: bool, verify: bool, as_json: bool
) -> None:
    from app.client import part

    body = {"allow_deletes": allow_deletes, "verify": verify}
    jobs = {client.post(f"/v1/sources/{part(item['id'])}/sync", body)["id"]: item["name"] for item in sources}
    follow(client, jobs, as_json=as_json)


@group.command("list")
def list_sources(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only of this collection.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the sources that there are, and how each keeps up by itself."""
    from app.terminal import hint, show_json, table

    with connected() as client:
        found = client.sources(collection=collection)
    if as_json:
        show_json({"data": found})
        return
    rows = [
        (item["name"], item["kind"], item["collection"], item["synced_at"] or "never", _keeps_up(item), item["id"])
        for item in found
    ]
    table(("name", "kind", "collection", "synced", "keeps up", "id"), rows)
    if client.is_own and any(item["refresh"] or item["watch"] for item in found):
        hint(_NOBODY_KEEPS_UP)


def _keeps_up(source: dict[str, Any]) -> str:
    """How it is synced by itself: “15m, next 2026-11-20T13:30:00Z; watching”."""
    after = f", next {source['next_sync_at']}" if source["next_sync_at"] else ""
    schedule = f"{source['refresh']}{after}" if source["refresh"] else ""
    watch = (source["watch_state"] or "watch") if source["watch"] else ""
    return "; ".join(part for part in (schedule, watch) if part) or "-"


@group.command("add")
def add_source(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    folder: Annotated[Path | None, typer.Option(help="A folder; relative to where you are.")] = None,
    web: Annotated[list[str] | None, typer.Option(help="A web address; repeat for several.")] = None,
    sitemap: Annotated[str | None, typer.Option(help="Web: the address of a sitemap.")] = None,
    database: Annotated[
        str | None, typer.Option(help="Name of the variable ATTEST_DB_… of the service that holds the database's URL.")
    ] = None,
    include: Annotated[list[str] | None, typer.Option(help="Folder, web: only what fits this pattern; repeat.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Folder, web: not what fits this pattern; repeat.")] = None,
    depth: Annotated[int | None, typer.Option(min=0, max=10, help="Web: follow links so many steps.")] = None,
    max_pages: Annotated[int | None, typer.Option(min=1, max=10_000, help="Web: fetch at most so many pages.")] = None,
    allow_private: Annotated[bool, typer.Option(help="Web: permit addresses of your own network.")] = False,
    table: Annotated[list[str] | None, typer.Option(help="Database: a table; repeat. Default: all.")] = None,
    query: Annotated[str | None, typer.Option(help="Database: one SELECT instead of tables; needs --key.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Database: column of the query's key; repeat.")] = None,
    refresh: Refresh = None,
    watch: Annotated[bool, typer.Option("--watch", help="Folder: sync when files in it have changed.")] = False,
    collection: InCollection = "default",
    sync_now: Annotated[bool, typer.Option("--sync/--no-sync", help="Read it at once.")] = True,
    as_json: AsJson = False,
) -> None:
    """Add a folder, a web site or a database, and read it. A collection that does not exist is made."""
    from app.client import part
    from app.terminal import hint, say, show_json

    body = {"name": name} | _one_kind(
        folder=_folder(folder, include, exclude) if folder else None,
        web=_web(web, sitemap, include, exclude, depth, max_pages, allow_private) if web or sitemap else None,
        database=_database(database, table, query, key) if database else None,
    )
    body |= given(refresh=refresh, watch=watch)
    with connected() as client:
        chosen = client.collection(collection, create=True)
        added = client.post(f"/v1/collections/{part(chosen['id'])}/sources", body)
        if client.is_own and (refresh or watch):
            hint(_NOBODY_KEEPS_UP)
        if sync_now:
            run_sync(client, [added], allow_deletes=False, verify=False, as_json=as_json)
        elif as_json:
            show_json(added)
        else:
            say(f"Added {added['name']} ({added['id']}) to {chosen['name']}. attest sync {added['name']} reads it.")


def _one_kind(**kinds: dict[str, Any] | None) -> dict[str, Any]:
    given = [(kind, config) for kind, config in kinds.items() if config is not None]
    if len(given) != 1:
        raise typer.BadParameter("Say what it is: one of --folder, --web (or --sitemap) and --database.")
    return {"kind": given[0][0], "config": given[0][1]}


def _folder(path: Path, include: list[str] | None, exclude: list[str] | None) -> dict[str, Any]:
    # The service may run elsewhere: where this command stands is known only here.
    return {"path": str(path.expanduser().absolute())} | given(include=include, exclude=exclude)


def _web(
    urls: list[str] | None,
    sitemap: str | None,
    include: list[str] | None,
    exclude: list[str] | None,
    depth: int | None,
    max_pages: int | None,
    allow_private: bool,
) -> dict[str, Any]:
    crawl = {name: value for name, value in (("depth", depth), ("max_pages", max_pages)) if value is not None}
    return given(urls=urls, sitemap=sitemap, include=include, exclude=exclude, crawl=crawl, allow_private=allow_private)


def _database(url_env: str, tables: list[str] | None, query: str | None, key: list[str] | None) -> dict[str, Any]:
    if bool(query) != bool(key) or (query and tables):
        raise typer.BadParameter("--query stands with --key, and instead of --table.")
    return {"url_env": url_env} | given(tables=tables, query=query, key=key)


@group.command("change")
def change_source(
    source: Annotated[str, typer.Argument(help="Name or id.")],
    refresh: Refresh = None,
    watch: Annotated[
        bool | None, typer.Option("--watch/--no-watch", help="Folder: sync when files in it have changed.")
    ] = None,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only of this collection.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change how a source keeps up by itself, from now on."""
    from app.client import part
    from app.terminal import hint, say, show_json

    changes = {name: value for name, value in (("refresh", refresh), ("watch", watch)) if value is not None}
    if not changes:
        raise typer.BadParameter("Say what to change: --refresh, --watch or --no-watch.")
    with connected() as client:
        found = _one_source(client, source, collection)
        changed = client.call("PATCH", f"/v1/sources/{part(found['id'])}", json=changes)
        own = client.is_own
    if as_json:
        show_json(changed)
        return
    keeps_up = _keeps_up(changed)
    say(f"{changed['name']} ({changed['id']}): {'synced only when asked' if keeps_up == '-' else keeps_up}")
    if own and (changed["refresh"] or changed["watch"]):
        hint(_NOBODY_KEEPS_UP)


def _one_source(client: Client, name: str, collection: str | None) -> dict[str, Any]:
    found = _choose(client.sources(collection=collection), [name])
    if len(found) > 1:
        names = ", ".join(item["collection"] for item in found)
        raise InvalidInput(f"“{name}” is in {names}.", remedy="Say which with --collection, or give its id.")
    return found[0]


@group.command("remove")
def remove_source(
    source: Annotated[str, typer.Argument(help="Name or id.")],
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only of this collection.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove a source and all that came from it."""
    from app.client import part

    with connected() as client:
        found = _one_source(client, source, collection)
        make_sure(f"Remove the source “{found['name']}” and every document of it?", yes=yes)
        client.delete(f"/v1/sources/{part(found['id'])}")
    say_removed(found, as_json=as_json)
