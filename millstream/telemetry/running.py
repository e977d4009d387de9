"""Metrics of runs and of their steps: what a busy worker tells most of.

The series that an event moves are found once for each combination of its labels, and moved under
one lock. Promise: the numbers are those that `Series` would count one by one, so what becomes
``other`` is counted as such each time, and only bounded labels are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from millstream.events import RunLost, RunSettled, RunTaken, StepEnded
from millstream.model.run import FINAL
from millstream.telemetry.errortypes import error_type
from millstream.telemetry.series import Moved, Series


class Running:
    """The runs that this process holds, and what becomes of them."""

    def __init__(self, series: Series) -> None:
        self._series = series
        #: Held runs under their fence. Kept as names: a lost and settled run must not count twice.
        self._held: dict[tuple[str, str], int] = {}
        #: By the labels of an event of each kind.
        self._steps: dict[tuple[str, str], Moved] = {}
        self._takes: dict[str, Moved] = {}
        self._ends: dict[tuple[str, str, str], Moved] = {}
        #: What counts which kind of event.
        self.hears: Mapping[type, Callable[[Any], None]] = {
            StepEnded: self.stepped, RunTaken: self.taken, RunSettled: self.settled,
            RunLost: self.lost,
        }  # fmt: skip
        series.follow("active_workflows", lambda: len(self._held))

    def stepped(self, event: StepEnded) -> None:
        """Count a step."""
        key = (event.kind, event.status)
        moved = self._steps.get(key)
        if moved is None:
            moved, bounded = self._series.moved(
                ("millstream_steps_total", *key),
                histogram=("millstream_step_duration_seconds", event.kind),
            )
            if bounded:
                self._steps[key] = moved
        moved.add(event.took_s, event.trace)

    def taken(self, event: RunTaken) -> None:
        """Count a run that was taken."""
        queue = event.queue
        self._held[queue, event.run_id] = event.fence
        if event.records:
            self._series.count("millstream_runs_resumed_total", queue)
        moved = self._takes.get(queue)
        if moved is None:
            moved, bounded = self._series.moved(
                ("millstream_runs_taken_total", queue),
                histogram=("millstream_run_wait_seconds", queue),
            )
            if bounded:
                self._takes[queue] = moved
        moved.add(event.waited_s, event.trace)

    def settled(self, event: RunSettled) -> None:
        """Count an attempt that ended."""
        self._held.pop((event.queue, event.run_id), None)
        if event.error is not None:
            self._series.count("errors_total", error_type(event.error))
        if event.state not in FINAL:
            self._series.count("millstream_runs_settled_total", event.queue, event.state)
            return
        key = (event.queue, event.workflow, event.state)
        moved = self._ends.get(key)
        if moved is None:
            moved, bounded = self._series.moved(
                ("millstream_runs_settled_total", event.queue, event.state),
                ("workflow_executions_total", event.workflow, event.state),
                histogram=("workflow_duration_seconds", event.workflow),
            )
            if bounded:
                self._ends[key] = moved
        moved.add(event.took_s, event.trace)

    def lost(self, event: RunLost) -> None:
        """Count a run whose fence moved on."""
        # Only this fence is lost: the same worker may hold the run again under a newer one.
        if self._held.get((event.queue, event.run_id)) == event.fence:
            del self._held[event.queue, event.run_id]
        self._series.count("millstream_runs_lost_total", event.queue)
        self._series.count("errors_total", "LeaseLost")

    def stopped(self) -> None:
        """The process holds nothing any more."""
        self._held.clear()
