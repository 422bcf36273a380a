"""A knowledge base of any size for measuring questions: real passages first, then new ones mixed of their sentences.

    python bench/large_base.py FOLDER --chunks 20000

Passages are those of the public sets in ATTEST_EVAL_DATA. What is mixed has the words, the lengths and the languages of
what it is mixed of, and a vector near the mean of theirs, so that nothing but the real passages is embedded. Rows are
written into the catalog as a sync writes them; the caches are then brought to it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from rag.catalog import knowledge, versions
from rag.catalog.engine import Connection
from rag.catalog.versions import Flip, NewVersion, sha256
from rag.knowledge import KnowledgeBase
from rag.models import Block, Collection, Parsed, Piece, SourceRecord
from rag.ports import Vectors
from rag.settings import Settings
from rag.text.language import language_of, sentences
from rag.wiring import open_knowledge_base

SETS = ("squad_en", "cmrc_zh", "xquad_en", "xquad_zh", "hotpotqa_en", "multihoprag_en", "crud_zh_news")
_CHUNKS_PER_DOCUMENT = 10
_AT_ONCE = 200  # documents in one transaction
_NOISE = 0.6  # of a mixed vector's length: its neighbours are near, and not the same


@dataclass(frozen=True)
class Passage:
    title: str
    text: str
    vector: Vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTEST_EVAL_DATA"), help="ATTEST_EVAL_DATA")
    given = parser.parse_args()
    if given.data is None:
        parser.error("say where the data is: --data or ATTEST_EVAL_DATA")
    made = make(given.folder, chunks=given.chunks, data=given.data)
    sys.stdout.write(f"{made} chunks in {given.folder}\n")


def make(folder: Path, *, chunks: int, data: Path) -> int:
    """Returns how many chunks there are. The folder must not hold a knowledge base yet."""
    folder.mkdir(parents=True, exist_ok=True)
    base = open_knowledge_base(Settings(_env_file=None, data_dir=folder))
    try:
        collection = base.create_collection("default", splitter="bench")
        with base.catalog.write() as connection:
            source = knowledge.create_source(connection, collection, name="bench", kind="upload", config={})
        rng = np.random.default_rng(1)
        every = _mixed(_real(base, data), rng)
        documents = iter(lambda: list(islice(every, _CHUNKS_PER_DOCUMENT)), [])
        done = 0
        while done < chunks:
            some = [
                one[: chunks - done - at * _CHUNKS_PER_DOCUMENT] for at, one in enumerate(islice(documents, _AT_ONCE))
            ]
            some = [one for one in some if one]
            with base.catalog.write() as connection:
                _write(connection, collection, source, some, first=done)
            done += sum(map(len, some))
        base.caches.attach_terms()
        base.caches.attach_vectors()
        return done
    finally:
        base.caches.close()
        base.catalog.close()


def _real(base: KnowledgeBase, data: Path) -> list[Passage]:
    rows: dict[str, str] = {}
    for name in SETS:
        for line in (data / name / "corpus.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            rows.setdefault(row["text"][:1_200], row["title"] or "untitled")
    vectors = base.embedder.embed_passages([f"{title}\n{text}" for text, title in rows.items()])
    return [Passage(title, text, vector) for (text, title), vector in zip(rows.items(), vectors, strict=True)]


def _mixed(real: Sequence[Passage], rng: np.random.Generator) -> Iterator[Passage]:
    """The real ones, then mixtures of three of one language without end."""
    yield from real
    own = {name: [one for one in real if language_of(one.text) == name] for name in ("en", "zh")}
    said = {one.text: [one.text[start:end] for start, end in sentences(one.text)] for one in real}
    while True:
        among = own["zh" if rng.random() < len(own["zh"]) / len(real) else "en"]
        chosen = [among[at] for at in rng.integers(len(among), size=3)]
        parts = [part for one in chosen for part in said[one.text]]
        most = max(1, round(len(parts) / 3))
        text = " ".join(parts[at] for at in rng.permutation(len(parts))[:most])
        noise = rng.normal(size=len(chosen[0].vector)).astype(np.float32)
        vector = sum((one.vector for one in chosen), start=np.zeros_like(noise)) / len(chosen)
        vector = vector / np.linalg.norm(vector) + _NOISE * noise / np.linalg.norm(noise)
        yield Passage(chosen[0].title, text, vector / np.linalg.norm(vector))


def _write(
    connection: Connection,
    collection: Collection,
    source: SourceRecord,
    documents: Sequence[list[Passage]],
    *,
    first: int,
) -> None:
    embedder_id = versions.embedder_of(connection, collection.index_id)[0]
    flips = []
    for at, passages in enumerate(documents):
        name = f"{first + at}.txt"
        text = "\n".join(one.text for one in passages)
        starts = np.cumsum([0, *(len(one.text) + 1 for one in passages)]).tolist()
        pieces = [
            Piece(start, start + len(one.text), one.text, one.title, len(one.text) // 4)
            for start, one in zip(starts, passages, strict=False)
        ]
        blocks = tuple(Block("paragraph", piece.start, piece.end) for piece in pieces)
        document_id = knowledge.reserve_document(connection, source.id, key=name, uri=f"bench/{name}")
        vectors = {sha256(piece.embedded_text): one.vector for piece, one in zip(pieces, passages, strict=True)}
        versions.save_vectors(connection, embedder_id, vectors)
        number, _ = versions.stage(
            connection,
            NewVersion(
                document_id, sha256(text), "bench/1", None, name, passages[0].title, Parsed(text, blocks), pieces
            ),
            index_id=collection.index_id,
        )
        knowledge.save_document(
            connection,
            source.id,
            key=name,
            uri=f"bench/{name}",
            title=passages[0].title,
            name=name,
            media_type=None,
            status="ok",
            problems=(),
            state={},
            content_sha256=sha256(text),
            pipeline="bench/1",
        )
        knowledge.set_metadata(connection, document_id, {"topic": str((first + at) % 20)})
        flips.append(Flip(document_id, None, number))
    versions.flip(connection, flips, collection_id=collection.id, index_id=collection.index_id)
    versions.clear_pending(connection, collection_id=collection.id, up_to_change=1 << 60)


if __name__ == "__main__":
    main()
