"""What an attempt's end means: an error becomes an outcome. Decides only; writes nothing."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from random import Random

from millstream.errors import OutcomeUnknown, StepError, UsageError, said
from millstream.model.outcome import Failed, Refused, Retry
from millstream.model.run import Delivery
from millstream.workflow import Workflow

#: A run that this many workers in a row did not know is given up: about eight minutes.
MOST_REFUSALS = 20


def failure(
    error: BaseException, delivery: Delivery, workflow: Workflow, random: Random
) -> tuple[Failed | Retry, tuple[str, ...]]:
    """Return what follows from an error that escaped a workflow, and the records it leaves.

    What the caller or author must mend first is not tried again, nor is a call of which nobody
    knows whether it ran.
    """
    cause, message = describe(error)
    drop = tuple(dict.fromkeys(escaped_keys(error)))
    pause_s = None
    if not isinstance(error, UsageError | OutcomeUnknown) and workflow.retry.retries(error):
        pause_s = workflow.retry.pause(delivery.attempt - delivery.base, random)

    if pause_s is None:
        return Failed(cause, message, trace(error)), drop

    return Retry(pause_s, cause, message, drop, trace(error)), drop


def refusal(delivery: Delivery, random: Random, reason: str) -> Refused:
    """Return the outcome of a run that another worker may know."""
    # Spread, lest the same worker be the one that waits for it, time and again.
    spread = 0.6 + 0.4 * random.random()
    return Refused(min(30.0, 0.5 * 2**delivery.refusals) * spread, reason)


def trace(error: BaseException) -> str:
    """Return where an error came from, as Python prints it; its end, when that is long."""
    try:
        return "".join(traceback.format_exception(error))[-8000:]
    except Exception:  # noqa: BLE001 - an error's own text may fail in any way
        return ""


def describe(error: BaseException) -> tuple[str, str]:
    """Return (cause, message): the name of the original error, and what it said."""
    if isinstance(error, StepError) and error.cause:
        return str(error.cause), said(error).removeprefix(f"{error.cause}: ")

    return type(error).__name__, said(error)


def escaped_keys(error: BaseException) -> Iterator[str]:
    """Yield the keys of the failed steps that an error comes from, through causes and groups."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        found = queue.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        # A workflow may have made the error itself: what cannot be printed is no record's key.
        key = found.key if isinstance(found, StepError) else None
        if isinstance(key, str) and key and key.isprintable():
            yield key
        if isinstance(found, BaseExceptionGroup):
            queue.extend(found.exceptions)
        queue += (found.__cause__, found.__context__)
