"""From the inputs of a call to items in a queue.

Promise: what can never be computed is refused here, before it waits; an identical input that is
under way is waited for instead of computed again. This runs for every call, beside a device whose
own Python wants the same interpreter: it makes few calls of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from millstream.errors import InferenceOverloaded, InferenceRejected, said
from millstream.model.inference import CallOptions
from millstream.store import codec
from millstream_worker.inference.backends import Backend
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.items import Item, too_large
from millstream_worker.inference.machine import InThread
from millstream_worker.inference.queues import ModelQueue
from millstream_worker.inference.unit import Unit
from millstream_worker.inference.waiting import Waiter

_length = attrgetter("length")
#: Options of a call, in one order: what has to be equal for items to leave together.
Variant = tuple[tuple[str, Any], ...]


class Intake:
    """The way into the queue of one model."""

    def __init__(
        self,
        spec: ModelSpec,
        backend: Backend,
        queue: ModelQueue,
        serving: Sequence[Unit],
        in_thread: InThread,
    ) -> None:
        self.queue = queue
        self._spec = spec
        self._backend = backend
        self._serving = serving
        self._in_thread = in_thread
        self._usual = _ordered(backend.call_options)
        #: What is under way, by what is computed.
        self._under_way: dict[tuple[Variant, Hashable], Item] = {}

    async def take(
        self, waiter: Waiter, inputs: Sequence[Any], options: CallOptions, deadline: float
    ) -> asyncio.Future[None]:
        """Let the inputs of a call wait; return what ends when all are answered."""
        variant = self._variant(options.backend) if options.backend else self._usual
        prepare, full = self._backend.prepare, dict(variant)
        try:
            if self._quick(inputs):
                prepared = [prepare(each, full) for each in inputs]
            else:
                prepared = await self._in_thread(lambda: [prepare(x, full) for x in inputs])
        except Exception as error:
            raise InferenceRejected(
                f"model {self._spec.name!r} cannot take this input: {said(error)}",
                cause=type(error).__name__,
            ) from error

        self._check(max(map(_length, prepared)), len(prepared))
        items, new = [], []
        now = asyncio.get_running_loop().time()
        share = options.dedupe and self._backend.repeatable
        for given, each in zip(inputs, prepared, strict=True):
            place = (variant, _digest(given)) if share else None
            item = self._under_way.get(place) if place else None
            if item is not None and _serves(item, deadline, heard=options.on_text is not None):
                item.waiters.append(waiter)
            else:
                item = Item(
                    payload=each.payload,
                    length=each.length,
                    variant=variant,
                    queued=now,
                    deadline=deadline,
                    priority=options.priority,
                    waiters=[waiter],
                    place=place,
                )
                new.append(item)
                if place:
                    self._under_way[place] = item
                    item.on_done = self._forget
            items.append(item)
        self.queue.add(new)
        waiter.on_text = options.on_text
        return waiter.expect(items)

    def leave(self, waiter: Waiter) -> None:
        """A call was given up, or failed: what nobody else waits for is not computed."""
        waiter.leave()
        for item in waiter.items:
            if item.dropped:
                self._forget(item)
        self.queue.gave_up()

    def _variant(self, given: Mapping[str, Any]) -> Variant:
        known = self._backend.call_options
        unknown = set(given) - set(known)
        if unknown:
            there = ", ".join(sorted([*known, "timeout", "priority", "dedupe"]))
            raise InferenceRejected(
                f"model {self._spec.name!r} takes no option {min(unknown)!r}; it takes {there}",
                cause="UnknownOption",
            )
        return _ordered({**known, **given})

    def _quick(self, inputs: Sequence[Any]) -> bool:
        """Whether inputs are prepared where they arrive: a thread would cost more."""
        size = 0
        for each in inputs:
            size += len(each) if isinstance(each, str) else 256
        return size <= self._backend.quick_chars

    def _check(self, longest: int, count: int) -> None:
        """Refuse what can never be computed: if the longest input can, so can the others."""
        name, most = self._spec.name, self._backend.max_length
        if most is not None and longest > most:
            raise too_large(name, longest, f"it takes at most {most:,}")
        if longest > self._spec.max_tokens:
            raise too_large(name, longest, f"max_tokens is {self._spec.max_tokens:,}")
        for unit in self._serving:
            if unit.fits_ever(name, longest):
                break
        else:
            raise too_large(name, longest, "no device here has the memory for it")
        if len(self.queue) + count > self._spec.queue:
            raise InferenceOverloaded(
                f"{len(self.queue):,} inputs wait for model {name!r} and {self._spec.queue:,}"
                " may; try later, or add workers",
                cause="InferenceOverloaded",
            )

    def _forget(self, item: Item) -> None:
        if self._under_way.get(item.place) is item:
            del self._under_way[item.place]


def _serves(item: Item, deadline: float, *, heard: bool) -> bool:
    """Whether an item that is under way will do; who listens wants to hear it from the start."""
    return not item.dropped and item.deadline >= deadline and not (heard and item.launched)


def _ordered(options: Mapping[str, Any]) -> Variant:
    return tuple(sorted(options.items()))


def _digest(given: Any) -> Hashable:
    """Return what is equal for equal inputs alone: most often the input itself."""
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given and set(map(type, given)) == {int}:
        return tuple(given)
    return codec.digest(given).encode()
