"""A workflow may do what it likes: it ends its own run by that, never the worker."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import anyio
import pytest

from millstream import Context, RunFailed, Suspended, Workflows
from millstream.events import RunSettled
from millstream.testing import Harness

pytestmark = pytest.mark.anyio

app = Workflows()


@app.workflow()
async def leaves(ctx: Context) -> None:
    sys.exit(3)


@app.workflow()
async def cancels_itself(ctx: Context) -> None:
    raise asyncio.CancelledError("of my own making")


@app.workflow()
async def suspends_itself(ctx: Context) -> None:
    raise Suspended


@app.workflow()
async def speaks_no_utf8(ctx: Context) -> None:
    raise ValueError("\ud800")


@app.workflow()
async def returns_an_object(ctx: Context) -> object:
    return object()


@app.workflow()
async def awaits_twice(ctx: Context) -> None:
    call = ctx.step(str, 1)
    await call
    await call


@app.workflow()
async def same_key(ctx: Context) -> None:
    await ctx.step(str, 1, key="a")
    await ctx.step(str, 2, key="a")


@app.workflow()
async def fails_in_a_group(ctx: Context) -> None:
    async def fail() -> None:
        raise ValueError("in a branch")

    await ctx.gather(ctx.step(fail, retry=None, key="x"), ctx.step(str, 1))


@app.workflow()
async def fine(ctx: Context) -> str:
    return "fine"


@app.workflow()
async def swallows(ctx: Context) -> str:
    """Catches what it must not catch."""
    with contextlib.suppress(BaseException):
        await ctx.sleep(3600)
    return "swallowed"


@pytest.mark.parametrize(
    ("workflow", "cause"),
    [
        ("leaves", "SystemExit"),
        ("cancels_itself", "CancelledError"),
        ("suspends_itself", "Suspended"),
        ("speaks_no_utf8", "ValueError"),
        ("returns_an_object", "NotEncodable"),
        ("awaits_twice", "UsageError"),
        ("same_key", "DuplicateKey"),
    ],
)
async def test_what_a_workflow_does_to_itself_fails_its_run_only(workflow: str, cause: str) -> None:
    async with Harness(app) as bench:
        with pytest.raises(RunFailed) as caught:
            await bench.run(workflow)
        assert caught.value.cause == cause
        assert await bench.run("fine") == "fine"


async def test_a_swallowed_suspension_does_not_end_the_run() -> None:
    """What a workflow returns while it is being put aside is no result."""
    async with Harness(app) as bench:
        run = await bench.client.enqueue("swallows")
        await bench.settle()
        assert (await run.status()).state == "parked"
        await bench.jump(3600)
        assert await run.result(timeout=10) == "swallowed"
        states = [event.state for event in bench.events if isinstance(event, RunSettled)]
        assert states == ["parked", "completed"]


async def test_a_hundred_runs_at_once_all_end() -> None:
    async with Harness(app) as bench:
        runs = [await bench.client.enqueue("fine") for _ in range(100)]
        async with anyio.create_task_group() as group:
            for run in runs:
                group.start_soon(run.result, 20)


@app.workflow()
async def annotated(ctx: Context) -> list[object]:
    def half() -> float:
        return 1

    values: list[object] = [await ctx.step(half)]
    await ctx.sleep(60)
    return [*values, repr(values[0])]


async def test_a_value_is_the_same_when_it_runs_and_when_it_is_replayed() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("annotated")
        await bench.jump(60)
        assert await run.result(timeout=10) == [1.0, "1.0"]


@app.workflow()
async def misannotated(ctx: Context) -> object:
    def look() -> dict[str, int]:
        return None  # type: ignore[return-value]

    return await ctx.step(look)


async def test_a_value_that_does_not_fit_fails_at_once_not_on_the_replay() -> None:
    async with Harness(app) as bench:
        with pytest.raises(RunFailed, match="does not fit its annotation"):
            await bench.run("misannotated")


@app.workflow()
async def tells(ctx: Context) -> None:
    ctx.emit("progress", 1)
    await ctx.step(anyio.sleep, 30)


async def test_progress_is_heard_before_the_step_that_follows_has_ended() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("tells")
        with anyio.fail_after(10):
            async for event in run.events():
                assert (event.name, event.data) == ("progress", 1)
                break
        await run.cancel()
