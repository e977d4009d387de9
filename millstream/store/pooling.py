"""Connections of redis-py's clients: waited for while all are in use, and closed for good.

A thousand streams that hear of something in the same moment would look as if Redis were away, if
those that find no connection failed at once.
"""

from __future__ import annotations

import contextlib
from typing import Any

import redis
import redis.asyncio

#: Connections of one client that commands share. More at once wait for one another.
_MOST = 100
_PATIENCE_S = 5.0


def queueing(client: Any) -> Any:
    """Return the client with a pool that waits. It has sent nothing yet."""
    pool = client.connection_pool
    client.connection_pool = redis.asyncio.BlockingConnectionPool(
        max_connections=_MOST,
        timeout=_PATIENCE_S,
        connection_class=pool.connection_class,
        **pool.connection_kwargs,
    )
    return client


async def close(client: Any) -> None:
    """Close a client with all its connections, whatever stands in the way."""
    with contextlib.suppress(redis.RedisError, OSError):
        await client.aclose() if hasattr(client, "aclose") else client.close()
    manager = getattr(client, "nodes_manager", None)
    if manager is not None:
        # After an error the client of a cluster takes itself for closed, and closes nothing.
        for nodes in ("nodes_cache", "startup_nodes"):
            with contextlib.suppress(redis.RedisError, OSError):
                await manager.aclose(nodes)
