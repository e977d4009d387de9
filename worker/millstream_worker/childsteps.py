"""Run another workflow as a child, and wait for its end like for any message.

    record and start, together  ->  the child's lane  ->  ... ->  its end  ->  record

The child's id is made from the run and the step, so whoever goes on after a crash waits for the
same child. A child is a run like any other, in any queue: it has its own journal and retries.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from millstream.errors import ChildFailed
from millstream.model.journal import Record, RecordStatus
from millstream.model.message import MessageKind
from millstream.model.run import Delivery, RunState
from millstream.store import outbox
from millstream.store.commits import Child
from millstream.store.runs import NewRun
from millstream.store.sealing import Place, Sealer
from millstream_worker import waitsteps
from millstream_worker.steps import Step
from millstream_worker.waitsteps import Waits

#: As much of the parent's id stands in front of its children's.
_LONGEST_PREFIX = 150


def id_of(parent: Delivery, key: str) -> str:
    """Return the id of a child that was given none: the same whenever the step is called."""
    step = f"{parent.run_id}\n{parent.generation}\n{key}".encode()
    digest = hashlib.blake2b(step, digest_size=10).hexdigest()
    return f"{parent.run_id[:_LONGEST_PREFIX]}.{digest}"


def child_of(parent: Delivery, new: NewRun, queue: str, sealer: Sealer | None) -> Child:
    """Return what is written of a child run. Its arguments are sealed as its own."""
    given = new.arguments
    if sealer is not None:
        given = sealer.seal(Place(queue, new.id, "arguments"), given)
    start = outbox.Start(
        workflow=new.workflow,
        arguments=msgspec.Raw(given),
        version=new.version,
        priority=new.priority,
        timeout_ms=None if new.timeout_s is None else round(new.timeout_s * 1000),
        tenant=new.tenant,
        attempt=parent.attempt,
        trace=new.trace,
    )
    return Child(new.id, queue, outbox.encoded(start))


async def ended(waits: Waits, step: Step, record: Record | None, child: Child) -> Record:
    """Return the record of a child's end, once it has ended. Starts it, unless that was done."""
    recorder = waits.recorder
    if record is None:
        await recorder.ready()
        record = recorder.record(step, RecordStatus.WAITING, child.id, began=recorder.wall())
        await recorder.start_child(step, record, child)
    if record.status is RecordStatus.WAITING:
        wait = waitsteps.Wait(record, None, RecordStatus.ENDED, queue=child.queue)
        record = await waitsteps.receive(waits, step, MessageKind.CHILD.of(child.id), wait)
    return record


def result(step: Step, record: Record, child: Child) -> Any:
    """Return what a child run returned. Raises `ChildFailed`."""
    state, value = record.value
    if state == RunState.COMPLETED:
        return value

    cause, reason = value
    raise ChildFailed(
        f"child {child.id!r} in queue {child.queue!r} {_ENDS.get(state, state)}: {cause}: {reason}",
        key=step.key,
        cause=cause,
        run_id=child.id,
        reason=reason,
    )


_ENDS = {RunState.FAILED: "failed", RunState.CANCELLED: "was cancelled"}
