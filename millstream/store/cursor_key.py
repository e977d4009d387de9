"""The key under which gateways give out marks of where a list goes on.

All gateways of one Redis share it, so that any of them goes on where another one left off. It hides
those marks from callers, not from whoever reads Redis. It is made when it is first needed, and no
backup holds it: after a restore a list is begun anew.
"""

from __future__ import annotations

import secrets

from millstream.store.connection import Connection

_KEY = "millstream:{gateway}:cursors"
_BYTES = 32


async def read(connection: Connection) -> bytes:
    """Return the key, the same for all. Raises `StoreError`."""
    with connection.translated():
        found: bytes | None = await connection.client.get(_KEY)
        if found is None:
            # Of two that make one at the same time the first one stands, for both.
            await connection.client.set(_KEY, secrets.token_bytes(_BYTES), nx=True)
            found = await connection.client.get(_KEY)
    return found or b""
