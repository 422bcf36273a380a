"""When a source is synced by itself: `refresh` read, the next run worked out, and kept by APScheduler.

Times are the machine's (TZ, else what the system says). Where the clock is put forward over a time of day, the run
comes an hour later; where it is put back, a time that comes twice runs twice. The second sync then finds nothing new.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from rag.catalog.engine import now
from rag.errors import AttestError, InvalidInput
from rag.models import SourceRecord

log = logging.getLogger(__name__)

LONGEST_REFRESH = 100  # characters
ALLOWED = (
    "Use an interval of a minute to a year (15m, 2h, 1d), a time (daily 03:00, weekly mon 03:00), "
    "five cron fields (*/30 8-18 * * mon-fri), or nothing for a source that is synced only when asked."
)

_JITTER_SHARE = 0.1  # of an interval: sources that were added together do not stay together
_MOST_JITTER_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 600.0
_LEAST_SECONDS, _MOST_SECONDS = 60, 366 * 86_400
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_INTERVAL = re.compile(r"([0-9]{1,9}) ?([mhd])")
_CLOCK = re.compile(r"(?:daily|weekly ([a-z]+)) ([0-9]{1,2}):([0-9]{2})")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # as cron counts them
_DAY_NAMES = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_DAY_RANGE = re.compile(r"(?:(\*)|([0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?)(?:/([1-9]))?")
_A_DAY_THAT_IS = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Schedule:
    """An interval, or times of day: `crons` are fields as APScheduler reads them, and any of them may say when."""

    seconds: int | None = None
    crons: tuple[tuple[str, str, str, str, str], ...] = ()  # minute, hour, day, month, day of week

    @property
    def jitter_seconds(self) -> float:
        if self.seconds is None:
            return _MOST_JITTER_SECONDS
        return min(_MOST_JITTER_SECONDS, self.seconds * _JITTER_SHARE)

    def trigger(self, zone: tzinfo, *, jitter: bool = True) -> Any:
        """For APScheduler. It adds the jitter to each run, never takes any off."""
        from apscheduler.triggers.combining import OrTrigger
        from apscheduler.triggers.cron import CronTrigger
        from apscheduler.triggers.interval import IntervalTrigger

        spread = self.jitter_seconds if jitter else None
        if self.seconds is not None:
            return IntervalTrigger(seconds=self.seconds, timezone=zone, jitter=spread)
        names = ("minute", "hour", "day", "month", "day_of_week")
        either = [CronTrigger(**dict(zip(names, cron, strict=True)), timezone=zone) for cron in self.crons]
        return OrTrigger(either, jitter=spread)

    def first_run(self, *, since: datetime, at: datetime, zone: tzinfo, spread: float) -> datetime | None:
        """The first one after `since`; one that was due before `at` is made up now.

        `spread`, 0 … 1, is the share of the jitter that is added. A `since` in the future, left by a clock that was
        wrong, counts as now.
        """
        since = min(since, at)
        if self.seconds is not None:
            due: datetime | None = since + timedelta(seconds=self.seconds)
        else:
            due = self.trigger(zone, jitter=False).get_next_fire_time(None, since.astimezone(zone))
        return None if due is None else max(due, at) + timedelta(seconds=spread * self.jitter_seconds)


def parse(text: str) -> Schedule:
    """Raises InvalidInput, which names what is allowed."""
    words = " ".join(text.split()).lower()
    if len(words) <= LONGEST_REFRESH:
        try:
            found = _interval(words) or _clock(words) or _cron(words)
            # The thirtieth of February is well written, and never comes.
            if found and found.first_run(since=_A_DAY_THAT_IS, at=_A_DAY_THAT_IS, zone=UTC, spread=0) is not None:
                return found
        except ValueError as problem:  # ours, or APScheduler's of a cron field
            log.debug("%s is no schedule: %s", words, problem)
    raise InvalidInput(f"“{_shown(text)}” does not say when to sync.", remedy=ALLOWED)


def _interval(words: str) -> Schedule | None:
    found = _INTERVAL.fullmatch(words)
    if found is None:
        return None
    seconds = int(found[1]) * _UNITS[found[2]]
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise ValueError("out of bounds")
    return Schedule(seconds=seconds)


def _clock(words: str) -> Schedule | None:
    found = _CLOCK.fullmatch(words)
    if found is None:
        return None
    day, hour, minute = found[1], int(found[2]), int(found[3])
    if day is not None:
        day = _DAYS[_DAY_NAMES.index(day)] if day in _DAY_NAMES else _DAYS[_DAYS.index(day)]
    return Schedule(crons=((str(minute), str(hour), "*", "*", day or "*"),))


def _cron(words: str) -> Schedule | None:
    fields = words.split(" ")
    if len(fields) != 5:
        return None
    minute, hour, day, month, weekday = fields
    weekdays = _weekdays(weekday)
    if day.startswith("*") or weekday.startswith("*"):
        return Schedule(crons=((minute, hour, day, month, weekdays),))
    # As cron has it: with both days restricted, either will do. APScheduler would want both.
    return Schedule(crons=((minute, hour, day, month, "*"), (minute, hour, "*", month, weekdays)))


def _weekdays(field: str) -> str:
    """Names instead of numbers: cron's week begins with 0 for Sunday, APScheduler's with 0 for Monday."""
    if field == "*":
        return field
    days: set[int] = set()
    for part in field.split(","):
        found = _DAY_RANGE.fullmatch(part)
        if found is None:
            raise ValueError(f"{part} is no day of the week")
        every, first, last, step = found.groups()
        begin = 0 if every else _weekday(first)
        end = 6 if every or (step and not last) else _weekday(last or first)
        if end == 0 and begin > 0:
            end = 7  # sat-sun
        if end < begin:
            raise ValueError(f"{part} runs backwards")
        days.update(day % 7 for day in range(begin, end + 1, int(step or 1)))
    return ",".join(_DAYS[day] for day in sorted(days))


def _weekday(text: str) -> int:
    return int(text) if text.isdigit() else _DAYS.index(text)


def _shown(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= LONGEST_REFRESH else f"{one_line[:LONGEST_REFRESH]}…"


def local_zone() -> tzinfo:
    """The machine's. UTC where it cannot be told: a bare container has none, and two settings may disagree."""
    from tzlocal import get_localzone

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a machine without a zone, for which UTC is right
            return get_localzone()
    except (LookupError, ValueError, OSError) as problem:
        log.warning("Schedules go by UTC, because the machine's time zone cannot be told: %s", problem)
        return UTC


