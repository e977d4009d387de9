"""A run as a task: its state, what it asks, what it has brought about, what was said to it.

    scheduled, queued       submitted          completed   completed, with the result as an artifact
    running, retried        working            failed      failed, with the error as a message
    parked for an answer    input-required     cancelled   canceled
    parked otherwise        working

Nothing is kept here: whichever gateway is asked reads it from the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from a2a.types.a2a_pb2 import Artifact, Message, Task, TaskState, TaskStatus
from google.protobuf.json_format import Parse, ParseDict, ParseError
from google.protobuf.timestamp_pb2 import Timestamp

from millstream.client import Client, Run, RunEvent
from millstream.errors import ResultTimeout, RunCancelled, RunFailed
from millstream.model.approval import OpenApproval
from millstream.model.message import MessageKind
from millstream.model.run import RunState, RunStatus
from millstream.store import conversations
from millstream.store.connection import Connection
from millstream.store.conversations import Conversation, Subject
from millstream_gateway.a2a.names import task_id_of, thread_of
from millstream_gateway.a2a.values import part_of, said_by_agent, struct_of

#: A workflow that says this (``ctx.emit``) brings an artifact, which is the event's data.
ARTIFACT = "artifact"
#: The artifact that is the value a run returned.
RESULT = "result"
TERMINAL = frozenset(
    {TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_CANCELED}
)
#: Reached with these a caller who waits has its turn.
SETTLED = TERMINAL | {TaskState.TASK_STATE_INPUT_REQUIRED}
#: An end that stands is read within so many seconds, or the store is away.
_READ_S = 10.0
#: Events that are looked through for artifacts; a run keeps no more than about as many.
_MOST_EVENTS = 2_000
_PAGE = 200

_STATES: Mapping[RunState, TaskState] = {
    RunState.SCHEDULED: TaskState.TASK_STATE_SUBMITTED,
    RunState.QUEUED: TaskState.TASK_STATE_SUBMITTED,
    RunState.RUNNING: TaskState.TASK_STATE_WORKING,
    RunState.PARKED: TaskState.TASK_STATE_WORKING,
    RunState.COMPLETED: TaskState.TASK_STATE_COMPLETED,
    RunState.FAILED: TaskState.TASK_STATE_FAILED,
    RunState.CANCELLED: TaskState.TASK_STATE_CANCELED,
}
#: What somebody outside can say to a run. A child's end is not among it.
ANSWERABLE = (
    MessageKind.APPROVAL, MessageKind.SIGNAL, MessageKind.RESOLUTION, MessageKind.INPUT,
)  # fmt: skip
_ASKS = tuple(kind.of("") for kind in ANSWERABLE)


def state_of(status: RunStatus) -> TaskState:
    """Return the state of a task."""
    if status.state is RunState.PARKED and any(name.startswith(_ASKS) for name in status.awaits):
        return TaskState.TASK_STATE_INPUT_REQUIRED
    begun = status.times.started is not None or status.attempt > 1
    if begun and status.state in {RunState.QUEUED, RunState.SCHEDULED}:
        return TaskState.TASK_STATE_WORKING
    return _STATES[status.state]


def changed_at(status: RunStatus) -> float:
    """Return when a task came to its state, as well as a run tells, in epoch seconds."""
    times = status.times
    return times.ended or times.started or times.enqueued


def awaited(status: RunStatus, kind: MessageKind) -> list[str]:
    """Return the names of the messages of one kind that a run waits for."""
    mark = kind.of("")
    return [name[len(mark) :] for name in status.awaits if name.startswith(mark)]


class Tasks:
    """Reads runs as tasks."""

    def __init__(self, client: Client, connection: Connection) -> None:
        self._client = client
        self._connection = connection

    async def talk(self, run: Run) -> Conversation:
        """Return what was said to a run. Raises `StoreError`."""
        return await conversations.read(self._connection, Subject(run.queue, run.id))

    async def task(
        self,
        status: RunStatus,
        served: Sequence[str],
        talk: Conversation,
        *,
        artifacts: bool = True,
    ) -> Task:
        """Return a run as a task. Raises `StoreError`."""
        task = await self.bare(status, served, talk)
        if artifacts:
            brought, _ = await self._brought(status)
            task.artifacts.extend(brought)
        return task

    async def snapshot(
        self, status: RunStatus, served: Sequence[str], talk: Conversation
    ) -> tuple[Task, str]:
        """Return a run as a task, and the id of the last event that went into it."""
        task = await self.bare(status, served, talk)
        brought, seen = await self._brought(status)
        task.artifacts.extend(brought)
        return task, seen

    async def bare(self, status: RunStatus, served: Sequence[str], talk: Conversation) -> Task:
        """Return a run as a task, without what it has brought about."""
        task = Task(
            id=task_id_of(status.queue, status.id, served), context_id=context_of(status, talk)
        )
        task.status.CopyFrom(await self.status(status, task))
        task.history.extend(_messages(talk, task))
        task.metadata.CopyFrom(struct_of({"workflow": status.workflow, "attempt": status.attempt}))
        return task

    async def status(self, status: RunStatus, task: Task) -> TaskStatus:
        """Return the status of a task, with what it asks or why it failed."""
        found = TaskStatus(state=state_of(status), timestamp=stamp(changed_at(status)))
        message_id = f"{task.id}-{found.timestamp.ToMilliseconds()}"
        if found.state == TaskState.TASK_STATE_INPUT_REQUIRED:
            asked = _asked(status, await self._client.questions(status))
            found.message.CopyFrom(said_by_agent(message_id, task.id, task.context_id, *asked))
        elif found.state == TaskState.TASK_STATE_FAILED and status.error:
            message = said_by_agent(message_id, task.id, task.context_id, status.error)
            found.message.CopyFrom(message)
        return found

    async def _brought(self, status: RunStatus) -> tuple[list[Artifact], str]:
        """Return what a run has brought about so far, and the last event that was looked at."""
        run = self._client.run(status.id, status.queue)
        found: dict[str, Artifact] = {}
        after = ""
        for _ in range(_MOST_EVENTS // _PAGE):
            said = await self._client.said(run, after, most=_PAGE)
            for event in said:
                after = event.id
                artifact = artifact_of(event)
                if artifact is not None:
                    _joined(found, artifact, appended=appends(event))
            if not said:
                break
        result = await self.result(status, bare=not found)
        return [*found.values(), *result], after

    async def result(self, status: RunStatus, *, bare: bool) -> list[Artifact]:
        """Return the value of a completed run as an artifact.

        None is no value where a run has brought other artifacts, and is one where it is ``bare``.
        """
        if status.state is not RunState.COMPLETED:
            return []
        try:
            value = await self._client.run(status.id, status.queue).result(_READ_S)
        except (ResultTimeout, RunFailed, RunCancelled):
            return []  # it was started once more, just now
        if value is None and not bare:
            return []
        return [Artifact(artifact_id=RESULT, name=RESULT, parts=[part_of(value)])]


def context_of(status: RunStatus, talk: Conversation) -> str:
    """Return the conversation of a run; one that nobody began as a task is one of its own."""
    return talk.context or thread_of(status.tenant, "", f"{status.queue}/{status.id}").context_id


def artifact_of(event: RunEvent) -> Artifact | None:
    """Return the artifact that an event is; None for one that is no artifact.

    Its data is an artifact as the protocol spells it; parts may be left out for plain values.
    """
    if event.name != ARTIFACT or event.final:
        return None
    data = dict(event.data) if isinstance(event.data, Mapping) else {"value": event.data}
    parts = [part_of(data["value"])] if "value" in data else []
    kept = {name: data[name] for name in _FIELDS if name in data}
    artifact = Artifact()
    try:
        ParseDict(kept, artifact, ignore_unknown_fields=True)
    except ParseError:
        # It is not spelt as one: better shown as it is than not at all.
        artifact, parts = Artifact(), [part_of(event.data)]
    artifact.artifact_id = artifact.artifact_id or event.id
    artifact.parts.extend(parts)
    return artifact


_FIELDS = ("artifactId", "name", "description", "parts", "metadata", "extensions")


def appends(event: RunEvent) -> bool:
    """Whether an artifact goes on with an earlier one of the same id."""
    return isinstance(event.data, Mapping) and event.data.get("append") is True


def is_last(event: RunEvent) -> bool:
    """Whether an artifact is whole with this."""
    return not isinstance(event.data, Mapping) or event.data.get("lastChunk") is not False


def stamp(at: float) -> Timestamp:
    """Return a time as the protocol has it, to the millisecond."""
    found = Timestamp()
    found.FromMilliseconds(round(at * 1000))
    return found


def _joined(found: dict[str, Artifact], artifact: Artifact, *, appended: bool) -> None:
    known = found.get(artifact.artifact_id)
    if appended and known is not None:
        known.parts.extend(artifact.parts)
    else:
        found[artifact.artifact_id] = artifact


def _messages(talk: Conversation, task: Task) -> list[Message]:
    messages = []
    for _, data in talk.messages:
        message = Parse(data, Message(), ignore_unknown_fields=True)
        message.task_id, message.context_id = task.id, task.context_id
        messages.append(message)
    return messages


def _asked(status: RunStatus, questions: Sequence[OpenApproval]) -> list[Any]:
    """Return what a task asks: for people as text, for programs as data."""
    signals = awaited(status, MessageKind.SIGNAL)
    doubts = awaited(status, MessageKind.RESOLUTION)
    texts = [question.question for question in questions]
    texts += [f"waits for {name}" for name in signals]
    texts += [f"nobody knows whether {step} ran: retry, fail or give its result" for step in doubts]
    asks: list[dict[str, Any]] = [
        {
            "answers": each.key,
            "kind": "approval" if each.asks is None else "input",
            "question": each.question,
            "data": each.data if each.asks is None else each.asks,
        }
        for each in questions
    ]
    asks += [{"answers": name, "kind": "signal"} for name in signals]
    asks += [{"answers": step, "kind": "resolution"} for step in doubts]
    return ["\n".join(texts), {"asks": asks}]
