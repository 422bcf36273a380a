"""The command line. Every command is a client of the service: see `app.client`.

Nothing heavy is imported at the top: `attest --help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.evaluation import evaluate
from rag.errors import AttestError, InvalidInput, NotFound

if TYPE_CHECKING:
    from app.client import Client
    from rag.settings import Settings

FAILED, USAGE, UNANSWERED, PARTIAL, INTERRUPTED = 1, 2, 3, 4, 130

_HELP = """Answers from your PDFs, web pages and databases, every sentence with a source that can be checked.

Every command goes through the running service, or is the service itself for as long as it takes.

Exit codes: 0 done · 1 failed, or the doctor found a problem · 2 wrong usage · 3 no answer in the sources ·
4 done in part: some documents could not be read · 5 a quality gate found a loss · 130 interrupted
"""
_MOST_PLAN_LINES = 200
_NOBODY_KEEPS_UP = "Schedules are kept and folders are watched while `attest serve` runs."
_UPLOADS = "upload"  # the kind of source that has nowhere to look for news

app = typer.Typer(name="attest", help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
sources_app = typer.Typer(help="Folders, web sites and databases that knowledge comes from.", no_args_is_help=True)
documents_app = typer.Typer(help="Single documents.", no_args_is_help=True)
collections_app = typer.Typer(help="Knowledge bases.", no_args_is_help=True)
jobs_app = typer.Typer(help="Long work.", no_args_is_help=True)
app.add_typer(sources_app, name="sources")
app.add_typer(documents_app, name="documents")
app.add_typer(collections_app, name="collections")
app.add_typer(jobs_app, name="jobs")
backup_app = typer.Typer(help="One file that restores everything.", no_args_is_help=True)
app.add_typer(backup_app, name="backup")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the HTTP interface has it.")]
InCollection = Annotated[str, typer.Option("--collection", "-c", help="Name or id of the collection.")]
InCollections = Annotated[list[str] | None, typer.Option("--collection", "-c", help="Name; repeat for several. All.")]
ADocument = Annotated[str, typer.Argument(help="Id, key or title.")]
AsOf = Annotated[
    str | None, typer.Option(metavar="TIME", help="What was active then: 2026-03-31, or a time with its zone.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
TopK = Annotated[int | None, typer.Option(min=1, max=50, help="Passages to look for.")]
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


def main() -> None:
    """Entry point. An error is one sentence on stderr; ATTEST_DEBUG=1 shows where it came from."""
    from app.terminal import complain, prepare

    prepare()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: in good order
    try:
        app()
    except AttestError as problem:
        _raise_for_debugging()
        complain(str(problem))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of the pipe has seen enough
        sys.exit(FAILED)
    except Exception as problem:  # noqa: BLE001  # the outermost edge: a person gets a sentence, not a traceback
        _raise_for_debugging()
        complain(f"Something unforeseen went wrong: {type(problem).__name__}: {problem} ATTEST_DEBUG=1 shows where.")
        sys.exit(FAILED)


def _raise_for_debugging() -> None:
    if os.environ.get("ATTEST_DEBUG"):
        raise  # called from an except clause only


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
    import logging

    from app.client import Client
    from app.terminal import hint

    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    with Client(read_settings(), working=working, hint=hint) as client:
        yield client


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("attest"))
        raise typer.Exit


@app.callback()
def attest(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None: ...


# ── the service ───────────────────────────────────────────────────────────────────────────────


@app.command()
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


@app.command()
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


# ── questions ─────────────────────────────────────────────────────────────────────────────────


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from stdin.")],
    collection: InCollections = None,
    top_k: TopK = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question, with sources. Exit code 3 when the sources have no answer."""
    from app.terminal import Told, show_json

    body = _question(question, collection, top_k, as_of)
    with connected() as client:
        if as_json:
            answer = client.post("/v1/ask", body)
            show_json(answer)
        else:
            told, answer = Told(), None
            for event, content in client.stream("/v1/ask", {**body, "stream": True}):
                if event == "sentence":
                    told.sentence(content)
                elif event == "final":
                    answer = content
                    told.final(content)
            if answer is None:
                raise AttestError("The service broke off before the answer was complete.", remedy="Ask again.")
    if answer["refused"]:
        raise typer.Exit(UNANSWERED)


