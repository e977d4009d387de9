"""What one lane has to say elsewhere: start this child, it has ended so, stop what I started.

An entry is written by the very script that makes it true, and stands until the other lane has
heard it. Whoever serves the lane delivers: at once, or at the next sweep. It may be heard twice,
which is once too often and no harm: a child is known by its id, and its end is taken from a child
that is open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from redis.exceptions import ResponseError

from millstream.errors import SealingError
from millstream.model.limits import LIMITS
from millstream.model.message import MessageKind
from millstream.model.run import RunState
from millstream.store import layouts, messages, runs, withdrawals
from millstream.store.connection import Connection
from millstream.store.foreign import is_foreign, sifted
from millstream.store.keys import Lane
from millstream.store.messages import Message
from millstream.store.runs import place_of_arguments
from millstream.store.scripts import Argument, call
from millstream.store.sealing import Place, Sealer, is_sealed, opened

#: Entries that are delivered together, and how many such pages in one call.
_PAGE = 50
_PAGES = 40


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is started with, beside its id and queue."""

    workflow: str
    arguments: msgspec.Raw
    version: str = ""
    priority: str = "normal"
    timeout_ms: int | None = None
    tenant: str = ""
    #: Of the parent: a later one starts a child anew that has failed.
    attempt: int = 1
    #: Where the step that started it stands in a trace.
    trace: str = ""


class _Entry(NamedTuple):
    id: bytes
    fields: Mapping[bytes, bytes]

    @property
    def kind(self) -> bytes:
        return self.fields[b"kind"]

    def text(self, name: str) -> str:
        return self.fields[name.encode()].decode()


def encoded(start: Start) -> bytes:
    """Return a start as it is stored."""
    return msgspec.json.encode(start)


def _same(sealer: Sealer | None, place: Place, stands: bytes | None, given: bytes) -> bytes | None:
    """Return what stands where it is what was given; None where that cannot be told here."""
    if stands is None or stands == given:
        return given
    try:
        return stands if opened(sealer, place, stands) == opened(sealer, place, given) else given
    except SealingError:
        return None


async def dispatch(connection: Connection, lane: Lane, retention_s: float) -> int:
    """Deliver what stands in the outbox of a lane; return how much. Raises `StoreError`.

    What cannot be delivered stays for the next time.
    """
    delivered, after, standing = 0, "-", False
    for _ in range(_PAGES):
        with connection.translated():
            rows = await connection.client.xrange(lane.outbox, after, "+", count=_PAGE)
        page = [_Entry(entry, fields) for entry, fields in rows]
        if not page:
            break
        part = _Page(connection, lane, page, retention_s)
        heard = await part.deliver(starts_stand=standing)
        standing = standing or part.starts_stand
        if heard:
            with connection.translated():
                await connection.client.xdel(lane.outbox, *heard)
        delivered += len(heard)
        after = f"({page[-1].id.decode()}"

    return delivered


