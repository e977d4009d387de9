"""Look after a lane, also when no worker does.

    sweep     promote what is due, requeue what lost workers held, forget what has expired: the
              same sweep as every worker's, and one more pair of hands
    clean     walk along the streams and the records, a page at a time, and mend what was lost:
              entries whose run is gone, runs that have not ended and stand nowhere

Both are done by scripts that decide and act at once, so any number of leaders do no harm; and both
only ever read a bounded piece.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, LaneCleaned, LaneSwept
from millstream.store import deliveries, leases, losses
from millstream.store.connection import Connection
from millstream.store.keys import LEVELS, Lane
from millstream_scheduler.outage import Outage
from millstream_scheduler.term import Term

#: Entries of a stream, and keys, that are looked at in one call.
_ENTRIES = 500
_KEYS = 300


class Janitor:
    """The duty of looking after one lane during one term. Both loops must run."""

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        term: Term,
        token: str,
        *,
        lease_s: float,
        retention_s: float,
        poison: int,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._term = term
        self._token = token
        self._lease_s = lease_s
        self._retention_s = retention_s
        self._poison = poison
        self._emit = emit
        self._sweeping = Outage("sweep", emit, mono)
        self._cleaning = Outage("clean", emit, mono)
        self._sweep_s = min(1.0, lease_s / 10)
        self._clean_s = min(1.0, lease_s / 3)
        self._grouped = False
        #: Where the walks have got to.
        self._after = dict.fromkeys(LEVELS, losses.BEGINNING)
        self._cursor = 0

    # -- sweep ---------------------------------------------------------------------------------

    async def sweep_forever(self) -> None:
        """Sweep a tenth of a lease apart, at most every second, sooner when something is due."""
        while True:
            pause_s = self._sweep_s
            if self._term.trusted:
                try:
                    pause_s = await self._sweep()
                except StoreError as error:
                    # The streams may be gone with the rest: a sweep needs them.
                    self._grouped = False
                    self._sweeping.failed(error)
                else:
                    self._sweeping.answered()
            await anyio.sleep(pause_s)

    async def _sweep(self) -> float:
        """Sweep once; return how long to wait before the next time."""
        if not self._grouped:
            await deliveries.ensure_groups(self._connection, self._lane)
            self._grouped = True
        found = await leases.sweep(
            self._connection,
            self._lane,
            self._token,
            interval_s=self._sweep_s,
            lease_s=self._lease_s,
            retention_s=self._retention_s,
            poison=self._poison,
        )
        if found.promoted or found.reclaimed or found.poisoned:
            self._emit(
                LaneSwept(
                    lane=str(self._lane),
                    promoted=found.promoted,
                    reclaimed=found.reclaimed,
                    poisoned=found.poisoned,
                )
            )
        if found.next_due is None:
            return self._sweep_s

        return min(self._sweep_s, max(0.005, found.next_due - found.now))

    # -- clean ---------------------------------------------------------------------------------

    async def clean_forever(self) -> None:
        """Walk one page further, along the streams and the records in turn."""
        for step in itertools.cycle((self._prune, self._restore)):
            if self._term.trusted:
                try:
                    dropped, restored = await step()
                except StoreError as error:
                    self._cleaning.failed(error)
                else:
                    self._cleaning.answered()
                    self._tell(dropped, restored)
            await anyio.sleep(self._clean_s)

    async def _prune(self) -> tuple[int, int]:
        """Drop entries that mean nothing any more."""
        dropped = 0
        for level in LEVELS:
            found = await losses.prune(
                self._connection, self._lane, level, self._after[level], _ENTRIES
            )
            self._after[level] = found.last
            dropped += found.dropped

        return dropped, 0

    async def _restore(self) -> tuple[int, int]:
        """Put back runs that stand nowhere."""
        page = await losses.page(self._connection, self._lane, self._cursor, _KEYS)
        restored = 0
        for first in range(0, len(page.ids), _KEYS):
            restored += await losses.restore(
                self._connection,
                self._lane,
                page.ids[first : first + _KEYS],
                self._lease_s,
                self._retention_s,
            )
        self._cursor = page.cursor
        return 0, restored

    def _tell(self, dropped: int, restored: int) -> None:
        if dropped or restored:
            self._emit(LaneCleaned(lane=str(self._lane), dropped=dropped, restored=restored))
