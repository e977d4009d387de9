"""A scheduler inside another program: for tests, which say when it looks."""

from __future__ import annotations

from random import Random

import anyio

from millstream.client.queues import Queues
from millstream.events import Emit
from millstream.store.connection import Connection
from millstream_scheduler.term import Term
from millstream_scheduler.ticker import Ticker

__all__ = ["fire_due"]

_RETENTION_S = 24 * 3600.0
_PATIENCE_S = 5.0


async def fire_due(connection: Connection, emit: Emit) -> None:
    """Fire the schedules that are due, as a leader would. Raises `StoreError`."""
    ticker = Ticker(
        connection,
        Queues(connection, "embedded", _PATIENCE_S),
        Term(1, anyio.current_time),
        retention_s=_RETENTION_S,
        random=Random(),  # noqa: S311 - every id is chosen by the tick
        emit=emit,
        mono=anyio.current_time,
    )
    await ticker.fire_due()
