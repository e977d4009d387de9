"""Tool calls in runs: intents, keys, policies and pins, with a worker that dies between them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from millstream import Context, RunFailed, Workflows
from millstream.events import Event, StepEnded, ToolCatalogueChanged
from millstream.model.tool import Effect, OnUnknown, ToolInfo, ToolResult
from millstream.testing import Harness

pytestmark = pytest.mark.anyio

app = Workflows()


@app.workflow()
async def pay(ctx: Context) -> Any:
    first = await ctx.tool("bank", "pay", {"amount": 5})
    second = await ctx.tool("bank", "pay", {"amount": 6})
    return [first.data, second.data]


class Bank:
    """Tools whose effect can be declared, whose calls are counted, and that can kill the worker."""

    def __init__(self, effect: Effect, on_unknown: OnUnknown = OnUnknown.FAIL) -> None:
        self.effect = effect
        self.on_unknown = on_unknown
        self.needs_intent = True
        self.room = None
        self.catalogue = "a"
        self.keys: list[str] = []
        self.die: Any = None

    async def prepare(self, server: str, tool: str, arguments: Any, *, run_id: str) -> Bank:
        return self

    async def call(
        self, prepared: Any, arguments: Any, *, idempotency_key: str, **_: Any
    ) -> ToolResult:
        self.keys.append(idempotency_key)
        if self.die:
            die, self.die = self.die, None
            await die()
        return ToolResult(data=arguments["amount"])

    async def offered(self, server: str, *, run_id: str) -> tuple[list[ToolInfo], str]:
        return [], self.catalogue

    def release_run(self, run_id: str) -> None:
        pass


async def _paid_with_a_death(bank: Bank) -> tuple[Any, list[Event]]:
    async with Harness(app, tools=bank) as bench:

        async def die() -> None:
            bench.crash()
            await anyio.sleep_forever()

        bank.die = die
        try:
            return await bench.run("pay"), bench.events
        except RunFailed as failed:
            return failed, bench.events


async def test_a_keyed_call_that_may_have_run_is_sent_again_under_its_key() -> None:
    bank = Bank(Effect.KEYED)
    result, _ = await _paid_with_a_death(bank)
    assert result == [5, 6]
    assert len(bank.keys) == 3
    assert bank.keys[0] == bank.keys[1] != bank.keys[2]


async def test_an_unsafe_call_that_may_have_run_is_not_sent_again() -> None:
    bank = Bank(Effect.UNSAFE)
    result, _ = await _paid_with_a_death(bank)
    assert isinstance(result, RunFailed)
    assert result.cause == "OutcomeUnknown"
    assert len(bank.keys) == 1


async def test_the_policy_may_have_an_unsafe_call_sent_again() -> None:
    bank = Bank(Effect.UNSAFE, OnUnknown.RETRY)
    result, _ = await _paid_with_a_death(bank)
    assert result == [5, 6]
    assert len(bank.keys) == 3


async def test_a_catalogue_that_changes_under_a_run_is_reported() -> None:
    class Shifty(Bank):
        async def call(self, prepared: Any, arguments: Any, **options: Any) -> ToolResult:
            self.catalogue = "b"
            return await super().call(prepared, arguments, **options)

    bank = Shifty(Effect.KEYED)
    async with Harness(app, tools=bank) as bench:
        assert await bench.run("pay") == [5, 6]
        changed = [x for x in bench.events if isinstance(x, ToolCatalogueChanged)]
    assert [(x.before, x.after) for x in changed] == [("a", "b")]


@pytest.mark.mcp
async def test_a_real_server_is_called_once_a_step_whatever_dies(tmp_path: Path) -> None:
    """The public time server, over stdio, and a worker that dies after its first answer."""
    from millstream_worker.tools.caller import ToolCaller
    from millstream_worker.tools.servers import load_servers

    clock = Workflows()

    @clock.workflow()
    async def ask(ctx: Context) -> list[str]:
        zones = ["UTC", "Europe/Berlin", "Asia/Tokyo"]
        answers = [await ctx.tool("time", "get_current_time", {"timezone": zone}) for zone in zones]
        return [answer.data["timezone"] for answer in answers]

    file = tmp_path / "mcp.json"
    command = str(Path(sys.executable).parent / "mcp-server-time")
    servers = {"time": {"command": command, "args": ["--local-timezone", "UTC"]}}
    file.write_text(json.dumps({"mcpServers": servers}))
    async with (
        ToolCaller(load_servers(file), emit=lambda _: None) as real,
        Harness(clock, tools=real) as bench,
    ):
        bench.crash_after(1)
        assert await bench.run("ask", timeout=30) == ["UTC", "Europe/Berlin", "Asia/Tokyo"]
        ended = [x.key for x in bench.events if isinstance(x, StepEnded)]
    assert bench.crashes == 1
    assert len(ended) == len(set(ended)) == 3
