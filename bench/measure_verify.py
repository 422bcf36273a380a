"""Measures `rag/answering/verify.py`: is what a source says called supported, and what it does not say not?

    ATTEST_EVAL_DATA=… .venv/bin/python bench/measure_verify.py            # the half that nothing was fitted on
    ATTEST_EVAL_DATA=… .venv/bin/python bench/measure_verify.py --half even --show number

Claims are made mechanically of questions whose evidence is known (EXPMRC: marked sentences; SQuAD, CMRC: the sentence
with the answer) and held against the whole passage. Right ones: the evidence sentence itself, its one clause with the
answer, the same with numbers and dates in another form, and the question turned into a statement with its answer. Wrong
ones: the answer, a number or a name exchanged for another one (of the passage, where it has one), a negation put in,
the evidence of another question, and the statement with another answer. RGB: statements with the true answer against
passages that were edited to say a false one, and the reverse.

Questions whose text has an even hash fit, odd ones report. Nothing here shares code with what it measures, apart from
sentence ends and words.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.embedding.embedder import SentenceTransformerEmbedder
from rag.models import Hit, Passage
from rag.ports import Embedder
from rag.text.keywords import tagged
from rag.text.language import sentences

SETS = ("expmrc_en", "squad_en", "expmrc_zh", "cmrc_zh")
RGB = ("en_fact", "zh_fact")
SUPPORTS = ("supported", "weak", "unsupported")

_EN_ASKS = re.compile(
    r"\b(?:how (?:many|much|long|far|old|often)"
    r"|(?:in |on |at |to )?(?:what|which)"
    r"(?: (?!is|was|are|were|did|do|does|has|had|have|can|could|would|will|may)[\w-]+){0,3}"
    r"|who(?:m|se)?|when|where)\b",
    re.IGNORECASE,
)
_ZH_ASKS = re.compile(
    "什么(?:时候|地方|时间|名字|原因)?|哪[一两几]?(?:年|月|日|天|个|里|儿|位|些|家|国|座|种|部|届|所|省|市|支|项|条)?"
    "|多少|多久|何时|何处|何地|何人|谁|几"
)
_WHY = re.compile(r"\bwhy\b|\bhow (?!many|much|long|far|old|often)|为什么|为何|怎么|怎样|如何|原因", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_EN_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*")
_EN_VERB = re.compile(r"\b(is|was|are|were|has|had|have|can|will|would|could|may)\b(?! not)")
_ZH_VERB = re.compile(
    "(?<![不没还只总而于就凡若])是(?!否|非|不)|(?<=[\u4e00-\u9fff])(?:成为|位于|获得|包括|担任|属于|参加)"
)
_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
_EN_DATE = re.compile(rf"\b({'|'.join(_MONTHS)}) (\d{{1,2}}), (\d{{4}})\b")
_ZH_DATE = re.compile(r"(\d{4})年(\d{1,2})月(\d{1,2})日")


@dataclass(frozen=True)
class Item:
    dataset: str
    language: str
    question: str
    answer: str
    title: str
    passage: str
    evidence: str

    @property
    def fits(self) -> bool:
        return _digest(self.question) % 2 == 0


@dataclass(frozen=True)
class Trial:
    """A claim against a passage. `right`: whether the passage says it."""

    item: Item
    kind: str
    right: bool
    claim: str
    passage: str
    gold: str = ""  # the sentence that the quote should touch


def _digest(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def load(data: Path, name: str) -> list[Item]:
    folder, language = data / name, "zh" if "zh" in name else "en"
    documents = {one["doc_id"]: one for one in _lines(folder / "corpus.jsonl")}
    found = []
    for one in _lines(folder / "queries.jsonl"):
        document = documents.get(one["gold_doc_ids"][0])
        if document is None or not one["answers"]:
            continue
        text = document["text"]
        evidence = [item for item in one.get("evidence", ()) if item in text] or _around(text, one["answers"][0])
        if evidence:
            best = min(evidence, key=len)
            found.append(Item(name, language, one["question"], one["answers"][0], document["title"], text, best))
    return found


def _around(text: str, answer: str) -> list[str]:
    """The sentence with the answer, where there is but one."""
    there = [text[start:end] for start, end in sentences(text) if answer in text[start:end]]
    return there if len(there) == 1 else []


def _lines(path: Path) -> Iterator[dict[str, object] | dict[str, str]]:  # type: ignore[type-arg]
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


# ── claims ────────────────────────────────────────────────────────────────────────────────────


def trials(items: Sequence[Item]) -> Iterator[Trial]:
    for item in items:
        chance = random.Random(_digest(item.question))  # noqa: S311  # to be the same again
        others = [one for one in items if one.passage != item.passage and one.fits == item.fits]
        other = chance.choice(others)
        yield from _right(item)
        yield from _wrong(item, items, chance)
        yield Trial(item, "elsewhere", False, item.evidence, other.passage)


def _right(item: Item) -> Iterator[Trial]:
    for kind, claim in (
        ("verbatim", item.evidence),
        ("clause", _clause(item)),
        ("reformatted", _reformatted(item)),
        ("restated", statement(item.question, item.answer)),
    ):
        if claim:
            yield Trial(item, kind, True, claim, item.passage, item.evidence)


def _wrong(item: Item, items: Sequence[Item], chance: random.Random) -> Iterator[Trial]:
    false = _false_answer(item, items, chance)
    if false:
        if item.answer in item.evidence:
            yield Trial(item, "answer", False, item.evidence.replace(item.answer, false), item.passage)
        said = statement(item.question, false)
        if said:
            yield Trial(item, "restated wrong", False, said, item.passage)
    for kind, claim in (
        ("number", _exchanged(item, _NUMBER.findall, chance)),
        ("name", _exchanged(item, _zh_names if item.language == "zh" else _EN_NAME.findall, chance)),
        ("negated", _negated(item)),
    ):
        if claim and claim != item.evidence:
            yield Trial(item, kind, False, claim, item.passage)


def _clause(item: Item) -> str:
    """The clause of the evidence with the answer, where that is not all of it and says enough."""
    parts = re.split(r"(?<=[，；,;])\s*", item.evidence)
    own = [part.strip("，；,; ") for part in parts if item.answer in part]
    least = 10 if item.language == "zh" else 30
    return own[0] if len(parts) > 1 and own and len(own[0]) >= least else ""


def _reformatted(item: Item) -> str:
    text = _EN_DATE.sub(lambda m: f"{m[3]}-{_MONTHS.index(m[1]) + 1:02}-{int(m[2]):02}", item.evidence)
    text = _ZH_DATE.sub(lambda m: f"{m[1]}-{int(m[2]):02}-{int(m[3]):02}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\b(\d{1,2}) million\b", r"\g<1>,000,000", text)
    text = re.sub(r"(?<![\d.])(\d{1,2})万(?=[人元名辆])", r"\g<1>0000", text)
    text = re.sub(r"(\d+(?:\.\d+)?)%", r"\1 percent" if item.language == "en" else r"百分之\1", text)
    return text if text != item.evidence else ""


def statement(question: str, answer: str) -> str:
    """The question with its answer in the place of the words that ask; not always grammatical, and sayable."""
    asks = _ZH_ASKS if re.search("[\u4e00-\u9fff]", question) else _EN_ASKS
    if _WHY.search(question) or len(answer) > 40 or len(asks.findall(question)) != 1:
        return ""
    bare = question.strip().rstrip("?？。 ")
    return asks.sub(lambda _: answer, bare, count=1) + ("。" if asks is _ZH_ASKS else ".")


def _form(text: str) -> str:
    if re.search(r"\d", text):
        return re.sub(r"[\d.,]+", "9", text) if re.search("[\u4e00-\u9fff]", text) else "9"
    return "A" if text[:1].isupper() else "a" if text.isascii() else "汉"


def _false_answer(item: Item, items: Sequence[Item], chance: random.Random) -> str:
    """Another question's answer of the same form, of this passage where there is one; not in the evidence."""
    fitting = [
        one
        for one in items
        if _form(one.answer) == _form(item.answer)
        and one.answer not in item.evidence
        and item.answer not in one.answer
        and abs(len(one.answer) - len(item.answer)) <= 6
        and one.fits == item.fits
    ]
    near = [one.answer for one in fitting if one.passage == item.passage]
    every = [one.answer for one in fitting]
    return chance.choice(near or every) if every else ""


