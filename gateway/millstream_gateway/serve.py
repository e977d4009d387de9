"""The life of a gateway process: answer, drain, leave.

Three things live here and each must outlive the next, so each is a block inside the block that
outlives it:

    support      the store is watched and keys are kept fresh until the very end
      listening  requests are answered; on the way out those under way get the grace
        waiting  streams and waiting requests; the first thing that a signal ends

Read the indentation of `Gateway.serve` and you have read the order of the shutdown.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import anyio

from millstream.errors import MillstreamError, StoreError, UnfitStore
from millstream.events import Emit, GatewayDraining, GatewayStarted, StoreFailed, StoreRecovered
from millstream.store.connection import Connection
from millstream.telemetry.health import Health


class Listens(Protocol):
    """Something that has a port, once it listens."""

    port: int | None


Duty = Callable[[], Coroutine[Any, Any, None]]
#: How often the store is asked whether it is there.
_PULSE_S = 1.0


class Gateway:
    """A gateway process, put together. ``serve`` runs it."""

    def __init__(
        self,
        connection: Connection,
        listening: Callable[[], AbstractAsyncContextManager[int]],
        *,
        grpc: Listens | None = None,
        drain: anyio.Event,
        duties: Sequence[Duty],
        busy: Callable[[], int],
        queues: Sequence[str],
        health: Health,
        emit: Emit,
        grace_s: float,
        secure: bool = False,
    ) -> None:
        self._connection = connection
        self._listening = listening
        #: What listens beside it.
        self.grpc = grpc
        #: Whether both speak TLS.
        self.secure = secure
        self._duties = duties
        self._busy = busy
        self._queues = tuple(queues)
        self._health = health
        self._emit = emit
        self._grace_s = grace_s
        #: Set it, and the gateway leaves.
        self.drain = drain
        #: The port, once it listens.
        self.port: int | None = None
        self.started = anyio.Event()

    async def serve(self) -> None:
        """Answer requests until told to drain; then end streams, finish the rest, and return."""
        async with anyio.create_task_group() as support:
            support.start_soon(self._watch_forever)
            for duty in self._duties:
                support.start_soon(duty)
            async with self._listening() as self.port:
                self._emit(GatewayStarted(port=self.port, queues=self._queues))
                self.started.set()
                await self.drain.wait()
                self._health.draining()
                self._emit(GatewayDraining(requests=self._busy(), grace_s=self._grace_s))
            support.cancel_scope.cancel()

    async def _watch_forever(self) -> None:
        """Know whether the store answers: that is what readiness says."""
        met = False
        away_since: float | None = None
        while True:
            self._health.loop_turned()
            self._health.claim_turned()
            try:
                await self._connection.check()
            except (StoreError, UnfitStore) as error:
                if isinstance(error, UnfitStore) and not met:
                    raise  # it can never do; one that was changed under our hands may be mended
                away_since = self._noted_away(error, away_since)
                await self._connection.reset()
            else:
                self._noted_back(away_since)
                met, away_since = True, None
            await anyio.sleep(_PULSE_S)

    def _noted_away(self, error: MillstreamError, since: float | None) -> float:
        self._health.store_failed(str(error))
        if since is None:
            told = f"{type(error).__name__}: {error}"
            self._emit(StoreFailed(during="pulse", error=told))
        return anyio.current_time() if since is None else since

    def _noted_back(self, since: float | None) -> None:
        self._health.store_answered()
        if since is not None:
            self._emit(StoreRecovered(during="pulse", away_s=anyio.current_time() - since))


async def drain_on_signal(gateway: Gateway) -> None:
    """Leave at SIGTERM or SIGINT."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            gateway.drain.set()
