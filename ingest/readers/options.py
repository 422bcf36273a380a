"""What a caller may ask of every reader."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReadOptions:
    passwords: tuple[str, ...] = ()  # tried in turn on an encrypted document
    ocr: bool = True  # read image-only pages where the OCR libraries are installed
    max_pages: int = 5000
    # After this long reading stops between two pages, and those left are reported: half a book beats a time-out.
    patience_seconds: float = math.inf
