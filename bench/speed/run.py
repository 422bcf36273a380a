"""Speed beside LangChain, LlamaIndex, Haystack and txtai: the same files, questions, weights of all-MiniLM-L6-v2 and
top-k, one after the other in every round, so that what else the machine does falls on all of them.

    python -m bench.speed.run [--rounds 3] [--documents 400] [--compare OLD.json]

ATTEST_EVAL_DATA names the evaluation pack; without it the sample corpus is multiplied. CPU seconds are those of the
process and all its descendants. Prints Markdown; writes JSON and a picture. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers.run import environment
from bench.speed import report
from bench.speed.contestants import ROOT, Contestant
from bench.speed.corpus import PDFS, Corpus, build
from bench.speed.measure import CLIENTS, one_round, shared_out
from bench.speed.processes import settled_cpu_seconds
from bench.speed.roofline import Products, measured
from rag.embedding.embedder import SentenceTransformerEmbedder

HERE = Path(__file__).parent
OURS = "Attest"
NAMES = {"langchain": "LangChain", "llamaindex": "LlamaIndex", "haystack": "Haystack", "txtai": "txtai"}


def main() -> None:
    options = _options()
    evaluation = os.environ.get("ATTEST_EVAL_DATA")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        corpus = build(
            folder / "corpus",
            documents=options.documents,
            evaluation=Path(evaluation) if evaluation else None,
            pdfs=options.pdfs,
        )
        shared_out(corpus.questions, options.questions)  # raises now, and not in an hour, where there are too few
        about = _about(corpus, options)  # now: what is measured is what lies there now
        models = folder / "models"
        first = _first_start(Contestant(OURS, settings={"ATTEST_MODEL_CACHE": str(models)}), corpus, folder / "first")
        contestants = _contestants(options, models)
        rounds: dict[str, list[dict[str, float]]] = {one.name: [] for one in contestants}
        products: list[dict[str, Products]] = []
        count_tokens = SentenceTransformerEmbedder().count_tokens
        for number in range(options.rounds):
            products.append(measured())
            for one in _turned(contestants, number):
                # in process it is asked on the store that the service has just filled
                store = folder / f"{number}-{one.name}" if one.syncs else folder / f"{number}-{OURS}"
                began = time.monotonic()
                rounds[one.name].append(
                    one_round(
                        one,
                        corpus,
                        store,
                        asked=tuple(options.questions),
                        roofline=products[-1],
                        count_tokens=count_tokens,
                    )
                )
                sys.stderr.write(f"round {number + 1}: {one.name}, {time.monotonic() - began:.0f} s\n")
                # after each of them: a run that is broken off leaves what was found
                gemm = [{kind: asdict(one) for kind, one in some.items()} for some in products]
                result = about | {"first_start": first, "gemm_flop": gemm, "rounds": rounds}
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
                options.out.with_suffix(".svg").write_text(report.picture(rounds), "utf-8")
    _show(result, options.compare)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=400, help="Text files, besides the PDFs.")
    parser.add_argument(
        "--questions", type=int, nargs=len(CLIENTS), default=(60, 160, 160), help="By 1, 8 and 32 clients."
    )
    parser.add_argument(
        "--pdfs", nargs="+", default=PDFS, help="Of the evaluation pack: tracemonkey.pdf takes longest."
    )
    parser.add_argument("--peers", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--without-torch", action="store_true", help="Leave out Attest as it runs on torch.")
    parser.add_argument("--environments", type=Path, default=HERE.parent / "peers" / ".venvs")
    parser.add_argument("--torch-index", help="Another package index for the peers' torch.")
    parser.add_argument("--compare", type=Path, help="The JSON of an earlier run: print now by then.")
    parser.add_argument("--out", type=Path, help="Where JSON and picture go. Default: bench/speed/history, by date.")
    options = parser.parse_args()
    options.out = options.out or HERE / "history" / f"{datetime.now(UTC):%Y-%m-%d-%H%M}.json"
    return options


def _contestants(options: argparse.Namespace, models: Path) -> Sequence[Contestant]:
    prepared = {"ATTEST_MODEL_CACHE": str(models)}
    peers = [
        Contestant(
            NAMES[peer], environment(peer, options.environments, torch_index=options.torch_index), f"use_{peer}.py"
        )
        for peer in options.peers
    ]
    torch = Contestant(f"{OURS}, torch", settings=prepared | {"ATTEST_RUNTIME": "torch"})
    return (
        Contestant(OURS, settings=prepared),
        Contestant(f"{OURS}, in process", worker="use_attest.py", settings=prepared, syncs=False),
        *(() if options.without_torch else (torch,)),
        *peers,
    )


def _turned(contestants: Sequence[Contestant], number: int) -> Sequence[Contestant]:
    """Another one begins each round, but never one that needs what the one before it has stored."""
    starts = [place for place, one in enumerate(contestants) if one.syncs]
    start = starts[number % len(starts)]
    return [*contestants[start:], *contestants[:start]]


def _first_start(contestant: Contestant, corpus: Corpus, store: Path) -> dict[str, float]:
    """Of a fresh installation: the model is exported once, in a child."""
    began = time.perf_counter()
    with contestant.running(corpus.folder, store, top_k=1) as running:
        return {"start s": time.perf_counter() - began, "start CPU s": settled_cpu_seconds(running.pid)}


def _about(corpus: Corpus, options: argparse.Namespace) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)  # noqa: S607
    model = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("model name")]
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "machine": {
            "cpu": model[0].partition(": ")[2] if model else "",
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "python": sys.version.split()[0],
        },
        "versions": {name: metadata.version(name) for name in ("chromadb", "openvino", "onnxruntime", "torch")},
        "corpus": corpus.about(),
        "questions": list(options.questions),
    }


def _show(result: dict[str, Any], compare: Path | None) -> None:
    sys.stdout.write(report.table(result["rounds"], ours=OURS) + "\n")
    first = result["first_start"]
    sys.stdout.write(f"\nFirst start ever: {first['start s']:.1f} s, {first['start CPU s']:.1f} CPU s\n")
    for kind in result["gemm_flop"][0]:
        each = [median(one[kind][per] for one in result["gemm_flop"]) / 1e9 for per in ("per_cpu_second", "per_second")]
        sys.stdout.write(f"{kind} products: {each[0]:.0f} GFLOP for a CPU second, {each[1]:.0f} for a second\n")
    if compare:
        old = json.loads(compare.read_text("utf-8"))
        sys.stdout.write("\n" + report.compared(result["rounds"], old["rounds"]) + "\n")


if __name__ == "__main__":
    main()
