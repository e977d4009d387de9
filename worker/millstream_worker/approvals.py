"""Ask a person, and wait for the answer like for any message.

The question stands in the record of the wait, where it can be listed. Of the token that may answer
it only a hash stands there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from millstream.errors import SignalTimeout
from millstream.model.approval import Approval
from millstream.model.journal import Record, RecordStatus
from millstream.model.message import MessageKind
from millstream_worker import waitsteps
from millstream_worker.steps import Step, replayed
from millstream_worker.waitsteps import Wait, Waits


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    question: str
    data: Any
    token_hash: str


async def ask(
    waits: Waits, step: Step, record: Record | None, about: Question, timeout_s: float | None
) -> Approval:
    """Return what somebody answered. Raises `SignalTimeout`."""
    error = SignalTimeout(
        f"nobody answered {about.question!r} within {timeout_s or 0:g} s", cause="SignalTimeout"
    )
    opens = record is None
    if record is None:
        await waits.recorder.ready()
        began = waits.recorder.wall()
        due = None if timeout_s is None else began + timeout_s
        record = waits.recorder.record(
            step, RecordStatus.WAITING, {**asdict(about), "due": due}, began=began
        )
    if record.status is RecordStatus.WAITING:
        wait = Wait(record, record.value["due"], opens=opens, error=error)
        record = await waitsteps.receive(waits, step, MessageKind.APPROVAL.of(step.key), wait)
    answer: Approval = replayed(step, record, Approval)
    return answer
