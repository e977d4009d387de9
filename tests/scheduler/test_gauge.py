"""The gauges of a queue are true, cost the same whatever its length, and vanish when unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from millstream.errors import StaleReading
from millstream.events import QueueSampled, StoreFailed, StoreRecovered
from millstream.model.limit import Asked
from millstream.model.outcome import Completed
from millstream.model.run import Priority, RunState
from millstream.store import agents, commits
from millstream.store.agents import Agent
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_scheduler.gauge import Gauge
from millstream_scheduler.readings import Readings
from millstream_scheduler.term import Term
from tests.scheduler.replicas import Transcript, replicas
from tests.store.bench import Bench, Send
from tests.store.states import put


def knowing() -> Readings:
    """What a scheduler knows that has just started."""
    return Readings(["default"], stale_s=30, mono=anyio.current_time)


async def sample(store: Connection, *lanes: Lane) -> QueueSampled:
    """Take one reading."""
    told = Transcript()
    term = Term(1, anyio.current_time)
    term.trust(anyio.current_time() + 600)
    gauge = Gauge(
        store, "default", lanes, term, knowing(), interval_s=60, emit=told,
        mono=anyio.current_time,
    )  # fmt: skip
    async with anyio.create_task_group() as group:
        group.start_soon(gauge.sample_forever)
        await told.until(lambda: told)
        group.cancel_scope.cancel()

    (reading,) = told.of(QueueSampled)
    return reading


def gauge_of(bench: Bench, readings: Readings) -> Gauge:
    """A gauge of the lane, with what it may already know."""
    term = Term(1, anyio.current_time)
    term.trust(anyio.current_time() + 600)
    return Gauge(
        bench.store, "default", [bench.lane], term, readings, interval_s=60, emit=Transcript(),
        mono=anyio.current_time,
    )  # fmt: skip


def agent(token: str, concurrency: int) -> Agent:
    return Agent(
        token=token, host="h", pid=1, concurrency=concurrency, started=0.0, workflows=(),
        release="0",
    )  # fmt: skip


def counts(reading: QueueSampled) -> dict[str, int]:
    names = ("waiting", "running", "scheduled", "parked", "dead", "workers")
    return {name: count for name in names if (count := getattr(reading, name))}


async def test_an_unused_queue_is_measured_as_empty(store: Connection) -> None:
    """No worker has made its streams; nothing is missing for that."""
    reading = await sample(store, Lane("default"))

    assert counts(reading) == {}
    assert reading.oldest_s == 0


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (RunState.QUEUED, {"waiting": 1}),
        (RunState.RUNNING, {"running": 1}),
        (RunState.SCHEDULED, {"scheduled": 1}),
        (RunState.PARKED, {"parked": 1}),
        (RunState.COMPLETED, {}),
        (RunState.FAILED, {"dead": 1}),
        (RunState.CANCELLED, {}),
    ],
)
async def test_a_run_counts_where_it_is(
    bench: Bench, state: RunState, expected: dict[str, int]
) -> None:
    await put(bench, state)

    assert counts(await sample(bench.store, bench.lane)) == expected


async def test_who_waits_for_a_permit_is_counted_apart(bench: Bench) -> None:
    """More workers could do nothing for it."""
    await bench.accept("r1", "r2", "r3")
    held = await bench.take("w1", 3)
    one = [Asked("one", 1)]
    await bench.commit("w1", *(commits.admit(each, one) for each in held))

    reading = await sample(bench.store, bench.lane)
    assert (reading.limited, reading.waiting, reading.running) == (2, 0, 1)
    assert reading.demand == 1


async def test_a_queue_is_the_sum_of_its_lanes(store: Connection) -> None:
    """Except for workers, which serve all of them, and for the oldest run, which is one."""
    benches = [Bench(store, Lane("default", number)) for number in range(3)]
    for number, bench in enumerate(benches):
        await bench.prepare()
        await bench.renew("w1", "w2")
        await bench.lapse("w2")
        await bench.accept(*(f"r{n}" for n in range(number + 4)), priority=Priority.HIGH)
        await bench.take("w1", number + 1)
        await bench.accept("later", delay_s=1000)
    # One that has waited since long before the others.
    await store.client.xadd(benches[1].lane.stream("low"), {"id": "old"}, id="1-1")

    reading = await sample(store, *(bench.lane for bench in benches))

    assert counts(reading) == {"waiting": 10, "running": 6, "scheduled": 3, "workers": 1}
    now_s = await benches[0].now_ms() / 1000
    assert now_s - 60 < reading.oldest_s < now_s


async def test_slots_are_those_of_the_workers_that_live(bench: Bench) -> None:
    """What a worker that is gone said of itself counts no more."""
    for token, concurrency in (("w1", 4), ("w2", 8), ("w3", 100)):
        await agents.register(bench.store, bench.lane, agent(token, concurrency))
        await bench.renew(token)
    await bench.lapse("w3")
    await bench.accept("r1", "r2", "r3")
    await bench.take("w1", 3)

    reading = await sample(bench.store, bench.lane)

    assert (reading.workers, reading.slots) == (2, 12)
    assert (reading.slots_used, reading.slots_free) == (3, 9)


async def test_what_is_due_is_wanted_before_anybody_has_promoted_it(bench: Bench) -> None:
    """Else a fleet at zero would never wake for a timer."""
    await bench.accept("r1", "r2", delay_s=1000)
    await bench.fall_due("r1")

    reading = await sample(bench.store, bench.lane)

    assert (reading.scheduled, reading.due, reading.demand) == (2, 1, 1)


async def test_rates_come_out_of_the_counters_of_the_streams(bench: Bench) -> None:
    """Two looks ten seconds apart: five runs came, and two were held all that time and ended."""
    clock = [100.0]
    readings = Readings(["default"], stale_s=30, mono=lambda: clock[0])
    term = Term(1, anyio.current_time)
    term.trust(anyio.current_time() + 600)
    told = Transcript()
    gauge = Gauge(
        bench.store, "default", [bench.lane], term, readings, interval_s=60, emit=told,
        mono=lambda: clock[0],
    )  # fmt: skip
    await bench.accept("r1", "r2")
    held = await bench.take("w1", 2)
    await gauge._sample()
    for delivery in held:
        await bench.end(delivery, Completed(b"1"))
    await bench.accept("r3", "r4", "r5", "r6", "r7")
    clock[0] += 10
    await gauge._sample()

    first, second = told.of(QueueSampled)
    assert (first.arrival_rate, first.service_s) == (None, None)
    assert second.arrival_rate == pytest.approx(0.5)
    # Two slots at the beginning of ten seconds and none at their end, for two runs.
    assert second.service_s == pytest.approx(5.0)
    assert second.demand == max(5, 0.5 * 5.0)


async def test_a_new_leader_goes_on_from_what_the_old_one_knew(bench: Bench) -> None:
    """A fleet must not be scaled by half of the signal because a scheduler was replaced."""
    readings = knowing()
    await gauge_of(bench, readings)._sample()
    known = readings.last("default")
    assert known is not None
    readings.keep(replace(known, arrival_rate=3.0, service_s=20.0))

    await gauge_of(bench, readings)._sample()

    after = readings.last("default")
    assert after is not None
    assert after.arrival_rate == pytest.approx(3.0)
    assert after.service_s == 20.0


async def test_a_reading_costs_one_call_a_lane(bench: Bench, monkeypatch: Any) -> None:
    """However long the queue is, and however many look at the reading."""
    await sample(bench.store, bench.lane)
    await bench.accept(*(f"r{n}" for n in range(200)))
    sent = []

    async def counted(send: Send, command: Sequence[Any]) -> Any:
        sent.append(command[0])
        return await send(*command)

    bench.intercept(monkeypatch, counted)
    reading = await sample(bench.store, bench.lane)

    assert reading.waiting == 200
    # The other two ask for the workers, of which there are none here.
    assert sent == ["EVALSHA", "TIME", "ZRANGEBYSCORE"]


async def test_a_reading_is_as_old_as_the_question(bench: Bench, monkeypatch: Any) -> None:
    """Redis counted at once and answered late: how late is not the age of nothing."""
    clock = [100.0]
    readings = Readings(["default"], stale_s=30, mono=lambda: clock[0])
    gauge, term, told = slow_gauge(bench, readings, clock)

    async def late(send: Send, command: Sequence[Any]) -> Any:
        clock[0] += 20
        return await send(*command)

    bench.intercept(monkeypatch, late)
    await gauge._sample()

    took = clock[0] - 100
    assert took > 30
    assert [event.took_s for event in told.of(QueueSampled)] == [took]
    with pytest.raises(StaleReading):
        readings.fresh("default")

    bench.intercept(monkeypatch, lambda send, command: send(*command))
    term.end()
    await gauge._sample()
    assert len(told.of(QueueSampled)) == 1


def slow_gauge(
    bench: Bench, readings: Readings, clock: list[float]
) -> tuple[Gauge, Term, Transcript]:
    term, told = Term(1, anyio.current_time), Transcript()
    term.trust(anyio.current_time() + 600)
    gauge = Gauge(
        bench.store, "default", [bench.lane], term, readings, interval_s=60, emit=told,
        mono=lambda: clock[0],
    )  # fmt: skip
    return gauge, term, told


async def test_no_reading_is_made_up_while_redis_is_away(bench: Bench, monkeypatch: Any) -> None:
    """A zero would scale the fleet away."""
    away = True

    async def cut(send: Send, command: Sequence[Any]) -> Any:
        if away:
            raise ConnectionResetError("cut")
        return await send(*command)

    bench.intercept(monkeypatch, cut)
    told = Transcript()
    term = Term(1, anyio.current_time)
    term.trust(anyio.current_time() + 600)
    gauge = Gauge(
        bench.store, "default", [bench.lane], term, knowing(), interval_s=0.01, emit=told,
        mono=anyio.current_time,
    )  # fmt: skip
    async with anyio.create_task_group() as group:
        group.start_soon(gauge.sample_forever)
        await told.until(lambda: told.of(StoreFailed))
        assert told.of(QueueSampled) == []
        away = False
        await told.until(lambda: told.of(QueueSampled))
        group.cancel_scope.cancel()

    assert [type(event) for event in told[:3]] == [StoreFailed, StoreRecovered, QueueSampled]


async def test_only_the_leader_samples_each_of_its_queues(store_url: str) -> None:
    """Two voices would be added up."""
    async with replicas(store_url, lease=0.6, sample=0.05, queue=("default", "mail")) as crew:
        crew.start(2)
        await crew.until_led()
        samples = crew.transcript.of(QueueSampled)
        await crew.transcript.until(
            lambda: len(crew.transcript.of(QueueSampled)) >= len(samples) + 6
        )
        queues = [event.queue for event in crew.transcript.of(QueueSampled)]

    assert abs(queues.count("default") - queues.count("mail")) <= 1
    assert crew.most == 1
