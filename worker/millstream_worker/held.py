"""One run in the hands of this worker, and the only way to write to it.

What a run wants written goes into the lane's next commit; the caller goes on once it stands in
Redis. A refusal means that the fence has moved on: the run is stopped, and nothing more is
written for it here. Knows nothing of workflows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from millstream.errors import JournalFull, LeaseLost, Suspended
from millstream.model.limits import LIMITS
from millstream.model.outcome import Outcome
from millstream.model.run import Delivery
from millstream.store import commits
from millstream.store.commits import Item, Verdict


class Stop(Enum):
    """Why a run is being put aside before its workflow has ended."""

    LOST = "lost"  # the fence moved on: write nothing
    CANCELLED = "cancelled"
    RELEASED = "released"  # the worker drains
    PARKED = "parked"
    TIMEOUT = "timeout"
    ENDED = "ended"  # what is still called has come too late


#: How much a run says before it leaves without being waited for.
_PART = 200


class Outbox(Protocol):
    """Where items go: the lane's next commit."""

    def submit(self, items: Sequence[Item]) -> asyncio.Future[Verdict]:
        """Queue items for the next commit; the future is the verdict on the last of them."""


class Held:
    """A delivery that this worker holds."""

    def __init__(self, delivery: Delivery, outbox: Outbox, retention_s: float) -> None:
        self.delivery = delivery
        self.stopped: Stop | None = None
        self._outbox = outbox
        self._retention_s = retention_s
        #: Written along with whatever is written next.
        self._later: list[Item] = []
        #: Whether a value is among them, and the verdict on those that were sent.
        self._drawn = False
        self._drawing: asyncio.Future[Verdict] | None = None
        #: What was recorded so far, by this account: the store has the last word.
        self._records = delivery.records
        self._bytes = 0
        #: The version to pin with the next write; empty once it is pinned.
        self._pin = ""
        self._on_stop: Callable[[], None] = lambda: None

    def on_stop(self, action: Callable[[], None]) -> None:
        """Say what stops the workflow; called at once when it should have stopped already."""
        self._on_stop = action
        if self.stopped is not None:
            action()

    def stop(self, reason: Stop) -> None:
        """Put the run aside. The first reason stands, except that a lost run writes nothing."""
        if self.stopped is None or reason is Stop.LOST:
            self.stopped = reason
        self._on_stop()

    def pin(self, version: str) -> None:
        """Have the run stay on this version from its first write on."""
        if self.delivery.version is None:
            self._pin = version

    def write_later(self, key: str, record: bytes) -> None:
        """Journal a value with the next write."""
        self._append(key, record)
        self._drawn = True

    def emit_later(self, key: str, record: bytes, data: bytes) -> None:
        """Journal and publish with the next write, which is not waited for."""
        self._check()
        self._count(len(record) + len(data))
        self._later.append(commits.emit(self.delivery, key, record, data, self._take_pin()))

    async def write(self, key: str, record: bytes) -> None:
        """Journal a record; return when it stands.

        Raises `LeaseLost` when the run is no longer ours, `JournalFull` at the bound.
        """
        self._append(key, record)
        await self.flush()

    async def flush(self) -> None:
        """Write what waits to be written; return when it stands."""
        if not self._later:
            return

        # Several branches may wait for it: one that is cancelled must not cancel it.
        self._judge(await asyncio.shield(self._send()))

    async def drawn(self) -> None:
        """Return when every value that was drawn stands: a crash must not draw it anew.

        What acts on the world may have been given such a value, as an idempotency key perhaps.
        """
        if self._drawn:
            await self.flush()
        elif self._drawing is not None and not self._drawing.done():
            # Another branch sent it.
            self._judge(await asyncio.shield(self._drawing))

    def tell(self) -> None:
        """Send what was said so far, and wait for nothing: it is progress, for whoever watches."""
        if self._later and not self._drawn:
            self._send().add_done_callback(self._told)

    def _send(self) -> asyncio.Future[Verdict]:
        items, self._later = self._later, []
        sent = self._outbox.submit(items)
        if self._drawn:
            self._drawing, self._drawn = sent, False
        return sent

    def _told(self, sent: asyncio.Future[Verdict]) -> None:
        if not sent.cancelled() and sent.result() is Verdict.FENCED:
            self.stop(Stop.LOST)

    def _judge(self, verdict: Verdict) -> None:
        if verdict is Verdict.FENCED:
            self.stop(Stop.LOST)
            raise LeaseLost(self.delivery.run_id, self.delivery.fence)
        if verdict is Verdict.FULL:
            raise JournalFull(self.delivery.run_id, LIMITS.journal_records, LIMITS.journal_bytes)
        if verdict is Verdict.CANCEL:
            self.stop(Stop.CANCELLED)

    def _count(self, size: int) -> None:
        """Refuse here what the store would refuse, so that nothing said goes missing unheard.

        What piles up before the next wait leaves in parts: no call may be larger than a call.
        """
        self._records += 1
        self._bytes += size
        if self._records > LIMITS.journal_records or self._bytes > LIMITS.journal_bytes:
            self._judge(Verdict.FULL)
        if len(self._later) >= _PART:
            self._send().add_done_callback(self._told)

    async def end(self, outcome: Outcome, drop: Sequence[str] = ()) -> bool:
        """Give the run its end; return False when it was no longer ours."""
        ending = commits.ending(self.delivery, outcome, self._take_pin(), self._retention_s, drop)
        items, self._later = [*self._later, ending], []
        if self.stopped is None:
            self.stopped = Stop.ENDED
        return await self._outbox.submit(items) is not Verdict.FENCED

    def _append(self, key: str, record: bytes) -> None:
        self._check()
        self._count(len(record))
        self._later.append(commits.journal(self.delivery, [(key, record)], self._take_pin()))

    def _check(self) -> None:
        if self.stopped is not None:
            raise Suspended

    def _take_pin(self) -> str:
        version, self._pin = self._pin, ""
        return version
