"""A queue gets another number of lanes: no id is accepted twice, whoever dies on the way."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from millstream import Client
from millstream.errors import IdConflict, StoreUnavailable, UsageError
from millstream.model.limits import LIMITS
from millstream.model.outcome import Completed
from millstream.store import layouts, runs
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.layouts import Layout
from millstream.store.runs import NewRun, Resized
from tests.store.bench import Bench

IDS = [f"r{number}" for number in range(12)]


async def test_a_resize_changes_what_every_lane_says(store: Connection) -> None:
    """Lanes that are of two minds would accept one id twice."""
    assert await layouts.resize(store, "q", 4) == Layout(4, 1, (1,))
    assert await layouts.resize(store, "q", 4) == Layout(4, 1, (1,)), "nothing to do"
    assert await layouts.resize(store, "q", 2) == Layout(2, 2, (4, 1))
    assert await layouts.resize(store, "q", 4) == Layout(4, 3, (2, 1))

    assert await said(store, 4) == {Layout(4, 3, (2, 1))}


async def test_an_epoch_that_has_ended_accepts_nothing_in_any_lane(store: Connection) -> None:
    """Whoever knows the old layout is told, also by a lane that exists in both."""
    await layouts.resize(store, "q", 3)
    await layouts.resize(store, "q", 2)

    for number in range(3):
        answer = await runs.enqueue(store, Lane("q", number), 1, [new("r1")])
        assert answer == Resized(2, 2)
    assert await runs.enqueue(store, Lane("q", 1), 2, [new("r1")]) == [True]


async def test_while_a_queue_is_closed_nothing_is_accepted(store: Connection) -> None:
    """Between the two epochs an id belongs to no lane."""
    await layouts.resize(store, "other", 2)  # the scripts are known from here on
    await cut_off(store, 2, layouts.resize(store, "q", 4))

    assert (await layouts.layout(store, "q")).next == 4
    assert await runs.enqueue(store, Lane("q"), 0, [new("r1")]) == Resized(1, 0)


async def test_a_resize_that_was_cut_off_anywhere_leaves_a_queue_that_works(
    store_url: str, store: Connection
) -> None:
    """Whoever enqueues next carries it to its end, and the ids of before are known."""
    for queue in map("q{}".format, itertools.count()):
        calls = int(queue[1:])
        await layouts.resize(store, queue, 2)
        async with Client(store_url) as client:
            for run_id in IDS:
                await client.enqueue("flow", {}, id=run_id, queue=queue)
            cut = await cut_off(store, calls, layouts.resize(store, queue, 3))

            again = [await client.enqueue("flow", {}, id=x, queue=queue) for x in IDS]
            more = [await client.enqueue("flow", {}, id=f"{x}+", queue=queue) for x in IDS]

            assert {run.created for run in again} == {False}
            assert {run.created for run in more} == {True}
            assert len(await client.list(queue)) == 2 * len(IDS), f"cut off after {calls} calls"
            # Nobody needs to know how far it came.
            assert await client.resize(queue, lanes=3) == Layout(3, 2, (2, 1))
            assert await said(store, 3, queue) == {Layout(3, 2, (2, 1))}
        if not cut:
            assert calls == 6, "a look, two lanes closed, three opened"
            return


async def test_what_comes_late_changes_nothing(store: Connection) -> None:
    """A call of a resizer that was held up must not close or turn back a queue."""
    late: list[tuple[Any, ...]] = []
    await recorded(store, late, layouts.resize(store, "q", 3))
    await recorded(store, late, layouts.resize(store, "q", 2))
    await layouts.resize(store, "q", 5)
    before = await said(store, 5)

    for command in late:
        await store.client.execute_command(*command)

    assert await said(store, 5) == before == {Layout(5, 3, (2, 3, 1))}


async def test_two_who_resize_at_once_agree(store: Connection) -> None:
    """Each carries the other's through, and nothing stays closed."""
    results: list[Layout] = []

    async def resize(lanes: int) -> None:
        results.append(await layouts.resize(store, "q", lanes))

    async with anyio.create_task_group() as group:
        for lanes in (2, 3, 4, 2, 5):
            group.start_soon(resize, lanes)

    (last,) = await said(store, 5)
    assert last.next == 0
    assert last in results
    assert {found.lanes for found in results} == {2, 3, 4, 5}


