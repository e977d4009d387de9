"""What operators do about sealing: see under which keys everything is, and seal it anew.

Safe to say again, and beside workers at any time: what a worker holds is left as it is, and
counted.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream.client.auditing import Auditor, audited
from millstream.client.queues import Queues
from millstream.errors import UsageError
from millstream.store import resealing, resealing_talks
from millstream.store.connection import Connection
from millstream.store.resealing import Tally
from millstream.store.sealing import Sealer


def _talks(*_: object, **__: object) -> tuple[str, str]:
    return "", "conversations"


def _schedules(*_: object, **__: object) -> tuple[str, str]:
    return "", "schedules"


class Sealing:
    """The sealing of one Redis: `Client.sealing`."""

    def __init__(self, connection: Connection, queues: Queues, auditor: Auditor) -> None:
        self._connection = connection
        self._queues = queues
        self.auditor = auditor

    async def counted(
        self, queue: str = "default", *, told: Callable[[Tally], None] = lambda _: None
    ) -> Tally:
        """Count the values of a queue by the keys that they are sealed under.

        ``told`` hears how far it has come, page by page. Raises `StoreError`: say it again.
        """
        return await self._walk(queue, None, told)

    async def counted_schedules(self) -> Tally:
        """Count the schedules by the keys that they are sealed under."""
        tally = Tally()
        await resealing.walk_schedules(self._connection, tally, None)
        return tally

    async def counted_talks(self) -> Tally:
        """Count what other agents said, and where they want to be told, by the keys."""
        return await self._walk_talks(None)

    @audited("reseal")
    async def renew(
        self, queue: str = "default", *, told: Callable[[Tally], None] = lambda _: None
    ) -> Tally:
        """Seal the values of a queue under the first key of the ring, or open them for good.

        What is so already is passed over, so a walk that was cut off is said again. ``told`` hears
        how far it has come, page by page. Raises `UsageError` without keys, `StoreError`.
        """
        return await self._walk(queue, self._sealer(), told)

    @audited("reseal", _schedules)
    async def renew_schedules(self) -> Tally:
        """Do the same to the schedules."""
        tally = Tally()
        await resealing.walk_schedules(self._connection, tally, self._sealer())
        return tally

    @audited("reseal", _talks)
    async def renew_talks(self) -> Tally:
        """Do the same to what other agents said, and to where they want to be told."""
        return await self._walk_talks(self._sealer())

    async def _walk_talks(self, sealer: Sealer | None) -> Tally:
        tally = Tally()
        async for _ in resealing_talks.walk_talks(self._connection, tally, sealer):
            pass
        return tally

    async def _walk(
        self, queue: str, sealer: Sealer | None, told: Callable[[Tally], None]
    ) -> Tally:
        tally = Tally()
        for lane in await self._queues.lanes(queue):
            async for so_far in resealing.walk(self._connection, lane, tally, sealer):
                told(so_far)
        return tally

    def _sealer(self) -> Sealer:
        sealer = self._connection.sealer
        if sealer is None:
            raise UsageError("there are no keys to seal with; name them: --seal-keys FILE")
        return sealer
