"""Everything a worker holds of one server: its gate, breaker, sessions and catalogue.

Promise: whoever waits for the server waits in the order of coming and inside one deadline; a
server that is down costs its callers a moment, not their time; sessions with a state belong to
one run, and end with it. It makes one attempt and judges nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp import ClientSession
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
)
from pydantic import TypeAdapter, ValidationError

from millstream.events import CircuitMoved, Emit, ToolCatalogueChanged
from millstream_worker.tools.breaker import Breaker, Circuit, Pass
from millstream_worker.tools.catalogue import MOST_PAGES, MOST_TOOLS, Catalogue
from millstream_worker.tools.credentials import Redactor
from millstream_worker.tools.faults import (
    CircuitOpen,
    Fault,
    Malformed,
    RpcError,
    SessionGone,
    Unsent,
)
from millstream_worker.tools.judge import before_sending, counts
from millstream_worker.tools.pipes import open_pipes
from millstream_worker.tools.policy import HEADER_MISMATCH, UNSUPPORTED_VERSION
from millstream_worker.tools.servers import ServerSpec, Stdio
from millstream_worker.tools.sessions import Era, Line, Session
from millstream_worker.tools.web import open_web

#: A server that says nothing about how long its list of tools holds, or says zero, means "I do
#: not know". Asking before every call would double its cost, and a change is reported otherwise.
_FRESH_S = (60.0, 3600.0)
_FRESH_DEFAULT_S = 300.0

#: Programs that are fetched before they start need their time.
_CONNECT_S = 60.0

#: Pause before a program that ended is started again: none, then doubling.
_RESTART_S = 0.5
_LONGEST_RESTART_S = 30.0

Answer = CallToolResult | InputRequiredResult
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)


class Peer:
    """One server, as its worker knows it."""

    def __init__(
        self,
        spec: ServerSpec,
        *,
        owners: TaskGroup,
        worker_gate: anyio.CapacityLimiter,
        emit: Emit,
        now: Callable[[], float],
    ) -> None:
        self.spec = spec
        self.redactor = Redactor(spec.transport.sealed)
        self._owners = owners
        self._worker_gate = worker_gate
        self._gate = anyio.CapacityLimiter(spec.max_connections)
        self._emit = emit
        self._now = now
        self._breaker = Breaker(now=now)
        self._sessions: dict[str | None, Session] = {}
        self._era: Era | None = None
        #: Found out with the first session: whether each run needs one of its own.
        self._stateful = False
        self._losses = 0
        self._not_before = 0.0
        self._catalogue: Catalogue | None = None
        self._fresh_until = 0.0
        self._listing = anyio.Lock()

    # -- what callers ask for ------------------------------------------------------------------

    async def catalogue(self, run_id: str, deadline: float) -> Catalogue:
        """Return the tools of the server, asked for not too long ago."""
        if self._catalogue is not None and self._now() < self._fresh_until:
            return self._catalogue

        async with _until(deadline, "the list of its tools was not there in time"):
            async with self._listing:
                if self._catalogue is None or self._now() >= self._fresh_until:
                    async with self._circuit() as _:
                        await self._list(run_id, deadline)
        assert self._catalogue is not None
        return self._catalogue
