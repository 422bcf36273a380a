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


def _loaded_after(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after it has run the code."""
    script = f"""import json, sys
{code}
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


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
    assert _loaded_after(code) & HEAVY == set()
