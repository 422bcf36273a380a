"""What a question found, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.models import Hit
from rag.ports import Embedder
from rag.retrieval.retrieve import Found, View
from rag.search.terms import inverse_document_frequency
from rag.text.keywords import keywords
from rag.text.language import terms
from tests.fakes import HashEmbedder

LEAVE = "How many days of paid leave do employees in Rotterdam have?"
TOLD = "Employees in Rotterdam have 27 days of paid leave a year."
BREAD = "Sourdough has to rise overnight, and longer where the kitchen is cold."
PAY = "夜班津贴是多少元？"
PAID = "夜班津贴为每班 58 元，随工资发放。"


def hit(text: str, cosine: float | None, *, number: int = 0, title: str = "Handbook") -> Hit:
    arms = {} if cosine is None else {"vectors": cosine}
    return Hit(number, "c", f"d{number}", 1, title, f"{number}.txt", (), 0, len(text), text, "", 9, 0.0, arms)


def found(
    question: str,
    *texts: str,
    cosines: Sequence[float | None] | None = None,
    coverage: float = 1.0,
    others: Sequence[str] = (),
    embedder: Embedder | None = None,
) -> Found:
    """As if these passages had come up, in a collection that has the other texts as well, many times each."""
    cosines = [None] * len(texts) if cosines is None else cosines
    every = [set(terms(text)) for text in (*texts, *others)]

    def rarity(wanted: Sequence[str]) -> list[float]:
        return [inverse_document_frequency(100, 5 * sum(term in one for one in every)) for term in wanted]

    hits = tuple(
        hit(text, cosine, number=number) for number, (text, cosine) in enumerate(zip(texts, cosines, strict=True))
    )
    view = View(embedder or HashEmbedder(), np.zeros(256, dtype=np.float32), coverage)
    return Found(hits, {"c": len(texts)}, keywords(question, rarity), {"c": view}, {}, question=question)
