"""Call a tool once, as far as that can be promised.

    intent  ->  call  ->  record

A crash between the call and its record leaves the intent standing: the call may have run. Whoever
goes on then asks: is it safe to repeat? If so it is sent again, under the same idempotency key.
If not, the tool's policy decides: by default the workflow is told `OutcomeUnknown`; or the run
waits until an operator says what became of the call.

A tool may answer with a question to a person. Then the run waits for the answer, parked, and the
call is sent again with it, under the same key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec

from millstream.errors import (
    OutcomeUnknown,
    PayloadTooLarge,
    ToolError,
    ToolInterrupted,
    ToolRejected,
)
from millstream.model.backoff import RetryPolicy
from millstream.model.elicitation import MOST_ROUNDS, InputNeeded, Inputs
from millstream.model.journal import Record, RecordStatus
from millstream.model.run import Delivery
from millstream.model.tool import OnUnknown, ToolResult
from millstream_worker.asking import Asking
from millstream_worker.environment import Prepared
from millstream_worker.steps import Recorder, Step, replayed

#: No server may take longer, and no configuration may allow it.
LONGEST_CALL_S = 120.0

#: For how long a tool is left alone that only wants to be asked again: at first, and at most.
_MOMENT_S = 0.05
_LONGEST_MOMENT_S = 0.25


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call as a workflow made it."""

    server: str
    tool: str
    arguments: Mapping[str, Any]
    retry: RetryPolicy
    timeout_s: float
    run_id: str
    queue: str
    #: Whose stateful sessions the call may use.
    session: str
    #: How often the run has begun anew: the same step is another one then.
    generation: int = 0

    def idempotency_key(self, step: Step) -> str:
        """The same for every attempt and every worker: a server can tell a repetition by it."""
        return _key(self.queue, self.run_id, self.generation, step)


def key_of(queue: str, delivery: Delivery, step: Step) -> str:
    """Return an idempotency key of a step: the same for every attempt and every worker."""
    return _key(queue, delivery.run_id, delivery.generation, step)


def _key(queue: str, run_id: str, generation: int, step: Step) -> str:
    name = f"{queue}\n{run_id}\n{step.key}"
    if generation:
        name += f"\n{generation}"
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def session_of(queue: str, delivery: Delivery) -> str:
    """Return the name under which a server's sessions belong to a run in these hands.

    An id is unique in its queue only, and a run that was taken anew must not lose its session to
    the end of its former self.
    """
    return f"{queue}/{delivery.run_id}#{delivery.fence}"


async def call_tool(
    recorder: Recorder, step: Step, call: ToolCall, record: Record | None, asking: Asking
) -> ToolResult:
    """Return the tool's answer, from the journal or from the server."""
    if record is not None and record.status in {RecordStatus.OK, RecordStatus.FAILED}:
        return ToolResult.unpacked(replayed(step, await recorder.whole(record), dict))

    began = recorder.wall()
    calling = _Calling(recorder, step, call, asking, record)
    attempt = 0
    while True:
        attempt += 1
        if not recorder.is_ready:
            await recorder.ready()
        try:
            answer = await calling.once()
        except ToolError as error:
            pause_s = _pause(recorder, call, error, attempt)
            if pause_s is None:
                await recorder.fail(step, error, attempt, began)
            recorder.retried(step, attempt, pause_s, error)
            await anyio.sleep(pause_s)
        else:
            return await _answered(recorder, step, answer, attempt, began)


