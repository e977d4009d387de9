"""The gauges of a queue are true, cost the same whatever its length, and vanish when unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from millstream.events import QueueSampled, StoreFailed, StoreRecovered
from millstream.model.run import Priority, RunState
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_scheduler.gauge import Gauge
from millstream_scheduler.term import Term
from tests.scheduler.replicas import Transcript, replicas
from tests.store.bench import Bench, Send
from tests.store.states import put


async def sample(store: Connection, *lanes: Lane) -> QueueSampled:
    """Take one reading."""
    told = Transcript()
    term = Term(1, anyio.current_time)
    term.trust(anyio.current_time() + 600)
    gauge = Gauge(store, "default", lanes, term, interval_s=60, emit=told, mono=anyio.current_time)
    async with anyio.create_task_group() as group:
        group.start_soon(gauge.sample_forever)
        await told.until(lambda: told)
        group.cancel_scope.cancel()

    (reading,) = told.of(QueueSampled)
    return reading


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
    assert sent == ["EVALSHA"]


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
        bench.store, "default", [bench.lane], term, interval_s=0.01, emit=told,
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
