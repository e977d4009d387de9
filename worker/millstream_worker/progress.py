"""What whoever watches a run is told of its steps: one has begun, is tried again, has ended.

Only where the workflow asks for it (``events="steps"``); other runs have none of this. The end of a
step is said by the commit that records it, so it is said once, and a replay says nothing. That a
step began is said by every worker that begins it: whose was cut short is told by the fence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.errors import said
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.limits import LIMITS
from millstream.model.progress import EventKind, Saying
from millstream.store import codec
from millstream.store.commits import ONCE_ANSWERED, ONCE_WRITTEN
from millstream_worker.held import Held

if TYPE_CHECKING:
    from millstream_worker.steps import Step

#: Nothing happens in these: a value is drawn, and what is emitted speaks for itself.
_QUIET = frozenset({StepKind.VALUE, StepKind.EMIT})
#: As much of an error is said; its record has more.
_LONGEST_ERROR = 500


def saying(kind: EventKind, name: str, data: Any) -> Saying:
    """Return something to be said, encoded."""
    return Saying(kind, codec.encode([name, data], f"event {name!r}", LIMITS.event))


class Progress:
    """Tells of the steps of one run, in the hands of this worker."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def began(self, step: Step) -> None:
        """A step begins that the journal knows nothing of."""
        if step.kind not in _QUIET:
            self._held.say(self._of(step, "started"))

    def retried(self, step: Step, tries: int, pause_s: float, error: BaseException) -> None:
        """A step failed, and is tried again after a pause."""
        why = f"{type(error).__name__}: {said(error)}"[:_LONGEST_ERROR]
        told = self._of(step, "retried", tries=tries, pause_s=round(pause_s, 3), error=why)
        self._held.say(told)
        # Before the pause, and not after it.
        self._held.send()

    def ended(self, step: Step, record: Record) -> Saying:
        """Return what is said of a step's end, with its record."""
        more: dict[str, Any] = {}
        if record.status is RecordStatus.FAILED:
            kind, _, message = record.value
            more["error"] = f"{kind}: {message}"[:_LONGEST_ERROR]
        return self._of(
            step,
            "ended",
            status=record.status,
            tries=record.attempts,
            took_s=round(record.took_s, 3),
            **more,
        )

    def closing(
        self, step: Step, answered: Record, otherwise: Record | None
    ) -> list[tuple[Saying, str]]:
        """Return what is said of a wait's end, whichever of the two records is written."""
        says = [(self.ended(step, answered), ONCE_ANSWERED)]
        if otherwise is not None and otherwise.status is RecordStatus.FAILED:
            says.append((self.ended(step, otherwise), ONCE_WRITTEN))
        return says

    def _of(self, step: Step, name: str, **more: Any) -> Saying:
        delivery = self._held.delivery
        data = {
            "step": step.key,
            "kind": step.kind,
            "target": step.target,
            "attempt": delivery.attempt,
            "fence": delivery.fence,
            **more,
        }
        return saying(EventKind.STEP, name, data)
