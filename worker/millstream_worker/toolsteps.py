"""Call a tool once, as far as that can be promised.

    intent  ->  call  ->  record

A crash between the call and its record leaves the intent standing: the call may have run. Whoever
goes on then asks: is it safe to repeat? If so it is sent again, under the same idempotency key.
If not, the tool's policy decides, and by default the workflow is told `OutcomeUnknown`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from millstream.errors import (
    OutcomeUnknown,
    PayloadTooLarge,
    ToolError,
    ToolInterrupted,
    ToolRejected,
)
from millstream.model.backoff import RetryPolicy
from millstream.model.journal import Record, RecordStatus
from millstream.model.run import Delivery
from millstream.model.tool import OnUnknown, ToolInfo, ToolResult
from millstream_worker.environment import Prepared
from millstream_worker.pins import Pins
from millstream_worker.steps import Recorder, Step, replayed

#: No server may take longer, and no configuration may allow it.
LONGEST_CALL_S = 120.0
#: A listing has no effect, so it is simply asked for again.
LISTING = RetryPolicy(max_attempts=5, initial=0.5, maximum=10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
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

    def idempotency_key(self, step: Step) -> str:
        """The same for every attempt and every worker: a server can tell a repetition by it."""
        name = f"{self.queue}\n{self.run_id}\n{step.key}".encode()
        return hashlib.blake2b(name, digest_size=16).hexdigest()


def session_of(queue: str, delivery: Delivery) -> str:
    """Return the name under which a server's sessions belong to a run in these hands.

    An id is unique in its queue only, and a run that was taken anew must not lose its session to
    the end of its former self.
    """
    return f"{queue}/{delivery.run_id}#{delivery.fence}"


async def call_tool(
    recorder: Recorder, step: Step, call: ToolCall, record: Record | None, pins: Pins
) -> ToolResult:
    """Return the tool's answer, from the journal or from the server."""
    if record is not None and record.status is not RecordStatus.INTENT:
        return ToolResult.unpacked(replayed(step, record, dict))

    began = recorder.wall()
    # An intent of an earlier worker: whether its call ran is not known, and stays so.
    unresolved = record is not None
    standing = unresolved
    attempt = 0
    while True:
        attempt += 1
        await recorder.ready()
        try:
            prepared = await _prepared(recorder, step, call, unresolved=unresolved)
            pins.check(call.server, prepared.catalogue)
            if prepared.needs_intent and not standing:
                await recorder.write(
                    step, recorder.record(step, RecordStatus.INTENT, None, began=began)
                )
                standing = True
            answer = await _send(recorder, step, call, prepared, attempt)
        except ToolError as error:
            pause_s = _pause(recorder, call, error, attempt)
            if pause_s is None:
                await recorder.fail(step, error, attempt, began)
            recorder.retried(step, attempt, pause_s, error)
            await anyio.sleep(pause_s)
        else:
            return await _answered(recorder, step, answer, attempt, began)


async def list_tools(  # noqa: PLR0917 - what a step is made of
    recorder: Recorder, step: Step, server: str, session: str, record: Record | None, pins: Pins
) -> list[ToolInfo]:
    """Return what a server offers, from the journal or from the server."""
    if record is not None:
        return [ToolInfo(**each) for each in replayed(step, record, list)]

    began, attempt = recorder.wall(), 0
    while True:
        attempt += 1
        await recorder.ready()
        try:
            offered, catalogue = await recorder.environment.tools.offered(server, run_id=session)
        except ToolError as error:
            pause_s = LISTING.pause(attempt, recorder.environment.random)
            if pause_s is None or not error.retryable:
                await recorder.fail(step, error, attempt, began)
            recorder.retried(step, attempt, pause_s, error)
            await anyio.sleep(max(pause_s, error.retry_after or 0.0))
        else:
            pins.check(server, catalogue)
            took_s = max(0.0, recorder.wall() - began)
            value = [asdict(each) for each in offered]
            await recorder.write(
                step,
                recorder.record(
                    step, RecordStatus.OK, value, attempts=attempt, began=began, took_s=took_s
                ),
            )
            return list(offered)


async def _prepared(
    recorder: Recorder, step: Step, call: ToolCall, *, unresolved: bool
) -> Prepared:
    tools = recorder.environment.tools
    prepared = await tools.prepare(call.server, call.tool, call.arguments, run_id=call.session)
    if unresolved and not _repeatable(prepared):
        raise OutcomeUnknown(
            f"{step.target} was about to be called when its worker was lost; it may have run, and"
            " it is not declared safe to repeat",
            cause="OutcomeUnknown",
        )

    return prepared


async def _send(
    recorder: Recorder, step: Step, call: ToolCall, prepared: Prepared, attempt: int
) -> ToolResult:
    tools = recorder.environment.tools
    # The lease may have run out while the call was prepared and its intent written.
    await recorder.ready()
    try:
        return await tools.call(
            prepared,
            call.arguments,
            timeout_s=call.timeout_s,
            idempotency_key=call.idempotency_key(step),
            run_id=call.session,
            place=recorder.place_of_call(step, attempt),
        )
    except ToolInterrupted as error:
        if _repeatable(prepared):
            raise
        raise OutcomeUnknown(
            f"{step.target} was sent and did not answer ({error}); it may have run, and it is not"
            " declared safe to repeat",
            cause=type(error).__name__,
        ) from error


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
