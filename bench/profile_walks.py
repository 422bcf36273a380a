"""Where the time goes: a folder read from nothing, synced again, and questions asked, each stage with its CPU seconds.

    python -m bench.profile_walks [--documents 200] [--questions 300] [--models FOLDER] [--json FILE]

The real service in this process, the reading processes included, without HTTP. Timers are put around the functions
named below from outside; where one of them is gone this stops and says so. A stage's seconds are its own, without those
of the stages that it calls. What libraries compute in threads of their own is told by the names of these threads.
ATTEST_EVAL_DATA names the evaluation pack; without it the sample corpus is multiplied. Linux only.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import json
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.speed.corpus import build
from bench.speed.processes import cpu_seconds

if TYPE_CHECKING:
    from app.service import Service

_EMBED, _TOKENISE, _CATALOG = "embed", "tokenise", "catalog"
_VECTORS, _TERMS = "Chroma", "Tantivy"
# Functions and methods as MODULE:NAME. Where one is renamed, its new name belongs here.
STAGES = {
    "list": ("ingest.sources.folder:FolderSource.items",),
    "parse": ("ingest.readers.sandbox:Sandbox.read", "ingest.readers.registry:pipeline"),
    "split": ("ingest.pipeline:pieces_of",),
    _TOKENISE: (
        "rag.embedding.embedder:SentenceTransformerEmbedder.count_tokens",
        "rag.embedding.embedder:SentenceTransformerEmbedder.coverage",
        "rag.embedding.runtimes.exported:Exported.encode",  # of which `run`, the arithmetic, is taken out
    ),
    _EMBED: ("rag.embedding.runtimes.reference:Reference.encode",),  # with its tokenizer, where torch computes
    "embed, around it": (
        "rag.embedding.embedder:SentenceTransformerEmbedder.embed_passages",
        "rag.embedding.embedder:SentenceTransformerEmbedder.embed_query",
    ),
    "MinHash": ("rag.text.duplicates:signature",),
    "names for the glossary": ("rag.text.glossary:mine",),
    "originals": ("rag.storage.originals:Originals.put",),
    "terms of texts": ("rag.text.language:terms", "rag.text.language:query_terms"),
    "sync, else": ("ingest.sync:Sync.run",),
    "publish, else": ("rag.search.caches:Caches.publish",),
    "tidy": ("rag.upkeep.retention:tidy",),
    "probe": ("rag.retrieval.probe:probe_if_due",),
    "time asked for": ("rag.text.periods:time_asked",),
    "names in the question": ("rag.text.glossary:names_in", "rag.text.glossary:translate"),
    "keywords": ("rag.text.keywords:keywords", "rag.text.keywords:with_others"),
    "fusion": ("rag.retrieval.fusion:fuse", "rag.retrieval.fusion:nearness"),
    "rerank": ("rag.rerank.light:LightReranker.rerank",),
    "in time": ("rag.retrieval.timely:in_time", "rag.retrieval.timely:may_be_editions"),
    "near-duplicates": ("rag.text.duplicates:collapse",),
    "evidence": ("rag.answering.evidence:evidence",),
    "packing": ("rag.answering.context:pack",),
    "vague": ("rag.answering.vague:vague",),
    "disagreement": ("rag.answering.disagreement:conflicts",),
    "extract": ("rag.answering.extract:extract",),
    "retrieve, else": ("rag.retrieval.retrieve:retrieve",),
    "route, else": ("app.routes.ask:search", "app.routes.ask:ask"),
    "serialise": (
        "app.schemas.questions:HitOut.of",
        "app.schemas.questions:AnswerOut.of",
        "app.schemas.passages:PassageOut.of",
    ),
}
# Every public function or method of these.
WHOLE = {
    _VECTORS: ("rag.search.vectors:ChromaIndex",),
    _TERMS: ("rag.search.terms:TantivyIndex",),
    _CATALOG: tuple(
        f"rag.catalog.{name}"
        for name in (
            "aliases",
            "dated",
            "filtering",
            "history",
            "indexes",
            "jobs",
            "knowledge",
            "surroundings",
            "versions",
        )
    ),
}
_NOT = frozenset({"sha256"})  # pure, and called for every text
_THREADS = {"tokio": _VECTORS, "sqlx": _VECTORS, "thrd-tantivy": _TERMS, "merge_thread": _TERMS}
_CONTEXT_TOKENS = 2_000
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Spent:
    cpu: float = 0.0
    wall: float = 0.0
    calls: int = 0


class Timers:
    """CPU and wall seconds of each stage, of all threads of this process, without what the stage itself calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own = threading.local()
        self.spent: defaultdict[str, Spent] = defaultdict(Spent)

    @contextmanager
    def stage(self, name: str, *, counts: bool = True) -> Iterator[None]:
        stack: list[list[float]] = self._own.__dict__.setdefault("stack", [])
        inner = [0.0, 0.0]
        stack.append(inner)
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            stack.pop()
            if stack:
                stack[-1][0] += cpu
                stack[-1][1] += wall
            with self._lock:
                spent = self.spent[name]
                spent.cpu += cpu - inner[0]
                spent.wall += wall - inner[1]
                spent.calls += counts

    def around(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The same function; of a generator each step is timed."""
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def steps(*args: Any, **named: Any) -> Iterator[Any]:
                running = function(*args, **named)
                try:
                    while True:
                        with self.stage(name, counts=False):
                            try:
                                value = next(running)
                            except StopIteration:
                                return
                        yield value
                finally:
                    running.close()

            return steps

        @functools.wraps(function)
        def timed(*args: Any, **named: Any) -> Any:
            with self.stage(name):
                return function(*args, **named)

        return timed

    def around_ends(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The same context manager, whose beginning and end are timed, and not what is done inside."""

        @contextmanager
        @functools.wraps(function)
        def timed(*args: Any, **named: Any) -> Iterator[Any]:
            manager = function(*args, **named)
            with self.stage(name):
                value = manager.__enter__()
            try:
                yield value
            except BaseException:
                with self.stage(name, counts=False):
                    if not manager.__exit__(*sys.exc_info()):
                        raise
            else:
                with self.stage(name, counts=False):
                    manager.__exit__(None, None, None)

        return timed


def install(timers: Timers) -> None:
    """Put timers around all that is named above. Raises SystemExit with the names that are not there any more."""
    missing: list[str] = []
    for stage, targets in STAGES.items():
        for target in targets:
            try:
                _wrap(target, functools.partial(timers.around, name=stage))
            except (ImportError, AttributeError):
                missing.append(target)
    for stage, wholes in WHOLE.items():
        for whole in wholes:
            try:
                names = [*_public(whole)]
            except (ImportError, AttributeError):
                missing.append(whole)
                continue
            for name in names:
                _wrap(name, functools.partial(timers.around, name=stage))
    if missing:
        raise SystemExit(f"Not there any more, see STAGES in {__file__}: {', '.join(missing)}")
    for door in ("rag.catalog.engine:Catalog.read", "rag.catalog.engine:Catalog.write"):
        _wrap(door, functools.partial(timers.around_ends, name=f"{_CATALOG}: begin and commit"))
    _wrap("rag.embedding.runtimes.choice:exported_runtime", functools.partial(_with_timed_arithmetic, timers))


def _with_timed_arithmetic(timers: Timers, choose: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(choose)
    def chosen(*args: Any, **named: Any) -> Any:
        runtime = choose(*args, **named)
        return runtime and replace(runtime, run=timers.around(runtime.run, _EMBED))

    return chosen


def _wrap(target: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put it in place of the original: in its class, or in every module that has imported it by name."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    original = inspect.getattr_static(owner, name)
    if classes:
        setattr(
            owner, name, classmethod(wrap(original.__func__)) if isinstance(original, classmethod) else wrap(original)
        )
        return
    wrapped = wrap(original)
    for known in list(sys.modules.values()):
        if getattr(known, "__name__", "").partition(".")[0] in ("rag", "ingest", "app") and (
            vars(known).get(name) is original
        ):
            setattr(known, name, wrapped)


def _public(whole: str) -> Iterator[str]:
    module, _, name = whole.partition(":")
    owner: Any = importlib.import_module(module)
    if name:
        owner = getattr(owner, name)
    for found, value in list(vars(owner).items()):
        if inspect.isfunction(value) and value.__module__ == module and not found.startswith("_") and found not in _NOT:
            yield f"{module}:{name}.{found}" if name else f"{module}:{found}"


# ── what a walk took ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Walk:
    """CPU seconds of everything, the reading processes included; `stages` by name."""

    name: str
    cpu: float
    wall: float
    stages: dict[str, Spent]


@contextmanager
def watched(name: str, timers: Timers, walks: list[Walk]) -> Iterator[None]:
    timers.spent.clear()
    threads, tree, own, wall = _library_threads(), cpu_seconds(os.getpid()), time.process_time(), time.perf_counter()
    yield
    own, wall = time.process_time() - own, time.perf_counter() - wall
    children = max(0.0, cpu_seconds(os.getpid()) - tree - own)
    stages = dict(timers.spent)
    after = _library_threads()
    by_library: defaultdict[str, float] = defaultdict(float)
    for thread, (command, spent) in after.items():
        by_library[_library(command)] += spent - threads.get(thread, ("", 0.0))[1]
    for library, spent in by_library.items():
        if spent:
            stages[f"{library}, threads of its own"] = Spent(spent)
    if children:
        stages["parse, reading processes"] = Spent(children)
    known = sum(one.cpu for one in stages.values())
    stages["not told apart"] = Spent(max(0.0, own + children - known))
    walks.append(Walk(name, own + children, wall, stages))


def _library_threads() -> dict[str, tuple[str, float]]:
    """Threads of this process that are not Python's: name and CPU seconds."""
    python = {str(one.native_id) for one in threading.enumerate()}
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if task.name in python:
            continue
        try:
            stat = (task / "stat").read_text("utf-8", "replace")
        except OSError:  # it has ended
            continue
        command, _, fields = stat.partition("(")[2].rpartition(")")
        found[task.name] = command, sum(map(int, fields.split()[11:13])) / _TICKS
    return found


def _library(command: str) -> str:
    """Whose thread it is. OpenVINO's have no name but the process's; tokenizers has none here."""
    return next((library for start, library in _THREADS.items() if command.startswith(start)), _EMBED)


def shown(walk: Walk) -> str:
    """Markdown, the dearest stage first."""
    lines = [
        f"### {walk.name}: {walk.cpu:.2f} CPU s, {walk.wall:.2f} s",
        "",
        "| stage | CPU s | share | calls | s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, spent in sorted(walk.stages.items(), key=lambda item: -item[1].cpu):
        if spent.cpu < 0.0005 * walk.cpu and spent.wall < 0.01 * walk.wall:
            continue
        calls, wall = (f"{spent.calls:,}" if spent.calls else ""), (f"{spent.wall:.2f}" if spent.wall else "")
        lines.append(f"| {name} | {spent.cpu:.2f} | {spent.cpu / walk.cpu:.1%} | {calls} | {wall} |")
    return "\n".join(lines) + "\n"


# ── the walks ─────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    options = _options()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads have no name of their own
    evaluation = os.environ.get("ATTEST_EVAL_DATA")
    for name in [name for name in os.environ if name.startswith("ATTEST_")]:
        del os.environ[name]
    timers, walks = Timers(), list[Walk]()
    install(timers)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        corpus = build(
            folder / "files", documents=options.documents, evaluation=Path(evaluation) if evaluation else None
        )
        about = corpus.about()
        questions = [one.text for one in corpus.questions[: 2 * options.questions + 2]]
        with _service(folder, options.models) as service:
            _walk(service, corpus.folder, questions, timers, walks)
    for walk in walks:
        sys.stdout.write(shown(walk) + "\n")
    sys.stdout.write(f"{about}; load {os.getloadavg()[0]:.1f}\n")
    if options.json:
        told = [{"name": one.name, "cpu": one.cpu, "wall": one.wall, "stages": _plain(one)} for one in walks]
        options.json.write_text(json.dumps(told, indent=1) + "\n", "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--documents", type=int, default=200, help="Text files, besides the PDFs.")
    parser.add_argument("--questions", type=int, default=300, help="That are searched for, and others that are asked.")
    parser.add_argument("--models", type=Path, default=Path.home() / ".cache" / "attest" / "models")
    parser.add_argument("--json", type=Path, help="Where the figures go as well.")
    return parser.parse_args()


@contextmanager
def _service(folder: Path, models: Path) -> Iterator[Service]:
    from app.service import Service
    from rag.settings import Settings

    settings = Settings(_env_file=None, data_dir=folder / "data", allowed_roots=str(folder), model_cache=models)
    service = Service(settings)
    try:
        service.start()
        while not service.is_ready():
            time.sleep(0.1)
        yield service
    finally:
        service.close()


def _walk(service: Service, files: Path, questions: Sequence[str], timers: Timers, walks: list[Walk]) -> None:
    from fastapi import Response

    from app.routes import ask
    from app.schemas.questions import AskRequest, ContextRequest
    from rag.catalog import knowledge

    collection = service.collection_to_fill("default")
    with service.base.catalog.write() as connection:
        source = knowledge.create_source(
            connection, collection, name="files", kind="folder", config={"path": str(files)}
        )

    def sync() -> None:
        job = service.jobs.wait(service.submit_sync(source).id, poll_seconds=0.05)
        if job.state != "succeeded":
            raise SystemExit(f"The sync did not succeed: {job.problem}")

    def search(question: str) -> None:
        found = ask.search(ContextRequest(question=question, context_tokens=_CONTEXT_TOKENS), service, Response())
        with timers.stage("serialise"):
            found.model_dump_json()

    def answer(question: str) -> None:
        found = ask.ask(AskRequest(question=question), service)
        with timers.stage("serialise"):
            found.model_dump_json()

    with watched(f"ingest {len(list(files.iterdir()))} files", timers, walks):
        sync()
    with watched("sync again", timers, walks):
        sync()
    half = (len(questions) - 2) // 2
    for name, do, some in (
        (f"search, {half} questions, {_CONTEXT_TOKENS:,} tokens of context", search, questions[: half + 1]),
        (f"ask without a model, {half} questions", answer, questions[half + 1 :]),
    ):
        do(some[0])  # what is loaded for the first one
        with watched(name, timers, walks):
            for question in some[1:]:
                do(question)


def _plain(walk: Walk) -> dict[str, dict[str, float]]:
    return {name: {"cpu": one.cpu, "wall": one.wall, "calls": one.calls} for name, one in walk.stages.items()}


if __name__ == "__main__":
    main()
