"""Schedules are fired: one run for every tick, whoever dies, and however many try."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import anyio
import pytest

from millstream.client import Client
from millstream.client.queues import Queues
from millstream.errors import StoreUnavailable
from millstream.events import ScheduleFailed, TickFired, TicksSkipped
from millstream.model.outcome import Completed
from millstream.model.run import RunState
from millstream.model.schedule import Progress, Schedule
from millstream.store import depth_limits, schedules
from millstream.store.connection import Connection
from millstream.store.embedded import JumpingClock, jumping_clock
from millstream.store.keys import Lane
from millstream.store.schedules import Written
from millstream_scheduler.plan import ON_TIME_S
from millstream_scheduler.term import Term
from millstream_scheduler.ticker import Ticker
from tests.scheduler.replicas import Transcript, replicas
from tests.store.bench import Bench


class Trusted(Term):
    """A term that does not end."""

    def __init__(self) -> None:
        super().__init__(1, anyio.current_time)

    @property
    def trusted(self) -> bool:
        return True


def ticker(store: Connection, told: Transcript | None = None) -> Ticker:
    return Ticker(
        store,
        Queues(store, "inbox", 0.0),
        Trusted(),
        retention_s=3600,
        random=Random(1),
        emit=Transcript() if told is None else told,
        mono=anyio.current_time,
    )


async def made(store: Connection, name: str = "s", *, ago: float = 10, **options: Any) -> float:
    """Make a schedule whose first tick was some while ago; return that tick."""
    first = float(int((await schedules.due(store, 0)).now - ago))
    start = datetime.fromtimestamp(first, UTC)
    wanted = {"every": 1, "overlap": "allow", "catch_up": "all", "start": start, **options}
    status = await Client(connection=store).schedules.create(Schedule(name, "flow", **wanted))
    progress = replace(status.progress, next=first)
    assert await schedules.write(store, [Written(name, status.revision, progress, first)]) == [True]
    return first


async def fired(bench: Bench) -> Counter[str]:
    """How many entries of the streams each run has."""
    return Counter(run_id for _, run_id in await bench.waiting())


async def stood(store: Connection, name: str = "s") -> schedules.Stored:
    found = await schedules.read(store, name)
    assert found is not None
    return found


def each_once(first: float, progress: Any, every: float = 1) -> dict[str, int]:
    """One run for every tick from the first one to the last that fired."""
    schedule = Schedule("s", "flow", every=every)
    count = round((progress.last - first) / every) + 1
    return {schedule.run_id(first + n * every): 1 for n in range(count)}


async def test_every_tick_gets_one_run(bench: Bench) -> None:
    told = Transcript()
    first = await made(bench.store)
    pause_s = await ticker(bench.store, told)._tick()
    progress = (await stood(bench.store)).progress

    assert await fired(bench) == each_once(first, progress)
    assert progress.fired == len(told.of(TickFired)) >= 10
    assert progress.next == (progress.last or 0) + 1
    assert 0 <= pause_s <= 1


async def test_the_leader_fires_by_itself(store_url: str) -> None:
    """From the signal of its election on, without anybody asking."""
    async with Client(store_url) as client, replicas(store_url, lease=3) as crew:
        crew.start(2)
        await client.schedules.create(Schedule("s", "flow", every=1, catch_up="all"))  # type: ignore[arg-type]
        await crew.transcript.until(lambda: crew.transcript.of(TickFired))
        (event, *_) = crew.transcript.of(TickFired)

        assert (await client.run(event.run_id).status()).workflow == "flow"
        assert event.late_s < 1.5


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_what_is_cut_off_between_run_and_schedule_is_done_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """The leader dies when its runs stand; or when all is written and only the reply is lost."""
    first = await made(bench.store)
    write = schedules.write

    async def broken(store: Connection, written: Any) -> list[bool]:
        if cut == "after":
            await write(store, written)
        raise StoreUnavailable("redis", "cut")

    monkeypatch.setattr(schedules, "write", broken)
    with pytest.raises(StoreUnavailable):
        await ticker(bench.store)._tick()
    monkeypatch.setattr(schedules, "write", write)
    for _ in range(2):
        await ticker(bench.store)._tick()

    assert await fired(bench) == each_once(first, (await stood(bench.store)).progress)


async def test_a_tick_that_a_full_queue_refuses_is_caught_up_with(bench: Bench) -> None:
    """It is told, other schedules fire meanwhile, and no tick is lost."""
    told = Transcript()
    await depth_limits.limit(bench.store, "full", 1)
    first = await made(bench.store, "s", every=3600, ago=1800, queue="full")
    await made(bench.store, "t", every=3600, ago=1800)
    full = Bench(bench.store, Lane("full"))
    await full.prepare()
    await full.accept("ahead")
    await ticker(bench.store, told)._tick()

    assert [event.schedule for event in told.of(TickFired)] == ["t"]
    assert "QueueFull" in told.of(ScheduleFailed)[0].error
    stored = await stood(bench.store)
    assert "is full" in (stored.progress.error or "")
    await full.cancel("ahead")
    await full.take("w1")
    await schedules.write(
        bench.store, [Written("s", stored.revision, stored.progress, first)]
    )  # as when it is looked at again
    await ticker(bench.store, told)._tick()
    assert [event.schedule for event in told.of(TickFired)] == ["t", "s"]
    assert (await stood(bench.store)).progress.error is None


async def test_a_tick_that_is_refused_is_tried_again_while_it_is_on_time(bench: Bench) -> None:
    """A minute later `skip` would pass it over, although there was room after a second."""
    await depth_limits.limit(bench.store, "full", 1)
    full = Bench(bench.store, Lane("full"))
    await full.prepare()
    await full.accept("ahead")
    first = await made(bench.store, every=3600, ago=5, queue="full", catch_up="skip")
    await ticker(bench.store)._tick()
    ((_, due),) = await schedules.standing(bench.store, ["s"])

    assert due is not None
    assert first < due < first + ON_TIME_S / 2


async def test_two_leaders_at_the_same_time_do_no_harm(bench: Bench) -> None:
    """Nobody's safety hangs on there being one: a frozen one may wake at any point."""
    told = Transcript()
    first = await made(bench.store, ago=30)
    both = [ticker(bench.store, told) for _ in range(3)]
    async with anyio.create_task_group() as group:
        for each in both:
            group.start_soon(each._tick)
    progress = (await stood(bench.store)).progress

    assert await fired(bench) == each_once(first, progress)
    assert len(told.of(TickFired)) == progress.fired, "each tick was told once"


