"""Can the embedder read this collection? Asked of the texts themselves: what it knows of their tokens, and whether a
sentence finds the passage that it was taken from.

An embedder without a token for the unknown (bytes, characters) knows every token of a language that it never learned,
so only the second question tells. What comes out is stored by index and language, shown by the doctor, and limits what
vectors weigh for questions in that language.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from rag.catalog import indexes, versions
from rag.catalog.indexes import Index, Probe, Text
from rag.knowledge import KnowledgeBase
from rag.ports import Embedder
from rag.text.language import language_of, sentences

log = logging.getLogger(__name__)

T = TypeVar("T")

_READ = 1_200  # chunks whose language is looked at, evenly spread: a language with a fiftieth of them is still seen
_AMONG = 200  # chunks of the language that a sentence has to find its own among
_ASKED = 32  # sentences
_FIRST = 5  # where its own passage has to be, of 100 and more; of a few, where chance would not put it
_NEWEST = 64  # chunks that say whether a new language has come
_LEAST_CHARACTERS = {"en": 24, "zh": 8}  # of a sentence that can stand for its passage
# Below this many sentences a probe is shown, and limits nothing.
_ENOUGH = 8
# From these on, an embedder is taken to read the language. Tables and near-duplicates keep a good one below 1: on the
# sample corpus all-MiniLM-L6-v2 has .99 and .81 for English, .43 and .59 for Chinese.
_GOOD_COVERAGE, _GOOD_FOUND = 0.95, 0.65


def understood(probe: Probe) -> float:
    """How much of a question in this language the embedder can be trusted to understand, 0 to 1."""
    if probe.samples < _ENOUGH:
        return 1.0
    return min(1.0, probe.coverage / _GOOD_COVERAGE, probe.found / _GOOD_FOUND)


def probe_if_due(base: KnowledgeBase, index: Index, *, embedder: Embedder) -> list[str]:
    """Probe the languages that were not probed yet, or whose chunks have doubled since. Returns which.

    When nothing is due, which is nearly always, this costs two look-ups and the reading of 64 chunks.
    """
    with base.catalog.read() as snapshot:
        known = indexes.probes_of(snapshot, [index.id]).get(index.id, {})
        newest = {language_of(text) for text in indexes.newest_texts(snapshot, index.id, limit=_NEWEST)}
        total = indexes.count_chunks(snapshot, index.id)
        if newest <= known.keys() and total < 2 * sum(probe.chunks for probe in known.values()):
            return []
        texts = indexes.spread(snapshot, index.id, limit=_READ)
        active = indexes.count_active(snapshot, index.id)
    probed = []
    for language in ("en", "zh"):
        own = [text for text in texts if language_of(text.text) == language]
        count = round(len(own) / len(texts) * active) if texts else 0
        before = known.get(language)
        if own and (before is None or count >= 2 * before.chunks):
            _probe(base, index, language, own, count, embedder)
            probed.append(language)
    return probed


def _probe(
    base: KnowledgeBase, index: Index, language: str, own: Sequence[Text], count: int, embedder: Embedder
) -> None:
    among = evenly(own, _AMONG)
    with base.catalog.read() as snapshot:
        keys, matrix = versions.vectors_of(snapshot, [text.key for text in among])
    rows = {key: row for row, key in enumerate(keys)}
    among = [text for text in among if text.key in rows]
    if not among:
        return
    coverage = float(np.mean([embedder.coverage(text.text) for text in evenly(among, _ASKED)]))
    first = max(1, min(_FIRST, len(among) // 20))
    asked = found = 0
    for text in evenly(among, _ASKED):
        start, end = middle_sentence(text.text)
        scores = matrix @ embedder.embed_query(text.text[start:end])
        # Equal texts stand in many documents, and each of them is as good. What all are equally near to finds nothing.
        own_score = float(scores[rows[text.key]])
        before = sum(float(scores[rows[other.key]]) >= own_score for other in among if other.text != text.text)
        asked += 1
        found += before < first
    with base.catalog.write() as connection:
        indexes.save_probe(
            connection,
            index.id,
            language,
            coverage=round(coverage, 4),
            found=round(found / asked, 4),
            samples=asked,
            chunk_count=count,
        )
    log.info(
        "%s knows %.0f %% of the tokens (%s) and finds %d of %d passages by a sentence.",
        embedder.name,
        100 * coverage,
        language,
        found,
        asked,
    )


def middle_sentence(text: str) -> tuple[int, int]:
    """Where the sentence nearest to the middle stands, of those that say enough; the longest where none does."""
    spans = sentences(text) or [(0, len(text))]
    least = _LEAST_CHARACTERS[language_of(text)]
    full = [span for span in spans if span[1] - span[0] >= least]
    if not full:
        return max(spans, key=lambda span: span[1] - span[0])
    middle = len(text) / 2
    return min(full, key=lambda span: abs((span[0] + span[1]) / 2 - middle))


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]
