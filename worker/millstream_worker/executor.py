"""Run one delivery: load its journal, run its workflow to an outcome, write that down.

    load  ->  run (replaying, then going on)  ->  outcome  ->  end

Computing the outcome and writing it are two functions. Being put aside (drained, parked, lost) is
no failure, and no attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

import anyio
import anyio.lowlevel

from millstream.errors import (
    Continued,
    NewerRecord,
    SealKeyMissing,
    UnknownWorkflow,
    UsageError,
    said,
)
from millstream.events import RunLost, RunSettled
from millstream.model import outcome as outcomes
from millstream.model.journal import Record
from millstream.model.limit import Asked
from millstream.model.outcome import (
    Cancelled,
    Completed,
    Failed,
    Outcome,
    Parked,
    Refused,
    Released,
    Retry,
)
from millstream.model.run import Delivery
from millstream.store import codec
from millstream.store.commits import Verdict
from millstream.store.sealing import Place, opened
from millstream.workflow import Workflow, Workflows
from millstream_worker import verdicts
from millstream_worker.arguments import bind
from millstream_worker.consumer import Consumer
from millstream_worker.context import RunContext
from millstream_worker.environment import Environment
from millstream_worker.held import Held, Stop
from millstream_worker.replayer import Replay
from millstream_worker.telling import taken
from millstream_worker.toolsteps import session_of

#: A run that this many workers in a row did not know is given up: about eight minutes.
MOST_REFUSALS = 20

_Verdict = tuple[Outcome | None, tuple[str, ...]]


class Executor:
    """Runs the deliveries of one lane."""

    def __init__(
        self,
        workflows: Workflows,
        environment: Environment,
        mono: Callable[[], float],
    ) -> None:
        self._workflows = workflows
        self._environment = environment
        self._mono = mono

    def knows(self, workflow: str, version: str) -> bool:
        """Whether a version of a workflow can be run here."""
        return self._workflows.find(workflow, version) is not None

    async def execute(self, consumer: Consumer, held: Held) -> None:
        """Run a delivery to its end, and leave that end to the lane's next commit."""
        began = self._mono()
        if self._environment.sealer is not None:
            held.seal = self._environment.sealer.of_run(consumer.lane.queue, held.delivery.run_id)
        if self._environment.traces is not None:
            held.place(self._environment.traces.place_of(consumer.lane.queue, held.delivery))
        try:
            outcome, drop = await self._outcome(consumer, held, began)
        except Exception as error:  # noqa: BLE001 - no run may end the worker, whatever it does
            outcome, drop = _broken(error), ()
        finally:
            self._environment.tools.release_run(session_of(consumer.lane.queue, held.delivery))

        if held.stopped is Stop.LIMITED:
            # It has not begun, so there is nothing to tell.
            consumer.forget(held)
            return
        if outcome is None:
            self._leave(consumer, held, None, began)
            return
        try:
            self._end(consumer, held, outcome, drop, began)
        except Exception as error:  # noqa: BLE001 - the same
            self._end(consumer, held, _broken(error), (), began)

    # -- the outcome ---------------------------------------------------------------------------

    async def _outcome(self, consumer: Consumer, held: Held, began: float) -> _Verdict:
        delivery = held.delivery
        workflow = self._workflows.find(delivery.workflow, delivery.version)
        if workflow is None:
            return self._unknown(delivery), ()

        held.pin(workflow.version)
        held.tells_steps = workflow.tells_steps
        attempt = _Attempt(held, workflow, self._environment, consumer, self._mono)
        return await attempt.outcome(began)

    def _unknown(self, delivery: Delivery) -> Outcome:
        if delivery.refusals >= MOST_REFUSALS:
            known = ", ".join(str(workflow) for workflow in self._workflows)
            error = UnknownWorkflow(delivery.workflow, delivery.version, known)
            return Failed("UnknownWorkflow", str(error))

        return _refused(delivery, self._environment.random)

    # -- the end -------------------------------------------------------------------------------

    def _end(
        self,
        consumer: Consumer,
        held: Held,
        outcome: Outcome,
        drop: tuple[str, ...],
        began: float,
    ) -> None:
        def told(verdict: Verdict) -> None:
            self._leave(consumer, held, None if verdict is Verdict.FENCED else outcome, began)

        held.end(outcome, drop, told)

    def _leave(self, consumer: Consumer, held: Held, outcome: Outcome | None, began: float) -> None:
        """The run has left this worker: with an outcome, or lost."""
        consumer.forget(held)
        self._tell(consumer, held, outcome, self._mono() - began)

    def _tell(self, consumer: Consumer, held: Held, outcome: Outcome | None, took_s: float) -> None:
        delivery = held.delivery
        queue = consumer.lane.queue
        if outcome is None:
            event = RunLost(
                run_id=delivery.run_id,
                workflow=delivery.workflow,
                queue=queue,
                fence=delivery.fence,
                trace=delivery.trace,
            )
            self._environment.emit(event)
            return

        error = traceback = None
        if isinstance(outcome, Failed | Retry):
            error, traceback = f"{outcome.cause}: {outcome.message}", outcome.traceback or None
        self._environment.emit(
            RunSettled(
                run_id=delivery.run_id,
                workflow=delivery.workflow,
                queue=queue,
                state=_STATES[type(outcome)],
                attempt=delivery.attempt,
                took_s=took_s,
                error=error,
                traceback=traceback,
                tenant=delivery.tenant,
                trace=delivery.trace,
            )
        )


