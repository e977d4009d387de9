"""Schedules in the store: written under a revision, found when they are due, and in order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.exceptions import ResponseError

from millstream.errors import InvalidSchedule, PayloadTooLarge, StoreError, UsageError
from millstream.model import limits
from millstream.model.schedule import Progress, Schedule
from millstream.store import schedules
from millstream.store.connection import Connection
from millstream.store.schedules import Written
from millstream.store.scripts import call

DAILY = Schedule("daily", "report", {"day": 1}, cron="@daily").checked()
BEGUN = Progress(next=1.0)


async def put(store: Connection, *names: str, due: float | None = 1.0) -> None:
    """Write schedules that differ by their name alone."""
    written = [Written(x, 0, BEGUN, due, schedules.encode(replace(DAILY, name=x))) for x in names]
    assert await schedules.write(store, written) == [True] * len(names)


async def test_what_was_written_is_read_as_it_was(store: Connection) -> None:
    progress = Progress(next=3.5, waiting=(1.0, 2.5), last=1.0, last_run="daily@x", fired=3)
    spec = schedules.encode(DAILY)
    await schedules.write(store, [Written("daily", 0, progress, 3.5, spec)])
    found = await schedules.read(store, "daily")

    assert found is not None
    assert (found.schedule, found.progress, found.spec) == (DAILY, progress, spec)
    assert await schedules.read(store, "another") is None


async def test_of_two_who_change_one_the_second_is_told(store: Connection) -> None:
    """Nothing that somebody else has written meanwhile is lost."""
    await put(store, "daily")
    read = await schedules.read(store, "daily")
    assert read is not None
    first = Written("daily", read.revision, replace(BEGUN, fired=1), 2.0)
    second = Written("daily", read.revision, replace(BEGUN, paused=True))

    assert await schedules.write(store, [first]) == [True]
    assert await schedules.write(store, [second]) == [False]
    assert await schedules.write(store, [first]) == [False], "sent twice it is written once"

    found = await schedules.read(store, "daily")
    assert found is not None
    assert found.progress.fired == 1
    assert found.schedule == replace(DAILY), "what it says was not written anew"


async def test_one_that_was_made_anew_is_not_taken_for_the_old(store: Connection) -> None:
    """Who still holds the old one must not move the new one on."""
    await put(store, "daily")
    old = await schedules.read(store, "daily")
    assert old is not None
    assert await schedules.write(store, [Written("daily", old.revision, None)]) == [True]
    assert await schedules.read(store, "daily") is None
    await put(store, "daily")

    assert await schedules.write(store, [Written("daily", old.revision, BEGUN)]) == [False]
    assert await schedules.write(store, [Written("daily", 0, BEGUN)]) == [False]


async def test_what_is_due_is_found_and_nothing_else(store: Connection) -> None:
    now = (await schedules.due(store, 0)).now
    await put(store, "a", "b", due=now - 1)
    await put(store, "later", due=now + 1000)
    await put(store, "never", due=None)
    found = await schedules.due(store)

    assert [x.name for x in found.schedules] == ["a", "b"]
    assert found.next_due == pytest.approx(now + 1000, abs=0.001)
    assert found.now >= now

    # One page of two: the other is due as well.
    page = await schedules.due(store, 1)
    assert [x.name for x in page.schedules] == ["a"]
    assert page.next_due == pytest.approx(now - 1, abs=0.001)


async def test_deleted_is_due_no_more(store: Connection) -> None:
    await put(store, "a")
    (found,) = (await schedules.due(store)).schedules
    await schedules.write(store, [Written("a", found.revision, None)])

    assert (await schedules.due(store)).schedules == []
    assert await schedules.page(store) == []
    assert await store.client.keys("*schedule:*") == []


async def test_a_name_without_a_schedule_is_dropped(store: Connection) -> None:
    """A part may be lost in a failover; what is left must not be looked at for ever."""
    await put(store, "a")
    await store.client.delete("millstream:{schedules}:schedule:a")

    assert (await schedules.due(store)).schedules == []
    assert await store.client.zcard("millstream:{schedules}:due") == 0


async def test_pages_are_in_order_and_without_end(store: Connection) -> None:
    names = [f"s{n:03d}" for n in range(250)]
    for first in range(0, 250, 100):
        await put(store, *names[first : first + 100])

    found: list[str] = []
    while page := await schedules.page(store, found[-1] if found else ""):
        assert len(page) <= schedules.PAGE
        found += [stored.name for stored in page]
    assert found == names


async def test_there_is_a_bound(store: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by name, and what is there can still be changed."""
    small = replace(limits.LIMITS, schedules=2)
    monkeypatch.setattr(schedules, "LIMITS", small)
    await put(store, "a", "b")

    with pytest.raises(UsageError, match="2 schedules already"):
        await put(store, "c")
    found = await schedules.read(store, "a")
    assert found is not None
    assert await schedules.write(store, [Written("a", found.revision, BEGUN, 5.0)]) == [True]


def test_one_that_is_too_large_is_not_written() -> None:
    """A page of them is one reply."""
    with pytest.raises(PayloadTooLarge):
        schedules.encode(replace(DAILY, arguments={"x": "y" * 70_000}))


async def test_what_a_newer_release_wrote_says_so(store: Connection) -> None:
    await put(store, "a")
    await store.client.hset(
        "millstream:{schedules}:schedule:a", "spec", '{"name":"a","workflow":"w","overlap":"new"}'
    )
    found = await schedules.read(store, "a")

    assert found is not None
    with pytest.raises(InvalidSchedule, match="finish the upgrade"):
        _ = found.schedule


@pytest.mark.parametrize("row", [["a", "x", "s", "p", ""], ["a", "0", "s", "p", "1.5"], ["a", "0"]])
async def test_what_is_malformed_writes_nothing(store: Connection, row: list[str]) -> None:
    """A script that fails half-way is not rolled back: all is looked at before."""
    sound = ["b", "0", "{}", "{}", "1"]
    with pytest.raises((StoreError, ResponseError)), store.translated():
        await call(store.scripts, "schedule", schedules._CALENDAR, [10, *sound, *row])

    assert await store.client.keys("*") == []


async def test_one_that_is_foreign_keeps_the_others_from_nothing(store: Connection) -> None:
    """Another program keeps something under its key: the rest is due all the same."""
    await put(store, "a", "b")
    (key,) = [key async for key in store.client.scan_iter(match="*schedule:a")]
    await store.client.delete(key)
    await store.client.set(key, "not yours")

    found = await schedules.due(store)

    assert [stored.name for stored in found.schedules] == ["b"]