async def test_a_tick_of_before_a_change_is_not_fired_anew_with_what_it_says_now(
    bench: Bench,
) -> None:
    """It was fired, the leader died, and then somebody changed the arguments."""
    first = await made(bench.store, every=3600, ago=1800)
    before = await stood(bench.store)
    await ticker(bench.store)._tick()
    old, new = before.schedule, replace(before.schedule, arguments={"other": 1})
    after = await stood(bench.store)
    # As if the schedule had not moved on.
    back = Written("s", after.revision, before.progress, first, schedules.encode(new))
    await schedules.write(bench.store, [back])
    await ticker(bench.store)._tick()

    assert await fired(bench) == {old.run_id(first): 1}
    assert (await stood(bench.store)).progress.last == first


async def test_a_change_keeps_a_tick_that_has_come(bench: Bench) -> None:
    """A worker of a new release starts in the moment in which the tick is due."""
    first = await made(bench.store, every=3600, ago=1800)
    schedule = (await stood(bench.store)).schedule
    client = Client(connection=bench.store)
    await client.schedules.apply([replace(schedule, arguments={"other": 1})])
    await ticker(bench.store)._tick()

    assert await fired(bench) == {schedule.run_id(first): 1}


@pytest.mark.parametrize("resumed", [False, True])
async def test_runs_that_stand_count_although_their_schedule_was_changed_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    """An operator pauses between a tick's run and its record: the run is there, and goes on."""
    told, client = Transcript(), Client(connection=bench.store)
    first = await made(bench.store)
    overtaken = ticker(bench.store, told)
    send_all = overtaken._queues.send_all

    async def slowly(queue: str, news: Any) -> Any:
        sent = await send_all(queue, news)
        await client.schedules.pause("s")
        if resumed:
            await client.schedules.resume("s")
        return sent

    monkeypatch.setattr(overtaken._queues, "send_all", slowly)
    await overtaken._tick()
    progress = (await stood(bench.store)).progress

    assert progress.paused is not resumed
    assert await fired(bench) == each_once(first, progress)
    assert progress.fired == len(told.of(TickFired)) == len(each_once(first, progress))


