"""How loud each event is in the log: a table, and what tells it where the event itself has to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from millstream.events import (
    AgentDiscovered,
    BatchRan,
    CertificateRead,
    CircuitMoved,
    DeviceFailed,
    DeviceRanOut,
    DeviceSampled,
    Emit,
    Event,
    GatewayDraining,
    GatewayStarted,
    InferenceEnded,
    InferenceSampled,
    LaneCleaned,
    LaneSwept,
    LeaderChanged,
    LeaseRenewed,
    MessageReceived,
    MessageSent,
    MetricAsked,
    ModelEvicted,
    ModelLoaded,
    OperatorActed,
    QueueSampled,
    RequestServed,
    RoomAwaited,
    RunLost,
    RunSettled,
    RunTaken,
    ScheduleFailed,
    Scored,
    SlotsAdvanced,
    SpansLeft,
    StepEnded,
    StepRetried,
    StoreFailed,
    StoreRecovered,
    TaskLeft,
    TickFired,
    TicksSkipped,
    ToolCalled,
    ToolCatalogueChanged,
    TrialRolledBack,
    TrialSampled,
    WorkerDraining,
    WorkerStarted,
    WorkerStopped,
)


class _By(NamedTuple):
    """How loud an event is by what one of its fields says."""

    field: str
    levels: Mapping[Any, int]
    otherwise: int


def severity(event: Event) -> int:
    """Return how loud an event is: a failed run is an error, what was lost or retried a warning."""
    found = _SEVERITY[type(event)]
    if type(found) is int:
        return found
    if type(found) is _By:
        return found.levels.get(getattr(event, found.field), found.otherwise)
    return found(event)  # type: ignore[operator]


def above(kind: type[Event], least: int, hear: Emit) -> Emit | None:
    """Return what hears the events of a kind that may be as loud as ``least``, or louder.

    None: there are none. Most events of a busy worker are not written, and are told at once.
    """
    found = _SEVERITY[kind]
    if type(found) is int:
        return hear if found >= least else None
    if type(found) is not _By or max(found.levels.values()) >= least:
        return hear
    # What is named is quiet, and is nearly all there is of the kind.
    field, quiet = attrgetter(found.field), found.levels

    def unless_quiet(event: Event) -> None:
        if field(event) not in quiet:
            hear(event)

    return unless_quiet if found.otherwise >= least else None


def _of_swept(event: LaneSwept) -> int:
    if event.poisoned:
        return logging.ERROR
    return logging.WARNING if event.reclaimed else logging.DEBUG


_OF_STATE = {"failed": logging.ERROR, "scheduled": logging.WARNING, "parked": logging.DEBUG}
#: A level, or what tells it from the event: of the busiest kinds, a field.
_SEVERITY: dict[type, int | _By | Callable[[Any], int]] = {
    WorkerStarted: logging.INFO,
    WorkerDraining: logging.INFO,
    WorkerStopped: logging.INFO,
    RunTaken: _By("records", {0: logging.DEBUG}, logging.INFO),
    RunSettled: _By("state", _OF_STATE, logging.INFO),
    RunLost: logging.WARNING,
    StepEnded: _By("status", {"ok": logging.DEBUG}, logging.INFO),
    StepRetried: logging.WARNING,
    ToolCalled: logging.DEBUG,
    ToolCatalogueChanged: logging.WARNING,
    CircuitMoved: lambda event: logging.WARNING if event.state == "open" else logging.INFO,
    InferenceEnded: logging.DEBUG,
    BatchRan: logging.DEBUG,
    SlotsAdvanced: logging.DEBUG,
    InferenceSampled: logging.DEBUG,
    DeviceSampled: logging.DEBUG,
    DeviceRanOut: logging.WARNING,
    DeviceFailed: logging.ERROR,
    ModelLoaded: logging.INFO,
    ModelEvicted: logging.INFO,
    LeaseRenewed: lambda event: logging.WARNING if event.lapsed else logging.DEBUG,
    LaneSwept: _of_swept,
    LaneCleaned: lambda event: logging.WARNING if event.restored else logging.DEBUG,
    StoreFailed: logging.WARNING,
    StoreRecovered: logging.INFO,
    MessageSent: logging.DEBUG,
    MessageReceived: logging.DEBUG,
    TaskLeft: logging.WARNING,
    AgentDiscovered: logging.DEBUG,
    Scored: logging.DEBUG,
    RoomAwaited: logging.DEBUG,
    SpansLeft: lambda event: logging.DEBUG if event.outcome == "exported" else logging.WARNING,
    LeaderChanged: logging.INFO,
    TickFired: logging.DEBUG,
    TicksSkipped: lambda event: logging.INFO if event.reason == "overlap" else logging.WARNING,
    ScheduleFailed: logging.ERROR,
    QueueSampled: logging.DEBUG,
    TrialSampled: logging.DEBUG,
    TrialRolledBack: logging.ERROR,
    MetricAsked: logging.DEBUG,
    CertificateRead: lambda event: logging.ERROR if event.error else logging.INFO,
    GatewayStarted: logging.INFO,
    GatewayDraining: logging.INFO,
    RequestServed: lambda event: logging.ERROR if event.error else logging.DEBUG,
    OperatorActed: logging.INFO,
}
