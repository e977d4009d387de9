"""One channel, listened to on a connection of its own.

What is published is a hint: whoever hears nothing looks at what is stored, now and then. It does
not know what the messages mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.store.connection import COMMAND_TIMEOUT_S, Connection

if TYPE_CHECKING:
    from millstream.store.ear import Ear


class Subscription:
    """What is published on a channel, from `open` on."""

    def __init__(self, connection: Connection, channel: str) -> None:
        self._connection = connection
        self._channel = channel
        self._ear: Ear | None = None
        #: Where only redis-py knows the way.
        self._pubsub: Any = None

    async def open(self) -> None:
        """Subscribe; returns when nothing that is published from now on can be missed."""
        with self._connection.translated():
            self._ear = await self._connection.new_ear()
            if self._ear is not None:
                await self._ear.subscribe(self._channel, COMMAND_TIMEOUT_S)
                return
            self._pubsub = self._connection.client.pubsub()
            await self._pubsub.subscribe(self._channel)
            await self._pubsub.get_message(timeout=5.0)

    async def next(self, pause_s: float) -> bytes | None:
        """Return what is published next; None when nothing came for ``pause_s``.

        Raises `StoreError`.
        """
        with self._connection.translated():
            if self._ear is not None:
                return await self._ear.next(pause_s)
            found = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=pause_s)
        return None if found is None else found["data"]

    async def aclose(self) -> None:
        """Unsubscribe and close the connection."""
        if self._ear is not None:
            self._ear.close()
        if self._pubsub is not None:
            await self._pubsub.aclose()
