"""Metrics: what dashboards and scalers read is named in one table, bounded, and never stale."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from millstream.events import (
    CircuitMoved,
    Event,
    LaneCleaned,
    LaneSwept,
    LeaseRenewed,
    RoomAwaited,
    RunLost,
    StoreFailed,
    ToolCalled,
    WorkerStarted,
    WorkerStopped,
)
from millstream.telemetry.errortypes import error_type
from millstream.telemetry.labels import LIMITS
from millstream.telemetry.metrics import (
    TABLE,
    MetricsSubscriber,
    new_registry,
)
from millstream.telemetry.reference import table_markdown
from tests.telemetry.bench import Bench, settled, taken
from tests.telemetry.examples import EXAMPLES


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_changes_a_metric(event: Event) -> None:
    bench = Bench()
    bench.emit(taken())  # so that a worker that stops has something to let go
    before = bench.state()

    bench.emit(event)

    assert bench.state() != before


def test_every_row_of_the_table_is_fed_by_some_event() -> None:
    """A name that is promised and never set is an alert that never fires."""
    bench = Bench()
    for event in EXAMPLES:
        bench.emit(event)
    for number in range(LIMITS["server"] + 1):
        bench.emit(CircuitMoved(server=f"s{number}", state="open"))

    shown = {
        sample.name.removesuffix("_count")
        for family in bench.registry.collect()
        for sample in family.samples
    }

    assert {row.name for row in TABLE} <= shown


def test_the_text_is_what_prometheus_reads() -> None:
    bench = Bench()
    for event in EXAMPLES:
        bench.emit(event)

    families = {f.name for f in text_string_to_metric_families(bench.state().decode())}

    assert {"active_workflows", "workflow_executions", "millstream_queue_waiting"} <= families


def test_names_follow_the_conventions() -> None:
    names = [row.name for row in TABLE]

    assert len(names) == len(set(names))
    for row in TABLE:
        assert row.name.endswith("_total") == (row.kind == "counter"), row.name
        units = ("_seconds", "_items", "_tokens", "_ratio")
        assert row.name.endswith(units) or row.kind != "histogram", row.name
        assert list(row.buckets) == sorted(set(row.buckets)), row.name
        assert bool(row.buckets) == (row.kind == "histogram"), row.name


def test_two_subscribers_share_nothing() -> None:
    one, two = Bench(), Bench()

    one.emit(taken())

    assert two.value("active_workflows") == 0


def test_this_process_says_what_it_is() -> None:
    assert Bench().value("agent_info", service="millstream-worker", version="1.2") == 1


def test_a_registry_of_a_process_shows_the_process() -> None:
    registry = new_registry()
    MetricsSubscriber(registry)

    assert b"process_cpu_seconds_total" in generate_latest(registry)


# -- runs --------------------------------------------------------------------------------------


def test_a_run_is_counted_from_taken_to_settled() -> None:
    bench = Bench()

    bench.emit(taken())
    assert bench.value("active_workflows") == 1
    bench.emit(settled())

    assert bench.value("active_workflows") == 0
    assert bench.value("millstream_runs_taken_total", queue="q") == 1
    assert bench.value("millstream_runs_settled_total", queue="q", state="completed") == 1
    assert bench.value("workflow_executions_total", workflow_type="w", status="completed") == 1
    assert bench.value("workflow_duration_seconds_sum", workflow_type="w") == 2.0
    assert bench.value("millstream_run_wait_seconds_sum", queue="q") == 0.2


@pytest.mark.parametrize("state", ["scheduled", "parked", "queued"])
def test_an_attempt_that_is_not_the_end_is_no_execution(state: str) -> None:
    """Else a run that parks ten times would be eleven executions."""
    bench = Bench()

    bench.emit(taken())
    bench.emit(settled(state))

    assert bench.value("active_workflows") == 0
    assert bench.value("millstream_runs_settled_total", queue="q", state=state) == 1
    assert bench.series("workflow_executions_total") == set()


def test_a_run_that_is_lost_and_then_settled_is_let_go_once() -> None:
    """A gauge that drifts below the truth scales the fleet down under load."""
    bench = Bench()
    bench.emit(taken("r1"))
    bench.emit(taken("r2"))

    bench.emit(RunLost(run_id="r1", workflow="w", queue="q", fence=1))
    bench.emit(settled(run_id="r1"))

    assert bench.value("active_workflows") == 1
    assert bench.value("millstream_runs_lost_total", queue="q") == 1
    assert bench.value("errors_total", error_type="LeaseLost") == 1


def test_losing_an_old_fence_does_not_let_go_of_the_new_one() -> None:
    bench = Bench()
    bench.emit(taken(fence=1))
    bench.emit(taken(fence=2))

    bench.emit(RunLost(run_id="r1", workflow="w", queue="q", fence=1))

    assert bench.value("active_workflows") == 1


def test_a_stopped_worker_holds_nothing() -> None:
    bench = Bench()
    bench.emit(taken())

    bench.emit(WorkerStopped(released=1))

    assert bench.value("active_workflows") == 0


def test_outcomes_exist_at_zero_once_the_worker_serves() -> None:
    """``rate`` cannot see the first failure of a series that begins at one."""
    bench = Bench()

    served = ("w@1", "w@2", "v@1")
    bench.emit(WorkerStarted(token="t", pid=7, queues=("q",), workflows=served, concurrency=8))

    assert bench.value("workflow_executions_total", workflow_type="w", status="failed") == 0
    before = bench.series("workflow_executions_total")
    bench.emit(settled("failed", workflow="w"))
    assert bench.series("workflow_executions_total") == before
    assert bench.value("workflow_executions_total", workflow_type="v", status="completed") == 0
    assert bench.value("millstream_worker_slots") == 8


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ("ValueError: no", "ValueError"),
        ("worker_lost: died 3 times", "worker_lost"),
        ("httpx.ReadTimeout: ", "httpx.ReadTimeout"),
        ("cannot reach Redis: refused", "other"),
        ("", "other"),
    ],
)
def test_errors_are_counted_by_their_class(error: str, name: str) -> None:
    """A message is no label: it may hold an id, and there is no end to ids."""
    bench = Bench()

    bench.emit(settled("failed", error=error))

    assert error_type(error) == name
    assert bench.value("errors_total", error_type=name) == 1


def test_failures_of_the_store_without_a_class_are_store_errors() -> None:
    bench = Bench()

    bench.emit(StoreFailed(during="claim", error="connection refused"))

    assert bench.value("errors_total", error_type="StoreError") == 1
    assert bench.value("millstream_store_failures_total", during="claim") == 1


# -- the rest ----------------------------------------------------------------------------------


def test_failed_tool_calls_have_a_duration_too() -> None:
    """Time-outs are the slow calls; a histogram without them looks best when it is worst."""
    bench = Bench()

    bench.emit(ToolCalled(server="s", tool="t", status="timeout", took_s=120.0))

    assert bench.value("mcp_tool_calls_total", server="s", tool="t", status="timeout") == 1
    assert bench.value("mcp_tool_duration_seconds_sum", server="s", tool="t") == 120.0


def test_leases_and_lanes() -> None:
    bench = Bench()

    bench.emit(LeaseRenewed(lapsed=False, took_s=0.001))
    bench.emit(LeaseRenewed(lapsed=True, took_s=0.5))
    bench.emit(LaneSwept(lane="q:0", promoted=3, reclaimed=2, poisoned=1))
    bench.emit(LaneCleaned(lane="q:0", dropped=4, restored=5))

    assert bench.value("millstream_lease_renewals_total") == 2
    assert bench.value("millstream_lease_lapses_total") == 1
    assert bench.value("millstream_lease_renewal_seconds_count") == 2
    assert bench.value("millstream_runs_promoted_total") == 3
    assert bench.value("millstream_runs_reclaimed_total") == 2
    assert bench.value("millstream_runs_poisoned_total") == 1
    assert bench.value("millstream_entries_dropped_total") == 4
    assert bench.value("millstream_runs_restored_total") == 5


def test_a_clock_behind_redis_measures_nothing_below_zero() -> None:
    bench = Bench()

    bench.emit(replace(taken(), waited_s=-0.5))

    assert bench.value("millstream_run_wait_seconds_sum", queue="q") == 0


def test_a_breaker_that_probes_is_not_closed() -> None:
    bench = Bench()

    seen = []
    for state in ("open", "half-open", "closed"):
        bench.emit(CircuitMoved(server="s", state=state))
        seen.append(bench.value("millstream_circuit_open", server="s"))

    assert seen == [1, 1, 0]


def test_calls_that_wait_for_room_are_told_by_their_server() -> None:
    bench = Bench()

    seen = []
    for waiting in (1, 2, 0):
        bench.emit(RoomAwaited(queue="q", room="tools/time", waiting=waiting))
        seen.append(bench.value("millstream_tool_calls_waiting", queue="q", server="time"))

    assert seen == [1, 2, 0]


# -- the reference -----------------------------------------------------------------------------


def test_the_reference_is_fresh() -> None:
    """Print it again with: python -m millstream.telemetry.metrics > docs/metrics.md."""
    page = Path(__file__).parents[2] / "docs" / "metrics.md"

    assert page.read_text("utf-8") == table_markdown()
