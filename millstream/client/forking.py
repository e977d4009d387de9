"""Fork a run: begin another one with what it had recorded before some step.

What is kept is what began before that step. A replay of the new run visits it, as the first run
did, and then goes on for itself. The first run is not touched, whatever its state.
"""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass, replace

from millstream.client.queues import Queues
from millstream.errors import IdConflict, KeyOccupied, UnknownRun, UnknownStep
from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.store import codec, forks, runs
from millstream.store.connection import Connection
from millstream.store.forks import Source
from millstream.store.keys import Lane


@dataclass(frozen=True, slots=True)
class Forking:
    """What it takes to fork the runs of one Redis."""

    connection: Connection
    queues: Queues

    async def fork(
        self, queue: str, run_id: str, *, step: str, new_id: str, version: str | None
    ) -> bool:
        """Accept a run with the records of another one; whether it is new.

        Raises `UnknownRun`, `UnknownStep` or `IdConflict`: nothing was written.
        """
        ask = functools.partial(self._source, run_id)
        found = await self.queues.look(queue, run_id, ask, None)
        if found is None:
            raise UnknownRun(run_id, queue)

        begun = replace(
            found,
            records=(kept := earlier(run_id, found.records, step)),
            parts=_parts_of(kept, found.parts),
            version=found.version if version is None else version,
        )
        origin = f"{run_id}\n{step}"
        wanted = (begun.workflow, begun.arguments, origin)
        ask_known = functools.partial(self._known, new_id)
        known = await self.queues.look(queue, new_id, ask_known, None)
        if known is not None:
            return self._recognised(queue, new_id, known, wanted)
        answer = await self.queues.accept(
            queue, new_id, lambda lane, epoch: self._fork(lane, epoch, new_id, origin, begun)
        )
        if answer == runs.OCCUPIED:
            raise KeyOccupied(new_id, "record or the journal")
        if isinstance(answer, str):
            # Sent again after a lost reply it is the same run, sealed anew: here that can be told.
            known = await self.queues.look(queue, new_id, ask_known, None)
            return self._recognised(queue, new_id, known or (answer, b"", ""), wanted)
        return answer

    @staticmethod
    def _recognised(
        queue: str, new_id: str, known: tuple[str, bytes, str], wanted: tuple[str, bytes, str]
    ) -> bool:
        if known != wanted:
            raise IdConflict(new_id, queue, known[0])
        return False

    async def _source(self, run_id: str, lane: Lane) -> Source | None:
        return await forks.source(self.connection, lane, run_id)

    async def _known(self, run_id: str, lane: Lane) -> tuple[str, bytes, str] | None:
        return await forks.known(self.connection, lane, run_id)

    async def _fork(
        self, lane: Lane, epoch: int, new_id: str, origin: str, begun: Source
    ) -> bool | str | runs.Resized:
        return await forks.fork(self.connection, lane, epoch, new_id, origin, begun)


def earlier(run_id: str, records: dict[str, bytes], step: str) -> dict[str, bytes]:
    """Return the records of the steps that began before a step. Raises `UnknownStep`.

    Time decides, since steps of branches have no other order among them; within a branch it is
    the order of the code. Of two that began at the same instant neither is before the other. What
    was still waited for, such as the end of a child, is waited for anew: nobody would tell the new
    run. A timer goes on, since only the clock is asked.
    """
    if step not in records:
        near = difflib.get_close_matches(step, records, n=3, cutoff=0.0)
        raise UnknownStep(run_id, step, tuple(near))

    found = {key: codec.decode_record(data) for key, data in records.items()}
    edge = found[step].began
    return {
        key: records[key] for key, record in found.items() if record.began < edge and _done(record)
    }


def _parts_of(records: dict[str, bytes], parts: dict[str, bytes]) -> dict[str, bytes]:
    """Return the parts of those values that some of these records refer to."""
    values = [codec.decode_record(data).value for data in records.values()]
    names = {value.name for value in values if isinstance(value, Spilled)}
    return {name: data for name, data in parts.items() if name.partition(":")[0] in names}


def _done(record: Record) -> bool:
    return record.status is not RecordStatus.WAITING or record.kind is StepKind.SLEEP
