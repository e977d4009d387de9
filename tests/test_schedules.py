"""Schedules as their owners handle them: make, look at, change, pause, trigger, delete."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from millstream import Client, Context, RunState, Schedule, SyncClient, Workflows
from millstream.client.schedules import Change
from millstream.errors import (
    InvalidSchedule,
    NotEncodable,
    PayloadTooLarge,
    ScheduleConflict,
    UnknownSchedule,
    UsageError,
)
from millstream.events import ScheduleFailed, StoreFailed
from millstream.store import schedules
from millstream_worker.registrar import apply_schedules

NIGHTLY = Schedule("nightly", "report", {"day": 1}, cron="30 2 * * *", timezone="Europe/Berlin")


async def keys(client: Client) -> list[str]:
    return [key.decode() for key in await client._connection.client.keys("*")]


async def test_a_schedule_is_made_once(store_url: str) -> None:
    """A program that starts twice makes one; another one under its name is refused."""
    async with Client(store_url) as client:
        first = await client.schedules.create(NIGHTLY)
        again = await client.schedules.create(NIGHTLY)

        assert again == first
        assert first.schedule == NIGHTLY
        assert len(first.upcoming) == 5
        assert not first.paused
        with pytest.raises(ScheduleConflict, match="says something else"):
            await client.schedules.create(replace(NIGHTLY, arguments={"day": 2}))


BAD: list[tuple[dict[str, Any], type[UsageError]]] = [
    ({"timezone": "Mars/Olympus"}, InvalidSchedule),
    ({"cron": "0 0 30 2 *"}, InvalidSchedule),
    ({"end": datetime(2020, 1, 1, tzinfo=UTC)}, InvalidSchedule),
    ({"cron": None}, InvalidSchedule),
    ({"arguments": {"x": "y" * 70_000}}, PayloadTooLarge),
    ({"arguments": {"x": object()}}, NotEncodable),
    ({"arguments": [1]}, UsageError),
    ({"workflow": ""}, UsageError),
    ({"queue": "a b"}, UsageError),
    ({"priority": "urgent"}, UsageError),
    ({"timeout": -1}, UsageError),
]


@pytest.mark.parametrize(
    ("options", "error"), BAD, ids=[f"{n} {next(iter(x))}" for n, (x, _) in enumerate(BAD)]
)
async def test_what_could_never_run_is_refused_and_nothing_is_written(
    memory_url: str, options: dict[str, Any], error: type[UsageError]
) -> None:
    """Told to whoever makes it, and not at two in the morning to nobody."""
    async with Client(memory_url) as client:
        with pytest.raises(error):
            await client.schedules.create(replace(NIGHTLY, **options))
        with pytest.raises(error):
            await client.schedules.apply([replace(NIGHTLY, name="a"), replace(NIGHTLY, **options)])

        assert await keys(client) == []


async def test_one_is_paused_resumed_triggered_and_deleted(store_url: str) -> None:
    async with Client(store_url) as client:
        made = await client.schedules.create(NIGHTLY)
        paused = await client.schedules.pause("nightly")
        assert paused.paused
        assert paused.upcoming == ()
        assert await client.schedules.pause("nightly") == paused

        run = await client.schedules.trigger("nightly", id="by-hand")
        assert (await client.schedules.trigger("nightly", id="by-hand")).created is False
        status = await run.status()
        assert (status.workflow, status.state) == ("report", RunState.QUEUED)
        assert await client.arguments(run) == {"day": 1}
        other = await client.schedules.trigger("nightly")
        assert other.id.startswith("nightly@")

        resumed = await client.schedules.resume("nightly")
        assert resumed.upcoming == made.upcoming

        await client.schedules.delete("nightly")
        assert await client.schedules.list() == []
        for verb in ("get", "pause", "resume", "trigger", "delete"):
            with pytest.raises(UnknownSchedule):
                await getattr(client.schedules, verb)("nightly")


async def test_a_list_goes_on_where_it_ended(memory_url: str) -> None:
    async with Client(memory_url) as client:
        for name in ("c", "a", "b"):
            await client.schedules.create(replace(NIGHTLY, name=name))

        first = await client.schedules.list(limit=2)
        assert [status.name for status in first] == ["a", "b"]
        assert [x.name for x in await client.schedules.list(after="b")] == ["c"]
        assert all(len(status.upcoming) == 1 for status in first)


async def test_applying_changes_what_differs_and_keeps_what_was_paused(memory_url: str) -> None:
    """The code says what a schedule is; whether it rests is for the operator to say."""
    async with Client(memory_url) as client:
        made = await client.schedules.apply([NIGHTLY, replace(NIGHTLY, name="other")])
        assert [change for _, change in made] == [Change.CREATED, Change.CREATED]
        await client.schedules.pause("other")

        later = replace(NIGHTLY, cron="45 3 * * *")
        changed = await client.schedules.apply([later, replace(later, name="other")])
        assert [change for _, change in changed] == [Change.UPDATED, Change.UPDATED]
        assert changed[0].status.upcoming != made[0].status.upcoming
        assert changed[1].status.paused
        again = await client.schedules.apply([later])
        assert [change for _, change in again] == [Change.UNCHANGED]


async def test_a_schedule_is_changed_by_who_has_read_it(store_url: str) -> None:
    """As it stands now, and not over what somebody else wrote meanwhile; a lost reply is none."""
    later = replace(NIGHTLY, cron="0 3 * * *", arguments={"day": 2})
    async with Client(store_url) as client:
        await client.schedules.create(NIGHTLY, paused=True)
        changed = await client.schedules.change(NIGHTLY, later)
        again = await client.schedules.change(NIGHTLY, later)

        assert (changed.schedule, changed.paused, again) == (later, True, changed)
        for wanted, refusal in (
            (replace(NIGHTLY, cron="0 4 * * *"), ScheduleConflict),
            (replace(NIGHTLY, cron="0 0 30 2 *"), InvalidSchedule),
            (replace(NIGHTLY, name="other"), InvalidSchedule),
        ):
            with pytest.raises(refusal):
                await client.schedules.change(NIGHTLY, wanted)
        assert await client.schedules.get("nightly") == changed
        await client.schedules.delete("nightly")
        with pytest.raises(UnknownSchedule):
            await client.schedules.change(later, NIGHTLY)
        assert await client.schedules.list() == []


async def test_a_lost_reply_is_no_conflict(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written, and said so to nobody: said again, it is the same schedule."""
    from millstream.errors import StoreUnavailable

    write, lost = schedules.write, [True]

    async def losing(*args: Any) -> list[bool]:
        answer = await write(*args)
        if lost.pop() if lost else False:
            raise StoreUnavailable("redis", "cut")
        return answer

    monkeypatch.setattr(schedules, "write", losing)
    async with Client(memory_url) as client:
        made = await client.schedules.create(NIGHTLY)

        assert made.schedule == NIGHTLY
        assert lost == []


