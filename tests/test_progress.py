"""What whoever watches a run is told of its steps: in order, once, and nothing that is unasked."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from millstream import Context, RetryPolicy, RunFailed, Workflows
from millstream.client import RunEvent
from millstream.errors import SignalTimeout, StepFailed, UsageError
from millstream.model.progress import EventKind
from millstream.store.keys import Lane
from millstream.testing import Harness

pytestmark = pytest.mark.anyio

app = Workflows()
FLAKY = RetryPolicy(max_attempts=3, initial=0.001)
_failures = Counter[str]()


async def double(number: int) -> int:
    return 2 * number


async def stumble(name: str, times: int) -> str:
    _failures[name] += 1
    if _failures[name] <= times:
        raise ValueError("not yet")
    return name


@app.workflow(events="steps")
async def counts(ctx: Context, upto: int) -> int:
    total = 0
    for number in range(upto):
        total += await ctx.step(double, number)
        ctx.emit("total", total)
    return total


@app.workflow()
async def silent(ctx: Context) -> int:
    return await ctx.step(double, 1)


@app.workflow(events="steps")
async def flaky(ctx: Context, name: str, times: int) -> str:
    try:
        return await ctx.step(stumble, name, times, retry=FLAKY)
    except StepFailed:
        return "given up"


@app.workflow(events="steps")
async def waits(ctx: Context) -> list[Any]:
    found: list[Any] = [ctx.random() < 1, await ctx.wait_signal("go")]
    try:
        await ctx.wait_signal("never", timeout=60)
    except SignalTimeout:
        await ctx.sleep(60)
    found.append(await ctx.child("silent"))
    return [*found, (await ctx.tool("clock", "now")).data]


@app.workflow()
async def writes(ctx: Context) -> Any:
    return await ctx.infer("poet", "tides", stream=True)


async def told(bench: Harness, run: Any, after: str = "") -> list[RunEvent]:
    with anyio.fail_after(20):
        return [event async for event in run.events(after)]


async def to_the_end(bench: Harness, run: Any) -> None:
    """Set time forward as often as the run waits: a jump does not wait for what it wakes."""
    with anyio.fail_after(20):
        while not (await run.status()).state.final:
            await bench.jump(61)


def steps(events: list[RunEvent]) -> list[tuple[str, str]]:
    return [(e.name, e.data["step"]) for e in events if e.kind is EventKind.STEP]


async def test_steps_and_what_is_emitted_come_in_their_order() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("counts", {"upto": 2})
        events = await told(bench, run)
    assert [(event.kind.value, event.name) for event in events] == [
        ("step", "started"), ("step", "ended"), ("emit", "total"),
        ("step", "started"), ("step", "ended"), ("emit", "total"), ("end", "completed"),
    ]  # fmt: skip
    assert steps(events)[::2] == [("started", "double#0"), ("started", "double#1")]
    ended = events[1].data
    assert ended.pop("took_s") >= 0
    assert ended == {
        "step": "double#0", "kind": "step", "target": "double", "attempt": 1, "fence": 1,
        "status": "ok", "tries": 1,
    }  # fmt: skip


async def test_a_run_that_nobody_asked_says_nothing() -> None:
    """Other workflows pay nothing: there is not even a stream."""
    async with Harness(app) as bench:
        run = await bench.client.enqueue("silent")
        assert [event.kind for event in await told(bench, run)] == [EventKind.END]
        keys = await bench.client._connection.client.keys("*")
        assert Lane("default").events(run.id).encode() not in keys


@pytest.mark.parametrize("after", range(1, 4))
async def test_a_crash_tells_no_end_twice(after: int) -> None:
    """What is replayed is silent; a step that was cut short says that it begins again."""
    async with Harness(app) as bench:
        bench.crash_after(after)
        run = await bench.client.enqueue("counts", {"upto": 4})
        events = await told(bench, run)
        assert bench.crashes == 1
    keys = [f"double#{number}" for number in range(4)]
    assert [key for name, key in steps(events) if name == "ended"] == keys
    assert [e.data for e in events if e.kind is EventKind.EMIT] == [0, 2, 6, 12]
    starts = [(e.data["step"], e.data["fence"]) for e in events if e.name == "started"]
    assert list(dict.fromkeys(key for key, _ in starts)) == keys
    assert len(set(starts)) == len(starts), "who began it is told apart"


async def test_a_reader_that_went_away_misses_nothing() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("counts", {"upto": 3})
        whole = await told(bench, run)
        for seen, event in enumerate(whole[:-1], 1):
            assert await told(bench, run, after=event.id) == whole[seen:]


@pytest.mark.parametrize(("times", "status"), [(2, "ok"), (5, "failed")])
async def test_what_is_tried_again_says_why(times: int, status: str) -> None:
    _failures.clear()
    async with Harness(app) as bench:
        run = await bench.client.enqueue("flaky", {"name": "x", "times": times})
        events = await told(bench, run)
    assert [event.name for event in events[:-1]] == ["started", "retried", "retried", "ended"]
    retried, ended = events[2].data, events[3].data
    assert (retried["tries"], retried["error"]) == (2, "ValueError: not yet")
    assert retried["pause_s"] >= 0
    assert (ended["status"], ended["tries"]) == (status, 3)
    assert ended.get("error") == (None if status == "ok" else "StepFailed: ValueError: not yet")


async def test_waits_say_when_they_begin_and_how_they_end() -> None:
    """However often the run was parked and taken again meanwhile; values are nobody's business."""
    async with Harness(app, tools={"clock": {"now": lambda: "noon"}}) as bench:
        run = await bench.client.enqueue("waits")
        await bench.settle()
        await run.signal("go", 1)
        await to_the_end(bench, run)
        assert await run.result(timeout=10) == [True, 1, 2, "noon"]
        events = await told(bench, run)
    said = [(e.name, e.data["kind"], e.data.get("status")) for e in events[:-1]]
    assert said == [
        ("started", "signal", None), ("ended", "signal", "ok"),
        ("started", "signal", None), ("ended", "signal", "failed"),
        ("started", "sleep", None),
        ("started", "child", None), ("ended", "child", "ended"),
        ("started", "tool", None), ("ended", "tool", "ok"),
    ]  # fmt: skip
    assert events[3].data["error"] == "SignalTimeout: no signal 'never' came within 60 s"