@pytest.mark.parametrize("lost", range(3))
@pytest.mark.parametrize("closed", [False, True])
async def test_what_a_failover_forgot_of_a_resize_is_mended_by_who_stumbles(
    lost: int, closed: bool, store_url: str, store: Connection
) -> None:
    """A master that came back without its last writes must not refuse for ever."""
    await layouts.resize(store, "q", 3)
    if closed:
        await cut_off(store, 4, layouts.resize(store, "q", 2))
    await store.client.hdel(Lane("q", lost).meta, "epoch", "lanes", "past", "next")

    async with Client(store_url) as client:
        with anyio.fail_after(10):
            for run_id in IDS:
                await client.enqueue("flow", {}, id=run_id, queue="q")
        assert len(await client.list("q")) == len(IDS)


async def test_a_run_is_found_where_it_was_accepted(store_url: str, store: Connection) -> None:
    """Nothing is moved: whoever looks tries the numbers of lanes that the queue had before."""
    async with Client(store_url) as client, Client(store_url) as other:
        for lanes in (1, 3, 2):
            await other.resize("q", lanes=lanes)
            # It does not know that the queue was resized, until it is refused.
            await client.enqueue_many([asked(f"{lanes}/{run_id}") for run_id in IDS])
        for handle in (x for lanes in (1, 3, 2) for x in ids_of(other, lanes)):
            assert (await handle.status()).state == "queued"
            assert await other.arguments(handle) == {}
            assert await other.journal(handle) == {}
            assert await handle.cancel() == "cancelled"
            await handle.retry()
        assert len(await client.list("q")) == 3 * len(IDS)


async def test_an_id_of_before_is_recognised(store_url: str, store: Connection) -> None:
    """The same run is not accepted a second time in its new lane; another one is a conflict."""
    async with Client(store_url) as client:
        await client.enqueue_many([asked(run_id) for run_id in IDS])
        await client.resize("q", lanes=7)

        again = await client.enqueue_many([asked(run_id) for run_id in IDS])
        assert not any(run.created for run in again)
        for run_id in IDS:
            assert not (await client.enqueue("flow", {}, id=run_id, queue="q")).created
            with pytest.raises(IdConflict):
                await client.enqueue("else", {}, id=run_id, queue="q")
        assert len(await client.list("q")) == len(IDS)


async def test_clients_that_enqueue_the_same_ids_among_resizes_make_each_once(
    store_url: str, store: Connection
) -> None:
    """Each believes in a layout of its own, and one of them is always a step behind."""
    created = Counter[str]()

    async def enqueue(client: Client, first: int) -> None:
        for number in range(first, first + 3 * len(IDS)):
            run_id = f"r{number % (3 * len(IDS))}"
            run = await client.enqueue("flow", {}, id=run_id, queue="q")
            created[run_id] += run.created

    async with Client(store_url) as one, Client(store_url) as two, Client(store_url) as third:
        async with anyio.create_task_group() as group:
            for client, first in ((one, 0), (one, 7), (two, 20), (two, 50)):
                group.start_soon(enqueue, client, first)
            for lanes in (2, 5, 3, 1, 4):
                await third.resize("q", lanes=lanes)
                before = len(created)
                while len(created) in range(before, before + 4) and len(created) < 3 * len(IDS):
                    await anyio.lowlevel.checkpoint()
        assert set(created.values()) == {1}
        assert len(created) == len(await third.list("q")) == 3 * len(IDS)


