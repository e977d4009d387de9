"""Follow a task: what it says, what it brings about, and each state that it comes to.

What a run says is told from the store's events, so every stream of a task tells the same in the
same order, on any gateway. A run says nothing when it is taken or parked: its state is looked at
as often as something is heard, and at least every second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from a2a.types.a2a_pb2 import (
    Artifact,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from millstream.client import Client, Run, RunEvent
from millstream.errors import ResultTimeout, RunCancelled, RunFailed
from millstream.model.run import RunStatus
from millstream_gateway.a2a.tasks import (
    SETTLED,
    TERMINAL,
    Tasks,
    appends,
    artifact_of,
    is_last,
    stamp,
    state_of,
)
from millstream_gateway.a2a.values import said_by_agent, struct_of
from millstream_gateway.waits import first_of

Shown = Callable[[RunEvent], object]
Update = TaskStatusUpdateEvent | TaskArtifactUpdateEvent

#: How often a state is looked at while nothing is heard: soon at first, since most runs are short.
_SOONEST_S = 0.05
_LATEST_S = 1.0
#: Where an event stands in what its run has said, in an update's metadata.
EVENT = "event"


class Watching:
    """Follows tasks. ``over`` returns when this gateway leaves: its streams go on elsewhere."""

    def __init__(self, client: Client, tasks: Tasks, over: Callable[[], Awaitable[object]]) -> None:
        self._client = client
        self._tasks = tasks
        self._over = over

    async def until_settled(
        self, run: Run, gone: Callable[[], Awaitable[object]], most_s: float
    ) -> None:
        """Return when a task has ended or asks for something, or nobody waits any more."""
        with anyio.move_on_after(most_s):
            await first_of(lambda: self._settled(run), gone, self._over)

    async def _settled(self, run: Run) -> None:
        pause_s = _SOONEST_S
        while state_of(await run.status()) not in SETTLED:
            try:
                await run.result(pause_s)
            except (RunFailed, RunCancelled, ResultTimeout):
                pause_s = min(_LATEST_S, pause_s * 1.5)

    async def updates(
        self,
        run: Run,
        task: Task,
        seen: str,
        *,
        shown: Shown,
        until: frozenset[TaskState] = TERMINAL,
    ) -> AsyncIterator[Update]:
        """Iterate over what becomes of a task, until it is in one of some states.

        It goes on behind the task as it was told, and the last event that went into that. ``shown``
        is what of an event whoever reads may see. Ends early when this gateway leaves.
        """
        # What it asked for in that state is told once more rather than not at all.
        told: tuple[int, Sequence[str]] = (task.status.state, ())
        following = Following(self._tasks, task, seen, told, bool(task.artifacts), shown)
        pause_s = _SOONEST_S
        while True:
            async with self._client.turns:
                # The state is read first: what was said before it is then still told before it.
                status = await run.status()
                said = await self._client.said(run, following.after)
                states = () if said else await following.state(status)
            for event in said:
                yield following.event(event)
            if said:
                pause_s = _SOONEST_S
                continue
            for update in states:
                yield update
            if state_of(status) in until:
                return
            if await self._left(run, following.after, pause_s):
                return
            pause_s = min(_LATEST_S, pause_s * 1.5)

    async def _left(self, run: Run, after: str, pause_s: float) -> bool:
        """Wait until there may be something to tell; return whether this gateway leaves."""
        left = False

        async def over() -> None:
            nonlocal left
            await self._over()
            left = True

        with anyio.move_on_after(pause_s):
            await first_of(lambda: self._client.until_said(run, after), over)
        return left


@dataclass(slots=True)
class Following:
    """How far somebody was told of a task, and what is told next."""

    tasks: Tasks
    task: Task
    after: str
    #: The last state that was told, and what the task asked for in it.
    told: tuple[int, Sequence[str]]
    #: Whether it has brought any artifact.
    brought: bool
    #: What of an event they may see.
    shown: Shown

    def event(self, event: RunEvent) -> Update:
        """Return the update that an event is."""
        self.after = event.id
        artifact = artifact_of(event)
        if artifact is not None:
            self.brought = True
            return self._artifact(artifact, append=appends(event), last=is_last(event))
        message = said_by_agent(
            f"{self.task.id}-{event.id}",
            self.task.id,
            self.task.context_id,
            {"name": event.name, "data": self.shown(event)},
        )
        status = TaskStatus(
            state=TaskState.TASK_STATE_WORKING, message=message, timestamp=stamp(event.at)
        )
        self.told = (TaskState.TASK_STATE_WORKING, ())
        return self._status(status, event.id)

    async def state(self, status: RunStatus) -> Sequence[Update]:
        """Return the updates that a state is; none, if it was told."""
        state = state_of(status)
        asks = status.awaits if state == TaskState.TASK_STATE_INPUT_REQUIRED else ()
        if self.told == (state, asks):
            return ()
        results = await self.tasks.result(status, bare=not self.brought)
        self.told = (state, asks)
        told = await self.tasks.status(status, self.task)
        return (*map(self._artifact, results), self._status(told))

    def _status(self, status: TaskStatus, event_id: str = "") -> TaskStatusUpdateEvent:
        update = TaskStatusUpdateEvent(
            task_id=self.task.id, context_id=self.task.context_id, status=status
        )
        if event_id:
            update.metadata.CopyFrom(struct_of({EVENT: event_id}))
        return update

    def _artifact(
        self, artifact: Artifact, *, append: bool = False, last: bool = True
    ) -> TaskArtifactUpdateEvent:
        return TaskArtifactUpdateEvent(
            task_id=self.task.id,
            context_id=self.task.context_id,
            artifact=artifact,
            append=append,
            last_chunk=last,
        )
