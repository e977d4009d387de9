"""Over HTTP, each way a call can fail has its name, and none of them touches another call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from millstream.errors import ToolError, ToolInterrupted, ToolNotSent, ToolRejected
from millstream.events import ToolCalled
from millstream.model.tool import ToolResult
from millstream.model.trace import Place
from tests.tools.bench import Bench, benched, in_time, web
from tests.tools.fault_http import FaultHttp


@pytest.fixture(params=["2026", "2025", "2025-sse"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[FaultHttp]:
    """A server of each era."""
    era, _, sse = request.param.partition("-")
    async with FaultHttp(era=era, sse=bool(sse)).serve() as server:
        yield server


@pytest.fixture
async def bench(server: FaultHttp) -> AsyncIterator[Bench]:
    async with benched({"faults": web(server, maxAnswerBytes=1_000_000)}) as bench:
        yield bench


#: Fault, error, label, and when to come again where the server says so.
FAULTS: list[tuple[str, type[ToolError], str, float | None]] = [
    ("reset", ToolInterrupted, "interrupted", None),
    ("cut", ToolInterrupted, "interrupted", None),
    ("cut_sse", ToolInterrupted, "interrupted", None),
    ("bad_json", ToolInterrupted, "protocol_error", None),
    ("html", ToolInterrupted, "protocol_error", None),
    ("wrong_id", ToolInterrupted, "protocol_error", None),
    ("bad_result", ToolInterrupted, "protocol_error", None),
    ("gzip", ToolInterrupted, "protocol_error", None),
    ("accepted", ToolInterrupted, "interrupted", None),
    ("status", ToolInterrupted, "interrupted", None),
    ("429", ToolNotSent, "not_sent", 7),
    ("503", ToolNotSent, "not_sent", 3),
    ("redirect", ToolRejected, "rejected", None),
]


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case[0])
async def test_a_fault_ends_its_own_call_and_no_other(
    bench: Bench, server: FaultHttp, case: tuple[str, type[ToolError], str, float | None]
) -> None:
    """One reset must not fail the ten calls beside it, as it does in the SDK's transport."""
    fault, error, status, retry_after = case
    siblings: list[ToolResult] = []

    async def hold() -> None:
        siblings.append(await bench.call("faults", "hold", {"name": "gate"}))

    async with in_time(), anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(hold)
        await server.tools.started["gate"].wait()
        with pytest.raises(error) as raised:
            await bench.call("faults", "fault", {"kind": fault})
        server.tools.opened["gate"].set()

    assert [sibling.text for sibling in siblings] == ["opened"] * 10
    assert sorted(bench.statuses) == sorted([status, *["ok"] * 10])
    assert raised.value.retry_after == retry_after
    assert str(raised.value).startswith("faults/fault: ")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413])
async def test_a_refusal_is_final(status: int) -> None:
    """A 4xx says that asking again will not help."""
    async with FaultHttp().serve() as server, benched({"faults": web(server)}) as bench:
        await bench.prepare("faults", "echo")
        with pytest.raises(ToolRejected, match=f"HTTP {status}"):
            await bench.call("faults", "fault", {"kind": "status", "size": status})


@pytest.mark.parametrize("code", [-32600, -32601, -32602, -32700, -32021, -32042])
async def test_a_final_protocol_error_is_rejected(bench: Bench, code: int) -> None:
    """These codes speak of the request, and the next one would be the same."""
    with pytest.raises(ToolRejected, match=f"as you asked \\({code}\\)"):
        await bench.call("faults", "rpc_error", {"code": code})
    assert bench.statuses == ["protocol_error"]


@pytest.mark.parametrize("code", [-32603, -32000, 7])
async def test_an_unknown_protocol_error_leaves_the_outcome_open(bench: Bench, code: int) -> None:
    """The tool may have run before the server failed."""
    with pytest.raises(ToolInterrupted, match="as you asked"):
        await bench.call("faults", "rpc_error", {"code": code})


async def test_an_error_of_the_tool_is_an_answer(bench: Bench) -> None:
    """Whether to go on is the workflow's to decide."""
    result = await bench.call("faults", "is_error")

    assert (result.is_error, result.text) == (True, "no such thing")
    assert bench.statuses == ["is_error"]


