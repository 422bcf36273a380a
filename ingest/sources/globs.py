"""Globs over relative paths: as FolderSource explains them to its users."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rag.errors import InvalidInput


def glob(pattern: str) -> re.Pattern[str]:
    """A glob over relative paths with `/`, as a regular expression."""
    text = unicodedata.normalize("NFC", pattern.strip()).removeprefix("./")
    if not text or text == "/":
        raise InvalidInput(f"{pattern!r} matches nothing.", remedy="Write a glob like `*.pdf` or `reports/**`.")
    anchored = "/" in text.rstrip("/")
    only_folders = text.endswith("/")
    steps = [step for step in text.split("/") if step]
    if not anchored:
        steps.insert(0, "**")
    expression = ""
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        if step == "**":
            expression += ".+" if last else "(?:[^/]+/)*"
        else:
            expression += _one_step(step) + ("" if last else "/")
    try:
        return re.compile(expression + ("/" if only_folders else "/?"), re.IGNORECASE)
    except re.error as error:
        raise InvalidInput(f"{pattern!r} is no glob ({error}).", remedy="Check its brackets.") from error


def _one_step(step: str) -> str:
    expression = ""
    position = 0
    while position < len(step):
        character = step[position]
        closing = step.find("]", position + 2) if character == "[" else -1
        if closing > 0:
            inside = step[position + 1 : closing].replace("\\", "\\\\").replace("[", "\\[")
            expression += "[" + ("^/" + inside[1:] if inside[0] in "!^" else inside) + "]"
            position = closing
        else:
            expression += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        position += 1
    return expression


def covers(globs: Sequence[re.Pattern[str]], key: str) -> bool:
    """Whether a glob matches this file or one of the folders it lies in."""
    steps = key.split("/")
    folders = ("/".join(steps[:end]) for end in range(1, len(steps)))
    return matches(globs, key, folder=False) or any(matches(globs, folder, folder=True) for folder in folders)


def matches(globs: Sequence[re.Pattern[str]], key: str, *, folder: bool) -> bool:
    """Whether a glob matches this very file or folder."""
    return any(glob.fullmatch(f"{key}/" if folder else key) for glob in globs)
