"""Rooms: what all workers share is never overfull, costs little, and is given up for who waits."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from millstream.errors import StoreError, UsageError
from millstream.model.limit import Quota
from millstream.store import pools
from millstream.store.connection import Connection
from millstream_worker.pacing import Pace
from millstream_worker.permits import IDLE_S, TERM_S, Permits
from millstream_worker.rooms import Rooms
from millstream_worker.tools.caller import ToolCaller
from millstream_worker.tools.servers import parse_servers

LEASE_S = 30.0
THREE = Quota(concurrency=3)
_names = itertools.count(1)


@pytest.fixture
async def store() -> AsyncIterator[Connection]:
    connection = Connection(f"memory://rooms-{next(_names)}")
    yield connection
    await connection.aclose()


@dataclass
class Inside:
    """Who is in a room, on all workers."""

    count: int = 0
    most: int = 0
    order: list[str] = field(default_factory=list)

    async def visit(self, rooms: Rooms, name: str, quota: Quota = THREE) -> None:
        async with rooms.room("default", "tools/x", quota):
            self.count += 1
            self.most = max(self.most, self.count)
            self.order.append(name)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            self.count -= 1


@asynccontextmanager
async def workers(store: Connection, *names: str) -> AsyncIterator[list[Rooms]]:
    async with anyio.create_task_group() as group:
        made = [Rooms(store, name, LEASE_S) for name in names]
        for rooms in made:
            await rooms.__aenter__()
        with anyio.fail_after(20):
            yield made
        for rooms in reversed(made):
            await rooms.__aexit__(None, None, None)
        group.cancel_scope.cancel()


async def test_workers_share_a_room_and_everyone_has_a_turn(store: Connection) -> None:
    """However many call, on whichever worker."""
    inside = Inside()
    async with workers(store, "a", "b") as (one, two), anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(inside.visit, (one, two)[number % 2], "ab"[number % 2])
    assert inside.most == 3
    assert (inside.order.count("a"), inside.order.count("b")) == (20, 20)


async def test_a_permit_is_used_again_without_asking(
    store: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call does not cost a round trip where nobody else waits."""
    said: list[Any] = []
    speak = pools.speak

    async def counted(*args: Any) -> Any:
        said.append(args[4:6])
        return await speak(*args)

    monkeypatch.setattr(pools, "speak", counted)
    inside = Inside()
    async with workers(store, "a") as (one,):
        for _ in range(50):
            await inside.visit(one, "a")
        # The first asks; hearing of others begins with a look when somebody waits just then.
        assert said[0] == (0, 1)
        assert len(said) <= 2


async def test_how_many_wait_is_told_and_who_finds_room_says_nothing(store: Connection) -> None:
    """A gauge shows who is held up; a call that is not costs no event."""
    told: list[Any] = []
    one = Quota(concurrency=1)
    async with Rooms(store, "a", LEASE_S, emit=told.append) as rooms:
        place = rooms.room("default", "tools/x", one)
        async with place:
            told.clear()
            async with anyio.create_task_group() as group:
                group.start_soon(Inside().visit, rooms, "second", one)
                group.start_soon(Inside().visit, rooms, "third", one)
                while len(told) < 2:
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        async with place:
            pass
    assert [event.waiting for event in told] == [1, 2, 1, 0]
    assert {(event.queue, event.room) for event in told} == {("default", "tools/x")}


async def test_who_waits_for_one_room_holds_up_no_other(store: Connection) -> None:
    inside = Inside()
    async with (
        workers(store, "a") as (one,),
        anyio.create_task_group() as group,
        one.room("default", "tools/x", Quota(concurrency=1)),
    ):
        group.start_soon(inside.visit, one, "late", Quota(concurrency=1))
        async with one.room("default", "tools/y", Quota(concurrency=1)):
            assert inside.order == []
        async with one.room("other", "tools/x", Quota(concurrency=1)):
            assert inside.order == []
    assert inside.order == ["late"]


async def test_who_is_cancelled_while_it_waits_takes_nothing(store: Connection) -> None:
    one = Quota(concurrency=1)
    inside = Inside()
    async with workers(store, "a") as (rooms,):
        async with (
            rooms.room("default", "tools/x", one),
            anyio.create_task_group() as group,
        ):
            group.start_soon(inside.visit, rooms, "given up", one)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        await inside.visit(rooms, "next", one)
    assert inside.order == ["next"]