async def test_structured_content_is_the_data(bench: Bench) -> None:
    """A tool that speaks JSON is not read through its text."""
    assert (await bench.call("faults", "structured")).data == {"value": 7}
    assert (await bench.call("faults", "echo", {"text": '{"a": 1}'})).data == {"a": 1}
    assert (await bench.call("faults", "echo", {"text": "plain"})).data == "plain"


@pytest.mark.parametrize("fault", ["huge", "huge_sse"])
async def test_an_endless_answer_is_given_up_while_it_streams(
    bench: Bench, server: FaultHttp, fault: str
) -> None:
    """A worker's memory is not at the mercy of a server."""
    async with in_time():
        with pytest.raises(ToolRejected, match="larger than 1,000,000 bytes"):
            await bench.call("faults", "fault", {"kind": fault, "size": 10**12})

    # What the kernel's buffers hold besides the limit.
    assert server.poured < 20_000_000
    assert (await bench.call("faults", "echo", {"text": "on"})).text == "on"


async def test_no_answer_in_time_is_a_timeout_and_cancels_the_call(
    bench: Bench, server: FaultHttp
) -> None:
    """A server must not go on working for somebody who has left."""
    async with in_time():
        with pytest.raises(ToolInterrupted, match="within its time"):
            await bench.call("faults", "hang", {"name": "late"}, timeout_s=0.3)
        await server.tools.cancelled["late"].wait()
    assert bench.statuses == ["timeout"]


async def test_cancelling_a_call_cancels_it_at_the_server(bench: Bench, server: FaultHttp) -> None:
    """A cancelled run stops its tools, and the cancellation stays one."""
    async with in_time(), anyio.create_task_group() as group:
        group.start_soon(bench.call, "faults", "hang", {"name": "left"})
        await server.tools.started["left"].wait()
        group.cancel_scope.cancel()
    async with in_time():
        await server.tools.cancelled["left"].wait()
    assert bench.statuses == ["cancelled"]


async def test_nobody_listens_means_never_sent() -> None:
    """Nothing left this process: every kind of call may be sent again."""
    async with FaultHttp().serve() as gone:
        pass
    async with benched({"faults": web(gone)}) as bench:
        with pytest.raises(ToolNotSent):
            await bench.prepare("faults", "echo")
    assert bench.statuses == ["not_sent"]


async def test_what_is_too_large_is_not_sent(bench: Bench, server: FaultHttp) -> None:
    """The bound holds in both directions."""
    await bench.prepare("faults", "echo")
    calls = len(server.tools.metas)
    with pytest.raises(ToolRejected, match="the limit is 1,048,576"):
        await bench.call("faults", "echo", {"text": "x" * 1_100_000})
    assert len(server.tools.metas) == calls


async def test_the_idempotency_key_and_the_meta_are_sent(bench: Bench, server: FaultHttp) -> None:
    """A server can tell a repetition only by what it is given."""
    prepared = await bench.prepare("faults", "echo")
    await bench.caller.call(
        prepared,
        {},
        timeout_s=5,
        idempotency_key="k-7",
        run_id="r1",
        meta={"traceparent": "00-1-2-01"},
    )

    assert server.tools.metas[-1]["millstream.dev/idempotency-key"] == "k-7"
    assert server.tools.metas[-1]["traceparent"] == "00-1-2-01"


async def test_the_server_is_told_in_which_trace_it_is_called(
    bench: Bench, server: FaultHttp
) -> None:
    """Its own spans then hang under the attempt that called it."""
    prepared = await bench.prepare("faults", "echo")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await bench.caller.call(
        prepared,
        {},
        timeout_s=5,
        idempotency_key="k-8",
        run_id="r1",
        place=Place(trace, "of the step"),
    )

    assert server.tools.metas[-1]["traceparent"] == trace
    called = [event for event in bench.events if isinstance(event, ToolCalled)]
    assert (called[-1].trace, called[-1].parent) == (trace, "of the step")


async def test_a_repeated_effect_counts_twice_and_a_keyed_one_once(
    bench: Bench, server: FaultHttp
) -> None:
    """The difference between an unsafe tool and a keyed one, at the server."""
    for _ in range(2):
        await bench.call("faults", "effect", {"name": "plain"})
        await bench.call("faults", "keyed_effect", {"name": "keyed"})

    assert server.tools.effects == {"plain": 2, "keyed": 1}
