"""The client for programs with an event loop.

What it is told to enqueue is safe to say twice: the id is chosen before anything is sent, so a
lost reply is answered by sending again. Concurrent calls share round trips, and everybody who
waits for a result shares one connection.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from random import Random, SystemRandom
from typing import Any, Self, TypeVar

import anyio

from millstream.client.asking import new_run
from millstream.client.auditing import Auditor, audited
from millstream.client.handles import Enqueue, Run, RunEvent
from millstream.client.lateness import late
from millstream.client.operations import Operations
from millstream.client.overview import Overview
from millstream.client.queues import Queues
from millstream.client.resealing import Sealing
from millstream.client.schedules import Schedules
from millstream.client.speaking import Speaker
from millstream.client.telling import events_of, tell
from millstream.client.tracing import TracesEnqueue, traced
from millstream.client.trials import Trials
from millstream.client.waiting import Ended
from millstream.errors import (
    IdConflict,
    KeyOccupied,
    QueueFull,
    RunCancelled,
    RunFailed,
    SealKeyMissing,
    UnknownRun,
    UsageError,
)
from millstream.model import ids
from millstream.model.attributes import Attributes
from millstream.model.journal import Record
from millstream.model.limits import LIMITS, Limits
from millstream.model.run import Priority, RunState, RunStatus
from millstream.store import codec, journals, results, runs, sayings
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.sayings import Heard
from millstream.store.sealing import Place, opened, sealer_of

Answer = TypeVar("Answer")

#: How long the record of a run stays after its end, when it is a client that ends it.
RETENTION_S = 24 * 3600.0
_NONE: Attributes = {}
#: Look-ups at a time of those who follow runs: a third of the connections that a client's commands
#: share. A thousand streams whose runs end at once would wait for them until the store looked away.
LOOKS_AT_ONCE = 32


class Client(Operations, Overview):
    """Enqueues runs and follows them. Use it as ``async with Client(url) as client``.

    ``patience`` is how many seconds it insists when Redis does not answer. What an ``actor`` does
    (cancel, retry, resize) is told to the audit trail. ``tracing`` makes spans. ``seal_keys`` names
    the keys that values are sealed under: a file, or ``env:`` and a variable.
    """

    def __init__(
        self,
        redis: str = "redis://localhost:6379/0",
        *,
        patience: float = 5.0,
        retention: float = RETENTION_S,
        limits: Limits = LIMITS,
        connection: Connection | None = None,
        random: Random | None = None,
        tracing: TracesEnqueue | None = None,
        actor: str | None = None,
        seal_keys: str | None = None,
    ) -> None:
        self._connection = connection or Connection(redis, sealer=sealer_of(seal_keys))
        self._retention = retention
        self._limits = limits
        self._random = random or SystemRandom()
        inbox = ids.new_process_token(self._random)
        self._queues = Queues(self._connection, inbox, patience)
        #: Tells the audit trail.
        self.auditor = Auditor(self._connection, self._queues.insist, actor)
        #: Says something to runs that are under way.
        self.speaker = Speaker(
            self._connection,
            self._queues,
            retention_s=retention,
            limits=limits,
            random=self._random,
            auditor=self.auditor,
        )
        #: What is run again and again: see `Schedules`.
        self.schedules = Schedules(
            self._connection, self._queues.insist, self.enqueue_many, random=self._random,
            auditor=self.auditor, limits=limits,
        )  # fmt: skip
        #: Versions of workflows that are tried out: see `Trials`.
        self.trials = Trials(self._connection, self._queues, auditor=self.auditor)
        #: Under which keys everything is, and how it gets others: see `Sealing`.
        self.sealing = Sealing(self._connection, self._queues, self.auditor)
        self._stack = contextlib.AsyncExitStack()
        self._tracing = tracing
        #: Taken by those who follow runs for each look, and by nobody who only waits.
        self.turns = anyio.Semaphore(LOOKS_AT_ONCE, fast_acquire=True)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._connection.open()
        self._stack.push_async_callback(self._close_connection)
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        self._queues.open(group)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self._queues.open(None)
        await self._stack.__aexit__(None, None, None)

    # -- enqueue -------------------------------------------------------------------------------

    async def enqueue(
        self,
        workflow: str,
        arguments: Any = None,
        *,
        id: str | None = None,
        queue: str = "default",
        priority: Priority | str = Priority.NORMAL,
        delay: float | None = None,
        tenant: str | None = None,
        timeout: float | None = None,
        version: str | None = None,
        trace: str | None = None,
        attributes: Attributes | None = None,
        dedupe: str | None = None,
        debounce: str | None = None,
        window: float | None = None,
        longest: float | None = None,
        lane_key: str | None = None,
    ) -> Run:
        """Accept a run: when this returns, it will reach an end.

        The same id, workflow and arguments again return the same run, with ``created`` False;
        anything else under that id raises `IdConflict`. ``attributes`` are a few words to find it
        by; they stay as they were first given. The rest: see `Enqueue`. Raises
        `NotEncodable`, `PayloadTooLarge`, `KeyOccupied`, `QueueFull`, `StoreError`.
        """
        asked = Enqueue(
            workflow, arguments, id, queue, priority, delay, tenant, timeout, version, trace,
            attributes or _NONE, dedupe, debounce, window, longest, lane_key,
        )  # fmt: skip
        if self._tracing is None:
            return await self._send(asked)

        with contextlib.ExitStack() as spans:
            return await self._send(traced(self._tracing, spans, asked))

    async def _send(self, asked: Enqueue) -> Run:
        new = new_run(asked, self._limits, self._random)
        if asked.lane_key is not None:
            new = await self._queues.beside(asked.queue, new, asked.lane_key)
        return self._handle(asked, new, await self._queues.send(asked.queue, new))

    async def enqueue_many(self, asked: Iterable[Enqueue]) -> list[Run]:
        """Accept many runs, a few hundred in one round trip.

        An `IdConflict` is raised after the others were accepted, and so is `QueueFull`, which says
        which were not; nothing is sent when one of them cannot be encoded.
        """
        with contextlib.ExitStack() as spans:
            if self._tracing is not None:
                asked = [traced(self._tracing, spans, item) for item in asked]
            return await self._enqueue_many(asked)

    async def _enqueue_many(self, asked: Iterable[Enqueue]) -> list[Run]:
        wanted = [(item, new_run(item, self._limits, self._random)) for item in asked]
        for at, (item, new) in enumerate(wanted):
            if item.lane_key is not None:
                wanted[at] = item, await self._queues.beside(item.queue, new, item.lane_key)
        by_queue: dict[str, list[runs.NewRun]] = {}
        for item, new in wanted:
            by_queue.setdefault(item.queue, []).append(new)
        for queue in by_queue:
            ids.check_queue(queue)

        # By identity: the same id may stand in the list twice, and each has an answer of its own.
        answers: dict[int, runs.Answer] = {}
        for queue, news in by_queue.items():
            sent = await self._queues.send_all(queue, news)
            answers.update((builtins.id(new), answer) for new, answer in sent)

        found = [answers[builtins.id(new)] for _, new in wanted]
        full = next(((at, x) for at, x in enumerate(found) if isinstance(x, runs.Full)), None)
        if full is not None:
            refused = [at for at, each in enumerate(found) if isinstance(each, str | runs.Full)]
            raise QueueFull(wanted[full[0]][0].queue, *full[1], refused)
        return [
            self._handle(item, new, answer)
            for (item, new), answer in zip(wanted, found, strict=True)
        ]

    # -- follow --------------------------------------------------------------------------------

    def run(self, id: str, queue: str = "default") -> Run:
        """Return a handle on a run that was enqueued before. Nothing is asked yet."""
        return Run(self, ids.check_run_id(id), ids.check_queue(queue), created=False)

    async def result(self, run: Run, timeout: float | None = None) -> Any:
        """Return what the run returned. See `Run.result`."""
        end: Ended | None = None
        with anyio.move_on_after(timeout):
            end = await self._queues.end(run.queue, run.id)

        if end is None:
            raise await late(self, run, timeout or 0.0)
        if isinstance(end, results.Unknown):
            raise UnknownRun(run.id, run.queue)
        sealer = self._connection.sealer
        if end.state is RunState.COMPLETED:
            return codec.decode(opened(sealer, Place(run.queue, run.id, "result"), end.payload))
        if end.state is RunState.CANCELLED:
            raise RunCancelled(run.id)

        error = opened(sealer, Place(run.queue, run.id, "error"), end.payload)
        raise RunFailed(run.id, *runs.error_of(error))

    async def status(self, run: Run) -> RunStatus:
        """Return what is known of the run. See `Run.status`."""
        found = await self._look(run, runs.status, None)
        if found is None:
            raise UnknownRun(run.id, run.queue)

        return found

    def events(self, run: Run, after: str = "") -> AsyncIterator[RunEvent]:
        """Iterate over what the run says, then how it ended. See `Run.events`."""
        return tell(self, run, after)

    async def said(self, run: Run, after: str = "", *, most: int = 100) -> Sequence[RunEvent]:
        """Return what a run has said after an event id, without waiting for more."""
        return events_of(await self.heard(run, after, most=most), after, None if after else 0)

    async def heard(self, run: Run, after: str = "", *, most: int = sayings.PAGE) -> Heard:
        """Return what a run has said after an event id, and how much it had said before."""
        lane = await self._lane(run)
        ask = functools.partial(sayings.heard, self._connection, lane, run.id, after, most)
        return await self._queues.insist(ask)

    async def until_said(self, run: Run, after: str) -> None:
        """Return when the run may have said something after an event id, or has ended."""
        await self._queues.news(await self._lane(run), run.id, after)

    async def journal(self, run: Run) -> dict[str, Record]:
        """Return the records of a run by step key."""
        return await self._look(run, journals.load, {})

    async def arguments(self, run: Run) -> Any:
        """Return the arguments a run was enqueued with."""
        return await self._look(run, runs.arguments, None)

    # -- operate -------------------------------------------------------------------------------

    @audited("cancel")
    async def cancel(self, run: Run) -> RunState:
        """Ask a run to end. See `Run.cancel`."""

        async def ask(lane: Lane) -> str:
            (answer,) = await runs.cancel(self._connection, lane, [run.id], self._retention)
            return answer

        answer = await self._queues.look(run.queue, run.id, ask, "")
        if not answer:
            raise UnknownRun(run.id, run.queue)

        return RunState.RUNNING if answer == "cancelling" else RunState(answer)

    @audited("retry")
    async def retry(self, run: Run) -> None:
        """Start a failed or cancelled run once more. See `Run.retry`."""

        async def ask(lane: Lane) -> str:
            (answer,) = await runs.revive(self._connection, lane, [run.id])
            return answer

        answer = await self._queues.look(run.queue, run.id, ask, "")
        if not answer:
            raise UnknownRun(run.id, run.queue)
        if answer != RunState.QUEUED:
            raise UsageError(
                f"run {run.id!r} is {answer}; only failed and cancelled runs are retried"
            )

    # -- below ---------------------------------------------------------------------------------

    async def _look(
        self,
        run: Run,
        ask: Callable[[Connection, Lane, str], Awaitable[Answer]],
        missing: Answer,
    ) -> Answer:
        """Ask wherever a run may be, until the answer is another than ``missing``."""

        async def one(lane: Lane) -> Answer:
            return await ask(self._connection, lane, run.id)

        return await self._queues.look(run.queue, run.id, one, missing)

    async def _lane(self, run: Run) -> Lane:
        async def ask(lane: Lane) -> Lane | None:
            return lane if await runs.status(self._connection, lane, run.id) else None

        found = await self._queues.look(run.queue, run.id, ask, None)
        if found is None:
            raise UnknownRun(run.id, run.queue)

        return found

    def _handle(self, asked: Enqueue, new: runs.NewRun, answer: runs.Answer) -> Run:
        if answer is True:
            return Run(self, new.id, asked.queue)
        if isinstance(answer, runs.Full):
            raise QueueFull(asked.queue, *answer, refused=(0,))
        if isinstance(answer, runs.Stands):
            return Run(self, answer.id, asked.queue, created=answer.new)
        if answer == runs.OCCUPIED:
            raise KeyOccupied(new.id, "record")
        if isinstance(answer, str) and answer.startswith(runs.SEALED):
            raise SealKeyMissing(answer[1:], f"what run {new.id!r} was asked for before")
        if isinstance(answer, str):
            raise IdConflict(new.id, asked.queue, answer)

        # An id of our own making cannot have been here: the first sending's reply was lost.
        return Run(self, new.id, asked.queue, created=asked.id is None)

    async def _close_connection(self) -> None:
        with anyio.move_on_after(2, shield=True):
            await self._connection.aclose()
