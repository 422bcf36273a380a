"""Schedules: what `refresh` may say, when the next sync is, and that each is made once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.schedule import ALLOWED, Schedules, local_zone, parse
from rag.catalog.engine import now
from rag.errors import InvalidInput, Unavailable
from rag.models import SourceRecord

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)  # a Friday
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def first(refresh: str, since: datetime, *, at: datetime | None = None, zone: ZoneInfo | None = None) -> datetime:
    found = parse(refresh).first_run(since=since, at=at or since, zone=zone or UTC, spread=0)
    assert found is not None
    return found


# ── what it may say ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("refresh", "expected"),
    [
        ("15m", "2026-11-20T12:15"),
        (" 2 H ", "2026-11-20T14:00"),
        ("1d", "2026-11-21T12:00"),
        ("daily 03:00", "2026-11-21T03:00"),
        ("Daily 15:30", "2026-11-20T15:30"),
        ("weekly mon 03:00", "2026-11-23T03:00"),
        ("weekly Sunday 7:05", "2026-11-22T07:05"),
        ("*/30 * * * *", "2026-11-20T12:00"),
        ("5 4 * * *", "2026-11-21T04:05"),
        ("0 0 1 jan *", "2027-01-01T00:00"),
        # 0 and 7 are Sunday, 1 is Monday: cron's numbers, not those of the library
        ("0 3 * * 0", "2026-11-22T03:00"),
        ("0 3 * * 7", "2026-11-22T03:00"),
        ("0 3 * * 1", "2026-11-23T03:00"),
        ("0 3 * * mon-fri", "2026-11-23T03:00"),
        ("0 13 * * 1-5", "2026-11-20T13:00"),
        ("0 3 * * sat-sun", "2026-11-21T03:00"),
        ("0 3 * * 0-6/3", "2026-11-21T03:00"),  # Sunday, Wednesday, Saturday
        ("0 3 * * */2", "2026-11-21T03:00"),  # Sunday, Tuesday, Thursday, Saturday
        ("0 3 * * 2/2", "2026-11-21T03:00"),  # Tuesday, Thursday, Saturday
        # with both days restricted either will do
        ("0 3 25 * mon", "2026-11-23T03:00"),
        ("0 3 22 * mon", "2026-11-22T03:00"),
        ("0 3 30 2 mon", "2027-02-01T03:00"),
    ],
)
def test_a_schedule_says_when_the_next_sync_is(refresh: str, expected: str) -> None:
    assert first(refresh, NOON).isoformat(timespec="minutes") == f"{expected}+00:00"


@pytest.mark.parametrize(
    "refresh",
    [
        *("", " ", "0m", "59s", "30s", "1.5h", "-5m", "m", "15", "15m 2h", "367d", "999999999d", "٣m", "１５m", "1w"),
        *("daily", "daily 3", "daily 24:00", "daily 03:60", "daily 3am", "weekly 03:00", "weekly moon 03:00"),
        *("weekly 1 03:00", "daily mon 03:00", "monthly 1 03:00", "hourly", "@daily"),
        *("* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 * "),
        *("* * * * 8", "* * * * fri-mon", "* * * * 5-1", "*/0 * * * *", "* * * * */0", "a * * * *", "1- * * * *"),
        *("0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * * * ,", "* * * * mo", "1;2 * * * *", "\0 * * * *", "*" * 5000),
    ],
)
def test_what_says_nothing_is_refused_with_what_is_allowed(refresh: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(refresh)
    assert refused.value.remedy == ALLOWED
    assert len(refused.value.detail) < 200


@given(
    st.text()
    | st.text(alphabet="0123456789*/,-: mhdaeilwkyonturfs", max_size=30)
    | st.lists(st.text(alphabet="0123456789*/,-", min_size=1, max_size=6), min_size=5, max_size=5).map(" ".join)
)
def test_any_text_is_a_schedule_that_comes_or_is_refused(text: str) -> None:
    try:
        schedule = parse(text)
    except InvalidInput:
        return
    found = schedule.first_run(since=NOON, at=NOON, zone=UTC, spread=0)
    assert found is not None
    assert found >= NOON


_PART = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 3)).map(
    lambda part: f"{min(part[:2])}-{max(part[:2])}/{part[2]}"
)


@settings(max_examples=50)
@given(minute=st.integers(0, 59), hour=st.integers(0, 23), day=st.just("*") | st.integers(1, 28), weekdays=_PART)
def test_a_cron_line_means_what_cron_means_by_it(minute: int, hour: int, day: int | str, weekdays: str) -> None:
    """Against a clock that is wound on hour by hour."""
    span, step = weekdays.split("/")
    begin, end = (int(number) for number in span.split("-"))
    wanted = {number % 7 for number in range(begin, end + 1, int(step))}

    def fits(moment: datetime) -> bool:
        on_weekday = moment.isoweekday() % 7 in wanted
        return moment.hour == hour and (on_weekday if day == "*" else on_weekday or moment.day == day)

    moment = NOON.replace(minute=minute)
    while moment < NOON or not fits(moment):
        moment += timedelta(hours=1)
    assert first(f"{minute} {hour} {day} * {weekdays}", NOON) == moment


# ── when ──────────────────────────────────────────────────────────────────────────────────────


def test_times_are_the_zones_on_both_sides_of_a_change_of_the_clock() -> None:
    for day, utc_hour in ((datetime(2026, 3, 28, tzinfo=BERLIN), 2), (datetime(2026, 3, 29, 12, tzinfo=BERLIN), 1)):
        assert first("daily 03:00", day, zone=BERLIN).astimezone(UTC).hour == utc_hour
    # 02:30 is left out when the clock goes forward: the run comes, an hour later by the wall
    skipped = first("daily 02:30", datetime(2026, 3, 28, 12, tzinfo=BERLIN), zone=BERLIN)
    assert skipped.astimezone(UTC).isoformat() == "2026-03-29T01:30:00+00:00"


def test_the_zone_is_the_machines_and_utc_where_nobody_can_tell(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert NOON.astimezone(local_zone()).utcoffset() == NOON.astimezone().utcoffset()

    def contradicts_itself() -> ZoneInfo:
        raise KeyError("Multiple conflicting time zone configurations found")

    monkeypatch.setattr("tzlocal.get_localzone", contradicts_itself)
    assert local_zone() is UTC
    assert "conflicting" in caplog.text


@pytest.mark.parametrize("refresh", ["15m", "1d", "daily 03:00", "*/5 * * * *"])
def test_a_run_that_was_missed_is_made_up_soon(refresh: str) -> None:
    schedule = parse(refresh)
    soon = [schedule.first_run(since=LONG_AGO, at=NOON, zone=UTC, spread=spread) for spread in (0, 0.5, 1)]
    assert soon == [NOON + timedelta(seconds=spread * schedule.jitter_seconds) for spread in (0, 0.5, 1)]


def test_a_run_that_was_not_missed_is_waited_for() -> None:
    assert first("1d", NOON - timedelta(hours=1), at=NOON) == NOON + timedelta(hours=23)
    assert first("daily 03:00", NOON - timedelta(hours=1), at=NOON) == datetime(2026, 11, 21, 3, tzinfo=UTC)


@pytest.mark.parametrize("refresh", ["15m", "daily 03:00"])
def test_a_sync_in_the_future_silences_no_schedule(refresh: str) -> None:
    """A clock that went backwards leaves one."""
    assert first(refresh, NOON + timedelta(days=3650), at=NOON) == first(refresh, NOON)


@pytest.mark.parametrize(
    ("refresh", "most"), [("1m", 6), ("5m", 30), ("10m", 60), ("1d", 60), ("daily 03:00", 60), ("0 4 1 * mon", 60)]
)
def test_jitter_is_a_tenth_of_an_interval_and_a_minute_at_most(refresh: str, most: float) -> None:
    schedule = parse(refresh)
    assert schedule.jitter_seconds == most
    exact, spread = schedule.trigger(UTC, jitter=False), schedule.trigger(UTC)
    plain = exact.get_next_fire_time(NOON, NOON)
    late = [(spread.get_next_fire_time(NOON, NOON) - plain).total_seconds() for _ in range(500)]
    assert 0 <= min(late) < most * 0.2
    assert most * 0.8 < max(late) <= most


# ── kept ──────────────────────────────────────────────────────────────────────────────────────


class Heard:
    """Whom a schedule called, and a way to wait for it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, source_id: str) -> None:
        with self._changed:
            self.calls.append(source_id)
            self._changed.notify_all()
        if source_id.startswith("fails"):
            raise Unavailable("The disk is away.")

    def wait_for(self, *source_ids: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(source_ids) <= set(self.calls), timeout=20), self.calls


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def schedules(heard: Heard) -> Iterator[Schedules]:
    before = set(threading.enumerate())
    schedules = Schedules(heard, spread=lambda: 0.0)
    yield schedules
    schedules.close()
    assert set(threading.enumerate()) <= before


