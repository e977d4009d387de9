"""Over stdio, a server's death costs its own calls, and a flood or a silence costs one."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from millstream.errors import ToolInterrupted, ToolNotSent, ToolRejected
from millstream.model.tool import ToolResult
from tests.tools.bench import Bench, benched, in_time, stdio


@pytest.fixture(params=["2026", "2025"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    entry = stdio("--era", request.param, maxAnswerBytes=100_000)
    async with benched({"faults": entry, "other": stdio()}) as bench:
        yield bench


@pytest.mark.parametrize(
    ("fault", "status"),
    [("bad_json", "timeout"), ("wrong_id", "timeout"), ("bad_result", "protocol_error")],
)
async def test_a_bad_answer_ends_its_own_call_and_no_other(
    bench: Bench, fault: str, status: str
) -> None:
    """Whose answer a broken line was cannot be known: that call waits out its time."""
    siblings: list[ToolResult] = []

    async def hold() -> None:
        siblings.append(await bench.call("faults", "hold", {"name": "gate"}))

    async with in_time(), anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(hold)
        await bench.call("faults", "await_started", {"name": "gate"})
        with pytest.raises(ToolInterrupted):
            await bench.call("faults", "fault", {"kind": fault}, timeout_s=0.5)
        await bench.call("faults", "open", {"name": "gate"})

    assert [sibling.text for sibling in siblings] == ["opened"] * 5
    assert sorted(bench.statuses) == sorted([status, *["ok"] * 7])


async def test_a_line_that_is_too_long_ends_its_own_call_and_no_other(bench: Bench) -> None:
    """The line is counted outside the worker, and never held in it."""
    async with in_time():
        with pytest.raises(ToolRejected, match="larger than 100,000 bytes"):
            await bench.call("faults", "fault", {"kind": "huge", "size": 2_000_000})
        assert (await bench.call("faults", "echo", {"text": "on"})).text == "on"
    assert bench.statuses == ["protocol_error", "ok"]


async def test_a_crash_interrupts_what_was_under_way_and_says_why(bench: Bench) -> None:
    """The calls of the other server know nothing of it, and the next call finds a new process."""
    first = await bench.call("faults", "pid")
    failed: list[BaseException] = []

    async def hang() -> None:
        with pytest.raises(ToolInterrupted) as raised:
            await bench.call("faults", "hang", {"name": "h"})
        failed.append(raised.value)

    async with in_time(), anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(hang)
        await bench.call("faults", "await_started", {"name": "h"})
        other = await bench.call("other", "pid")
        with pytest.raises(ToolInterrupted, match="its last words: cannot go on"):
            await bench.call("faults", "fault", {"kind": "crash"})

    second = await bench.call("faults", "pid")
    assert len(failed) == 5
    assert second.data != first.data
    assert (await bench.call("other", "pid")).data == other.data


async def test_a_program_that_keeps_ending_is_started_after_growing_pauses() -> None:
    """A program that cannot live must not be started a hundred times a second."""
    async with benched({"faults": stdio()}) as bench:
        for _ in range(2):
            with pytest.raises(ToolInterrupted):
                await bench.call("faults", "fault", {"kind": "crash"})
        with pytest.raises(ToolNotSent, match="is started again in") as raised:
            await bench.call("faults", "echo")

    assert raised.value.retry_after is not None
    assert 0 < raised.value.retry_after <= 0.5


async def test_a_program_that_cannot_start_says_why_and_is_not_started_for_ever() -> None:
    """Its last words are the operator's first hint; the circuit opens as for any other server."""
    program = "import sys; sys.exit('no database')"
    clock = 0.0
    entry = {"command": sys.executable, "args": ["-c", program]}
    async with in_time(), benched({"faults": entry}, now=lambda: clock) as bench:
        for attempt in range(5):
            with pytest.raises(ToolNotSent, match="its last words: no database"):
                await bench.call("faults", "echo")
            if attempt > 0:
                with pytest.raises(ToolNotSent, match=r"started again in|asked again in"):
                    await bench.call("faults", "echo")
                clock += 100

    assert bench.circuit == ["open"]


async def test_a_server_that_stops_reading_holds_nobody_beyond_his_time() -> None:
    """Its pipe fills up; a caller that waited for the pipe would wait for ever."""
    async with in_time(30), benched({"faults": stdio()}) as bench:
        await bench.prepare("faults", "echo")
        with pytest.raises(ToolInterrupted):
            await bench.call("faults", "fault", {"kind": "deaf"}, timeout_s=0.3)
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(ToolInterrupted):
                await bench.call("faults", "echo", {"text": "x" * 200_000}, timeout_s=0.2)
            assert time.monotonic() - began < 2


async def test_cancelling_a_call_cancels_it_at_the_server(bench: Bench) -> None:
    """A cancelled run stops its tools."""
    async with in_time():
        async with anyio.create_task_group() as group:
            group.start_soon(bench.call, "faults", "hang", {"name": "left"})
            await bench.call("faults", "await_started", {"name": "left"})
            group.cancel_scope.cancel()
        await bench.call("faults", "await_cancelled", {"name": "left"})
    assert bench.statuses == ["ok", "cancelled", "ok"]


async def test_a_call_out_of_time_is_cancelled_at_the_server(bench: Bench) -> None:
    """A server must not go on working for somebody who has left."""
    async with in_time():
        with pytest.raises(ToolInterrupted, match="within its time"):
            await bench.call("faults", "hang", {"name": "late"}, timeout_s=0.3)
        await bench.call("faults", "await_cancelled", {"name": "late"})


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program"])
async def test_a_program_that_is_not_there_is_named(command: str) -> None:
    """The operator reads this line; it must say what to install."""
    async with benched({"faults": {"command": command}}) as bench:
        with pytest.raises(ToolNotSent, match=f"{command}' is not found"):
            await bench.prepare("faults", "echo")


async def test_runs_may_have_a_process_each() -> None:
    """For a server whose process is its state."""
    async with benched({"faults": stdio(sharedSession=False)}) as bench:
        pids = [(await bench.call("faults", "pid", run=run)).data for run in ("a", "b", "a")]

    assert pids[0] == pids[2] != pids[1]


async def test_many_calls_share_one_process() -> None:
    """Fifty at once, answered out of order."""
    async with (
        in_time(),
        benched({"faults": stdio()}) as bench,
        anyio.create_task_group() as group,
    ):
        for _ in range(50):
            group.start_soon(bench.call, "faults", "meet", {"parties": 50})
    assert bench.statuses == ["ok"] * 50
