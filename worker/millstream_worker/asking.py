"""Ask an operator what became of a call, and wait for the answer like for any message.

The answer takes the place of the intent in the journal, so it is given once and heard once. While
the run waits it is parked: no slot, no memory of a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from millstream.model.journal import Record, RecordStatus
from millstream.model.message import MessageKind
from millstream_worker import waitsteps
from millstream_worker.pins import Pins
from millstream_worker.steps import Step
from millstream_worker.waitsteps import Waits


@dataclass(frozen=True, slots=True)
class Asking:
    """What a tool call needs beside its server: what was pinned, and whom to ask."""

    pins: Pins
    #: Made when first needed: most calls ask nobody.
    waits: Callable[[], Waits]

    async def ask(self, step: Step, intent: Record) -> Record:
        """Return what an operator says of an intent that has no answer."""
        waits = self.waits()
        name = MessageKind.RESOLUTION.of(step.key)
        # The call is over as far as this worker can know: nothing is done to the world meanwhile.
        with waits.parking.resting():
            return await waitsteps.receive(
                waits, step, name, waitsteps.Wait(intent, None, RecordStatus.RESOLVED)
            )
