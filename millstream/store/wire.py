"""One connection for all script calls to a server: they leave at once and are answered in order.

redis-py opens the connection, since it knows of passwords, TLS and sentinels. From there on it
would lend the connection to one call at a time and spend five times what the call itself costs,
so the connection is taken over: any number of calls are under way on it together.

Promises: a call is sent once, or not at all; whoever gives up waiting disturbs nobody else; a
connection on which an answer is overdue, or on which the server says that it no longer is what it
was, is given up, and every call on it fails. It does not know what is sent, and never sends
anything again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import hiredis
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as Overdue

CLOSED = "this connection was closed by its owner"
#: Returns a connection of redis-py that has said all that the server wants to hear first.
Opens = Callable[[], Awaitable[Any]]


class Wire:
    """A connection that is opened when it is needed, and again when it has broken."""

    def __init__(
        self, opens: Opens, timeout_s: float, *, passes: Callable[[Exception], bool]
    ) -> None:
        self._opens = opens
        self._timeout_s = timeout_s
        #: Whether a refusal belongs to a failover: then another connection may lead elsewhere.
        self._passes = passes
        self._line: _Line | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        #: How often opening has failed, and why the last time.
        self._failures = 0
        self._failure: Exception | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its reply. Raises errors of redis-py."""
        del options
        line = self._line
        if line is None or line.closed:
            line = await self._open()
        try:
            return await line.call(args)
        except ResponseError as error:
            if self._passes(error):
                self.drop()
            raise

    async def execute_together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one packet; return their replies, with the error in place of one.

        They are executed one behind the other, though one that blocks holds up the rest.
        """
        line = self._line
        if line is None or line.closed:
            line = await self._open()
        replies = await asyncio.gather(*line.calls(commands), return_exceptions=True)
        if any(isinstance(each, ResponseError) and self._passes(each) for each in replies):
            self.drop()
        return replies

    async def aclose(self) -> None:
        """Close the connection, for good: a call that comes later fails."""
        self._closed = True
        self.drop()

    def drop(self) -> None:
        """Give the connection up; the next call opens another one."""
        if self._line is not None:
            self._line.close(Broken("the connection was given up"))
            self._line = None

    async def _open(self) -> _Line:
        failures = self._failures
        async with self._opening:
            if self._line is not None and not self._line.closed:
                return self._line
            self._check_open()
            if self._failure is not None and self._failures != failures:
                # Who waited for this attempt shares its end: each trying anew, one after the
                # other, the last would wait as many times as long.
                raise self._failure
            try:
                line = _Line.take_over(await self._opens(), self._timeout_s)
            except Exception as error:
                self._failures, self._failure = self._failures + 1, error
                raise
            self._failure = None
            if self._closed:
                # While it was being opened, and nobody would close it any more.
                line.close(Broken(CLOSED))
            self._check_open()
            self._line = line
            return line

    def _check_open(self) -> None:
        if self._closed:
            raise Broken(CLOSED)


class _Line(asyncio.Protocol):
    """One connection, until it breaks."""

    def __init__(self, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        #: Kept, since a stream that nobody refers to any more is closed.
        self._writer = writer
        self._transport = cast("asyncio.Transport", writer.transport)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error
        )
        #: Whoever waits for a reply, in the order of the calls, and until when.
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self.closed = False

    @classmethod
    def take_over(cls, connection: Any, timeout_s: float) -> _Line:
        """Return a line over a connection that redis-py has opened and will not use."""
        # There is no public way to either. What is taken away, redis-py will not close.
        writer, connection._writer, connection._reader = connection._writer, None, None  # noqa: SLF001
        line = cls(writer, timeout_s)
        line._transport.set_protocol(line)
        return line

    def call(self, args: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a command; the future is its reply."""
        return self._send(hiredis.pack_command(args), 1)[0]

    def calls(self, commands: Sequence[tuple[Any, ...]]) -> list[asyncio.Future[Any]]:
        """Send commands in one packet; the futures are their replies."""
        packed = [hiredis.pack_command(args) for args in commands]
        return self._send(b"".join(packed), len(packed))

    def _send(self, packed: bytes, count: int) -> list[asyncio.Future[Any]]:
        until = self._loop.time() + self._timeout_s
        replies: list[asyncio.Future[Any]] = [self._loop.create_future() for _ in range(count)]
        self._waiting.extend((reply, until) for reply in replies)
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look)
        self._transport.write(packed)
        return replies

    def close(self, error: Exception) -> None:
        """End the connection; every call that is under way fails."""
        self.closed = True
        self._transport.abort()
        self._fail(error)

    # -- what the transport says ---------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are whole."""
        self._reader.feed(data)
        try:
            # A reply is never False: that is how the reader says that there is none.
            while (reply := self._reader.gets()) is not False:
                self._answer(reply)
        except (InvalidResponse, IndexError) as error:
            self.close(Broken(f"what came is no reply: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way: whether it was executed is not known."""
        self.closed = True
        self._fail(Broken(f"the connection was closed: {exc or 'by the server'}"))

    # -- below ---------------------------------------------------------------------------------

    def _answer(self, reply: Any) -> None:
        waiting, _ = self._waiting.popleft()
        if waiting.done():
            return  # it was cancelled, and nobody listens
        if isinstance(reply, Exception):
            waiting.set_exception(reply)
        else:
            waiting.set_result(reply)

    def _look(self) -> None:
        """Give the connection up when the oldest call has waited too long; else look again."""
        self._watch = None
        if not self._waiting:
            return
        left_s = self._waiting[0][1] - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
        else:
            self.close(Overdue(f"no answer within {self._timeout_s:g} s"))

    def _fail(self, error: Exception) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, deque()
        for reply, _ in waiting:
            if not reply.done():
                reply.set_exception(error)
