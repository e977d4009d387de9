"""Answers calls: what the executor of a worker sees of this package.

Promise: a call ends with one answer for each input, or with one error of the tree; what was given
up is not computed; identical inputs that are under way are computed once. Nothing is journaled
here, and nothing repeated.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio

from millstream.errors import (
    DeadlineExceeded,
    InferenceError,
    InferenceFailed,
    InferenceRejected,
    said,
)
from millstream.events import Emit, InferenceEnded, InferenceSampled
from millstream.model.inference import CallOptions
from millstream_worker import groups
from millstream_worker.inference.catalogue import REMOTE
from millstream_worker.inference.declared import BUILT_IN, Declared, Load, ModelSpec
from millstream_worker.inference.gauge import Announce, alone
from millstream_worker.inference.waiting import Attendance, Waiter

if TYPE_CHECKING:
    from millstream_worker.inference.local import LocalModel, Units
    from millstream_worker.inference.notices import Notices
    from millstream_worker.inference.remote import RemoteModel

#: Inputs of one call.
MOST_INPUTS = 10_000
_SAMPLE_S = 1.0
_PUBLISH_S = 5.0


class InferenceService:
    """The models of one worker. Enter and leave it in the same task."""

    def __init__(
        self,
        declared: Declared,
        *,
        emit: Emit,
        notices: Notices | None = None,
        make_units: Callable[..., Units] | None = None,
    ) -> None:
        self.declared = declared
        self._emit = emit
        self._notices = notices
        self._make_units = make_units
        self._units: Units | None = None
        self._models: dict[str, LocalModel | RemoteModel] = {}
        self._group = anyio.create_task_group()
        self._attendance = Attendance()
        self._held: Callable[[], int] = lambda: 0

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self._notices is not None and self.declared is not BUILT_IN:
            self._group.start_soon(self._publish)
        for name, spec in self.declared.models.items():
            if spec.load is Load.START:
                await self._model(name).load()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await groups.end(self._group)
        # Nothing is launched any more: now what the devices hold can be given back.
        with anyio.move_on_after(8.0, shield=True):
            if self._notices is not None:
                await self._notices.withdraw()
            for model in self._models.values():
                await model.close()
            if self._units is not None:
                await self._units.close()

    def attend(self, held: Callable[[], int]) -> None:
        """Say how many runs this process holds: when all of them wait here, nobody can join."""
        self._held = held

    def could_grow(self) -> bool:
        """Whether a run that does not wait here could still ask for something."""
        return self._held() > len(self._attendance)

    async def infer(
        self, model: str, inputs: Sequence[Any], options: CallOptions, *, run: str
    ) -> list[Any]:
        """Return one answer for each input. Raises `InferenceError`."""
        clock = asyncio.get_running_loop().time
        began = clock()
        outcome = "ok"
        place = options.place
        waiter = Waiter(run, self._attendance, place)
        try:
            return await self._answered(self._model(model), waiter, inputs, options)
        except InferenceError as error:
            outcome = _OUTCOMES.get(type(error).__name__, "failed")
            raise
        except anyio.get_cancelled_exc_class():
            outcome = "cancelled"
            raise
        except Exception as error:
            # A device that cannot be looked for, a backend that cannot be made.
            outcome = "failed"
            raise InferenceFailed(
                f"model {model!r} cannot be used: {type(error).__name__}: {said(error)}",
                cause=type(error).__name__,
            ) from error
        finally:
            waiter.rest()
            self._emit(
                InferenceEnded(
                    model=model if model in self.declared.models else "unknown",
                    outcome=outcome,
                    items=len(inputs),
                    waited_s=waiter.waited_s,
                    took_s=clock() - began,
                    trace=place and place.trace,
                    parent=place and place.parent,
                )
            )

    async def check(self) -> str | None:
        """Return why no model of ours can be used; None as long as any device may compute."""
        dead = self._units.dead() if self._units is not None else []
        return f"no device computes ({', '.join(dead)})" if dead else None

    def report(self) -> list[dict[str, Any]]:
        """Return what there is to say of each model, for people."""
        return [
            {"model": name, "backend": spec.backend, **self._report(name)}
            for name, spec in self.declared.models.items()
        ]

    async def _answered(
        self,
        model: LocalModel | RemoteModel,
        waiter: Waiter,
        inputs: Sequence[Any],
        options: CallOptions,
    ) -> list[Any]:
        if not inputs:
            return []
        if len(inputs) > MOST_INPUTS:
            raise InferenceRejected(
                f"a call has at most {MOST_INPUTS:,} inputs, not {len(inputs):,}; call it in parts",
                cause="TooManyInputs",
            )
        if options.timeout_s is None:
            return await model.answer(waiter, inputs, options, math.inf)

        deadline = asyncio.get_running_loop().time() + options.timeout_s
        with anyio.CancelScope(deadline=deadline) as scope:
            return await model.answer(waiter, inputs, options, deadline)

        assert scope.cancelled_caught
        raise DeadlineExceeded(
            f"model {model.spec.name!r} did not answer within {options.timeout_s:g} s",
            cause="DeadlineExceeded",
        )

    def _model(self, name: str) -> LocalModel | RemoteModel:
        found = self._models.get(name)
        if found is None:
            spec = self.declared.models.get(name)
            if spec is None:
                there = ", ".join(sorted(self.declared.models)) or "none"
                raise InferenceRejected(
                    f"no model {name!r} is declared (there are: {there}); start the worker with"
                    " --models FILE",
                    cause="UnknownModel",
                )
            if not self._models:
                self._group.start_soon(self._sample)
            found = self._models[name] = self._make(spec)
        return found

    def _make(self, spec: ModelSpec) -> LocalModel | RemoteModel:
        # Imported here: a worker that computes nothing pays for none of it.
        if spec.backend == REMOTE:
            from millstream_worker.inference.remote import RemoteModel  # noqa: PLC0415

            return RemoteModel(spec, self._group, emit=self._emit)

        from millstream_worker.inference.local import LocalModel, Units  # noqa: PLC0415

        if self._units is None:
            make = self._make_units or Units
            self._units = make(
                self.declared,
                self._group,
                emit=self._emit,
                could_grow=self.could_grow,
                announce=self._notices.announcing if self._notices else _unheard,
                keeper=self._notices,
            )
        return LocalModel(spec, self._units)

    def _report(self, name: str) -> dict[str, Any]:
        found = self._models.get(name)
        return {"state": "declared"} if found is None else found.report()

    async def _publish(self) -> None:
        """Tell people what there is, for as long as the worker lives."""
        assert self._notices is not None
        while True:
            await self._notices.publish(socket.gethostname(), self.report())
            await anyio.sleep(_PUBLISH_S)

    async def _sample(self) -> None:
        """Say once a second what waits, while there is anything to say."""
        told: set[str] = set()
        while True:
            await anyio.sleep(_SAMPLE_S)
            now = asyncio.get_running_loop().time()
            for name, model in self._models.items():
                waiting, oldest = model.waiting(now)
                if waiting or name in told:
                    told.add(name)
                    self._emit(InferenceSampled(model=name, waiting=waiting, oldest_s=oldest))
                if not waiting:
                    told.discard(name)


def _unheard(_uuid: str) -> Announce:
    return alone


_OUTCOMES = {
    "InferenceRejected": "rejected",
    "ItemTooLarge": "too_large",
    "InferenceFailed": "failed",
    "InferenceOverloaded": "overloaded",
    "InferenceUnavailable": "unavailable",
    "DeadlineExceeded": "expired",
}
