"""Single documents: listed, read, handed over, edited, removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.shared import AsJson, InCollection, Yes, connected, follow, given, make_sure, say_removed
from rag.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from app.client import Client

group = typer.Typer(help="Single documents.", no_args_is_help=True)

ADocument = Annotated[str, typer.Argument(help="Id, key or title.")]


@group.command("list")
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


@group.command("show")
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


@group.command("add")
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
            job = client.call("POST", path, files=upload, data=given(title=title, key=key))
            names[job["id"]] = one.name
        follow(client, names, as_json=as_json)


@group.command("remove")
def remove_document(
    document: ADocument, collection: InCollection = "default", yes: Yes = False, as_json: AsJson = False
) -> None:
    """Remove a document. One that its source still has comes back with the source's next sync."""
    from app.client import part

    with connected() as client:
        found = _document(client, document, collection)
        make_sure(f"Remove “{found['title']}”?", yes=yes)
        client.delete(f"/v1/documents/{part(found['id'])}")
    say_removed(found, as_json=as_json)


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


@group.command("versions")
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


@group.command("diff")
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


@group.command("rollback")
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


@group.command("edit")
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


@group.command("purge")
def purge_document(
    document: ADocument, collection: InCollection = "default", yes: Yes = False, as_json: AsJson = False
) -> None:
    """Remove every trace of a document, also from free space of the files. Cannot be undone."""
    from app.client import part
    from app.terminal import hint, say, show_json

    with connected() as client:
        found = _document(client, document, collection)
        make_sure(f"Remove every trace of “{found['title']}”, its versions and the answers that quote it?", yes=yes)
        purged = client.post(f"/v1/documents/{part(found['id'])}/purge")
    if as_json:
        show_json(purged)
        return
    say(f"Purged {found['id']}: nothing of it is left in the data folder.")
    for backup in purged["backups"]:
        hint(f"The backup {backup['path']} of {backup['created_at']} still holds it.")
    if purged["comes_back"]:
        hint("Its source is synced: take it away there too, or the next sync reads it again.")