class _Page:
    """Some entries, on their way to the lanes that are to hear them."""

    def __init__(
        self, connection: Connection, lane: Lane, entries: Sequence[_Entry], retention_s: float
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._entries = entries
        self._retention_s = retention_s
        self._layouts: dict[str, layouts.Layout] = {}
        #: Whether a child could not be started yet.
        self.starts_stand = False

    async def deliver(self, *, starts_stand: bool) -> list[bytes]:
        """Deliver; return the ids of the entries that were heard.

        While a start stands nobody is cancelled: a child must be there before it can be.
        """
        heard = await self._tell_ends([x for x in self._entries if x.kind == b"end"])
        heard += await self._leave_tasks([x for x in self._entries if x.kind == b"tasks"])
        starts = [x for x in self._entries if x.kind == b"start"]
        started = await self._start(starts)
        heard += started
        self.starts_stand = len(started) < len(starts)
        if not (starts_stand or self.starts_stand):
            for entry in self._entries:
                if entry.kind == b"down":
                    await self._cancel_children(entry.text("run"))
                    heard.append(entry.id)
        return heard

    async def _tell_ends(self, entries: Sequence[_Entry]) -> list[bytes]:
        by_lane: dict[Lane, list[Message]] = {}
        for entry in entries:
            queue, number, parent = entry.text("to").split(":", 2)
            child = entry.text("id")
            payload = b'["%b",%b]' % (entry.fields[b"state"], entry.fields[b"payload"])
            by_lane.setdefault(Lane(queue, int(number)), []).append(
                Message(run_id=parent, name=MessageKind.CHILD.of(child), payload=payload, id="")
            )
        for lane, ends in by_lane.items():
            await messages.send(self._connection, lane, ends, self._retention_s)
        return [entry.id for entry in entries]

    async def _start(self, entries: Sequence[_Entry]) -> list[bytes]:
        """Start children, each in the lane that accepts its id now or has accepted it before."""
        left = list(entries)
        for past in (True, False):
            by_lane: dict[Lane, list[_Entry]] = {}
            for entry in left:
                queue = entry.text("queue")
                numbers = (await self._layout(queue)).numbers(entry.text("id"))
                for number in numbers[1:] if past else numbers[:1]:
                    by_lane.setdefault(Lane(queue, number), []).append(entry)
            for lane, batch in by_lane.items():
                epoch = "" if past else (await self._layout(lane.queue)).epoch
                answers = await self._started(lane, epoch, batch)
                here = {x.id for x, answer in zip(batch, answers, strict=True) if answer}
                left = [entry for entry in left if entry.id not in here]
        for queue in {entry.text("queue") for entry in left}:
            # It was resized meanwhile: bring that to its end, and try again the next time.
            await layouts.agreed(self._connection, queue)
        missing = {entry.id for entry in left}
        return [entry.id for entry in entries if entry.id not in missing]

    async def _started(self, lane: Lane, epoch: Argument, batch: Sequence[_Entry]) -> Sequence[int]:
        starts = [msgspec.json.decode(entry.fields[b"data"], type=Start) for entry in batch]
        given = await self._given(lane, [x.text("id") for x in batch], starts)
        args: list[Argument] = [epoch]
        for entry, start, arguments in zip(batch, starts, given, strict=True):
            if arguments is None:
                continue
            parent = f"{self._lane}:{entry.text('run')}"
            timeout: Argument = "" if start.timeout_ms is None else start.timeout_ms
            args += (
                entry.text("id"), start.workflow, start.version, arguments,
                start.priority, timeout, start.tenant, start.trace, parent, start.attempt,
            )  # fmt: skip
        with self._connection.translated():
            answers: list[int] = await call(self._connection.scripts, "start", lane, args)
        told = iter(answers)
        return [0 if arguments is None else next(told) for arguments in given]

    async def _given(
        self, lane: Lane, children: Sequence[str], starts: Sequence[Start]
    ) -> Sequence[bytes | None]:
        """Return the arguments of children as their lane has them, where those are the same.

        What is sealed anew, for a later attempt of the parent, are other bytes: a script would take
        it for another run. None for what cannot be compared here: a worker that has the key will.
        """
        given = [bytes(start.arguments) for start in starts]
        sealer = self._connection.sealer
        if sealer is None and not any(map(is_sealed, given)):
            return given
        with self._connection.translated():
            pipe = self._connection.client.pipeline(transaction=False)
            for child in children:
                pipe.hmget(lane.run(child), "args", "asked")
            rows = sifted(await pipe.execute(raise_on_error=False), (None, None))
        return [
            _same(sealer, place_of_arguments(lane, child), asked or args, own)
            for child, own, (args, asked) in zip(children, given, rows, strict=True)
        ]

    async def _leave_tasks(self, entries: Sequence[_Entry]) -> list[bytes]:
        """Have the tasks withdrawn that other agents do for runs which have ended."""
        for entry in entries:
            run_id = entry.text("run")
            with self._connection.translated():
                pipe = self._connection.client.pipeline(transaction=False)
                pipe.hget(self._lane.run(run_id), "state")
                (state,) = sifted(await pipe.execute(raise_on_error=False), None)
            if state is not None and not RunState(state.decode()).final:
                continue  # somebody has started it once more: it needs them
            async for page in self._noted(run_id, "!*"):
                noted = [withdrawals.left(run_id, each) for each in page.values()]
                if left := [each for each in noted if each is not None]:
                    await withdrawals.put(self._connection, self._lane.queue, left)
        return [entry.id for entry in entries]

    async def _cancel_children(self, run_id: str) -> None:
        """Cancel the children of a run that have not ended."""
        async for page in self._noted(run_id, "+*"):
            by_lane: dict[Lane, list[str]] = {}
            for field, queue in page.items():
                child = field[1:].decode()
                for number in (await self._layout(queue.decode())).numbers(child):
                    by_lane.setdefault(Lane(queue.decode(), number), []).append(child)
            for lane, children in by_lane.items():
                await runs.cancel(self._connection, lane, children, self._retention_s)

    async def _noted(self, run_id: str, fields: str) -> AsyncIterator[Mapping[bytes, bytes]]:
        """Yield what is noted of a run under such fields, beside its messages; page by page."""
        cursor = 0
        while True:
            with self._connection.translated():
                try:
                    cursor, page = await self._connection.client.hscan(
                        self._lane.received(run_id), cursor, match=fields, count=LIMITS.batch
                    )
                except ResponseError as error:
                    if is_foreign(error):
                        return  # what was noted is lost
                    raise
            if page:
                yield page
            if not cursor:
                return

    async def _layout(self, queue: str) -> layouts.Layout:
        known = self._layouts.get(queue)
        if known is None:
            known = self._layouts[queue] = await layouts.layout(self._connection, queue)
        return known
