"""`attest tune`: how a collection's passages are ranked, fitted on questions of one's own; see docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.shared import AsJson, connected

if TYPE_CHECKING:
    from app.client import Client
    from quality.models import Question


def tune(
    questions: Annotated[
        list[Path] | None, typer.Argument(help="Questions with their documents, in any form that attest eval reads.")
    ] = None,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Name or id of the collection.")] = "default",
    feedback: Annotated[bool, typer.Option("--feedback", help="Fit on what people said of answers.")] = False,
    limit: Annotated[int, typer.Option(min=60, max=1000, help="Questions at most, always the same ones.")] = 500,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the defaults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit a collection's ranking on half of the questions; keep it if the other half finds measurably more."""
    from app.client import part
    from app.terminal import hint, say, show_json

    if reset and (questions or feedback):
        raise typer.BadParameter("--reset stands alone.", param_hint="--reset")
    with connected(working=True) as client:
        chosen = client.collection(collection)
        path = f"/v1/collections/{part(chosen['id'])}/ranking"
        if reset:
            client.delete(path)
            told = client.get(path)
        elif questions or feedback:
            asked = _asked(client, collection, questions or [], feedback=feedback, limit=limit)
            client.wait_until_ready()
            told = client.post(path, {"questions": [_shown(item) for item in asked]})
        else:
            told = client.get(path)
    if as_json:
        show_json(told)
        return
    for language, fitted in sorted(told["languages"].items()):
        say(verdict(chosen["name"], language, fitted))
    if not told["languages"]:
        say(f"“{chosen['name']}” is ranked by the defaults.")
    for language, count in sorted(told.get("too_few", {}).items()):
        hint(f"{language}: {count} questions are too few to fit anything.")
    if told.get("not_here"):
        hint(f"Left out: {told['not_here']} questions whose documents are not in “{chosen['name']}”.")


def verdict(collection: str, language: str, fitted: Mapping[str, Any]) -> str:
    """What was fitted and what it was worth, in a sentence."""
    gain, before, after = fitted["gain"], fitted["before"], fitted["after"]
    figures = (
        f"nDCG@10 {before['ndcg@10']:.3f} → {after['ndcg@10']:.3f} ({gain['value']:+.3f}, 95 % interval "
        f"{gain['low']:+.3f} to {gain['high']:+.3f}), hit@1 {before['hit@1']:.3f} → {after['hit@1']:.3f}, on "
        f"{fitted['measured_on']} questions that fitted nothing"
    )
    if fitted["kept"]:
        return f"“{collection}”, {language}: ranked as fitted on {fitted['fitted_on']} questions. {figures}."
    return f"“{collection}”, {language}: the defaults rank on, because what was fitted is not surely better: {figures}."


def _asked(client: Client, collection: str, paths: list[Path], *, feedback: bool, limit: int) -> list[Question]:
    """Those that have gold places and stand alone."""
    from app.eval_run import feedback_dataset
    from quality import datasets
    from quality.models import Dataset
    from rag.errors import InvalidInput

    found = [one for path in paths for one in datasets.open_dataset(path)]
    if feedback:
        found.append(feedback_dataset(client, collection))
    asked = [
        replace(item, id=f"{one.name} {item.id}")
        for one in found
        for item in one.questions
        if item.answerable and item.gold and not item.history
    ]
    if not asked:
        raise InvalidInput(
            "None of the questions names the documents where its answer stands.",
            remedy='Write them so: {"question": "…", "documents": ["handbook.pdf"]}.',
        )
    return list(datasets.sample(Dataset("all", tuple(asked)), limit, seed=0).questions)


def _shown(item: Question) -> dict[str, Any]:
    places = [{"document": gold.document, "page": gold.page, "row": gold.row} for gold in item.gold]
    return {"question": item.text, "documents": places, "needs_all": not item.any_gold}
