"""Both ends of a connection: fakeredis' socket on one side, redis-py's connection on the other.

No byte is packed or parsed: a request travels as the fields of its commands.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from contextvars import Context
from typing import Any

import redis.asyncio
import redis.exceptions
from fakeredis._clients._async import FakeAsyncRedisConnection
from fakeredis._socket import AsyncFakeSocket

from millstream.store.connection import Connection
from tests.simulation.lua import LUA
from tests.simulation.network import Fate, Link, Network, Request

_BROKEN = object()
_numbers = itertools.count(1)


class ServerSocket(AsyncFakeSocket):
    """The server's end of one connection."""

    def __init__(self, network: Network, link: Link) -> None:
        self.number = next(_numbers)
        super().__init__(network.server, 0, client_class=redis.asyncio.Redis)
        self.network = network
        self.link = link
        #: Replies are not sent any more.
        self._mute = False
        self._replied = 0.0
        self._requested = 0.0
        self._reply: Any = None
        self._blocking_task: asyncio.Task[Any] | None = None
        network.opened(self)

    def __hash__(self) -> int:
        return self.number

    def request(self, request: Request, fate: Fate) -> None:
        """Take a request in, after its way through the network; they stay in their order."""
        network = self.network
        self._requested = max(
            self._requested, network.loop.time() + network.delay(), network.stalled_until
        )
        network.loop.outside(self._requested, self._arrived, request, fate)

    def closed(self) -> None:
        """The other side has closed the connection; what it sent before comes first."""
        at = max(self._requested, self.network.loop.time() + self.network.delay())
        self.network.loop.outside(at, self.network.hang_up, self)

    def execute(self, request: Request) -> None:
        """Execute commands."""
        for fields in request:
            self._process_command(fields)

    def break_wire(self) -> None:
        """Let the process find out that the connection is broken."""
        self.network.hang_up(self)
        super().put_response(_BROKEN)

    def hang_up(self) -> None:
        """Forget the other side: a command that blocks for it ends."""
        if self._blocking_task is not None:
            self._blocking_task.cancel()
        if not self._killed:
            self.kill()

    def _arrived(self, request: Request, fate: Fate) -> None:
        if "hang" in {self.network.away, self.link.cut}:
            self.link.stuck.append(request)
        elif self._killed or not self.network.reachable(self.link):
            pass
        elif fate in {Fate.LOST, Fate.LATE}:
            self.break_wire()
        else:
            self._mute = self._mute or fate is Fate.REPLY_LOST
            self.execute(request)
            if self._mute:
                self.break_wire()

    # -- what fakeredis calls ------------------------------------------------------------------

    def put_response(self, msg: Any) -> None:
        """Send a reply, or a published message, on its way."""
        self._reply = msg
        if self._killed or self._mute:
            return
        loop = self.network.loop
        self._replied = max(self._replied, loop.time() + self.network.delay())
        loop.outside(self._replied, self._deliver, msg)

    def _deliver(self, msg: Any) -> None:
        if not self._killed and self.network.reachable(self.link):
            super().put_response(msg)

    def _process_command(self, fields: list[bytes]) -> None:
        self._reply = None
        super()._process_command(fields)
        self.network.observe(self.link, fields, self._reply)

    def _keyspace_notifications(self, *args: Any) -> None:
        """Nobody listens for them."""

    def _subkey_notifications(self, *args: Any) -> None:
        """Nobody listens for them."""

    def _blocking(self, timeout: Any, func: Any, shape: Any = None) -> Any:
        # fakeredis takes an empty answer for an answer, and does not block.
        return super()._blocking(timeout, lambda first: func(first) or None, shape)

    async def _async_blocking(self, *args: Any, **kwargs: Any) -> None:
        self._blocking_task = asyncio.current_task()
        await super()._async_blocking(*args, **kwargs)

    def eval(self, script: bytes, numkeys: int, *rest: bytes) -> Any:
        """Run a script; its text is remembered."""
        self._server.script_cache[LUA.sha(script)] = script
        return LUA.run(self, script, rest[:numkeys], rest[numkeys:])

    def smembers(self, key: Any) -> list[bytes]:
        """Return the members of a set, in the same order every time."""
        return sorted(key.value)


