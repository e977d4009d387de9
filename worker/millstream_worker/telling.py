"""What is told of a run when a worker has taken it."""

from __future__ import annotations

from collections.abc import Mapping

from millstream.events import RunTaken
from millstream.model.journal import Record
from millstream_worker.consumer import Consumer
from millstream_worker.held import Held


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
