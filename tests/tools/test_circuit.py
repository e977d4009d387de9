"""A server that does not answer is left alone, and found again, without a call being risked."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import pytest
from hypothesis import given
from hypothesis.strategies import lists, sampled_from

from millstream.errors import ToolInterrupted, ToolNotSent
from millstream_worker.tools.breaker import Breaker, Circuit, Pass
from tests.tools.bench import Bench, benched, in_time, web
from tests.tools.fault_http import FaultHttp


@dataclass
class Clock:
    """Time that passes when it is told to."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


def test_it_opens_after_failures_in_a_row_and_pauses_grow() -> None:
    """Five failures, then pauses of 1, 2, 4 seconds, each ended by one probe."""
    clock = Clock()
    breaker = Breaker(now=clock)
    moves = [breaker.failed() for _ in range(5)]
    assert moves == [None, None, None, None, Circuit.OPEN]

    for pause_s in (1.0, 2.0, 4.0):
        assert breaker.wait_s == pause_s
        assert breaker.ask() == (Pass.REFUSED, None)
        clock.at += pause_s
        assert breaker.ask() == (Pass.PROBE, Circuit.HALF_OPEN)
        assert breaker.ask() == (Pass.REFUSED, None)
        assert breaker.failed() is Circuit.OPEN

    clock.at += 8
    breaker.ask()
    assert breaker.answered() is Circuit.CLOSED
    assert breaker.ask() == (Pass.CALL, None)


def test_an_answer_between_failures_starts_the_count_anew() -> None:
    """A server that fails one tool in two is not down."""
    breaker = Breaker(now=Clock())
    for _ in range(20):
        breaker.failed()
        breaker.answered()
    assert breaker.state is Circuit.CLOSED


def test_calls_that_were_under_way_do_not_prolong_the_pause() -> None:
    """Fifty calls cut by one failure are one failure."""
    breaker = Breaker(now=Clock())
    for _ in range(50):
        breaker.failed()
    assert breaker.wait_s == 1.0


def test_a_probe_that_was_cancelled_lets_the_next_one_through() -> None:
    """Otherwise the circuit would stay half-open for ever."""
    clock = Clock()
    breaker = Breaker(now=clock, threshold=1)
    breaker.failed()
    clock.at += 1
    breaker.ask()
    assert breaker.abandoned() is Circuit.OPEN
    assert breaker.ask() == (Pass.PROBE, Circuit.HALF_OPEN)


@given(lists(sampled_from(["ask", "failed", "answered", "abandoned", "wait"])))
def test_whatever_happens_it_lets_somebody_through_again(story: list[str]) -> None:
    """No history ends in a server that is never asked again."""
    clock = Clock()
    breaker = Breaker(now=clock)
    for step in story:
        if step == "wait":
            clock.at += 1
        else:
            getattr(breaker, step)()

    breaker.abandoned()
    clock.at += breaker.longest_s
    assert breaker.ask()[0] in {Pass.CALL, Pass.PROBE}


async def fail_five_times(bench: Bench) -> None:
    for _ in range(5):
        with pytest.raises(ToolInterrupted):
            await bench.call("faults", "fault", {"kind": "reset"})


async def test_an_open_circuit_costs_a_moment_and_sends_nothing() -> None:
    """The caller is told when to come again, and leaves his slot to others."""
    clock = Clock()
    async with FaultHttp().serve() as server, benched({"faults": web(server)}, now=clock) as bench:
        await fail_five_times(bench)
        requests = len(server.methods)
        with pytest.raises(ToolNotSent) as raised:
            await bench.call("faults", "echo")

    assert raised.value.retry_after == 1.0
    assert len(server.methods) == requests
    assert bench.statuses == ["interrupted"] * 5 + ["circuit_open"]
    assert bench.circuit == ["open"]


async def test_the_probe_is_harmless_and_one() -> None:
    """Ten callers come when the pause is over: one listing goes first, then their calls."""
    clock = Clock()
    async with FaultHttp().serve() as server, benched({"faults": web(server)}, now=clock) as bench:
        await fail_five_times(bench)
        clock.at += 1
        del server.methods[:]
        answered = 0

        async def one() -> None:
            nonlocal answered
            try:
                await bench.call("faults", "effect", {"name": "e"})
            except ToolNotSent:
                return
            answered += 1

        async with in_time(), anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(one)

    assert server.methods == ["tools/list", *["tools/call"] * answered]
    assert server.tools.effects["e"] == answered >= 1
    assert bench.circuit == ["open", "half-open", "closed"]


async def test_a_failed_probe_opens_it_again_for_longer() -> None:
    """The call that waited for the probe was never sent."""
    clock = Clock()
    async with FaultHttp().serve() as server, benched({"faults": web(server)}, now=clock) as bench:
        await fail_five_times(bench)
        clock.at += 1
        server.refusals.append((500, {}))
        with pytest.raises(ToolNotSent, match="HTTP 500"):
            await bench.call("faults", "effect", {"name": "e"})
        with pytest.raises(ToolNotSent, match=r"asked again in 2\.0 s"):
            await bench.call("faults", "effect", {"name": "e"})

    assert server.tools.effects["e"] == 0
    assert bench.circuit == ["open", "half-open", "open"]


async def test_a_worker_none_of_whose_servers_answers_says_so() -> None:
    """One that is away costs its own calls only: no reason not to be ready."""
    clock = Clock()
    async with FaultHttp().serve() as server:
        alone = {"faults": web(server)}
        for servers, said in (
            (alone, "no MCP server answers (faults)"),
            ({**alone, "other": web(server)}, None),
        ):
            async with benched(servers, now=clock) as bench:
                assert await bench.caller.check() is None
                await fail_five_times(bench)
                assert await bench.caller.check() == said
                clock.at += 1
                await bench.call("faults", "effect", {"name": "e"})
                assert await bench.caller.check() is None


async def test_what_a_tool_says_is_no_failure_of_its_server() -> None:
    """A tool that always fails must not take the others down with it."""
    async with FaultHttp().serve() as server, benched({"faults": web(server)}) as bench:
        for _ in range(10):
            await bench.call("faults", "is_error")
            with pytest.raises(ToolInterrupted):
                await bench.call("faults", "rpc_error", {"code": -32603})

    assert bench.circuit == []


async def test_a_server_that_is_down_is_found_when_it_is_back() -> None:
    """Refused connections open the circuit; the first answer closes it."""
    clock = Clock()
    server = FaultHttp()
    async with server.serve():
        entry = web(server)
    async with benched({"faults": entry}, now=clock) as bench:
        for _ in range(6):
            with pytest.raises(ToolNotSent):
                await bench.prepare("faults", "echo")
        assert bench.statuses == ["not_sent"] * 5 + ["circuit_open"]

        async with server.serve(server.port):
            clock.at += 1
            await bench.call("faults", "echo")

    assert bench.circuit == ["open", "half-open", "closed"]
