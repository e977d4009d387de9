"""What operators do to many runs, to whole queues, and to a run from its middle on.

Everything here is bounded, and safe to say again: a cancelled run is cancelled once, a run that
was started again is not failed any more.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

import msgspec

from millstream.client.auditing import Auditor, audited
from millstream.client.forking import Forking
from millstream.client.handles import Run
from millstream.client.queues import Queues
from millstream.model import ids
from millstream.store import depth_limits, pausing, runs
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.layouts import Layout

#: Runs that something is done to in one call.
_PART = 200
#: What becomes of a run: its new state, or the one it was in, '' when it is gone.
_Act = Callable[[Connection, Lane, Sequence[str]], Awaitable[Sequence[str]]]


class Operations:
    """The operators' part of a client."""

    _connection: Connection
    _queues: Queues
    _retention: float
    _random: Random
    auditor: Auditor

    if TYPE_CHECKING:

        def run(self, id: str, queue: str = "default") -> Run:
            """Return a handle on a run. See `Client.run`."""

    @audited("pause")
    async def pause(self, queue: str = "default") -> bool:
        """Have workers take nothing new from a queue; whether that is new.

        They know within a second, and what they hold goes on. Runs are accepted as before.
        """
        ids.check_queue(queue)
        return await self._queues.insist(functools.partial(pausing.pause, self._connection, queue))

    @audited("resume")
    async def resume(self, queue: str = "default") -> bool:
        """Let a paused queue go on; whether it was paused."""
        ids.check_queue(queue)
        return await self._queues.insist(functools.partial(pausing.resume, self._connection, queue))

    @audited("resize")
    async def resize(self, queue: str, *, lanes: int) -> Layout:
        """Give a queue another number of lanes, and return how it is laid out then.

        Lanes spread a queue over the masters of a cluster. Runs stay where they were accepted;
        new ones are spread over all lanes, which workers begin to serve within a second. When it
        was cut off by a `StoreError`, say it again. Raises `UsageError` at a bound.
        """
        return await self._queues.resize(queue, lanes)

    @audited("limit")
    async def limit_depth(self, queue: str, *, depth: int | None) -> None:
        """Let a queue hold at most so many runs that nobody has begun; None: as many as come.

        At the limit `enqueue` raises `QueueFull`. A queue of several lanes gives each its part.
        What is there stays. Raises `UsageError` when it is no positive number.
        """
        ids.check_queue(queue)
        ask = functools.partial(depth_limits.limit, self._connection, queue, depth)
        await self._queues.insist(ask)

    @audited("fork")
    async def fork(
        self, run: Run, from_step: str, *, id: str | None = None, version: str | None = None
    ) -> Run:
        """Begin another run with what a run recorded before a step. See `Run.fork`."""
        new_id = ids.new_run_id(self._random) if id is None else ids.check_run_id(id)
        created = await Forking(self._connection, self._queues).fork(
            run.queue, run.id, step=from_step, new_id=new_id, version=version
        )
        begun = self.run(new_id, run.queue)
        return msgspec.structs.replace(begun, created=created or id is None)

    # -- many runs -----------------------------------------------------------------------------

    async def cancel_many(
        self, queue: str, ids: Iterable[str], *, told: Callable[[int], None] = lambda _: None
    ) -> Mapping[str, str]:
        """Ask runs to end; return per id ``cancelled``, ``cancelling``, its end, or '' (gone).

        ``told`` hears how many are done, part by part. A few hundred leave in one call.
        """
        retention_s = self._retention

        async def act(connection: Connection, lane: Lane, part: Sequence[str]) -> Sequence[str]:
            return await runs.cancel(connection, lane, part, retention_s)

        return await self._act("cancel", queue, ids, act, told)

    async def retry_many(
        self, queue: str, ids: Iterable[str], *, told: Callable[[int], None] = lambda _: None
    ) -> Mapping[str, str]:
        """Start failed and cancelled runs once more; return per id ``queued``, or how it stands.

        ``told`` hears how many are done, part by part. A few hundred leave in one call.
        """
        return await self._act("retry", queue, ids, runs.revive, told)

    async def _act(
        self, verb: str, queue: str, run_ids: Iterable[str], act: _Act, told: Callable[[int], None]
    ) -> dict[str, str]:
        left = dict.fromkeys(map(ids.check_run_id, run_ids))
        answers: dict[str, str] = {}
        for lane, part in (await self._queues.spread(queue, left)).items():
            for first in range(0, len(part), _PART):
                # One that an earlier lane had is not looked for in another.
                some = [x for x in part[first : first + _PART] if not answers.get(x)]
                ask = functools.partial(act, self._connection, lane, some)
                said = await self._queues.insist(ask) if some else ()
                done = dict(zip(some, said, strict=True))
                answers.update(done)
                results = {x: answer for x, answer in done.items() if answer}
                await self.auditor.tell_each(verb, queue=queue, results=results, details={})
                told(len(some))
        return answers
