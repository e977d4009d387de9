"""Call the function of a step until it succeeds or its retries are used up, and record that."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import anyio
import msgspec

from millstream.errors import (
    NotEncodable,
    PayloadTooLarge,
    StepError,
    StepFailed,
    StepTimeout,
    UsageError,
    said,
)
from millstream.model.backoff import RetryPolicy
from millstream.model.journal import RecordStatus
from millstream.store import codec
from millstream_worker.steps import Recorder, Step
from millstream_worker.telling import RUNNING


async def call_function(
    recorder: Recorder,
    step: Step,
    call: Callable[[], Awaitable[Any]],
    *,
    acting: AbstractContextManager[None],
    wanted: Any,
    retry: RetryPolicy,
    timeout_s: float | None,
) -> Any:
    """Call a function until it succeeds or its retries are used up; record what came of it.

    A block of ``acting`` is open meanwhile.
    """
    with acting:
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
                plain = typed = value
                if not codec.is_settled(value, wanted, recorder.environment.limits.record):
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
                    written = recorder.begin_write(step, record)
                    if written is None:
                        await recorder.write(step, record)
                    else:
                        recorder.tell(step, record, await written)
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
