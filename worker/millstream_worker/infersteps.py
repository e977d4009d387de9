"""Ask a model once, and remember what it said: a replay never computes again.

An answer of a model has no effect on the world, so no intent is needed: a crash before the record
has it computed again, and nobody ever saw the other answer. What is recorded stands, whatever a
second computation would give: batches of another size round differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio

from millstream.errors import (
    InferenceError,
    InferenceFailed,
    NotEncodable,
    PayloadTooLarge,
    UsageError,
)
from millstream.model.backoff import RetryPolicy
from millstream.model.inference import CallOptions, Priority
from millstream.model.journal import RecordStatus
from millstream.store import codec
from millstream_worker.steps import Recorder, Step
from millstream_worker.streaming import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A call of a model as a workflow made it."""

    model: str
    inputs: Sequence[Any]
    #: One input was given by itself: one answer is given back by itself.
    single: bool
    options: CallOptions
    retry: RetryPolicy
    #: The run, by a name that is unique in this process.
    run: str

    @property
    def given(self) -> Mapping[str, Any]:
        """What people see of it: its inputs, and the options of the backend."""
        inputs = self.inputs[0] if self.single else self.inputs
        return {"inputs": inputs, **self.options.backend}

    @property
    def digest(self) -> str:
        """Hash of what decides the answer: neither the urgency nor the patience does."""
        return codec.digest([list(self.inputs), self.single, dict(self.options.backend)])

    def idempotency_key(self, step: Step) -> str:
        """The same for every attempt and every worker: a server can tell a repetition by it."""
        return hashlib.blake2b(f"{self.run}\n{step.key}".encode(), digest_size=16).hexdigest()


def split_inputs(inputs: Any) -> tuple[Sequence[Any], bool]:
    """Return the inputs of a call, and whether it was one by itself.

    A list is several inputs, except a list of messages, which is one conversation.
    """
    if not isinstance(inputs, list | tuple):
        return [inputs], True
    if inputs and all(isinstance(each, Mapping) and "role" in each for each in inputs):
        return [list(inputs)], True
    return list(inputs), False


def options_of(
    timeout: float | None, priority: str, dedupe: bool, backend: Mapping[str, Any]
) -> CallOptions:
    """Return the options of a call, or raise `UsageError`."""
    if priority not in list(Priority):
        raise UsageError(f"priority is high, normal or low, not {priority!r}")
    if timeout is not None and timeout <= 0:
        raise UsageError(f"the timeout of an inference must be positive, not {timeout!r}")
    return CallOptions(
        timeout_s=timeout, priority=Priority(priority), dedupe=dedupe, backend=backend
    )


async def call_model(
    recorder: Recorder, step: Step, call: ModelCall, text: Text | None = None
) -> Any:
    """Return the answers of a model, once they are recorded; ``text`` is told what it writes."""
    began = recorder.wall()
    key = call.idempotency_key(step)
    attempt = 0
    while True:
        attempt += 1
        await recorder.ready()
        place = recorder.place_of_call(step, attempt)
        options = replace(call.options, idempotency_key=key, place=place)
        if text is not None:
            text.begin(attempt)
            options = replace(options, on_text=text.add)
        try:
            values = await recorder.environment.inference.infer(
                call.model, call.inputs, options, run=call.run
            )
            if text is not None:
                text.end()
        except InferenceError as error:
            pause_s = _pause(recorder, call, error, attempt)
            if pause_s is None:
                await recorder.fail(step, error, attempt, began)
            recorder.retried(step, attempt, pause_s, error)
            await anyio.sleep(pause_s)
        else:
            return await _answered(recorder, step, call, values, attempt, began)
        finally:
            if text is not None:
                text.close()


async def _answered(  # noqa: PLR0917 - what a record is made of
    recorder: Recorder, step: Step, call: ModelCall, values: list[Any], attempt: int, began: float
) -> Any:
    value = values[0] if call.single else values
    try:
        plain, typed = codec.settled(
            value, Any, f"the answer of model {call.model!r}", recorder.environment.limits.answer
        )
        took_s = max(0.0, recorder.wall() - began)
        record = recorder.record(
            step, RecordStatus.OK, plain, attempts=attempt, began=began, took_s=took_s
        )
        await recorder.write(step, record)
    except (PayloadTooLarge, NotEncodable) as error:
        failed = InferenceFailed(str(error), cause=type(error).__name__)
        await recorder.fail(step, failed, attempt, began)
    return typed


def _pause(
    recorder: Recorder, call: ModelCall, error: InferenceError, attempt: int
) -> float | None:
    if not error.retryable or not call.retry.retries(error):
        return None

    pause_s = call.retry.pause(attempt, recorder.environment.random)
    if pause_s is None or error.retry_after is None:
        return pause_s

    return max(pause_s, error.retry_after)
