"""The page of all metrics, printed from the table itself, so it cannot grow stale."""

from __future__ import annotations

import sys

from millstream.telemetry.labels import CLOSED_LIMIT, LIMITS, OTHER
from millstream.telemetry.metrics import TABLE
from millstream.telemetry.series import OVERFLOW, SERIES_LIMIT, Row


def table_markdown() -> str:
    """Return the page of ``docs/metrics.md``."""
    limits = ", ".join(f"`{label}` {limit}" for label, limit in LIMITS.items())
    return "\n".join(
        [
            "# Metrics",
            "",
            "<!-- Printed by `python -m millstream.telemetry.reference`; do not edit. -->",
            "",
            "Served as `/metrics` in the Prometheus and OpenMetrics text formats. A process also",
            "shows the `process_*` and `python_*` metrics of the Prometheus client. Durations are",
            "in seconds; buckets stand in brackets. Each process is scraped by itself and shows",
            "what it did itself. Whoever asks for OpenMetrics gets the trace of an example with",
            "the buckets of runs, waits, steps and tool calls, where traces are recorded.",
            "",
            f"Labels are bounded. Beyond its limit a value is counted as `{OTHER}` (a queue's",
            f"gauges are left out) and shows in `{OVERFLOW}`: {limits},",
            f"every other label {CLOSED_LIMIT}; at most {SERIES_LIMIT} series a metric. The gauges",
            "`millstream_queue_*` are absent, not zero, while the reading is older than 30 s:",
            "alert on `absent(...)`.",
            "",
            "| Metric | Type | Labels | Meaning |",
            "|---|---|---|---|",
            *(_line(row) for row in TABLE),
            "",
        ]
    )


def _line(row: Row) -> str:
    labels = ", ".join(f"`{label}`" for label in row.labels)
    buckets = f" [{', '.join(f'{edge:g}' for edge in row.buckets)}]" if row.buckets else ""
    return f"| `{row.name}` | {row.kind} | {labels} | {row.help}{buckets} |"


if __name__ == "__main__":
    sys.stdout.write(table_markdown())
