"""Let clients in: so many at a time, each after a handshake that takes a bounded time.

Whoever reaches the port may open connections, and each costs fifty kilobytes before a word was
said. Promise: they are bounded, and where there are too many, the oldest of the machine that has
most gives way; those over which a certificate was shown are the last. It does not know what is
asked, nor whom to believe.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import anyio
import anyio.lowlevel
from aiohttp import web

from millstream.model.crowd import gives_way

#: API servers keep a few connections each, and probes none.
INSIDE = 256
#: Handshakes at a time, and how long one may take: across a continent it takes half a second.
SHAKING = 64
HANDSHAKE_S = 5.0
#: How long to wait when nobody can be let in, as without file descriptors.
_PAUSE_S = 0.1


class Doors:
    """Hands connections to a server. ``admit_forever`` must run."""

    def __init__(self, server: web.Server, context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        #: Who is on the way in, the oldest first, and from where.
        self._shaking: dict[anyio.CancelScope, str] = {}

    async def admit_forever(self, listener: socket.socket) -> None:
        """Accept whoever comes to a socket that listens."""
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as group:
            while True:
                try:
                    connection, address = await loop.sock_accept(listener)
                except OSError:
                    await anyio.sleep(_PAUSE_S)
                    continue
                if len(self._shaking) >= SHAKING:
                    old = gives_way(self._shaking)
                    del self._shaking[old]
                    old.cancel()
                scope = anyio.CancelScope()
                self._shaking[scope] = address[0]
                group.start_soon(self._let_in, scope, connection)
                # Where many come at once, accepting does not wait.
                await anyio.lowlevel.checkpoint()

    async def _let_in(self, scope: anyio.CancelScope, connection: socket.socket) -> None:
        try:
            with scope:
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._server,
                    connection,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_S,
                )
        except OSError:
            pass  # it went away, was too slow, or shows what nobody believes
        finally:
            self._shaking.pop(scope, None)
            if scope.cancel_called:
                connection.close()
        self._make_room()

    def _make_room(self) -> None:
        inside = {each: each.transport for each in self._server.connections if each.transport}
        if len(inside) <= INSIDE:
            return
        strangers = {x: t for x, t in inside.items() if not t.get_extra_info("peercert")}
        peers = {
            each: str((transport.get_extra_info("peername") or ("",))[0])
            for each, transport in (strangers or inside).items()
        }
        gives_way(peers).force_close()
