"""Series are bounded in number, and gauges of queues are never stale."""

from __future__ import annotations

import math

from millstream.events import LeaderChanged, ToolCalled
from millstream.telemetry.labels import CLOSED_LIMIT, LIMITS
from millstream.telemetry.metrics import Registry
from millstream.telemetry.series import OVERFLOW, SERIES_LIMIT, Row, Series
from tests.telemetry.bench import Bench, sampled, settled

# -- bounds ------------------------------------------------------------------------------------


def test_too_many_workflows_become_other() -> None:
    """A name made of an id would otherwise fill the memory of Prometheus."""
    bench = Bench()
    limit = LIMITS["workflow_type"]

    for number in range(limit + 30):
        bench.emit(settled(workflow=f"w{number}"))
    bench.emit(settled(workflow="w0"))

    executions = bench.series("workflow_executions_total")
    assert len(executions) == limit + 1
    assert bench.value("workflow_executions_total", workflow_type="other", status="completed") == 30
    assert bench.value("workflow_executions_total", workflow_type="w0", status="completed") == 2
    assert bench.value("workflow_duration_seconds_count", workflow_type="other") == 30
    assert bench.value(OVERFLOW, label="workflow_type") == 60  # once for each of the two metrics


def test_too_many_combinations_become_other() -> None:
    bench = Bench()
    for server in range(LIMITS["server"]):
        for tool in range(40):
            bench.emit(ToolCalled(server=f"s{server}", tool=f"t{tool}", status="ok", took_s=0.1))

    calls = bench.series("mcp_tool_calls_total")

    assert len(calls) == SERIES_LIMIT + 1
    total = LIMITS["server"] * 40
    others = bench.value("mcp_tool_calls_total", server="other", tool="other", status="other")
    assert others == total - SERIES_LIMIT


def test_however_many_labels_overflow_each_is_counted() -> None:
    """The count of overflows has a label itself: one too many must not be counted without end."""
    labels = [f"label{number}" for number in range(CLOSED_LIMIT + 5)]
    rows = [Row(name=f"{each}_total", kind="counter", help="", labels=(each,)) for each in labels]
    overflows = Row(name=OVERFLOW, kind="counter", help="", labels=("label",))
    series = Series(registry := Registry(), [*rows, overflows])

    for each in labels:
        for value in range(CLOSED_LIMIT + 1):
            series.count(f"{each}_total", str(value))

    for each in labels:
        assert registry.get_sample_value(OVERFLOW, {"label": each}) == 1


# -- one that is broken ------------------------------------------------------------------------


def test_a_name_that_is_no_text_is_in_nobodys_way() -> None:
    """It would end every scrape of this process from then on."""
    bench = Bench()

    bench.emit(settled(workflow="odd\ud800"))

    bench.emit(sampled(queue="odd\ud800"))

    assert b'workflow_type="odd?"' in bench.state()
    assert b'millstream_queue_waiting{queue="odd?"}' in bench.state()


def test_what_is_no_number_does_not_stay_in_a_sum() -> None:
    row = Row(name="h", kind="histogram", help="h", buckets=(1, 2))
    series = Series(registry := Registry(), [row])

    for value in (math.nan, -1.0, 0.5):
        series.observe("h", value)

    assert registry.get_sample_value("h_sum") == 0.5
    assert registry.get_sample_value("h_count") == 3


# -- queues ------------------------------------------------------------------------------------

GAUGES = {
    "waiting": 7,
    "running": 3,
    "scheduled": 2,
    "parked": 1,
    "dead": 4,
    "oldest_age_seconds": 12.5,
    "workers": 5,
}


def test_a_reading_shows_until_it_is_stale_and_then_is_absent() -> None:
    """A scaler that reads 0 kills the fleet; one that reads nothing leaves it as it is."""
    bench = Bench()
    bench.emit(sampled())

    bench.clock.now += 30
    fresh = {name: bench.value(f"millstream_queue_{name}", queue="q") for name in GAUGES}
    bench.clock.now += 0.1
    stale = {name: bench.value(f"millstream_queue_{name}", queue="q") for name in GAUGES}

    assert fresh == GAUGES
    assert stale == dict.fromkeys(GAUGES)
    age = bench.value("millstream_queue_sample_age_seconds", queue="q")
    assert age is not None
    assert math.isclose(age, 30.1)


def test_a_new_reading_replaces_the_stale_one() -> None:
    bench = Bench()
    bench.emit(sampled())
    bench.clock.now += 60

    bench.emit(sampled(waiting=9))

    assert bench.value("millstream_queue_waiting", queue="q") == 9
    assert bench.value("millstream_queue_sample_age_seconds", queue="q") == 0


def test_who_leads_no_more_shows_no_queues() -> None:
    """Two schedulers that show the same queue are added up by the scaler."""
    bench = Bench()
    bench.emit(LeaderChanged(token="s", leading=True))
    bench.emit(sampled())

    bench.emit(LeaderChanged(token="s", leading=False))

    assert bench.value("millstream_leader") == 0
    assert bench.series("millstream_queue_waiting") == set()
    assert bench.series("millstream_queue_sample_age_seconds") == set()


def test_too_many_queues_are_left_out_and_counted() -> None:
    """A sum under ``other`` would be the last reading, not a sum."""
    bench = Bench()

    for number in range(LIMITS["queue"] + 2):
        bench.emit(sampled(f"q{number}"))

    assert len(bench.series("millstream_queue_waiting")) == LIMITS["queue"]
    assert bench.value(OVERFLOW, label="queue") == 2


def test_a_queue_that_is_read_no_more_gives_its_place() -> None:
    """Queues come and go, and a leader may lead for months."""
    bench = Bench()
    for number in range(LIMITS["queue"]):
        bench.emit(sampled(f"q{number}"))
    bench.clock.now += 60

    bench.emit(sampled("new"))

    assert bench.series("millstream_queue_waiting") == {("new",)}
    assert bench.value(OVERFLOW, label="queue") is None