def _zh_names(text: str) -> list[str]:
    return [word for word, part in tagged(text) if part in ("nr", "ns", "nt", "nz", "nrt") and len(word) > 1]


def _exchanged(item: Item, find: object, chance: random.Random) -> str:
    """One of what is found in the evidence for another one of the passage that the evidence does not have."""
    own, every = find(item.evidence), find(item.passage)  # type: ignore[operator]
    others = [one for one in every if one not in item.evidence and not any(one in mine or mine in one for mine in own)]
    if not own or not others:
        return ""
    mine = chance.choice(own)
    if find is _NUMBER.findall:
        others = [one for one in others if len(one) == len(mine)] or others
        return re.sub(rf"(?<![\d.,]){re.escape(mine)}(?![\d.,]*\d)", chance.choice(others), item.evidence)
    return item.evidence.replace(mine, chance.choice(others))


def _negated(item: Item) -> str:
    if item.language == "zh":
        return _ZH_VERB.sub(lambda m: ("不" if m[0] in "是位于属于包括" else "没有") + m[0], item.evidence, count=1)
    return _EN_VERB.sub(r"\1 not", item.evidence, count=1)


def counterfactual(data: Path, name: str) -> Iterator[Trial]:
    """The edited sentence against the true passages and the true one against the edited; and either with its own."""
    language = name[:2]
    for one in _lines(data / "rgb" / f"{name}.jsonl"):
        true, false = str(one["answers"][0]), str(one.get("fake_answer") or "")
        if not false or true in false or false in true:
            continue
        for passage, edited in zip(one["positive"], one["positive_wrong"], strict=False):
            if false in passage or true in edited or true not in passage or false not in edited:
                continue
            item = Item(f"rgb {name}", language, str(one["question"]), true, "", passage, "")
            told, changed = _around(passage, true), _around(edited, false)
            if told and changed:
                yield Trial(item, "own passage", True, told[0], passage)
                yield Trial(item, "true against edited", False, told[0], edited)
                yield Trial(item, "edited against true", False, changed[0], passage)
            for answer, text, right in ((true, passage, True), (true, edited, False), (false, passage, False)):
                said = statement(item.question, answer)
                if said:
                    kind = "statement, own" if right else "statement, true against edited"
                    kind = kind if answer == true else "statement, false against true"
                    yield Trial(item, kind, right, said, text)


