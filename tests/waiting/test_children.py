"""Children: started once, waited for without a slot, cancelled with their parent."""

from __future__ import annotations

from typing import Any

import pytest

from millstream import ChildFailed, Context, RetryPolicy, RunCancelled, RunFailed, Workflows
from millstream.events import StoreFailed
from millstream.testing import Harness

pytestmark = pytest.mark.anyio


def _app(effects: list[Any]) -> Workflows:
    app = Workflows()

    async def act(value: Any) -> Any:
        effects.append(value)
        return value

    @app.workflow()
    async def leaf(ctx: Context, value: Any) -> Any:
        return await ctx.step(act, value)

    @app.workflow()
    async def fails(ctx: Context, until: int = 99) -> str:
        if ctx.attempt < until:
            raise ValueError("no")
        return "at last"

    @app.workflow()
    async def sleeps(ctx: Context) -> None:
        await ctx.sleep(3600)

    @app.workflow()
    async def parent(ctx: Context, values: list[Any]) -> list[Any]:
        return await ctx.gather(*(ctx.child("leaf", {"value": each}) for each in values))

    @app.workflow()
    async def grandparent(ctx: Context) -> Any:
        return await ctx.child("parent", {"values": [1, [2], {"three": 3}]})

    @app.workflow()
    async def catches(ctx: Context) -> list[Any]:
        try:
            await ctx.child("fails", id="the-child")
        except ChildFailed as error:
            return [error.run_id, error.cause, error.reason]
        return []

    @app.workflow(retry=RetryPolicy(max_attempts=3, initial=0.01))
    async def insists(ctx: Context) -> Any:
        return await ctx.child("fails", {"until": 2})

    @app.workflow()
    async def waits(ctx: Context, deep: int) -> Any:
        if deep:
            return await ctx.child("waits", {"deep": deep - 1}, id=f"deep-{deep - 1}")
        return await ctx.child("sleeps", id="sleeper")

    @app.workflow()
    async def mapped(ctx: Context, count: int) -> list[Any]:
        return await ctx.map(lambda n: ctx.child("leaf", {"value": n}), range(count), limit=7)

    @app.workflow()
    async def named(ctx: Context, id: str) -> Any:
        return await ctx.child("leaf", {"value": 1}, id=id)

    @app.workflow()
    async def endless(ctx: Context, left: int, seen: list[Any]) -> list[Any]:
        seen = [*seen, await ctx.wait_signal("next"), await ctx.child("leaf", {"value": left})]
        if left:
            ctx.continue_as({"left": left - 1, "seen": seen})
        return seen

    return app


async def test_children_return_what_they_return() -> None:
    async with Harness(_app([])) as bench:
        assert await bench.run("grandparent") == [1, [2], {"three": 3}]


async def test_a_parent_that_waits_for_children_holds_no_slot() -> None:
    async with Harness(_app([])) as bench:
        run = await bench.client.enqueue("waits", {"deep": 3})
        await bench.settle()
        depth = await bench.client.depth()
        assert (depth.parked, depth.running) == (5, 0)
        assert not [event for event in bench.events if isinstance(event, StoreFailed)]
        assert (await run.status()).waits_for == "child runs"


@pytest.mark.parametrize("records", [1, 4, 6, 7, 8])
async def test_a_crash_anywhere_starts_each_child_once(records: int) -> None:
    effects: list[Any] = []
    async with Harness(_app(effects)) as bench:
        bench.crash_after(records)
        assert await bench.run("parent", {"values": list(range(6))}) == list(range(6))
        assert bench.crashes <= 1
    assert sorted(map(str, effects)) == list("012345")


async def test_the_failure_of_a_child_can_be_caught() -> None:
    async with Harness(_app([])) as bench:
        assert await bench.run("catches") == ["the-child", "ValueError", "no"]


async def test_a_failure_that_escapes_goes_up_and_a_retry_starts_the_child_again() -> None:
    async with Harness(_app([])) as bench:
        assert await bench.run("insists") == "at last"


async def test_a_cancellation_goes_down_the_tree() -> None:
    async with Harness(_app([])) as bench:
        run = await bench.client.enqueue("waits", {"deep": 3}, id="top")
        await bench.settle()
        await run.cancel()
        for name in ("deep-2", "deep-1", "deep-0", "sleeper"):
            with pytest.raises(RunCancelled):
                await bench.client.run(name).result(10)


async def test_a_cancelled_child_fails_its_parent() -> None:
    async with Harness(_app([])) as bench:
        run = await bench.client.enqueue("waits", {"deep": 0})
        await bench.settle()
        await bench.client.run("sleeper").cancel()
        with pytest.raises(RunFailed, match="the run was cancelled") as caught:
            await run.result(10)
        assert caught.value.cause == "RunCancelled"


async def test_an_id_that_belongs_to_another_run_fails_the_child() -> None:
    async with Harness(_app([])) as bench:
        await bench.client.enqueue("sleeps", id="taken")
        with pytest.raises(RunFailed) as caught:
            await bench.run("named", {"id": "taken"})
        assert caught.value.cause == "IdConflict"


async def test_a_child_that_was_there_before_is_waited_for() -> None:
    """The same id, workflow and arguments are the same run, whoever started it."""
    effects: list[Any] = []
    async with Harness(_app(effects)) as bench:
        before = await bench.client.enqueue("leaf", {"value": 1}, id="shared")
        await before.result(10)
        assert await bench.run("named", {"id": "shared"}) == 1
    assert effects == [1]


async def test_a_map_runs_every_item_once_and_few_at_a_time() -> None:
    effects: list[Any] = []
    async with Harness(_app(effects)) as bench:
        assert await bench.run("mapped", {"count": 40}) == list(range(40))
    assert sorted(map(int, map(str, effects))) == list(range(40))


async def test_a_run_begins_anew_under_its_id() -> None:
    effects: list[Any] = []
    async with Harness(_app(effects)) as bench:
        given = {"left": 3, "seen": []}
        run = await bench.client.enqueue("endless", given, id="agent")
        for number in range(4):
            await run.signal("next", f"s{number}")
        assert await run.result(10) == ["s0", 3, "s1", 2, "s2", 1, "s3", 0]
        assert len(await bench.client.journal(run)) == 2
        # Asked for with what it began with, it is the same run.
        assert not (await bench.client.enqueue("endless", given, id="agent")).created
    assert effects == [3, 2, 1, 0]