async def test_what_a_worker_had_is_there_when_it_left(store: Connection) -> None:
    """At once, and not a lease later."""
    inside = Inside()
    async with workers(store, "a") as (one,):
        await inside.visit(one, "a", Quota(concurrency=1))
    async with workers(store, "b") as (two,):
        await inside.visit(two, "b", Quota(concurrency=1))
    assert inside.order == ["a", "b"]


async def test_a_rate_lets_nobody_go_before_its_time(store: Connection) -> None:
    """Those that are beyond it wait for their own time, on any worker."""
    passed: list[str] = []
    hour = Quota(rate=2, per=7200)

    async def go(rooms: Rooms, name: str) -> None:
        async with rooms.room("default", "tools/x", hour):
            passed.append(name)

    async with workers(store, "a", "b") as (one, two), anyio.create_task_group() as group:
        await go(one, "first")
        await go(two, "second")
        group.start_soon(go, one, "late")
        while await reserved(store) < 3:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert passed == ["first", "second"]


async def test_the_time_of_who_gave_up_is_the_next_ones() -> None:
    """Else callers that give up too soon would reserve all there is, and nobody would go."""
    asked: list[int] = []
    passed: list[str] = []

    async def reserve(count: int) -> tuple[float, float]:
        asked.append(count)
        return 3600.0, 1.0

    async def go(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await pace.enter()
            passed.append(name)

    pace = Pace(reserve)
    async with anyio.create_task_group() as group:
        group.start_soon(pace.serve)
        scopes = {name: anyio.CancelScope() for name in "abcd"}
        for name in "ab":
            group.start_soon(go, name, scopes[name])
        await anyio.wait_all_tasks_blocked()
        scopes["a"].cancel()
        await anyio.wait_all_tasks_blocked()
        group.start_soon(go, "c", scopes["c"])
        await anyio.wait_all_tasks_blocked()
        assert asked == [2], "the time that a had is there for c"
        group.start_soon(go, "d", scopes["d"])
        await anyio.wait_all_tasks_blocked()
        assert asked == [2, 1]
        for _ in range(3):
            pace._go()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert passed == ["b", "c", "d"]


async def reserved(store: Connection) -> int:
    """How many times were reserved, of a rate of one in an hour."""
    keys = pools.Rate("default/tools/x").keys
    seconds, _ = await store.client.time()
    return round((float(await store.client.get(keys[0]) or 0) / 1000 - int(seconds)) / 3600)


# -- one process, turn by turn ---------------------------------------------------------------------


class Deaf:
    """Hears nothing."""

    async def open(self) -> None:
        await anyio.sleep_forever()

    async def next(self, pause_s: float) -> bytes | None:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


class Turns:
    """Permits whose pool, clock and turns are in the hands of the test."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self.now = 100.0
        self.answers: list[pools.Share | Exception] = []
        self.said: list[tuple[int, int]] = []
        self.permits = Permits(
            self._speak, Deaf, token="a", most=3, lease_s=lease_s, mono=lambda: self.now
        )

    async def _speak(self, sequence: int, keep: int, want: int) -> pools.Share | None:
        assert sequence == len(self.said) + 1
        self.said.append((keep, want))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def enter(self, has: int, others: int = 0) -> None:
        """Enter once, while the pool answers so."""
        self.answers.append(pools.Share(has, others, 10.0))
        async with anyio.create_task_group() as group:
            group.start_soon(self.permits.enter)
            await anyio.wait_all_tasks_blocked()
            await self.permits._speak()
            group.cancel_scope.cancel()

    @property
    def pause_s(self) -> float:
        return self.permits._pause_s()


async def test_an_idle_permit_is_kept_for_a_moment_and_then_given_back() -> None:
    turns = Turns()
    assert turns.pause_s == float("inf")
    await turns.enter(1)
    assert turns.pause_s == LEASE_S / 3, "what is used is renewed"
    turns.permits.leave()
    assert turns.pause_s == IDLE_S
    turns.now += IDLE_S
    turns.answers.append(pools.Share(0, 0, 10.0))
    await turns.permits._speak()
    assert turns.said == [(0, 1), (0, 0)]
    assert turns.pause_s == float("inf")


async def test_while_others_wait_what_is_here_is_used_for_a_term() -> None:
    """Then it goes to the others, and this worker to the end of the line."""
    turns = Turns()
    await turns.enter(1, others=1)
    async with anyio.create_task_group() as group:
        group.start_soon(turns.permits.enter)
        await anyio.wait_all_tasks_blocked()
        turns.permits.leave()
        await anyio.wait_all_tasks_blocked()
        assert turns.permits._used == 1, "within the term it goes to who waits here"

        group.start_soon(turns.permits.enter)
        await anyio.wait_all_tasks_blocked()
        turns.now += TERM_S
        turns.permits.leave()
        assert (turns.permits._used, turns.pause_s) == (0, 0)
        turns.answers.append(pools.Share(0, 1, 10.0))
        await turns.permits._speak()
        assert turns.said[-1] == (0, 1)
        group.cancel_scope.cancel()


async def test_who_hears_that_others_wait_gives_way() -> None:
    """What is idle goes at once. That it waits itself is no news."""
    turns = Turns()
    await turns.enter(2)
    turns.permits._said(pools.WAITS + b"a")
    assert turns.pause_s == IDLE_S
    turns.permits._said(pools.WAITS + b"b")
    assert turns.pause_s == 0
    turns.answers.append(pools.Share(1, 0, 10.0))
    await turns.permits._speak()
    assert turns.said[-1] == (1, 0)


async def test_a_term_is_not_prolonged_by_those_who_come_later() -> None:
    turns = Turns()
    await turns.enter(2)
    turns.permits._said(pools.WAITS + b"b")
    turns.now += TERM_S / 2
    turns.permits._said(pools.WAITS + b"c")
    turns.now += TERM_S / 2
    assert not turns.permits._may_use()


async def test_who_is_not_in_line_knows() -> None:
    """What it had spare has lapsed: nobody would tell it of a permit that comes free."""
    turns = Turns()
    await turns.enter(2)
    turns.permits.leave()
    turns.now += LEASE_S
    turns.answers.append(pools.Share(0, 0, 10.0))
    async with anyio.create_task_group() as group:
        group.start_soon(turns.permits.enter)
        await anyio.wait_all_tasks_blocked()
        await turns.permits._speak()
        assert turns.said[-1] == (2, 0)
        assert turns.pause_s == 0
        group.cancel_scope.cancel()


async def test_nothing_is_begun_with_what_may_have_lapsed() -> None:
    """A process that was frozen asks first: others may have what it had."""
    turns = Turns()
    await turns.enter(2)
    turns.now += LEASE_S
    async with anyio.create_task_group() as group:
        group.start_soon(turns.permits.enter)
        await anyio.wait_all_tasks_blocked()
        assert turns.permits._used == 1
        turns.answers.append(pools.Share(0, 0, 10.0))
        await turns.permits._speak()
        await anyio.wait_all_tasks_blocked()
        assert turns.permits._used == 1, "what is under way goes on, and nothing is added"
        turns.answers.append(pools.Share(2, 0, 10.0))
        await turns.permits._speak()
        await anyio.wait_all_tasks_blocked()
        assert turns.permits._used == 2


async def test_redis_that_is_away_is_asked_again() -> None:
    turns = Turns(lease_s=0.1)
    turns.answers += [StoreError("away"), pools.Share(1, 0, 10.0)]
    async with anyio.create_task_group() as group:
        group.start_soon(turns.permits.serve)
        with anyio.fail_after(20):
            await turns.permits.enter()
        group.cancel_scope.cancel()
    assert turns.said == [(0, 1), (0, 1)]


# -- as it is declared -----------------------------------------------------------------------------


def test_a_limit_is_not_left_out_where_nothing_is_shared() -> None:
    specs = parse_servers(
        {"mcpServers": {"x": {"command": "x", "millstream": {"limit": {"concurrency": 1}}}}}
    )
    assert specs["x"].limit == Quota(concurrency=1)
    with pytest.raises(UsageError, match="rooms"):
        ToolCaller(specs, emit=lambda _: None)
