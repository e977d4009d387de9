"""Turn what a caller asks for into the run that is written, or refuse it: nothing was sent."""

from __future__ import annotations

from random import Random

from millstream import builtin
from millstream.client.handles import Enqueue
from millstream.errors import InvalidArguments, UsageError
from millstream.model import ids
from millstream.model.attributes import Attributes, checked
from millstream.model.limits import Limits
from millstream.model.run import Priority
from millstream.model.schedule import Schedule
from millstream.model.trace import parsed
from millstream.store import codec, runs

_LONGEST_S = 31 * 86400.0
_NO_ARGUMENTS = b"{}"


def new_run(asked: Enqueue, limits: Limits, random: Random) -> runs.NewRun:
    """Return what is written. Raises `UsageError`: nothing was sent."""
    ids.check_queue(asked.queue)
    if asked.lane_key is not None:
        _check_lane_key(asked)
    plain = asked.arguments is None and asked.workflow != builtin.PIPELINE
    data = _NO_ARGUMENTS if plain else _encoded(asked, limits)
    return runs.NewRun(
        id=ids.new_run_id(random) if asked.id is None else ids.check_run_id(asked.id),
        workflow=_text("workflow", asked.workflow),
        arguments=data,
        version=_text("version", asked.version) if asked.version else "",
        priority=asked.priority if type(asked.priority) is Priority else _priority(asked.priority),
        delay_s=0.0 if asked.delay is None else _positive("delay", asked.delay),
        timeout_s=None if asked.timeout is None else _positive("timeout", asked.timeout),
        tenant=_text("tenant", asked.tenant) if asked.tenant else "",
        # One that cannot be read begins a trace anew, as the W3C has it: no run fails for it.
        trace=asked.trace if asked.trace and parsed(asked.trace) else "",
        attributes=_attributes(asked.attributes) if asked.attributes else b"",
        chosen=asked.id is not None,
        once=_once(asked) if asked.dedupe or asked.debounce or asked.window else None,
    )


def _check_lane_key(asked: Enqueue) -> None:
    _text("lane_key", asked.lane_key or "")
    if asked.id is not None or asked.dedupe is not None or asked.debounce is not None:
        raise UsageError("an id, dedupe or debounce says which lane it is; leave lane_key out")


def _encoded(asked: Enqueue, limits: Limits) -> bytes:
    arguments = {} if asked.arguments is None else asked.arguments
    if asked.workflow == builtin.PIPELINE:
        builtin.check_pipeline(arguments)
    data = codec.encode(arguments, f"the arguments of {asked.workflow!r}", limits.arguments)
    if not data.startswith(b"{"):
        raise InvalidArguments(asked.workflow, "they must be given by name, as a mapping")
    return data


def _once(asked: Enqueue) -> runs.Once:
    if (asked.dedupe is None) == (asked.debounce is None):
        raise UsageError("give either dedupe or debounce, a name for what is to happen once")
    if asked.id is not None:
        raise UsageError(
            "a run that is to happen once has no id of its own; the name stands for it"
        )
    if asked.debounce is not None and asked.delay is not None:
        raise UsageError("what debounces begins when its window is over; it takes no delay")
    if not asked.window or _positive("window", asked.window) > _LONGEST_S:
        raise UsageError("dedupe and debounce take a window, of up to 31 days in seconds")
    longest = 10 * asked.window if asked.longest is None else asked.longest
    if asked.debounce is None:
        return runs.Once("dedupe", _text("dedupe", asked.dedupe or ""), asked.window, 0.0)
    return runs.Once(
        "debounce", _text("debounce", asked.debounce), asked.window, _positive("longest", longest)
    )


def run_of(schedule: Schedule, run_id: str) -> Enqueue:
    """Return the run that a schedule asks for."""
    return Enqueue(
        schedule.workflow,
        schedule.arguments,
        run_id,
        schedule.queue,
        schedule.priority,
        tenant=schedule.tenant,
        timeout=schedule.timeout,
        version=schedule.version,
    )


def _attributes(attributes: Attributes) -> bytes:
    return codec.encode(checked(attributes), "the attributes")


def _priority(value: Priority | str) -> Priority:
    try:
        return Priority(value)
    except ValueError:
        known = ", ".join(Priority)
        raise UsageError(f"priority {value!r} is not one of {known}") from None


def _positive(name: str, seconds: float) -> float:
    if not 0 <= seconds < 10 * 366 * 86400:
        raise UsageError(f"{name} must be seconds from 0 to ten years, not {seconds!r}")

    return seconds


def _text(what: str, value: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise UsageError(f"{what} must be a name, not {value!r}")

    return value
