"""The client for programs without an event loop: the same verbs, blocking.

It runs the asynchronous client on an event loop in a thread of its own, so it can be used from
any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from millstream.client.asynchronous import Client
from millstream.client.handles import Enqueue, Run, RunEvent
from millstream.client.overview import MOST_SELECTED
from millstream.client.paging import RunPage
from millstream.client.synchronous_schedules import SyncSchedules
from millstream.client.synchronous_trials import SyncTrials
from millstream.errors import UsageError
from millstream.model.approval import OpenApproval
from millstream.model.journal import Record
from millstream.model.run import Depth, RunState, RunStatus
from millstream.model.selection import Selection
from millstream.store.agents import Agent
from millstream.store.layouts import Layout


@dataclass(frozen=True, slots=True)
class SyncRun:
    """A run, as its caller holds it. See `millstream.Run`."""

    portal: BlockingPortal
    run: Run

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run.id

    @property
    def queue(self) -> str:
        """The queue it is in."""
        return self.run.queue

    @property
    def created(self) -> bool:
        """False when the id was already here with the same workflow and arguments."""
        return self.run.created

    def result(self, timeout: float | None = None) -> Any:
        """Return what the workflow returned. See `Run.result`."""
        return self.portal.call(self.run.result, timeout)

    def status(self) -> RunStatus:
        """Return what is known of the run."""
        return self.portal.call(self.run.status)

    def cancel(self) -> RunState:
        """Ask the run to end."""
        return self.portal.call(self.run.cancel)

    def retry(self) -> None:
        """Start a failed or cancelled run once more."""
        self.portal.call(self.run.retry)

    def fork(self, from_step: str, *, id: str | None = None, version: str | None = None) -> SyncRun:
        """Begin another run with what this one recorded before a step. See `Run.fork`."""
        forked = self.portal.call(partial(self.run.fork, from_step, id=id, version=version))
        return SyncRun(self.portal, forked)

    def signal(self, name: str, payload: Any = None, *, id: str | None = None) -> None:
        """Send the run a signal. See `Run.signal`."""
        self.portal.call(partial(self.run.signal, name, payload, id=id))

    def approve(
        self, question: str | None = None, approved: bool = True, **answer: str | None
    ) -> None:
        """Answer a question of the run. See `Run.approve`."""
        self.portal.call(partial(self.run.approve, question, approved, **answer))

    def answer(self, content: Mapping[str, Any], question: str | None = None) -> None:
        """Give a tool what it asks for. See `Run.answer`."""
        self.portal.call(self.run.answer, content, question)

    def resolve(self, step: str, verdict: str | Mapping[str, Any]) -> None:
        """Say what became of a tool call. See `Run.resolve`."""
        self.portal.call(self.run.resolve, step, verdict)

    def events(self, after: str = "") -> Iterator[RunEvent]:
        """Iterate over what the run says, until it has ended."""
        events = self.run.events(after)
        while True:
            try:
                yield self.portal.call(events.__anext__)
            except StopAsyncIteration:
                return


class SyncClient:
    """Enqueues runs and follows them. Use it as ``with SyncClient(url) as client``."""

    def __init__(self, redis: str = "redis://localhost:6379/0", **options: Any) -> None:
        self._open = partial(Client, redis, **options)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._client: Client | None = None

    def __enter__(self) -> Self:
        self._portal = self._stack.enter_context(start_blocking_portal())
        client = self._portal.call(self._open)
        self._client = self._stack.enter_context(self._portal.wrap_async_context_manager(client))
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stack.close()
        self._client = self._portal = None

    def enqueue(self, workflow: str, arguments: Any = None, **options: Any) -> SyncRun:
        """Accept a run. See `Client.enqueue`."""
        portal, client = self._parts()
        run = portal.call(partial(client.enqueue, workflow, arguments, **options))
        return SyncRun(portal, run)

    def enqueue_many(self, asked: Iterable[Enqueue]) -> list[SyncRun]:
        """Accept many runs. See `Client.enqueue_many`."""
        portal, client = self._parts()
        return [SyncRun(portal, run) for run in portal.call(client.enqueue_many, list(asked))]

    def run(self, id: str, queue: str = "default") -> SyncRun:
        """Return a handle on a run that was enqueued before."""
        portal, client = self._parts()
        return SyncRun(portal, client.run(id, queue))

    @property
    def schedules(self) -> SyncSchedules[SyncRun]:
        """What is run again and again. See `Client.schedules`."""
        portal, client = self._parts()
        return SyncSchedules(portal, client.schedules, partial(SyncRun, portal))

    @property
    def trials(self) -> SyncTrials:
        """Versions of workflows that are tried out. See `Client.trials`."""
        portal, client = self._parts()
        return SyncTrials(portal, client.trials)

    def depth(self, queue: str = "default") -> Depth:
        """Count the runs of a queue."""
        portal, client = self._parts()
        return portal.call(client.depth, queue)

    def list(self, queue: str = "default", **filters: Any) -> Sequence[RunStatus]:
        """Return runs of a queue that match. See `Client.list`."""
        portal, client = self._parts()
        return portal.call(partial(client.list, queue, **filters))

    def page(self, queue: str = "default", **filters: Any) -> RunPage:
        """Return some runs of a queue, and a cursor that goes on. See `Client.page`."""
        portal, client = self._parts()
        return portal.call(partial(client.page, queue, **filters))

    def dead(self, queue: str = "default", *, limit: int = 100) -> Sequence[RunStatus]:
        """Return the dead letters of a queue. See `Client.dead`."""
        portal, client = self._parts()
        return portal.call(partial(client.dead, queue, limit=limit))

    def select(
        self, queue: str = "default", wanted: Selection | None = None, *, limit: int = MOST_SELECTED
    ) -> Sequence[RunStatus]:
        """Return runs of a queue that match, as they are met. See `Client.select`."""
        portal, client = self._parts()
        return portal.call(partial(client.select, queue, wanted, limit=limit))

    def cancel_many(self, queue: str, ids: Iterable[str]) -> Mapping[str, str]:
        """Ask runs to end. See `Client.cancel_many`."""
        portal, client = self._parts()
        return portal.call(client.cancel_many, queue, ids)

    def retry_many(self, queue: str, ids: Iterable[str]) -> Mapping[str, str]:
        """Start failed and cancelled runs once more. See `Client.retry_many`."""
        portal, client = self._parts()
        return portal.call(client.retry_many, queue, ids)

    def pause(self, queue: str = "default") -> bool:
        """Have workers take nothing new from a queue. See `Client.pause`."""
        portal, client = self._parts()
        return portal.call(client.pause, queue)

    def resume(self, queue: str = "default") -> bool:
        """Let a paused queue go on. See `Client.resume`."""
        portal, client = self._parts()
        return portal.call(client.resume, queue)

    def approvals(self, queue: str = "default", *, limit: int = 100) -> Sequence[OpenApproval]:
        """Return the open questions of a queue. See `Client.approvals`."""
        portal, client = self._parts()
        return portal.call(partial(client.approvals, queue, limit=limit))

    def questions(self, status: RunStatus) -> Sequence[OpenApproval]:
        """Return what a run asks people. See `Client.questions`."""
        portal, client = self._parts()
        return portal.call(client.questions, status)

    def journal(self, run: SyncRun) -> dict[str, Record]:
        """Return what a run has recorded, by step key. See `Client.journal`."""
        portal, client = self._parts()
        return portal.call(client.journal, run.run)

    def arguments(self, run: SyncRun) -> Any:
        """Return what a run was enqueued with. See `Client.arguments`."""
        portal, client = self._parts()
        return portal.call(client.arguments, run.run)

    def agents(self, queue: str = "default") -> Sequence[Agent]:
        """Return the workers of a queue that are alive. See `Client.agents`."""
        portal, client = self._parts()
        return portal.call(client.agents, queue)

    def check(self) -> None:
        """Raise an error when this Redis cannot be used. See `Client.check`."""
        portal, client = self._parts()
        portal.call(client.check)

    def layout(self, queue: str = "default") -> Layout:
        """Return how many lanes a queue has. See `Client.layout`."""
        portal, client = self._parts()
        return portal.call(client.layout, queue)

    def resize(self, queue: str, *, lanes: int) -> Layout:
        """Give a queue another number of lanes. See `Client.resize`."""
        portal, client = self._parts()
        return portal.call(partial(client.resize, queue, lanes=lanes))

    def limit_depth(self, queue: str, *, depth: int | None) -> None:
        """Let a queue hold at most so many waiting runs. See `Client.limit_depth`."""
        portal, client = self._parts()
        portal.call(partial(client.limit_depth, queue, depth=depth))

    def _parts(self) -> tuple[BlockingPortal, Client]:
        if self._portal is None or self._client is None:
            raise UsageError("the client is not open; use it as: with SyncClient(url) as client")

        return self._portal, self._client
