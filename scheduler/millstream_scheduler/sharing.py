"""Share the leader's readings with the schedulers that do not lead.

An autoscaler may ask any replica, so each must know. The leader writes all readings into one key
as they come; the others read it once an interval. Neither does anything when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from millstream.errors import StoreError
from millstream.events import Emit
from millstream.store import samples
from millstream.store.connection import Connection
from millstream.store.leadership import Seat
from millstream_scheduler.outage import Outage
from millstream_scheduler.readings import Readings
from millstream_scheduler.term import Term


class Sharing:
    """Publishes in a term, follows outside of one. Both loops must run."""

    def __init__(
        self,
        connection: Connection,
        seat: Seat,
        token: str,
        readings: Readings,
        *,
        interval_s: float,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._seat = seat
        self._token = token
        self._readings = readings
        self._interval_s = interval_s
        self._mono = mono
        self._publishing = Outage("publish", emit, mono)
        self._following = Outage("follow", emit, mono)

    async def publish_forever(self, term: Term) -> None:
        """Write every reading soon after it was taken: several queues' together."""
        while True:
            await self._readings.changed()
            await anyio.sleep(self._interval_s / 10)
            if term.trusted:
                await self._publish(term)

    async def follow_forever(self, leading: Callable[[], bool]) -> None:
        """Read what the leader published, at every interval in which this process is not it."""
        while True:
            if not leading():
                await self._follow()
            await anyio.sleep(self._interval_s)

    async def _publish(self, term: Term) -> None:
        try:
            await samples.publish(
                self._connection, self._seat, self._token, term.fence, self._readings.samples()
            )
        except StoreError as error:
            self._publishing.failed(error)
        else:
            self._publishing.answered()

    async def _follow(self) -> None:
        asked = self._mono()
        try:
            found = await samples.published(self._connection, self._seat)
        except StoreError as error:
            self._following.failed(error)
            return

        self._following.answered()
        # The answer may have stood in a buffer for as long as this process stood still.
        took_s = self._mono() - asked
        for each in found:
            self._readings.keep(each.reading, each.age_s + took_s)
