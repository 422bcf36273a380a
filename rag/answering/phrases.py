"""The phrase of a sentence that answers a question: candidates, their features, and the one that is likely enough.

A sentence is cut into tokens with a coarse class each, by rules in English and by jieba's parts of speech in Chinese.
Candidates are short runs of them that begin and end where a phrase may. Features say how a run looks (a date, a number,
a name), what stands around it and where the question's words are; `rag/answering/phrase_weights.py` has their weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.answering.asked import Asked
from rag.answering.phrase_weights import ENOUGH, WEIGHTS
from rag.answering.shapes import shapes_of
from rag.text.keywords import tagged
from rag.text.language import ENGLISH_STOP_WORDS, simplified, terms

ASKS_FOR_A_PHRASE = frozenset(("date", "number", "person", "place", "thing", "definition"))
_LONGEST = 8  # tokens
_CLOSE = 5  # tokens from a phrase to a word of the question

_TOKEN = re.compile(
    r"\d{1,2}:\d{2}|\d[\d,]*(?:\.\d+)?(?:st|nd|rd|th|s)?|(?:[A-Za-z]\.){2,}|[^\W_]+(?:['’.\-–][^\W_]+)*|[$€£%°]|[^\w\s]|_"
)


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_CLASSES: dict[str, str] = {
    **dict.fromkeys(_listed("a an the"), "article"),
    **dict.fromkeys(
        _listed(
            """in on at by of from to for with into near between through during under over after before since until
            within around about as than"""
        ),
        "preposition",
    ),
    **dict.fromkeys(_listed("is was are were be been being became become becomes"), "be"),
    **dict.fromkeys(_listed("called named titled known termed dubbed entitled nicknamed"), "naming"),
    **dict.fromkeys(
        _listed("which who that whose whom where when while and or but because if although though"), "clause"
    ),
    **dict.fromkeys(
        _listed(
            """has have had will would can could may might must should do does did not also only often usually mainly
            primarily largely now then"""
        ),
        "function",
    ),
    **dict.fromkeys(
        _listed(
            """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
            seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand
            thousands million millions billion billions trillion dozen dozens half twice zero"""
        ),
        "number",
    ),
}
_CHINESE_CLASSES = {
    **dict.fromkeys("在于由从到为被把向对以与和及跟同给至", "preposition"),
    **dict.fromkeys("是即", "be"),
}
_PARTS_OF_SPEECH = {
    "m": "number", "q": "measure", "t": "time", "p": "preposition",
    "nr": "name", "nrt": "name", "nrfg": "name", "nt": "name", "ns": "name", "nz": "name", "eng": "name",
}  # fmt: skip
_NEVER_FIRST = _listed("punctuation function clause be preposition article measure naming")
_NEVER_LAST = _listed("function preposition be article clause")
_EMPTY = _listed("function preposition be article clause punctuation measure")  # carries no word of a question
_OF_ONE_RUN = _listed("name number")  # in English: a phrase does not begin or end inside a name or a number
_INSIDE_ENGLISH, _INSIDE_CHINESE = frozenset(",-–'’.&/\""), frozenset("·•-－—/.、")
_QUOTES, _OPENING = frozenset('"“”‘’「」『』《》〈〉'), frozenset("(（[")
_JOINING = _listed("and 和 与 、 ,")


@dataclass(frozen=True, slots=True)
class Token:
    """`own`: it is a word of the question; `noun`: it is the word that was asked for."""

    start: int
    end: int
    text: str
    kind: str
    own: bool
    noun: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """Offsets count in the sentence."""

    start: int
    end: int
    features: dict[str, float]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Of which of the sentences, where in it, and how likely it is the answer; `shares` has each sentence's."""

    sentence: int
    start: int
    end: int
    probability: float
    shares: tuple[float, ...]


def best_phrase(texts: Sequence[str], likely: Sequence[float], *, own: set[str], what: Asked) -> Phrase | None:
    """The likeliest phrase in these sentences, the likeliest sentence first; None where there is no candidate.

    `likely` says how probable it is that each sentence answers; `own` has the terms of the question.
    """
    if what.kind not in ASKS_FOR_A_PHRASE:
        return None
    weights = WEIGHTS["zh" if what.chinese else "en"]
    found: list[tuple[float, int, Candidate]] = []
    for number, (text, probability) in enumerate(zip(texts, likely, strict=True)):
        for item in candidates(text, probability, rank=number, own=own, what=what):
            score = sum(weights[name] * value for name, value in item.features.items() if name in weights)
            found.append((score, number, item))
    if not found:
        return None
    top = max(score for score, _, _ in found)
    total = sum(math.exp(score - top) for score, _, _ in found)
    shares = [0.0] * len(texts)
    for score, number, _ in found:
        shares[number] += math.exp(score - top) / total
    _, number, item = max(found, key=lambda one: one[0])
    return Phrase(number, item.start, item.end, 1.0 / total, tuple(shares))


