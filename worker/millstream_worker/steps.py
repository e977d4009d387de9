"""Do a step once, and remember it: look in the journal, act, record, and only then go on.

Everything a workflow does to the world passes here. The order is the promise: what is recorded is
never done again, what is not recorded may be done again.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import anyio
import msgspec

from millstream.errors import (
    NotEncodable,
    PayloadTooLarge,
    StepError,
    StepFailed,
    StepTimeout,
    Suspended,
    UsageError,
    said,
)
from millstream.events import StepEnded, StepRetried
from millstream.model.backoff import RetryPolicy
from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.model.trace import Place, SpanContext, parsed
from millstream.store import codec
from millstream.store.commits import Child, Verdict
from millstream_worker.environment import Environment
from millstream_worker.excerpts import excerpt
from millstream_worker.failures import FAILURES
from millstream_worker.held import Held
from millstream_worker.progress import Progress
from millstream_worker.telling import RUNNING, SCORE, scores

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
        self._environment = environment
        self.wall = wall
        self._queue = queue
        #: None: whoever watches is told nothing of steps.
        self.progress = Progress(held) if held.tells_steps else None

    @property
    def environment(self) -> Environment:
        """What the run is executed with."""
        return self._environment

    @property
    def is_ready(self) -> bool:
        """Whether `ready` would return at once."""
        return self._held.clear and self._environment.lease.trusted

    async def ready(self) -> None:
        """Return once something new may be started; raise `Suspended` when nothing may."""
        await self._held.drawn()
        self._held.tell()
        await self._environment.lease.until_trusted()
        if self._held.stopped is not None:
            raise Suspended

    def trace_of(self, step: Step) -> SpanContext | None:
        """Return where a step stands in its trace; None when nothing is traced here."""
        take = parsed(self._held.delivery.trace) if self._environment.traces is not None else None
        return None if take is None else take.under("step", step.key)

    def trace_for(self, step: Step) -> str | None:
        """Return the trace of a run that a step starts; where nothing is traced, the caller's."""
        trace = self.trace_of(step)
        return self._held.delivery.trace if trace is None else str(trace)

    def place_of_call(self, step: Step, attempt: int) -> Place | None:
        """Return where one attempt of a step stands: what is called meanwhile is told so."""
        trace = self.trace_of(step)
        return trace and Place(str(trace.under("call", str(attempt))), str(trace))

    def record(self, step: Step, status: RecordStatus, value: Any, **fields: Any) -> Record:
        """Return the record of a step."""
        return Record(
            step.kind,
            step.target,
            step.digest,
            status,
            value,
            run_attempt=self._held.delivery.attempt,
            by=self._environment.token,
            inputs=self._excerpt(step.given),
            **fields,
        )

    async def write(self, step: Step, record: Record) -> None:
        """Journal a record; return when it stands. Raises `PayloadTooLarge` or `NotEncodable`."""
        data = self._encode(record)
        spills = self._environment.spills
        if len(data) > spills.above and record.status is RecordStatus.OK:
            spilled = await spills.keep(self._held, step.key, record.value)
            data = self._encode(record._replace(value=spilled))
        ends = record.status in {RecordStatus.OK, RecordStatus.FAILED}
        told = self.progress.ended(step, record) if ends and self.progress is not None else None
        await self._held.write(step.key, data, told)
        if ends:
            self.tell(step, record)

    async def look(
        self,
        step: Step,
        name: str,
        waiting: Record,
        status: RecordStatus,
        otherwise: Record | None,
    ) -> bool:
        """Take a message of a name into the journal, or journal ``otherwise`` when there is none.

        ``waiting`` is the record of the wait, ``status`` what it says with the message in it.
        Returns whether there was a message, or the record was closed before.
        """
        took_s = max(0.0, self.wall() - waiting.began)
        taken = self.record(
            step, status, None, began=waiting.began, took_s=took_s, attempts=waiting.attempts
        )
        parts = codec.record_parts(taken, waiting.status)
        data = b"" if otherwise is None else self._encode(otherwise)
        says = () if self.progress is None else self.progress.closing(step, taken, otherwise)
        return await self._held.look(step.key, name, parts, data, says) is Verdict.ANSWERED

    async def start_child(self, step: Step, record: Record, child: Child) -> None:
        """Journal that a child is waited for, and have it started, together."""
        await self._held.start_child(step.key, self._encode(record), child)

    async def whole(self, record: Record) -> Record:
        """Return a record with its value, wherever that is kept."""
        if type(record.value) is not Spilled:
            return record

        value = await self._environment.spills.recall(self._held, record.value)
        return record._replace(value=value)

    def write_later(self, step: Step, record: Record) -> None:
        """Journal a record with whatever is written next."""
        self._held.write_later(step.key, self._encode(record))

    def emit_later(self, step: Step, record: Record, data: bytes) -> None:
        """Journal and publish with whatever is written next."""
        self._held.emit_later(step.key, self._encode(record), data)
        if step.target == SCORE:
            for scored in scores(self._held.delivery, self._queue, data):
                self._environment.emit(scored)

    async def publish(self, step: Step, record: Record, name: str, data: Any) -> None:
        """Journal a record and tell whoever watches, together; return when it stands."""
        limit = self._environment.limits.event
        said = codec.encode([name, data], f"event {name!r}", limit)
        self._held.emit_later(step.key, self._encode(record), said)
        await self._held.flush()

    async def fail(self, step: Step, error: StepError, attempts: int, began: float) -> NoReturn:
        """Record that a step failed for good, then raise its error."""
        error.key = step.key
        await self.write(step, self.failure(step, error, attempts, began))
        raise error

    def failure(self, step: Step, error: StepError, attempts: int, began: float) -> Record:
        """Return the record of a step that failed for good."""
        message = said(error)[: self._environment.limits.error]
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
        self._environment.emit(event)

    def tell(self, step: Step, record: Record) -> None:
        """Tell that a step has ended and stands in the journal."""
        delivery = self._held.delivery
        event = StepEnded(
            run_id=delivery.run_id, workflow=delivery.workflow, key=step.key, kind=step.kind,
            target=step.target, status=record.status, attempts=record.attempts,
            took_s=record.took_s, queue=self._queue, attempt=delivery.attempt,
            tenant=delivery.tenant, trace=delivery.trace,
        )  # fmt: skip
        self._environment.emit(event)

    def _excerpt(self, given: Any) -> Any:
        most = self._environment.inputs_most
        return excerpt(given, most) if most and given is not None else None

    def _encode(self, record: Record) -> bytes:
        limits = self._environment.limits
        return codec.encode_record(
            record, limits.answer if record.kind in _LARGE else limits.record
        )


