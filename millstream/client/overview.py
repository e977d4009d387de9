"""How queues stand: what they hold, who serves them, and which runs are where.

Everything here is read, lane by lane, at a bounded cost. It changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from millstream.client import paging
from millstream.client.paging import RunPage
from millstream.client.queues import Queues
from millstream.model import selection
from millstream.model.approval import OpenApproval
from millstream.model.attributes import Attributes, checked
from millstream.model.journal import Record
from millstream.model.run import Depth, RunState, RunStatus
from millstream.model.selection import Selection
from millstream.store import agents, codec, listing, messages, runs
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.layouts import Layout

Answer = TypeVar("Answer")

#: Runs that are chosen at once, unless it is said how many.
MOST_SELECTED = 10_000


class Overview:
    """The part of a client that looks."""

    _connection: Connection
    _queues: Queues

    async def approvals(
        self, queue: str = "default", *, limit: int = 100
    ) -> Sequence[OpenApproval]:
        """Return the open questions of the parked runs of a queue, the oldest first."""
        ask = functools.partial(listing.open_approvals, self._connection, limit=limit)
        found = [question for part in await self._each(queue, ask) for question in part]
        return sorted(found, key=lambda question: question.asked)[:limit]

    async def questions(self, status: RunStatus) -> Sequence[OpenApproval]:
        """Return the open questions of one run, as its status says that it waits for them."""

        async def ask(lane: Lane) -> Sequence[OpenApproval]:
            return await listing.questions_of(self._connection, lane, status)

        nothing: Sequence[OpenApproval] = []
        return await self._queues.look(status.queue, status.id, ask, nothing)

    async def record(self, queue: str, run_id: str, step: str) -> Record | None:
        """Return what a run has recorded of one step; None when that is nothing."""

        async def ask(lane: Lane) -> bytes | None:
            return await messages.record(self._connection, lane, run_id, step)

        found = await self._queues.look(queue, run_id, ask, None)
        return None if found is None else codec.decode_record(found)

    async def depth(self, queue: str = "default") -> Depth:
        """Count the runs of a queue, at a cost that does not grow with them."""
        parts = await self._each(queue, functools.partial(runs.depth, self._connection))
        names = ("waiting", "running", "scheduled", "parked", "dead", "limited", "added", "gone")
        counts = {name: sum(getattr(part, name) for part in parts) for name in names}
        paused = any(part.paused for part in parts)
        return Depth(**counts, oldest_s=max(part.oldest_s for part in parts), paused=paused)

    async def dead(self, queue: str = "default", *, limit: int = 100) -> Sequence[RunStatus]:
        """Return dead letters of a queue: runs that failed for good, the newest first."""
        ask = functools.partial(listing.dead_letters, self._connection, limit=limit)
        found = [status for part in await self._each(queue, ask) for status in part]
        found.sort(key=lambda status: status.times.ended or 0.0, reverse=True)
        return found[:limit]

    async def agents(self, queue: str = "default") -> Sequence[agents.Agent]:
        """Return the workers of a queue that are alive."""
        ask = functools.partial(agents.living, self._connection)
        found = {agent.token: agent for part in await self._each(queue, ask) for agent in part}
        return tuple(found.values())

    async def check(self) -> None:
        """Raise `UnfitStore` or `StoreUnavailable` when this Redis cannot be used."""
        await self._connection.check()

    async def list(
        self,
        queue: str = "default",
        *,
        states: Iterable[RunState | str] = tuple(RunState),
        workflow: str | None = None,
        tenant: str | None = None,
        cause: str | None = None,
        since: float | None = None,
        until: float | None = None,
        attributes: Attributes | None = None,
        limited: bool = False,
        limit: int = 100,
    ) -> Sequence[RunStatus]:
        """Return runs of a queue that match, at most ``limit``; see `Selection`, and `page`."""
        wanted = Selection(
            states=selection.states(states), workflow=workflow, tenant=tenant, cause=cause,
            since=since, until=until, attributes=checked(attributes or {}), limited=limited,
        )  # fmt: skip
        ask = functools.partial(
            listing.list_runs, self._connection,
            states=wanted.states, limit=limit, matches=wanted.matches, limited=limited,
        )  # fmt: skip
        found = [status for part in await self._each(queue, ask) for status in part]
        found.sort(key=lambda status: status.times.enqueued, reverse=True)
        return found[:limit]

    async def page(
        self,
        queue: str = "default",
        *,
        states: Iterable[RunState] = tuple(RunState),
        dead: bool = False,
        limited: bool = False,
        matches: Callable[[RunStatus], bool] = lambda _: True,
        limit: int = 100,
        cursor: str | None = None,
    ) -> RunPage:
        """Return some runs of a queue, and a cursor that goes on behind them.

        By state, and within a state and a lane the newest first. A page costs a bounded number of
        look-ups: it may be short, even empty, and still not be the last. ``dead``: dead letters.
        ``limited``: only runs that wait for a permit, found where they wait.
        """
        wanted = frozenset(states)
        places = paging.places_of(wanted, dead=dead, limited=limited)
        lanes = await self._queues.lanes(queue)

        def fits(status: RunStatus) -> bool:
            # What has ended stands in one place, however it ended.
            return status.state in wanted and matches(status)

        ask = functools.partial(paging.page, self._connection, lanes, places, cursor, limit, fits)
        return await self._queues.insist(ask)

    async def select(
        self, queue: str = "default", wanted: Selection | None = None, *, limit: int = MOST_SELECTED
    ) -> Sequence[RunStatus]:
        """Return runs of a queue that match, at most ``limit``, as they are met."""
        chosen = Selection() if wanted is None else wanted
        found: dict[str, RunStatus] = {}
        cursor: str | None = None
        while len(found) < limit:
            page = await self.page(
                queue,
                states=chosen.states,
                limited=chosen.limited,
                matches=chosen.matches,
                limit=limit - len(found),
                cursor=cursor,
            )
            # A run that has moved meanwhile may be met again: as it is now.
            found.update((status.id, status) for status in page.runs)
            cursor = page.cursor
            if cursor is None:
                break
        return list(found.values())

    async def layout(self, queue: str = "default") -> Layout:
        """Return how many lanes a queue has. See `resize`."""
        return await self._queues.layout(queue)

    # -- below ---------------------------------------------------------------------------------

    async def _each(self, queue: str, ask: Callable[[Lane], Awaitable[Answer]]) -> Sequence[Answer]:
        """Ask every lane of a queue."""
        return [
            await self._queues.insist(functools.partial(ask, lane))
            for lane in await self._queues.lanes(queue)
        ]
