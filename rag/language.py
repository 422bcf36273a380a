"""How text becomes canonical."""

from __future__ import annotations

import re

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def canonical(text: str) -> str:
    """Line ends as `\\n`; NUL and lone surrogates as U+FFFD; otherwise unchanged. Offsets count in this form."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
    return _LONE_SURROGATES.sub("\ufffd", text)