class Schedules:
    """Calls `run` with the id of each source that is due, one at a time, in a thread of its own.

    Nothing is loaded and no thread runs before there is a schedule; between two runs the thread sleeps, ten minutes
    at a time.
    """

    def __init__(self, run: Callable[[str], None], *, spread: Callable[[], float] = random.random) -> None:
        self._run = run
        self._spread = spread
        self._lock = threading.Lock()
        self._closed = False
        self._refresh: dict[str, str] = {}  # source → what it was scheduled with
        self._scheduler: Any = None
        self._zone: tzinfo = UTC

    def follow(self, sources: Sequence[SourceRecord], *, make_up: bool = False) -> None:
        """These are all sources that there are now. What did not change keeps its next run.

        `make_up`: also a time of day that passed since the last sync is made up, as after a start. An interval always
        counts from the last sync.
        """
        wanted = {source.id: source for source in sources if source.refresh}
        with self._lock:
            if self._closed:
                return
            for source_id in self._refresh.keys() - wanted.keys():
                self._forget(source_id)
            for source in wanted.values():
                if self._refresh.get(source.id) != source.refresh:
                    self._set(source, make_up=make_up)

    def next_run(self, source_id: str) -> datetime | None:
        with self._lock:
            job = self._scheduler.get_job(source_id) if self._scheduler is not None else None
        found: datetime | None = job.next_run_time if job is not None else None
        return found.astimezone(UTC) if found is not None else None

    def close(self) -> None:
        """No run begins after this, and none is under way."""
        with self._lock:
            self._closed = True
            scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown()  # outside of the lock, which a run may be waiting for

    def _set(self, source: SourceRecord, *, make_up: bool) -> None:
        self._forget(source.id)
        try:
            schedule = parse(source.refresh or "")
        except InvalidInput as problem:  # of another version of Attest; the other sources go on
            log.error("“%s” is not synced by itself: %s", source.name, problem)
            return
        scheduler, at = self._started(), now()
        since = (source.synced_at or source.created_at) if make_up or schedule.seconds is not None else at
        first = schedule.first_run(since=since, at=at, zone=self._zone, spread=self._spread())
        scheduler.add_job(
            self._tick, schedule.trigger(self._zone), args=[source.id], id=source.id, name=source.name,
            next_run_time=first, coalesce=True, max_instances=1, misfire_grace_time=None,
        )  # fmt: skip
        self._refresh[source.id] = source.refresh or ""

    def _forget(self, source_id: str) -> None:
        if self._refresh.pop(source_id, None) is not None:
            self._scheduler.remove_job(source_id)

    def _started(self) -> Any:
        if self._scheduler is None:
            from apscheduler.executors.pool import ThreadPoolExecutor
            from apscheduler.schedulers.background import BackgroundScheduler
            from apscheduler.triggers.interval import IntervalTrigger

            self._zone = local_zone()
            self._scheduler = BackgroundScheduler(
                timezone=self._zone, executors={"default": ThreadPoolExecutor(1)}, daemon=True
            )
            # A thread that sleeps until a time does not count the hours that a notebook was closed, so without this
            # a run at 03:00 came at noon. It looks at the clock now and then, and what is due is done.
            again = IntervalTrigger(seconds=_LOOK_AGAIN_SECONDS, timezone=self._zone)
            self._scheduler.add_job(_look_at_the_clock, again, id="clock", coalesce=True, misfire_grace_time=None)
            self._scheduler.start()
        return self._scheduler

    def _tick(self, source_id: str) -> None:
        try:
            self._run(source_id)
        except AttestError as problem:  # anything else is logged by APScheduler, with its traceback
            log.warning("The sync of source %s that is due could not begin: %s", source_id, problem)


def _look_at_the_clock() -> None:
    """The scheduler does that itself when it wakes."""