def is_sure(phrase: Phrase, what: Asked) -> bool:
    return phrase.probability >= ENOUGH["zh" if what.chinese else "en"]


def candidates(sentence: str, probability: float, *, rank: int, own: set[str], what: Asked) -> Iterator[Candidate]:
    """The phrases of a sentence that is the `rank`-th likeliest to answer, from 0, with their features."""
    tokens = list(_chinese(sentence, own, what) if what.chinese else _english(sentence, own, what))
    shapes = shapes_of(sentence, chinese=what.chinese)
    asked_at = [at for at, token in enumerate(tokens) if token.own]
    of_all = {"sentence": math.log(probability + 1e-6), f"rank{rank}": 1.0}
    for first, last in _runs(tokens, shapes, chinese=what.chinese):
        features = _features(tokens, first, last, what=what, shapes=shapes, asked_at=asked_at)
        yield Candidate(tokens[first].start, tokens[last].end, features | of_all)


# ── tokens ────────────────────────────────────────────────────────────────────────────────────


def _english(sentence: str, own: set[str], what: Asked) -> Iterator[Token]:
    for match in _TOKEN.finditer(sentence):
        word = match[0]
        kind = _class_of(word)
        found = () if kind in _EMPTY else terms(word)
        asked, noun = any(term in own for term in found), any(term in what.noun for term in found)
        yield Token(match.start(), match.end(), word, kind, asked, noun)


def _class_of(word: str) -> str:
    lower = word.lower()
    if word[0].isdigit() or word in "$€£%°":
        return "number"
    if not word[0].isalnum():
        return "punctuation"
    if lower in _CLASSES:
        return _CLASSES[lower]
    if lower in ENGLISH_STOP_WORDS:
        return "function"
    if word[0].isupper():
        return "name"
    return "verb" if lower.endswith(("ed", "ing")) else "adverb" if lower.endswith("ly") else "word"


def _chinese(sentence: str, own: set[str], what: Asked) -> Iterator[Token]:
    at = 0
    for word, part in tagged(simplified(sentence)):
        start, at = at, at + len(word)
        if word.isspace():
            continue
        kind = _chinese_class_of(word, part)
        found = [] if kind == "punctuation" else [term for term in terms(word) if len(term) > 1 or len(word) == 1]
        asked, noun = any(term in own for term in found), any(term in what.noun for term in found)
        yield Token(start, at, sentence[start:at], kind, asked, noun)


def _chinese_class_of(word: str, part: str) -> str:
    if not any(map(str.isalnum, word)):
        return "punctuation"
    if word[0].isdigit():
        return "number"
    known = _CHINESE_CLASSES.get(word) or _PARTS_OF_SPEECH.get(part)
    if known:
        return known
    return "verb" if part[0] == "v" else "function" if part[0] in "ucrdyeo" else "word"


# ── runs of tokens ────────────────────────────────────────────────────────────────────────────


def _runs(
    tokens: Sequence[Token], shapes: dict[str, set[tuple[int, int]]], *, chinese: bool
) -> dict[tuple[int, int], None]:
    """First and last token of each candidate, in order: runs that may be phrases, and whatever has a shape."""
    found: dict[tuple[int, int], None] = {}
    for first, token in enumerate(tokens):
        if token.kind in _NEVER_FIRST:
            continue
        if not chinese and token.kind in _OF_ONE_RUN and first and tokens[first - 1].kind == token.kind:
            continue
        for last in _ends(tokens, first, chinese=chinese):
            found[first, last] = None
    starts = {token.start: at for at, token in enumerate(tokens)}
    ends = {token.end: at for at, token in enumerate(tokens)}
    for start, end in sorted(set().union(*shapes.values())):
        if start in starts and end in ends:
            found[starts[start], ends[end]] = None
    return found


def _ends(tokens: Sequence[Token], first: int, *, chinese: bool) -> Iterator[int]:
    for last in range(first, min(len(tokens), first + _LONGEST)):
        token = tokens[last]
        following = tokens[last + 1].kind if last + 1 < len(tokens) else "end"
        if token.kind == "punctuation":
            if token.text in _INSIDE_CHINESE if chinese else token.text in _INSIDE_ENGLISH and following in _OF_ONE_RUN:
                continue
            return
        if token.kind == "clause" and token.text.lower() != "and":
            return
        if token.kind in _NEVER_LAST:
            continue
        if chinese or token.kind not in _OF_ONE_RUN or following != token.kind:
            yield last


