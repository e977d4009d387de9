"""When schedules fire: changes of the clock, bounds and intervals, and never twice the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import InvalidSchedule, MissingExtra, UsageError
from millstream.model.schedule import Schedule, stamp
from millstream.timetable import Timetable

BERLIN = "Europe/Berlin"


def times(cron: str | None = None, **options: Any) -> Timetable:
    return Timetable(Schedule("s", "w", cron=cron, **options).checked())


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def fired(table: Timetable, after: str, count: int) -> list[str]:
    return [stamp(tick) for tick in table.upcoming(at(after), count)]


def test_a_time_that_the_clock_skips_fires_when_the_gap_is_over() -> None:
    """Half past two does not exist in the last night of March; the backup must run all the same."""
    table = times("30 2 * * *", timezone=BERLIN)

    assert fired(table, "2026-03-27T12:00", 3) == [
        "2026-03-28T01:30:00Z",
        "2026-03-29T01:00:00Z",  # 03:00 in summer time, the first moment after the gap
        "2026-03-30T00:30:00Z",
    ]


def test_a_time_that_comes_twice_fires_once() -> None:
    """Half past two comes twice in the last night of October; the invoice is sent once."""
    table = times("30 2 * * *", timezone=BERLIN)

    assert fired(table, "2026-10-24T12:00", 2) == ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]


@pytest.mark.parametrize("moment", ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:29:59"])
def test_a_time_that_has_fired_does_not_come_again_in_the_second_hour(moment: str) -> None:
    """Whoever computes it anew in between, such as the next leader, must not find it once more."""
    assert fired(times("30 2 * * *", timezone=BERLIN), moment, 1) == ["2026-10-26T01:30:00Z"]


def test_what_goes_by_the_hour_fires_in_both_hours_and_in_no_skipped_one() -> None:
    """Every half hour means every half hour, whatever the clock on the wall says."""
    table = times("*/30 * * * *", timezone=BERLIN)

    for night in ("2026-10-24T23:45", "2026-03-28T23:45"):
        found = table.upcoming(at(night), 8)
        assert {b - a for a, b in pairwise(found)} == {1800.0}


def test_a_day_is_that_of_the_zone() -> None:
    """Midnight in Auckland is noon of the day before in UTC."""
    table = times("@daily", timezone="Pacific/Auckland")

    assert fired(table, "2026-07-01T13:00", 1) == ["2026-07-02T12:00:00Z"]


def test_seconds_stand_first_when_there_are_six_fields() -> None:
    assert fired(times("*/20 * * * * *"), "2026-01-01T00:00", 3) == [
        "2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z", "2026-01-01T00:01:00Z"
    ]  # fmt: skip


def test_a_change_of_the_clock_means_the_same_for_a_line_with_seconds() -> None:
    """A line that was given seconds must not fire twice in October, nor not at all in March."""
    table = times("15,45 30 2 * * *", timezone=BERLIN)

    assert fired(table, "2026-03-28T12:00", 3) == [
        "2026-03-29T01:00:15Z", "2026-03-29T01:00:45Z", "2026-03-30T00:30:15Z"
    ]  # fmt: skip
    assert fired(table, "2026-10-25T00:30:20", 2) == [
        "2026-10-25T00:30:45Z", "2026-10-26T01:30:15Z"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "line", "after", "found"),
    [
        # Half an hour back at 02:00, and forward: the hours of that day begin as on any other.
        ("Australia/Lord_Howe", "*/20 5 * * *", "2026-04-04T10:00", ["18:30", "18:50", "19:10"]),
        ("Australia/Lord_Howe", "0 */2 * * *", "2026-04-04T12:00", ["13:00", "15:30", "17:30"]),
        ("Australia/Lord_Howe", "*/20 5 * * *", "2026-10-03T10:00", ["18:00", "18:20", "18:40"]),
        # An hour back at 03:45, and forward at 02:45: part of an hour comes twice, or never.
        ("Pacific/Chatham", "*/30 2 * * *", "2026-04-04T12:00", ["12:15", "12:45", "13:15"]),
        ("Pacific/Chatham", "*/25 2 * * *", "2026-04-04T12:50", ["13:05", "14:05", "13:15"]),
        ("Pacific/Chatham", "0 */2 * * *", "2026-09-26T13:30", ["14:15", "16:15", "18:15"]),
    ],
)
def test_a_clock_may_be_changed_within_an_hour(
    zone: str, line: str, after: str, found: list[str]
) -> None:
    """Whole hours are passed over on the way to the next time, and must not be lost with that."""
    assert [each[11:16] for each in fired(times(line, timezone=zone), after, 3)] == found


@pytest.mark.parametrize("line", [{"every": 60}, {"cron": "0 0 * * *"}])
def test_time_ends_with_the_year_9999(line: Any) -> None:
    """A schedule that starts then has no next time, as one that ended; nothing breaks on it."""
    table = times(**line, start=datetime(9999, 12, 31, tzinfo=UTC))

    assert table.after(at("2026-01-01")) is None


def test_an_interval_counts_from_its_start_and_includes_its_end() -> None:
    start = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)
    table = times(every=90, start=start, end=start + timedelta(seconds=180))

    assert fired(table, "2025-01-01T00:00", 9) == [
        "2026-01-01T00:00:07Z", "2026-01-01T00:01:37Z", "2026-01-01T00:03:07Z"
    ]  # fmt: skip
    assert table.after(at("2026-01-01T00:03:07")) is None


def test_an_interval_needs_no_start_to_be_the_same_for_everybody() -> None:
    assert fired(times(every=1.5), "2026-01-01T00:00", 2) == [
        "2026-01-01T00:00:01.500Z", "2026-01-01T00:00:03Z"
    ]  # fmt: skip


def test_a_bound_without_an_offset_is_meant_in_the_zone() -> None:
    table = times("0 0 * * *", timezone=BERLIN, start=datetime.fromisoformat("2026-07-01"))

    assert fired(table, "2026-01-01T00:00", 1) == ["2026-06-30T22:00:00Z"]


LINES = ("30 2 * * *", "0 */2 * * *", "*/20 * * * *", "0 0 * * 0", "15 1-3 * * *", "*/10 5 * * *",
         "5 4 29 2 *")  # fmt: skip
ZONES = ("UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Pacific/Chatham",
         "America/Sao_Paulo")  # fmt: skip
#: Around the changes of a clock, and everywhere else.
MOMENTS = st.one_of(
    st.integers(int(at("2026-03-28")), int(at("2026-04-06"))),
    st.integers(int(at("2026-09-26")), int(at("2026-10-05"))),
    st.integers(int(at("2026-10-24")), int(at("2026-11-02"))),
    st.integers(int(at("2015-01-01")), int(at("2036-01-01"))),
)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(LINES), st.sampled_from(ZONES), MOMENTS, st.floats(0, 0.999))
def test_the_next_time_is_the_same_from_wherever_one_looks(
    line: str, zone: str, moment: int, part: float
) -> None:
    """Each scheduler begins somewhere else, and must see the same ticks as the others."""
    table = times(line, timezone=zone)
    tick = table.after(moment)

    assert tick is not None
    assert tick > moment
    assert table.after(moment + part * (tick - moment)) == tick


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(LINES[:6]), st.sampled_from(ZONES), MOMENTS, st.integers(1, 20))
def test_the_newest_times_are_the_last_of_all(
    line: str, zone: str, moment: int, limit: int
) -> None:
    """Looked for from the end, so that a long outage costs no more than a short one."""
    table = times(line, timezone=zone)
    ticks = table.upcoming(moment, 30)

    assert table.newest(ticks[0], ticks[-1], limit) == ticks[-limit:]
    assert table.newest(ticks[0], ticks[-1], 100) == ticks


def test_what_was_missed_in_ten_years_costs_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scheduler that comes back must not spend its first minutes with counting."""
    looked = 0
    simulated = Timetable._simulated

    def counted(self: Timetable, moment: int) -> Iterator[datetime]:
        nonlocal looked
        for tick in simulated(self, moment):
            looked += 1
            yield tick

    monkeypatch.setattr(Timetable, "_simulated", counted)
    found = times("* * * * *").newest(at("2016-01-01"), at("2026-01-01"), 100)

    assert len(found) == 100
    assert looked < 500


