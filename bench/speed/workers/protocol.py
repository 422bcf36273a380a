"""What bench/speed says to a pipeline that runs in a process of its own: a line of JSON each way.

    {"do": "sync"}                                      → {"chunks": int}
    {"do": "ask", "questions": […], "clients": int}     → {"seconds", "milliseconds": […], "found": [[file name …] …]}
    {"do": "read", "times": int}                        → {"pages": int}: the PDFs, read and not kept
    {"do": "chunks"}                                    → {"texts": […]}: what was embedded, of all that is stored

The first line is the process's own, {"ready": true}: the model is loaded and the store is open. Standard library only,
for it is imported in the environments of the peers.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

os.environ |= {"HF_HUB_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False", "TOKENIZERS_PARALLELISM": "false"}

Ask = Callable[[str], list[str]]
Do = Callable[[dict[str, object]], dict[str, object]]


def serve(
    sync: Callable[[], int],
    ask: Ask,
    read: Callable[[], int] | None = None,
    chunks: Callable[[], list[str]] | None = None,
) -> None:
    """Until stdin ends. `sync` returns how many chunks there are then, `ask` the files of what it found, best first,
    `read` how many pages the PDFs have, and `chunks` their texts."""
    _answer(
        {
            "sync": lambda _: {"chunks": sync()},
            "ask": lambda wanted: timed(ask, wanted["questions"], clients=wanted["clients"]),
            "read": lambda wanted: {"pages": sum(read() for _ in range(wanted["times"]))},
            "chunks": lambda _: {"texts": chunks()},
        }
    )


def serve_reading(read: Callable[[], int]) -> None:
    """Of what can do nothing else."""
    _answer({"read": lambda wanted: {"pages": sum(read() for _ in range(wanted["times"]))}})


def _answer(able: dict[str, Do]) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    _say(answers, {"ready": True})
    for line in sys.stdin:
        wanted = json.loads(line)
        _say(answers, able[wanted["do"]](wanted))


def timed(ask: Ask, questions: Sequence[str], *, clients: int) -> dict[str, object]:
    """Ask all of them, so many at once."""

    def one(question: str) -> tuple[float, list[str]]:
        began = time.perf_counter()
        found = ask(question)
        return (time.perf_counter() - began) * 1000, found

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answered = list(pool.map(one, questions))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "milliseconds": [ms for ms, _ in answered], "found": [found for _, found in answered]}


def _say(answers: object, what: dict[str, object]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()
