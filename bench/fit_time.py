"""What ranking by time is worth, on questions of our own about editions, reports and minutes (tests/data/time).

    python bench/fit_time.py [--today 2025-03-10]

Their documents go through the readers into a knowledge base in a temporary folder, with the default embedder. Even
questions (by a hash of their ids) choose LIFT and IN_TEXT of `timely`, in a compromise with the even half of
MultiHop-RAG's; the odd ones are reported, and were seen as well while the rules were made.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from unittest.mock import patch

from ingest.readers import registry
from ingest.readers.options import ReadOptions
from ingest.split import fingerprint
from ingest.sync import Sync, SyncOptions
from rag.catalog import knowledge
from rag.knowledge import KnowledgeBase
from rag.models import Hit, Item, Original
from rag.retrieval import retrieve as retrieval
from rag.retrieval import timely
from rag.settings import Settings
from rag.text.periods import TimeAsked, Told
from rag.wiring import open_knowledge_base

DATA = Path(__file__).parents[1] / "tests" / "data" / "time"
LIFTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
IN_TEXTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True)
class Found:
    """A question's candidates as they were before their time was looked at."""

    id: str
    language: str
    kind: str
    question: str
    gold: str
    hits: tuple[Hit, ...]
    asked: TimeAsked
    told: Mapping[str, Told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--today", type=date.fromisoformat, default=date(2025, 3, 10))
    today: date = parser.parse_args().today
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", {"ATTEST_DATA_DIR": folder}):
        base = filled(Path(folder))
        found = [candidates(base, row, today) for row in rows("questions")]
        base.caches.close()
        base.catalog.close()
    even, odd = ([one for one in found if half(one.id) == side] for side in (0, 1))
    chosen = max(
        ((lift, text) for lift in LIFTS for text in IN_TEXTS),
        key=lambda pair: (right(even, pair[0], pair[1], today), -pair[0] - pair[1]),
    )
    sys.stdout.write(
        f"chosen on {len(even)}: LIFT {chosen[0]}, IN_TEXT {chosen[1]}, right {right(even, *chosen, today)}\n"
    )
    for name, some in (("fitted on", even), ("reported", odd)):
        for language in ("en", "zh"):
            own = [one for one in some if one.language == language]
            for kind in (None, "exact", "held", "relative", "newest", "unsaid", "none"):
                these = [one for one in own if kind is None or one.kind == kind]
                before = sum(one.hits[0].uri == one.gold for one in these)
                after = right(these, timely.LIFT, timely.IN_TEXT, today)
                sys.stdout.write(f"{name:10} {language} {kind or 'all':9} n={len(these):3} {before:3} → {after:3}\n")
    for one in odd + even:
        hits = timely.in_time(one.hits, one.asked, one.told, today=today)
        if hits[0].uri != one.gold:
            sys.stdout.write(f"wrong: {one.id} {one.question} → {hits[0].uri}\n")
    began = time.thread_time()
    for one in found:
        timely.in_time(one.hits, one.asked, one.told, today=today)
    sys.stdout.write(f"{1000 * (time.thread_time() - began) / len(found):.2f} ms a question to rank by time\n")


def half(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def right(found: Sequence[Found], lift: float, in_text: float, today: date) -> int:
    with patch.object(timely, "LIFT", lift), patch.object(timely, "IN_TEXT", in_text):
        return sum(timely.in_time(one.hits, one.asked, one.told, today=today)[0].uri == one.gold for one in found)


def candidates(base: KnowledgeBase, row: Mapping[str, str], today: date) -> Found:
    seen: list[Found] = []

    def keep(hits: Sequence[Hit], asked: TimeAsked, told: Mapping[str, Told], *, today: date) -> list[Hit]:  # noqa: ARG001
        given = (row["id"], row["language"], row["kind"], row["question"], row["gold"])
        seen.append(Found(*given, tuple(hits), asked, told))
        return list(hits)

    with patch.object(retrieval, "in_time", keep):
        retrieval.retrieve(row["question"], base=base, collections=base.collections([]), k=10, today=today)
    return seen[0]


def filled(folder: Path) -> KnowledgeBase:
    settings = Settings(data_dir=folder)
    base = open_knowledge_base(settings)
    base.caches.attach_terms()
    collection = base.create_collection("time", splitter=fingerprint(target_tokens=settings.chunk_tokens))
    with base.catalog.write() as connection:
        source = knowledge.create_source(connection, collection, name="documents", kind="upload", config={})
    sync = Sync(
        base=base,
        collection=collection,
        source=source,
        read=registry.read,
        read_options=ReadOptions(ocr=False),
        target_tokens=settings.chunk_tokens,
        report_items=lambda _items: None,
        report_progress=lambda _at: None,
        cancelled=lambda: False,
    )
    sync.run(Listing(), SyncOptions())
    return base


class Listing:
    """The documents as a source; each goes by its file's name."""

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item]:  # noqa: ARG002  # the port's
        for row in rows("documents"):
            yield Item(row["name"], row["name"], {"id": row["name"]}, lambda row=row: original(row))  # type: ignore[misc]


def original(row: Mapping[str, str]) -> Original:
    name, _, value = row["metadata"].partition("=")
    metadata = {name: date.fromisoformat(value)} if name else {}
    text = f"# {row['title']}\n\n" + row["text"].replace("\\n", "\n") + "\n"
    return Original(text.encode(), row["name"], "text/markdown", metadata=metadata)


if __name__ == "__main__":
    main()
