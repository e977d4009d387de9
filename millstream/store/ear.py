"""One channel, heard on a connection that was taken over from redis-py, as `wire` does it.

Between a published message and whoever waits for it stand then a parser and a future. redis-py
would look whether the connection is healthy, arm a time-out and disarm it, for every message.

Promises: nothing that is published after `subscribe` has returned is missed while the connection
stands; when it breaks, whoever listens is told. It does not know what is said.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import hiredis
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as Overdue

_SUBSCRIBED = b"subscribe"


def _packed(*command: Any) -> bytes:
    return hiredis.pack_command(command)  # type: ignore[no-any-return]


class Ear(asyncio.Protocol):
    """The connection, until it breaks or is closed."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        #: Kept, since a stream that nobody refers to any more is closed.
        self._writer = writer
        self._transport = cast("asyncio.Transport", writer.transport)
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error
        )
        self._heard: deque[Any] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._error: Exception | None = None

    @classmethod
    def take_over(cls, connection: Any) -> Ear:
        """Return an ear on a connection that redis-py has opened and will not use."""
        # There is no public way to either. What is taken away, redis-py will not close.
        writer, connection._writer, connection._reader = connection._writer, None, None  # noqa: SLF001
        ear = cls(writer)
        ear._transport.set_protocol(ear)
        return ear

    async def subscribe(self, channel: str, patience_s: float) -> None:
        """Return when whatever is published from now on is heard. Raises errors of redis-py."""
        self._transport.write(_packed("SUBSCRIBE", channel))
        answer = await self._next(patience_s)
        if answer is None:
            raise Overdue(f"no answer within {patience_s:g} s")
        if isinstance(answer, Exception):
            raise answer
        if answer[0] != _SUBSCRIBED:
            raise InvalidResponse(f"{answer[0]!r} where a subscription was asked for")

    async def next(self, pause_s: float) -> bytes | None:
        """Return what is published next; None when nothing came for ``pause_s``.

        Raises errors of redis-py.
        """
        message = await self._next(pause_s)
        if isinstance(message, Exception):
            raise message
        return None if message is None else cast("bytes", message[2])

    def close(self) -> None:
        """End the connection."""
        self._end(Broken("this connection was closed by its owner"))
        self._transport.abort()

    # -- what the transport says ---------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Keep the messages that are whole, and wake who waits for one."""
        self._reader.feed(data)
        try:
            # A message is never False: that is how the reader says that there is none.
            while (message := self._reader.gets()) is not False:
                self._heard.append(message)
        except (InvalidResponse, IndexError) as error:
            self._end(Broken(f"what came is no message: {error}"))
            self._transport.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever listens."""
        self._end(Broken(f"the connection was closed: {exc or 'by the server'}"))

    # -- below ---------------------------------------------------------------------------------

    async def _next(self, pause_s: float) -> Any:
        if not self._heard and self._error is None:
            self._waiting = self._loop.create_future()
            timer = self._loop.call_later(pause_s, self._wake)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        if self._heard:
            return self._heard.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _end(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
