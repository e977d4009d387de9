"""Signals as authors and callers see them: early, late, in order, once, whatever dies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from millstream import (
    Context,
    RunEnded,
    RunFailed,
    SignalsFull,
    SignalTimeout,
    UnknownRun,
    Workflows,
)
from millstream.errors import PayloadTooLarge, UsageError
from millstream.testing import Harness

pytestmark = pytest.mark.anyio

app = Workflows()


@app.workflow()
async def ask(ctx: Context, timeout: float | None = None) -> object:
    try:
        return await ctx.wait_signal("answer", timeout=timeout)
    except SignalTimeout:
        return "too late"


@app.workflow()
async def collect(ctx: Context, count: int) -> list[object]:
    return [await ctx.wait_signal("item") for _ in range(count)]


@app.workflow()
async def two(ctx: Context) -> list[object]:
    return await ctx.gather(ctx.wait_signal("a"), ctx.wait_signal("b"))


@app.workflow()
async def impatient(ctx: Context) -> object:
    return await ctx.wait_signal("answer", timeout=60)


@app.workflow()
async def until(ctx: Context, when: float) -> float:
    await ctx.sleep_until(datetime.fromtimestamp(when, UTC))
    return ctx.now()


async def test_a_signal_wakes_a_parked_run() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("ask")
        await bench.settle()
        status = await run.status()
        assert (status.state, status.waits_for) == ("parked", "signal 'answer'")
        assert status.times.due is None
        await run.signal("answer", {"ok": [1, None]})
        assert await run.result(10) == {"ok": [1, None]}


async def test_a_signal_that_comes_early_is_kept() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("ask", delay=3600)
        await run.signal("answer", 1)
        await run.signal("answer", 2)
        await bench.jump(3600)
        assert await run.result(10) == 1


async def test_signals_of_one_name_come_in_order_and_each_once() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("collect", {"count": 8})
        for number in range(8):
            await run.signal("item", number, id=f"item {number}")
            await run.signal("item", number, id=f"item {number}")
        assert await run.result(10) == list(range(8))


@pytest.mark.parametrize("records", range(1, 5))
async def test_a_crash_neither_loses_nor_doubles_a_signal(records: int) -> None:
    async with Harness(app) as bench:
        bench.crash_after(records)
        run = await bench.client.enqueue("collect", {"count": 5})
        for number in range(5):
            await run.signal("item", number)
        assert await run.result(10) == [0, 1, 2, 3, 4]
        assert bench.crashes == 1


async def test_branches_wait_for_signals_of_their_own() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("two")
        await bench.settle()
        await run.signal("b", "B")
        await bench.settle()
        assert (await run.status()).waits_for == "signal 'a'"
        await run.signal("a", "A")
        assert await run.result(10) == ["A", "B"]


async def test_no_signal_in_time_is_an_error_that_can_be_caught() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("ask", {"timeout": 60})
        await bench.settle()
        await bench.jump(61)
        assert await run.result(10) == "too late"
        with pytest.raises(RunEnded, match="completed"):
            await run.signal("answer")


async def test_a_timeout_that_escapes_fails_the_run_by_its_name() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("impatient")
        await bench.jump(61)
        with pytest.raises(RunFailed, match="no signal 'answer' came within 60 s") as caught:
            await run.result(10)
        assert caught.value.cause == "SignalTimeout"


async def test_a_signal_reaches_a_run_whose_other_branch_is_busy() -> None:
    """Nothing is parked, and nothing is committed meanwhile: the run is told."""
    busy, heard = asyncio.Event(), asyncio.Event()
    workflows = Workflows()

    async def work() -> str:
        busy.set()
        await heard.wait()
        return "worked"

    async def listen(ctx: Context) -> object:
        value = await ctx.wait_signal("go")
        heard.set()
        return value

    @workflows.workflow()
    async def both(ctx: Context) -> list[object]:
        return await ctx.gather(ctx.step(work), listen(ctx))

    async with Harness(workflows) as bench:
        run = await bench.client.enqueue("both")
        await busy.wait()
        assert (await run.status()).state == "running"
        await run.signal("go", "gone")
        assert await run.result(10) == ["worked", "gone"]


async def test_sleep_until_a_time() -> None:
    async with Harness(app) as bench:
        now = await bench.run("until", {"when": 0.0})
        run = await bench.client.enqueue("until", {"when": now + 7200})
        await bench.settle()
        assert (await run.status()).state == "parked"
        await bench.jump(7200)
        assert await run.result(10) >= now + 7200


async def test_what_cannot_be_sent_is_refused_by_name() -> None:
    async with Harness(app) as bench:
        with pytest.raises(UnknownRun):
            await bench.client.run("nobody").signal("answer")
        run = await bench.client.enqueue("ask", delay=3600)
        with pytest.raises(PayloadTooLarge):
            await run.signal("answer", "x" * 70_000)
        for name in ("", "a\nb", "x" * 201):
            with pytest.raises(UsageError):
                await run.signal(name)
        for _ in range(64):
            await run.signal("answer", "x" * 65_000)
        with pytest.raises(SignalsFull, match="already"):
            await run.signal("answer", "x" * 65_000)
