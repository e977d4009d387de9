"""Have commands wait for a connection while all are in use, instead of failing at once.

A thousand streams that hear of something in the same moment would look as if Redis were away.
"""

from __future__ import annotations

from typing import Any

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
