"""What people say of answers: given, listed, removed."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app.commands.shared import AsJson, connected, given

_GIVE = "give"


class _AnswerFirst(TyperGroup):
    """`attest feedback ANSWER_ID --right` is short for `attest feedback give ANSWER_ID --right`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_GIVE, *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=_AnswerFirst,
    help="Say whether answers were right: attest feedback ANSWER_ID --right. What was said can be measured with: "
    "attest eval --feedback.",
    no_args_is_help=True,
)


@group.command(_GIVE)
def give(
    answer: Annotated[str | None, typer.Argument(help="Id of the answer, as ask shows it with --json.")] = None,
    right: Annotated[bool | None, typer.Option("--right/--wrong", help="Whether the answer was right.")] = None,
    evidence: Annotated[
        bool | None, typer.Option("--right-source/--wrong-source", help="Whether it cited the right passages.")
    ] = None,
    expected: Annotated[str | None, typer.Option(help="The answer as it should have been.")] = None,
    document: Annotated[
        list[str] | None, typer.Option("--document", "-d", metavar="ID", help="A document that has it; repeat.")
    ] = None,
    comment: Annotated[str | None, typer.Option(help="Anything else.")] = None,
    question: Annotated[str | None, typer.Option(help="The question, where no answer is named.")] = None,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Where that is asked.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether an answer was right, and what it should have been."""
    from app.terminal import say, show_json

    if answer is None and question is None:
        raise typer.BadParameter("Name an answer, or give a --question.", param_hint="ANSWER")
    said = {"helpful": right, "evidence": evidence}
    body = {name: value for name, value in said.items() if value is not None} | given(
        answer_id=answer,
        question=question,
        collection=collection,
        expected=expected,
        documents=document,
        comment=comment,
    )
    if not body.keys() - {"answer_id", "question", "collection"}:
        raise typer.BadParameter("Say something of it: --right, --wrong, --expected, --document or --comment.")
    with connected() as client:
        made = client.post("/v1/feedback", body)
    if as_json:
        show_json(made)
    else:
        say(f"Noted ({made['id']}): {made['question']}")


@group.command("list")
def list_feedback(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Name or id. Default: all.")] = None,
    right: Annotated[bool | None, typer.Option("--right/--wrong", help="Only what was right, or wrong.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="2026-03-31, or a time with its zone.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Print at most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Print what was said, newest first."""
    from app.terminal import show_json, table

    with connected() as client:
        helpful = None if right is None else str(right).lower()
        pages = client.pages("/v1/feedback", collection=collection, helpful=helpful, since=since, limit=min(limit, 500))
        found = list(islice(pages, limit))
    if as_json:
        show_json({"data": found})
        return
    rows = [
        (
            item["created_at"],
            _verdict(item),
            item["question"],
            item["expected"] or "",
            item["comment"] or "",
            item["id"],
        )
        for item in found
    ]
    table(("when", "answer", "question", "expected", "comment", "id"), rows)


def _verdict(item: dict[str, Any]) -> str:
    said = {True: "right", False: "wrong", None: ""}[item["helpful"]]
    return f"{said}, wrong source".lstrip(", ") if item["evidence"] is False else said


@group.command("remove")
def remove(feedback: Annotated[str, typer.Argument(metavar="ID", help="Its id.")], as_json: AsJson = False) -> None:
    """Remove what was said."""
    from app.client import part
    from app.terminal import say, show_json

    with connected() as client:
        client.delete(f"/v1/feedback/{part(feedback)}")
    if as_json:
        show_json({"removed": feedback})
    else:
        say(f"Removed {feedback}.")
