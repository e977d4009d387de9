"""Both eras are spoken, and which one a server speaks is asked once."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from millstream.errors import ToolNotSent, ToolRejected
from millstream.model.tool import ToolResult
from tests.tools.bench import benched, in_time, stdio, web
from tests.tools.fault_http import FaultHttp


async def test_a_modern_server_is_asked_once_and_carries_every_header() -> None:
    """One discovery, one listing, then a POST a call, for all runs."""
    async with FaultHttp(era="2026").serve() as server, benched({"faults": web(server)}) as bench:
        for run in ("a", "b"):
            await bench.call("faults", "echo", {"text": "x"}, run=run)

    assert server.methods == ["server/discover", "tools/list", "tools/call", "tools/call"]
    sent = server.headers[-1]
    assert sent["mcp-protocol-version"] == "2026-07-28"
    assert (sent["mcp-method"], sent["mcp-name"]) == ("tools/call", "echo")
    assert "mcp-session-id" not in sent


async def test_a_modern_server_that_forgets_the_result_type_is_understood() -> None:
    """The SDK alone refuses such an answer, although nothing is missing that matters."""
    async with FaultHttp().serve() as server, benched({"faults": web(server)}) as bench:
        server.wire.forgetful = True
        assert (await bench.call("faults", "echo", {"text": "x"})).text == "x"


async def test_a_session_belongs_to_one_run_and_ends_with_it() -> None:
    """What one run has told a server is no business of another."""
    async with FaultHttp(era="2025").serve() as server, benched({"faults": web(server)}) as bench:
        for run in ("a", "b", "a"):
            await bench.call("faults", "echo", run=run)
        sessions = dict(server.sessions)
        bench.caller.release_run("a")
        await bench.call("faults", "echo", run="b")

    # The first session also carried the listing, which is shared: it is not of a run.
    assert sorted(sessions.values()) == [2, 4]
    assert sorted(server.ended_sessions) == ["session-1", "session-2"]
    assert server.methods.count("initialize") == 2
    assert server.methods.count("server/discover") == 1


async def test_a_session_may_be_shared_where_the_operator_says_so() -> None:
    """A server whose sessions mean nothing need not have one for each run."""
    async with (
        FaultHttp(era="2025").serve() as server,
        benched({"faults": web(server, sharedSession=True)}) as bench,
    ):
        for run in ("a", "b", "c"):
            await bench.call("faults", "echo", run=run)
        bench.caller.release_run("a")
        await bench.call("faults", "echo", run="b")

    assert list(server.sessions) == ["session-1"]


async def test_a_server_without_sessions_is_shared() -> None:
    """Nothing is kept there that could leak from run to run."""
    async with (
        FaultHttp(era="2025", sessions=False).serve() as server,
        benched({"faults": web(server)}) as bench,
    ):
        for run in ("a", "b"):
            await bench.call("faults", "echo", run=run)

    assert server.methods.count("initialize") == 1


async def test_runs_that_come_at_once_get_sessions_of_their_own() -> None:
    """The first session tells that there are sessions; those who waited for it open theirs."""
    async with (
        FaultHttp(era="2025").serve() as server,
        benched({"faults": web(server)}) as bench,
        in_time(),
        anyio.create_task_group() as group,
    ):

        async def one(run: str) -> None:
            await bench.call("faults", "meet", {"parties": 8}, run=run)

        for number in range(8):
            group.start_soon(one, f"run-{number}")

    assert len(server.sessions) == 8
    assert bench.statuses == ["ok"] * 8


async def test_a_forgotten_session_is_opened_anew_and_the_call_sent_once_more() -> None:
    """A 404 says that the call was not executed; the workflow need not know."""
    async with FaultHttp(era="2025").serve() as server, benched({"faults": web(server)}) as bench:
        await bench.call("faults", "effect", {"name": "e"})
        server.sessions.clear()
        await bench.call("faults", "effect", {"name": "e"})

        assert server.tools.effects["e"] == 2
        assert server.methods.count("initialize") == 2
        assert server.methods.count("server/discover") == 1


async def test_a_server_that_forgets_every_session_is_not_asked_for_ever() -> None:
    """Once more, and then the error is the caller's to see."""
    async with FaultHttp(era="2025").serve() as server, benched({"faults": web(server)}) as bench:
        prepared = await bench.prepare("faults", "echo")
        server.sessions.clear()
        server.forgets = True
        with pytest.raises(ToolNotSent, match="Session not found"):
            await bench.caller.call(prepared, {}, timeout_s=5, idempotency_key="k", run_id="r1")


