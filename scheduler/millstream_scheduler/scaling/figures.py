"""What an autoscaler can ask for: the gauges of queues, by the names that they have in Prometheus.

One name for one thing, so that a fleet can go from one way of reading to another by changing where
it reads, and no number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from millstream.errors import NoSuchQueue, StaleReading
from millstream.events import QueueSampled
from millstream.model.demand import MOST
from millstream_scheduler.readings import Reading, Readings
from millstream_scheduler.scaling.selectors import Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number of a queue, and what several queues make of theirs."""

    name: str
    of: Callable[[QueueSampled], float | None]
    together: Callable[[Iterable[float]], float] = sum


@dataclass(frozen=True, slots=True)
class Value:
    """An answer about one queue; ``age_s`` is how old the reading is."""

    queue: str
    value: float
    age_s: float


FIGURES: Mapping[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(name="millstream_queue_demand", of=lambda queue: queue.demand),
        Figure(name="millstream_queue_waiting", of=lambda queue: queue.waiting),
        Figure(name="millstream_queue_running", of=lambda queue: queue.running),
        Figure(name="millstream_queue_due", of=lambda queue: queue.due),
        Figure(name="millstream_queue_scheduled", of=lambda queue: queue.scheduled),
        Figure(name="millstream_queue_slots_used", of=lambda queue: queue.slots_used),
        Figure(name="millstream_queue_slots_free", of=lambda queue: queue.slots_free),
        Figure(name="millstream_queue_arrival_rate", of=lambda queue: queue.arrival_rate),
        Figure(
            name="millstream_queue_oldest_age_seconds",
            of=lambda queue: queue.oldest_s,
            together=max,
        ),
    )
}


def values(readings: Readings, figure: Figure, selector: Selector) -> list[Value]:
    """Return a value for each queue that is meant.

    Raises `NoSuchQueue`, and `StaleReading` when one of them is not known: a sum without it would
    be too small, and scale the fleet in.
    """
    meant = [queue for queue in readings.queues if selector.matches({"queue": queue})]
    if not meant:
        raise NoSuchQueue(selector.text, readings.queues)

    return [_value(readings, figure, readings.fresh(queue)) for queue in meant]


def total(figure: Figure, found: Sequence[Value]) -> Value:
    """Return one value for several queues; it is as old as the oldest of them."""
    return Value(
        queue="",
        value=min(figure.together(each.value for each in found), MOST),
        age_s=max(each.age_s for each in found),
    )


def _value(readings: Readings, figure: Figure, reading: Reading) -> Value:
    value = figure.of(reading.sampled)
    if value is None:
        # Such as a rate before the second reading.
        raise StaleReading(reading.sampled.queue, None, readings.stale_s)

    return Value(reading.sampled.queue, min(max(0.0, value), MOST), readings.age_s(reading))
