"""The heading that goes to the embedder with a piece: title, section path, a table's header; shortened where long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

CountTokens = Callable[[Sequence[str]], list[int]]
Wanted = tuple[tuple[str, ...], str]  # title and section path; the table's header or ""

_CHARACTERS_PER_TOKEN: Final = 20  # more than any script has


def short_headings(wanted: Sequence[Wanted], *, count_tokens: CountTokens, most_tokens: int) -> list[str]:
    """One heading for each, of at most `most_tokens`; where room is short the title and the innermost section stay."""
    todo = list(dict.fromkeys(wanted))
    chosen: dict[Wanted, str] = {}
    for is_short in (False, True):
        composed = [_compose(_ends(path) if is_short else path, header) for path, header in map(_tidy, todo)]
        counts = count_tokens(composed)
        for key, heading, count in zip(todo, composed, counts, strict=True):
            if count <= most_tokens:
                chosen[key] = heading
        todo = [key for key in todo if key not in chosen]
        if not todo:
            return [chosen[key] for key in wanted]
    clip = _Clip(count_tokens)
    for key in todo:
        path, header = _tidy(key)
        chosen[key] = clip.heading(_ends(path), header, most_tokens)
    return [chosen[key] for key in wanted]


def _tidy(wanted: Wanted) -> Wanted:
    path: list[str] = []
    for part in wanted[0]:
        part = " ".join(part.split())
        if part and path[-1:] != [part]:  # a document's first heading often is its title
            path.append(part)
    return tuple(path), wanted[1]


def _ends(path: tuple[str, ...]) -> tuple[str, ...]:
    return path[:1] + path[1:][-1:]


def _compose(path: Sequence[str], header: str) -> str:
    return "\n".join(part for part in (" > ".join(path), header) if part)


class _Clip:
    """Cuts the ends off long parts of headings, and remembers them: the parts of one document repeat."""

    def __init__(self, count_tokens: CountTokens) -> None:
        self._count_tokens = count_tokens
        self._known: dict[tuple[str, int], str] = {}

    def heading(self, path: Sequence[str], header: str, most_tokens: int) -> str:
        """Long parts share what short ones leave of the room."""
        parts = [*path, header] if header else [*path]
        counts = self._count_tokens(parts)
        left = most_tokens - len(parts)  # the marks between them
        for done, number in enumerate(sorted(range(len(parts)), key=counts.__getitem__)):
            share = min(counts[number], left // (len(parts) - done))
            parts[number] = self._clipped(parts[number], share)
            left -= share
        return _compose(parts[: len(path)], parts[-1] if header else "")

    def _clipped(self, text: str, most_tokens: int) -> str:
        key = text, most_tokens
        if key not in self._known:
            text = text[: most_tokens * _CHARACTERS_PER_TOKEN]
            while (count := self._count_tokens([text])[0]) > most_tokens:
                text = text[: min(len(text) - 1, len(text) * most_tokens // count)]
            self._known[key] = text.rstrip()
        return self._known[key]