@pytest.mark.parametrize("era", ["2026", "2025"])
async def test_a_long_list_of_tools_is_read_page_by_page(era: str) -> None:
    """A tool on the last page exists as much as one on the first."""
    async with FaultHttp(era=era).serve() as server, benched({"faults": web(server)}) as bench:
        server.wire.page_size = 3
        assert (await bench.call("faults", "pid")).data > 0


async def test_a_list_of_tools_that_does_not_end_is_given_up() -> None:
    """A cursor that leads to itself would be followed for ever."""
    async with FaultHttp().serve() as server, benched({"faults": web(server)}) as bench:
        server.wire.page_size = 0
        with pytest.raises(ToolNotSent, match="does not end"):
            await bench.prepare("faults", "echo")


async def test_the_catalogue_is_pinned_and_its_change_is_told() -> None:
    """A tool whose description changes behind a run's back may be another tool."""
    async with (
        FaultHttp(era="2025", sse=True, sessions=False).serve() as server,
        benched({"faults": web(server)}) as bench,
    ):
        first = await bench.prepare("faults", "echo")
        server.tools.tools[0] = {**server.tools.tools[0], "description": "now it sends mail"}
        assert (await bench.prepare("faults", "echo")).catalogue == first.catalogue
        server.announce_tools = True
        await bench.call("faults", "echo")
        second = await bench.prepare("faults", "echo")

    assert first.catalogue != second.catalogue
    assert [(c.before, c.after) for c in bench.catalogues] == [(first.catalogue, second.catalogue)]


async def test_headers_that_do_not_match_are_mended_by_a_new_listing() -> None:
    """The server has moved an argument into a header since it was listed."""
    async with FaultHttp().serve() as server, benched({"faults": web(server)}) as bench:
        prepared = await bench.prepare("faults", "echo", {"text": "x"})
        schema = server.tools.tools[0]["inputSchema"]
        marked = {"type": "string", "x-mcp-header": "Words"}
        server.tools.tools[0] = {
            **server.tools.tools[0],
            "inputSchema": {**schema, "properties": {"text": marked}},
        }
        server.requires_header = "mcp-param-words"
        answer = await bench.caller.call(
            prepared, {"text": "x"}, timeout_s=5, idempotency_key="k", run_id="r1"
        )

    assert isinstance(answer, ToolResult)
    assert answer.text == "x"
    assert server.headers[-1]["mcp-param-words"] == "x"


async def test_a_server_that_was_replaced_by_a_newer_one_is_found_out() -> None:
    """The era is remembered, but not against the server's own word."""
    async with FaultHttp(era="2026").serve() as server, benched({"faults": web(server)}) as bench:
        await bench.call("faults", "echo")
        prepared = await bench.prepare("faults", "echo")
        server.outdated = True
        with pytest.raises(ToolRejected, match="-32022"):
            await bench.caller.call(prepared, {}, timeout_s=5, idempotency_key="k", run_id="r1")
        server.outdated = False
        await bench.call("faults", "echo")

    assert server.methods.count("server/discover") == 2


async def test_what_an_older_server_asks_on_our_stream_is_answered() -> None:
    """It may look whether we live; what we do not offer is said and not left open."""
    async with FaultHttp(era="2025", sse=True).serve() as server:
        server.asks = ["ping", "roots/list"]
        async with in_time(), benched({"faults": web(server)}) as bench:
            await bench.prepare("faults", "echo")
            server.replies.clear()
            assert (await bench.call("faults", "echo", {"text": "x"})).text == "x"
            while len(server.replies) < 2:
                await anyio.lowlevel.checkpoint()

    replies = {reply["id"]: reply for reply in server.replies}
    assert replies["ask-0"]["result"] == {}
    assert replies["ask-1"]["error"]["code"] == -32601


@pytest.mark.parametrize("era", ["2026", "2025"])
async def test_stdio_speaks_both_eras(era: str) -> None:
    """A program is asked in the same way as a web server."""
    async with benched({"faults": stdio("--era", era)}) as bench:
        assert (await bench.call("faults", "echo", {"text": "x"})).text == "x"
        assert (await bench.call("faults", "structured")).data == {"value": 7}


async def test_a_cut_stream_of_an_older_server_is_taken_up_where_it_ended() -> None:
    """Such servers may close a stream early and answer on the next one."""
    async with FaultHttp(era="2025", sse=True).serve() as server:
        server.resumable = True
        async with in_time(), benched({"faults": web(server)}) as bench:
            assert (await bench.call("faults", "echo", {"text": "late"})).text == "late"

    assert server.resumed == ["event-1"] * server.resumed.count("event-1")
    assert server.resumed
