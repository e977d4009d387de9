"""Listen for requests: the one place that opens the HTTP port, and bounds what comes through it.

Promise: so many connections at most, each with so much head and so little patience; the oldest idle
ones go by themselves. It does not know what is asked.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from millstream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: A head has to be here after so many seconds, and an idle connection is closed after as many.
#: Longer than what proxies keep idle connections open for, or they would meet closed ones.
IDLE_S = 75.0
#: What is left of a request that was answered before it was read is read for so long.
_LINGER_S = 2.0
#: A connection is counted once it speaks HTTP; until then this bounds it.
_HANDSHAKE_S = 10.0
_BACKLOG = 128
_LINE_BYTES = 8190
_HEADERS = 64


class _Server(web.Server):
    """An HTTP server with a bounded number of connections."""

    def __init__(self, handler: Handler, most: int, **options: Any) -> None:
        super().__init__(handler, **options)
        self._most = most

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > self._most:
            # In a moment: the connection is not yet wholly made.
            asyncio.get_running_loop().call_soon(transport.abort)


@asynccontextmanager
async def listening(
    handler: Handler,
    *,
    host: str,
    port: int,
    connections: int,
    grace_s: float,
    idle_s: float = IDLE_S,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve HTTP for this block, on the port that is yielded; with ``tls`` over TLS.

    On the way out nothing new is accepted, and requests under way get ``grace_s`` seconds.
    """
    server = _Server(
        handler,
        connections,
        access_log=None,
        # What strangers send is no news; what we get wrong is told by the handler.
        logger=_silent(),
        keepalive_timeout=idle_s,
        lingering_time=_LINGER_S,
        max_line_size=_LINE_BYTES,
        max_field_size=_LINE_BYTES,
        max_headers=_HEADERS,
        auto_decompress=False,
    )
    runner = web.ServerRunner(server, shutdown_timeout=grace_s)
    await runner.setup()
    try:
        site = await _listen(server, host, port, tls)
        try:
            yield site.sockets[0].getsockname()[1]
        finally:
            site.close()
    finally:
        await runner.cleanup()


async def _listen(
    server: _Server, host: str, port: int, tls: ssl.SSLContext | None
) -> asyncio.Server:
    # Not by aiohttp's site: it waits a minute for a handshake that does not come.
    handshake_s = None if tls is None else _HANDSHAKE_S
    try:
        return await asyncio.get_running_loop().create_server(
            server, host, port, ssl=tls, backlog=_BACKLOG, ssl_handshake_timeout=handshake_s
        )
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error}; choose another port with --http"
            " (0 picks a free one)"
        ) from error


def _silent() -> logging.Logger:
    # One of our own: nothing that is shared by the whole process is changed.
    logger = logging.Logger("millstream.gateway", logging.CRITICAL + 1)  # noqa: LOG001 - see above
    logger.addHandler(logging.NullHandler())
    return logger
