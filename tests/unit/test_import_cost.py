"""Importing Attest and asking for help is quick: nothing heavy is loaded until something needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "chromadb",
    "docx",
    "langchain",
    "langchain_core",
    "langchain_openai",
    "langchain_text_splitters",
    "onnxruntime",
    "openpyxl",
    "pptx",
    "pypdf",
    "pypdfium2",
    "rapidocr",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "tantivy",
    "torch",
    "trafilatura",
    "transformers",
}
LIGHT_MODULES = [
    "rag.models",
    "rag.ports",
    "rag.errors",
    "rag.settings",
    "rag.text.language",
    "rag.wiring",
    "rag.embedding.embedder",
    "rag.search.vectors",
    "rag.search.terms",
    "rag.llm.chat",
    "rag.answer",
    "ingest.split",
    "ingest.sync",
    "ingest.readers.registry",
    "ingest.sources.registry",
    "app.cli",
    "app.main",
]
MODELS = {"alembic", "openvino", "onnxruntime", "tokenizers"}
# Modules that a process holds: up to 450 for a command's help and 1,000 to 1,100 for a service that answers, when this
# was written. Each takes about a millisecond.
MOST_FOR_HELP, MOST_FOR_THE_SERVICE, MOST_FOR_ANSWERS = 500, 1_050, 1_250


def _loaded_after(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after it has run the code."""
    return {name.split(".")[0] for name in _modules_after(code)}


def _modules_after(code: str) -> list[str]:
    script = f"""import json, sys
{code}
print(json.dumps([name for name, module in sys.modules.items() if module]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_importing_a_module_loads_nothing_heavy(module: str) -> None:
    assert _loaded_after(f"import {module}") & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["ask", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import contextlib, io
sys.argv = ["attest", *{arguments!r}]
from app.cli import main
with contextlib.redirect_stdout(io.StringIO()) as shown:
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
assert "Usage" in shown.getvalue(), shown.getvalue()
"""
    loaded = _modules_after(code)
    assert {name.split(".")[0] for name in loaded} & (HEAVY | MODELS | {"numpy", "sqlalchemy", "fastapi"}) == set()
    assert len(loaded) < MOST_FOR_HELP


def test_the_service_is_not_more_modules_than_it_was() -> None:
    loaded = _modules_after("import app.cli, app.server, app.service")
    assert {name.split(".")[0] for name in loaded} & (HEAVY | MODELS) == set()
    assert len(loaded) < MOST_FOR_THE_SERVICE


_ANSWERS = """
import time
from pathlib import Path
from app.main import create_app
from app.service import Service
from rag.answer import Question
from rag.settings import Settings
from tests.bases import publish_text, source_in

service = Service(Settings(_env_file=None, data_dir=Path({folder!r}), llm="none"))
create_app(service)
service.start()
if {fill}:
    publish_text(service.base, *source_in(service.base), "drill.txt", "The drill weighs one kilogram.")
while not (service.is_ready() and service.base.caches.vectors_ready):
    time.sleep(0.01)
found = service.assistant.search(Question("How much does the drill weigh?"))
assert [hit.text for hit in found.hits] == ["The drill weighs one kilogram."], found
service.close()
"""


@pytest.mark.models
def test_a_service_that_starts_on_few_passages_and_answers_loads_what_it_needs(tmp_path: Path) -> None:
    """No torch, no Chroma, and nothing that only migrating, reading files or a language model needs."""
    _modules_after(_ANSWERS.format(folder=str(tmp_path), fill=True))
    loaded = _modules_after(_ANSWERS.format(folder=str(tmp_path), fill=False))
    needed = {"tantivy", "onnxruntime", "openvino", "tokenizers"}
    assert {name.split(".")[0] for name in loaded} & (HEAVY | MODELS) <= needed
    assert len(loaded) < MOST_FOR_ANSWERS
