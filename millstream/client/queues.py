"""What a client knows of queues: how they are laid out, and how to reach their lanes.

Calls of many callers leave together. A queue that was resized meanwhile refuses, and is looked up
again. While Redis does not answer, everything here is asked again, as long as patience lasts: all
of it is safe to say twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from millstream.client.coalescing import Coalescer
from millstream.client.waiting import Ended, Waiting
from millstream.errors import StoreUnavailable, UsageError
from millstream.model import ids
from millstream.model.limits import LIMITS, MIB
from millstream.store import runs
from millstream.store.connection import Connection
from millstream.store.keys import Lane

T = TypeVar("T")
_Answer = bool | str | runs.Resized
_Sent = tuple[Sequence[runs.NewRun], list[bool | str] | runs.Resized]
#: Calls of one `send_all` that are under way at the same time.
_AT_A_TIME = 3


@dataclass(slots=True)
class _Queue:
    """One queue, as it was when it was looked up."""

    layout: runs.Layout
    lanes: list[Lane]
    enqueueing: dict[Lane, Coalescer[runs.NewRun, _Answer]] = field(default_factory=dict)
    waiting: dict[Lane, Waiting] = field(default_factory=dict)

    def lane(self, run_id: str) -> Lane:
        return self.lanes[ids.lane_of(run_id, self.layout.lanes)]


#: The most that leaves in one call, unless a single run is larger.
MOST_BYTES = 8 * MIB


class Queues:
    """The queues that one client has to do with."""

    def __init__(self, connection: Connection, inbox: str, patience_s: float) -> None:
        self._connection = connection
        self._inbox = inbox
        self._patience_s = patience_s
        self._known: dict[str, _Queue] = {}
        self._group: TaskGroup | None = None

    def open(self, group: TaskGroup | None) -> None:
        """Say where background tasks live; None: there are no more."""
        self._group = group
        # What was begun belongs to the tasks of before.
        self._known.clear()

    async def lanes(self, queue: str) -> list[Lane]:
        """Return the lanes of a queue."""
        return (await self._queue(queue)).lanes

    async def lane(self, queue: str, run_id: str) -> Lane:
        """Return the lane of a run."""
        return (await self._queue(queue)).lane(run_id)

    async def send(self, queue: str, new: runs.NewRun) -> bool | str:
        """Enqueue one run, together with what others enqueue just now. See `runs.enqueue`."""
        while True:
            found = await self._queue(queue)
            answer = await self._enqueueing(found, found.lane(new.id)).ask(new)
            if not isinstance(answer, runs.Resized):
                return answer
            self._known.pop(queue, None)

    async def send_all(
        self, queue: str, news: Sequence[runs.NewRun]
    ) -> list[tuple[runs.NewRun, bool | str]]:
        """Enqueue many runs, a batch in one call; each comes back with its answer."""
        answered: list[tuple[runs.NewRun, bool | str]] = []
        left = list(news)
        while left:
            found = await self._queue(queue)
            by_lane: dict[Lane, list[runs.NewRun]] = {}
            for new in left:
                by_lane.setdefault(found.lane(new.id), []).append(new)

            left = []
            for batch, answers in await self._enqueue_all(found, by_lane):
                if isinstance(answers, runs.Resized):
                    self._known.pop(queue, None)
                    left += batch
                else:
                    answered += zip(batch, answers, strict=True)

        return answered

    async def _enqueue_all(
        self, found: _Queue, by_lane: Mapping[Lane, Sequence[runs.NewRun]]
    ) -> list[_Sent]:
        """Send batches, a few at a time: one is made ready while another one is accepted.

        Raises the first error, once nothing is under way any more.
        """
        calls = ((lane, batch) for lane, part in by_lane.items() for batch in _batches(part))
        sent: list[_Sent] = []
        failures: list[Exception] = []

        async def send() -> None:
            for lane, batch in calls:
                try:
                    sent.append((batch, await self._enqueue(found, lane, batch)))
                except Exception as error:  # noqa: BLE001 - raised below, as it is
                    failures.append(error)
                if failures:
                    return

        async with anyio.create_task_group() as group:
            for _ in range(_AT_A_TIME):
                group.start_soon(send)
        if failures:
            raise failures[0]
        return sent

    async def end(self, queue: str, run_id: str) -> Ended:
        """Return how a run ended, once it has."""
        found = await self._queue(queue)
        lane = found.lane(run_id)
        known = found.waiting.get(lane)
        if known is None:
            known = found.waiting[lane] = Waiting(self._connection, lane, self._inbox)
            self._tasks().start_soon(known.serve_forever, name=f"results {lane}")

        return await known.end(run_id, self.insist)

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again while Redis does not answer, as long as patience lasts."""
        deadline = anyio.current_time() + self._patience_s
        pause_s = 0.05
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                if anyio.current_time() + pause_s >= deadline:
                    raise
                await self._connection.reset()
                await anyio.sleep(pause_s)
                pause_s = min(1.0, pause_s * 2)

    async def _enqueue(
        self, found: _Queue, lane: Lane, batch: Sequence[runs.NewRun]
    ) -> list[bool | str] | runs.Resized:
        epoch = found.layout.epoch
        return await self.insist(lambda: runs.enqueue(self._connection, lane, epoch, batch))

    def _enqueueing(self, found: _Queue, lane: Lane) -> Coalescer[runs.NewRun, _Answer]:
        known = found.enqueueing.get(lane)
        if known is None:

            async def send(batch: Sequence[runs.NewRun]) -> Sequence[_Answer]:
                answers = await self._enqueue(found, lane, batch)
                return [answers] * len(batch) if isinstance(answers, runs.Resized) else answers

            known = found.enqueueing[lane] = Coalescer(
                send, LIMITS.batch, weigh=lambda new: len(new.arguments), most=MOST_BYTES
            )
            self._tasks().start_soon(known.serve_forever, name=f"enqueue {lane}")
        return known

    async def _queue(self, name: str) -> _Queue:
        known = self._known.get(name)
        if known is None:
            ids.check_queue(name)
            layout = await self.insist(lambda: runs.layout(self._connection, name))
            lanes = [Lane(name, number) for number in range(layout.lanes)]
            known = self._known.setdefault(name, _Queue(layout, lanes))
        return known

    def _tasks(self) -> TaskGroup:
        if self._group is None:
            raise UsageError("the client is not open; use it as: async with Client(url) as client")

        return self._group


def _batches(news: Sequence[runs.NewRun]) -> Iterator[list[runs.NewRun]]:
    batch: list[runs.NewRun] = []
    size = 0
    for new in news:
        size += len(new.arguments)
        if batch and (len(batch) >= LIMITS.batch or size > MOST_BYTES):
            yield batch
            batch, size = [], len(new.arguments)
        batch.append(new)
    if batch:
        yield batch