class _Calling:
    """One call, on its way from intent to answer."""

    def __init__(
        self, recorder: Recorder, step: Step, call: ToolCall, asking: Asking, record: Record | None
    ) -> None:
        self._recorder = recorder
        self._step = step
        self._call = call
        self._asking = asking
        #: The intent that stands, or what an operator has said of it.
        self._record = record
        #: An intent of an earlier worker: whether its call ran is not known, and stays so.
        self._unresolved = record is not None and record.status is RecordStatus.INTENT
        #: What was answered to what the tool has asked.
        self._inputs = _inputs_of(record)
        #: How often it was sent here: each time is a span of its own.
        self._sent = 0

    async def once(self) -> ToolResult:
        """Send the call until it is answered, unless there is nothing to send."""
        while True:
            answer = await self._sent_once()
            if isinstance(answer, ToolResult):
                return answer
            await self._ask_person(answer)

    async def _sent_once(self) -> ToolResult | InputNeeded:
        if self._record is not None and self._record.status is RecordStatus.WAITING:
            self._inputs = await self._asking.answer(self._step, self._record)
            self._record = self._record._replace(status=RecordStatus.ANSWERED)
            await self._recorder.ready()
        if self._record is not None and self._record.status is RecordStatus.RESOLVED:
            resolved = self._resolved(self._record.value)
            if resolved is not None:
                return resolved
        tools, call = self._recorder.environment.tools, self._call
        prepared = await tools.prepare(call.server, call.tool, call.arguments, run_id=call.session)
        if self._unresolved and not _repeatable(prepared):
            error = OutcomeUnknown(
                f"{self._step.target} was about to be called when its worker was lost; it may have"
                " run, and it is not declared safe to repeat",
                cause="OutcomeUnknown",
            )
            return await self._asked(prepared, error)

        self._asking.pins.check(call.server, prepared.catalogue)
        try:
            if prepared.room is None:
                await self._intend(prepared)
                return await self._send(prepared)
            # Before the intent: nobody knows of a call that only waited.
            async with prepared.room(call.queue):
                await self._intend(prepared)
                return await self._send(prepared)
        except OutcomeUnknown as error:
            return await self._asked(prepared, error)

    async def _send(self, prepared: Prepared) -> ToolResult | InputNeeded:
        recorder, call, target = self._recorder, self._call, self._step.target
        self._sent += 1
        # The lease may have run out while the call was prepared and its intent written.
        if not recorder.is_ready:
            await recorder.ready()
        try:
            return await recorder.environment.tools.call(
                prepared,
                call.arguments,
                timeout_s=call.timeout_s,
                idempotency_key=call.idempotency_key(self._step),
                run_id=call.session,
                place=recorder.place_of_call(self._step, self._sent),
                inputs=self._inputs,
            )
        except ToolInterrupted as error:
            if _repeatable(prepared):
                raise
            raise OutcomeUnknown(
                f"{target} was sent and did not answer ({error}); it may have run, and it is not"
                " declared safe to repeat",
                cause=type(error).__name__,
            ) from error

    async def _intend(self, prepared: Prepared) -> None:
        """Record that the call is about to be sent, unless that is recorded already."""
        before = self._record
        stands = before is not None and before.status is RecordStatus.INTENT
        if prepared.needs_intent and not stands:
            # Every intent is another one: what was said of an earlier one does not hold for it.
            self._record = self._recorder.record(
                self._step,
                RecordStatus.INTENT,
                None if self._inputs is None else self._inputs.packed(),
                began=self._recorder.wall(),
                attempts=1 if before is None else before.attempts + 1,
            )
            await self._recorder.write(self._step, self._record)

    async def _ask_person(self, needed: InputNeeded) -> None:
        """Have a person answer what the tool asks, before the call is sent again with it."""
        number = 1 + (0 if self._inputs is None else self._inputs.round)
        if number > MOST_ROUNDS:
            raise ToolRejected(
                f"{self._step.target} asked {MOST_ROUNDS} times, and would ask again",
                cause="ToolRejected",
            )
        if not needed.asks:
            # It asks nobody: it only wants to be asked again, in a moment.
            self._inputs = Inputs(number, needed.state, {})
            await anyio.sleep(min(_LONGEST_MOMENT_S, _MOMENT_S * 2 ** (number - 1)))
            return
        try:
            self._record = await self._asking.question(self._step, needed, number)
        except PayloadTooLarge as error:
            raise ToolRejected(str(error), cause="PayloadTooLarge") from error
        # The call has ended, with a question: what became of it is known.
        self._unresolved = False

    async def _asked(self, prepared: Prepared, error: OutcomeUnknown) -> ToolResult | InputNeeded:
        """Have an operator say what became of the call, where that is the tool's policy."""
        if prepared.on_unknown is not OnUnknown.ASK or self._record is None:
            raise error
        self._record = await self._asking.ask(self._step, self._record)
        self._unresolved = False
        return await self._sent_once()

    def _resolved(self, verdict: list[Any]) -> ToolResult | None:
        """Return the answer that an operator gave; None: the call is to be sent again."""
        match verdict:
            case ["retry"]:
                return None
            case ["result", value]:
                return ToolResult(data=value, text=value if isinstance(value, str) else "")
            case _:
                raise OutcomeUnknown(
                    f"an operator gave {self._step.target} up: nobody knows whether it ran",
                    cause="OutcomeUnknown",
                )


def _inputs_of(record: Record | None) -> Inputs | None:
    """Return what was answered so far, from the record of a call that is to be sent again."""
    carries = {RecordStatus.INTENT, RecordStatus.ANSWERED}
    if record is None or record.status not in carries or record.value is None:
        return None
    return Inputs(*record.value)


async def _answered(
    recorder: Recorder, step: Step, answer: ToolResult, attempt: int, began: float
) -> ToolResult:
    took_s = max(0.0, recorder.wall() - began)
    record = recorder.record(
        step, RecordStatus.OK, answer.packed(), attempts=attempt, began=began, took_s=took_s
    )
    try:
        await recorder.write(step, record)
    except PayloadTooLarge as error:
        await recorder.fail(step, ToolRejected(str(error), cause="PayloadTooLarge"), attempt, began)
    return answer


def _pause(recorder: Recorder, call: ToolCall, error: ToolError, attempt: int) -> float | None:
    if isinstance(error, ToolRejected | OutcomeUnknown) or not call.retry.retries(error):
        return None

    pause_s = call.retry.pause(attempt, recorder.environment.random)
    if pause_s is None or error.retry_after is None:
        return pause_s

    return max(pause_s, error.retry_after)


def _repeatable(prepared: Prepared) -> bool:
    return prepared.effect.repeatable or prepared.on_unknown is OnUnknown.RETRY
