"""What a row's updated-at may be trusted with: that the row stands as it was read, where nothing speaks against it.

A stamp is compared as text, as the database gives it. It says nothing where the row is read otherwise than it was
(other columns, another label), where it is NULL or no date, or where the row may have changed again within its tick.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ingest.sources.database_shapes import Reading
from ingest.sources.rows import key_path

# Rises with `row/N` of the pipeline: rows that are worded otherwise are read again many at a time, not one by one.
_WORDING = 1
_UNSETTLED_SECONDS = 2.0  # as in a folder
_DAY = 86_400.0
# A stamp without a zone may be anybody's local time: off UTC by quarters of an hour, by 14 hours at most.
_ZONE_STEP_SECONDS = 900.0
_MOST_ZONE_STEPS = 60
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_EPOCHS = ((1.0, 1.0), (1e3, 1e-3), (1e6, 1e-6), (1e9, 1e-9))  # seconds, milli-, micro- and nanoseconds: (unit, tick)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a snapshot was taken: between two looks at our clock, in seconds since 1970. The server's may be ahead."""

    earliest: float
    latest: float
    server_ahead: float = 0.0

    def unsettled(self, stamp: str) -> bool:
        """Whether the row may change, or have changed, after the snapshot without the stamp being another one."""
        span = _span(stamp)
        if span is None:
            return False
        start, end, has_zone = span
        most = 0 if has_zone else _MOST_ZONE_STEPS
        for ahead in {0.0, self.server_ahead}:
            first = math.ceil((self.earliest + ahead - end - _UNSETTLED_SECONDS) / _ZONE_STEP_SECONDS)
            last = math.floor((self.latest + ahead - start + _UNSETTLED_SECONDS) / _ZONE_STEP_SECONDS)
            if max(first, -most) <= min(last, most):
                return True
        return False


class Stamps:
    """The stamps of one reading that has a key and an updated-at column."""

    def __init__(self, reading: Reading, moment: Moment) -> None:
        assert reading.updated_at is not None
        linked = [name for reference in reading.references for name in reference.columns]
        names = tuple(dict.fromkeys((*reading.key, reading.updated_at, *linked)))
        # Labels are read with each key: a row that refers to a renamed one is read anew, though its own stamp stood.
        self.narrow = replace(reading, columns=tuple(reading.column(name) for name in names))
        self._reading = reading
        self._moment = moment
        shape = repr((_WORDING, reading)).encode("utf-8", "backslashreplace")
        self._shape = hashlib.blake2b(shape, digest_size=16).digest()
        self._own = tuple(name for name in dict.fromkeys(linked) if name not in reading.key)
        self._kinds = [reading.column(name).kind for name in reading.key]
        self._plain = self._digest(()) if not reading.references else None
        self._wide_places = self._places(reading)
        self._narrow_places = self._places(self.narrow)

    def state(self, values: Sequence[Any]) -> dict[str, str]:
        """What is kept of a whole row. Without `read_as` where its stamp is nothing to go by."""
        stamp, read_as = self._said(values, self._wide_places)
        return {"updated_at": stamp, "read_as": read_as} if _trusted(stamp) else {"updated_at": stamp}

    def unsettled(self, state: Mapping[str, str]) -> bool:
        return "read_as" in state and self._moment.unsettled(state["updated_at"])

    def key(self, narrow: Sequence[Any]) -> tuple[tuple[Any, ...], str] | None:
        """The key's values and its text, of a row of the narrow reading; None where a part is NULL."""
        key = tuple(narrow[: len(self._kinds)])
        return None if any(value is None for value in key) else (key, key_path(key, self._kinds))

    def stands(self, narrow: Sequence[Any], before: Mapping[str, str] | None) -> bool:
        """Whether the row is as `before` has it, by its stamp and by what else goes into its text."""
        if before is None or "unsettled" in before or "read_as" not in before:
            return False
        return self._said(narrow, self._narrow_places) == (before.get("updated_at"), before["read_as"])

    def _said(self, values: Sequence[Any], places: tuple[int, tuple[int, ...], int]) -> tuple[str, str]:
        at, own, beyond = places
        if self._plain is not None:
            return stamp_text(values[at]), self._plain
        return stamp_text(values[at]), self._digest((*(values[place] for place in own), *values[beyond:]))

    def _places(self, reading: Reading) -> tuple[int, tuple[int, ...], int]:
        """Of a row: where its stamp is, where its foreign keys are, and where the labels begin."""
        names = [column.name for column in reading.columns]
        assert reading.updated_at is not None
        return names.index(reading.updated_at), tuple(names.index(name) for name in self._own), len(names)

    def _digest(self, said: tuple[Any, ...]) -> str:
        values = repr(said).encode("utf-8", "backslashreplace")
        return hashlib.blake2b(self._shape + values, digest_size=12).hexdigest()


def stamp_text(value: object) -> str:
    """The stamp as the driver has it; empty for NULL."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()  # SQL Server's rowversion
    return "" if value is None else str(value)


def _trusted(stamp: str) -> bool:
    """A date, a time since 1970, or a number or row version that somebody counts up."""
    return bool(_NUMBER.fullmatch(stamp) or re.fullmatch(r"(?:[0-9a-f]{2}){8}", stamp) or _span(stamp))


@lru_cache(maxsize=64)  # asked for twice of each row
def _span(stamp: str) -> tuple[float, float, bool] | None:
    """The first second of the stamp's tick, its last, and whether its zone is known; None where it is no moment."""
    if _NUMBER.fullmatch(stamp) and len(stamp) not in (8, 14):
        for unit, tick in _EPOCHS:
            seconds = float(stamp) / unit
            if 1e8 <= seconds < 1e10:
                return seconds, seconds + tick, True
        return None
    compact = f"{stamp[:8]}T{stamp[8:]}" if len(stamp) == 14 and stamp.isdecimal() else stamp.removesuffix(" UTC")
    try:
        found = datetime.fromisoformat(compact)
        seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    if found.timetz().replace(tzinfo=None) == datetime.min.time():
        return seconds, seconds + _DAY, found.tzinfo is not None  # many schemas keep plain dates in columns for times
    minutes_only = compact.count(":") == 1 and found.tzinfo is None
    return seconds, seconds + (60.0 if minutes_only else 1.0), found.tzinfo is not None
