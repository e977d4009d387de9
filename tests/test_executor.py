"""A workflow may do what it likes: it ends its own run by that, never the worker."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable
from dataclasses import replace

import anyio
import pytest

from millstream import Context, RetryPolicy, RunCancelled, RunFailed, Suspended, Workflows
from millstream.errors import StepFailed
from millstream.events import RunSettled
from millstream.model.limits import LIMITS
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.testing import Harness
from millstream_worker import held
from millstream_worker.threads import Threads

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
async def makes_a_key_up(ctx: Context) -> None:
    raise StepFailed("of my own making", key="\ud800", cause="Mine")


@app.workflow()
async def is_cancelled_in_a_branch(ctx: Context) -> list[object]:
    async def cancelled() -> None:
        raise asyncio.CancelledError("of its own making")

    return await ctx.gather(ctx.step(cancelled), ctx.step(str, 1))


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
        ("makes_a_key_up", "Mine"),
        ("is_cancelled_in_a_branch", "CancelledError"),
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
        await bench.settle()
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


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot even say it")


class _Own(BaseException):
    pass


@app.workflow()
async def cannot_say(ctx: Context, where: str) -> None:
    def fail() -> None:
        raise _Mute

    if where == "step":
        await ctx.step(fail, retry=RetryPolicy(max_attempts=2, initial=0.0))
    raise _Mute


@app.workflow()
async def raises_its_own(ctx: Context, kind: str) -> None:
    raise {"own": _Own, "exit": GeneratorExit, "interrupt": KeyboardInterrupt}[kind]


@app.workflow()
async def cancels_its_task(ctx: Context) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await anyio.sleep(1)


@app.workflow()
async def leaves_in_a_branch(ctx: Context, kind: str) -> None:
    def leave() -> None:
        sys.exit(2)

    async def leave_directly() -> None:
        sys.exit(2)

    await ctx.gather(ctx.step(leave) if kind == "step" else leave_directly(), ctx.step(str, 1))


@pytest.mark.parametrize(
    ("workflow", "arguments", "cause"),
    [
        ("cannot_say", {"where": "workflow"}, "_Mute"),
        ("cannot_say", {"where": "step"}, "_Mute"),
        ("raises_its_own", {"kind": "own"}, "_Own"),
        ("raises_its_own", {"kind": "exit"}, "GeneratorExit"),
        ("raises_its_own", {"kind": "interrupt"}, "KeyboardInterrupt"),
        ("cancels_its_task", {}, "CancelledError"),
        ("leaves_in_a_branch", {"kind": "step"}, "SystemExit"),
        ("leaves_in_a_branch", {"kind": "branch"}, "SystemExit"),
    ],
)
async def test_no_error_of_a_run_ends_its_worker(
    workflow: str, arguments: dict[str, str], cause: str
) -> None:
    async with Harness(app) as bench:
        with pytest.raises(RunFailed) as caught:
            await bench.run(workflow, arguments)
        assert caught.value.cause == cause
        assert await bench.run("fine") == "fine"
        settled = [x for x in bench.events if isinstance(x, RunSettled)]
        assert settled[0].traceback


@app.workflow()
async def gives_up_on_branches(ctx: Context) -> str:
    with anyio.move_on_after(0.01):
        await ctx.gather(ctx.step(anyio.sleep, 5), ctx.step(anyio.sleep, 6))
    await ctx.sleep(3600)
    return "woke"


async def test_a_gather_that_was_given_up_does_not_keep_the_run_from_parking() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("gives_up_on_branches")
        await bench.settle()
        assert (await run.status()).state == "parked"


@app.workflow()
async def acts_on_the_side(ctx: Context) -> int:
    async def slow() -> None:
        counted.append(1)
        await anyio.sleep(0.2)

    async with anyio.create_task_group() as group:
        group.start_soon(_await, ctx.step(slow))
        await anyio.sleep(0.05)
        await ctx.sleep(60)
    return len(counted)


counted: list[int] = []


async def _await(call: Awaitable[object]) -> None:
    await call


async def test_parking_waits_for_what_a_task_of_the_workflow_is_doing() -> None:
    counted.clear()
    async with Harness(app) as bench:
        run = await bench.client.enqueue("acts_on_the_side")
        await bench.jump(60)
        assert await run.result(timeout=10) == 1


@app.workflow()
async def says_too_much(ctx: Context) -> None:
    for number in range(550):
        ctx.emit("n", number)


async def test_what_is_said_beyond_the_bound_fails_the_run_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker counts what it says, and more leaves in parts than one of them holds."""
    monkeypatch.setattr(held, "LIMITS", replace(LIMITS, journal_records=500))
    async with Harness(app) as bench:
        with pytest.raises(RunFailed) as caught:
            await bench.run("says_too_much", timeout=60)
        assert caught.value.cause == "JournalFull"


