"""What other agents can ask of us, whichever binding they speak: each skill is a workflow.

A message begins a durable run, or answers one that waits. Nothing of it is kept here, so any
gateway answers any request about any task, and a task goes on whether somebody listens or not. A
message that is sent again is the same run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.server.request_handlers.request_handler import validate_request_params
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
    TaskStatus,
)
from a2a.utils.errors import TaskNotCancelableError, UnsupportedOperationError
from a2a.utils.task import apply_history_length, validate_history_length

from millstream.client import Client, Run
from millstream.events import Emit, MessageReceived
from millstream.model.run import RunStatus
from millstream_gateway.a2a.callers import Caller, caller_of
from millstream_gateway.a2a.cards import Cards
from millstream_gateway.a2a.faults import translated
from millstream_gateway.a2a.intake import Intake
from millstream_gateway.a2a.listing import Listing
from millstream_gateway.a2a.pushes import Pushes
from millstream_gateway.a2a.seeing import visible
from millstream_gateway.a2a.stopping import Stopping
from millstream_gateway.a2a.tasks import SETTLED, TERMINAL, Tasks, changed_at, stamp, state_of
from millstream_gateway.a2a.watching import Watching
from millstream_gateway.a2a.wishing import Wishing
from millstream_gateway.auth.rates import Places
from millstream_gateway.rest.stream import shown_to

#: A caller who waits for a task gets it as it is after so many seconds; see the page on A2A.
MOST_WAIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What an agent is made of."""

    client: Client
    tasks: Tasks
    intake: Intake
    watching: Watching
    listing: Listing
    stopping: Stopping
    pushes: Pushes
    cards: Cards
    places: Places
    emit: Emit
    mono: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _Opening:
    """What a stream begins with, and the event behind which it goes on."""

    run: Run
    task: Task
    seen: str


class Agent(Wishing):
    """Answers what the bindings ask."""

    def __init__(self, rooms: Rooms) -> None:
        super().__init__(rooms.client, rooms.tasks, rooms.pushes)
        self._rooms = rooms

    # -- messages ------------------------------------------------------------------------------

    @validate_request_params
    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task:
        """Begin a task or answer it; wait for it, unless told not to."""
        began = self._rooms.mono()
        caller = caller_of(context)
        validate_history_length(params.configuration)
        with translated():
            run = (await self._rooms.intake.take(caller, params)).run
            if not params.configuration.return_immediately:
                with self._rooms.places.hold(caller.principal.name):
                    await self._rooms.watching.until_settled(run, caller.gone, MOST_WAIT_S)
            task = await self._read(caller, run)
        self._told(caller, "send", began)
        return apply_history_length(task, params.configuration)

    @validate_request_params
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Begin a task or answer it, and tell what becomes of it until it is another's turn."""
        began = self._rooms.mono()
        caller = caller_of(context)
        with translated():
            validate_history_length(params.configuration)
            with self._rooms.places.hold(caller.principal.name):
                opening = await self._opening(caller, params)
                self._told(caller, "stream", began)
                yield apply_history_length(opening.task, params.configuration)
                async for update in self._followed(
                    caller, opening.run, opening.task, opening.seen, SETTLED
                ):
                    yield update

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Tell where a task is, and what becomes of it until its end."""
        caller = caller_of(context)
        with translated(), self._rooms.places.hold(caller.principal.name):
            run, status = await self._visible(caller, params.id)
            if state_of(status) in TERMINAL:
                raise UnsupportedOperationError(f"the task has ended: {status.state}")
            async with self._rooms.client.turns:
                talk = await self._rooms.tasks.talk(run)
                task, seen = await self._rooms.tasks.snapshot(status, caller.served, talk)
            yield task
            async for update in self._followed(caller, run, task, seen, TERMINAL):
                yield update

    async def _followed(
        self, caller: Caller, run: Run, task: Task, seen: str, until: frozenset[TaskState]
    ) -> AsyncGenerator[Event]:
        if task.status.state in until:
            return
        shown = shown_to(caller.principal, run.queue)
        updates = self._rooms.watching.updates(run, task, seen, shown=shown, until=until)
        async with aclosing(updates) as told:  # type: ignore[type-var]  # it is a generator
            async for update in told:
                yield update

    async def _opening(self, caller: Caller, params: SendMessageRequest) -> _Opening:
        """Take a message, and return what its stream begins with."""
        tasks = self._rooms.tasks
        before, seen, since = Task(), "", 0.0
        if params.message.task_id:
            # What the answer sets off is told, however soon it comes: so this is read before it.
            run, status = await self._visible(caller, params.message.task_id)
            before, seen = await tasks.snapshot(status, caller.served, await tasks.talk(run))
            since = changed_at(status)
        taken = await self._rooms.intake.take(caller, params)
        status, talk = await taken.run.status(), await tasks.talk(taken.run)
        if not taken.new:
            task, seen = await tasks.snapshot(status, caller.served, talk)
            return _Opening(taken.run, task, seen)
        # It may have ended meanwhile: the stream tells all of it, from when it was accepted.
        task = await tasks.bare(status, caller.served, talk)
        task.artifacts.extend(before.artifacts)
        answered = bool(params.message.task_id)
        # A signal may come before anybody has begun the run.
        begun = answered and before.status.state != TaskState.TASK_STATE_SUBMITTED
        state = TaskState.TASK_STATE_WORKING if begun else TaskState.TASK_STATE_SUBMITTED
        at = stamp(since if answered else status.times.enqueued)
        task.status.CopyFrom(TaskStatus(state=state, timestamp=at))
        return _Opening(taken.run, task, seen)

    # -- tasks ---------------------------------------------------------------------------------

    @validate_request_params
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        """Return a task as it is."""
        validate_history_length(params)
        caller = caller_of(context)
        with translated():
            run, _ = await self._visible(caller, params.id)
            return apply_history_length(await self._read(caller, run), params)

    @validate_request_params
    async def on_list_tasks(
        self, params: ListTasksRequest, context: ServerCallContext
    ) -> ListTasksResponse:
        """Return a page of tasks."""
        with translated():
            return await self._rooms.listing.page(caller_of(context), params)

    @validate_request_params
    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        """Ask a task to end, and wait for that a moment."""
        caller = caller_of(context)
        with translated():
            run, status = await self._visible(caller, params.id)
            if state_of(status) in TERMINAL:
                raise TaskNotCancelableError(f"the task has ended: {status.state}")
            await self._rooms.stopping.stop(caller, run)
            return await self._read(caller, run)

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """Return the card with what the caller in particular can have done."""
        del params
        return await self._rooms.cards.extended(caller_of(context))

    # -- below ---------------------------------------------------------------------------------

    async def _visible(self, caller: Caller, task_id: str) -> tuple[Run, RunStatus]:
        return await visible(self._rooms.client, caller, task_id)

    async def _read(self, caller: Caller, run: Run) -> Task:
        status = await run.status()
        return await self._rooms.tasks.task(
            status, caller.served, await self._rooms.tasks.talk(run)
        )

    def _told(self, caller: Caller, kind: str, began: float) -> None:
        took_s = self._rooms.mono() - began
        self._rooms.emit(MessageReceived(kind=kind, sender=caller.kind, took_s=took_s))
