"""What is told of a run beside its records: that it was taken, its scores, the step that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar

from millstream.events import RunTaken, Scored
from millstream.model.journal import Record
from millstream.model.run import Delivery
from millstream.store import codec
from millstream_worker.consumer import Consumer
from millstream_worker.held import Held

#: What a workflow emits to say how satisfied a customer is; it becomes the metric of that name.
SCORE = "customer_satisfaction_score"
#: The key of the function step that runs, for what it logs.
RUNNING: ContextVar[str] = ContextVar("step", default="")


def running_step() -> str:
    """Return the key of the step that calls this, also from its thread; empty outside of one."""
    return RUNNING.get()


def scores(delivery: Delivery, queue: str, data: bytes) -> Iterator[Scored]:
    """Yield the score that a run emits; anything but a number is for who watches the run alone."""
    _, value = codec.decode(data)
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield Scored(run_id=delivery.run_id, workflow=delivery.workflow, queue=queue, value=value)


def taken(consumer: Consumer, held: Held, records: Mapping[str, Record]) -> RunTaken:
    """Return the event of a run that begins here, or goes on."""
    delivery = held.delivery
    return RunTaken(
        run_id=delivery.run_id,
        workflow=delivery.workflow,
        queue=consumer.lane.queue,
        attempt=delivery.attempt,
        fence=delivery.fence,
        records=len(records),
        # The id of a stream entry begins with the time it was added, in milliseconds.
        waited_s=max(0.0, consumer.wall() - int(delivery.entry.partition("-")[0]) / 1000),
        tenant=delivery.tenant,
        trace=delivery.trace,
        parent=held.caller,
    )
