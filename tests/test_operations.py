"""What operators do: fork a run, pause a queue, act on many runs, and change code under runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from millstream import (
    Client,
    Context,
    IdConflict,
    RunFailed,
    RunState,
    SyncClient,
    UnknownRun,
    Workflows,
)
from millstream.client.forking import earlier
from millstream.errors import NonDeterminism, UnknownStep, UsageError
from millstream.model.selection import Selection
from millstream.testing import Harness


class Shop:
    """Workflows whose effects are counted, and whose code can change."""

    def __init__(self) -> None:
        self.app = Workflows()
        self.effects: list[str] = []
        self.changed = False
        self.broken = False
        self.app.workflow(name="order")(self._order)
        self.app.workflow(name="late")(self._late)

    async def _act(self, name: str) -> str:
        self.effects.append(name)
        if self.broken and name == "ship":
            raise ValueError("no such address")
        return name

    async def _order(self, ctx: Context, wait: float = 0) -> list[str]:
        done = [await ctx.step(self._act, "pay", key="pay")]
        if self.changed and ctx.patched("pack twice"):
            done.append(await ctx.step(self._act, "pack twice", key="pack"))
        else:
            done.append(await ctx.step(self._act, "pack", key="pack"))
        await ctx.sleep(wait)
        return [*done, await ctx.step(self._act, "ship", key="ship")]

    async def _late(self, ctx: Context, wait: float) -> str:
        await ctx.sleep(wait)
        new = self.changed and ctx.patched("late")
        return await ctx.step(self._act, "new" if new else "old")


@pytest.fixture
async def shop() -> AsyncIterator[tuple[Shop, Harness]]:
    made = Shop()
    async with Harness(made.app) as bench:
        yield made, bench


# -- fork


async def test_a_fork_keeps_what_was_before_and_does_the_rest_anew(
    shop: tuple[Shop, Harness],
) -> None:
    """The address was wrong: it is paid and packed already, and only shipped once more."""
    made, bench = shop
    made.broken = True
    run = await bench.client.enqueue("order", id="one")
    with pytest.raises(RunFailed):
        await run.result(timeout=10)
    made.broken, made.effects[:] = False, []
    keys = await bench.client.journal(run)
    ship = next(key for key in keys if key.endswith("ship"))

    forked = await run.fork(ship, id="two")
    assert await forked.result(timeout=10) == ["pay", "pack", "ship"]
    assert made.effects == ["ship"]
    assert (await run.status()).state is RunState.FAILED, "the first run is not touched"
    assert ship in await bench.client.journal(run)

    assert (await forked.status()).forked_from == f"one at {ship}"
    assert (await run.status()).forked_from is None
    again = await run.fork(ship, id="two")
    assert not again.created
    assert made.effects == ["ship"]


async def test_a_fork_from_the_first_step_is_a_new_run(shop: tuple[Shop, Harness]) -> None:
    made, bench = shop
    run = await bench.client.enqueue("order")
    await run.result(timeout=10)
    first = next(key for key in await bench.client.journal(run) if key.endswith("pay"))
    forked = await run.fork(first)

    assert await forked.result(timeout=10) == ["pay", "pack", "ship"]
    assert made.effects == ["pay", "pack", "ship"] * 2


async def test_a_fork_that_cannot_be_writes_nothing(shop: tuple[Shop, Harness]) -> None:
    """A misspelt step is named with those that are near; an id that is taken stays as it is."""
    _, bench = shop
    run = await bench.client.enqueue("order", id="one")
    await run.result(timeout=10)
    await bench.client.enqueue("order", {"wait": 1}, id="taken")
    (key, *_) = await bench.client.journal(run)

    with pytest.raises(UnknownStep, match="did you mean") as raised:
        await run.fork(key[:-1], id="two")
    assert key in raised.value.near
    with pytest.raises(UnknownRun):
        await bench.client.run("two").status()
    with pytest.raises(IdConflict):
        await run.fork(key, id="taken")
    with pytest.raises(UnknownRun):
        await bench.client.run("no-such").fork(key)


async def test_a_fork_of_a_resized_queue_is_found(memory_url: str) -> None:
    """The records are in one lane, the new run in another one, or in one of before."""
    async with Client(memory_url) as client:
        old = await client.enqueue("order", id="old")
        await client.resize("default", lanes=3)
        with pytest.raises(UnknownStep):
            await old.fork("pay")
        lane = (await client._queues.lanes("default"))[0]
        await client._connection.client.hset(lane.journal("old"), "pay", RECORD)
        with pytest.raises(IdConflict):
            await old.fork("pay", id="old")
        forked = await old.fork("pay", id="new")

        assert forked.created
        assert (await forked.status()).workflow == "order"


RECORD = b'[1,"step","pay","","ok",1,1,5.0,0.0,1,"w"]'


def test_what_was_still_waited_for_is_waited_for_anew() -> None:
    """Nobody tells the new run of the end of another one's child; a timer tells everybody."""
    kinds = [("child", "waiting"), ("child", "ok"), ("sleep", "waiting"), ("tool", "intent")]
    records = {
        f"{kind}-{status}": f'[1,"{kind}","x","","{status}",1,1,{began}.0,0.0,1,"w"]'.encode()
        for began, (kind, status) in enumerate(kinds)
    }
    last = b'[1,"step","x","","ok",1,1,9.0,0.0,1,"w"]'

    kept = earlier("r", {**records, "last": last}, "last")
    assert set(kept) == {"child-ok", "sleep-waiting", "tool-intent"}
    assert earlier("r", {**records, "last": last}, "child-waiting") == {}


