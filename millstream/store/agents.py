"""What the processes of a lane say of themselves.

For people, and for telling whether anybody knows a workflow. Never used to decide who may write.
"""

from __future__ import annotations

import msgspec

from millstream.store.connection import Connection
from millstream.store.keys import Lane


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A process that serves a lane."""

    token: str
    host: str
    pid: int
    concurrency: int
    started: float
    #: ``name@version`` of every workflow it has.
    workflows: tuple[str, ...]
    release: str


async def register(connection: Connection, lane: Lane, agent: Agent) -> None:
    """Say what a process is. It is forgotten with its lease."""
    with connection.translated():
        await connection.client.hset(lane.agents, agent.token, msgspec.json.encode(agent))


async def living(connection: Connection, lane: Lane) -> list[Agent]:
    """Return the processes whose lease holds."""
    with connection.translated():
        seconds, micros = await connection.client.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        tokens = await connection.client.zrangebyscore(lane.leases, now_ms, "+inf")
        rows = await connection.client.hmget(lane.agents, tokens) if tokens else []

    return [msgspec.json.decode(row, type=Agent) for row in rows if row]
