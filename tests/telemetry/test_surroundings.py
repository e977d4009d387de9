"""What an agent shows of itself beside its runs: scores, messages, its machine, examples."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from millstream import Context, Workflows
from millstream.events import MessageReceived, MessageSent, Scored, SpansLeft, ToolCalled
from millstream.telemetry.usage import CpuShare, memory_bytes
from millstream.testing import Harness
from tests.telemetry.bench import Bench, settled, taken

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

app = Workflows()


@app.workflow()
async def served(ctx: Context, score: float, noise: str = "") -> int:
    ctx.emit("customer_satisfaction_score", score)
    ctx.emit("customer_satisfaction_score", noise or None)
    await ctx.step(len, noise)
    return ctx.attempt


def scored(value: float) -> Scored:
    return Scored(run_id="r1", workflow="w", queue="q", value=value)


def test_a_score_is_absent_until_there_is_one_and_then_a_mean() -> None:
    """A zero would be the worst score there is."""
    bench = Bench()
    assert bench.value("customer_satisfaction_score") is None

    for value in (5, 4, 3):
        bench.emit(scored(value))
    assert bench.value("customer_satisfaction_score") == 4.0

    for _ in range(100):
        bench.emit(scored(1))
    assert bench.value("customer_satisfaction_score") == 1.0


@pytest.mark.anyio
async def test_a_workflow_gives_a_score_once_however_often_it_is_replayed() -> None:
    async with Harness(app) as bench:
        bench.crash_after(1)
        await bench.run("served", {"score": 4.5, "noise": "5"})
        assert bench.crashes == 1
        found = [x for x in bench.events if isinstance(x, Scored)]
    assert [(x.workflow, x.queue, x.value) for x in found] == [("served", "default", 4.5)]


def test_messages_between_agents_are_counted_by_kind_and_peer() -> None:
    bench = Bench()
    bench.emit(MessageSent(kind="task", recipient="planner", took_s=0.4))
    bench.emit(MessageSent(kind="task", recipient="planner"))
    bench.emit(MessageReceived(kind="task", sender="writer"))

    labels = {"message_type": "task", "recipient": "planner"}
    assert bench.value("a2a_messages_sent_total", **labels) == 2
    assert bench.value("a2a_messages_received_total", message_type="task", sender="writer") == 1
    assert bench.value("a2a_message_latency_seconds_count", message_type="task") == 1


def test_peers_without_end_do_not_fill_the_memory() -> None:
    bench = Bench()
    for number in range(200):
        bench.emit(MessageReceived(kind="task", sender=f"agent-{number}"))

    assert len(bench.series("a2a_messages_received_total")) == 51
    assert bench.value("a2a_messages_received_total", message_type="task", sender="other") == 150


def test_spans_that_were_not_exported_are_counted() -> None:
    bench = Bench()
    bench.emit(SpansLeft(outcome="failed", spans=7))
    assert bench.value("millstream_spans_total", outcome="failed") == 7


def test_the_process_shows_what_it_takes() -> None:
    bench = Bench()
    ballast = bytearray(32 * 1024 * 1024)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert (bench.value("memory_usage_bytes") or 0) > len(ballast)
    assert memory_bytes() < 64 * 1024**3
    assert bench.value("cpu_usage_percent") is not None


def test_the_share_of_a_core_is_that_since_the_reading_before() -> None:
    """Two Prometheus servers that ask one after the other must not halve each other's figure."""
    now, used = 100.0, 7.0
    share = CpuShare(lambda: now, lambda: used)
    now, used = 110.0, 12.0
    assert share() == 50.0
    now, used = 110.5, 12.5
    assert share() == 50.0
    now, used = 120.0, 27.0
    assert share() == 150.0


# -- examples ----------------------------------------------------------------------------------


def _examples(bench: Bench) -> dict[str, str]:
    text = generate_openmetrics(bench.registry).decode()  # type: ignore[no-untyped-call]
    return {
        sample.name: sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    }


def test_buckets_have_an_example_whose_trace_can_be_looked_up() -> None:
    bench = Bench()
    bench.emit(replace(taken(), trace=TRACE))
    bench.emit(replace(settled(), trace=TRACE))
    bench.emit(ToolCalled(server="s", tool="t", status="ok", took_s=0.3, trace=TRACE))

    assert _examples(bench) == dict.fromkeys(
        (
            "millstream_run_wait_seconds_bucket",
            "workflow_duration_seconds_bucket",
            "mcp_tool_duration_seconds_bucket",
        ),
        TRACE[3:35],
    )
    assert TRACE[3:35] not in generate_latest(bench.registry).decode()


def test_what_is_not_recorded_is_no_example() -> None:
    bench = Bench()
    bench.emit(replace(taken(), trace=f"{TRACE[:-2]}00"))
    bench.emit(replace(settled(), trace=None))

    assert _examples(bench) == {}
