"""Lists of runs, a page at a time: where a page ended is told so that only we can read it.

A page costs a bounded number of look-ups, and may end at a run that its reader may not see: of
another tenant, or of another workflow than was asked for. What leads on names that run. So it goes
out encrypted and authenticated, for one queue and one tenant, under a key that all gateways share.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from millstream.client import Client
from millstream.client.paging import RunPage
from millstream.errors import UsageError
from millstream.store import cursor_key
from millstream.store.connection import Connection
from millstream_gateway.calls import Call

_NONCE = 12


class Lists:
    """Goes through runs for callers."""

    def __init__(self, client: Client, connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._cipher: AESGCM | None = None

    async def page(self, call: Call, queue: str, *, cursor: str | None, **wanted: Any) -> RunPage:
        """Return a page as `Client.page` does. Raises `UsageError` for a cursor of nobody's."""
        scope = f"{queue}\n{call.principal.acts_for or ''}".encode()
        after = None if cursor is None else await self._opened(cursor, scope)
        found = await self._client.page(queue, cursor=after, **wanted)
        if found.cursor is None:
            return found
        return RunPage(found.runs, await self._closed(found.cursor, scope))

    async def _closed(self, cursor: str, scope: bytes) -> str:
        cipher = self._cipher or await self._found()
        nonce = os.urandom(_NONCE)
        data = nonce + cipher.encrypt(nonce, cursor.encode(), scope)
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    async def _opened(self, cursor: str, scope: bytes) -> str:
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            data = base64.b64decode(padded, altchars=b"-_", validate=True)
            try:
                return _decrypted(self._cipher or await self._found(), data, scope)
            except InvalidTag:
                # Another one made the key anew, after a restore for instance.
                return _decrypted(await self._found(), data, scope)
        except (InvalidTag, binascii.Error, ValueError):
            raise UsageError("the cursor is none that was given out for this list") from None

    async def _found(self) -> AESGCM:
        self._cipher = AESGCM(await cursor_key.read(self._connection))
        return self._cipher


def _decrypted(cipher: AESGCM, data: bytes, scope: bytes) -> str:
    return cipher.decrypt(data[:_NONCE], data[_NONCE:], scope).decode()