def test_a_delay_is_the_same_for_everybody_and_within_the_jitter() -> None:
    """Two schedulers that disagree would fire at two times."""
    delays = [times(every=60, jitter=30).delay_s(60.0 * n) for n in range(200)]

    assert delays == [times(every=60, jitter=30).delay_s(60.0 * n) for n in range(200)]
    assert all(0 <= delay < 30 for delay in delays)
    assert len(set(delays)) > 150


LATER = datetime(2026, 2, 1, tzinfo=UTC)
REFUSED: list[dict[str, Any]] = [
    {},
    {"cron": "* * * * *", "every": 60},
    {"cron": "61 * * * *"},
    {"cron": "* * * *"},
    {"cron": "0 0 30 2 *"},
    {"cron": "* * * * *", "timezone": "Europe/Nowhere"},
    {"cron": "* * * * *", "timezone": ""},
    {"every": 0.5},
    {"every": float("nan")},
    {"every": 60, "jitter": -1},
    {"every": 60, "catch_up_limit": 0},
    {"every": 60, "overlap": "perhaps"},
    {"every": 60, "start": LATER, "end": LATER - timedelta(days=1)},
    {"every": 60, "queue": "a b"},
    {"every": "60"},
    {"every": True},
    {"cron": 5},
    {"every": 60, "catch_up_limit": 150.5},
    {"every": 60, "start": "2026-01-01"},
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_what_could_never_fire_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        times(**options)


@pytest.mark.parametrize("name", ["", "a b", "a@b", "x" * 101, "-a", "ä"])
def test_a_name_that_could_break_an_id_is_refused(name: str) -> None:
    with pytest.raises(InvalidSchedule):
        Schedule(name, "w", every=60).checked()


def test_only_cron_lines_need_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thin client can make schedules by interval; for others it says what is missing."""
    monkeypatch.setitem(sys.modules, "cronsim", None)

    assert list(islice(times(every=60).upcoming(0.0, 2), 2)) == [60.0, 120.0]
    with pytest.raises(MissingExtra, match=r"millstream\[schedules\]"):
        times("* * * * *")
