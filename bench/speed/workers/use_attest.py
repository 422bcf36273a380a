"""Attest's search without its service: the knowledge base opened as a library, on a data folder that is filled.

python use_attest.py DATA_FOLDER TOP_K
"""

import sys
from pathlib import Path

from protocol import serve


def main() -> None:
    from rag.answer import Question
    from rag.settings import Settings
    from rag.storage.owner import Owner
    from rag.wiring import open_assistant, open_knowledge_base

    folder, top_k = Path(sys.argv[1]), int(sys.argv[2])
    settings = Settings(_env_file=None, data_dir=folder)
    owner = Owner(folder)
    base = open_knowledge_base(settings)
    base.caches.attach_terms()
    base.caches.attach()
    assistant = open_assistant(settings, base)

    def sync() -> int:
        raise NotImplementedError("A sync is the service's work.")

    def ask(question: str) -> list[str]:
        return [Path(hit.uri).name for hit in assistant.search(Question(question, ("default",), top_k=top_k)).hits]

    try:
        ask("ready")
        serve(sync, ask)
    finally:
        base.caches.close()
        base.catalog.close()
        owner.release()


if __name__ == "__main__":
    main()
