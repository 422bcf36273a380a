"""Writes a sentence-transformers model as one ONNX file: tokens in, the sentence's vector out.

Runs in a child process (`python -m rag.embedding.runtimes.export MODEL FOLDER WINDOW`), which alone loads torch. Beside
the file it puts what sentence-transformers itself makes of some texts, so that whatever runs it can be held to that.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from rag.embedding.runtimes.reference import Reference

FORMAT: Final = 1  # part of the folder's name: raised when the files below would be others
ENCODER: Final = "encoder.onnx"
EXPECTED: Final = "expected.npz"
INPUTS: Final = ("input_ids", "attention_mask")
OUTPUT: Final = "vector"
_OPSET: Final = 17

# Short and long, both languages, codes and figures; the last but one is longer than most windows.
PROBES: Final = (
    "How many days of annual leave do employees have?",
    "Employees are entitled to fifteen days of paid leave a year.",
    "The compressor TL-1207 is under warranty for two years from delivery.",
    "Tighten the four screws crosswise with 12 Nm.",
    "Refunds are paid within fourteen days of the return.",
    "The board approved the budget for 2023 in its meeting of 14 March.",
    "Error E-07: the filter is clogged. Rinse it and start again.",
    "Opening hours: Monday to Friday, 8:30 to 17:00.",
    "Revenue rose by 4.2 % to 1,280 million euros.",
    "Who signs off travel expenses above 500 euros?",
    "员工每年享有十五天带薪年假。",
    "压缩机保修期为两年，自交货之日起计算。",
    "第十二条 未休年假可顺延至次年三月。",
    "退货政策是什么？",
    "The office in 上海 opens at nine.",
    "e-mail: support@example.com, Tel. +49 30 1234567",
    "a",
    "",
    "Storage at 4–8 °C; do not freeze! " * 60,
    "warranty",
)


def export(model: Path, into: Path, *, window: int) -> None:
    """Make the folder `into`, whole or not at all."""
    reference = Reference(model, given=str(model), device="cpu", attention="eager")  # the others do not trace well
    begun = into.with_name(f"{into.name}.{os.getpid()}")
    begun.mkdir(parents=True)
    try:
        _write(reference, begun / ENCODER, window=window)
        np.savez(
            begun / EXPECTED,
            passages=reference.encode(PROBES, query=False),
            questions=reference.encode(PROBES, query=True),
        )
        begun.replace(into)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _write(reference: Reference, file: Path, *, window: int) -> None:
    import torch

    class Whole(torch.nn.Module):
        """The model with all its modules, pooling and normalising too."""

        def __init__(self) -> None:
            super().__init__()
            self.model = reference.model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]

    # Two rows of different lengths, so that nothing is taken for a constant.
    ids = torch.ones((2, min(window, 16)), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    axes = {name: {0: "texts", 1: "tokens"} for name in INPUTS} | {OUTPUT: {0: "texts"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the older exporter, which alone needs nothing but `onnx`
        torch.onnx.export(
            Whole().eval(),
            (ids, mask),
            str(file),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]), window=int(sys.argv[3]))
