"""A handle on one run, and the values that go in and come out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from millstream.model.approval import Approval
from millstream.model.attributes import Attributes
from millstream.model.progress import EventKind
from millstream.model.run import Priority, RunState, RunStatus

if TYPE_CHECKING:
    from millstream.client.asynchronous import Client


class Enqueue(msgspec.Struct, frozen=True, gc=False):
    """One run to be enqueued, for `Client.enqueue_many`. Cheap to make: there may be many."""

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
    #: The ``traceparent`` of whoever asks: the run becomes a part of that trace.
    trace: str | None = None
    #: A few words to find it by, such as ``{"customer": "42"}``.
    attributes: Attributes = msgspec.field(default_factory=dict)
    #: Whoever names this within ``window`` seconds gets the run of whoever came first.
    dedupe: str | None = None
    #: Whoever names this gives the run other arguments until it begins: when nobody has for
    #: ``window`` seconds, or ``longest`` seconds after the first (ten windows, unless said).
    debounce: str | None = None
    window: float | None = None
    longest: float | None = None
    #: Runs of one key stand in one lane, so that limits and turns hold for all of them.
    lane_key: str | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that a run said, or, as the last event, how it ended.

    By ``kind``: what the workflow emitted; a step that was ``started``, ``retried`` or ``ended``;
    a piece of ``text`` of a model; and, in place of events that are not kept any more, how many
    they were (``{"events": 12}``, or None where that is not known).
    """

    #: Where in the run's events it stands; an iteration can go on after it.
    id: str
    name: str
    data: Any
    #: Epoch seconds by the clock of Redis.
    at: float
    #: Whether it is how the run ended: ``name`` is its state, ``data`` its error.
    final: bool = False
    kind: EventKind = EventKind.EMIT


class Run(msgspec.Struct, frozen=True, gc=False):
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

    async def signal(self, name: str, payload: Any = None, *, id: str | None = None) -> None:
        """Send the run a signal, for `Context.wait_signal`. It is kept until the run takes it.

        One of the same ``id`` is taken once, however often it is sent. Raises `UnknownRun`,
        `RunEnded`, `SignalsFull`, `PayloadTooLarge`.
        """
        await self.client.speaker.signal(self.queue, self.id, name, payload, id)

    async def approve(
        self,
        question: str | None = None,
        approved: bool = True,
        *,
        by: str | None = None,
        comment: str | None = None,
    ) -> None:
        """Answer a question of the run, named by its token or its key; None: the only one.

        The first answer stands. What a tool asks is accepted or declined; where it wants more
        than that, `answer` says it. Raises `UsageError` when there is no such open question.
        """
        answer = Approval(approved=approved, by=by, comment=comment)
        await self.client.speaker.approve(self.queue, self.id, question, answer)

    async def answer(self, content: Mapping[str, Any], question: str | None = None) -> None:
        """Give a tool what it asks for, named by the key of its step; None: the only question.

        ``content`` fills in the form that `Client.approvals` lists; where a tool asks for several
        things at once, it has an object for each by its name. The first answer stands. Raises
        `UsageError` when there is no such open question, or the content does not fit it.
        """
        await self.client.speaker.answer(self.queue, self.id, question, content)

    async def resolve(self, step: str, verdict: str | Mapping[str, Any]) -> None:
        """Say what became of a tool call whose outcome nobody knows.

        ``"retry"`` sends it again, ``"fail"`` gives it up, ``{"result": ...}`` is its answer. The
        first word stands. Raises `UsageError` when the step is not in doubt.
        """
        await self.client.speaker.resolve(self.queue, self.id, step, verdict)

    async def fork(
        self, from_step: str, *, id: str | None = None, version: str | None = None
    ) -> Run:
        """Begin another run with what this one recorded before a step, named by its key.

        It has the same workflow, arguments and version, unless ``version`` is another one. This
        run is not touched. Raises `UnknownStep`, `UnknownRun` or `IdConflict`.
        """
        return await self.client.fork(self, from_step, id=id, version=version)

    def events(self, after: str = "") -> AsyncIterator[RunEvent]:
        """Iterate over what the run says, until it has ended.

        ``after`` is the id of an event: what it said since is told, whoever asked before. Of a run
        that says much the oldest events are dropped (see `Limits.events`), and where they stood an
        event of the kind ``left_out`` says so.
        """
        return self.client.events(self, after)
