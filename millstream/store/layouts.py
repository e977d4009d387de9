"""How many lanes a queue has, and how it gets another number of them.

A resize closes the old epoch in every lane before it opens the new one in any, so that no id is
ever accepted in two lanes. Lane 0 is closed first and opened last: it says what the queue is, and
who closes it decides. Every call is safe to repeat, so a resize that was cut off is carried to its
end by whoever meets it: another resize, or an enqueue that a closed lane refused.

Nothing is moved. A run stays in the lane that accepted it, and is looked for under the numbers of
lanes that the queue had before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from millstream.errors import UsageError
from millstream.model import ids
from millstream.model.limits import LIMITS
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.scripts import Argument, call


@dataclass(frozen=True, slots=True)
class Layout:
    """How many lanes a queue has, and how often that number has changed."""

    lanes: int = 1
    epoch: int = 0
    #: The other numbers of lanes it has had, newest first: runs of then may still be there.
    past: tuple[int, ...] = ()
    #: The number it is being given; 0: none. Until then it accepts nothing.
    next: int = 0
    #: Workers take nothing new from it.
    paused: bool = False
    #: How many runs it may hold that nobody has begun; 0: no limit.
    depth_limit: int = 0

    @property
    def width(self) -> int:
        """How many lanes there are, with those that accept nothing any more."""
        return max(self.lanes, *self.past, 1)

    def numbers(self, run_id: str) -> list[int]:
        """Return where a run may be: first the lane that would accept it now."""
        if self.lanes == 1 and not self.past:
            return [0]
        return list(dict.fromkeys(ids.lane_of(run_id, n) for n in (self.lanes, *self.past)))


async def layout(connection: Connection, queue: str, number: int = 0) -> Layout:
    """Return how a queue is laid out; a queue that nobody has used has one lane.

    What another lane than the first says of it differs only while a resize is under way, or
    where a failover has lost a part of one.
    """
    with connection.translated():
        lanes, epoch, past, next_, paused, depth = await connection.client.hmget(
            Lane(queue, number).meta, "lanes", "epoch", "past", "next", "paused", "depth"
        )

    return Layout(
        int(lanes or 1), int(epoch or 0), _past(past or b""), int(next_ or 0), paused is not None,
        int(depth or 0),
    )  # fmt: skip


async def in_use(connection: Connection, queue: str) -> tuple[Layout, list[Lane]]:
    """Return the layout, and the lanes that accept runs or still hold some. Raises `StoreError`."""
    found = await layout(connection, queue)
    lanes = [Lane(queue, number) for number in range(found.lanes)]
    for number in range(found.lanes, found.width):
        lane = Lane(queue, number)
        with connection.translated():
            if not await call(connection.client, "vacant", lane, []):
                lanes.append(lane)

    return found, lanes


async def resize(connection: Connection, queue: str, lanes: int) -> Layout:
    """Give a queue another number of lanes; return how it is laid out then.

    Raises `UsageError` at a bound, `StoreError` when it was cut off: then do it again. Runs that
    are waiting, held or kept stay where they are.
    """
    if not 1 <= lanes <= LIMITS.lanes:
        raise UsageError(f"a queue has 1 to {LIMITS.lanes} lanes, not {lanes}")

    while (found := await agreed(connection, queue)).lanes != lanes:
        if found.paused:
            raise UsageError(f"queue {queue!r} is paused; resume it before it is resized")
        _check_past(found, queue, lanes)
        reached = await _carry_out(connection, queue, found, lanes)
        if reached.lanes == lanes:
            return reached

    return found


async def agreed(connection: Connection, queue: str, refused_by: Lane | None = None) -> Layout:
    """Return the layout once every lane is of one mind; bring to its end what was begun.

    ``refused_by`` is a lane that did not accept what lane 0 says it should.
    """
    while True:
        found = await layout(connection, queue)
        if refused_by is not None and refused_by.number and not found.next:
            found = await _reconciled(connection, queue, found, refused_by)
        if not found.next:
            return found
        await _carry_out(connection, queue, found, found.next)


async def _carry_out(connection: Connection, queue: str, old: Layout, lanes: int) -> Layout:
    """Resize from one epoch to the next; return what lane 0 says then, whoever was faster."""
    first = await _close(connection, Lane(queue), old.epoch, lanes)
    if first.epoch != old.epoch:
        return first

    new = Layout(first.next, old.epoch + 1, _remembered(first), depth_limit=old.depth_limit)
    for number in range(1, first.width):
        await _close(connection, Lane(queue, number), old.epoch, first.next)
    for number in reversed(range(max(first.width, new.lanes))):
        await _open(connection, Lane(queue, number), new)
    return new


async def _reconciled(connection: Connection, queue: str, found: Layout, lane: Lane) -> Layout:
    """Mend what a failover forgot of a resize: the newer epoch holds, a closed lane is opened."""
    there = await layout(connection, queue, lane.number)
    if there.epoch > found.epoch:
        for number in reversed(range(there.width)):
            await _open(connection, Lane(queue, number), there)
        return there
    if there.epoch < found.epoch:
        await _open(connection, lane, found)
        return found

    # The same epoch, and closed: the resize goes on from there.
    return replace(found, next=there.next)


async def _close(connection: Connection, lane: Lane, epoch: int, lanes: int) -> Layout:
    with connection.translated():
        current, now, past, next_ = await call(connection.client, "close", lane, [epoch, lanes])

    return Layout(now, current, _past(past), next_)


async def _open(connection: Connection, lane: Lane, new: Layout) -> None:
    past = ",".join(map(str, new.past))
    with connection.translated():
        args: list[Argument] = [new.epoch, new.lanes, past, new.depth_limit]
        await call(connection.client, "open", lane, args)


def _check_past(found: Layout, queue: str, lanes: int) -> None:
    known = (found.lanes, *found.past)
    if lanes not in known and len(known) > LIMITS.past_layouts:
        raise UsageError(
            f"queue {queue!r} has had {len(known)} numbers of lanes, and every look-up tries them"
            f" all: choose one of {', '.join(map(str, sorted(known)))}, or use another queue"
        )


def _remembered(old: Layout) -> tuple[int, ...]:
    return tuple(n for n in dict.fromkeys((old.lanes, *old.past)) if n != old.next)


def _past(data: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in data.split(b",") if part)
