"""Ask somebody about a tool call, and wait for the answer like for any message.

An operator is asked what became of a call, a person what the tool itself wants to know before it
goes on. The answer takes the place of what stood in the journal, so it is given once and heard
once. While the run waits it is parked: no slot, no memory of a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from millstream.model.elicitation import InputNeeded, Inputs
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

    async def question(self, step: Step, needed: InputNeeded, round: int) -> Record:
        """Journal what a tool asks, and tell whoever watches; return what then waits.

        Raises `PayloadTooLarge` when a journal cannot hold it.
        """
        recorder = self.waits().recorder
        about = {"asks": {name: asdict(ask) for name, ask in needed.asks.items()}}
        record = recorder.record(
            step,
            RecordStatus.WAITING,
            {**about, "state": needed.state, "round": round},
            began=recorder.wall(),
        )
        await recorder.publish(step, record, "input", {"key": step.key, **about})
        return record

    async def answer(self, step: Step, waiting: Record) -> Inputs:
        """Return what a person answers to the question that waits."""
        waits = self.waits()
        with waits.parking.resting():
            record = await waitsteps.receive(
                waits,
                step,
                MessageKind.INPUT.of(step.key),
                waitsteps.Wait(waiting, None, RecordStatus.ANSWERED),
            )
        return Inputs(*record.value)
