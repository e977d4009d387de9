"""One run in the hands of this worker, and the only way to write to it.

What a run wants written goes into the lane's next commit; the caller goes on once it stands in
Redis. A refusal means that the fence has moved on: the run is stopped, and nothing more is
written for it here. Knows nothing of workflows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from millstream.errors import JournalFull, KeyOccupied, LeaseLost, Suspended
from millstream.model.limit import Asked
from millstream.model.limits import LIMITS
from millstream.model.outcome import Completed, Outcome, Released
from millstream.model.progress import Saying
from millstream.model.run import Delivery
from millstream.model.trace import Place
from millstream.store import commits
from millstream.store.codec import Parts
from millstream.store.commits import Item, Verdict
from millstream.store.keys import Lane
from millstream_worker.sent import Outbox, Sent
from millstream_worker.turns import UNWRITTEN


class Stop(Enum):
    """Why a run is being put aside before its workflow has ended."""

    LOST = "lost"  # the fence moved on: write nothing
    CANCELLED = "cancelled"
    RELEASED = "released"  # the worker drains
    PARKED = "parked"
    TIMEOUT = "timeout"
    UNREADABLE = "unreadable"  # it is sealed, and only another worker has the key
    LIMITED = "limited"  # others go on instead: it is in no worker's hands any more
    ENDED = "ended"  # what is still called has come too late


#: Makes an item of a delivery, given the version to pin.
MakesItem = Callable[[Delivery, str], Item]
#: How much a run says before it leaves without being waited for.
_PART = 200


class Held:
    """A delivery that this worker holds."""

    # What few runs change stands here: tens of thousands of these are made a second.

    #: Seals what is said and what the run ends with; None: it stands in clear.
    seal: commits.Seal | None = None
    stopped: Stop | None = None
    #: Bytes of what is written along with whatever is written next.
    _size = 0
    #: Whether a value is among that, and those that were sent.
    _drawn = False
    _drawing: Sent | None = None
    #: The verdict on something that was drawn or said, and that does not stand.
    _unwritten: Verdict | None = None
    #: Whether whoever watches is told of steps, and how much this delivery has said so far.
    tells_steps = False
    _sayings = 0
    #: Whether sessions with servers of tools may be this run's.
    uses_tools = False
    #: The version to pin with the next write; empty once it is pinned.
    _pin = ""
    _bytes = 0
    #: What stops the workflow. Whoever sets it looks whether it should have been called already.
    on_stop: Callable[[], None] | None = None
    #: Who is told of the next message: its name, or None when that is not known.
    on_message: Callable[[str | None], None] | None = None

    def __init__(self, delivery: Delivery, outbox: Outbox, retention_s: float) -> None:
        self.delivery = delivery
        #: Under what the delivery stands in a trace.
        self.caller = delivery.trace
        self._outbox = outbox
        self._retention_s = retention_s
        #: Written along with whatever is written next.
        self._later: list[Item] = []
        #: What was recorded so far, by this account: the store has the last word.
        self._records = delivery.records
        #: Whether somebody may have sent messages.
        self.addressed = delivery.received

    @property
    def lane(self) -> Lane:
        """Where the run is."""
        return self._outbox.lane

    def stop(self, reason: Stop) -> None:
        """Put the run aside. The first reason stands, except that a lost run writes nothing."""
        if self.stopped is None or reason is Stop.LOST:
            self.stopped = reason
        if self.on_stop is not None:
            self.on_stop()

    def place(self, place: Place) -> None:
        """Say where the delivery stands in a trace."""
        self.delivery = self.delivery._replace(trace=place.trace)
        self.caller = place.parent

    def hear(self, name: str | None) -> None:
        """A message has come; None: it may have, and its name is not known."""
        self.addressed = True
        if self.on_message is not None:
            self.on_message(name)

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
        if self.seal is not None:
            data = self.seal("event", data)
        self._count(len(record) + len(data))
        self._later.append(commits.emit(self.delivery, key, record, data, self._take_pin()))

    def say(self, saying: Saying, when: str = "") -> None:
        """Say something with whatever is written next; it is in no journal. See `commits.say`."""
        self._check()
        if self.seal is not None:
            saying = saying._replace(data=self.seal("event", saying.data))
        self._sayings += 1
        self._size += len(saying.data)
        self._later.append(commits.say(self.delivery, self._sayings, saying, when))

    def send(self) -> Sent:
        """Send what waits to be written; what comes of it is heard, whoever waits for it."""
        return self._send(self._told)

    async def write(self, key: str, record: bytes, said: Saying | None = None) -> None:
        """Journal a record, and say so in the same commit; return when it stands.

        Raises `LeaseLost` when the run is no longer ours, `JournalFull` at the bound,
        `KeyOccupied` when something else stands where the journal belongs.
        """
        journaled = None if said is not None else self.journal(key, record)
        if journaled is not None:
            self.judge(await journaled)
            return
        self._append(key, record)
        if said is not None:
            self.say(said, commits.ONCE_WRITTEN)
        self.judge(await self._send().wait())

    def journal(self, key: str, record: bytes) -> asyncio.Future[Verdict] | None:
        """Journal a record; the future is the verdict on it, for `judge`.

        Nobody but the caller waits for this, and what it waits on is all that is made. None, and
        nothing is done, while something drawn waits to be written: others may wait for that.
        """
        if self._drawn:
            return None
        self._append(key, record)
        items, self._later = self._later, []
        size, self._size = self._size, 0
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._outbox.submit(items, size, verdict.set_result)
        return verdict

    async def look(
        self,
        key: str,
        name: str,
        record: Parts,
        otherwise: bytes,
        says: Iterable[tuple[Saying, str]] = (),
    ) -> Verdict:
        """Take a message into the journal, or write ``otherwise``. See `commits.look`."""
        self._check()
        if otherwise:
            self._count(len(otherwise))
        item = commits.look(self.delivery, key, name, record, otherwise, self._take_pin())
        self._later.append(item)
        for saying, when in says:
            self.say(saying, when)
        verdict = await self._send().wait()
        if verdict is not Verdict.ANSWERED:
            self.judge(verdict)
        return verdict

    async def write_with(
        self, record: bytes, beside: bytes, make: MakesItem, said: Saying | None = None
    ) -> None:
        """Journal a record with something beside it; return when both stand. Raises as `write`."""
        self._check()
        self._count(len(record))
        self._size += len(beside)
        self._later.append(make(self.delivery, self._take_pin()))
        if said is not None:
            self.say(said, commits.ONCE_WRITTEN)
        self.judge(await self._send().wait())

    async def admit(self, asked: Sequence[Asked]) -> None:
        """Return when the run may go on under its limits; one that may not is stopped.

        Raises `LeaseLost`, or `Suspended` when the run is stopped.
        """
        self._check()
        self._later.append(commits.admit(self.delivery, asked))
        verdict = await self._send().wait()
        if verdict is Verdict.LIMITED:
            self.stop(Stop.LIMITED)
        else:
            self.judge(verdict)
        self._check()

    async def flush(self) -> None:
        """Write what waits to be written; return when it stands."""
        if self._later:
            self.judge(await self._send().wait())

    @property
    def clear(self) -> bool:
        """Whether all that was drawn or said stands, and nothing has stopped the run."""
        drawing = self._drawing
        return (
            self.stopped is None
            and self._unwritten is None
            and not self._later
            and (drawing is None or drawing.verdict is not None)
        )

    async def drawn(self) -> None:
        """Return when every value that was drawn stands: a crash must not draw it anew.

        What acts on the world may have been given such a value, as an idempotency key perhaps.
        Raises what `write` raises, also for a value that left earlier and was not waited for.
        """
        if self._drawn:
            await self.flush()
        elif self._drawing is not None and self._drawing.verdict is None:
            # Another branch sent it.
            self.judge(await self._drawing.wait())
        if self._unwritten is not None:
            self.judge(self._unwritten)

    def tell(self) -> None:
        """Send what was said so far, and wait for nothing: it is progress, for whoever watches."""
        if self._later and not self._drawn:
            self._submit(self._told)

    def judge(self, verdict: Verdict) -> None:
        """Act on what became of something that was written; raise what `write` raises."""
        if verdict is Verdict.WRITTEN:
            return
        if verdict is Verdict.FENCED:
            self.stop(Stop.LOST)
            raise LeaseLost(self.delivery.run_id, self.delivery.fence)
        if verdict is Verdict.FULL:
            raise JournalFull(self.delivery.run_id, LIMITS.journal_records, LIMITS.journal_bytes)
        if verdict is Verdict.OCCUPIED:
            raise KeyOccupied(self.delivery.run_id, "journal or the events")
        if verdict is Verdict.SEALED:
            self.stop(Stop.UNREADABLE)
            raise Suspended
        self.stop(Stop.CANCELLED)

    def end(
        self,
        outcome: Outcome,
        drop: Sequence[str] = (),
        told: Callable[[Verdict], None] = lambda _: None,
    ) -> None:
        """Give the run its end; ``told`` hears the verdict."""
        version, self._pin = self._pin, ""
        item = commits.ending(self.delivery, outcome, version, self._retention_s, drop)
        if self.seal is not None:
            commits.seal_ending(item, self.seal)
        self._later.append(item)
        if isinstance(outcome, Completed):
            self._size += len(outcome.result)
        if self.stopped is None:
            self.stopped = Stop.ENDED
        self._submit(told)

    def give_up(self) -> None:
        """Hand the run back although its workflow does not let go of it.

        From there on the fence keeps out whatever it still wants written.
        """
        if self.stopped is not Stop.LOST:
            self.end(Released())
        self.stop(Stop.LOST)

    # -- below ---------------------------------------------------------------------------------

    def _submit(self, answered: Callable[[Verdict], None]) -> None:
        items, self._later = self._later, []
        size, self._size = self._size, 0
        self._outbox.submit(items, size, answered)

    def _send(self, told: Callable[[Verdict], None] | None = None) -> Sent:
        # Whoever waits for a value may be cancelled meanwhile: its verdict must not go unheard.
        sent = Sent(self._told if self._drawn else told)
        if self._drawn:
            self._drawing, self._drawn = sent, False
        self._submit(sent.answered)
        return sent

    def _told(self, verdict: Verdict) -> None:
        if verdict is Verdict.FENCED:
            self.stop(Stop.LOST)
        elif verdict in UNWRITTEN:
            self._unwritten = verdict

    def _count(self, size: int) -> None:
        """Refuse here what the store would refuse, so that nothing said goes missing unheard.

        What piles up before the next wait leaves in parts: no call may be larger than a call.
        """
        self._records += 1
        self._bytes += size
        self._size += size
        if self._records > LIMITS.journal_records or self._bytes > LIMITS.journal_bytes:
            self.judge(Verdict.FULL)
        if len(self._later) >= _PART:
            self._send(self._told)

    def _append(self, key: str, record: bytes) -> None:
        if self.stopped is not None:
            raise Suspended
        self._count(len(record))
        version = self._take_pin() if self._pin else ""
        self._later.append(commits.record(self.delivery, key, record, version))

    def _check(self) -> None:
        if self.stopped is not None:
            raise Suspended

    def _take_pin(self) -> str:
        version, self._pin = self._pin, ""
        return version