def source(source_id: str, refresh: str | None, *, synced: datetime | None = None) -> SourceRecord:
    return SourceRecord(source_id, "col", source_id, "folder", {}, now(), synced, refresh)


def test_a_source_that_is_due_is_synced_once_and_the_next_run_is_visible(schedules: Schedules, heard: Heard) -> None:
    schedules.follow([source("late", "15m", synced=LONG_AGO), source("early", "15m"), source("never", None)])
    heard.wait_for("late")
    deadline = time.monotonic() + 20  # the next run is set beside the one that is heard
    while (schedules.next_run("late") or LONG_AGO) < now() and time.monotonic() < deadline:
        time.sleep(0.01)
    for source_id in ("late", "early"):
        following = schedules.next_run(source_id)
        assert following is not None
        assert timedelta(minutes=14) < following - now() < timedelta(minutes=17)
    assert schedules.next_run("never") is None
    assert heard.calls == ["late"]


def test_times_of_day_are_made_up_after_a_start_and_not_after_a_change(schedules: Schedules, heard: Heard) -> None:
    schedules.follow([source("changed", "daily 03:00", synced=LONG_AGO)])
    following = schedules.next_run("changed")
    assert following is not None
    assert following > now()
    schedules.follow([source("started", "daily 03:00", synced=LONG_AGO)], make_up=True)
    heard.wait_for("started")
    assert heard.calls == ["started"]


