"""Questions: answers with their sources, or the passages alone."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from app.commands.narrowing import narrowed
from app.commands.shared import UNANSWERED, AsJson, InCollections, connected, given
from rag.errors import AttestError

AsOf = Annotated[
    str | None, typer.Option(metavar="TIME", help="What was active then: 2026-03-31, or a time with its zone.")
]
TopK = Annotated[int | None, typer.Option(min=1, max=50, help="Passages to look for.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Only documents of which this is true: department=Sales, 'year>=2021', @title~warranty. Operators are = "
        "!= >= <= > < and ~ (contains). Several: all of them.",
    ),
]
FilterOption = Annotated[
    str | None, typer.Option("--filter", metavar="JSON", help="The same as JSON, with and, or, not: docs/filters.md.")
]


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from stdin.")],
    collection: InCollections = None,
    top_k: TopK = None,
    as_of: AsOf = None,
    where: Where = None,
    filter_json: FilterOption = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question, with sources. Exit code 3 when the sources have no answer."""
    from app.terminal import Told, show_json

    body = _question(question, collection, top_k, as_of, narrowed(where, filter_json))
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


def search(
    question: Annotated[str, typer.Argument(help="What to look for; - reads it from stdin.")],
    collection: InCollections = None,
    top_k: TopK = None,
    as_of: AsOf = None,
    where: Where = None,
    filter_json: FilterOption = None,
    context_tokens: Annotated[
        int | None,
        typer.Option(min=100, help="Print what a language model should be shown, within so many tokens."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the passages that answer best, with their scores."""
    from app.terminal import hint, show_context, show_hits, show_json

    body = _question(question, collection, top_k, as_of, narrowed(where, filter_json))
    body |= given(context_tokens=context_tokens)
    with connected() as client:
        found = client.post("/v1/search", body)
    if as_json:
        show_json(found)
    elif found["context"]:
        show_context(found["context"])
    elif found["hits"]:
        show_hits(found["hits"])
    else:
        hint("Nothing was found.")


def _question(
    question: str,
    collections: list[str] | None,
    top_k: int | None,
    as_of: str | None,
    filters: dict[str, Any] | None,
) -> dict[str, Any]:
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise typer.BadParameter("The question is empty.", param_hint="QUESTION")
    body: dict[str, Any] = {"question": text.strip()}
    if filters is not None:  # an empty one is for the service to refuse
        body["filters"] = filters
    return body | given(collection=collections, top_k=top_k, as_of=as_of)
