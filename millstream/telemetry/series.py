"""From rows of a table to series of Prometheus, with every label bounded.

Promises: nothing global, all series belong to the registry handed in; a label whose values do not
end collapses into ``other`` instead of filling the memory of process and Prometheus; a gauge of a
queue that was not sampled lately is absent, since a stale number scales a fleet wrongly and a
zero scales it away. It does not know events.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from millstream.model.trace import parsed
from millstream.telemetry.labels import LIMITS, OTHER, Bounds, as_text

#: Series one metric may have, whatever its labels combine to.
SERIES_LIMIT = 1000

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
    #: Absent until it is set, although it has no labels.
    late: bool = False


class Series(Collector):
    """The metrics of a table, addressed by name. Safe to call from several threads.

    The numbers are kept here and made into families only when somebody asks for them: a busy
    worker counts a hundred thousand times a second, and is asked every fifteen.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        rows: Iterable[Row],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._rows = {row.name: row for row in rows if not row.sampled}
        self._bounds = Bounds(self._overflowed)
        self._lock = threading.Lock()
        #: By name and bounded labels: what was counted, set or measured.
        self._numbers: dict[tuple[str, ...], _Number] = {}
        self._measured: dict[tuple[str, ...], _Measured] = {}
        self._facts: dict[str, Mapping[str, str]] = {}
        self._widths = dict.fromkeys(self._rows, 0)
        for row in self._rows.values():
            if not (row.labels or row.late or row.kind == "info"):
                self._make(row.name, ())
        registry.register(self)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Raise a counter. ``by=0`` makes the series appear, so that its first rise is seen."""
        number = self._numbers.get((name, *labels)) or self._number(name, labels)
        with self._lock:
            number.value += by

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._number(name, labels).value = value

    def observe(self, name: str, value: float, *labels: str, trace: str | None = None) -> None:
        """Add a measurement to a histogram. Clocks of two machines may differ: never below 0.

        ``trace`` is the ``traceparent`` of what was measured: it becomes its bucket's example.
        """
        measured = self._measured.get((name, *labels))
        if measured is None:
            measured = self._measured[self._make(name, labels)]
        Moved(self._lock, self._wall, (), measured).add(value, trace)

    def moved(self, *counters: tuple[str, ...], histogram: tuple[str, ...]) -> tuple[Moved, bool]:
        """Return what raises counters and measures, each given as its name and its labels.

        Also whether it may be kept: not where a label has become ``other``, which is counted each
        time.
        """
        keys = [(*self._make(name, tuple(labels)),) for name, *labels in (*counters, histogram)]
        numbers = tuple(self._numbers[key] for key in keys[:-1])
        moved = Moved(self._lock, self._wall, numbers, self._measured[keys[-1]])
        return moved, keys == [*counters, histogram]

    def follow(self, name: str, read: Callable[[], float]) -> None:
        """Let a gauge be read whenever it is asked for."""
        self._number(name, ()).read = read

    def describe_info(self, name: str, facts: Mapping[str, str]) -> None:
        """Set the facts of an info metric."""
        self._facts[name] = dict(facts)

    def describe(self) -> Iterable[Metric]:
        """Yield the families without samples: a registry refuses a name taken twice."""
        return [_family(row) for row in self._rows.values()]

    def collect(self) -> Iterable[Metric]:
        """Yield every family with what it has counted so far."""
        with self._lock:
            numbers = [(key, number.value, number.read) for key, number in self._numbers.items()]
            measured = [
                (key, list(x.counts), x.total, x.examples.copy())
                for key, x in self._measured.items()
            ]
        families = {name: _family(row) for name, row in self._rows.items()}
        for (name, *labels), value, read in numbers:
            families[name].add_metric(labels, value if read is None else read())
        for (name, *labels), counts, total, examples in measured:
            edges = [_edge(edge) for edge in (*self._rows[name].buckets, math.inf)]
            sums = zip(edges, accumulate(counts), strict=True)
            buckets = [(*pair, examples.get(index)) for index, pair in enumerate(sums)]
            families[name].add_metric(labels, buckets, total)
        for name, facts in self._facts.items():
            families[name].add_metric([], facts)
        return families.values()

    def _number(self, name: str, labels: tuple[str, ...]) -> _Number:
        found = self._numbers.get((name, *labels))
        return found if found is not None else self._numbers[self._make(name, labels)]

    def _make(self, name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Make sure that a series exists; return its key, the one its labels are bounded to.

        Only bounded labels become keys: what is unbounded is looked up the long way, every time.
        """
        row = self._rows[name]
        pairs = zip(row.labels, labels, strict=True)
        key = (name, *(self._bounds.keep(label, value) for label, value in pairs))
        series: dict[tuple[str, ...], Any] = (
            self._measured if row.kind == "histogram" else self._numbers
        )
        overflowed = False
        with self._lock:
            if key not in series:
                self._widths[name] += 1
                if self._widths[name] > SERIES_LIMIT:
                    overflowed, key = True, (name, *(OTHER for _ in labels))
                made = _Measured(row.buckets) if row.kind == "histogram" else _Number()
                series.setdefault(key, made)
        if overflowed:
            self._bounds.overflowed("all")
        return key

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

    def read(self, queue: str, values: Mapping[str, float], age_s: float = 0.0) -> bool:
        """Keep a reading; False if there are too many queues to keep this one.

        ``age_s`` is how old it may have been when it came. A queue that was not read lately gives
        its place to one that is.
        """
        queue, now = as_text(queue), self._mono()
        if queue not in self._readings and len(self._readings) >= LIMITS["queue"]:
            oldest = min(self._readings, key=lambda each: self._readings[each][0])
            if now - self._readings[oldest][0] <= self._stale_s:
                return False
            del self._readings[oldest]
        self._readings[queue] = (now - age_s, values)
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
                if now - at <= self._stale_s and row.sampled in values:
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


class _Number:
    """A counter or a gauge."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.read: Callable[[], float] | None = None


class _Measured:
    """A histogram: how many values fell into each bucket, and their sum."""

    __slots__ = ("counts", "edges", "examples", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0
        #: The last one of each bucket that has a trace.
        self.examples: dict[int, Exemplar] = {}


class Moved:
    """Series that move together: found once, and raised under one lock."""

    __slots__ = ("_counted", "_lock", "_measured", "_wall")

    def __init__(
        self,
        lock: threading.Lock,
        wall: Callable[[], float],
        counted: tuple[_Number, ...],
        measured: _Measured,
    ) -> None:
        self._lock = lock
        self._wall = wall
        self._counted = counted
        self._measured = measured

    def add(self, value: float, trace: str | None = None) -> None:
        """Raise the counters by one and measure a value: see `Series.observe`."""
        measured = self._measured
        if not value >= 0:  # below, or no number: that would stay in the sum for good
            value = 0.0
        bucket = bisect_left(measured.edges, value)
        with self._lock:
            for number in self._counted:
                number.value += 1
            measured.total += value
            measured.counts[bucket] += 1
        if trace is not None and (context := parsed(trace)) is not None and context.sampled:
            example = Exemplar({"trace_id": context.trace_id}, value, self._wall())
            measured.examples[bucket] = example


_FAMILIES: Mapping[Kind, type[Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


def _edge(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]  # it is not annotated


def _family(row: Row) -> Any:
    name = row.name.removesuffix("_info") if row.kind == "info" else row.name
    return _FAMILIES[row.kind](name, row.help, labels=row.labels)
