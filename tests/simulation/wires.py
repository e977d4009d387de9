"""The process's end of its connections: redis-py's own clients and pools over a simulated wire."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import redis.asyncio
import redis.exceptions
from fakeredis._clients._async import FakeAsyncRedisConnection

from millstream.store.connection import Connection
from tests.simulation.network import BROKEN, Fate, Link, Network, Request, ServerSocket, numbers


class Wire(FakeAsyncRedisConnection):
    """The process's end of one connection, as redis-py sees it."""

    def __init__(
        self, *args: Any, network: Network, link: Link, timeout_s: float, **kw: Any
    ) -> None:
        self.number = next(numbers)
        self._network = network
        self._link = link
        self._timeout_s = timeout_s
        super().__init__(*args, server=network.server, driver_info=None, **kw)

    def __hash__(self) -> int:
        return self.number

    async def _connect(self) -> None:
        style = self._network.away or self._link.cut
        if style == "hang" or self._network.stalled_until > self._network.loop.time():
            await asyncio.sleep(min(self._timeout_s, 5.0))
            raise redis.exceptions.TimeoutError("Timeout connecting to server")
        await asyncio.sleep(self._network.delay())
        if self._network.away or self._link.cut:
            raise redis.exceptions.ConnectionError("Connection refused")
        self._sock = Context().run(ServerSocket, self._network, self._link, self)
        self._link.wires.add(self)
        self._reader = self._writer = _OPEN  # type: ignore[assignment]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Skip the greeting: nothing of it matters here."""
        self._parser.on_connect(self)  # type: ignore[no-untyped-call]

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        """Send one command, as its words."""
        await self._send([*args[0].encode().split(), *map(_encoded, args[1:])])

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send several commands that were packed together."""
        await self._send(command if isinstance(command, bytes) else b"".join(command))

    async def _send(self, request: Request) -> None:
        """Send a request on its way, if its fate allows."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        fate, late_s = self._network.fate(self._link, request)
        if fate is Fate.REFUSED or self._sock is None:
            await self.disconnect()
            raise redis.exceptions.ConnectionError("Connection reset while writing")
        if fate in {Fate.LATE, Fate.TWICE}:
            self._network.execute_later(self._link, request, self._network.loop.time() + late_s)
        if fate is Fate.HELD_UP:
            self._network.hold_up(self._link, request)
            return
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

        if response is BROKEN:
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
        self._link.wires.discard(self)
        if socket is not None and not (self._link.cut or self._network.away):
            loop = self._network.loop
            loop.outside(loop.time() + self._network.delay(), self._network.hang_up, socket)


def _encoded(value: str | bytes | float) -> bytes:
    return value if type(value) is bytes else str(value).encode()


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
