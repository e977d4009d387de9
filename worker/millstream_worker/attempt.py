"""One attempt of one run: its journal is loaded, its workflow run to an outcome. Writes no end.

Being put aside (drained, parked, lost) is no failure, and no attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel

from millstream.errors import Continued, NewerRecord, SealKeyMissing, UsageError, said
from millstream.model import outcome as outcomes
from millstream.model.journal import Record
from millstream.model.limit import Asked
from millstream.model.outcome import Cancelled, Completed, Outcome, Parked, Released
from millstream.store import codec
from millstream.store.sealing import Place, opened
from millstream.workflow import Workflow
from millstream_worker import verdicts
from millstream_worker.arguments import bind
from millstream_worker.consumer import Consumer
from millstream_worker.context import RunContext
from millstream_worker.environment import Environment
from millstream_worker.held import Held, Stop
from millstream_worker.reading import RunReader
from millstream_worker.replayer import Replay
from millstream_worker.telling import taken

#: An outcome, None for a run that is lost; and the records of a failure that escaped the workflow.
Verdict = tuple[Outcome | None, tuple[str, ...]]
#: What most attempts have of either.
_NOT_PARKED = Parked(None, 0.0)
_NO_RECORDS: Mapping[str, Record] = {}


class Attempt:
    """One attempt of one run, while it is in this process."""

    def __init__(
        self,
        held: Held,
        workflow: Workflow,
        environment: Environment,
        consumer: Consumer,
        mono: Callable[[], float],
    ) -> None:
        self._held = held
        self._workflow = workflow
        self._environment = environment
        self._consumer = consumer
        self._mono = mono
        self._parked = _NOT_PARKED

    async def outcome(self, began: float, make_scope: Callable[[], anyio.CancelScope]) -> Verdict:
        """Run the workflow; return its outcome, and the records of a failure that escaped it."""
        # A scope, and not a mere cancellation of the task: it respects what a workflow shields.
        held = self._held
        with make_scope() as scope:
            held.on_stop = scope.cancel
            if held.stopped is not None:
                scope.cancel()
            try:
                return await self._ended(began)
            finally:
                held.on_stop = None
        return self.put_aside(began)

    async def _ended(self, began: float) -> Verdict:
        try:
            if self._workflow.limits:
                await self._held.admit(self._asked())
            records = await self._read().journal() if self._held.delivery.records else _NO_RECORDS
            self._environment.emit(taken(self._consumer, self._held, records))
            replay = Replay(records)
            context = self._context(replay)
            arguments = bind(self._workflow, self._arguments())
            call = self._workflow.function(context, **arguments)
            limit_s = self._held.delivery.timeout_s or self._workflow.timeout
            result = await (call if limit_s is None else self._bounded(call, limit_s))
            if self._held.stopped is not None:
                return self.put_aside(began)
            context.check_awaited()
            replay.check_complete()
            limit = self._environment.limits.result
            encoded = codec.encode(result, f"the result of {self._workflow.name!r}", limit)
        except asyncio.CancelledError as error:
            # Somebody outside wants this attempt to end, unless the workflow made that up itself:
            # then no scope around it is cancelled, and waiting a moment is allowed.
            if self._held.stopped is not None:
                raise
            task = asyncio.current_task()
            while task is not None and task.cancelling():
                task.uncancel()
            await anyio.lowlevel.checkpoint()
            return self._failed(error)
        except (NewerRecord, SealKeyMissing) as error:
            return self._unread(error)
        except BaseException as error:  # noqa: BLE001
            # Whatever a workflow raises is its outcome, unless it was stopped from outside.
            if self._held.stopped is not None:
                return self.put_aside(began)
            return self._raised(error)
        else:
            return Completed(encoded), ()

    def _asked(self) -> list[Asked]:
        arguments = codec.decode(self._arguments())
        return self._workflow.asked(self._held.delivery.tenant, arguments)

    def _arguments(self) -> bytes:
        if self._environment.sealer is None:
            return self._held.delivery.arguments
        place = Place(self._consumer.lane.queue, self._held.delivery.run_id, "arguments")
        return opened(self._environment.sealer, place, self._held.delivery.arguments)

    def put_aside(self, began: float) -> Verdict:
        """Return the outcome of an attempt that was stopped from outside."""
        match self._held.stopped:
            case Stop.CANCELLED:
                return Cancelled(), ()
            case Stop.PARKED:
                ran_s = self._held.delivery.ran_s + self._mono() - began
                return replace(self._parked, ran_s=ran_s), ()
            case Stop.TIMEOUT:
                limit_s = self._held.delivery.timeout_s or self._workflow.timeout
                limit = f"its timeout of {limit_s:g} s"
                return self._failed(TimeoutError(f"the attempt ran longer than {limit}"))
            case Stop.UNREADABLE:
                return self._unread(SealKeyMissing("?", "something that was said to the run"))
            case Stop.LOST | Stop.LIMITED:
                return None, ()
            case _:
                return Released(), ()

    def _unread(self, error: NewerRecord | SealKeyMissing) -> Verdict:
        delivery = self._held.delivery
        if delivery.refusals < verdicts.MOST_REFUSALS:
            return verdicts.refusal(delivery, self._environment.random, said(error)), ()
        return self._failed(error)

    def _raised(self, error: BaseException) -> Verdict:
        """Return what follows from what a workflow has raised."""
        if not isinstance(error, Continued):
            return self._failed(error)
        # It begins anew, if its arguments are such as it can be begun with.
        given = {} if error.arguments is None else error.arguments
        try:
            limit = self._environment.limits.arguments
            encoded = codec.encode(given, f"the arguments of {self._workflow.name!r}", limit)
            bind(self._workflow, encoded)
        except UsageError as unfit:
            return self._failed(unfit)
        return outcomes.Continued(encoded), ()

    def _failed(self, error: BaseException) -> Verdict:
        return verdicts.failure(
            error, self._held.delivery, self._workflow, self._environment.random
        )

    def _read(self) -> RunReader:
        return self._consumer.reader(self._held.delivery.run_id)

    def _context(self, replay: Replay) -> RunContext:
        return RunContext(
            self._held,
            replay,
            self._environment,
            queue=self._consumer.lane.queue,
            wall=self._consumer.wall,
            read=self._read,
            park=self._park,
            listen=self._consumer.listener.begin,
        )

    async def _bounded(self, call: Awaitable[Any], limit_s: float) -> Any:
        loop = asyncio.get_running_loop()
        left_s = limit_s - self._held.delivery.ran_s
        timer = loop.call_later(max(0.0, left_s), self._held.stop, Stop.TIMEOUT)
        try:
            return await call
        finally:
            timer.cancel()

    def _park(self, due: float | None, heard: int, awaits: tuple[str, ...]) -> None:
        self._parked = Parked(due, 0.0, heard, awaits)
        self._held.stop(Stop.PARKED)
