"""What a client knows of queues: how they are laid out, and how to reach their lanes.

Calls of many callers leave together. A queue that was resized meanwhile refuses, and is looked up
again; a run that was accepted before is found where it was accepted. While Redis does not answer,
everything here is asked again, as long as patience lasts: all of it is safe to say twice.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from millstream.client.coalescing import Coalescer
from millstream.client.following import Following
from millstream.client.waiting import Ended, Waiting
from millstream.errors import MillstreamError, StoreUnavailable, UsageError
from millstream.model import ids
from millstream.model.limits import LIMITS
from millstream.store import layouts, once, results, runs
from millstream.store.asked import MOST_BYTES, batches
from millstream.store.connection import Connection
from millstream.store.keys import Lane

T = TypeVar("T")
_Answer = runs.Answer | runs.Resized
#: A run, and what `runs.enqueue` says of it.
_Known = tuple[runs.NewRun, runs.Answer]
_Sent = tuple[Lane, Sequence[runs.NewRun], list[runs.Answer] | runs.Resized]
#: Calls of one `send_all` that are under way at the same time.
_AT_A_TIME = 3


@dataclass(slots=True)
class _Queue:
    """One queue, as it was when it was looked up."""

    layout: layouts.Layout
    #: With those that accept nothing any more.
    lanes: list[Lane]
    enqueueing: dict[Lane, Coalescer[runs.NewRun, _Answer]] = field(default_factory=dict)

    def candidates(self, run_id: str) -> list[Lane]:
        """Where a run may be: first the lane that accepts it now."""
        return [self.lanes[number] for number in self.layout.numbers(run_id)]

    def accepting(self, news: Sequence[runs.NewRun]) -> Mapping[Lane, Sequence[runs.NewRun]]:
        """Return runs by the lane that accepts them now."""
        if self.layout.lanes == 1:
            return {self.lanes[0]: news}
        by_lane: dict[Lane, list[runs.NewRun]] = {}
        for new in news:
            by_lane.setdefault(self.candidates(new.id)[0], []).append(new)
        return by_lane


class Queues:
    """The queues that one client has to do with."""

    def __init__(self, connection: Connection, inbox: str, patience_s: float) -> None:
        self._connection = connection
        self._inbox = inbox
        self._patience_s = patience_s
        self._known: dict[str, _Queue] = {}
        self._ends: dict[Lane, Waiting] = {}
        self._followed: dict[Lane, Following] = {}
        self._group: TaskGroup | None = None

    def open(self, group: TaskGroup | None) -> None:
        """Say where background tasks live; None: there are no more."""
        self._group = group
        # What was begun belongs to the tasks of before.
        self._known.clear()
        self._ends.clear()
        self._followed.clear()

    async def lanes(self, queue: str) -> list[Lane]:
        """Return every lane of a queue, as they are now."""
        return (await self._looked_up(queue)).lanes

    async def layout(self, queue: str) -> layouts.Layout:
        """Return how a queue is laid out now."""
        return (await self._looked_up(queue)).layout

    async def beside(self, queue: str, new: runs.NewRun, key: str) -> runs.NewRun:
        """Return a run under an id that stands in the lane of a key, as far as is known here."""
        lanes = (await self._queue(queue)).layout.lanes
        return msgspec.structs.replace(new, id=ids.in_lane(new.id, ids.lane_of(key, lanes), lanes))

    async def resize(self, queue: str, lanes: int) -> layouts.Layout:
        """Give a queue another number of lanes. See `layouts.resize`."""
        ids.check_queue(queue)
        found = await self.insist(lambda: layouts.resize(self._connection, queue, lanes))
        self._known.pop(queue, None)
        return found

    async def look(
        self, queue: str, run_id: str, ask: Callable[[Lane], Awaitable[T]], missing: T
    ) -> T:
        """Ask wherever a run may be, until the answer is another than ``missing``."""
        tried: set[Lane] = set()
        found = await self._queue(queue)
        while untried := [lane for lane in found.candidates(run_id) if lane not in tried]:
            for lane in untried:
                answer = await self.insist(functools.partial(ask, lane))
                if answer != missing:
                    return answer
                tried.add(lane)
            # The queue may have been resized since it was looked up.
            found = await self._looked_up(queue)
        return missing

    async def send(self, queue: str, new: runs.NewRun) -> runs.Answer:
        """Enqueue one run, together with what others enqueue just now. See `runs.enqueue`."""
        if new.once is not None:
            return await self._send_once(queue, new, new.once)
        known: list[_Known] = []
        again = False
        while True:
            found = await self._queue(queue)
            if not await self._set_known_aside(found, [new], known, again=again):
                return known[0][1]
            lane = found.candidates(new.id)[0]
            answer = await self._enqueueing(found, lane).ask(new)
            if not isinstance(answer, runs.Resized):
                return answer
            await self._agree(found, queue, lane)
            again = True

    async def _send_once(self, queue: str, new: runs.NewRun, what: runs.Once) -> runs.Answer:
        """Enqueue a run, unless another one stands for it: in the lane of what happens once."""
        while True:
            found = await self._queue(queue)
            lanes, epoch = found.layout.lanes, found.layout.epoch
            number = ids.lane_of(what.name, lanes)
            here = msgspec.structs.replace(new, id=ids.in_lane(new.id, number, lanes))
            lane = found.lanes[number]
            ask = functools.partial(once.enqueue, self._connection, lane, epoch, here)
            answer = await self.insist(ask)
            if not isinstance(answer, runs.Resized):
                return answer
            await self._agree(found, queue, lane)

    async def spread(self, queue: str, run_ids: Iterable[str]) -> dict[Lane, list[str]]:
        """Return the ids by the lanes where they may be: first those that accept them now."""
        found = await self._looked_up(queue)
        by_rank: dict[tuple[int, Lane], list[str]] = {}
        for run_id in run_ids:
            for rank, lane in enumerate(found.candidates(run_id)):
                by_rank.setdefault((rank, lane), []).append(run_id)
        spread: dict[Lane, list[str]] = {}
        for (_, lane), part in sorted(by_rank.items(), key=lambda item: item[0][0]):
            spread.setdefault(lane, []).extend(part)
        return spread

    async def accept(
        self,
        queue: str,
        run_id: str,
        ask: Callable[[Lane, int], Awaitable[bool | str | runs.Resized]],
    ) -> bool | str:
        """Have the lane that accepts an id now accept it, in a way that only ``ask`` knows."""
        while True:
            found = await self._queue(queue)
            lane = found.candidates(run_id)[0]
            answer = await self.insist(functools.partial(ask, lane, found.layout.epoch))
            if not isinstance(answer, runs.Resized):
                return answer
            await self._agree(found, queue, lane)

    async def send_all(self, queue: str, news: Sequence[runs.NewRun]) -> list[_Known]:
        """Enqueue many runs, a batch in one call; each comes back with its answer."""
        single = [new for new in news if new.once is not None]
        answered: list[_Known] = [(new, await self.send(queue, new)) for new in single]
        left = [new for new in news if new.once is None] if single else list(news)
        again = False
        while left:
            found = await self._queue(queue)
            left = await self._set_known_aside(found, left, answered, again=again)
            sent = await self._enqueue_all(found, found.accepting(left))
            left = []
            for lane, batch, answers in sent:
                if isinstance(answers, runs.Resized):
                    await self._agree(found, queue, lane)
                    left += batch
                    again = True
                else:
                    answered += zip(batch, answers, strict=True)
        return answered

    async def _enqueue_all(
        self, found: _Queue, by_lane: Mapping[Lane, Sequence[runs.NewRun]]
    ) -> list[_Sent]:
        """Send batches, a few at a time: one is made ready while another one is accepted.

        Raises the first error, once nothing is under way any more.
        """
        calls = ((lane, batch) for lane, part in by_lane.items() for batch in batches(part))
        sent: list[_Sent] = []
        failures: list[Exception] = []

        async def send() -> None:
            for lane, batch in calls:
                try:
                    sent.append((lane, batch, await self._enqueue(found, lane, batch)))
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

        async def ask(lane: Lane) -> Ended:
            return await self._waiting(lane).end(run_id, self.insist)

        return await self.look(queue, run_id, ask, results.Unknown())

    async def news(self, lane: Lane, run_id: str, after: str) -> None:
        """Return when a run may have said something after an event id, or has ended."""
        async with anyio.create_task_group() as group:

            async def until(awaited: Callable[[], Awaitable[object]]) -> None:
                # Whoever looks next learns what is wrong, and insists for as long as it may.
                with contextlib.suppress(MillstreamError):
                    await awaited()
                group.cancel_scope.cancel()

            group.start_soon(until, lambda: self._waiting(lane).end(run_id, self.insist))
            group.start_soon(until, lambda: self._following(lane).until_more(run_id, after))

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

    def _waiting(self, lane: Lane) -> Waiting:
        known = self._ends.get(lane)
        if known is None:
            known = self._ends[lane] = Waiting(self._connection, lane, self._inbox)
            self._tasks().start_soon(known.serve_forever, name=f"results {lane}")
        return known

    def _following(self, lane: Lane) -> Following:
        known = self._followed.get(lane)
        if known is None:
            known = self._followed[lane] = Following(self._connection, lane)
            self._tasks().start_soon(known.serve_forever, name=f"events {lane}")
        return known

    async def _set_known_aside(
        self, found: _Queue, news: Sequence[runs.NewRun], answered: list[_Known], *, again: bool
    ) -> list[runs.NewRun]:
        """Return what no lane of before has accepted; the rest is answered.

        An id that was made for this very call is new, unless it is sent ``again``: a reply may
        have been lost.
        """
        by_lane: dict[Lane, list[runs.NewRun]] = {}
        for new in news:
            for lane in found.candidates(new.id)[1:] if new.chosen or again else ():
                by_lane.setdefault(lane, []).append(new)

        known: set[int] = set()
        for lane, part in by_lane.items():
            for batch in batches(part):
                for new, owner in zip(batch, await self._owners(lane, batch), strict=True):
                    if owner is not None and id(new) not in known:
                        known.add(id(new))
                        answered.append((new, owner))
        return [new for new in news if id(new) not in known]

    async def _owners(self, lane: Lane, news: Sequence[runs.NewRun]) -> list[bool | str | None]:
        return await self.insist(lambda: runs.owners(self._connection, lane, news))

    async def _agree(self, found: _Queue, queue: str, lane: Lane) -> None:
        """A lane has refused: bring a resize that was begun to its end, and look again."""
        if self._known.get(queue) is found:
            del self._known[queue]
            await self.insist(lambda: layouts.agreed(self._connection, queue, lane))

    async def _enqueue(
        self, found: _Queue, lane: Lane, batch: Sequence[runs.NewRun]
    ) -> list[runs.Answer] | runs.Resized:
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
        return self._known.get(name) or await self._looked_up(name)

    async def _looked_up(self, name: str) -> _Queue:
        ids.check_queue(name)
        layout = await self.insist(lambda: layouts.layout(self._connection, name))
        known = self._known.get(name)
        if known is None or known.layout != layout:
            lanes = [Lane(name, number) for number in range(layout.width)]
            known = self._known[name] = _Queue(layout, lanes)
        return known

    def _tasks(self) -> TaskGroup:
        if self._group is None:
            raise UsageError("the client is not open; use it as: async with Client(url) as client")

        return self._group
