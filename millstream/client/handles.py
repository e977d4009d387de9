"""A handle on one run, and the values that go in and come out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millstream.model.run import Priority, RunState, RunStatus

if TYPE_CHECKING:
    from millstream.client.asynchronous import Client


@dataclass(frozen=True, slots=True)
class Enqueue:
    """One run to be enqueued, for `Client.enqueue_many`."""

    workflow: str
    arguments: Any = None
    id: str | None = None
    queue: str = "default"
    priority: Priority | str = Priority.NORMAL
    #: Seconds before it may start.
    delay: float | None = None
    tenant: str | None = None
    #: Bounds the running time of one attempt in seconds; overrides the workflow's own.
    timeout: float | None = None
    #: The version to run; None: whatever the worker that takes it registered last.
    version: str | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something a run said with ``ctx.emit``, or, as the last event, how it ended."""

    #: Where in the run's events it stands; an iteration can go on after it.
    id: str
    name: str
    data: Any
    #: Epoch seconds by the clock of Redis.
    at: float
    #: Whether it is how the run ended: ``name`` is its state, ``data`` its error.
    final: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as its caller holds it. Cheap to make and to throw away."""

    client: Client
    id: str
    queue: str
    #: False when the id was already here with the same workflow and arguments; also when it was
    #: this very call that had brought it, and only the reply was lost.
    created: bool = True

    async def result(self, timeout: float | None = None) -> Any:
        """Return what the workflow returned, as plain JSON values.

        Raises `RunFailed`, `RunCancelled`, `ResultTimeout` after ``timeout`` seconds, or
        `UnknownRun`.
        """
        return await self.client.result(self, timeout)

    async def status(self) -> RunStatus:
        """Return what is known of the run. Raises `UnknownRun`."""
        return await self.client.status(self)

    async def cancel(self) -> RunState:
        """Ask the run to end; return its state: cancelled, running (it was told), or its end."""
        return await self.client.cancel(self)

    async def retry(self) -> None:
        """Start a failed or cancelled run once more, from where its journal ends."""
        await self.client.retry(self)

    def events(self, after: str = "") -> AsyncIterator[RunEvent]:
        """Iterate over what the run says, until it has ended.

        ``after`` is the id of an event: what it said since is told, whoever asked before. Of a run
        that says much the oldest events are dropped (see `Limits.events`).
        """
        return self.client.events(self, after)
