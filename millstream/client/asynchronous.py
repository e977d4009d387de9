"""The client for programs with an event loop.

What it is told to enqueue is safe to say twice: the id is chosen before anything is sent, so a
lost reply is answered by sending again. Concurrent calls share round trips, and everybody who
waits for a result shares one connection.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from random import Random, SystemRandom
from typing import Any, Self, TypeVar

import anyio

from millstream.client.asking import new_run
from millstream.client.handles import Enqueue, Run, RunEvent
from millstream.client.paging import RunPage, page, places_of
from millstream.client.queues import Queues
from millstream.client.telling import tell
from millstream.client.waiting import Ended
from millstream.errors import (
    IdConflict,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    UnknownRun,
    UsageError,
)
from millstream.model import ids
from millstream.model.journal import Record
from millstream.model.limits import LIMITS, Limits
from millstream.model.run import Depth, Priority, RunState, RunStatus
from millstream.store import agents, codec, journals, listing, results, runs
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.layouts import Layout

Answer = TypeVar("Answer")

#: How long the record of a run stays after its end, when it is a client that ends it.
RETENTION_S = 24 * 3600.0


class Client:
    """Enqueues runs and follows them. Use it as ``async with Client(url) as client``.

    ``patience`` is how many seconds it insists when Redis does not answer.
    """

    def __init__(
        self,
        redis: str = "redis://localhost:6379/0",
        *,
        patience: float = 5.0,
        retention: float = RETENTION_S,
        limits: Limits = LIMITS,
        connection: Connection | None = None,
        random: Random | None = None,
    ) -> None:
        self._connection = connection or Connection(redis)
        self._retention = retention
        self._limits = limits
        self._random = random or SystemRandom()
        inbox = ids.new_process_token(self._random)
        self._queues = Queues(self._connection, inbox, patience)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._stack.push_async_callback(self._close_connection)
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        self._queues.open(group)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self._queues.open(None)
        await self._stack.__aexit__(None, None, None)

    # -- enqueue -------------------------------------------------------------------------------

    async def enqueue(
        self,
        workflow: str,
        arguments: Any = None,
        *,
        id: str | None = None,
        queue: str = "default",
        priority: Priority | str = Priority.NORMAL,
        delay: float | None = None,
        tenant: str | None = None,
        timeout: float | None = None,
        version: str | None = None,
    ) -> Run:
        """Accept a run: when this returns, it will reach an end.

        The same id, workflow and arguments again return the same run, with ``created`` False;
        anything else under that id raises `IdConflict`. Raises `NotEncodable`, `PayloadTooLarge`,
        `StoreError`.
        """
        asked = Enqueue(workflow, arguments, id, queue, priority, delay, tenant, timeout, version)
        new = new_run(asked, self._limits, self._random)
        return self._handle(asked, new, await self._queues.send(queue, new))

    async def enqueue_many(self, asked: Iterable[Enqueue]) -> list[Run]:
        """Accept many runs, a few hundred in one round trip.

        An `IdConflict` is raised after the others of its batch were accepted; nothing is sent
        when one of them cannot be encoded.
        """
        wanted = [(item, new_run(item, self._limits, self._random)) for item in asked]
        by_queue: dict[str, list[runs.NewRun]] = {}
        for item, new in wanted:
            by_queue.setdefault(item.queue, []).append(new)
        for queue in by_queue:
            ids.check_queue(queue)

        # By identity: the same id may stand in the list twice, and each has an answer of its own.
        answers: dict[int, bool | str] = {}
        for queue, news in by_queue.items():
            for new, answer in await self._queues.send_all(queue, news):
                answers[builtins.id(new)] = answer

        return [self._handle(item, new, answers[builtins.id(new)]) for item, new in wanted]

    # -- follow --------------------------------------------------------------------------------

    def run(self, id: str, queue: str = "default") -> Run:
        """Return a handle on a run that was enqueued before. Nothing is asked yet."""
        return Run(self, ids.check_run_id(id), ids.check_queue(queue), created=False)

    async def result(self, run: Run, timeout: float | None = None) -> Any:
        """Return what the run returned. See `Run.result`."""
        end: Ended | None = None
        with anyio.move_on_after(timeout):
            end = await self._queues.end(run.queue, run.id)

        if end is None:
            raise ResultTimeout(run.id, timeout or 0.0)
        if isinstance(end, results.Unknown):
            raise UnknownRun(run.id, run.queue)
        if end.state is RunState.COMPLETED:
            return codec.decode(end.payload)
        if end.state is RunState.CANCELLED:
            raise RunCancelled(run.id)

        raise RunFailed(run.id, *runs.error_of(end.payload))

    async def status(self, run: Run) -> RunStatus:
        """Return what is known of the run. See `Run.status`."""
        found = await self._look(run, runs.status, None)
        if found is None:
            raise UnknownRun(run.id, run.queue)

        return found

    def events(self, run: Run, after: str = "") -> AsyncIterator[RunEvent]:
        """Iterate over what the run says, then how it ended. See `Run.events`."""
        return tell(self, run, after)

    async def said(self, run: Run, after: str = "", *, most: int = 100) -> Sequence[RunEvent]:
        """Return what a run has said after an event id, without waiting for more."""
        lane = await self._lane(run)
        ask = functools.partial(results.said, self._connection, lane, run.id, after, most)
        said = await self._queues.insist(ask)
        return [RunEvent(event.id, event.name, event.data, event.at) for event in said]

    async def until_said(self, run: Run, after: str) -> None:
        """Return when the run may have said something after an event id, or has ended."""
        await self._queues.news(await self._lane(run), run.id, after)

    async def journal(self, run: Run) -> dict[str, Record]:
        """Return the records of a run by step key."""
        return await self._look(run, journals.load, {})

    async def arguments(self, run: Run) -> Any:
        """Return the arguments a run was enqueued with."""
        return await self._look(run, runs.arguments, None)

    # -- operate -------------------------------------------------------------------------------

    async def cancel(self, run: Run) -> RunState:
        """Ask a run to end. See `Run.cancel`."""

        async def ask(lane: Lane) -> str:
            (answer,) = await runs.cancel(self._connection, lane, [run.id], self._retention)
            return answer

        answer = await self._queues.look(run.queue, run.id, ask, "")
        if not answer:
            raise UnknownRun(run.id, run.queue)

        return RunState.RUNNING if answer == "cancelling" else RunState(answer)

    async def retry(self, run: Run) -> None:
        """Start a failed or cancelled run once more. See `Run.retry`."""

        async def ask(lane: Lane) -> str:
            (answer,) = await runs.revive(self._connection, lane, [run.id])
            return answer

        answer = await self._queues.look(run.queue, run.id, ask, "")
        if not answer:
            raise UnknownRun(run.id, run.queue)
        if answer != RunState.QUEUED:
            raise UsageError(
                f"run {run.id!r} is {answer}; only failed and cancelled runs are retried"
            )

    async def depth(self, queue: str = "default") -> Depth:
        """Count the runs of a queue, at a cost that does not grow with them."""
        parts = await self._each(queue, functools.partial(runs.depth, self._connection))
        names = ("waiting", "running", "scheduled", "parked", "dead")
        counts = {name: sum(getattr(part, name) for part in parts) for name in names}
        return Depth(**counts, oldest_s=max(part.oldest_s for part in parts))

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
        limit: int = 100,
    ) -> Sequence[RunStatus]:
        """Return runs of a queue that match, at most ``limit``."""

        def matches(status: RunStatus) -> bool:
            return (workflow is None or status.workflow == workflow) and (
                tenant is None or status.tenant == tenant
            )

        try:
            wanted = frozenset(RunState(state) for state in states)
        except ValueError as error:
            raise UsageError(f"{error}; there are {', '.join(RunState)}") from None

        ask = functools.partial(
            listing.list_runs, self._connection, states=wanted, limit=limit, matches=matches
        )
        found = [status for part in await self._each(queue, ask) for status in part]
        found.sort(key=lambda status: status.times.enqueued, reverse=True)
        return found[:limit]

    async def page(
        self,
        queue: str = "default",
        *,
        states: Iterable[RunState] = tuple(RunState),
        dead: bool = False,
        matches: Callable[[RunStatus], bool] = lambda _: True,
        limit: int = 100,
        cursor: str | None = None,
    ) -> RunPage:
        """Return some runs of a queue, and a cursor that goes on behind them.

        By state, and within a state and a lane the newest first. A page costs a bounded number of
        look-ups: it may be short, even empty, and still not be the last. ``dead``: dead letters.
        """
        places = places_of(frozenset(states), dead=dead)
        lanes = await self._queues.lanes(queue)
        ask = functools.partial(page, self._connection, lanes, places, cursor, limit, matches)
        return await self._queues.insist(ask)

    async def layout(self, queue: str = "default") -> Layout:
        """Return how many lanes a queue has. See `resize`."""
        return await self._queues.layout(queue)

    async def resize(self, queue: str, *, lanes: int) -> Layout:
        """Give a queue another number of lanes, and return how it is laid out then.

        Lanes spread a queue over the masters of a cluster. Runs stay where they were accepted;
        new ones are spread over all lanes, which workers begin to serve within a second. When it
        was cut off by a `StoreError`, say it again. Raises `UsageError` at a bound.
        """
        return await self._queues.resize(queue, lanes)

    # -- below ---------------------------------------------------------------------------------

    async def _each(self, queue: str, ask: Callable[[Lane], Awaitable[Answer]]) -> Sequence[Answer]:
        """Ask every lane of a queue."""
        return [
            await self._queues.insist(functools.partial(ask, lane))
            for lane in await self._queues.lanes(queue)
        ]

    async def _look(
        self,
        run: Run,
        ask: Callable[[Connection, Lane, str], Awaitable[Answer]],
        missing: Answer,
    ) -> Answer:
        """Ask wherever a run may be, until the answer is another than ``missing``."""

        async def one(lane: Lane) -> Answer:
            return await ask(self._connection, lane, run.id)

        return await self._queues.look(run.queue, run.id, one, missing)

    async def _lane(self, run: Run) -> Lane:
        async def ask(lane: Lane) -> Lane | None:
            return lane if await runs.status(self._connection, lane, run.id) else None

        found = await self._queues.look(run.queue, run.id, ask, None)
        if found is None:
            raise UnknownRun(run.id, run.queue)

        return found

    def _handle(self, asked: Enqueue, new: runs.NewRun, answer: bool | str) -> Run:
        if isinstance(answer, str):
            raise IdConflict(new.id, asked.queue, answer)

        # An id of our own making cannot have been here: the first sending's reply was lost.
        return Run(self, new.id, asked.queue, created=answer or asked.id is None)

    async def _close_connection(self) -> None:
        with anyio.move_on_after(2, shield=True):
            await self._connection.aclose()
