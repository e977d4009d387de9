"""A step that was called and never awaited is a step that was never done: the run must not pass."""

from __future__ import annotations

import asyncio

import pytest

from millstream import Context, RunFailed, Workflows
from millstream.testing import Harness

pytestmark = pytest.mark.anyio


def _app(done: list[str], *, mended: list[bool] | None = None) -> Workflows:
    app = Workflows()

    async def act(name: str) -> str:
        done.append(name)
        return name

    @app.workflow()
    async def forgetful(ctx: Context) -> str:
        await ctx.step(act, "first")
        mail = ctx.step(act, "mail")
        if mended:
            await mail
        return await ctx.step(act, "last")

    @app.workflow()
    async def forgets_all(ctx: Context) -> None:
        ctx.gather(ctx.step(act, "a", key="a"), ctx.step(act, "b", key="b"))
        ctx.sleep(1)
        ctx.tool("server", "tool")
        ctx.infer("model", "text")

    @app.workflow()
    async def raises(ctx: Context) -> None:
        ctx.step(act, "never")
        raise ValueError("of its own")

    @app.workflow()
    async def awaits_late(ctx: Context) -> list[str]:
        later = ctx.step(act, "later")
        in_a_task = asyncio.ensure_future(ctx.step(act, "task"))
        ctx.gather()
        return [await later, await in_a_task]

    return app


async def test_a_forgotten_await_fails_the_run_and_names_the_step() -> None:
    """`completed` would say that the mail was sent."""
    done: list[str] = []
    async with Harness(_app(done)) as bench:
        with pytest.raises(RunFailed, match=r"act#1' was called and never awaited") as caught:
            await bench.run("forgetful")

    assert caught.value.cause == "NeverAwaited"
    assert done == ["first", "last"]


async def test_once_mended_the_run_goes_on_with_what_it_has() -> None:
    """The key was taken by the call: an `await` before it moves no other step."""
    done: list[str] = []
    mended: list[bool] = []
    async with Harness(_app(done, mended=mended)) as bench:
        run = await bench.client.enqueue("forgetful")
        with pytest.raises(RunFailed):
            await run.result(timeout=10)

        mended.append(True)
        await run.retry()
        assert await run.result(timeout=10) == "last"

    assert done == ["first", "last", "mail"]


async def test_everything_that_is_awaited_can_be_forgotten() -> None:
    """Steps, tools, models, sleeps and gathers; of many the first are named."""
    async with Harness(_app([])) as bench:
        with pytest.raises(RunFailed, match=r"'gather#0' and 3 more were called and never awaited"):
            await bench.run("forgets_all")


async def test_a_workflow_that_raises_has_its_own_reason() -> None:
    """What it did not come to is not its failure."""
    async with Harness(_app([])) as bench:
        with pytest.raises(RunFailed, match="of its own"):
            await bench.run("raises")


async def test_what_is_awaited_later_or_in_a_task_is_awaited() -> None:
    async with Harness(_app([])) as bench:
        assert await bench.run("awaits_late") == ["later", "task"]
