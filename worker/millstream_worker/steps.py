"""Do a step once, and remember it: look in the journal, act, record, and only then go on.

Everything a workflow does to the world passes here. The order is the promise: what is recorded is
never done again, what is not recorded may be done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from millstream.errors import SealKeyMissing, StepError, StepFailed, Suspended, said
from millstream.events import StepEnded, StepRetried
from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.model.run import Delivery
from millstream.model.trace import Place, SpanContext, parsed
from millstream.store import codec, commits, records
from millstream.store.commits import Child, Item, Verdict
from millstream_worker.environment import Environment
from millstream_worker.excerpts import excerpt
from millstream_worker.failures import FAILURES
from millstream_worker.held import Held, Stop
from millstream_worker.progress import Progress
from millstream_worker.telling import SCORE, scores

#: Kinds whose answers may be as long as a tool's.
_LARGE = {StepKind.TOOL, StepKind.INFER, StepKind.AGENT}


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A step as it was called: what its record will say."""

    key: str
    kind: StepKind
    target: str
    digest: str
    #: What it is called with, as far as its record has that for people to see.
    given: Any = None


class Recorder:
    """Reads and writes the records of one run."""

    def __init__(
        self, held: Held, environment: Environment, wall: Callable[[], float], queue: str
    ) -> None:
        self._held = held
        #: What the run is executed with.
        self.environment = environment
        self.wall = wall
        self._queue = queue
        #: None: whoever watches is told nothing of steps.
        self.progress = Progress(held) if held.tells_steps else None

    @property
    def is_ready(self) -> bool:
        """Whether `ready` would return at once."""
        return self._held.clear and self.environment.lease.trusted

    async def ready(self) -> None:
        """Return once something new may be started; raise `Suspended` when nothing may."""
        await self._held.drawn()
        self._held.tell()
        await self.environment.lease.until_trusted()
        if self._held.stopped is not None:
            raise Suspended

    def trace_of(self, step: Step) -> SpanContext | None:
        """Return where a step stands in its trace; None when nothing is traced here."""
        take = parsed(self._held.delivery.trace) if self.environment.traces is not None else None
        return None if take is None else take.under("step", step.key)

    def trace_for(self, step: Step) -> str | None:
        """Return the trace of a run that a step starts; where nothing is traced, the caller's."""
        trace = self.trace_of(step)
        return self._held.delivery.trace if trace is None else str(trace)

    def place_of_call(self, step: Step, attempt: int) -> Place | None:
        """Return where one attempt of a step stands: what is called meanwhile is told so."""
        trace = self.trace_of(step)
        return trace and Place(str(trace.under("call", str(attempt))), str(trace))

    def record(
        self,
        step: Step,
        status: RecordStatus,
        value: Any,
        *,
        attempts: int = 1,
        began: float = 0.0,
        took_s: float = 0.0,
    ) -> Record:
        """Return the record of a step."""
        sealer = self.environment.sealer
        return Record(
            step.kind,
            step.target,
            step.digest,
            status,
            value,
            attempts,
            began,
            took_s,
            self._held.delivery.attempt,
            self.environment.token,
            None if step.given is None else self._excerpt(step.given),
            sealer is not None and sealer.active,
        )

    def begin_write(self, step: Step, record: Record) -> asyncio.Future[Verdict] | None:
        """Journal the record of a step that succeeded; `tell` must be told the verdict.

        None, and nothing is done, where it takes more than a record: then `write` does it. Raises
        `PayloadTooLarge` or `NotEncodable`.
        """
        if self.progress is not None:
            return None
        data = self._encode(step.key, record)
        if len(data) > self.environment.spills.above:
            return None
        return self._held.journal(step.key, data)

    async def write(self, step: Step, record: Record, *, task: bytes | None = None) -> None:
        """Journal a record; return when it stands. Raises `PayloadTooLarge` or `NotEncodable`.

        ``task`` is what another agent does for the step from here on, see `commits.entrust`.
        """
        data = self._encode(step.key, record)
        spills = self.environment.spills
        if len(data) > spills.above and record.status is RecordStatus.OK:
            spilled = await spills.keep(self._held, step.key, record.value)
            data = self._encode(step.key, record._replace(value=spilled))
        ends = record.status in {RecordStatus.OK, RecordStatus.FAILED}
        told = self.progress.ended(step, record) if ends and self.progress is not None else None
        if task is None:
            await self._held.write(step.key, data, told)
        else:
            noted: bytes = task

            def entrusted(held: Delivery, version: str) -> Item:
                return commits.entrust(held, step.key, data, noted, version)

            await self._held.write_with(data, task, entrusted, told)
        if ends:
            self.tell(step, record)

    async def look(  # noqa: PLR0917 - a wait, and the records it may end with
        self,
        step: Step,
        name: str,
        waiting: Record,
        status: RecordStatus,
        otherwise: Record | None,
        queue: str | None = None,
    ) -> bool:
        """Take a message of a name into the journal, or journal ``otherwise`` when there is none.

        ``waiting`` is the record of the wait, ``status`` what it says with the message in it,
        ``queue`` that of the child whose end is looked for.
        Returns whether there was a message, or the record was closed before.
        """
        took_s = max(0.0, self.wall() - waiting.began)
        taken = self.record(
            step, status, None, began=waiting.began, took_s=took_s, attempts=waiting.attempts
        )
        sealer = self.environment.sealer
        if sealer is None:
            parts = codec.record_parts(taken, waiting.status)
        else:
            run = (self._queue, self._held.delivery.run_id)
            parts = records.parts(
                sealer, run, step.key, taken, waiting, (queue or self._queue, name)
            )
        data = b"" if otherwise is None else self._encode(step.key, otherwise)
        says = () if self.progress is None else self.progress.closing(step, taken, otherwise)
        return await self._held.look(step.key, name, parts, data, says) is Verdict.ANSWERED

    async def start_child(self, step: Step, record: Record, child: Child) -> None:
        """Journal that a child is waited for, and have it started, together."""
        data = self._encode(step.key, record)

        def started(held: Delivery, version: str) -> Item:
            return commits.start_child(held, step.key, data, child, version)

        await self._held.write_with(data, child.start, started)

    async def whole(self, record: Record) -> Record:
        """Return a record with its value, wherever that is kept."""
        if type(record.value) is not Spilled:
            return record

        try:
            value = await self.environment.spills.recall(self._held, record.value)
        except SealKeyMissing as error:
            self.leave_unread(error)
        return record._replace(value=value)

    def leave_unread(self, error: SealKeyMissing) -> NoReturn:
        """Put the run aside: another worker may have the key to what it needs."""
        self._held.stop(Stop.UNREADABLE)
        raise Suspended from error

    def write_later(self, step: Step, record: Record) -> None:
        """Journal a record with whatever is written next."""
        self._held.write_later(step.key, self._encode(step.key, record))

    def emit_later(self, step: Step, record: Record, data: bytes) -> None:
        """Journal and publish with whatever is written next."""
        self._held.emit_later(step.key, self._encode(step.key, record), data)
        if step.target == SCORE:
            for scored in scores(self._held.delivery, self._queue, data):
                self.environment.emit(scored)

    async def publish(self, step: Step, record: Record, name: str, data: Any) -> None:
        """Journal a record and tell whoever watches, together; return when it stands."""
        limit = self.environment.limits.event
        said = codec.encode([name, data], f"event {name!r}", limit)
        self._held.emit_later(step.key, self._encode(step.key, record), said)
        await self._held.flush()

    async def fail(
        self,
        step: Step,
        error: StepError,
        attempts: int,
        began: float,
        *,
        task: bytes | None = None,
    ) -> NoReturn:
        """Record that a step failed for good, then raise its error. ``task``: see `write`."""
        error.key = step.key
        await self.write(step, self.failure(step, error, attempts, began), task=task)
        raise error

    def failure(self, step: Step, error: StepError, attempts: int, began: float) -> Record:
        """Return the record of a step that failed for good."""
        message = said(error)[: self.environment.limits.error]
        value = [type(error).__name__, str(error.cause), message]
        took_s = max(0.0, self.wall() - began)
        return self.record(
            step, RecordStatus.FAILED, value, attempts=attempts, began=began, took_s=took_s
        )

    def retried(self, step: Step, attempt: int, pause_s: float, error: BaseException) -> None:
        """Tell that a step is tried again."""
        if self.progress is not None:
            self.progress.retried(step, attempt, pause_s, error)
        delivery = self._held.delivery
        event = StepRetried(
            run_id=delivery.run_id, key=step.key, attempt=attempt, pause_s=pause_s,
            error=f"{type(error).__name__}: {said(error)}", workflow=delivery.workflow,
            queue=self._queue, tenant=delivery.tenant, trace=delivery.trace,
        )  # fmt: skip
        self.environment.emit(event)

    def tell(self, step: Step, record: Record, verdict: Verdict = Verdict.WRITTEN) -> None:
        """Tell that a step has ended and stands in the journal; else raise what `write` raises."""
        if verdict is not Verdict.WRITTEN:
            self._held.judge(verdict)
        delivery = self._held.delivery
        event = StepEnded(
            run_id=delivery.run_id, workflow=delivery.workflow, key=step.key, kind=step.kind,
            target=step.target, status=record.status, attempts=record.attempts,
            took_s=record.took_s, queue=self._queue, attempt=delivery.attempt,
            tenant=delivery.tenant, trace=delivery.trace,
        )  # fmt: skip
        self.environment.emit(event)

    def _excerpt(self, given: Any) -> Any:
        most = self.environment.inputs_most
        return excerpt(given, most) if most else None

    def _encode(self, key: str, record: Record) -> bytes:
        limits = self.environment.limits
        limit = limits.answer if record.kind in _LARGE else limits.record
        sealer = self.environment.sealer
        if sealer is None:
            return codec.encode_record(record, limit)
        return records.encode(sealer, self._queue, self._held.delivery.run_id, key, record, limit)


def replayed(step: Step, record: Record, wanted: Any) -> Any:
    """Return what a finished step gave, or raise what it raised."""
    if record.status is RecordStatus.FAILED:
        kind, cause, message = record.value
        raise FAILURES.get(kind, StepFailed)(message, key=step.key, cause=cause)

    return codec.convert(record.value, wanted)
