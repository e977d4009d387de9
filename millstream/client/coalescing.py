"""Many callers, one call: what is asked for while a call is under way leaves with the next.

A caller that is alone waits for nobody. A hundred callers share the round trips.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from millstream.errors import UsageError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


CLOSED = "the client was closed before this was answered"


def give_up(future: asyncio.Future[Any]) -> None:
    """Tell whoever waits that no answer will come. A cancellation would look like their own."""
    if not future.done():
        future.set_exception(UsageError(CLOSED))
        # Nobody may be listening any more: that is no news.
        future.exception()


class Coalescer(Generic[Item, Answer]):
    """Turns single questions into batches. ``serve_forever`` must run for answers to come."""

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        batch: int,
        *,
        weigh: Callable[[Item], int] = lambda _: 0,
        most: int = 0,
    ) -> None:
        self._send = send
        self._batch = batch
        self._weigh = weigh
        #: What the items of one batch weigh together, unless a single one weighs more.
        self._most = most
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        #: Whether a call is under way, and how many items left with the last one.
        self._busy = False
        self._last = 1

    async def ask(self, item: Item) -> Answer:
        """Return the answer to one item, or raise what the call that carried it raised."""
        if self._closed:
            raise UsageError(CLOSED)
        # Whoever waits already goes first: a caller that asks in a row would never let them.
        if not self._busy and self._last == 1 and not self._waiting:
            return await self._ask_alone(item)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._arrived.set()
        return await future

    async def serve_forever(self) -> None:
        """Send batches, one after the other. Whoever still waits at the end is told."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting and not self._busy:
                    batch = self._next()
                    self._busy, self._last = True, len(batch)
                    await self._serve(batch)
                    self._busy = False
        finally:
            self._closed = True
            for _, future in self._waiting:
                give_up(future)

    async def _ask_alone(self, item: Item) -> Answer:
        """Send at once, without the detour over another task; who comes meanwhile waits."""
        self._busy = True
        try:
            (answer,) = await self._send([item])
        finally:
            self._busy = False
            if self._waiting:
                self._arrived.set()
        return answer

    def _next(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch = [self._waiting.popleft()]
        weight = self._weigh(batch[0][0])
        while self._waiting and len(batch) < self._batch:
            weight += self._weigh(self._waiting[0][0])
            if weight > self._most > 0:
                break
            batch.append(self._waiting.popleft())

        return batch

    async def _serve(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets to see it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            for _, future in batch:
                give_up(future)
            raise
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
