"""The metrics of an agent beside its runs: other agents, scores, who waits for room, its machine, its traces.

Most names are those that dashboards of agent systems already use. The rows stand in the one table; here is how their events become numbers.
"""

from __future__ import annotations

from collections import deque
from typing import assert_never

from millstream.events import (
    AgentDiscovered,
    MessageReceived,
    MessageSent,
    RoomAwaited,
    Scored,
    SpansLeft,
    TaskLeft,
)
from millstream.telemetry.series import Row, Series
from millstream.telemetry.usage import CpuShare, memory_bytes

_LATENCY = (0.005, 0.025, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120)
#: Scores of which the mean is shown.
_SCORES = 100

# fmt: off
# ruff: noqa: E501 - a table, as in `metrics`
ROWS: tuple[Row, ...] = (
    Row(name="memory_usage_bytes", kind="gauge", help="Resident memory of this process."),
    Row(name="cpu_usage_percent", kind="gauge", help="Share of one core that this process used since the reading before, at least a second ago; may exceed 100."),
    Row(name="customer_satisfaction_score", kind="gauge", help="Mean of the last 100 scores that workflows gave with `ctx.emit(\"customer_satisfaction_score\", number)`; absent until one did.", late=True),
    Row(name="a2a_messages_sent_total", kind="counter", help="A2A messages sent, by kind and recipient.", labels=("message_type", "recipient")),
    Row(name="a2a_messages_received_total", kind="counter", help="A2A messages received, by kind and sender.", labels=("message_type", "sender")),
    Row(name="a2a_message_latency_seconds", kind="histogram", help="Time between an A2A message and its answer.", labels=("message_type",), buckets=_LATENCY),
    Row(name="agent_discovery_requests_total", kind="counter", help="Requests for an agent's card, by the capability that was asked for.", labels=("capability", "status")),
    Row(name="millstream_tool_calls_waiting", kind="gauge", help="Calls that wait here for room at an MCP server with a `limit`; they hold the slots of their runs.", labels=("queue", "server")),
    Row(name="millstream_spans_total", kind="counter", help="Spans of traces: exported, failed (the collector did not take them) or dropped (too many waited).", labels=("outcome",)),
)
# fmt: on

Surrounding = (
    MessageSent | MessageReceived | TaskLeft | AgentDiscovered | Scored | RoomAwaited | SpansLeft
)


class Surroundings:
    """Counts what happens around runs into the series of one process."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._scores: deque[float] = deque(maxlen=_SCORES)
        series.follow("memory_usage_bytes", memory_bytes)
        series.follow("cpu_usage_percent", CpuShare())

    def __call__(self, event: Surrounding) -> None:
        """Count the event."""
        count = self._series.count
        match event:
            case MessageSent():
                count("a2a_messages_sent_total", event.kind, event.recipient)
                self._latency(event.kind, event.took_s)
            case MessageReceived():
                count("a2a_messages_received_total", event.kind, event.sender)
                self._latency(event.kind, event.took_s)
            case TaskLeft():
                count("a2a_messages_sent_total", "cancel_failed", event.agent)
            case AgentDiscovered():
                count("agent_discovery_requests_total", event.capability, event.status)
            case Scored():
                self._scores.append(event.value)
                mean = sum(self._scores) / len(self._scores)
                self._series.set("customer_satisfaction_score", mean)
            case RoomAwaited():
                where = (event.queue, event.room.removeprefix("tools/"))
                self._series.set("millstream_tool_calls_waiting", event.waiting, *where)
            case SpansLeft():
                count("millstream_spans_total", event.outcome, by=event.spans)
            case _ as never:
                assert_never(never)

    def _latency(self, kind: str, took_s: float | None) -> None:
        if took_s is not None:
            self._series.observe("a2a_message_latency_seconds", took_s, kind)
