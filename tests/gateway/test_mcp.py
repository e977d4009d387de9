"""The workflows as MCP tools, called by the official client as any host calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client as McpClient
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client

from millstream.store import catalogues
from millstream_gateway.mcp.tools import KEY
from millstream_worker.described import describe
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, app


@asynccontextmanager
async def host(gateway: Served, token: str = "", mode: str = "auto") -> AsyncIterator[McpClient]:
    """A host that has connected."""
    headers = {"Authorization": f"Bearer {token or gateway.token}"}
    async with httpx2.AsyncClient(headers=headers) as http:
        transport = streamable_http_client(f"{gateway.url}/mcp", http_client=http)
        async with McpClient(transport, mode=mode) as client:
            yield client


@pytest.fixture
async def described(working: Served) -> Served:
    """A gateway whose worker has said what it serves."""
    data = catalogues.note(describe(app))
    for queue in ("default", "other"):
        await catalogues.publish(working.connection, queue, data, 60)
    return working


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_host_of_each_era_lists_and_calls(described: Served, mode: str) -> None:
    """A workflow's arguments are the tool's, and a short run answers at once."""
    async with host(described, mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        result = await client.call_tool("add", {"a": 2, "b": 5})

    assert {"add", "fails", "other__add", "run_status", "run_cancel"} <= set(tools)
    assert tools["add"].description == "Add two numbers."
    assert tools["add"].input_schema["required"] == ["a"]
    assert tools["add"].input_schema["properties"]["b"] == {"type": "integer"}
    assert not result.is_error
    told = data(result)
    assert (told["state"], told["result"]) == ("completed", 7)


async def test_a_long_run_is_followed_with_the_tools_for_runs(
    described: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer names the run; another host, and another gateway, could go on with it."""
    monkeypatch.setattr("millstream_gateway.mcp.tools.WAIT_S", 0.05)
    async with host(described) as client:
        first = data(await client.call_tool("waits", {}))
    async with host(described) as client:
        run = {"run": first["run"]}
        assert first["state"] != "completed"
        status = data(await client.call_tool("run_status", run))
        assert status["workflow"] == "waits"
        assert data(await client.call_tool("run_cancel", run))["state"] in {"cancelled", "running"}
        end = await client.call_tool("run_result", {**run, "wait": 10})
        assert (end.is_error, data(end)["state"]) == (True, "cancelled")
        events = data(await client.call_tool("run_events", run))["events"]
        assert [event["name"] for event in events] == ["waiting"]


async def test_a_failed_run_and_a_wrong_call_are_told_to_the_model(described: Served) -> None:
    """As the tool's answer, which a model reads; an unknown tool is an error of the protocol."""
    async with host(described) as client:
        failed = await client.call_tool("fails", {})
        wrong = await client.call_tool("run_status", {"run": "nobody"})
        with pytest.raises(MCPError):
            await client.call_tool("nothing", {})

    assert (failed.is_error, data(failed)["error"]) == (True, "ValueError: the tide is out")
    assert wrong.is_error
    assert "no run 'nobody'" in data(wrong)["error"]


async def test_the_same_key_is_the_same_run(described: Served) -> None:
    """A host that lost the answer calls again, and nothing runs twice."""
    once: Any = {KEY: "once"}
    async with host(described) as client:
        found = {data(await client.call_tool("add", {"a": 1}, meta=once))["run"] for _ in range(2)}

    assert len(found) == 1


async def test_a_host_sees_and_does_what_its_role_allows(
    described: Served, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools that it may not use are not offered, and are refused when they are called."""
    monkeypatch.setattr("millstream_gateway.mcp.tools.WAIT_S", 0.05)  # nobody serves the other
    async with host(described, issuer.token("viewer")) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        refused = await client.call_tool("add", {"a": 1})
        stopped = await client.call_tool("run_cancel", {"run": "r1"})
    assert names == {"run_status", "run_result", "run_events"}
    assert refused.is_error
    assert stopped.is_error

    async with host(described, issuer.token("submitter:other", tenant="acme")) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        run = data(await client.call_tool("other__add", {"a": 1}))["run"]
    assert "other__add" in names
    assert "add" not in names
    assert (await described.client.run(run, "other").status()).tenant == "acme"


async def test_nobody_speaks_mcp_without_a_name(described: Served) -> None:
    """And nothing else than messages of MCP is answered."""
    status, _ = await described.ask("POST", "/mcp", token="", json={})
    assert status == 401
    assert (await described.ask("GET", "/mcp"))[0] == 405
    bodies: list[Any] = [[], {}, {"jsonrpc": "2.0"}, "x"]
    for body in bodies:
        assert (await described.ask("POST", "/mcp", json=body))[0] in {400, 406, 202}


def data(result: Any) -> dict[str, Any]:
    """What a tool answered."""
    return dict(result.structured_content)