class Wire(FakeAsyncRedisConnection):
    """The process's end of one connection, as redis-py sees it."""

    def __init__(
        self, *args: Any, network: Network, link: Link, timeout_s: float, **kw: Any
    ) -> None:
        self.number = next(_numbers)
        self._network = network
        self._link = link
        self._timeout_s = timeout_s
        super().__init__(*args, server=network.server, driver_info=None, **kw)

    def __hash__(self) -> int:
        return self.number

    async def _connect(self) -> None:
        network = self._network
        stalled = network.stalled_until > network.loop.time()
        if stalled or "hang" in {network.away, self._link.cut}:
            await asyncio.sleep(min(self._timeout_s, 5.0))
            raise redis.exceptions.TimeoutError("Timeout connecting to server")
        await asyncio.sleep(network.delay())
        if not network.reachable(self._link):
            raise redis.exceptions.ConnectionError("Connection refused")
        self._sock = Context().run(ServerSocket, network, self._link)
        self._reader = self._writer = _OPEN  # type: ignore[assignment]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Skip the greeting: nothing of it matters here."""
        self._parser.on_connect(self)  # type: ignore[no-untyped-call]

    def pack_command(self, *args: Any) -> Any:
        """Return the fields of a command, as a request of its own."""
        encode = self.encoder.encode
        words = args[0].split() if type(args[0]) is str else [args[0]]
        return [[encode(arg) for arg in (*words, *args[1:])]]  # type: ignore[no-untyped-call]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> Any:
        """Return the fields of several commands, as one request."""
        return [self.pack_command(*command)[0] for command in commands]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send a request on its way, if its fate allows."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        request: Request = command
        fate, late_s = self._network.fate(self._link)
        if fate is Fate.REFUSED or self._sock is None:
            await self.disconnect()
            raise redis.exceptions.ConnectionError("Connection reset while writing")
        if fate in {Fate.LATE, Fate.TWICE}:
            at = self._network.loop.time() + late_s
            self._network.execute_later(self._link, request, at)
        self._sock.request(request, fate)  # type: ignore[attr-defined]

    async def _read_response(self, **kwargs: Any) -> Any:
        if self._sock is None:
            raise redis.exceptions.ConnectionError("Connection closed")
        asked: float | None = kwargs.get("timeout")
        try:
            async with asyncio.timeout(self._timeout_s if asked is None else min(asked, 1e9)):
                response = await self._sock.responses.get()
        except TimeoutError:
            if asked is not None:
                return None
            raise redis.exceptions.TimeoutError("Timeout reading from the socket") from None

        if response is _BROKEN:
            await self.disconnect()
            raise redis.exceptions.ConnectionError("Connection closed by server")
        return response

    async def can_read(self, timeout: float | None = 0) -> bool:
        """Return whether something lies unread, such as the news that this is broken."""
        return self._sock is None or not self._sock.responses.empty()

    async def disconnect(self, nowait: bool = False, **kwargs: Any) -> None:  # type: ignore[override]
        """Close; the server learns of it after a while."""
        socket, self._sock = self._sock, None
        self._reader = self._writer = None
        if socket is not None and self._network.reachable(self._link):
            socket.closed()  # type: ignore[attr-defined]


class _Open:
    """Stands where redis-py keeps its streams."""

    def close(self) -> None:
        """Nothing is behind this."""


_OPEN = _Open()


class SimulatedConnection(Connection):
    """`Connection` over a link."""

    def __init__(self, network: Network, link: Link, command_timeout_s: float = 5.0) -> None:
        self._network = network
        self._link = link
        super().__init__("memory://simulated", command_timeout_s=command_timeout_s)

    def _memory_server(self) -> Any:
        return self._network.server

    def _new(self, library: Any, retry: Any, timeout_s: float) -> Any:
        pool = redis.asyncio.ConnectionPool(
            connection_class=Wire,
            network=self._network,
            link=self._link,
            timeout_s=timeout_s,
            protocol=2,
        )
        return redis.asyncio.Redis(connection_pool=pool)
