"""Killed at any instant of a sync: what was committed is there, what was not is redone, nothing is there twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import func, select

from rag.catalog import versions
from rag.catalog.engine import quick_check
from rag.catalog.jobs import Counts
from rag.catalog.tables import activations, chunks
from rag.knowledge import KnowledgeBase
from rag.models import Item
from rag.terms import TantivyIndex
from tests.bases import Bases, Runs, file, found_texts, runs_in

_KILLS = 6
_DOCUMENTS = 60

# The child syncs edition after edition until it is killed, in small batches so that there are many instants to hit.
_SYNC_FOR_EVER = """
import itertools, sys
from pathlib import Path
import ingest.sync
from tests.integration.test_kill import edition, opened
ingest.sync._BATCH_DOCUMENTS = 3
bases, runs = opened(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count(int(sys.argv[2])):
    runs.sync(*edition(number), allow_deletes=True)
"""


def edition(number: int) -> list[Item]:
    """Documents that say their edition in each of their paragraphs; every one of them changes, some come and go."""
    return [
        file(
            f"{key:02}.txt",
            "\n\n".join(f"Rule {rule} of document {key} is from edition {number}." for rule in range(4)),
        )
        for key in range(_DOCUMENTS)
        if (key + number) % 7
    ]


def opened(folder: Path) -> tuple[Bases, Runs]:
    bases = Bases(folder, terms=TantivyIndex(path=folder / "terms"))
    return bases, runs_in(bases.open())


def sync_and_kill(folder: Path, number: int, *, after_seconds: float) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", _SYNC_FOR_EVER, str(folder), str(number)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(after_seconds)
        assert process.poll() is None
        process.kill()


def assert_whole(base: KnowledgeBase, runs: Runs) -> None:
    with base.catalog.read() as snapshot:
        assert quick_check(snapshot) == "ok"
        active = versions.active_keys(snapshot, runs.collection.index_id)
        assert versions.pending_flips(snapshot) == []
        open_ones = select(func.count()).where(activations.c.to_change.is_(None)).group_by(activations.c.document_id)
        assert set(snapshot.execute(open_ones).scalars()) <= {1}
        hits = versions.read_hits(snapshot, {key: {} for key in active})
        never_active = ~select(activations.c.id).where(
            activations.c.document_id == chunks.c.document_id, activations.c.version == chunks.c.version
        ).exists()  # fmt: skip
        assert snapshot.execute(select(func.count()).select_from(chunks).where(never_active)).scalar() == 0
    assert base.caches.keys(runs.collection) == {"terms": active, "vectors": active}
    of: dict[str, set[str]] = {}
    for hit in hits.values():
        of.setdefault(hit.document_id, set()).update(line.rsplit(" ", 1)[1] for line in hit.text.split("\n\n"))
    assert all(len(editions) == 1 for editions in of.values()), "a document of two editions"


def test_a_sync_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    random.seed(7)
    for kill in range(_KILLS):
        sync_and_kill(tmp_path, 100 * kill, after_seconds=random.uniform(0.05, 0.8))
        bases, runs = opened(tmp_path)
        assert_whole(runs.base, runs)
        bases.close()
        runs.base.caches.close()

    bases, runs = opened(tmp_path)
    last = edition(9999)
    runs.sync(*last, allow_deletes=True)
    assert_whole(runs.base, runs)
    assert set(runs.documents()) == {item.key for item in last}
    assert runs.sync(*last).counts == Counts(unchanged=len(last))
    texts = Counter(found_texts(runs.base, "Which edition is rule 3 of document 12 from?", k=50))
    assert max(texts.values()) == 1
    assert all("edition 9999" in text for text in texts)
    bases.close()
    runs.base.caches.close()
