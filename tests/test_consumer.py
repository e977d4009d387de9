"""The lane's loop while Redis is away, and the lease that says what may be started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from millstream.errors import StoreError, StoreUnavailable
from millstream.events import Event, StoreFailed, StoreRecovered
from millstream.model.outcome import Completed
from millstream.store import arrivals, commits, deliveries, leases, runs
from millstream.store.arrivals import Arrival
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_worker.consumer import Consumer
from millstream_worker.held import Held
from millstream_worker.lease import Lease
from millstream_worker.reader import Reader
from millstream_worker.slots import Slots
from tests.store.bench import brought

pytestmark = pytest.mark.anyio


class _Away(Connection):
    """A Redis that does not answer, until it does."""

    def __init__(self, failures: int) -> None:
        super().__init__("memory://away")
        self.failures = failures
        execute = self.client.execute_command

        async def refuse(*args: object, **options: object) -> object:
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable("memory://away", "it is away")
            return await execute(*args, **options)

        self.client.execute_command = refuse


async def test_every_refusal_is_a_turn_of_the_loop() -> None:
    """However long Redis is away, liveness sees a loop that turns; that it is back is told once."""
    turns: list[str] = []
    events: list[Event] = []
    connection = _Away(failures=4)
    consumer = Consumer(
        connection,
        Lane("default"),
        "w1",
        Slots(1),
        Lease(10.0, lambda: 0.0),
        emit=events.append,
        retention_s=1.0,
        alive=lambda: turns.append("alive"),
        answered=lambda refusal: turns.append("refused" if refusal else "served"),
    )
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.commit_forever)
            answered = anyio.Event()
            consumer.submit([["H", "normal", "1-0", 1000]], 0, lambda _: answered.set())
            await answered.wait()
            group.cancel_scope.cancel()
    await connection.aclose()
    assert turns.count("refused") >= 3
    assert turns.count("alive") > turns.count("refused")
    refused = turns.count("refused")
    assert [type(event) for event in events] == [StoreFailed] * refused + [StoreRecovered]


async def test_a_worker_with_nothing_to_write_tells_that_redis_is_back() -> None:
    """It only compares what it holds: the log of an idle worker must not end with the outage."""
    events: list[Event] = []
    connection = _Away(failures=0)
    lane = Lane("default")
    await deliveries.ensure_groups(connection, lane)
    consumer = Consumer(
        connection,
        lane,
        "w1",
        Slots(1),
        Lease(10.0, lambda: 0.0),
        emit=events.append,
        retention_s=1.0,
    )
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.commit_forever)
            connection.failures = 2
            consumer.compare()
            await _until(lambda: any(isinstance(event, StoreRecovered) for event in events))
            group.cancel_scope.cancel()
    await connection.aclose()
    assert {event.during for event in events if isinstance(event, StoreFailed)} == {
        "compare default:0"
    }
    assert [type(event) for event in events].count(StoreRecovered) == 1


async def test_suspects_are_held_one_at_a_time_until_one_gets_on() -> None:
    """Neither the commit nor the blocking read brings a second one beside the first."""
    connection = Connection("memory://suspects")
    lane = Lane("default")
    await deliveries.ensure_groups(connection, lane)
    news = [runs.NewRun(id=name, workflow="w", arguments=b"{}") for name in ("a", "b", "c")]
    await runs.enqueue(connection, lane, 0, news[:2])
    await _make_suspects(connection, lane)
    slots = Slots(5)
    consumer = Consumer(
        connection,
        lane,
        "w1",
        slots,
        Lease(10.0, lambda: 0.0),
        emit=lambda _: None,
        retention_s=1.0,
    )
    begun: list[Held] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.commit_forever)
            group.start_soon(consumer.read_forever)
            consumer.open(begun.append)
            await _until(lambda: len(begun) == 1)
            # Something else arrives meanwhile, so the lane was looked at again.
            await runs.enqueue(connection, lane, 0, news[2:])
            await _until(lambda: len(begun) == 2)
            assert [held.delivery.level for held in begun] == ["suspect", "normal"]
            await begun[0].write("step#0", b"[1]")
            await _until(lambda: len(begun) == 3)
            assert begun[2].delivery.level == "suspect"
            group.cancel_scope.cancel()
    await connection.aclose()


@asynccontextmanager
async def _waiting(count: int, slots: int) -> AsyncIterator[Consumer]:
    """A lane in which so many runs wait, and a consumer with so many slots."""
    connection = Connection(f"memory://waiting-{count}")
    lane = Lane("default")
    await deliveries.ensure_groups(connection, lane)
    news = [runs.NewRun(id=f"r{n:02}", workflow="w", arguments=b"{}") for n in range(count)]
    await runs.enqueue(connection, lane, 0, news)
    lease = Lease(10.0, lambda: 0.0)
    yield Consumer(
        connection, lane, "w1", Slots(slots), lease, emit=lambda _: None, retention_s=1.0
    )
    await connection.aclose()


async def test_all_slots_are_filled_though_nothing_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A take brings half of them at most. The rest is not left until a run has something to say."""
    # Nobody looks because of the time.
    monkeypatch.setattr("millstream_worker.consumer.TURN_S", 3600.0)
    begun: list[Held] = []
    with anyio.fail_after(30):
        async with _waiting(12, slots=7) as consumer, anyio.create_task_group() as group:
            consumer.open(begun.append)
            group.start_soon(consumer.commit_forever)
            await _until(lambda: len(begun) == 7)
            group.cancel_scope.cancel()


