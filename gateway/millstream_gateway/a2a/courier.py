"""Tell those who wish it how their tasks go on, by HTTP, whatever dies meanwhile.

Each gateway takes what is due, a little at a time, and holds it for a while. It tells what has come
up since, in order, and writes down after each how far it came. So everything is told at least once;
twice, when a gateway dies between the telling and the writing. A destination that does not take it
is tried again, ever more rarely, and given up after about a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import aiohttp
import anyio
from a2a.types.a2a_pb2 import Task
from a2a.utils.constants import PROTOCOL_VERSION_1_0
from a2a.utils.proto_utils import to_stream_response
from google.protobuf.json_format import MessageToJson
from msgspec.structs import replace

from millstream.client import Client
from millstream.errors import MillstreamError, UnknownRun
from millstream.events import Emit, MessageSent, StoreFailed
from millstream.store import claims, pushes
from millstream.store.connection import Connection
from millstream.store.pushes import Errand, Progress, Wish
from millstream_gateway.a2a.destinations import ANSWER_S, CONNECT_S, Destinations
from millstream_gateway.a2a.tasks import TERMINAL, Tasks, state_of
from millstream_gateway.a2a.watching import Following, Update
from millstream_gateway.rest.stream import without_token

#: How often it is looked whether anything is due.
_LOOK_S = 0.5
#: An errand is held for so long, and left before that is over: the next one is begun in time.
_LEASE_S = 60.0
_TURN_S = _LEASE_S - CONNECT_S - ANSWER_S - 5.0
#: Between two looks at a task that says nothing: soon at first, then ever more rarely.
_SOONEST_S, _LATEST_S = 0.5, 15.0
_RETRY_S, _RETRY_MOST_S = 1.0, 3_600.0
#: About a day, with the pauses above.
_MOST_FAILURES = 36
_MEDIA_TYPE = "application/a2a+json"
_RECIPIENT = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """Looks after errands. ``deliver_forever`` is a duty of the gateway."""

    client: Client
    connection: Connection
    tasks: Tasks
    destinations: Destinations
    served: Sequence[str]
    emit: Emit
    random: Random

    async def deliver_forever(self) -> None:
        """Take what is due, and tell it; several at a time, each for a bounded time."""
        async with self.destinations.open() as http:
            while True:
                try:
                    due = await pushes.claim(self.connection, _LEASE_S)
                except MillstreamError as error:
                    # Also when it may not look: all else that a gateway does goes on.
                    self.emit(StoreFailed(during="push", error=f"{type(error).__name__}: {error}"))
                    due = ()
                async with anyio.create_task_group() as group:
                    for errand in due:
                        group.start_soon(self._look_after, http, errand)
                if len(due) < claims.CLAIMED:
                    await anyio.sleep(_LOOK_S)

    async def _look_after(self, http: aiohttp.ClientSession, errand: Errand) -> None:
        try:
            found = await pushes.read(self.connection, errand)
            if found is None:
                await pushes.finish(self.connection, errand)
                return
            wish, progress = found
            turn = _Turn(self, http, errand, wish, progress)
            with anyio.move_on_after(_TURN_S):
                await turn.go()
            await self._leave(errand, turn)
        except UnknownRun:
            await pushes.finish(self.connection, errand)
        except MillstreamError as error:
            # The lease ends by itself, and somebody takes it again.
            self.emit(StoreFailed(during="push", error=f"{type(error).__name__}: {error}"))

    async def _leave(self, errand: Errand, turn: _Turn) -> None:
        """Say when an errand is due again, or that it is over."""
        progress = turn.progress
        if turn.over or progress.failures >= _MOST_FAILURES:
            await pushes.finish(self.connection, errand)
            return
        if progress.failures:
            pause_s = min(_RETRY_MOST_S, _RETRY_S * 2.0 ** min(progress.failures - 1, 20))
            pause_s *= self.random.uniform(0.75, 1.25)
        else:
            pause_s = min(_LATEST_S, _SOONEST_S * 1.5 ** min(progress.idle, 20))
        await pushes.postpone(self.connection, errand, pause_s)


@dataclass(slots=True)
class _Turn:
    """One errand in one gateway's hands."""

    courier: Courier
    http: aiohttp.ClientSession
    errand: Errand
    wish: Wish
    progress: Progress
    #: Whether the task has ended and that was told.
    over: bool = False

    async def go(self) -> None:
        """Tell what has come up, in order, until there is no more or one is not taken."""
        client, tasks = self.courier.client, self.courier.tasks
        run = client.run(self.errand.subject.run_id, self.errand.subject.queue)
        while True:
            # The state is read first: what was said before it is then still told before it.
            status = await run.status()
            task = await tasks.bare(status, self.courier.served, await tasks.talk(run))
            following = self._following(task)
            said = await client.said(run, following.after)
            for event in said:
                if not await self._told(following, following.event(event)):
                    return
            if said:
                continue
            updates = await following.state(status)
            if updates and not await self._told(following, *updates):
                return
            self.over = state_of(status) in TERMINAL
            if self.over or not updates:
                await self._proceed(replace(self.progress, idle=self.progress.idle + 1))
                return

    def _following(self, task: Task) -> Following:
        progress = self.progress
        told = (progress.state, progress.asks)
        return Following(
            self.courier.tasks, task, progress.after, told, progress.brought, without_token
        )

    async def _told(self, following: Following, *updates: Update) -> bool:
        """Send some updates, and write down how far it came; False when one is not taken."""
        for update in updates:
            if not await self._sent(update):
                await self._proceed(replace(self.progress, failures=self.progress.failures + 1))
                return False
        state, asks = following.told
        await self._proceed(
            Progress(
                after=following.after, state=state, asks=tuple(asks), brought=following.brought
            )
        )
        return True

    async def _proceed(self, progress: Progress) -> None:
        self.progress = progress
        await pushes.proceed(self.courier.connection, self.errand, progress)

    async def _sent(self, update: Update) -> bool:
        # What was allowed when it was asked for may not be allowed any more.
        if self.courier.destinations.reason_against(self.wish.url) is not None:
            return False
        body = MessageToJson(to_stream_response(update), indent=None)
        began = anyio.current_time()
        try:
            async with self.http.post(
                self.wish.url, data=body, headers=_headers(self.wish), allow_redirects=False
            ) as answer:
                taken = 200 <= answer.status < 300
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            taken = False
        took_s = anyio.current_time() - began
        kind = "push" if taken else "push_failed"
        self.courier.emit(MessageSent(kind=kind, recipient=_RECIPIENT, took_s=took_s))
        return taken


def _headers(wish: Wish) -> dict[str, str]:
    headers = {"Content-Type": _MEDIA_TYPE, "A2A-Version": PROTOCOL_VERSION_1_0}
    if wish.token:
        headers["X-A2A-Notification-Token"] = wish.token
    if wish.scheme and wish.credentials:
        headers["Authorization"] = f"{wish.scheme} {wish.credentials}"
    return headers
