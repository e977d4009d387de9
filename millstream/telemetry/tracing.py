"""Traces: one subscriber that makes spans of events, from a client's enqueue to a run's last step.

    enqueue research                 the client, or whoever called it
      take research                  each time a worker takes the run: the wait before
        step download                each step that ran; what was replayed is no span again
          call time/get_current_time   each attempt at a tool or a model
        run research                 what came of the take

Promises: a span's name follows from the run, the fence and the step, so nothing is held open while
a run is parked, and what another worker did before a crash stands in the same trace. A take hangs
under the enqueue and is linked to it. Steps hang under the take and not under the attempt, which
is known only when it ends: a worker that is killed leaves a whole tree. It does not know where
spans go, nor any library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random, SystemRandom
from typing import Any

from millstream.events import (
    BatchRan,
    Event,
    InferenceEnded,
    RunLost,
    RunSettled,
    RunTaken,
    StepEnded,
    StepRetried,
    ToolCalled,
)
from millstream.model.run import Delivery
from millstream.model.trace import Place, SpanContext, parsed, root_of
from millstream.telemetry.spans import Attributes, Kind, Spans

#: What a call of a server or a model ended with when nothing went wrong.
_WELL = frozenset({"ok"})


class Tracing:
    """Makes spans. Usable as an `Emit`, by a worker as its `Traces`, by a client as its own."""

    def __init__(self, spans: Spans, random: Random | None = None) -> None:
        self._spans = spans
        self._random = random or SystemRandom()
        self._made: dict[type, Callable[[Any], None]] = {
            RunTaken: self._taken,
            RunSettled: self._settled,
            RunLost: self._lost,
            StepEnded: self._step,
            StepRetried: self._retried,
            ToolCalled: self._tool,
            InferenceEnded: self._inference,
            BatchRan: self._batch,
        }

    def __call__(self, event: Event) -> None:
        """Write the span of the event, if it is one."""
        make = self._made.get(type(event))
        if make is not None:
            make(event)

    def place_of(self, queue: str, delivery: Delivery) -> Place:
        """Return where a delivery stands: under who enqueued it, else in a trace of the run's own.

        The first take of a run that nobody traced before is the root of its trace, for all
        workers alike.
        """
        caller = parsed(delivery.trace)
        names = ("take", queue, delivery.run_id)
        if caller is not None:
            return Place(str(caller.under(*names, str(delivery.fence))), str(caller))

        root = root_of(*names, f"{delivery.enqueued:.3f}")
        root = root._replace(sampled=self._spans.samples(root.trace_id))
        if delivery.fence == 1:
            return Place(str(root))
        return Place(str(root.under(str(delivery.fence))), str(root))

    @contextmanager
    def enqueuing(self, workflow: str, queue: str, parent: str | None = None) -> Iterator[str]:
        """Write a span of what is enqueued inside; yields the context that the run is given.

        ``parent`` is the ``traceparent`` of whoever asked for it. Yields "" when the trace is not
        recorded.
        """
        above = parsed(parent)
        nonce = f"{self._random.getrandbits(128):032x}"
        at = root_of(nonce) if above is None else above.under("enqueue", nonce)
        if above is None:
            at = at._replace(sampled=self._spans.samples(at.trace_id))
        began = self._spans.now_ns()
        error: str | None = None
        try:
            yield str(at) if at.sampled else ""
        except BaseException as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            self._spans.write(
                at,
                f"enqueue {workflow}",
                parent=above,
                kind=Kind.PRODUCER,
                took_s=(self._spans.now_ns() - began) / 1e9,
                attributes={"millstream.workflow": workflow, "millstream.queue": queue},
                error=error,
            )

    def close(self) -> None:
        """Export what waits, within a bounded time."""
        self._spans.close()

    # -- one event, one span -------------------------------------------------------------------

    def _taken(self, event: RunTaken) -> None:
        take, caller = parsed(event.trace), parsed(event.parent)
        if take is not None:
            self._spans.write(
                take,
                f"take {event.workflow}",
                parent=caller,
                kind=Kind.CONSUMER,
                took_s=event.waited_s,
                attributes=_facts(event, fence=event.fence, records=event.records),
                links=[caller] if caller is not None else [],
            )

    def _settled(self, event: RunSettled) -> None:
        take = parsed(event.trace)
        if take is not None:
            self._spans.write(
                take.under("run"),
                f"run {event.workflow}",
                parent=take,
                took_s=event.took_s,
                attributes=_facts(event, state=event.state),
                error=event.error,
            )

    def _lost(self, event: RunLost) -> None:
        take = parsed(event.trace)
        if take is not None:
            self._spans.write(
                take.under("run"),
                f"run {event.workflow}",
                parent=take,
                took_s=0.0,
                attributes=_facts(event, state="lost"),
                error="another worker holds the run now",
            )

    def _step(self, event: StepEnded) -> None:
        take = parsed(event.trace)
        if take is not None:
            facts: dict[str, str | float] = {
                "step.key": event.key,
                "step.kind": event.kind,
                "step.tries": event.attempts,
            }
            self._spans.write(
                take.under("step", event.key),
                f"step {event.target}",
                parent=take,
                took_s=event.took_s,
                attributes=_facts(event, **facts),
                error=None if event.status == "ok" else f"the step {event.status}",
            )

    def _retried(self, event: StepRetried) -> None:
        take = parsed(event.trace)
        if take is not None:
            step = take.under("step", event.key)
            self._spans.write(
                step.under("retry", str(event.attempt)),
                f"retry {event.key}",
                parent=step,
                took_s=0.0,
                attributes=_facts(event, pause_s=event.pause_s),
                error=event.error,
            )

    def _tool(self, event: ToolCalled) -> None:
        self._call(
            event,
            f"call {event.server}/{event.tool}",
            event.status,
            {
                "mcp.method.name": "tools/call",
                "gen_ai.tool.name": event.tool,
                "millstream.server": event.server,
            },
        )

    def _inference(self, event: InferenceEnded) -> None:
        self._call(
            event,
            f"infer {event.model}",
            event.outcome,
            {
                "gen_ai.request.model": event.model,
                "millstream.items": event.items,
                "millstream.waited_s": event.waited_s,
            },
        )

    def _call(
        self, event: ToolCalled | InferenceEnded, name: str, status: str, facts: Attributes
    ) -> None:
        at = parsed(event.trace)
        if at is not None:
            self._spans.write(
                at,
                name,
                parent=parsed(event.parent),
                kind=Kind.CLIENT,
                took_s=event.took_s,
                attributes={**facts, "millstream.status": status},
                error=None if status in _WELL else f"the call ended as {status}",
            )

    def _batch(self, event: BatchRan) -> None:
        """A batch hangs under the call that has waited longest, and is linked to all of them."""
        calls = [call for call in map(parsed, event.traces or ()) if call is not None]
        recorded: list[SpanContext] = [call for call in calls if call.sampled]
        if recorded:
            first = recorded[0]
            self._spans.write(
                first.under("batch", event.batch, event.device),
                f"batch {event.model}",
                parent=first,
                took_s=event.took_s,
                attributes={
                    "gen_ai.request.model": event.model,
                    "millstream.batch": event.batch,
                    "millstream.device": event.device,
                    "millstream.items": event.items,
                    "millstream.tokens": event.tokens,
                    "millstream.reason": event.reason,
                },
                links=recorded,
                error=event.fault and f"the batch failed for {event.fault}",
            )


def _facts(
    event: RunTaken | RunSettled | RunLost | StepEnded | StepRetried, **more: str | float
) -> Attributes:
    named = ("run_id", "workflow", "queue", "attempt", "tenant")
    known = {name: getattr(event, name, None) for name in named}
    facts = {**known, **more}
    return {f"millstream.{name}": fact for name, fact in facts.items() if fact is not None}
