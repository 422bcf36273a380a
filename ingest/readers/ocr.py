"""Words out of pictures of pages, with RapidOCR on pages that PDFium renders. Optional: the `ocr` extra.

Both read untrusted bytes in native code, so this runs in the reading sandbox.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from ingest.readers.lines import Line, tidy
from ingest.readers.reading_order import Box, in_reading_order

VERSION = "ocr/1"
DOTS_PER_INCH = 200
MAX_SIDE_PIXELS = 3000  # the recogniser scales to 2,000 itself; a poster must not take gigabytes on the way
_SURE = 0.5  # recognitions below this are mostly specks and pictures


def available() -> bool:
    """Whether the `ocr` extra is installed; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in ("rapidocr", "onnxruntime", "pypdfium2"))


def read_pages(
    data: bytes, numbers: Sequence[int], *, password: str = "", deadline: float
) -> Iterator[list[Line] | None]:
    """Each page's lines (pages by index) in reading order, None where that failed; ends when time or memory is up.

    `deadline` is a value of `time.monotonic()`.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data, password=password or None)
    except pypdfium2.PdfiumError:
        yield from (None for _ in numbers)
        return
    try:
        for number in numbers:
            if time.monotonic() > deadline:
                return
            try:
                yield _recognised(*_rendered(document, number))
            except MemoryError:
                return
            except Exception as error:  # noqa: BLE001  # PDFium and the recogniser have errors of their own making
                if "alloc" in str(error):  # how onnxruntime says that memory is up
                    return
                yield None
    finally:
        document.close()


def _rendered(document: Any, number: int) -> tuple[Any, float]:
    """The page as pixels, and how many of them make a point."""
    page = document[number]
    try:
        longest = max(page.get_size())
        scale = min(DOTS_PER_INCH / 72, MAX_SIDE_PIXELS / max(1.0, longest))
        return page.render(scale=scale).to_numpy().copy(), scale
    finally:
        page.close()


def _recognised(image: Any, scale: float) -> list[Line]:
    result = _engine()(image)
    if result.boxes is None or result.txts is None:
        return []
    boxes = []
    for corners, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
        text = tidy(text)
        if text and score >= _SURE:
            across, down = [float(x) / scale for x in corners[:, 0]], [float(y) / scale for y in corners[:, 1]]
            boxes.append(Box(text, min(across), min(down), max(across), max(down)))
    return in_reading_order(boxes)


@lru_cache(maxsize=1)
def _engine() -> Any:
    """The recogniser, loaded once per process (0.6 s)."""
    # onnxruntime looks up a telemetry host seconds after its import unless told not to before.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from rapidocr import RapidOCR

    # One thread: reading is a background task beside questions, and a spinning pool makes those wait.
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
