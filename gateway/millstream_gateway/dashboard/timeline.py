"""A run as a timeline: its steps in the order they began, each with where it lies in time.

Values only: what the journal has, ready to be drawn. Where a step leads to (a child run, a question
to answer, a call to resolve) is found here, so that the page only has to show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.run import RunState, RunStatus
from millstream_gateway.rest.operating import began, step_view
from millstream_gateway.rest.operating_shapes import StepView

#: Steps of a run that its page shows.
MOST_STEPS = 500
#: The narrowest bar that is still seen, in per cent.
_NARROWEST = 0.5
#: Notes of the workflow itself, that took no time.
_INSTANT = frozenset({StepKind.VALUE, StepKind.EMIT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One step."""

    step: StepView
    #: Where its bar begins and how wide it is, in per cent of the run.
    left: float
    width: float
    #: Seconds after the run began.
    after_s: float
    #: Whether a person is asked, or has to say what became of a call.
    asks: bool
    doubtful: bool
    #: Whether it is worth forking from.
    forks: bool
    #: Queue and id of the run that it started.
    child: tuple[str, str] | None

    @property
    def bad(self) -> bool:
        """Whether it went wrong."""
        return self.step.status in {RecordStatus.FAILED, RunState.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The steps that are shown, and what is left out."""

    lines: tuple[Line, ...]
    left_out: int
    length_s: float


def drawn(status: RunStatus, journal: Mapping[str, Record], now: float) -> Timeline:
    """Return the timeline of a run."""
    steps = sorted(journal.items(), key=began)
    begins = status.times.started or status.times.enqueued
    first = min([begins, *(record.began for _, record in steps[:1])])
    last = max([status.times.ended or now, first, *(record.began for _, record in steps[-1:])])
    length = max(last - first, 1e-6)
    lines = tuple(_line(status, key, record, first, length) for key, record in steps[:MOST_STEPS])
    return Timeline(lines=lines, left_out=len(steps) - len(lines), length_s=last - first)


def _line(status: RunStatus, key: str, record: Record, first: float, length: float) -> Line:
    left = min(100.0 - _NARROWEST, max(0.0, 100 * (record.began - first) / length))
    took_s = record.took_s
    if record.status in {RecordStatus.WAITING, RecordStatus.INTENT} and not took_s:
        took_s = length  # it goes on
    open_ = not status.state.final
    return Line(
        step=step_view(key, record),
        left=round(left, 2),
        width=round(min(100.0 - left, max(_NARROWEST, 100 * took_s / length)), 2),
        after_s=max(0.0, record.began - first),
        asks=open_ and record.kind is StepKind.APPROVAL and record.status is RecordStatus.WAITING,
        doubtful=f"o:{key}" in status.awaits,
        forks=record.kind not in _INSTANT,
        child=_child(status, record),
    )


def _child(status: RunStatus, record: Record) -> tuple[str, str] | None:
    """Return queue and id of a child, which stand with what it was called with."""
    if record.kind is not StepKind.CHILD:
        return None
    inputs = record.inputs
    if isinstance(inputs, dict) and isinstance(inputs.get("id"), str):
        return str(inputs.get("queue") or status.queue), inputs["id"]
    # Of an older release: while it is waited for, its id is the record's value.
    if record.status is RecordStatus.WAITING and isinstance(record.value, str):
        return status.queue, record.value
    return None
