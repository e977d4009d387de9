"""Wait for the ends of any number of runs of a lane over one connection.

Subscribe, then read the state, then listen, and read again now and then: whatever message is
lost, an end is never missed, only learned a little later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import anyio

from millstream.client.coalescing import Coalescer, give_up
from millstream.errors import StoreError
from millstream.model.limits import LIMITS
from millstream.store import results
from millstream.store.connection import Connection
from millstream.store.keys import Lane

#: How often the state of a run is read although nothing was heard of it.
RECHECK_S = 2.0

Ended = results.End | results.Unknown
_Answer = results.End | results.Pending | results.Unknown
#: Asks again while Redis does not answer, as long as the client's patience lasts.
Insist = Callable[[Callable[[], Awaitable[_Answer]]], Awaitable[_Answer]]


class Waiting:
    """The runs of one lane that this client waits for. ``serve_forever`` must run."""

    def __init__(self, connection: Connection, lane: Lane, inbox: str) -> None:
        self._connection = connection
        self._lane = lane
        self._name = inbox
        self._waiters: dict[str, list[asyncio.Future[Ended]]] = {}
        self._questions: Coalescer[str, _Answer] = Coalescer(self._watch, LIMITS.batch)

    async def end(self, run_id: str, insist: Insist) -> Ended:
        """Return how the run ended, once it has.

        Raises `StoreError` when the state cannot be asked, however much ``insist`` does. From
        then on it waits as long as the run takes, whatever becomes of Redis.
        """
        future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(run_id, []).append(future)
        try:
            answer = await insist(lambda: self._questions.ask(run_id))
            return await future if isinstance(answer, results.Pending) else answer
        finally:
            self._forget(run_id, future)

    async def serve_forever(self) -> None:
        """Listen, and ask again for what was not heard of."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._questions.serve_forever)
                while True:
                    try:
                        await self._listen()
                    except StoreError:
                        await anyio.sleep(0.2)
        finally:
            for futures in self._waiters.values():
                for future in futures:
                    give_up(future)

    async def _listen(self) -> None:
        inbox = results.Inbox(self._connection, self._lane, self._name)
        try:
            await inbox.open()
            # Whoever asked before the subscription stood may have missed the message.
            await self._ask_again()
            asked = anyio.current_time()
            async for message in inbox.messages(RECHECK_S):
                if message is not None:
                    await self._heard(message)
                if anyio.current_time() - asked >= RECHECK_S:
                    await self._ask_again()
                    asked = anyio.current_time()
        finally:
            with anyio.move_on_after(1, shield=True):
                await inbox.aclose()

    async def _heard(self, message: results.Message) -> None:
        if message.end is not None:
            self._settle(message.run_id, message.end)
        elif message.run_id in self._waiters:
            await self._watch([message.run_id])

    async def _ask_again(self) -> None:
        ids = list(self._waiters)
        for first in range(0, len(ids), LIMITS.batch):
            await self._watch(ids[first : first + LIMITS.batch])

    async def _watch(self, ids: Sequence[str]) -> list[_Answer]:
        answers = await results.watch(self._connection, self._lane, self._name, ids)
        for run_id, answer in zip(ids, answers, strict=True):
            if not isinstance(answer, results.Pending):
                self._settle(run_id, answer)

        return answers

    def _settle(self, run_id: str, end: Ended) -> None:
        for future in self._waiters.pop(run_id, ()):
            if not future.done():
                future.set_result(end)

    def _forget(self, run_id: str, future: asyncio.Future[Ended]) -> None:
        futures = self._waiters.get(run_id)
        if futures and future in futures:
            futures.remove(future)
            if not futures:
                del self._waiters[run_id]
