"""API keys as the gateway knows them: looked up in the store, and remembered for a moment.

A key that was revoked opens nothing after five seconds at most, in any gateway. However many
requests show a key at once, it is looked up once.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Callable

from millstream.store import api_keys
from millstream.store.api_keys import ApiKey
from millstream.store.connection import Connection
from millstream_gateway.auth.principals import Principal, grants_of
from millstream_gateway.refusals import Unauthenticated

#: How long what was looked up is believed.
BELIEVED_S = 5.0
_MOST = 10_000


class Keyring:
    """Turns the text of a key into a principal."""

    def __init__(
        self, connection: Connection, *, mono: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._mono = mono
        self._wall = wall
        self._known: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[ApiKey | None]] = {}

    async def principal(self, text: str) -> Principal:
        """Return who a key is of. Raises `Unauthenticated` or `StoreError`."""
        parts = api_keys.taken_apart(text)
        if parts is None:
            raise _refused()
        key = await self._looked_up(parts[0])
        # Whether there is such a key, and whether it still opens anything, is told to nobody who
        # has not its secret.
        if not api_keys.fits(key, parts[1]) or key is None:
            raise _refused()
        if not key.valid(self._wall()):
            raise Unauthenticated("the key has expired or was revoked", error="invalid_token")
        return _principal(key.id, key.tenant, key.roles)

    async def holds(self, key_id: str) -> bool:
        """Whether a key still opens anything. Raises `StoreError`."""
        key = await self._looked_up(key_id)
        return key is not None and key.valid(self._wall())

    async def any_valid(self) -> bool:
        """Whether anybody has a key. Raises `StoreError`."""
        now = self._wall()
        return any(key.valid(now) for key in await api_keys.every(self._connection))

    async def _looked_up(self, key_id: str) -> ApiKey | None:
        until, key = self._known.get(key_id, (0.0, None))
        if self._mono() >= until:
            return await self._asked(key_id)
        self._known.move_to_end(key_id)
        return key

    async def _asked(self, key_id: str) -> ApiKey | None:
        asking = self._asking.get(key_id)
        if asking is None:
            asking = self._asking[key_id] = asyncio.ensure_future(self._find(key_id))
            asking.add_done_callback(functools.partial(self._found, key_id))
        # Whoever hangs up takes the answer from nobody else.
        return await asyncio.shield(asking)

    async def _find(self, key_id: str) -> ApiKey | None:
        # Believed from when it was asked: what changed meanwhile may not be in it.
        until = self._mono() + BELIEVED_S
        key = await api_keys.find(self._connection, key_id)
        self._known[key_id] = (until, key)
        self._known.move_to_end(key_id)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return key

    def _found(self, key_id: str, asked: asyncio.Task[ApiKey | None]) -> None:
        del self._asking[key_id]
        if not asked.cancelled():
            # All who waited may have hung up: then its failure is no news.
            asked.exception()


@functools.lru_cache(maxsize=1000)
def _principal(key_id: str, tenant: str | None, roles: tuple[str, ...]) -> Principal:
    return Principal(name=f"key:{key_id}", tenant=tenant, grants=grants_of(roles))


def _refused() -> Unauthenticated:
    return Unauthenticated("the key is not known", error="invalid_token")