async def test_a_client_with_an_old_layout_finds_what_is_newer(
    store_url: str, store: Connection
) -> None:
    """What it knows of a queue may be hours old."""
    async with Client(store_url) as old, Client(store_url) as client:
        await old.depth("q")
        await client.resize("q", lanes=7)
        for run_id in IDS:
            await client.enqueue("flow", {}, id=run_id, queue="q")

        assert {(await old.run(x, "q").status()).state for x in IDS} == {"queued"}
        assert (await old.depth("q")).waiting == len(IDS)


async def test_lanes_that_accept_nothing_any_more_are_in_use_until_they_are_empty(
    store: Connection,
) -> None:
    """A record that is kept counts: an operator may start its run once more."""
    await layouts.resize(store, "q", 3)
    bench = Bench(store, Lane("q", 2))
    await bench.prepare()
    assert await runs.enqueue(store, bench.lane, 1, [new("r1")]) == [True]

    await layouts.resize(store, "q", 1)
    assert [x.number for x in (await layouts.in_use(store, "q"))[1]] == [0, 2]

    (held,) = await bench.take("w1")
    await bench.end(held, Completed(b"1"))
    assert [x.number for x in (await layouts.in_use(store, "q"))[1]] == [0, 2]
    await bench.expire("r1")
    await bench.sweep()
    assert [x.number for x in (await layouts.in_use(store, "q"))[1]] == [0]


@pytest.mark.parametrize("lanes", [0, -1, LIMITS.lanes + 1])
async def test_a_number_of_lanes_has_bounds(lanes: int, store: Connection) -> None:
    with pytest.raises(UsageError, match=f"1 to {LIMITS.lanes}"):
        await layouts.resize(store, "q", lanes)


async def test_numbers_of_lanes_do_not_pile_up_without_end(store: Connection) -> None:
    """Each is one more place to look at; what a queue had before is no new place."""
    for lanes in range(1, LIMITS.past_layouts + 2):
        await layouts.resize(store, "q", lanes)

    with pytest.raises(UsageError, match="choose one of 1, 2, 3"):
        await layouts.resize(store, "q", 99)
    assert (await layouts.resize(store, "q", 3)).lanes == 3


# -- the means ---------------------------------------------------------------------------------


def new(run_id: str) -> NewRun:
    return NewRun(id=run_id, workflow="flow", arguments=b"{}")


def asked(run_id: str) -> Any:
    from millstream import Enqueue

    return Enqueue("flow", {}, id=run_id, queue="q")


def ids_of(client: Client, lanes: int) -> list[Any]:
    return [client.run(f"{lanes}/{run_id}", "q") for run_id in IDS]


async def said(store: Connection, lanes: int, queue: str = "q") -> set[Layout]:
    """What the lanes of a queue say of it."""
    return {await layouts.layout(store, queue, number) for number in range(lanes)}


async def cut_off(store: Connection, calls: int, doing: Awaitable[Any]) -> bool:
    """Do something, and have Redis vanish after so many calls; return whether it was cut off."""
    count = itertools.count()
    send = store.client.execute_command

    async def execute_command(*args: Any, **options: Any) -> Any:
        if next(count) >= calls:
            raise ConnectionError("gone")
        return await send(*args, **options)

    return await _with(store, execute_command, doing)


async def recorded(
    store: Connection, commands: list[tuple[Any, ...]], doing: Awaitable[Any]
) -> None:
    """Do something, and keep what was sent."""
    send = store.client.execute_command

    async def execute_command(*args: Any, **options: Any) -> Any:
        commands.append(args)
        return await send(*args, **options)

    await _with(store, execute_command, doing)


async def _with(store: Connection, way: Callable[..., Any], doing: Awaitable[Any]) -> bool:
    before = store.client.execute_command
    store.client.execute_command = way
    try:
        await doing
    except StoreUnavailable:
        return True
    finally:
        store.client.execute_command = before
    return False
