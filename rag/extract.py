"""Answers without any model: the sentences of the passages that best answer the question, each with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag.fusion import dense_weight
from rag.language import sentences, terms
from rag.models import Hit
from rag.ports import Embedder, Vectors

_PASSAGES = 5  # whose sentences are looked at
_EMBEDDED = 16  # sentences whose vectors are compared, the best by words; each costs about a millisecond
_SENTENCES = 3  # in an answer, at the most
_ENOUGH = 0.72  # of the best sentence's score, for another to stand beside it
_OWN, _AROUND, _PASSAGE = 0.55, 0.20, 0.25  # what a sentence's own words, its surroundings and its passage count


@dataclass(frozen=True, slots=True)
class Extract:
    """A sentence of a hit; offsets count in the version's canonical text."""

    hit: Hit
    start: int
    end: int
    text: str
    score: float


def extract(
    hits: Sequence[Hit], *, rarity: Mapping[str, float], coverage: float, vector: Vectors, embedder: Embedder
) -> list[Extract]:
    """One to three sentences, the best first; none where there are no hits."""
    candidates = [item for hit in hits[:_PASSAGES] for item in _by_words(hit, rarity)]
    candidates = sorted(candidates, key=lambda item: -item.score)[:_EMBEDDED]
    if not candidates:
        return []
    scored = _with_vectors(candidates, coverage=coverage, vector=vector, embedder=embedder)
    best = scored[0].score
    chosen: list[Extract] = []
    for item in scored:
        if len(chosen) == _SENTENCES or item.score < _ENOUGH * best:
            break
        if not any(_says_the_same(item, other) for other in chosen):
            chosen.append(item)
    return chosen


def term_share(wanted: Mapping[str, float], text: str) -> float:
    """The share of the wanted terms that the text has, the rare ones counting more; 1 when nothing is wanted."""
    total = sum(wanted.values())
    if not total:
        return 1.0
    present = set(terms(text))
    return sum(weight for term, weight in wanted.items() if term in present) / total


def _by_words(hit: Hit, rarity: Mapping[str, float]) -> list[Extract]:
    around = term_share(rarity, f"{hit.heading}\n{hit.text}")
    return [
        Extract(
            hit,
            hit.start + start,
            hit.start + end,
            hit.text[start:end],
            _OWN * term_share(rarity, hit.text[start:end]) + _AROUND * around + _PASSAGE * hit.score,
        )
        for start, end in sentences(hit.text)
        if any(character.isalnum() for character in hit.text[start:end])
    ]


def _with_vectors(
    candidates: Sequence[Extract], *, coverage: float, vector: Vectors, embedder: Embedder
) -> list[Extract]:
    """The candidates with what their vectors say mixed in, best first."""
    share = dense_weight(coverage)
    if share > 0.05:
        cosines = embedder.embed_passages([item.text for item in candidates]) @ vector
        stretched = np.clip(cosines, 0.0, 1.0)
        candidates = [
            Extract(item.hit, item.start, item.end, item.text, (1 - share) * item.score + share * float(cosine))
            for item, cosine in zip(candidates, stretched, strict=True)
        ]
    return sorted(candidates, key=lambda item: (-item.score, item.hit.chunk_id, item.start))


def _says_the_same(one: Extract, other: Extract) -> bool:
    mine, theirs = set(terms(one.text)), set(terms(other.text))
    return len(mine & theirs) >= 0.8 * min(len(mine), len(theirs)) if mine and theirs else True