@app.command()
def search(
    question: Annotated[str, typer.Argument(help="What to look for; - reads it from stdin.")],
    collection: InCollections = None,
    top_k: TopK = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Print the passages that answer best, with their scores."""
    from app.terminal import hint, show_hits, show_json

    with connected() as client:
        found = client.post("/v1/search", _question(question, collection, top_k, as_of))
    if as_json:
        show_json(found)
    elif found["hits"]:
        show_hits(found["hits"])
    else:
        hint("Nothing was found.")


app.command("eval")(evaluate)


def _question(question: str, collections: list[str] | None, top_k: int | None, as_of: str | None) -> dict[str, Any]:
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise typer.BadParameter("The question is empty.", param_hint="QUESTION")
    body: dict[str, Any] = {"question": text.strip()}
    return body | _given(collection=collections, top_k=top_k, as_of=as_of)


# ── sources ───────────────────────────────────────────────────────────────────────────────────


@app.command()
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
    _follow(client, jobs, as_json=as_json)


def _follow(client: Client, names: dict[str, str], *, as_json: bool) -> None:
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


@app.command()
def reindex(
    collection: InCollections = None,
    embedder: Annotated[
        str | None, typer.Option(help="`default`, a name on the hub, or a folder. Default: ATTEST_EMBEDDER.")
    ] = None,
    chunk_tokens: Annotated[
        int | None, typer.Option(min=32, max=2048, help="Longest chunk in tokens. Default: ATTEST_CHUNK_TOKENS.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Compare the new index with the old one before the switch.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Switch even where the new index finds less.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Go back to the index that answered before.")] = False,
    confirm: Annotated[bool, typer.Option("--confirm", help="Remove the old index: no way back then.")] = False,
    as_json: AsJson = False,
) -> None:
    """Index what is stored anew, with another embedder or other chunks, while the old index goes on answering."""
    from app.client import part

    body = _given(chunk_tokens=chunk_tokens, force=force, back=back, confirm=confirm)
    if embedder is not None:
        folder = Path(embedder).expanduser()  # the service may run elsewhere: where this command stands is known here
        body["embedder"] = str(folder.absolute()) if folder.is_dir() and embedder != "default" else embedder
    if not check:
        body["check"] = False
    with connected(working=True) as client:
        if collection:
            chosen = [client.collection(name) for name in collection]
        else:
            chosen = list(client.pages("/v1/collections"))
        if not chosen:
            raise NotFound("There is no collection yet.", remedy="attest sources add NAME --folder PATH makes one.")
        paths = {f"/v1/collections/{part(item['id'])}": item["name"] for item in chosen}
        names = {client.post(f"{path}/reindex", body)["id"]: name for path, name in paths.items()}
        try:
            _follow(client, names, as_json=as_json)
        finally:
            if not (as_json or back or confirm):
                _show_indexes(client, paths)


def _show_indexes(client: Client, paths: dict[str, str]) -> None:
    """What each collection's newest index was found to be worth, beside the one that answered before."""
    from app.terminal import hint

    for path, name in paths.items():
        found = client.get(f"{path}/indexes")["data"]
        for language, checked in ((found[-1]["checked"] or {"languages": {}})["languages"]).items():
            ways = [f"{way} {checked[way]['old']:.0%} → {checked[way]['new']:.0%}" for way in ("fused", "vectors")]
            asked = f"{checked['questions']} questions, {checked['own']} of them asked by people"
            hint(f"  {name}, {language}: {', '.join(ways)} found among the first five ({asked})")
        if any(item["state"] == "retired" for item in found):
            hint(f"  {name}: the old index is kept. attest reindex --back returns to it, --confirm removes it.")


@sources_app.command("list")
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


@sources_app.command("add")
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
    body |= _given(refresh=refresh, watch=watch)
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


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _folder(path: Path, include: list[str] | None, exclude: list[str] | None) -> dict[str, Any]:
    # The service may run elsewhere: where this command stands is known only here.
    return {"path": str(path.expanduser().absolute())} | _given(include=include, exclude=exclude)


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
    return _given(
        urls=urls, sitemap=sitemap, include=include, exclude=exclude, crawl=crawl, allow_private=allow_private
    )


def _database(url_env: str, tables: list[str] | None, query: str | None, key: list[str] | None) -> dict[str, Any]:
    if bool(query) != bool(key) or (query and tables):
        raise typer.BadParameter("--query stands with --key, and instead of --table.")
    return {"url_env": url_env} | _given(tables=tables, query=query, key=key)


@sources_app.command("change")
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


@sources_app.command("remove")
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
        _confirm(f"Remove the source “{found['name']}” and every document of it?", yes=yes)
        client.delete(f"/v1/sources/{part(found['id'])}")
    _removed(found, as_json=as_json)


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("Nobody is there to be asked; --yes says that it is meant.", param_hint="--yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(FAILED)


def _removed(item: dict[str, Any], *, as_json: bool) -> None:
    from app.terminal import say, show_json

    if as_json:
        show_json({"removed": item["id"]})
    else:
        say(f"Removed {item.get('name') or item.get('title')} ({item['id']}).")


# ── documents ─────────────────────────────────────────────────────────────────────────────────


@documents_app.command("list")
def list_documents(collection: InCollection = "default", as_json: AsJson = False) -> None:
    """Print the documents of a collection."""
    from app.terminal import show_json, table

    with connected() as client:
        found = _documents(client, collection)
    if as_json:
        show_json({"data": found})
        return
    rows = [(item["title"], item["status"], item["version"] or "-", item["uri"], item["id"]) for item in found]
    table(("title", "status", "version", "where", "id"), rows)


def _documents(client: Client, collection: str) -> list[dict[str, Any]]:
    from app.client import part

    chosen = client.collection(collection)
    return list(client.pages(f"/v1/collections/{part(chosen['id'])}/documents", limit=500))


@documents_app.command("show")
def show_document(
    document: Annotated[str, typer.Argument(help="Its id.")],
    version: Annotated[int | None, typer.Option(min=1, help="Another version than the active one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a document's text, as citations count in it."""
    from app.client import part
    from app.terminal import say, show_json

    with connected() as client:
        found = client.get(f"/v1/documents/{part(document)}/text", version=version)
    if as_json:
        show_json(found)
    else:
        say(found["text"])


@documents_app.command("add")
def add_documents(
    file: Annotated[list[Path], typer.Argument(help="Files to hand over.", exists=True, dir_okay=False, readable=True)],
    collection: InCollection = "default",
    title: Annotated[str | None, typer.Option(help="Title of a single file.")] = None,
    key: Annotated[str | None, typer.Option(help="Identity of a single file. Default: its name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Hand over files. The same again adds nothing; a changed one is a new version."""
    from app.client import part

    if len(file) > 1 and (title or key):
        raise typer.BadParameter("--title and --key go with a single file.")
    with connected() as client:
        chosen = client.collection(collection, create=True)
        path = f"/v1/collections/{part(chosen['id'])}/documents"
        names: dict[str, str] = {}
        for one in file:
            upload = {"file": (one.name, one.read_bytes())}
            job = client.call("POST", path, files=upload, data=_given(title=title, key=key))
            names[job["id"]] = one.name
        _follow(client, names, as_json=as_json)


@documents_app.command("remove")
def remove_document(
    document: ADocument, collection: InCollection = "default", yes: Yes = False, as_json: AsJson = False
) -> None:
    """Remove a document. One that its source still has comes back with the source's next sync."""
    from app.client import part

    with connected() as client:
        found = _document(client, document, collection)
        _confirm(f"Remove “{found['title']}”?", yes=yes)
        client.delete(f"/v1/documents/{part(found['id'])}")
    _removed(found, as_json=as_json)


def _document(client: Client, named: str, collection: str) -> dict[str, Any]:
    """The one document of this id, key or title."""
    from app.client import part

    if named.startswith("doc_"):
        found: list[dict[str, Any]] = [client.get(f"/v1/documents/{part(named)}")]
    else:
        found = [item for item in _documents(client, collection) if named in (item["key"], item["title"])]
    if not found:
        raise NotFound(f"There is no document “{named}” in {collection}.", remedy="attest documents list")
    if len(found) > 1:
        raise InvalidInput(f"“{named}” names {len(found)} documents.", remedy="Give the id of one of them.")
    return found[0]


@documents_app.command("versions")
def list_versions(document: ADocument, collection: InCollection = "default", as_json: AsJson = False) -> None:
    """Print the versions of a document, newest first."""
    from app.client import part
    from app.terminal import show_json, table

    with connected() as client:
        found = _document(client, document, collection)
        listed = client.get(f"/v1/documents/{part(found['id'])}/versions")["data"]
    if as_json:
        show_json({"data": listed})
        return
    rows = [
        (
            item["version"],
            "active" if item["active"] else f"removed {item['removed_at']}" if item["removed_at"] else "",
            item["created_at"],
            item["characters"],
        )
        for item in listed
    ]
    table(("version", "", "read", "characters"), rows)


@documents_app.command("diff")
def diff_versions(
    document: ADocument,
    old: Annotated[int, typer.Argument(min=1, help="Version before.")],
    new: Annotated[int | None, typer.Argument(min=1, help="Version after. Default: the active one.")] = None,
    collection: InCollection = "default",
    as_json: AsJson = False,
) -> None:
    """Print what changed in the text from one version to another, as a unified diff."""
    from app.client import part
    from app.terminal import hint, say, show_json

    with connected() as client:
        found = _document(client, document, collection)
        compared = client.get(f"/v1/documents/{part(found['id'])}/diff", old=old, new=new)
    if as_json:
        show_json(compared)
    elif compared["diff"]:
        say(compared["diff"])
    else:
        hint(f"Versions {compared['old']} and {compared['new']} say the same.")


@documents_app.command("rollback")
def roll_back(
    document: ADocument,
    version: Annotated[int, typer.Argument(min=1, help="The version that becomes the active one again.")],
    collection: InCollection = "default",
    as_json: AsJson = False,
) -> None:
    """Answer from an older version again, at once. It stays until the source has something new."""
    from app.client import part
    from app.terminal import say, show_json

    with connected() as client:
        found = _document(client, document, collection)
        now = client.post(f"/v1/documents/{part(found['id'])}/rollback", {"version": version})
    if as_json:
        show_json(now)
    else:
        say(f"“{now['title']}” answers from version {now['version']}; it was {found['version']}.")


@documents_app.command("edit")
def edit_document(
    document: ADocument,
    title: Annotated[str | None, typer.Option(help='Another title; "" goes back to the source\'s.')] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Replaces its tags; repeat for several.")] = None,
    value: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of its metadata; KEY= goes back to the source's.")
    ] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether questions may find it.")] = None,
    collection: InCollection = "default",
    as_json: AsJson = False,
) -> None:
    """Change what is said of a document. Nothing is read again, and every sync keeps it."""
    from app.client import part
    from app.terminal import say, show_json

    pairs = [item.partition("=") for item in value or []]
    if any(not key or not mark for key, mark, _ in pairs):
        raise typer.BadParameter("Write it as KEY=VALUE.", param_hint="--set")
    body: dict[str, Any] = {
        "reset": [f"metadata.{key}" for key, _, text in pairs if not text] + (["title"] if title == "" else [])
    }
    body |= {"title": title} if title else {}
    body |= {"tags": tag} if tag is not None else {}
    body |= {"metadata": {key: text for key, _, text in pairs if text}} if pairs else {}
    body |= {"enabled": enabled} if enabled is not None else {}
    with connected() as client:
        found = _document(client, document, collection)
        changed = client.call("PATCH", f"/v1/documents/{part(found['id'])}", json=body)
    if as_json:
        show_json(changed)
    else:
        say(f"“{changed['title']}” is {'enabled' if changed['enabled'] else 'disabled'}.")


@documents_app.command("purge")
def purge_document(
    document: ADocument, collection: InCollection = "default", yes: Yes = False, as_json: AsJson = False
) -> None:
    """Remove every trace of a document, also from free space of the files. Cannot be undone."""
    from app.client import part
    from app.terminal import hint, say, show_json

    with connected() as client:
        found = _document(client, document, collection)
        _confirm(f"Remove every trace of “{found['title']}”, its versions and the answers that quote it?", yes=yes)
        purged = client.post(f"/v1/documents/{part(found['id'])}/purge")
    if as_json:
        show_json(purged)
        return
    say(f"Purged {found['id']}: nothing of it is left in the data folder.")
    for backup in purged["backups"]:
        hint(f"The backup {backup['path']} of {backup['created_at']} still holds it.")
    if purged["comes_back"]:
        hint("Its source is synced: take it away there too, or the next sync reads it again.")


# ── collections and jobs ──────────────────────────────────────────────────────────────────────


@collections_app.command("list")
def list_collections(as_json: AsJson = False) -> None:
    """Print the collections that there are."""
    from app.terminal import show_json, table

    with connected() as client:
        found = list(client.pages("/v1/collections"))
    if as_json:
        show_json({"data": found})
    else:
        rows = [(item["name"], item["documents"], item["chunks"], item["id"]) for item in found]
        table(("name", "documents", "chunks", "id"), rows)


@collections_app.command("create")
def create_collection(name: str, as_json: AsJson = False) -> None:
    """Make a collection."""
    from app.terminal import say, show_json

    with connected() as client:
        made = client.post("/v1/collections", {"name": name})
    if as_json:
        show_json(made)
    else:
        say(f"Made {made['name']} ({made['id']}).")


@collections_app.command("remove")
def remove_collection(name: str, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a collection with its sources, documents and versions."""
    from app.client import part

    with connected() as client:
        found = client.collection(name)
        _confirm(f"Remove “{found['name']}” with its {found['documents']} documents?", yes=yes)
        client.delete(f"/v1/collections/{part(found['id'])}")
    _removed(found, as_json=as_json)


@jobs_app.command("list")
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


@jobs_app.command("show")
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


@jobs_app.command("retry")
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
        _follow(client, {again["id"]: f"{again['kind']} {job}"}, as_json=as_json)


@jobs_app.command("cancel")
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


# ── backups ───────────────────────────────────────────────────────────────────────────────────


@backup_app.command("create")
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


@backup_app.command("list")
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


@backup_app.command("verify")
def verify_backup(
    file: Annotated[Path, typer.Argument(help="The file.")],
    as_json: AsJson = False,
) -> None:
    """Look at every byte of a backup. Exit code 1 when something is wrong with it."""
    from app.terminal import complain, hint, say, show_json
    from rag.backup import verify

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


@backup_app.command("restore")
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
    from rag.backup import RESTORED_SETTINGS, restore

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
        hint(f"{done.cancelled} unfinished jobs were cancelled: start them again where their sources are there.")
    for note in done.verified.notes:
        hint(note)
    hint(f"The settings that it was made with are in {done.data_dir / RESTORED_SETTINGS}; keys were not kept.")


def _size(count: int) -> str:
    return f"{count / 1024**2:,.1f} MiB"


if __name__ == "__main__":
    main()
