"""Open the agents that are declared, for as long as a worker serves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from millstream.events import Emit
from millstream_worker.agents.asked import Agents, NoAgents


@asynccontextmanager
async def open_agents(path: Path | None, emit: Emit) -> AsyncIterator[Agents]:
    """Open the agents of a file; nothing is connected to before the first call."""
    if path is None:
        yield NoAgents()
        return

    from millstream_worker.agents.caller import AgentCaller  # noqa: PLC0415 - brings HTTP along
    from millstream_worker.agents.declared import load_agents  # noqa: PLC0415 - see above

    async with AgentCaller(load_agents(path), emit=emit, mono=time.monotonic) as caller:
        yield caller
