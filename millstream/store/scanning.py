"""Go through every key of a pattern, on every master where there are several.

What stays is met at least once. Nothing is held open between two pages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from millstream.store.addresses import StoreKind
from millstream.store.connection import Connection


async def key_pages(
    connection: Connection, pattern: str, count: int
) -> AsyncIterator[Sequence[bytes]]:
    """Yield the keys that fit, of about ``count`` at a time. Raises `StoreError`."""
    for node in await _masters(connection):
        cursor, first = 0, True
        while cursor or first:
            first = False
            with connection.translated():
                after, keys = await connection.client.scan(
                    cursor, match=pattern, count=count, **node
                )
            # A cluster names the node along with the cursor.
            cursor = int(next(iter(after.values()), 0) if isinstance(after, dict) else after)
            yield keys


async def _masters(connection: Connection) -> Sequence[dict[str, Any]]:
    if connection.address.kind is not StoreKind.CLUSTER:
        return [{}]
    with connection.translated():
        await connection.client.initialize()
        return [{"target_nodes": each} for each in connection.client.get_primaries()]