# -- patched


async def test_a_run_that_was_beyond_a_change_goes_on_as_it_began(
    shop: tuple[Shop, Harness],
) -> None:
    made, bench = shop
    old = await bench.client.enqueue("order", {"wait": 3600})
    await bench.settle()
    made.changed = True
    new = await bench.client.enqueue("order", {"wait": 3600})
    await bench.jump(3600)

    assert await old.result(timeout=10) == ["pay", "pack", "ship"]
    assert await new.result(timeout=10) == ["pay", "pack twice", "ship"]


async def test_a_run_that_had_not_come_so_far_takes_the_new_way(shop: tuple[Shop, Harness]) -> None:
    """And stays on it: the mark stands in its journal before anything that comes after."""
    made, bench = shop
    run = await bench.client.enqueue("late", {"wait": 3600})
    await bench.settle()
    made.changed = True
    await bench.jump(3600)

    assert await run.result(timeout=10) == "new"
    assert [key for key in await bench.client.journal(run) if "patch" in key] == ["patch of late"]


async def test_a_patch_may_be_forgotten(shop: tuple[Shop, Harness]) -> None:
    """When all old runs have ended the old way is deleted; the mark in a journal is in no way."""
    made, bench = shop
    made.changed = True
    run = await bench.client.enqueue("order", {"wait": 3600})
    await bench.settle()

    async def now_plain(ctx: Context, wait: float = 0) -> list[str]:
        done = [await ctx.step(made._act, "pay", key="pay")]
        done.append(await ctx.step(made._act, "pack twice", key="pack"))
        await ctx.sleep(wait)
        return [*done, await ctx.step(made._act, "ship", key="ship")]

    (before,) = (x for x in made.app if x.name == "order")
    object.__setattr__(before, "function", now_plain)
    await bench.jump(3600)

    assert await run.result(timeout=10) == ["pay", "pack twice", "ship"]


async def test_a_change_without_a_guard_says_what_to_do(shop: tuple[Shop, Harness]) -> None:
    """Which step, which record, and the ways out."""
    made, bench = shop
    run = await bench.client.enqueue("order", {"wait": 3600})
    await bench.settle()

    async def other(ctx: Context, wait: float = 0) -> None:
        await ctx.step(made._act, "post", key="pay")

    (before,) = (x for x in made.app if x.name == "order")
    object.__setattr__(before, "function", other)
    await bench.jump(3600)
    with pytest.raises(RunFailed) as raised:
        await run.result(timeout=10)

    assert raised.value.cause == NonDeterminism.__name__
    for said in ("pay", "its record says step", "the code calls step", "ctx.patched()", "fork it"):
        assert said in raised.value.reason


# -- pause


async def shut(bench: Harness, *, shut: bool) -> None:
    """Return once the worker has heard whether its queue is paused."""
    with anyio.fail_after(10):
        while (
            bench._worker is None
            or not bench._worker._worker._lanes
            or bench._worker._worker._lanes[0].sweeper._gate.shut is not shut
        ):
            await anyio.sleep(0.005)


async def swept(bench: Harness) -> None:
    """Return once the worker has looked after its lane again, twice."""
    (lane,) = await bench.client._queues.lanes("default")
    for _ in range(2):
        before = await bench._connection.client.hget(lane.meta, "swept")
        with anyio.fail_after(10):
            while await bench._connection.client.hget(lane.meta, "swept") == before:
                await anyio.sleep(0.005)


