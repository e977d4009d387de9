"""What an author can test without a server: time, crashes, tools, and that nothing is repeated."""

from __future__ import annotations

from typing import Any

import anyio.lowlevel
import pytest

from millstream import Context, ResultTimeout, RetryPolicy, RunFailed, Workflows
from millstream.errors import UnknownWorkflow, UsageError
from millstream.events import LaneSwept, RunSettled
from millstream.model.run import Depth
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
        # A read of the dead that still waits takes nothing from the living.
        assert sum(x.reclaimed for x in bench.events if isinstance(x, LaneSwept)) <= 1
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


async def test_an_unknown_workflow_is_refused_at_once() -> None:
    """It would wait for a worker that never comes, and then for the test's own timeout."""
    async with Harness(_app([])) as bench:
        with pytest.raises(UnknownWorkflow, match=r"'ret' \(known: count@1, .*correct the name"):
            await bench.run("ret", {"upto": 1})
        assert await bench.client.depth() == Depth()


async def test_a_result_that_is_late_says_why_and_the_log_of_the_worker_too() -> None:
    """A wrong name and a run that waits for somebody look as if they were only slow."""
    app = _app([])

    @app.workflow()
    async def hears(ctx: Context) -> object:
        return await ctx.wait_signal("go")

    async with Harness(app) as bench:
        run = await bench.client.enqueue("hears")
        await bench.settle()
        with pytest.raises(ResultTimeout, match=r"it goes on \(parked: signal 'go'\)") as late:
            await run.result(timeout=0)
        assert (late.value.state, late.value.waits_for) == ("parked", "signal 'go'")

        wrong = await bench.client.enqueue("heers")
        while not (await wrong.status()).refusals:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(ResultTimeout, match=r"\(scheduled: no worker that took it can run"):
            await wrong.result(timeout=0)
    refused = [x for x in bench.events if isinstance(x, RunSettled) and x.run_id == wrong.id]
    assert refused[0].refused == "this worker does not know the workflow"
    assert refused[0].error is None, "else it would count among the errors of runs"


async def test_a_decorator_without_its_parentheses_is_refused() -> None:
    """It would take the function for a name, and register nothing."""
    app = Workflows()
    bare: Any = app.workflow

    async def hello(ctx: Context) -> str:
        return "hello"

    with pytest.raises(UsageError, match=r"write @app.workflow\(\) above 'hello'"):
        bare(hello)
    assert len(app) == 0


async def test_a_retried_run_keeps_its_records() -> None:
    effects: list[int] = []
    async with Harness(_app(effects)) as bench:
        assert await bench.run("stumble") == 2
    assert effects == [7]
