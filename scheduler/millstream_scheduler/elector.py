"""Seek to lead, go on leading, seek again.

At most one candidate leads a seat at any moment, as far as clocks run at about the same speed: who
cannot renew stops a tenth of a lease before anybody else may be elected. Nobody's safety hangs on
it: each duty of a leader is harmless when two do it.

Knows nothing of what a leader does.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from millstream.errors import StoreError
from millstream.events import Emit
from millstream.store import leadership
from millstream.store.connection import Connection
from millstream.store.leadership import Answer, Seat
from millstream_scheduler.outage import Outage
from millstream_scheduler.term import Term

#: The part of a lease in which it is trusted; the rest is for clocks that differ in speed.
TRUST = 0.9


class Elector:
    """One candidate for one seat. ``campaign_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        seat: Seat,
        token: str,
        *,
        lease_s: float,
        emit: Emit,
        mono: Callable[[], float],
        turned: Callable[[str | None], None],
    ) -> None:
        self.token = token
        self._connection = connection
        self._seat = seat
        self._lease_s = lease_s
        #: How soon a free seat is noticed.
        self._look_s = min(1.0, lease_s / 10)
        self._mono = mono
        self._outage = Outage("elect", emit, mono)
        #: Told of every turn of the loop: None when Redis served it, else why it was refused.
        self._turned = turned
        self._term: Term | None = None
        self._elected = anyio.Event()
        self._asking = anyio.Lock()
        self._standing = True

    async def elected(self) -> Term:
        """Return the term of this candidate, once there is one."""
        while self._term is None or self._term.over:
            await self._elected.wait()

        return self._term

    @property
    def leading(self) -> bool:
        """Whether this candidate may do what a leader does."""
        return self._term is not None and self._term.trusted

    async def campaign_forever(self) -> None:
        """Ask for the seat while it is taken, renew the term while it is ours."""
        while True:
            await anyio.sleep(await self._campaign())

    async def resign(self) -> None:
        """Leave the seat for good; another may sit down at once. Raises `StoreError`."""
        self._standing = False
        # What was asked before is answered first: it could seat us again.
        async with self._asking:
            self._lose()
            await leadership.resign(self._connection, self._seat, self.token)

    # -- one turn ------------------------------------------------------------------------------

    async def _campaign(self) -> float:
        """Ask once; return how long to wait before the next time."""
        async with self._asking:
            if not self._standing:
                return self._look_s
            sent = self._mono()
            try:
                answer = await self._ask()
            except StoreError as error:
                self._outage.failed(error)
                self._turned(str(error))
                await self._connection.reset()
                return self._look_s

        self._outage.answered()
        self._turned(None)
        if answer.leading:
            return self._win(answer.fence, sent + TRUST * self._lease_s)

        self._lose()
        # The script counts in whole milliseconds.
        return min(self._look_s, answer.left_s + 0.001)

    async def _ask(self) -> Answer:
        if self._term is None:
            return await leadership.seek(self._connection, self._seat, self.token, self._lease_s)

        return await leadership.renew(
            self._connection, self._seat, self.token, self._term.fence, self._lease_s
        )

    def _win(self, fence: int, trusted_until: float) -> float:
        if trusted_until <= self._mono():
            return 0.0  # the answer came too late to be of use
        if self._term is None or self._term.over or self._term.fence != fence:
            self._lose()
            self._term = Term(fence, self._mono)
            self._elected.set()
            self._elected = anyio.Event()

        self._term.trust(trusted_until)
        return self._lease_s / 3

    def _lose(self) -> None:
        if self._term is not None:
            self._term.end()
        self._term = None
