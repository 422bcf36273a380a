"""What the machine could embed if it did nothing else: how fast it multiplies matrices, by the model's arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

# all-MiniLM-L6-v2: the weights' products of a token, and attention's, which grow with the length of its text.
_FLOP_PER_TOKEN, _FLOP_PER_TOKEN_AND_LENGTH = 21.2e6, 9_216
_SIDE, _TIMES = 2_048, 6

_MULTIPLY = f"""
import json, sys, time
import torch

found = {{}}
for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
    one, other = (torch.randn({_SIDE}, {_SIDE}).to(kind) for _ in range(2))
    one @ other
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range({_TIMES}):
        one @ other
    flop = 2 * {_SIDE}**3 * {_TIMES}
    spent = time.process_time() - cpu, time.perf_counter() - wall
    found[name] = {{"per_cpu_second": flop / spent[0], "per_second": flop / spent[1]}}
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True)
class Products:
    """FLOP for each CPU second, and for each second with all cores."""

    per_cpu_second: float
    per_second: float


def measured() -> dict[str, Products]:
    """`fp32` and `bf16`, as torch multiplies, in a process of its own."""
    asleep = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # as the contestants run
    done = subprocess.run([sys.executable, "-c", _MULTIPLY], check=True, capture_output=True, text=True, env=asleep)  # noqa: S603
    return {kind: Products(**told) for kind, told in json.loads(done.stdout).items()}


def arithmetic(lengths: Iterable[int]) -> float:
    """FLOP that embedding texts of so many tokens takes, special tokens counted, without padding."""
    return sum(_FLOP_PER_TOKEN * one + _FLOP_PER_TOKEN_AND_LENGTH * one * one for one in lengths)