# ── judging ───────────────────────────────────────────────────────────────────────────────────


def passage_of(text: str, title: str) -> Passage:
    hit = Hit(1, "col", "doc", 1, title, "", (), 0, len(text), text, title, 0, 1.0, {})
    return Passage.whole(1, hit, 0)


def judged(trial: Trial, embedder: Embedder | None) -> tuple[str, bool]:
    """The verdict, and whether the quote touches the evidence."""
    from rag.answering import verify

    passage = passage_of(trial.passage, trial.item.title)
    found = verify.best_evidence(trial.claim, passage)
    if embedder is not None and hasattr(verify, "reconsidered"):
        found = verify.reconsidered(trial.claim, [found], embedder, coverage=1.0)[0]
    start = trial.passage.find(trial.gold) if trial.gold else -1
    touches = start >= 0 and found.start < start + len(trial.gold) and start < found.end
    return found.support, touches


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def report(results: Sequence[tuple[Trial, str, bool]]) -> None:
    say(
        "| set | claim | n | supported | weak | unsupported | evidence quoted |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for dataset in dict.fromkeys(trial.item.dataset for trial, _, _ in results):
        own = [one for one in results if one[0].item.dataset == dataset]
        for kind in dict.fromkeys(trial.kind for trial, _, _ in own):
            rows = [one for one in own if one[0].kind == kind]
            shares = " | ".join(f"{sum(said == name for _, said, _ in rows) / len(rows):.0%}" for name in SUPPORTS)
            touched = f"{sum(touch for _, _, touch in rows) / len(rows):.0%}" if rows[0][0].gold else ""
            say(f"| {dataset} | {'' if rows[0][0].right else '**not** '}{kind} | {len(rows)} | {shares} | {touched} |")
    say(
        "\n| language | right claims supported | right flagged unsupported | wrong claims supported "
        "| precision, half wrong |"
    )
    say("| --- | --- | --- | --- | --- |")
    for language in ("en", "zh"):
        mine = [one for one in results if one[0].item.language == language]
        if not mine:
            continue
        right = [said for trial, said, _ in mine if trial.right]
        wrong = [said for trial, said, _ in mine if not trial.right]
        recall = right.count("supported") / len(right)
        false = wrong.count("supported") / len(wrong)
        flagged = right.count("unsupported") / len(right)
        precision = recall / (recall + false) if recall + false else 0.0
        say(
            f"| {language} ({len(right)} + {len(wrong)}) | {recall:.1%} | {flagged:.1%} | {false:.1%} "
            f"| {precision:.1%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--half", choices=("odd", "even", "both"), default="odd")
    parser.add_argument("--show", help="print the misjudged claims of this kind")
    parser.add_argument("--no-embedder", action="store_true")
    parser.add_argument("--sets", nargs="+", default=[*SETS, *(f"rgb/{name}" for name in RGB)])
    parser.add_argument("--limit", type=int, default=10_000)
    given = parser.parse_args()
    data = Path(os.environ["ATTEST_EVAL_DATA"])
    embedder = None if given.no_embedder else SentenceTransformerEmbedder("default")
    results: list[tuple[Trial, str, bool]] = []
    made = []
    for name in given.sets:
        made += list(counterfactual(data, name[4:]) if name.startswith("rgb/") else trials(load(data, name)))
    wanted = {"odd": (False,), "even": (True,), "both": (False, True)}[given.half]
    made = [trial for trial in made if trial.item.fits in wanted][: given.limit]
    started = time.perf_counter()
    for trial in made:
        said, touches = judged(trial, embedder)
        results.append((trial, said, touches))
        if given.show == trial.kind and (said == "supported") != trial.right:
            say(f"{said}: {trial.claim}\n    {trial.passage if len(trial.passage) < 500 else trial.item.evidence}")
    spent = time.perf_counter() - started
    report(results)
    say(f"\n{1000 * spent / len(made):.2f} ms a claim against one passage")


if __name__ == "__main__":
    main()
