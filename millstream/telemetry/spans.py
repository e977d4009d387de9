"""Spans on their way to a collector: named by whoever knows their place, and exported in batches.

Promises: writing a span never waits and never raises for the sake of an export; what could not be
exported, or found no room, is counted; closing takes a bounded time, whatever the collector does.
Nothing global is set. It does not know what a span is about.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, overload

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision

from millstream.events import Emit, SpansLeft
from millstream.model.trace import SpanContext
from millstream.telemetry.redaction import redact_text

Attribute = str | int | float | bool
Attributes = Mapping[str, Attribute]

#: A crash loses what was not exported yet, so it is less than the usual five seconds.
DELAY_S = 1.0
#: How long one batch may take, tries included.
EXPORT_S = 5.0
#: Spans that may wait, and how many leave together.
WAITING = 4096
BATCH = 512
CLOSE_S = 2.0
_LONGEST_STATUS = 500
#: Bytes of a collector's answer.
_LONGEST_ANSWER = 64 * 1024


class Kind(IntEnum):
    """How a span stands to the outside, in the words of OpenTelemetry."""

    INTERNAL = trace.SpanKind.INTERNAL.value
    CLIENT = trace.SpanKind.CLIENT.value
    PRODUCER = trace.SpanKind.PRODUCER.value
    CONSUMER = trace.SpanKind.CONSUMER.value


class Spans:
    """Writes spans whose names are chosen. Safe to call from several threads."""

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        resource: Mapping[str, str],
        told: Emit,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        self._ids = _ChosenIds()
        # The sampler is that of OTEL_TRACES_SAMPLER; by default what the caller decided.
        self._provider = TracerProvider(
            resource=Resource.create(dict(resource)),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_Bounded(exporter, told))
        self._tracer = self._provider.get_tracer("millstream", resource.get("service.version"))

    def now_ns(self) -> int:
        """Return the time in nanoseconds of the Unix epoch."""
        return self._wall_ns()

    def samples(self, trace_id: str) -> bool:
        """Whether a trace that begins here is recorded: everybody who asks decides the same."""
        result = self._provider.sampler.should_sample(Context(), int(trace_id, 16), "take")
        return result.decision is not Decision.DROP

    def write(
        self,
        at: SpanContext,
        name: str,
        *,
        parent: SpanContext | None,
        took_s: float,
        kind: Kind = Kind.INTERNAL,
        attributes: Attributes | None = None,
        links: Iterable[SpanContext] = (),
        error: str | None = None,
    ) -> None:
        """Write a span that ends now."""
        if not at.sampled:
            return

        end = self._wall_ns()
        with self._lock:
            self._ids.choose(at)
            span = self._tracer.start_span(
                _said(name),
                context=Context() if parent is None else _below(parent),
                kind=trace.SpanKind(kind.value),
                attributes={key: _said(value) for key, value in (attributes or {}).items()},
                links=[trace.Link(_as_context(link)) for link in links],
                start_time=end - max(0, round(took_s * 1e9)),
            )
        if error is not None:
            said = _said(error)[:_LONGEST_STATUS]
            span.set_status(trace.Status(trace.StatusCode.ERROR, said))
        span.end(end_time=end)

    def close(self) -> None:
        """Export what waits, as far as that goes within a bounded time."""
        # In a thread that need not end: a collector that hangs must not keep the process.
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(CLOSE_S)


def otlp_exporter(endpoint: str) -> SpanExporter:
    """Return what sends spans as OTLP over HTTP. Headers and TLS are those of OTEL_EXPORTER_*."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,  # costs 15 MB, and only who traces pays
    )

    # What it would say of every failure is counted here, and said as an event.
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    path = "/v1/traces"
    base = endpoint.rstrip("/")
    return OTLPSpanExporter(
        base if base.endswith(path) else base + path, timeout=EXPORT_S, session=_session()
    )


# -- details -----------------------------------------------------------------------------------


def _session() -> Any:
    """Return what requests are sent with; None where a provider of credentials brings its own."""
    if any(name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ):
        return None
    import requests  # noqa: PLC0415 - comes with the exporter

    session = requests.Session()
    session.hooks["response"].append(_cut_short)
    return session


def _cut_short(answer: Any, *_: Any, **__: Any) -> None:
    """Read no answer that is long, or does not say how long it is: only its status counts."""
    length = answer.headers.get("Content-Length", "")
    if not (length.isdigit() and int(length) <= _LONGEST_ANSWER):
        answer.close()


@overload
def _said(value: str) -> str: ...


@overload
def _said(value: Attribute) -> Attribute: ...


def _said(value: Attribute) -> Attribute:
    """Return what may leave: without secrets, and as text that everybody can read.

    Half a character, as errors about files have, would cost all spans that leave together.
    """
    if not isinstance(value, str):
        return value
    return redact_text(value).encode("utf-8", "replace").decode()


class _ChosenIds(RandomIdGenerator):
    """Gives the next span the ids that were chosen for it."""

    def __init__(self) -> None:
        self._chosen: SpanContext | None = None

    def choose(self, at: SpanContext) -> None:
        """Say what the next span is called."""
        self._chosen = at

    def generate_span_id(self) -> int:
        """Return the chosen id."""
        return super().generate_span_id() if self._chosen is None else int(self._chosen.span_id, 16)

    def generate_trace_id(self) -> int:
        """Return the chosen id; asked for only where there is no parent."""
        return (
            super().generate_trace_id() if self._chosen is None else int(self._chosen.trace_id, 16)
        )


class _Bounded(SpanProcessor):
    """Batches what fits, and counts what does not: the SDK's own queue drops in silence."""

    def __init__(self, exporter: SpanExporter, told: Emit) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._waiting = 0
        self._dropped = 0
        self._batches = BatchSpanProcessor(
            _Counted(exporter, self._left),
            max_queue_size=WAITING,
            schedule_delay_millis=DELAY_S * 1000,
            max_export_batch_size=BATCH,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span into the next batch, if there is room."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            room = self._waiting < WAITING
            if room:
                self._waiting += 1
            else:
                self._dropped += 1
            # Told a batch at a time, and not only when one has left: it may never do.
            full = self._dropped >= BATCH
        if room:
            self._batches.on_end(span)
        elif full:
            self._tell_dropped()

    def shutdown(self) -> None:
        """Export what waits and take no more."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]  # it is not annotated

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what waits."""
        return self._batches.force_flush(timeout_millis)

    def _left(self, count: int, *, well: bool) -> None:
        with self._lock:
            self._waiting -= count
        self._told(SpansLeft(outcome="exported" if well else "failed", spans=count))
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._told(SpansLeft(outcome="dropped", spans=dropped))


class _Counted(SpanExporter):
    """Tells what became of every batch, and never raises."""

    def __init__(self, exporter: SpanExporter, left: Callable[..., None]) -> None:
        self._exporter = exporter
        self._left = left

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - whatever it is, it is counted
            result = SpanExportResult.FAILURE
        self._left(len(spans), well=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Let the exporter write what it holds."""
        return self._exporter.force_flush(timeout_millis)


def _as_context(at: SpanContext) -> trace.SpanContext:
    flags = trace.TraceFlags.SAMPLED if at.sampled else trace.TraceFlags.DEFAULT
    return trace.SpanContext(
        int(at.trace_id, 16),
        int(at.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(flags),
    )


def _below(parent: SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(_as_context(parent)), Context())