async def test_runs_of_a_round_that_was_cut_off_count_although_the_next_finds_it_paused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is away when the schedule is to move on, and an operator is quicker afterwards."""
    first = await made(bench.store)
    write = schedules.write

    async def broken(store: Connection, written: Any) -> list[bool]:
        raise StoreUnavailable("redis", "cut")

    cut_off = ticker(bench.store)
    monkeypatch.setattr(schedules, "write", broken)
    with pytest.raises(StoreUnavailable):
        await cut_off._tick()
    monkeypatch.setattr(schedules, "write", write)
    await Client(connection=bench.store).schedules.pause("s")
    for _ in range(2):
        await cut_off._tick()
    progress = (await stood(bench.store)).progress

    assert await fired(bench) == each_once(first, progress)
    assert progress.fired == len(each_once(first, progress))


@dataclass(slots=True)
class World(Bench):
    """A lane of a store whose clock can be set forward."""

    clock: JumpingClock = field(default_factory=JumpingClock)


@pytest.fixture
async def world(memory_url: str) -> AsyncIterator[World]:
    with jumping_clock() as clock:
        store = Connection(memory_url)
        made = World(store, clock=clock)
        await made.prepare()
        yield made
        await store.aclose()


async def test_skip_passes_over_ticks_while_a_run_goes_on(world: World) -> None:
    """A run that is still waiting or held keeps the next tick from running."""
    told = Transcript()
    await made(world.store, overlap="skip", ago=2)
    await ticker(world.store, told)._tick()
    await again(world, told)
    assert len(await fired(world)) == 1
    assert "overlap" in {event.reason for event in told.of(TicksSkipped)}

    await end_all(world)
    await again(world, told)
    assert len(told.of(TickFired)) == 2


async def test_cancel_makes_room(world: World) -> None:
    told = Transcript()
    await made(world.store, overlap="cancel", ago=2)
    await ticker(world.store, told)._tick()
    await again(world, told)
    first, second = (event.run_id for event in told.of(TickFired))

    assert await world.state(first) is RunState.CANCELLED
    assert await world.state(second) is RunState.QUEUED


async def test_queue_goes_on_when_the_run_before_has_ended(world: World) -> None:
    """One after the other, in order, and every one of them."""
    told = Transcript()
    first = await made(world.store, overlap="queue", ago=3)
    await ticker(world.store, told)._tick()
    await again(world, told)
    assert len(await fired(world)) == 1, "the second waits for the first"

    for _ in range(3):
        await end_all(world)
        await again(world, told)
    schedule = (await stood(world.store)).schedule
    assert [x.run_id for x in told.of(TickFired)] == [schedule.run_id(first + n) for n in range(4)]


async def test_one_that_cannot_be_read_does_not_keep_the_others(bench: Bench) -> None:
    """A newer release, or a machine without that zone."""
    told = Transcript()
    await made(bench.store, "bad")
    await made(bench.store, "s")
    key = "millstream:{schedules}:schedule:bad"
    spec = (await bench.redis.hget(key, "spec")).replace(b"UTC", b"Mars/Olympus")
    await bench.redis.hset(key, "spec", spec)
    await ticker(bench.store, told)._tick()

    assert told.of(TickFired)
    (failed,) = told.of(ScheduleFailed)
    assert failed.schedule == "bad"
    assert "Mars/Olympus" in failed.error
    assert "Mars/Olympus" in ((await stood(bench.store, "bad")).progress.error or "")
    assert [x.name for x in (await schedules.due(bench.store)).schedules] in ([], ["s"])


async def test_a_paused_one_does_not_fire_and_catches_nothing_up(bench: Bench) -> None:
    told = Transcript()
    client = Client(connection=bench.store)
    await made(bench.store)
    await client.schedules.pause("s")
    await ticker(bench.store, told)._tick()
    assert await fired(bench) == {}

    resumed = await client.schedules.resume("s")
    now = (await schedules.due(bench.store, 0)).now
    assert now < resumed.upcoming[0] + 1
    assert resumed.progress.fired == 0


async def test_a_round_costs_what_is_due(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedules that sleep cost nothing, however many; a hundred that are due share their calls."""
    now = (await schedules.due(bench.store, 0)).now
    wanted = Schedule("x", "flow", every=3600, overlap="allow").checked()  # type: ignore[arg-type]
    for page in batches([f"far{n:04d}" for n in range(200)]):
        await put(bench.store, wanted, page, now + 1000)
    first = now // 3600 * 3600
    await put(bench.store, wanted, [f"due{n:02d}" for n in range(100)], first)
    sent: list[str] = []

    async def counted(send: Any, command: Any) -> Any:
        sent.append(str(command[0]))
        return await send(*command)

    bench.intercept(monkeypatch, counted)
    await ticker(bench.store)._tick()

    # Due, the layout of the queue, the runs and the schedules; a script may be sent again as text.
    assert len(sent) <= 5, sent
    assert sum((await fired(bench)).values()) == 100


def batches(names: list[str]) -> Iterable[list[str]]:
    return (names[at : at + schedules.PAGE] for at in range(0, len(names), schedules.PAGE))


async def put(store: Connection, wanted: Schedule, names: list[str], due: float) -> None:
    written = []
    for name in names:
        spec = schedules.encode(replace(wanted, name=name))
        written.append(Written(name, 0, Progress(next=due), due, spec))
    assert all(await schedules.write(store, written))


async def again(world: World, told: Transcript) -> None:
    """One more round, when the next second has come."""
    world.clock.offset_s += 1
    await ticker(world.store, told)._tick()


async def end_all(bench: Bench) -> None:
    from tests.store.bench import ending

    for delivery in await bench.take("w1", 10):
        await bench.verdict("w1", ending(delivery, Completed(b"1")))