def test_programs_without_an_event_loop_have_the_same_verbs(memory_url: str) -> None:
    with SyncClient(memory_url) as client:
        client.schedules.create(NIGHTLY, paused=True)
        assert client.schedules.get("nightly").paused
        assert client.schedules.resume("nightly").upcoming
        assert client.schedules.pause("nightly").paused
        assert [change for _, change in client.schedules.apply([NIGHTLY])] == [Change.UNCHANGED]
        assert client.schedules.trigger("nightly", id="x").status().state is RunState.QUEUED
        assert [status.name for status in client.schedules.list()] == ["nightly"]
        client.schedules.delete("nightly")
        assert client.schedules.list() == []


# -- in code


def test_an_application_brings_its_schedules_along() -> None:
    app, part = Workflows(), Workflows()
    made = app.schedule("nightly", "report", {"day": 1}, cron="@daily", overlap="queue")
    part.schedule("hourly", "report", every=3600)
    app.include(part)

    assert [schedule.name for schedule in app.schedules] == ["nightly", "hourly"]
    assert made.overlap == "queue"
    with pytest.raises(InvalidSchedule, match="given twice"):
        app.schedule("hourly", "report", every=60)
    with pytest.raises(InvalidSchedule):
        app.schedule("both", "report", every=60, cron="@daily")


async def test_a_worker_makes_the_schedules_of_its_application(memory_url: str) -> None:
    """And tells of one that is refused, without giving up the others."""
    app = Workflows()

    @app.workflow()
    async def report(ctx: Context) -> None: ...

    app.schedule("bad", "report", cron="61 * * * *")
    app.schedule("good", "report", every=60)
    told: list[Any] = []
    async with Client(memory_url) as client:
        await apply_schedules(client.schedules, app, told.append)

        assert [status.name for status in await client.schedules.list()] == ["good"]
    assert [type(event) for event in told] == [ScheduleFailed]
    assert not [event for event in told if isinstance(event, StoreFailed)]