@app.workflow()
async def never_gives_up(ctx: Context) -> None:
    while True:
        try:
            await ctx.step(anyio.sleep, 60)
        except BaseException:
            if len(counted) > 2000:
                raise
            counted.append(1)
            continue


async def test_a_run_that_swallows_everything_does_not_freeze_its_worker() -> None:
    counted.clear()
    async with Harness(app) as bench:
        run = await bench.client.enqueue("never_gives_up")
        while not (await bench.client.depth()).running:
            await anyio.sleep(0.005)
        await run.cancel()
        assert await bench.run("fine") == "fine"
        with pytest.raises(RunCancelled):
            await run.result(timeout=20)


async def test_threads_that_hang_keep_their_places() -> None:
    release = threading.Event()
    threads = Threads(2)
    begun: list[int] = []

    def hang() -> None:
        begun.append(1)
        release.wait(30)

    with anyio.fail_after(30):
        for _ in range(2):
            with anyio.move_on_after(0.05):
                await threads(hang)
        with anyio.move_on_after(0.05) as scope:
            await threads(hang)
        assert scope.cancelled_caught
        assert len(begun) == 2
        release.set()
        assert await threads(lambda: "free again") == "free again"


async def test_what_a_step_shields_is_done_although_its_run_is_stopped() -> None:
    """A time-out ends the run; what it must put in order behind itself is put in order."""
    app = Workflows()
    done: list[str] = []

    async def careful() -> None:
        try:
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.3)
                done.append("put in order")

    @app.workflow(timeout=0.05)
    async def flow(ctx: Context) -> None:
        await ctx.step(careful)

    async with Harness(app) as bench:
        with pytest.raises(RunFailed) as caught:
            await bench.run("flow")
    assert caught.value.cause == "TimeoutError"
    assert done == ["put in order"]


@pytest.mark.parametrize("when", ["while it is parked", "while it runs"])
async def test_a_run_whose_journal_is_foreign_fails_by_name(when: str) -> None:
    """It cannot go on, and must not begin anew; whoever stands beside it feels nothing."""
    app = Workflows()
    done: list[int] = []
    connection: Connection

    async def occupy() -> None:
        key = Lane("default").journal("r1")
        await connection.client.delete(key)
        await connection.client.set(key, "not yours")

    async def act(number: int) -> int:
        done.append(number)
        if number == 2 and when == "while it runs":
            await occupy()
        return number

    @app.workflow()
    async def flow(ctx: Context) -> None:
        await ctx.step(act, 1)
        await ctx.sleep(3600)
        await ctx.step(act, 2)
        await ctx.step(act, 3)

    @app.workflow()
    async def beside(ctx: Context) -> int:
        return await ctx.step(act, 0)

    async with Harness(app) as bench:
        connection = Connection(bench._url)
        run = await bench.client.enqueue("flow", id="r1")
        await bench.settle()
        if when == "while it is parked":
            await occupy()
        await bench.jump(3600)
        with pytest.raises(RunFailed) as caught:
            await run.result(timeout=10)
        assert caught.value.cause == "KeyOccupied"
        assert await bench.run("beside") == 0
        await connection.aclose()
    assert done == ([1, 0] if when == "while it is parked" else [1, 2, 0])
