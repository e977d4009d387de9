"""One example of every event. A new event without one fails the tests that iterate here."""

from __future__ import annotations

from typing import get_args

from millstream.events import (
    CircuitMoved,
    Event,
    LaneCleaned,
    LaneSwept,
    LeaderChanged,
    LeaseRenewed,
    QueueSampled,
    RunLost,
    RunSettled,
    RunTaken,
    StepEnded,
    StepRetried,
    StoreFailed,
    StoreRecovered,
    ToolCalled,
    ToolCatalogueChanged,
    WorkerDraining,
    WorkerStarted,
    WorkerStopped,
)

EXAMPLES: tuple[Event, ...] = (
    WorkerStarted(token="w1", queues=("default",), workflows=("research",), concurrency=8),
    WorkerDraining(holding=2, grace_s=30.0),
    WorkerStopped(released=1),
    RunTaken(
        run_id="r1",
        workflow="research",
        queue="default",
        attempt=1,
        fence=3,
        records=0,
        waited_s=0.2,
    ),
    RunSettled(
        run_id="r1", workflow="research", queue="default", state="completed", attempt=1, took_s=1.5
    ),
    RunLost(run_id="r1", workflow="research", queue="default", fence=3),
    StepEnded(
        run_id="r1",
        workflow="research",
        key="time/get_current_time/1",
        kind="tool",
        target="time/get_current_time",
        status="ok",
        attempts=1,
        took_s=0.02,
    ),
    StepRetried(run_id="r1", key="download/1", attempt=1, pause_s=1.0, error="OSError: reset"),
    ToolCalled(server="time", tool="get_current_time", status="ok", took_s=0.02),
    ToolCatalogueChanged(server="time", before="aa", after="bb"),
    CircuitMoved(server="time", state="open"),
    LeaseRenewed(lapsed=False, took_s=0.001),
    LaneSwept(lane="default:0", promoted=1, reclaimed=2, poisoned=0),
    LaneCleaned(lane="default:0", dropped=3, restored=1),
    StoreFailed(during="claim", error="StoreUnavailable: connection refused"),
    StoreRecovered(during="claim", away_s=2.5),
    LeaderChanged(token="s1", leading=True),
    QueueSampled(
        queue="default",
        waiting=7,
        running=3,
        scheduled=2,
        parked=1,
        dead=4,
        oldest_s=12.5,
        workers=5,
    ),
)

assert {type(event) for event in EXAMPLES} == set(get_args(Event)), "an event has no example"