async def test_a_paused_queue_takes_nothing_new_and_loses_nothing(
    shop: tuple[Shop, Harness],
) -> None:
    """What is held goes on; a worker that starts meanwhile takes nothing either."""
    _, bench = shop
    assert await bench.client.pause()
    assert not await bench.client.pause()
    await shut(bench, shut=True)
    run = await bench.client.enqueue("order")
    await swept(bench)
    assert (await run.status()).state is RunState.QUEUED
    depth = await bench.client.depth()
    assert (depth.paused, depth.waiting) == (True, 1)

    bench.crash()
    while bench.crashes == 0:
        await anyio.sleep(0.005)
    await swept(bench)
    assert (await run.status()).state is RunState.QUEUED

    assert await bench.client.resume()
    assert not await bench.client.resume()
    assert await run.result(timeout=10) == ["pay", "pack", "ship"]
    assert not (await bench.client.depth()).paused


async def test_a_paused_queue_is_not_resized(memory_url: str) -> None:
    """Its new lanes would know nothing of the pause."""
    async with Client(memory_url) as client:
        await client.resize("default", lanes=2)
        await client.pause()
        with pytest.raises(UsageError, match="resume it before"):
            await client.resize("default", lanes=3)
        await client.resume()
        await client.resize("default", lanes=3)


# -- many runs


async def test_many_runs_are_cancelled_and_started_again(store_url: str) -> None:
    """By what they are, in few calls, wherever their lanes are."""
    async with Client(store_url) as client:
        await client.enqueue("first", id="before")
        await client.resize("default", lanes=3)
        for n in range(30):
            await client.enqueue("mail" if n % 2 else "sms", id=f"r{n}", delay=n % 3)
        wanted = Selection(workflow="mail", states=frozenset({RunState.QUEUED}))
        chosen = await client.select("default", wanted)
        assert {status.workflow for status in chosen} == {"mail"}
        assert len(chosen) == 5

        told: list[int] = []
        ids = [*(status.id for status in chosen), "before", "no-such"]
        answers = await client.cancel_many("default", ids, told=told.append)
        assert sum(told) >= len(ids)
        assert answers["no-such"] == ""
        assert answers["before"] == "cancelled"
        assert {answers[status.id] for status in chosen} == {"cancelled"}

        again = await client.retry_many("default", ids)
        assert [again[x] for x in ("before", "no-such")] == ["queued", ""]
        assert len(await client.select("default", wanted)) == 5


async def test_pages_meet_every_run_once(store_url: str) -> None:
    """A cursor goes on where its page ended, also in another process and much later."""
    async with Client(store_url) as client:
        await client.resize("default", lanes=2)
        runs = [await client.enqueue("w", id=f"r{n}", delay=n % 2 * 100) for n in range(40)]
        for run in runs[:9]:
            await run.cancel()

        page = await client.page(limit=7)
        found = [status.id for status in page.runs]
        while page.cursor is not None:
            page = await client.page(limit=7, cursor=page.cursor)
            assert len(page.runs) <= 7
            found += [status.id for status in page.runs]
        assert sorted(found) == sorted(run.id for run in runs)
        assert [x.id for x in await client.select(limit=11)] == found[:11]
        with pytest.raises(UsageError, match="cursor"):
            await client.page(cursor="nonsense")


async def test_a_list_is_cut_by_time(memory_url: str) -> None:
    async with Client(memory_url) as client:
        await client.enqueue("w", id="a")
        middle = (await client.run("a").status()).times.enqueued + 0.0005
        with anyio.fail_after(5):
            b: Any = await client.enqueue("w", id="b")
            while (await b.status()).times.enqueued < middle:
                await b.cancel()
                b = await client.enqueue("w", id=f"b{anyio.current_time()}")

        assert [x.id for x in await client.list(until=middle)] == ["a"]
        assert "a" not in {x.id for x in await client.list(since=middle)}


def test_programs_without_an_event_loop_have_the_same_verbs(memory_url: str) -> None:
    with SyncClient(memory_url) as client:
        client.check()
        run = client.enqueue("order", {"item": "tea"}, id="one")
        assert client.arguments(run) == {"item": "tea"}
        assert client.journal(run) == {}
        assert list(client.questions(run.status())) == []
        assert list(client.agents()) == []
        assert [status.id for status in client.page(states=["queued"]).runs] == ["one"]
        assert client.pause()
        assert client.depth().paused
        assert client.resume()
        assert [status.id for status in client.select(wanted=Selection(workflow="order"))] == [
            "one"
        ]
        assert client.cancel_many("default", ["one"]) == {"one": "cancelled"}
        assert client.retry_many("default", ["one"]) == {"one": "queued"}
        with pytest.raises(UnknownStep):
            run.fork("pay")