def replayed(step: Step, record: Record, wanted: Any) -> Any:
    """Return what a finished step gave, or raise what it raised."""
    if record.status is RecordStatus.FAILED:
        kind, cause, message = record.value
        raise FAILURES.get(kind, StepFailed)(message, key=step.key, cause=cause)

    return codec.convert(record.value, wanted)


async def call_function(
    recorder: Recorder,
    step: Step,
    call: Callable[[], Awaitable[Any]],
    *,
    wanted: Any,
    retry: RetryPolicy,
    timeout_s: float | None,
) -> Any:
    """Call a function until it succeeds or its retries are used up; record what came of it."""
    began = recorder.wall()
    attempt = 0
    while True:
        attempt += 1
        if not recorder.is_ready:
            await recorder.ready()
        started = time.perf_counter()
        RUNNING.set(step.key)
        try:
            value = await (call() if timeout_s is None else _bounded(call, step, timeout_s))
            plain, typed = _settled(value, wanted, step, recorder)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001
            # Whatever a step raises is its outcome. The two that asyncio would let through to
            # the loop must not end the worker.
            pause_s = _pause(error, retry, attempt, recorder)
            if pause_s is None:
                await recorder.fail(step, _failure(error), attempt, began)
            recorder.retried(step, attempt, pause_s, error)
            await anyio.sleep(pause_s)
        else:
            took_s = time.perf_counter() - started
            record = recorder.record(
                step, RecordStatus.OK, plain, attempts=attempt, began=began, took_s=took_s
            )
            try:
                await recorder.write(step, record)
            except (PayloadTooLarge, NotEncodable) as error:
                await recorder.fail(step, _failure(error), attempt, began)
            return typed
        finally:
            # Not by its token: a coroutine that is thrown away ends in a context of its own.
            RUNNING.set("")


async def _bounded(call: Callable[[], Awaitable[Any]], step: Step, timeout_s: float) -> Any:
    with anyio.move_on_after(timeout_s) as scope:
        return await call()

    assert scope.cancelled_caught
    raise StepTimeout(
        f"step {step.target!r} did not end within {timeout_s:g} s", cause="TimeoutError"
    )


def _settled(value: Any, wanted: Any, step: Step, recorder: Recorder) -> tuple[Any, Any]:
    limit = recorder.environment.limits.record
    if codec.is_settled(value, wanted, limit):
        return value, value
    try:
        return codec.settled(value, wanted, f"the result of step {step.target!r}", limit)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"the result of step {step.target!r} does not fit its annotation: {error}"
        ) from error


def _pause(
    error: BaseException, retry: RetryPolicy, attempt: int, recorder: Recorder
) -> float | None:
    if isinstance(error, UsageError) or not retry.retries(error):
        return None

    return retry.pause(attempt, recorder.environment.random)


def _failure(error: BaseException) -> StepError:
    if isinstance(error, StepError):
        return error

    failed = StepFailed(f"{type(error).__name__}: {said(error)}", cause=type(error).__name__)
    failed.__cause__ = error
    return failed


async def maybe_await(value: Any) -> Any:
    """Return the value, or what it becomes when awaited."""
    return await value if inspect.isawaitable(value) else value
