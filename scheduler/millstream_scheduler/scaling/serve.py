"""The life of the metrics API: it listens, follows its files and the cluster, and stops.

It listens from the start on and says what it does not know yet, instead of being away: an API
service that does not answer is in the way of everybody's namespaces.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from millstream.certificates import FILES_S, Certificates
from millstream.errors import ConfigError, KubernetesUnavailable, MillstreamError
from millstream.events import CertificateRead, Emit
from millstream_scheduler.scaling.doors import Doors
from millstream_scheduler.scaling.front_proxy import FrontProxy

FindsProxy = Callable[[], Awaitable[FrontProxy]]

#: How soon a change of the front proxy's authority is noticed, and how soon it is asked for again
#: when the API server did not answer.
PROXY_S = 60.0
RETRY_S = 5.0
_CLOSE_S = 2.0
_BACKLOG = 128


class Trusted:
    """Which front proxy is believed at the moment, and how it is found out."""

    def __init__(
        self,
        find: FindsProxy,
        certificates: Certificates,
        emit: Emit,
    ) -> None:
        self._find = find
        self._certificates = certificates
        self._emit = emit
        self._said: str | None = None
        self.proxy: FrontProxy | None = None

    async def follow(self) -> float:
        """Find out; return in how many seconds to do so again. What was known is kept meanwhile."""
        try:
            found = await self._find()
            self._certificates.trust(found.authority)
        except (ConfigError, KubernetesUnavailable) as error:
            self._tell(error)
            return RETRY_S

        self._said, self.proxy = None, found
        return PROXY_S

    def _tell(self, error: MillstreamError) -> None:
        """Say it once, not at every attempt."""
        if self._said != str(error):
            self._said = str(error)
            self._emit(CertificateRead(error=str(error)))


@asynccontextmanager
async def listening(
    application: web.Application,
    certificates: Certificates,
    trusted: Trusted,
    *,
    host: str,
    port: int,
) -> AsyncIterator[int]:
    """Serve while the block is open; yield the port. Raises `ConfigError` when it cannot be had."""
    runner = web.AppRunner(
        application, access_log=None, logger=_logger(), shutdown_timeout=_CLOSE_S
    )
    await runner.setup()
    try:
        with _listener(host, port) as listener:
            assert runner.server is not None  # it was set up
            doors = Doors(runner.server, certificates.listening)
            async with anyio.create_task_group() as group:
                group.start_soon(doors.admit_forever, listener)
                group.start_soon(certificates.follow_forever, FILES_S)
                group.start_soon(_follow_proxy, trusted)
                yield int(listener.getsockname()[1])
                group.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(_CLOSE_S + 1, shield=True):
            await runner.cleanup()


def _logger() -> logging.Logger:
    """Return what tells of what we get wrong, and not of what strangers send."""
    # One of our own: nothing that is shared by the whole process is changed.
    logger = logging.Logger("millstream.metrics-api", logging.ERROR)  # noqa: LOG001 - see above
    handler = logging.StreamHandler()
    handler.addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
    )
    logger.addHandler(handler)
    return logger


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error}; choose another port with --metrics-api"
            " (0 picks a free one, -1 opens none)"
        ) from error
    listener.setblocking(False)
    return listener


async def _follow_proxy(trusted: Trusted) -> None:
    while True:
        await anyio.sleep(await trusted.follow())