async def test_one_half_runs_while_the_other_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or worker and server would take turns, and each would wait for the other."""
    ended = 0
    meanwhile: list[int] = []
    commit = commits.commit

    async def end(held: Held) -> None:
        nonlocal ended
        ended += 1
        held.end(Completed(b"null"), (), lambda _: consumer.forget(held))

    def start(held: Held) -> None:
        group.start_soon(end, held)

    async def watched(*args: Any, **options: Any) -> commits.CommitReply:
        before = ended
        reply = await commit(*args, **options)
        await anyio.wait_all_tasks_blocked()
        meanwhile.append(ended - before)
        return reply

    monkeypatch.setattr(commits, "commit", watched)
    with anyio.fail_after(30):
        async with _waiting(40, slots=8) as consumer, anyio.create_task_group() as group:
            consumer.open(start)
            group.start_soon(consumer.commit_forever)
            await _until(lambda: ended == 40)
            group.cancel_scope.cancel()
    # The first has nothing beside it, nor has the last.
    assert meanwhile[:10] == [0, *[4] * 9]


async def test_what_a_read_brings_while_holdings_are_compared_is_adopted_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison may have had it taken anew: then its records are more than the read says."""
    connection = Connection("memory://doubts")
    lane = Lane("default")
    await deliveries.ensure_groups(connection, lane)
    await runs.enqueue(connection, lane, 0, [runs.NewRun(id="a", workflow="w", arguments=b"{}")])
    found: list[Arrival] = []
    dry = asyncio.Event()
    dry.set()

    async def failed(error: StoreError) -> None:
        raise error

    reader = Reader(
        connection, lane, "w1", Slots(5), dry,
        last={}, found=found.append, failed=failed, look=lambda: None,
    )  # fmt: skip
    wait = arrivals.wait

    async def compared_meanwhile(*args: Any, **options: Any) -> Arrival:
        brought = await wait(*args, **options)
        assert [each.run_id for each in brought.taken] == ["a"]
        reader.doubt()
        dry.clear()
        return brought

    monkeypatch.setattr(arrivals, "wait", compared_meanwhile)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(reader.read_forever)
            await _until(lambda: len(found) == 1)
            group.cancel_scope.cancel()

    (arrival,) = found
    assert arrival.taken == ()
    (stray,) = arrival.strays
    again = await commits.commit(connection, lane, "w1", [commits.adopt(stray.level, stray.entry)])
    assert [(each.run_id, each.fence) for each in again.taken] == [("a", 2)]
    await connection.aclose()


async def test_nothing_is_read_beside_what_is_about_to_be_adopted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The read would take it too, under a fence that the adoption has passed."""
    connection = Connection("memory://beside")
    lane = Lane("default")
    await deliveries.ensure_groups(connection, lane)
    await runs.enqueue(connection, lane, 0, [runs.NewRun(id="a", workflow="w", arguments=b"{}")])
    strays = await brought(connection, connection.client, lane, "w1")
    lease = Lease(10.0, lambda: 0.0)
    consumer = Consumer(
        connection, lane, "w1", Slots(5), lease, emit=lambda _: None, retention_s=1.0
    )
    begun: list[Held] = []
    consumer.open(begun.append)
    commit = commits.commit

    async def found_meanwhile(*args: Any, **options: Any) -> commits.CommitReply:
        reply = await commit(*args, **options)
        consumer._adopting += strays
        strays.clear()
        return reply

    monkeypatch.setattr(commits, "commit", found_meanwhile)
    await consumer._turn()
    assert (begun, consumer._dry.is_set()) == ([], False)
    await consumer._turn()
    assert ([each.delivery.fence for each in begun], consumer._dry.is_set()) == ([1], True)
    await connection.aclose()


async def _make_suspects(connection: Connection, lane: Lane) -> None:
    """Have two workers die while they hold what is queued, leaving nothing recorded."""
    for token in ("d1", "d2"):
        await leases.renew(connection, [lane], token, 60)
        while (
            await commits.commit(
                connection, lane, token, [], commits.Want(high=1, normal=3, low=1, suspect=True)
            )
        ).taken:
            pass
        await leases.resign(connection, lane, token)
        await connection.client.hset(lane.meta, mapping={"hold": 0})
        for _ in range(3):
            await leases.sweep(
                connection, lane, "s", interval_s=0, lease_s=60, retention_s=60, poison=9
            )
            await connection.client.hset(lane.meta, mapping={"hold": 0})


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await anyio.sleep(0.005)


def test_a_lapsed_lease_is_not_trusted_until_what_was_lost_is_known() -> None:
    now = [100.0]
    lane, other = Lane("a"), Lane("b")
    lease = Lease(10.0, lambda: now[0])
    lease.serve(lane)
    lease.serve(other)
    assert not _trusted(lease)
    lease.renewed(100.0, lapsed=False)
    assert _trusted(lease)
    now[0] = 109.5
    assert not _trusted(lease)
    lease.renewed(109.5, lapsed=True)
    assert not _trusted(lease)
    lease.compared(lane, 1)
    assert not _trusted(lease)
    lease.compared(other, 1)
    assert _trusted(lease)


def _trusted(lease: Lease) -> bool:
    # Asked through a function: the type checker takes a property to be the same every time.
    return lease.trusted
