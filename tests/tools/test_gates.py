"""Waiting is fair, bounded by the deadline, and for one server only."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import anyio
import pytest

from millstream.errors import ToolNotSent, UsageError
from millstream_worker.tools.caller import ToolCaller
from millstream_worker.tools.faults import Unsent
from millstream_worker.tools.gates import Gate
from tests.tools.bench import benched, in_time, web
from tests.tools.fault_http import FaultHttp


async def test_a_hundred_callers_take_turns_at_fifty_places() -> None:
    """Under a plain connection limit half of them would wait until the others are done."""
    done: Counter[int] = Counter()

    async with FaultHttp().serve() as server, benched({"faults": web(server)}) as bench:
        await bench.prepare("faults", "echo")

        async def loop(number: int) -> None:
            # All fifty places are taken before any of them is given back.
            await bench.call("faults", "meet", {"parties": 50})
            while done.total() < 1000:
                await bench.call("faults", "echo")
                done[number] += 1

        async with in_time(60), anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(loop, number)

    assert server.tools.peak == 50
    assert len(done) == 100
    assert max(done.values()) - min(done.values()) <= 5


async def test_a_worker_has_a_hundred_calls_under_way_and_no_more() -> None:
    """Two servers have fifty each: the first call to a third one waits, and says so in time."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(FaultHttp().serve()) for _ in range(3)]
        entries = {f"s{number}": web(server) for number, server in enumerate(servers)}
        bench = await stack.enter_async_context(benched(entries))
        for name in entries:
            await bench.prepare(name, "hold")

        async with in_time(), anyio.create_task_group() as group:
            for name in ("s0", "s1"):
                for number in range(50):
                    group.start_soon(bench.call, name, "hold", {"name": str(number)})
            for server in servers[:2]:
                for number in range(50):
                    await server.tools.started[str(number)].wait()

            with pytest.raises(ToolNotSent, match="too many calls are under way"):
                await bench.call("s2", "echo", timeout_s=0.2)
            servers[0].tools.opened["0"].set()
            await bench.call("s2", "echo")

            for server in servers[:2]:
                for number in range(50):
                    server.tools.opened[str(number)].set()

    assert bench.statuses.count("not_sent") == 1
    assert bench.statuses.count("ok") == 101


async def test_who_waits_for_a_slow_server_holds_up_nobody_else() -> None:
    """Ninety-nine calls wait at the gate of one server; the other one is free."""
    async with FaultHttp().serve() as slow, FaultHttp().serve() as quick:
        entries = {"slow": web(slow, maxConnections=1), "quick": web(quick)}
        async with benched(entries, max_calls=2) as bench:
            await bench.prepare("slow", "hold")
            async with in_time(), anyio.create_task_group() as group:
                for _ in range(99):
                    group.start_soon(bench.call, "slow", "hold", {"name": "gate"})
                await slow.tools.started["gate"].wait()
                await bench.call("quick", "echo")
                slow.tools.opened["gate"].set()

    assert slow.tools.peak == 1


async def test_the_wait_counts_against_the_time_of_the_call() -> None:
    """One deadline, from the first wait to the last byte."""
    async with (
        FaultHttp().serve() as server,
        benched({"faults": web(server, maxConnections=1, timeout=0.5)}) as bench,
    ):
        await bench.prepare("faults", "hang")
        async with in_time(5), anyio.create_task_group() as group:
            group.start_soon(expect_failure, bench.call("faults", "hang", timeout_s=100))
            group.start_soon(expect_failure, bench.call("faults", "hang", timeout_s=100))

    # Which of both ends first at the very same moment does not matter.
    assert sorted(bench.statuses) in [["not_sent", "timeout"], ["timeout", "timeout"]]


async def expect_failure(call: object) -> None:
    with pytest.raises(Exception, match="faults/hang"):
        await call  # type: ignore[misc]


@pytest.mark.parametrize("number", [0, 101])
async def test_the_ceiling_is_not_for_sale(number: int) -> None:
    """Beyond it a worker's servers would be flooded; more workers are the answer."""
    with pytest.raises(UsageError, match="between 1 and 100"):
        ToolCaller({}, emit=lambda _: None, max_calls=number)


async def test_a_place_that_comes_too_late_goes_to_the_next() -> None:
    """Whoever was cancelled, or ran out of time, while it came: no place is lost with them."""
    gate = Gate(1)
    passed: list[str] = []
    far = anyio.current_time() + 100

    async def caller(name: str) -> None:
        await gate.enter(far)
        passed.append(name)
        gate.leave()

    await gate.enter(far)
    names = ("cancelled as its turn came", "cancelled in the line", "next")
    tasks = [asyncio.create_task(caller(name)) for name in names]
    await anyio.wait_all_tasks_blocked()
    gate.leave()
    for task in tasks[:2]:
        # Not by a scope: that would let one go on whose turn has come.
        task.cancel()
    async with in_time():
        await tasks[2]
        with pytest.raises(Unsent, match="none ended in time"):
            await caller_of_a_full(gate)
        await gate.enter(far)

    assert passed == ["next"]
    assert all(task.cancelled() for task in tasks[:2])


async def caller_of_a_full(gate: Gate) -> None:
    """Fill a gate, come once more, and empty it."""
    await gate.enter(anyio.current_time() + 100)
    try:
        await gate.enter(anyio.current_time() - 1)
    finally:
        gate.leave()
