"""How long a re-sync takes beside the first ingest: a thousand small files in English and Chinese, text and Markdown.

    python bench/resync.py [--files 1000] [--fake]

With the packaged embedder, as a service runs it: a job, the reading processes, Chroma and Tantivy on disk. `--fake`
takes an embedder that costs nothing, and shows what all the rest does. Prints seconds and shares as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

_ENGLISH = (
    "pump valve engineer station river pressure gauge filter tank report order invoice customer region growth quarter "
    "winter storm opens closes inspects records weekly before after nobody must should maintenance spare part the a"
)
_CHINESE = (
    "水泵阀门工程师车站河流压力应当可以打开关闭报告检查每周记录仪表维护备件订单发票客户地区增长季度冬天风暴的了在和有"
)
_BYTES = 2000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=1000)
    arguments.add_argument("--fake", action="store_true", help="an embedder that costs nothing")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        found = measure(Path(made), files=given.files, fake=given.fake)
    sys.stdout.write(f"{json.dumps(found, indent=2)}\n")


def measure(folder: Path, *, files: int, fake: bool) -> dict[str, Any]:
    """Seconds of each sync, from the call to the end of its job."""
    from app.service import Service
    from rag.catalog import knowledge
    from rag.settings import Settings

    rng = random.Random(1)  # noqa: S311 - text, no secret
    documents = folder / "documents"
    documents.mkdir()
    for number in range(files):
        write(documents, number, rng)
    settings = Settings(_env_file=None, data_dir=folder / "data", allowed_roots=str(folder))
    embedder = None
    if fake:
        from tests.fakes import HashEmbedder

        embedder = HashEmbedder()
    service = Service(settings, embedder=embedder)
    try:
        service.start()
        while not service.is_ready():
            time.sleep(0.1)
        collection = service.collection_to_fill("default")
        with service.base.catalog.write() as connection:
            source = knowledge.create_source(
                connection, collection, name="documents", kind="folder", config={"path": str(documents)}
            )

        def sync() -> tuple[float, dict[str, int]]:
            began = time.perf_counter()
            job = service.jobs.wait(service.submit_sync(source).id, poll_seconds=0.005)
            seconds = time.perf_counter() - began
            counts = job.counts
            return seconds, {"added": counts.added, "changed": counts.changed, "unchanged": counts.unchanged}

        first, counts = sync()
        assert counts["added"] == files, counts
        time.sleep(2.5)  # what was written last may still be looked at once more
        sync()
        unchanged = []
        for _ in range(3):
            seconds, counts = sync()
            assert counts["unchanged"] == files, counts
            unchanged.append(seconds)
        changed = []
        for number in range(3):
            write(documents, number, rng)
            seconds, counts = sync()
            assert counts["changed"] == 1, counts
            changed.append(seconds)
        for path in documents.iterdir():
            path.touch()
        touched, counts = sync()
        assert counts["unchanged"] == files, counts
        return {
            "files": files,
            "embedder": service.base.embedder.name,
            "first_seconds": round(first, 3),
            "unchanged_seconds": [round(seconds, 3) for seconds in unchanged],
            "unchanged_share": round(min(unchanged) / first, 5),
            "one_changed_seconds": [round(seconds, 3) for seconds in changed],
            "all_touched_seconds": round(touched, 3),
        }
    finally:
        service.close()


def write(folder: Path, number: int, rng: random.Random) -> None:
    """Some two kilobytes of one language; every other one with headings."""
    chinese, markdown = number % 4 >= 2, number % 2 == 1
    text = ""
    while len(text.encode()) < _BYTES:
        if markdown and rng.random() < 0.15:
            text += f"\n\n## {'部分' if chinese else 'Part'} {rng.randint(1, 999)}\n\n"
        elif chinese:
            text += "".join(rng.choices(_CHINESE, k=rng.randint(8, 30))) + rng.choice("。。！？\n")
        else:
            text += " ".join(rng.choices(_ENGLISH.split(), k=rng.randint(6, 20))).capitalize() + rng.choice(
                [". ", ".\n\n"]
            )
    (folder / f"note-{number:04}.{'md' if markdown else 'txt'}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
