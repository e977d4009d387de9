"""What a Redis is and how it is doing, asked by people: never on the way of a run.

Promise: only reads, and nothing without a bound. It does not judge what it finds, except for
`Connection.check`, which others call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.errors import UsageError
from millstream.store.addresses import StoreKind
from millstream.store.connection import Connection

#: To find the queues every key is looked at; of more keys than this, that is refused.
MOST_KEYS = 5_000_000
_PINGS = 20
#: All keys of a lane but the records, journals and events of its runs; few runs have other keys.
_LANE_KEYS = "millstream:{*:*}:[^rje]*"
_LANE_KEY = re.compile(rb"millstream:\{([^:}]+):\d+\}:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a server says of itself."""

    #: Which of several this is, as host:port; empty where there is one.
    node: str
    #: ``Redis`` or ``Valkey``.
    name: str
    version: str
    policy: str
    used_memory: int
    #: 0: no limit.
    max_memory: int
    #: Keys that this server has thrown away because its memory was full.
    evicted: int
    #: Whether what was acknowledged is on disk after a second at most.
    append_only: bool
    #: Whether the last write of an append-only file or snapshot failed.
    write_failed: bool
    replicas: int
    #: Seconds of a round trip: the middle one, and the slowest of a few.
    latency_s: float
    slowest_s: float
    #: How far this machine's clock is ahead of the server's, in seconds.
    clock_ahead_s: float


async def servers(connection: Connection) -> Sequence[Server]:
    """Ask every server that takes writes: one, or each master of a cluster.

    Raises `StoreError`, or `UnfitStore` when that is not permitted.
    """
    with connection.translated():
        if connection.address.kind is not StoreKind.CLUSTER:
            return [await _server(connection.client, "", {})]

        await connection.client.initialize()
        masters = sorted(connection.client.get_primaries(), key=lambda node: str(node.name))
        return [
            await _server(connection.client, str(node.name), {"target_nodes": node})
            for node in masters
        ]


async def _server(client: Any, node: str, at: Mapping[str, Any]) -> Server:
    info = await client.info(**at)
    trips = sorted([await _ping(client, at) for _ in range(_PINGS)])
    seconds, micros = await client.time(**at)
    clock_ahead_s = time.time() - (int(seconds) + int(micros) / 1e6)
    return Server(
        node=node,
        name="Valkey" if info.get("server_name") == "valkey" else "Redis",
        version=str(info.get("valkey_version") or info.get("redis_version", "?")),
        policy=str(info.get("maxmemory_policy", "noeviction")),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        evicted=int(info.get("evicted_keys", 0)),
        append_only=bool(info.get("aof_enabled")),
        write_failed="err"
        in {info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")},
        replicas=int(info.get("connected_slaves", 0)),
        latency_s=trips[len(trips) // 2],
        slowest_s=trips[-1],
        clock_ahead_s=clock_ahead_s,
    )


async def queues(connection: Connection) -> Sequence[str]:
    """Return the names of all queues that hold something, by looking at every key there is.

    Raises `UsageError` when there are too many keys for that.
    """
    names: set[str] = set()
    with connection.translated():
        keys = int(await connection.client.dbsize())
        if keys > MOST_KEYS:
            raise UsageError(
                f"Redis holds {keys:,} keys, too many to look for queues among them; name the"
                " queues with --queue"
            )
        async for key in connection.client.scan_iter(match=_LANE_KEYS, count=2000):
            found = _LANE_KEY.match(key)
            if found:
                names.add(found[1].decode())

    return sorted(names)


async def _ping(client: Any, at: Mapping[str, Any]) -> float:
    began = time.perf_counter()
    await client.ping(**at)
    return time.perf_counter() - began