_STATES: dict[type[Outcome], str] = {
    Completed: "completed",
    Failed: "failed",
    Cancelled: "cancelled",
    Retry: "scheduled",
    Refused: "scheduled",
    Parked: "parked",
    outcomes.Continued: "queued",
    Released: "queued",
}


class _Attempt:
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
        self._reader = consumer.reader(held.delivery.run_id)
        self._mono = mono
        self._parked = Parked(None, 0.0)

    async def outcome(self, began: float) -> _Verdict:
        """Run the workflow; return its outcome, and the records of a failure that escaped it."""
        # A scope, and not a mere cancellation of the task: it respects what a workflow shields.
        with anyio.CancelScope() as scope:
            self._held.on_stop(scope.cancel)
            try:
                return await self._ended(began)
            finally:
                self._held.on_stop(None)
        return self.put_aside(began)

    async def _ended(self, began: float) -> _Verdict:
        try:
            if self._workflow.limits:
                await self._held.admit(self._asked())
            records = await self._reader.journal() if self._held.delivery.records else {}
            result = await self._run(records)
            if self._held.stopped is not None:
                return self.put_aside(began)
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
        place = Place(self._consumer.lane.queue, self._held.delivery.run_id, "arguments")
        return opened(self._environment.sealer, place, self._held.delivery.arguments)

    def put_aside(self, began: float) -> _Verdict:
        """Return the outcome of an attempt that was stopped from outside."""
        match self._held.stopped:
            case Stop.CANCELLED:
                return Cancelled(), ()
            case Stop.PARKED:
                ran_s = self._held.delivery.ran_s + self._mono() - began
                return replace(self._parked, ran_s=ran_s), ()
            case Stop.TIMEOUT:
                limit = f"its timeout of {self._timeout_s:g} s"
                return self._failed(TimeoutError(f"the attempt ran longer than {limit}"))
            case Stop.UNREADABLE:
                return self._unread(SealKeyMissing("?", "something that was said to the run"))
            case Stop.LOST | Stop.LIMITED:
                return None, ()
            case _:
                return Released(), ()

    def _unread(self, error: NewerRecord | SealKeyMissing) -> _Verdict:
        delivery = self._held.delivery
        if delivery.refusals < MOST_REFUSALS:
            return _refused(delivery, self._environment.random), ()
        return self._failed(error)

    def _raised(self, error: BaseException) -> _Verdict:
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

    def _failed(self, error: BaseException) -> _Verdict:
        return verdicts.failure(
            error, self._held.delivery, self._workflow, self._environment.random
        )

    @property
    def _timeout_s(self) -> float | None:
        return self._held.delivery.timeout_s or self._workflow.timeout

    async def _run(self, records: dict[str, Record]) -> Any:
        delivery = self._held.delivery
        self._environment.emit(taken(self._consumer, self._held, records))
        replay = Replay(records)
        context = RunContext(
            self._held,
            replay,
            self._environment,
            queue=self._consumer.lane.queue,
            wall=self._consumer.wall,
            reader=self._reader,
            park=self._park,
            listen=self._consumer.listener.begin,
        )
        given = delivery.arguments if self._environment.sealer is None else self._arguments()
        call = self._workflow.function(context, **bind(self._workflow, given))
        limit_s = self._timeout_s
        result = await (call if limit_s is None else self._bounded(call, limit_s - delivery.ran_s))
        if self._held.stopped is None:
            context.check_awaited()
            replay.check_complete()
        return result

    async def _bounded(self, call: Awaitable[Any], left_s: float) -> Any:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(0.0, left_s), self._held.stop, Stop.TIMEOUT)
        try:
            return await call
        finally:
            timer.cancel()

    def _park(self, due: float | None, heard: int, awaits: tuple[str, ...]) -> None:
        self._parked = Parked(due, 0.0, heard, awaits)
        self._held.stop(Stop.PARKED)


def _broken(error: Exception) -> Failed:
    return Failed(type(error).__name__, said(error), verdicts.trace(error))


def _refused(delivery: Delivery, random: Random) -> Refused:
    # Spread, lest the same worker be the one that waits for it, time and again.
    spread = 0.6 + 0.4 * random.random()
    return Refused(pause_s=min(30.0, 0.5 * 2**delivery.refusals) * spread)
