"""From rows of a table to series of Prometheus, with every label bounded.

Promises: nothing global, all series belong to the registry handed in; a label whose values do not
end collapses into ``other`` instead of filling the memory of process and Prometheus; a gauge of a
queue that was not sampled lately is absent, since a stale number scales a fleet wrongly and a
zero scales it away. It does not know events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

OTHER = "other"
#: Distinct values a label may have before the next one becomes ``other``.
LIMITS: Mapping[str, int] = {
    "workflow_type": 200,
    "queue": 200,
    "server": 50,
    "tool": 200,
    "error_type": 50,
    "model": 50,
    "device": 64,
}
#: The same for labels that stand for closed sets.
CLOSED_LIMIT = 20
#: Series one metric may have, whatever its labels combine to.
SERIES_LIMIT = 1000
_LONGEST = 120

#: Counts how often a value did not fit under its label's limit.
OVERFLOW = "millstream_label_overflows_total"

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric: the only place where its name, its labels and its meaning stand."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    #: The reading of a queue that this gauge shows; absent once the reading is stale.
    sampled: str = ""


class Series:
    """The metrics of a table, addressed by name. Safe to call from several threads."""

    def __init__(self, registry: CollectorRegistry, rows: Iterable[Row]) -> None:
        rows = [row for row in rows if not row.sampled]
        labels = {row.name: row.labels for row in rows}
        bounds = _Bounds(self._overflowed)
        self._counters = _Children(
            {row.name: _counter(row, registry) for row in rows if row.kind == "counter"},
            labels,
            bounds,
        )
        self._gauges = _Children(
            {row.name: _gauge(row, registry) for row in rows if row.kind == "gauge"}, labels, bounds
        )
        self._histograms = _Children(
            {row.name: _histogram(row, registry) for row in rows if row.kind == "histogram"},
            labels,
            bounds,
        )
        self._infos = {row.name: _info(row, registry) for row in rows if row.kind == "info"}

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Raise a counter. ``by=0`` makes the series appear, so that its first rise is seen."""
        self._counters.at(name, labels).inc(by)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._gauges.at(name, labels).set(value)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add a measurement to a histogram. Clocks of two machines may differ: never below 0."""
        self._histograms.at(name, labels).observe(max(0.0, value))

    def follow(self, name: str, read: Callable[[], float]) -> None:
        """Let a gauge be read whenever it is asked for."""
        self._gauges.at(name, ()).set_function(read)

    def describe(self, name: str, facts: Mapping[str, str]) -> None:
        """Set the facts of an info metric."""
        self._infos[name].info(dict(facts))

    def _overflowed(self, label: str) -> None:
        self.count(OVERFLOW, label)


class QueueReadings(Collector):
    """Gauges of queues, each from the queue's last reading, absent once that is stale."""

    def __init__(
        self, rows: Iterable[Row], *, age: Row, stale_s: float, mono: Callable[[], float]
    ) -> None:
        self._rows = tuple(rows)
        self._age = age
        self._stale_s = stale_s
        self._mono = mono
        self._readings: dict[str, tuple[float, Mapping[str, float]]] = {}

    def read(self, queue: str, values: Mapping[str, float]) -> bool:
        """Keep a reading; False if there are too many queues to keep this one."""
        if queue not in self._readings and len(self._readings) >= LIMITS["queue"]:
            return False
        self._readings[queue] = (self._mono(), values)
        return True

    def forget(self) -> None:
        """Drop all readings at once: another process samples now."""
        self._readings = {}

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the gauges of fresh readings, and the age of every reading."""
        now = self._mono()
        readings = sorted(self._readings.copy().items())
        for row in self._rows:
            family = _family(row)
            for queue, (at, values) in readings:
                if now - at <= self._stale_s:
                    family.add_metric([queue], values[row.sampled])
            yield family

        ages = _family(self._age)
        for queue, (at, _) in readings:
            ages.add_metric([queue], now - at)
        yield ages

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Yield the families without samples: a registry refuses a name taken twice."""
        return [_family(row) for row in (*self._rows, self._age)]


# -- details -----------------------------------------------------------------------------------

M = TypeVar("M", bound=MetricWrapperBase)


class _Bounds:
    """Which values of a label are told apart."""

    def __init__(self, overflowed: Callable[[str], None]) -> None:
        self._known: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self.overflowed = overflowed

    def keep(self, label: str, value: str) -> str:
        """Return the value, or ``other`` when the label has too many already."""
        value = value[:_LONGEST]
        with self._lock:
            known = self._known.setdefault(label, {OTHER})
            if value in known:
                return value
            # `other` is one of the known and does not count.
            if len(known) <= LIMITS.get(label, CLOSED_LIMIT):
                known.add(value)
                return value

        self.overflowed(label)
        return OTHER


class _Children(Generic[M]):
    """The series of metrics of one kind. Finding one that exists is a single look-up."""

    def __init__(
        self, metrics: Mapping[str, M], labels: Mapping[str, tuple[str, ...]], bounds: _Bounds
    ) -> None:
        self._metrics = metrics
        self._labels = labels
        self._bounds = bounds
        self._made: dict[tuple[str, ...], M] = {}
        self._counts: dict[str, int] = {}

    def at(self, name: str, labels: tuple[str, ...]) -> M:
        """Return the series, or the one its labels are bounded to."""
        child = self._made.get((name, *labels))
        return child if child is not None else self._make(name, labels)

    def _make(self, name: str, labels: tuple[str, ...]) -> M:
        pairs = zip(self._labels[name], labels, strict=True)
        kept = tuple(self._bounds.keep(label, value) for label, value in pairs)
        if (name, *kept) not in self._made:
            self._counts[name] = self._counts.get(name, 0) + 1
            if self._counts[name] > SERIES_LIMIT:
                kept = (OTHER,) * len(kept)
                self._bounds.overflowed("all")
        # Only bounded labels become keys here: what is unbounded is looked up the long way.
        child = self._metrics[name].labels(*kept) if kept else self._metrics[name]
        return self._made.setdefault((name, *kept), child)


def _counter(row: Row, registry: CollectorRegistry) -> Counter:
    return Counter(row.name, row.help, row.labels, registry=registry)


def _gauge(row: Row, registry: CollectorRegistry) -> Gauge:
    return Gauge(row.name, row.help, row.labels, registry=registry)


def _histogram(row: Row, registry: CollectorRegistry) -> Histogram:
    return Histogram(row.name, row.help, row.labels, registry=registry, buckets=row.buckets)


def _info(row: Row, registry: CollectorRegistry) -> Info:
    return Info(row.name.removesuffix("_info"), row.help, registry=registry)


def _family(row: Row) -> GaugeMetricFamily:
    return GaugeMetricFamily(row.name, row.help, labels=row.labels)