# ── features ──────────────────────────────────────────────────────────────────────────────────


def _features(
    tokens: Sequence[Token],
    first: int,
    last: int,
    *,
    what: Asked,
    shapes: dict[str, set[tuple[int, int]]],
    asked_at: Sequence[int],
) -> dict[str, float]:
    """By name. What depends on the kind that is asked for has that kind in front."""
    kind = "thing" if what.kind == "definition" else what.kind
    inside = tokens[first : last + 1]
    kinds = [token.kind for token in inside]
    found = {f"length {min(len(inside), 6)}": 1.0}
    if kind in ("thing", "person", "place"):
        found[f"{kind}: length {min(len(inside), 4)}"] = 1.0
    found |= _shaped(kind, inside[0].start, inside[-1].end, shapes)
    for side, name in (("before", _beside(tokens, first - 1)), ("after", _beside(tokens, last + 1))):
        found[f"{side} {name}"] = 1.0
        if side == "before" and kind in ("thing", "person", "place"):
            found[f"{kind}: before {name}"] = 1.0
        if side == "before" and name == "preposition":
            found[f"{kind}: before {tokens[first - 1].text.lower()}"] = 1.0
    for place, name in (("first", kinds[0]), ("last", kinds[-1])):
        found[f"{place} {name}"] = 1.0
        found[f"{kind}: {place} {name}"] = 1.0
    for name in ("preposition", "be", "function"):
        if name in kinds:
            found[f"has {name}"] = 1.0
    if "verb" in kinds[1:]:
        found["has verb"] = 1.0
    if any(token.text.lower() in _JOINING for token in inside):
        found["has and"] = 1.0
    found |= _about_question(tokens, first, last, asked_at)
    found |= _about_noun(tokens, first, last, kind)
    return found


def _shaped(kind: str, start: int, end: int, shapes: dict[str, set[tuple[int, int]]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, spans in shapes.items():
        if (start, end) in spans:
            found[f"{kind}: is {name}"] = 1.0
            continue
        touching = [span for span in spans if span[0] < end and start < span[1]]
        if touching:
            found[f"{kind}: touches {name}"] = 1.0
            if any(span[0] <= start and end <= span[1] for span in touching):
                found[f"{kind}: within {name}"] = 1.0
            elif any(start <= span[0] and span[1] <= end for span in touching):
                found[f"{kind}: around {name}"] = 1.0
    return found


def _beside(tokens: Sequence[Token], at: int) -> str:
    if not 0 <= at < len(tokens):
        return "border"
    token = tokens[at]
    if token.kind != "punctuation":
        return token.kind
    return "quote" if token.text in _QUOTES else "bracket" if token.text in _OPENING else "punctuation"


def _about_question(tokens: Sequence[Token], first: int, last: int, asked_at: Sequence[int]) -> dict[str, float]:
    inside = tokens[first : last + 1]
    own = sum(token.own for token in inside)
    content = sum(token.kind not in _EMPTY for token in inside)
    away = [first - at if at < first else at - last for at in asked_at if not first <= at <= last]
    asked = max(len(asked_at), 1)
    return {
        "own": own / max(content, 1),
        "all own": float(own >= content),
        "some own": float(own > 0),
        "own before": _next_is_own(tokens, first - 1, -1),
        "own after": _next_is_own(tokens, last + 1, 1),
        "near": 1.0 / (1 + min(away)) if away else 0.0,
        "far": sum(min(one, 15) for one in away) / len(away) / 15 if away else 1.0,
        "close": sum(one <= _CLOSE for one in away) / asked,
        "behind": sum(at < first for at in asked_at) / asked,
        "position": first / len(tokens),
    }


def _next_is_own(tokens: Sequence[Token], at: int, step: int) -> float:
    """Whether the next word that carries something, at most three tokens away, is one of the question."""
    for place in range(at, at + 3 * step, step):
        if 0 <= place < len(tokens) and tokens[place].kind not in _EMPTY:
            return float(tokens[place].own)
    return 0.0


def _about_noun(tokens: Sequence[Token], first: int, last: int, kind: str) -> dict[str, float]:
    there = {
        "noun inside": any(token.noun for token in tokens[first : last + 1]),
        "noun last": tokens[last].noun,
        "noun after": any(token.noun for token in tokens[last + 1 : last + 3]),
        "noun before": any(token.noun for token in tokens[max(first - 2, 0) : first]),
    }
    found = {name: 1.0 for name, is_there in there.items() if is_there}
    return found | {f"{kind}: {name}": 1.0 for name in found}
