"""A tool that asks a person: the run waits, parked, and the call goes on with the answer."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from millstream import Context, Run, Workflows
from millstream.errors import RunFailed, ToolRejected, UsageError
from millstream.model.elicitation import InputNeeded, Inputs, responses_to
from millstream.model.journal import RecordStatus, StepKind
from millstream.store import journals
from millstream.store.keys import Lane
from millstream.testing import Harness
from millstream_worker.tools.caller import ToolCaller
from millstream_worker.tools.servers import parse_servers
from tests.tools.bench import benched, in_time, web
from tests.tools.fault_http import FaultHttp

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).with_name("asking_server.py")

#: The step of the call below.
KEY = "asking/print_out:print"

app = Workflows()


@app.workflow()
async def print_it(ctx: Context) -> object:
    return (await ctx.tool("asking", "print_out", {"what": "a map"}, key="print")).text


@app.workflow()
async def ask(ctx: Context, tool: str) -> object:
    return (await ctx.tool("faults", tool)).text


@asynccontextmanager
async def bench_with(**servers: Any) -> AsyncIterator[Harness]:
    """A worker on real servers."""
    specs = parse_servers({"mcpServers": servers})
    async with (
        in_time(60),
        ToolCaller(specs, emit=lambda _: None) as caller,
        Harness(app, tools=caller) as bench,
    ):
        yield bench


def asking(effects: Path) -> dict[str, Any]:
    effects.touch()
    return {"command": sys.executable, "args": [str(PROGRAM), str(effects)]}


async def question(bench: Harness, run: Run) -> Any:
    """The only open question, once the run waits for its answer."""
    await bench.settle()
    (found,) = await bench.client.approvals()
    assert found.run_id == run.id
    return found


async def test_each_question_parks_the_run_and_its_answer_goes_back(tmp_path: Path) -> None:
    """The SDK's own server, which asks twice; the worker dies while nobody has answered."""
    effects = tmp_path / "effects"
    async with bench_with(asking=asking(effects)) as bench:
        run = await bench.client.enqueue("print_it")
        first = await question(bench, run)
        assert (first.question, first.key, first.due) == ("print a map?", KEY, None)
        ((_, ask),) = first.asks.items()
        assert set(ask["schema"]["properties"]) == {"reason", "copies"}
        assert (await run.status()).state == "parked"
        assert (await run.status()).waits_for == f"what tool call {KEY!r} asks for"
        event = await anext(run.events())
        assert (event.name, event.data["key"]) == ("input", KEY)

        bench.crash()
        await run.answer({"reason": "the walk", "copies": 2})
        second = await question(bench, run)
        assert second.question == "in which colour?"
        await run.answer({"colour": "red"}, second.key)
        assert await run.result(20) == "2 of a map in red: the walk"
        assert await bench.client.approvals() == []
    assert effects.read_text() == "a map\n"


async def test_what_does_not_fit_is_not_sent_and_a_no_is_the_tools_to_judge(tmp_path: Path) -> None:
    """Whoever answers is told, and the run goes on waiting; no is an answer like any other."""
    effects = tmp_path / "effects"
    async with bench_with(asking=asking(effects)) as bench:
        run = await bench.client.enqueue("print_it")
        await question(bench, run)
        refused: list[tuple[dict[str, Any], str]] = [
            ({}, "lacks reason"),
            ({"reason": 1}, "must be of type string"),
            ({"reason": "x", "copies": True}, "must be of type integer"),
            ({"reason": "x", "size": 1}, "nobody asked for size"),
        ]
        for content, word in refused:
            with pytest.raises(UsageError, match=word):
                await run.answer(content)
        with pytest.raises(UsageError, match="lacks reason"):
            await run.approve()
        with pytest.raises(UsageError, match="no open question 'other'"):
            await run.answer({"reason": "x"}, "other")
        await question(bench, run)
        await run.approve(approved=False)
        assert await run.result(20) == "not printed: decline"
    assert effects.read_text() == ""


