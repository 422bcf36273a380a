"""How long a job will still take, by what it has really done so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_WINDOW_SECONDS = 60.0  # a rate of the last minute: the large files may be all at the end
_LEAST_SECONDS = 2.0  # of work; a shorter look is luck
_LEAST_MOVES = 2


class Pace:
    """Remaining seconds of work that is done in batches.

    What costs nothing says nothing of what is still to come: time counts from the first document that was worked on,
    so that neither thousands of unchanged ones that are passed over at once nor a model that loads is in the rate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moves: deque[tuple[float, int]] = deque()  # (when, done), the oldest as of the last minute
        self._done = 0
        self._total: int | None = None

    def move(self, *, done: int, total: int | None, unchanged: int) -> None:
        self._done, self._total = done, total
        if done <= unchanged or (self._moves and done <= self._moves[-1][1]):
            return
        self._moves.append((self._clock(), done))
        while len(self._moves) > _LEAST_MOVES + 1 and self._moves[1][0] < self._clock() - _WINDOW_SECONDS:
            self._moves.popleft()

    def eta_seconds(self) -> float | None:
        """Zero at the end, never below; None where nobody can know: no total, or too little done."""
        if self._total is None or self._total < self._done:
            return None
        remaining = self._total - self._done
        if remaining == 0:
            return 0.0
        if len(self._moves) <= _LEAST_MOVES:
            return None
        (began, first), (moved, last), now = self._moves[0], self._moves[-1], self._clock()
        took, did, steps = moved - began, last - first, len(self._moves) - 1
        if took < _LEAST_SECONDS:
            return None
        # Between two moves it counts down; when the next one is overdue, it goes up again, without a jump.
        since, grace = now - moved, 2 * took / steps
        counted_down = remaining * took / did - min(since, grace)
        return max(0.0, counted_down) + max(0.0, since - grace) * remaining / did
