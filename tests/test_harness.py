"""What an author can test without a server: time, crashes, tools, and that nothing is repeated."""

from __future__ import annotations

import anyio.lowlevel
import pytest

from millstream import Context, RetryPolicy, RunFailed, Workflows
from millstream.testing import Harness

pytestmark = pytest.mark.anyio


def _app(effects: list[int]) -> Workflows:
    app = Workflows()

    async def act(number: int) -> int:
        effects.append(number)
        return number * number

    @app.workflow()
    async def count(ctx: Context, upto: int) -> list[int]:
        return [await ctx.step(act, number) for number in range(upto)]

    @app.workflow()
    async def nap(ctx: Context) -> float:
        began = ctx.now()
        await ctx.sleep(3600)
        await ctx.step(act, 1)
        return ctx.now() - began

    @app.workflow()
    async def ask(ctx: Context) -> object:
        return (await ctx.tool("clock", "read", {"zone": "UTC"})).data

    @app.workflow(retry=RetryPolicy(max_attempts=2, initial=0.01))
    async def stumble(ctx: Context) -> int:
        await ctx.step(act, 7)
        if ctx.attempt == 1:
            raise RuntimeError("once")
        return ctx.attempt

    return app


@pytest.mark.parametrize("step", range(1, 6))
async def test_a_crash_after_any_step_repeats_none(step: int) -> None:
    """Whatever is recorded is kept: another worker goes on after the last record."""
    effects: list[int] = []
    async with Harness(_app(effects)) as bench:
        bench.crash_after(step)
        assert await bench.run("count", {"upto": 5}) == [0, 1, 4, 9, 16]
        # The last record and the end may leave in one turn: then nobody is left to notice.
        assert bench.crashes == 1 or step == 5
    assert effects == [0, 1, 2, 3, 4]


async def test_a_crash_before_another_worker_has_taken_over_is_none() -> None:
    """Else the one that comes is buried alive, and what it holds hangs."""
    effects: list[int] = []
    async with Harness(_app(effects)) as bench:
        bench.crash()
        for _ in range(36):
            await anyio.lowlevel.checkpoint()
            bench.crash()
        assert await bench.run("count", {"upto": 3}) == [0, 1, 4]
        assert bench.crashes in {1, 2}
        bench.crash()
        assert await bench.run("count", {"upto": 1}) == [0]


async def test_a_sleep_of_an_hour_takes_no_time() -> None:
    """A jump in time wakes a parked run, which held no slot meanwhile."""
    effects: list[int] = []
    async with Harness(_app(effects)) as bench:
        run = await bench.client.enqueue("nap")
        await bench.settle()
        assert (await bench.client.depth()).parked == 1
        assert effects == []
        await bench.jump(3600)
        assert await run.result(timeout=10) >= 3600
    assert effects == [1]


async def test_a_function_stands_in_for_a_tool() -> None:
    async with Harness(_app([]), tools={"clock": {"read": lambda zone: f"noon {zone}"}}) as bench:
        assert await bench.run("ask") == "noon UTC"


async def test_an_unknown_tool_fails_the_run_by_name() -> None:
    async with Harness(_app([])) as bench:
        with pytest.raises(RunFailed, match="the test has no tool clock/read"):
            await bench.run("ask")


async def test_a_retried_run_keeps_its_records() -> None:
    effects: list[int] = []
    async with Harness(_app(effects)) as bench:
        assert await bench.run("stumble") == 2
    assert effects == [7]
