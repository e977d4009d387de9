"""What schedulers tell of schedules and of whoever asks for gauges, as metrics."""

from __future__ import annotations

from millstream.events import (
    CertificateRead,
    MetricAsked,
    ScheduleFailed,
    TickFired,
    TicksSkipped,
    TrialRolledBack,
    TrialSampled,
)
from millstream.telemetry.series import Series


def tick_event(series: Series, event: TickFired | TicksSkipped | ScheduleFailed) -> None:
    """Count the event."""
    match event:
        case TickFired():
            series.count("millstream_ticks_fired_total", event.queue)
            series.observe("millstream_tick_lateness_seconds", event.late_s)
        case TicksSkipped():
            series.count("millstream_ticks_skipped_total", event.reason, by=event.count)
        case ScheduleFailed():
            series.count("millstream_schedule_failures_total")


def asked_event(series: Series, event: MetricAsked | CertificateRead) -> None:
    """Count the event."""
    match event:
        case MetricAsked():
            series.count("millstream_metrics_api_requests_total", event.group, str(event.status))
        case CertificateRead():
            status = "error" if event.error else "ok"
            series.count("millstream_certificate_reads_total", status)


def trial_event(series: Series, event: TrialSampled | TrialRolledBack) -> None:
    """Count the event."""
    of = (event.queue, event.workflow, event.version)
    match event:
        case TrialSampled():
            series.count("millstream_trial_runs_total", *of, event.arm, event.state, by=event.ended)
            # From 0: the first rollback is a rise that `increase` can see.
            if event.arm == "canary":
                series.count("millstream_trial_rollbacks_total", *of, by=0)
        case TrialRolledBack():
            series.count("millstream_trial_rollbacks_total", *of)
