"""Models that a server computes: the batcher's place is taken by a limit that adapts itself.

Promise: no more is sent than the server bears; who waits is served by urgency; what was given up
is not sent. Embeddings of several calls leave together, in lists.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import anyio
from anyio.abc import TaskGroup

from millstream.errors import (
    InferenceError,
    InferenceFailed,
    InferenceOverloaded,
    InferenceUnavailable,
    said,
)
from millstream.events import BatchRan, Emit
from millstream.model.inference import CallOptions
from millstream.store import codec
from millstream_worker.inference.backends.openai import OpenAIServer
from millstream_worker.inference.backends.streamed import OnText
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.items import Item, traces_of
from millstream_worker.inference.limiter import Limit
from millstream_worker.inference.patience import Reason
from millstream_worker.inference.queues import ModelQueue
from millstream_worker.inference.waiting import Waiter


class _Asked(NamedTuple):
    """One input, as it is asked for."""

    input: Any
    options: dict[str, Any]
    key: str
    on_text: OnText | None


class RemoteModel:
    """One model of one server. Its requests are tasks of ``group``: who gives up cuts no other."""

    def __init__(self, spec: ModelSpec, group: TaskGroup, *, emit: Emit) -> None:
        self.spec = spec
        self._emit = emit
        self._server = OpenAIServer(spec)
        self._queue = ModelQueue(spec.name)
        most = int(spec.options.get("max_concurrency", 256))
        self._limit = Limit(min(most, int(spec.options.get("concurrency", 8))), most)
        self._changed = asyncio.Event()
        self._sent = 0
        self._mark = secrets.token_hex(4)
        self._under_way: dict[anyio.CancelScope, list[Item]] = {}
        self._group = group
        group.start_soon(self._serve)

    async def load(self) -> None:
        """There is nothing to load."""

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    def waiting(self, now: float) -> tuple[int, float]:
        """Return how many inputs wait, and how long the oldest has."""
        oldest = self._queue.oldest()
        return len(self._queue), 0.0 if oldest is None else now - oldest

    def report(self) -> dict[str, Any]:
        """Return what there is to say of the server."""
        return {
            "state": "remote",
            "waiting": len(self._queue),
            "url": self.spec.url,
            "limit": self._limit.limit,
            "running": self._limit.running,
            "sent": self._sent,
        }

    async def answer(
        self,
        waiter: Waiter,
        inputs: Sequence[Any],
        options: CallOptions,
        deadline: float,
    ) -> list[Any]:
        """Return one answer for each input."""
        items = self._items(waiter, inputs, options, deadline)
        done = waiter.expect(items)
        self._queue.add(items)
        self._changed.set()
        try:
            await done
        except BaseException:
            waiter.leave()
            self._queue.gave_up()
            self._abandon()
            raise
        return waiter.values

    def _items(
        self, waiter: Waiter, inputs: Sequence[Any], options: CallOptions, deadline: float
    ) -> list[Item]:
        if len(self._queue) + len(inputs) > self.spec.queue:
            raise InferenceOverloaded(
                f"{len(self._queue):,} inputs wait for model {self.spec.name!r}; try later",
                cause="InferenceOverloaded",
            )
        loop = asyncio.get_running_loop()
        variant = (("options", codec.encode(dict(options.backend), "the options of a call")),)
        return [
            Item(
                payload=_Asked(
                    each,
                    dict(options.backend),
                    _key_of(options, number),
                    _teller(options, number),
                ),
                length=1,
                variant=variant,
                queued=loop.time(),
                deadline=deadline,
                priority=options.priority,
                waiters=[waiter],
            )
            for number, each in enumerate(inputs)
        ]

    async def _serve(self) -> None:
        """Send what is most urgent whenever the server bears more."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._queue.clean(loop.time())
            while self._queue.head is not None and self._limit.admits(loop.time()):
                self._limit.began()
                self._group.start_soon(self._send, self._next())
            pause_s = self._limit.closed_until - loop.time()
            with anyio.move_on_after(pause_s if pause_s > 0 else None):
                await self._changed.wait()

    def _next(self) -> list[Item]:
        window = self._queue.window()
        items = window[: self.spec.batch_size if self._server.task == "embedding" else 1]
        self._queue.take(items)
        return items

    async def _send(self, items: list[Item]) -> None:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        self._sent += 1
        number = self._sent
        for item in items:
            item.launched = sent
        error: InferenceError | None = None
        with anyio.CancelScope() as scope:
            self._under_way[scope] = items
            try:
                answers = await self._ask([item.payload for item in items])
                for item, value in zip(items, answers, strict=True):
                    item.finish(value)
            except InferenceError as failed:
                error = failed
            except Exception as other:  # noqa: BLE001 - one answer must not end the others
                error = InferenceFailed(f"{type(other).__name__}: {said(other)}", cause="Answer")
        del self._under_way[scope]
        if scope.cancelled_caught:
            self._limit.gave_up()
        elif error is None:
            self._limit.answered(loop.time(), sent)
        else:
            self._failed(items, error, sent)
        self._changed.set()
        self._tell(items, number, loop.time() - sent, "input" if error else None)

    async def _ask(self, asked: Sequence[_Asked]) -> list[Any]:
        inputs, first = [each.input for each in asked], asked[0]
        if len(asked) == 1:
            return await self._server.ask(inputs, first.options, first.key, first.on_text)
        # What leaves together may leave with others the next time: it has no key.
        return await self._server.ask(inputs, first.options)

    def _abandon(self) -> None:
        """Break off the requests that nobody waits for any more: a server stops computing then."""
        for scope, items in self._under_way.items():
            if all(item.dropped for item in items):
                scope.cancel()
        self._changed.set()

    def _failed(self, items: list[Item], error: InferenceError, sent: float) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(error, InferenceOverloaded | InferenceUnavailable):
            self._limit.refused(now, sent, error.retry_after)
        else:
            self._limit.answered(now, sent)
        if len(items) > 1 and not error.retryable:
            # One of a list is no input, perhaps: each is asked for alone.
            for item in items:
                item.variant = (*item.variant, ("alone", item.number))
            self._queue.put_back(items)
            return
        for item in items:
            item.fail(error)

    def _tell(self, items: list[Item], number: int, took_s: float, fault: str | None) -> None:
        self._emit(
            BatchRan(
                batch=f"{self._mark}-{number}",
                model=self.spec.name,
                device="remote",
                runs=tuple(dict.fromkeys(w.run for x in items for w in x.waiters)),
                began=time.time() - took_s,
                reason=Reason.QUIESCENT,
                items=len(items),
                tokens=len(items),
                longest=1,
                computed=len(items),
                took_s=took_s,
                waited_s=max(item.launched - item.queued for item in items),
                predicted=0,
                fault=fault,
                traces=traces_of(items),
            )
        )


def _teller(options: CallOptions, number: int) -> OnText | None:
    """Return what is told the text of one input of a call."""
    return None if options.on_text is None else functools.partial(options.on_text, number)


def _key_of(options: CallOptions, number: int) -> str:
    """Return the idempotency key of one input of a call."""
    return f"{options.idempotency_key}-{number}" if options.idempotency_key else ""