async def test_the_text_of_a_model_is_read_along() -> None:
    """In pieces that together are the answer, and before it."""
    verse = [f"line {number}\n" for number in range(500)]

    async def poet(_: str) -> AsyncIterator[str]:
        for line in verse:
            yield line

    async with Harness(app, models={"poet": poet}) as bench:
        run = await bench.client.enqueue("writes")
        events = await told(bench, run)
        assert await run.result(timeout=10) == "".join(verse)
    pieces = [event.data for event in events if event.kind is EventKind.TEXT]
    assert "".join(piece["text"] for piece in pieces) == "".join(verse)
    assert 1 < len(pieces) < 10, "no token is an event"
    assert {(p["step"], p["attempt"], p["fence"], p["tries"]) for p in pieces} == {
        ("poet#0", 1, 1, 1)
    }
    lengths = [len(piece["text"]) for piece in pieces]
    assert [p["offset"] for p in pieces] == [sum(lengths[:n]) for n in range(len(pieces))]


async def test_the_text_of_a_try_that_died_is_told_apart() -> None:
    """Another worker asks the model anew: its text begins at the beginning, under its own fence."""
    began = anyio.Event()

    async def poet(_: str) -> AsyncIterator[str]:
        if not began.is_set():
            yield "x" * 3000
            began.set()
            await anyio.sleep_forever()
        yield "the tide "
        yield "is in"

    async with Harness(app, models={"poet": poet}) as bench:
        run = await bench.client.enqueue("writes")
        with anyio.fail_after(10):
            async for event in run.events():
                assert event.data["text"] == "x" * 3000
                break
            await began.wait()
        bench.crash()
        assert await run.result(timeout=10) == "the tide is in"
        pieces = [event.data for event in await told(bench, run) if event.kind is EventKind.TEXT]
    last = pieces[-1]["fence"]
    assert pieces[0]["fence"] < last
    answer = [piece for piece in pieces if piece["fence"] == last]
    assert (answer[0]["offset"], "".join(x["text"] for x in answer)) == (0, "the tide is in")


async def test_a_model_that_cannot_stream_answers_all_the_same() -> None:
    async with Harness(app, models={"poet": lambda text: text.upper()}) as bench:
        assert await bench.run("writes") == "TIDES"


def test_what_is_told_is_one_of_two_things() -> None:
    with pytest.raises(UsageError, match="'emitted' or 'steps'"):
        Workflows().workflow(events="all")  # type: ignore[arg-type]


async def test_a_failed_run_ends_what_it_says() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("waits")
        await bench.settle()
        await run.signal("go")
        await to_the_end(bench, run)
        with pytest.raises(RunFailed, match="no tool clock/now"):
            await run.result(timeout=10)
        last, end = (await told(bench, run))[-2:]
    assert (last.name, last.data["status"]) == ("ended", "failed")
    assert (end.final, end.kind, end.name) == (True, EventKind.END, "failed")
