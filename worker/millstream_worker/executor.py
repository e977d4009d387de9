"""Run one delivery: load its journal, run its workflow to an outcome, write that down.

    load  ->  run (replaying, then going on)  ->  outcome  ->  end

Computing the outcome (`Attempt`) and writing it are two things.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from millstream.errors import UnknownWorkflow, said
from millstream.events import RunLost, RunSettled
from millstream.model import outcome as outcomes
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
from millstream.store.commits import Verdict
from millstream.workflow import Workflows
from millstream_worker import verdicts
from millstream_worker.attempt import Attempt
from millstream_worker.consumer import Consumer
from millstream_worker.environment import Environment
from millstream_worker.held import Held, Stop
from millstream_worker.toolsteps import session_of


class Executor:
    """Runs the deliveries of one lane."""

    def __init__(
        self,
        workflows: Workflows,
        environment: Environment,
        mono: Callable[[], float],
        *,
        make_scope: Callable[[], anyio.CancelScope] = anyio.CancelScope,
    ) -> None:
        self._workflows = workflows
        self._environment = environment
        self._mono = mono
        self._make_scope = make_scope

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
            outcome: Outcome | None
            drop: tuple[str, ...]
            attempt = self._attempt(consumer, held)
            if attempt is None:
                outcome, drop = self._unknown(held.delivery), ()
            else:
                outcome, drop = await attempt.outcome(began, self._make_scope)
        except Exception as error:  # noqa: BLE001 - no run may end the worker, whatever it does
            outcome, drop = _broken(error), ()
        finally:
            if held.uses_tools:
                self._environment.tools.release_run(session_of(consumer.lane.queue, held.delivery))

        if held.stopped is Stop.LIMITED:
            # It has not begun, so there is nothing to tell.
            consumer.forget(held)
            return
        if outcome is None:
            self._lose(consumer, held)
            return
        try:
            self._end(consumer, held, outcome, drop, began)
        except Exception as error:  # noqa: BLE001 - the same
            self._end(consumer, held, _broken(error), (), began)

    # -- the outcome ---------------------------------------------------------------------------

    def _attempt(self, consumer: Consumer, held: Held) -> Attempt | None:
        """Return what is to be run; None when it is not known here."""
        delivery = held.delivery
        workflow = self._workflows.find(delivery.workflow, delivery.version)
        if workflow is None:
            return None

        held.pin(workflow.version)
        held.tells_steps = workflow.tells_steps
        return Attempt(held, workflow, self._environment, consumer, self._mono)

    def _unknown(self, delivery: Delivery) -> Outcome:
        if delivery.refusals >= verdicts.MOST_REFUSALS:
            known = ", ".join(str(workflow) for workflow in self._workflows)
            error = UnknownWorkflow(delivery.workflow, delivery.version, known)
            return Failed("UnknownWorkflow", str(error))

        version = f" in version {delivery.version!r}" if delivery.version else ""
        reason = f"this worker does not know the workflow{version}"
        return verdicts.refusal(delivery, self._environment.random, reason)

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
            if verdict is Verdict.FENCED:
                self._lose(consumer, held)
            else:
                consumer.forget(held)
                self._settled(consumer, held, outcome, began)

        held.end(outcome, drop, told)

    def _lose(self, consumer: Consumer, held: Held) -> None:
        """The run has left this worker, which has no say in it any more."""
        consumer.forget(held)
        delivery = held.delivery
        event = RunLost(
            run_id=delivery.run_id,
            workflow=delivery.workflow,
            queue=consumer.lane.queue,
            fence=delivery.fence,
            trace=delivery.trace,
        )
        self._environment.emit(event)

    def _settled(self, consumer: Consumer, held: Held, outcome: Outcome, began: float) -> None:
        """The run has left this worker with an outcome."""
        delivery = held.delivery
        error = traceback = None
        if isinstance(outcome, Failed | Retry):
            error, traceback = f"{outcome.cause}: {outcome.message}", outcome.traceback or None
        self._environment.emit(
            RunSettled(
                run_id=delivery.run_id,
                workflow=delivery.workflow,
                queue=consumer.lane.queue,
                state=_STATES[type(outcome)],
                attempt=delivery.attempt,
                took_s=self._mono() - began,
                error=error,
                traceback=traceback,
                refused=outcome.reason if isinstance(outcome, Refused) else None,
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


def _broken(error: Exception) -> Failed:
    return Failed(type(error).__name__, said(error), verdicts.trace(error))
