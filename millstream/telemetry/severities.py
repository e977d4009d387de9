"""How loud each event is in the log: a table, and what tells it where the event itself has to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from millstream.events import (
    AgentDiscovered,
    BatchRan,
    CertificateRead,
    CircuitMoved,
    DeviceFailed,
    DeviceRanOut,
    DeviceSampled,
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
    TickFired,
    TicksSkipped,
    ToolCalled,
    ToolCatalogueChanged,
    WorkerDraining,
    WorkerStarted,
    WorkerStopped,
)


def severity(event: Event) -> int:
    """Return how loud an event is: a failed run is an error, what was lost or retried a warning."""
    found = _SEVERITY[type(event)]
    return found if type(found) is int else found(event)  # type: ignore[operator]


def _of_settled(event: RunSettled) -> int:
    return _OF_STATE.get(event.state, logging.INFO)


def _of_swept(event: LaneSwept) -> int:
    if event.poisoned:
        return logging.ERROR
    return logging.WARNING if event.reclaimed else logging.DEBUG


_OF_STATE = {"failed": logging.ERROR, "scheduled": logging.WARNING, "parked": logging.DEBUG}
#: A level, or what tells it from the event.
_SEVERITY: dict[type, int | Callable[[Any], int]] = {
    WorkerStarted: logging.INFO,
    WorkerDraining: logging.INFO,
    WorkerStopped: logging.INFO,
    RunTaken: lambda event: logging.INFO if event.records else logging.DEBUG,
    RunSettled: _of_settled,
    RunLost: logging.WARNING,
    StepEnded: lambda event: logging.DEBUG if event.status == "ok" else logging.INFO,
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
    AgentDiscovered: logging.DEBUG,
    Scored: logging.DEBUG,
    SpansLeft: lambda event: logging.DEBUG if event.outcome == "exported" else logging.WARNING,
    LeaderChanged: logging.INFO,
    TickFired: logging.DEBUG,
    TicksSkipped: lambda event: logging.INFO if event.reason == "overlap" else logging.WARNING,
    ScheduleFailed: logging.ERROR,
    QueueSampled: logging.DEBUG,
    MetricAsked: logging.DEBUG,
    CertificateRead: lambda event: logging.ERROR if event.error else logging.INFO,
    GatewayStarted: logging.INFO,
    GatewayDraining: logging.INFO,
    RequestServed: lambda event: logging.ERROR if event.error else logging.DEBUG,
    OperatorActed: logging.INFO,
}