def test_a_change_takes_effect_at_once_and_what_did_not_change_stays(schedules: Schedules) -> None:
    schedules.follow([source("a", "15m"), source("b", "1h")])
    before = schedules.next_run("a")
    schedules.follow([source("a", "15m"), source("b", "2h")])
    assert schedules.next_run("a") == before
    changed = schedules.next_run("b")
    assert changed is not None
    assert changed - now() > timedelta(hours=1, minutes=30)
    schedules.follow([source("a", None)])
    assert schedules.next_run("a") is schedules.next_run("b") is None


def test_a_sync_that_cannot_begin_ends_no_schedule(
    schedules: Schedules, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        schedules.follow([source("fails", "15m", synced=LONG_AGO)])
        heard.wait_for("fails")
        schedules.follow([source("fails", "15m"), source("late", "15m", synced=LONG_AGO)])
        heard.wait_for("late")
    assert "The disk is away." in caplog.text
    assert schedules.next_run("fails") is not None


def test_a_schedule_that_cannot_be_read_stops_no_other(
    schedules: Schedules, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    schedules.follow([source("odd", "every full moon"), source("late", "15m", synced=LONG_AGO)])
    heard.wait_for("late")
    assert "every full moon" in caplog.text
    assert schedules.next_run("odd") is None


def test_without_a_schedule_nothing_runs(heard: Heard) -> None:
    before = set(threading.enumerate())
    schedules = Schedules(heard)
    schedules.follow([source("a", None)])
    assert set(threading.enumerate()) == before
    schedules.close()


def test_nothing_is_scheduled_after_the_close(heard: Heard) -> None:
    schedules = Schedules(heard)
    schedules.follow([source("a", "15m")])
    schedules.close()
    schedules.follow([source("late", "15m", synced=LONG_AGO)])
    schedules.close()
    assert schedules.next_run("late") is None
    assert heard.calls == []
