"""Metrics: one table that names them, one subscriber that feeds them from events.

Promises: a metric exists because it stands in `TABLE` and nowhere else, and ``docs/metrics.md`` is
printed from it; base units; bounded labels; a registry of our own. It does not know HTTP, nor who
emits. The names without ``millstream_`` are those that dashboards of agent systems already use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import assert_never

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

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
from millstream.model.run import FINAL
from millstream.telemetry import inference, requests, scheduling, surroundings
from millstream.telemetry.errortypes import error_type
from millstream.telemetry.running import Running
from millstream.telemetry.series import (
    OVERFLOW,
    QueueReadings,
    Row,
    Series,
)

#: What the processes pass around, without importing the client library themselves.
Registry = CollectorRegistry

#: A run takes anything from a millisecond to hours; a tool call at most 120 s.
_RUN = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 14400)
_CALL = (0.005, 0.025, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120)
_ROUND_TRIP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
_INFER = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 1024, 4096, 16384, 65536)
_RATIO = (1, 1.05, 1.1, 1.25, 1.5, 2, 3, 5, 10)
_RATIO_BELOW = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.25, 1.5, 2, 4)
_QUEUE = ("queue",)

# fmt: off
# ruff: noqa: E501 - a table: one row a line reads better than any wrapping of it
TABLE: tuple[Row, ...] = (
    Row(name="agent_info", kind="info", help="What this process is: service and version."),
    Row(name="active_workflows", kind="gauge", help="Runs this process holds at the moment."),
    Row(name="workflow_executions_total", kind="counter", help="Runs that reached their end here, by state.", labels=("workflow_type", "status")),
    Row(name="workflow_duration_seconds", kind="histogram", help="Running time of the last attempt of runs that ended here, whatever the end.", labels=("workflow_type",), buckets=_RUN),
    Row(name="mcp_tool_calls_total", kind="counter", help="MCP tool calls that ended, by outcome.", labels=("server", "tool", "status")),
    Row(name="mcp_tool_duration_seconds", kind="histogram", help="Duration of MCP tool calls, failed ones included.", labels=("server", "tool"), buckets=_CALL),
    Row(name="errors_total", kind="counter", help="Failed attempts, lost runs and failed calls of the store, by the class of the error.", labels=("error_type",)),
    Row(name="millstream_runs_taken_total", kind="counter", help="Runs taken under a new fence.", labels=_QUEUE),
    Row(name="millstream_runs_resumed_total", kind="counter", help="Runs taken that had a journal to go on from.", labels=_QUEUE),
    Row(name="millstream_runs_settled_total", kind="counter", help="Attempts that ended, by the state the run went to: final, scheduled (a retry), parked, or queued (released).", labels=("queue", "state")),
    Row(name="millstream_runs_lost_total", kind="counter", help="Runs whose fence moved on while this worker ran them.", labels=_QUEUE),
    Row(name="millstream_run_wait_seconds", kind="histogram", help="Time between being due and being taken.", labels=_QUEUE, buckets=_RUN),
    Row(name="millstream_steps_total", kind="counter", help="Steps that ran and were journaled; replayed ones do not count.", labels=("kind", "status")),
    Row(name="millstream_step_duration_seconds", kind="histogram", help="Duration of steps that ran.", labels=("kind",), buckets=_CALL),
    Row(name="millstream_step_retries_total", kind="counter", help="Failed steps that were tried again."),
    Row(name="millstream_circuit_moves_total", kind="counter", help="Changes of the circuit breakers of MCP servers.", labels=("server", "state")),
    Row(name="millstream_circuit_open", kind="gauge", help="1 while the breaker of an MCP server is not closed.", labels=("server",)),
    Row(name="millstream_tool_catalogue_changes_total", kind="counter", help="Times an MCP server described its tools differently than before.", labels=("server",)),
    Row(name="millstream_infer_requests_total", kind="counter", help="Calls of models that ended, by outcome.", labels=("model", "outcome")),
    Row(name="millstream_infer_request_seconds", kind="histogram", help="Duration of calls of models, waiting included.", labels=("model",), buckets=_INFER),
    Row(name="millstream_infer_queue_wait_seconds", kind="histogram", help="How long the input of a call that waited longest stood in the queue.", labels=("model",), buckets=_INFER),
    Row(name="millstream_infer_queue_depth", kind="gauge", help="Inputs that wait for a model.", labels=("model",)),
    Row(name="millstream_infer_queue_oldest_age_seconds", kind="gauge", help="Age of the input that has waited longest.", labels=("model",)),
    Row(name="millstream_infer_batch_items", kind="histogram", help="Inputs of a batch.", labels=("model",), buckets=_ITEMS),
    Row(name="millstream_infer_batch_tokens", kind="histogram", help="Tokens of a batch, without padding.", labels=("model",), buckets=_TOKENS),
    Row(name="millstream_infer_padding_ratio", kind="histogram", help="Tokens that were computed for every token of the inputs; 1 is no padding.", labels=("model",), buckets=_RATIO),
    Row(name="millstream_infer_batch_seconds", kind="histogram", help="Duration of a batch on its device.", labels=("model", "device"), buckets=_INFER),
    Row(name="millstream_infer_batch_failures_total", kind="counter", help="Batches that failed as a whole, by what that calls for: memory (split), device (start anew), input (search).", labels=("model", "kind")),
    Row(name="millstream_infer_dispatch_reason_total", kind="counter", help="Batches by why they left: full, bytes, ahead, quiescent, timer or deadline.", labels=("model", "reason")),
    Row(name="millstream_infer_slots", kind="gauge", help="Texts that are being written, token by token.", labels=("model", "device")),
    Row(name="millstream_infer_tokens_written_total", kind="counter", help="Tokens of answers that were written token by token.", labels=("model",)),
    Row(name="millstream_infer_tokens_read_total", kind="counter", help="Tokens of prompts that were read for them, padding included.", labels=("model",)),
    Row(name="millstream_infer_token_seconds", kind="histogram", help="Duration of an advance: one token of every text that is being written.", labels=("model", "device"), buckets=_INFER),
    Row(name="millstream_infer_mem_predicted_bytes", kind="gauge", help="Peak bytes predicted for the latest batch that was measured.", labels=("model", "device")),
    Row(name="millstream_infer_mem_observed_peak_bytes", kind="gauge", help="Peak bytes of the latest batch that was measured.", labels=("model", "device")),
    Row(name="millstream_infer_mem_error_ratio", kind="histogram", help="Observed over predicted peak bytes of a batch.", labels=("model",), buckets=_RATIO_BELOW),
    Row(name="millstream_infer_mem_headroom_bytes", kind="gauge", help="Bytes that what starts next may take within the budget.", labels=("device",)),
    Row(name="millstream_infer_mem_others_bytes", kind="gauge", help="Bytes that neighbours hold on the device, or have announced.", labels=("device",)),
    Row(name="millstream_infer_mem_held_bytes", kind="gauge", help="Bytes that this worker holds on the device.", labels=("device",)),
    Row(name="millstream_infer_oom_total", kind="counter", help="Batches that found no memory.", labels=("model", "device")),
    Row(name="millstream_infer_oom_splits_total", kind="counter", help="Batches that went on in parts after they found no memory.", labels=("model", "device")),
    Row(name="millstream_infer_model_loads_total", kind="counter", help="Models brought to a device.", labels=("model", "device")),
    Row(name="millstream_infer_model_load_seconds", kind="histogram", help="Duration of loading a model.", labels=("model",), buckets=_CALL),
    Row(name="millstream_infer_model_evictions_total", kind="counter", help="Models that left a device so that another has room.", labels=("model", "device")),
    Row(name="millstream_infer_device_resets_total", kind="counter", help="Times a device's context died and was started anew.", labels=("device",)),
    Row(name="millstream_worker_slots", kind="gauge", help="Runs this process may hold at once."),
    Row(name="millstream_worker_draining", kind="gauge", help="1 while the process takes nothing new."),
    Row(name="millstream_lease_renewals_total", kind="counter", help="Renewals of the lease of this process."),
    Row(name="millstream_lease_lapses_total", kind="counter", help="Renewals that came after the lease had run out."),
    Row(name="millstream_lease_renewal_seconds", kind="histogram", help="Round trip of a renewal.", buckets=_ROUND_TRIP),
    Row(name="millstream_lane_sweeps_total", kind="counter", help="Lanes looked after."),
    Row(name="millstream_runs_promoted_total", kind="counter", help="Due runs put into their stream."),
    Row(name="millstream_runs_reclaimed_total", kind="counter", help="Runs of lost workers queued again."),
    Row(name="millstream_runs_poisoned_total", kind="counter", help="Runs given up because workers died of them."),
    Row(name="millstream_entries_dropped_total", kind="counter", help="Entries of streams dropped because their run had ended or was gone."),
    Row(name="millstream_runs_restored_total", kind="counter", help="Runs put back that had not ended and stood in no stream and no timer."),
    Row(name="millstream_store_failures_total", kind="counter", help="Calls of Redis that failed, by what they were made for.", labels=("during",)),
    Row(name="millstream_store_outage_seconds", kind="histogram", help="How long Redis was away, once it is back.", buckets=_RUN),
    Row(name="millstream_event_loop_age_seconds", kind="gauge", help="Time since the event loop last came round, which it does several times a second unless something blocks it."),
    Row(name="millstream_leader", kind="gauge", help="1 while this scheduler leads."),
    Row(name="millstream_ticks_fired_total", kind="counter", help="Ticks of schedules that got their run.", labels=_QUEUE),
    Row(name="millstream_ticks_skipped_total", kind="counter", help="Ticks of schedules that were passed over: late, overlap, or full (too many waited).", labels=("reason",)),
    Row(name="millstream_tick_lateness_seconds", kind="histogram", help="How long after its time a tick got its run, a jitter included.", buckets=_RUN),
    Row(name="millstream_schedule_failures_total", kind="counter", help="Times a schedule could not fire as it stands."),
    Row(name="millstream_trial_runs_total", kind="counter", help="Runs of a trial that ended while this scheduler led, by version and state; the arm is canary or stable.", labels=("queue", "workflow_type", "version", "arm", "status")),
    Row(name="millstream_trial_rollbacks_total", kind="counter", help="Versions that were rolled back because they failed more often than the kept one.", labels=("queue", "workflow_type", "version")),
    Row(name="millstream_queue_waiting", kind="gauge", help="Runs nobody holds yet.", labels=_QUEUE, sampled="waiting"),
    Row(name="millstream_queue_running", kind="gauge", help="Runs held by workers.", labels=_QUEUE, sampled="running"),
    Row(name="millstream_queue_due", kind="gauge", help="Scheduled or parked runs whose time has come and that nobody has put into a stream yet.", labels=_QUEUE, sampled="due"),
    Row(name="millstream_queue_scheduled", kind="gauge", help="Runs that wait for their time.", labels=_QUEUE, sampled="scheduled"),
    Row(name="millstream_queue_parked", kind="gauge", help="Runs that wait for a timer, a signal or a child.", labels=_QUEUE, sampled="parked"),
    Row(name="millstream_queue_limited", kind="gauge", help="Queued runs that wait for a permit of a limit; they are not among those waiting.", labels=_QUEUE, sampled="limited"),
    Row(name="millstream_queue_dead", kind="gauge", help="Dead letters.", labels=_QUEUE, sampled="dead"),
    Row(name="millstream_queue_oldest_age_seconds", kind="gauge", help="Age of the run that has waited longest.", labels=_QUEUE, sampled="oldest_s"),
    Row(name="millstream_queue_workers", kind="gauge", help="Workers that serve the queue.", labels=_QUEUE, sampled="workers"),
    Row(name="millstream_queue_paused", kind="gauge", help="1 while workers take nothing new from the queue.", labels=_QUEUE, sampled="paused"),
    Row(name="millstream_queue_slots_used", kind="gauge", help="Slots of its workers that hold a run of the queue.", labels=_QUEUE, sampled="slots_used"),
    Row(name="millstream_queue_slots_free", kind="gauge", help="Slots of its workers that are left, as far as other queues do not take them.", labels=_QUEUE, sampled="slots_free"),
    Row(name="millstream_queue_arrival_rate", kind="gauge", help="Runs put into the streams a second, over about a minute; retries and runs that go on count again. Absent until it is known.", labels=_QUEUE, sampled="arrival_rate"),
    Row(name="millstream_queue_service_seconds", kind="gauge", help="How long a run holds its slot, on average over about five minutes. Absent until it is known.", labels=_QUEUE, sampled="service_s"),
    Row(name="millstream_queue_demand", kind="gauge", help="Runs that want to be running: waiting, running and due, or the arrival rate times the service time where that is larger. What a fleet is scaled by.", labels=_QUEUE, sampled="demand"),
    Row(name="millstream_queue_sample_age_seconds", kind="gauge", help="Age of the queue's last reading. Its gauges are absent while the reading is stale.", labels=_QUEUE, sampled="age"),
    Row(name="millstream_metrics_api_requests_total", kind="counter", help="Metrics that the Kubernetes metrics API was asked for, by the status of its answer.", labels=("group", "status")),
    Row(name="millstream_certificate_reads_total", kind="counter", help="Times the certificates of the metrics API, or of the gateway, had changed: ok, or error when the new ones are of no use.", labels=("status",)),
    *surroundings.ROWS,
    *requests.ROWS,
    Row(name=OVERFLOW, kind="counter", help="Times a label value was counted as `other`, or a queue left out, because there are too many. `all`: too many combinations.", labels=("label",)),
)
# fmt: on


def new_registry() -> Registry:
    """Return a registry that holds what every process shows: CPU, memory, garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MetricsSubscriber:
    """Counts and measures events into a registry. Usable as an `Emit`.

    ``stale_s`` is how old a reading of a queue may be before its gauges disappear, in seconds.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        service: str = "millstream",
        version: str = "unknown",
        stale_s: float = 30.0,
        mono: Callable[[], float] = time.monotonic,
        loop_age_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._series = Series(registry, TABLE)
        self._surroundings = surroundings.Surroundings(self._series)
        gauges = {row.sampled: row for row in TABLE if row.sampled}
        age = gauges.pop("age")
        self._readings = QueueReadings(gauges.values(), age=age, stale_s=stale_s, mono=mono)
        self._sampled = tuple(gauges)
        registry.register(self._readings)
        self._running = Running(self._series)
        self._series.follow("millstream_event_loop_age_seconds", loop_age_s)
        self._series.describe_info("agent_info", {"service": service, "version": version})

    def hears(self, kind: type[Event]) -> Emit | None:
        """Return what counts the events of a kind: the busiest ones without a detour."""
        return self._running.hears.get(kind, self)

    def __call__(self, event: Event) -> None:  # noqa: C901, PLR0912, PLR0915 - one case an event, flat
        """Count the event."""
        count, observe, gauge = self._series.count, self._series.observe, self._series.set
        match event:
            case StepEnded() | RunTaken() | RunSettled() | RunLost():
                self._running.hears[type(event)](event)
            case ToolCalled():
                self._tool_called(event)
            case StepRetried():
                count("millstream_step_retries_total")
            case LeaseRenewed():
                self._renewed(event)
            case LaneSwept():
                self._swept(event)
            case LaneCleaned():
                self._cleaned(event)
            case StoreFailed():
                count("millstream_store_failures_total", event.during)
                count("errors_total", error_type(event.error, otherwise="StoreError"))
            case StoreRecovered():
                observe("millstream_store_outage_seconds", event.away_s)
            case CircuitMoved():
                self._circuit_moved(event)
            case ToolCatalogueChanged():
                count("millstream_tool_catalogue_changes_total", event.server)
            case InferenceEnded() | InferenceSampled() | BatchRan() | SlotsAdvanced():
                inference.model_event(self._series, event)
            case DeviceSampled() | DeviceRanOut() | DeviceFailed() | ModelLoaded() | ModelEvicted():
                inference.device_event(self._series, event)
            case MessageSent() | MessageReceived() | TaskLeft() | AgentDiscovered():
                self._surroundings(event)
            case Scored() | SpansLeft():
                self._surroundings(event)
            case RoomAwaited():
                self._surroundings(event)
            case QueueSampled():
                self._queue_sampled(event)
            case LeaderChanged():
                self._leader_changed(event)
            case TickFired() | TicksSkipped() | ScheduleFailed():
                scheduling.tick_event(self._series, event)
            case TrialSampled() | TrialRolledBack():
                scheduling.trial_event(self._series, event)
            case MetricAsked() | CertificateRead():
                scheduling.asked_event(self._series, event)
            case WorkerStarted():
                self._worker_started(event)
            case WorkerDraining():
                gauge("millstream_worker_draining", 1)
            case WorkerStopped():
                self._running.stopped()
                gauge("millstream_worker_slots", 0)
            case GatewayStarted() | GatewayDraining() | RequestServed() | OperatorActed():
                requests.gateway_event(self._series, event)
            case _ as never:
                assert_never(never)

    def _renewed(self, event: LeaseRenewed) -> None:
        self._series.count("millstream_lease_renewals_total")
        self._series.count("millstream_lease_lapses_total", by=int(event.lapsed))
        self._series.observe("millstream_lease_renewal_seconds", event.took_s)

    def _tool_called(self, event: ToolCalled) -> None:
        where = (event.server, event.tool)
        self._series.count("mcp_tool_calls_total", *where, event.status)
        took_s, trace = event.took_s, event.trace
        self._series.observe("mcp_tool_duration_seconds", took_s, *where, trace=trace)

    def _circuit_moved(self, event: CircuitMoved) -> None:
        self._series.count("millstream_circuit_moves_total", event.server, event.state)
        self._series.set("millstream_circuit_open", float(event.state != "closed"), event.server)

    def _cleaned(self, event: LaneCleaned) -> None:
        self._series.count("millstream_entries_dropped_total", by=event.dropped)
        self._series.count("millstream_runs_restored_total", by=event.restored)

    def _swept(self, event: LaneSwept) -> None:
        self._series.count("millstream_lane_sweeps_total")
        self._series.count("millstream_runs_promoted_total", by=event.promoted)
        self._series.count("millstream_runs_reclaimed_total", by=event.reclaimed)
        self._series.count("millstream_runs_poisoned_total", by=event.poisoned)

    def _queue_sampled(self, event: QueueSampled) -> None:
        known = ((name, getattr(event, name)) for name in self._sampled)
        values = {name: float(value) for name, value in known if value is not None}
        if not self._readings.read(event.queue, values, event.took_s):
            self._series.count(OVERFLOW, "queue")

    def _leader_changed(self, event: LeaderChanged) -> None:
        self._series.set("millstream_leader", float(event.leading))
        if not event.leading:
            self._readings.forget()  # its successor samples now; two voices would be added up

    def _worker_started(self, event: WorkerStarted) -> None:
        self._series.set("millstream_worker_slots", event.concurrency)
        self._series.set("millstream_worker_draining", 0)
        # From 0: the first failure of a workflow is a rise that `rate` can see.
        for queue in event.queues:
            self._series.count("millstream_runs_resumed_total", queue, by=0)
        # A name may be served in several versions, and is counted as one.
        for workflow in sorted({each.rpartition("@")[0] for each in event.workflows}):
            for state in sorted(FINAL):
                self._series.count("workflow_executions_total", workflow, state, by=0)
