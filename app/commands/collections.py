"""Collections: made, removed, and indexed anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.shared import AsJson, InCollections, Yes, connected, follow, given, make_sure, say_removed
from rag.errors import NotFound

if TYPE_CHECKING:
    from app.client import Client

group = typer.Typer(help="Knowledge bases.", no_args_is_help=True)


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

    body = given(chunk_tokens=chunk_tokens, force=force, back=back, confirm=confirm)
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
            follow(client, names, as_json=as_json)
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


@group.command("list")
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


@group.command("create")
def create_collection(name: str, as_json: AsJson = False) -> None:
    """Make a collection."""
    from app.terminal import say, show_json

    with connected() as client:
        made = client.post("/v1/collections", {"name": name})
    if as_json:
        show_json(made)
    else:
        say(f"Made {made['name']} ({made['id']}).")


@group.command("remove")
def remove_collection(name: str, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a collection with its sources, documents and versions."""
    from app.client import part

    with connected() as client:
        found = client.collection(name)
        make_sure(f"Remove “{found['name']}” with its {found['documents']} documents?", yes=yes)
        client.delete(f"/v1/collections/{part(found['id'])}")
    say_removed(found, as_json=as_json)