async def test_a_crash_after_the_answer_asks_nobody_again(tmp_path: Path) -> None:
    """The answer stands in the journal before the call is sent with it."""
    async with FaultHttp().serve() as server:
        async with bench_with(faults=web(server)) as bench:
            run = await bench.client.enqueue("ask", {"tool": "ask_person"})
            await question(bench, run)
            server.tools.crash = bench.crash
            await run.answer({})
            assert '"accept"' in await run.result(20)
            assert bench.crashes == 1
            journal = await journals.load(bench._connection, Lane("default"), run.id)
            (record,) = (each for each in journal.values() if each.kind is StepKind.TOOL)
            assert record.status is RecordStatus.OK
        # asked once, sent with the answer twice: before the crash, and after it
        assert [each[1] for each in server.tools.inputs] == [None, "state-1", "state-1"]


async def test_a_call_comes_back_with_what_it_asks(tmp_path: Path) -> None:
    """The transport: what is asked, and the opaque state, byte for byte."""
    async with FaultHttp().serve() as server, benched({"faults": web(server)}) as bench:
        prepared = await bench.prepare("faults", "ask_person")
        asked = await bench.caller.call(prepared, {}, timeout_s=5, idempotency_key="k", run_id="r1")
        assert isinstance(asked, InputNeeded)
        assert asked.asks["sure"].message == "sure?"
        responses = responses_to({"sure": {"schema": asked.asks["sure"].schema}}, {})
        inputs = Inputs(1, asked.state, responses)
        await bench.caller.call(
            prepared, {}, timeout_s=5, idempotency_key="k", run_id="r1", inputs=inputs
        )
        assert server.tools.inputs[-1] == ({"sure": {"action": "accept", "content": {}}}, "state-1")
    assert bench.statuses == ["input_required", "ok"]


async def test_a_tool_that_never_stops_asking_is_given_up() -> None:
    """It asks nobody, only again and again: that has a bound."""
    async with FaultHttp().serve() as server, bench_with(faults=web(server)) as bench:
        run = await bench.client.enqueue("ask", {"tool": "again"})
        with pytest.raises(RunFailed, match="asked 10 times"):
            await run.result(30)
        assert len(server.tools.inputs) == 11


async def test_what_a_worker_does_not_offer_is_refused() -> None:
    """A model of the client's is asked for by nobody who was told that there is none."""
    async with FaultHttp().serve() as server, benched({"faults": web(server)}) as bench:
        with pytest.raises(ToolRejected, match="sampling/createMessage, which a worker"):
            await bench.call("faults", "ask_model")


@pytest.mark.parametrize("era", ["2025", "2026"])
async def test_questions_are_welcome_where_they_end_a_call(era: str) -> None:
    """An older server would ask in the middle of a call, and is told that nobody answers there."""
    async with FaultHttp(era=era).serve() as server, benched({"faults": web(server)}) as bench:
        await bench.call("faults", "echo")
        capabilities = server.wire.capabilities
    assert ("elicitation" in capabilities) == (era == "2026")


def test_several_questions_are_answered_by_name() -> None:
    """One object each; what needs none may be left out."""
    asks: dict[str, dict[str, Any]] = {
        "who": {"message": "who?", "schema": {"properties": {"name": {"type": "string"}}}},
        "pay": {"message": "pay there", "url": "https://bank.example/7"},
    }
    assert responses_to(asks, {"who": {"name": "ada"}}) == {
        "who": {"action": "accept", "content": {"name": "ada"}},
        "pay": {"action": "accept"},
    }
    assert responses_to(asks, None) == {"who": {"action": "decline"}, "pay": {"action": "decline"}}
    with pytest.raises(UsageError, match="nobody asked for name"):
        responses_to(asks, {"name": "ada"})
    with pytest.raises(UsageError, match="done at its address"):
        responses_to({"pay": asks["pay"]}, {"card": "1"})


def test_a_choice_is_one_of_those_offered() -> None:
    """Both ways in which a form lists them."""
    for listed in ({"enum": ["a", "b"]}, {"oneOf": [{"const": "a"}, {"const": "b"}]}):
        asks = {"x": {"schema": {"properties": {"c": {"type": "string", **listed}}}}}
        assert responses_to(asks, {"c": "b"})["x"]["content"] == {"c": "b"}
        with pytest.raises(UsageError, match="must be one of a, b"):
            responses_to(asks, {"c": "z"})
