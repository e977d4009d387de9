"""What every call of a context needs of its run: keys, the journal, and who records and parks.

Knows nothing of what the calls are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import Any

from millstream.context import Context
from millstream.errors import NeverAwaited, Suspended
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream_worker import waitsteps
from millstream_worker.asking import Asking
from millstream_worker.environment import Environment
from millstream_worker.held import Held
from millstream_worker.mailbox import Mailbox
from millstream_worker.parking import Parking
from millstream_worker.pins import Pins
from millstream_worker.reading import RunReader
from millstream_worker.replayer import Replay
from millstream_worker.steps import Recorder, Step


class Basis(Context):
    """One attempt of one run, as the calls of its context see it."""

    def __init__(
        self,
        held: Held,
        replay: Replay,
        environment: Environment,
        *,
        queue: str,
        wall: Callable[[], float],
        read: Callable[[], RunReader],
        park: Callable[[float | None, int, tuple[str, ...]], None],
        listen: Callable[[], None],
    ) -> None:
        self._held = held
        self._delivery = held.delivery
        self._replay = replay
        self._environment = environment
        self._queue = queue
        self._wall = wall
        self._read = read
        self._park = park
        self._listen = listen
        self._unawaited: dict[str, None] = {}
        #: Ids of the children that are waited for.
        self._children: set[str] = set()

    def check_awaited(self) -> None:
        """Raise `NeverAwaited` when the run ends with calls that nothing came of."""
        if self._unawaited:
            raise NeverAwaited(tuple(self._unawaited))

    @property
    def run_id(self) -> str:
        return self._delivery.run_id

    @property
    def attempt(self) -> int:
        return self._delivery.attempt

    @property
    def tenant(self) -> str | None:
        return self._delivery.tenant

    # -- for the calls -------------------------------------------------------------------------
    # Made when first needed: many a run records little, and only few wait or call tools.

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self._held, self._environment, self._wall, self._queue)

    @cached_property
    def _pins(self) -> Pins:
        return Pins(self._recorder, self._visit)

    @cached_property
    def _asking(self) -> Asking:
        return Asking(self._pins, lambda: self._waits)

    @cached_property
    def _parking(self) -> Parking:
        return Parking(self._put_aside, self._environment.park_after_s, self._wall)

    @cached_property
    def _waits(self) -> waitsteps.Waits:
        box = Mailbox(self._read(), received=self._held.addressed, begin=self._listen)
        self._held.on_message = box.hear
        return waitsteps.Waits(self._recorder, self._parking, box)

    def _put_aside(self, due: float | None, awaits: tuple[str, ...]) -> None:
        # Who waits for no message has no mailbox, and needs none.
        heard = self._waits.mailbox.heard if awaits else 0
        self._park(due, heard, waitsteps.together(awaits))

    def _step(  # noqa: PLR0917 - what a record says of it
        self,
        kind: StepKind,
        target: str,
        digest: str,
        name: str,
        key: str | None,
        given: Any = None,
    ) -> Step:
        taken = self._replay.branch.key(name, key)
        return Step(key=taken, kind=kind, target=target, digest=digest, given=given)

    def _visit(self, step: Step) -> Record | None:
        record = self._replay.visit(step.key, step.kind, step.target, step.digest)
        if record is None and self._held.tells_steps and self._recorder.progress is not None:
            self._recorder.progress.began(step)
        return record

    def _value(self, name: str, draw: Callable[[], Any]) -> Any:
        if self._held.stopped is not None:
            raise Suspended
        step = self._step(StepKind.VALUE, name, "", name, None)
        record = self._visit(step)
        if record is None:
            record = self._recorder.record(
                step, RecordStatus.OK, draw(), began=self._recorder.wall()
            )
            self._recorder.write_later(step, record)
        return record.value

    async def _too_late(self) -> Any:
        # Not at once: a workflow that catches everything and tries again must let others run.
        await asyncio.sleep(0)
        raise Suspended
