"""The client of the simulation: wants runs, and insists until it knows how each has ended.

Its process may crash at any time; what it knew for certain survives, as it would in a database.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio

from millstream import Client
from millstream.client import Run
from millstream.errors import (
    ResultTimeout,
    RunCancelled,
    RunEnded,
    RunFailed,
    StoreError,
    UnknownRun,
    UsageError,
)
from tests.simulation.plans import Job, Sent
from tests.simulation.processes import Main, Process


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended, as the client was told."""

    state: str
    value: Any = None
    cause: str = ""


@dataclass(slots=True)
class Memory:
    """What the client knows for certain."""

    accepted: dict[str, float] = field(default_factory=dict)
    ends: dict[str, list[End]] = field(default_factory=dict)
    #: When a cancellation was asked for, and what was answered.
    cancels: dict[str, list[str]] = field(default_factory=dict)
    revivals: dict[str, int] = field(default_factory=dict)
    #: Labels of the signals that were accepted.
    signals: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)


def client_main(jobs: list[Job], memory: Memory, retention_s: float, seed: int) -> Main:
    """Return the main function of the client's process."""

    async def main(process: Process) -> None:
        random = Random(f"{seed} {process.name}")
        async with (
            Client(
                connection=process.connection(), retention=retention_s, random=process.random
            ) as client,
            anyio.create_task_group() as group,
        ):
            for job in jobs:
                if job.id not in memory.done:
                    group.start_soon(_Following(client, job, memory, random).follow)

    return main


class _Following:
    """One job, from its enqueueing to its last end."""

    def __init__(self, client: Client, job: Job, memory: Memory, random: Random) -> None:
        self._client = client
        self._job = job
        self._memory = memory
        self._random = random
        #: Whether it has ended for the last time.
        self._over = False

    async def follow(self) -> None:
        """Enqueue, wait, start again, until nothing is left to do."""
        await self._until(self._job.at)
        run = await self._accepted()
        async with anyio.create_task_group() as group:
            if self._job.cancel_at is not None:
                group.start_soon(self._cancel, run)
            for sent in self._job.signals:
                if sent.label not in self._memory.signals:
                    group.start_soon(self._signal, run, sent)
            await self._follow_to_the_end(run)
            self._over = True
        self._memory.done.add(self._job.id)

    async def _follow_to_the_end(self, run: Run) -> None:
        ends = self._memory.ends.setdefault(run.id, [])
        while True:
            end = await self._end(run)
            ends.append(end)
            revivals = self._memory.revivals.get(run.id, 0)
            if end.state != "failed" or revivals >= self._job.revivals:
                return
            await anyio.sleep(self._random.random())
            self._memory.revivals[run.id] = revivals + 1
            await self._revive(run)

    async def _accepted(self) -> Run:
        job = self._job
        while True:
            try:
                run = await self._client.enqueue(
                    job.workflow, {"plan": job.plan}, id=job.id, priority=job.priority,
                    delay=job.delay, timeout=job.timeout, version=job.version, tenant=job.tenant,
                )  # fmt: skip
            except StoreError:
                await anyio.sleep(0.3)
            else:
                self._memory.accepted.setdefault(job.id, asyncio.get_running_loop().time())
                return run

    async def _end(self, run: Run) -> End:
        while True:
            try:
                return End("completed", await run.result(20))
            except RunFailed as error:
                return End("failed", cause=error.cause)
            except RunCancelled:
                return End("cancelled")
            except UnknownRun:
                return End("unknown")
            except ResultTimeout:
                pass
            except StoreError:
                await anyio.sleep(0.3)

    async def _cancel(self, run: Run) -> None:
        assert self._job.cancel_at is not None
        await self._until(self._job.cancel_at)
        answers = self._memory.cancels.setdefault(run.id, [])
        while True:
            answers.append("asked")
            try:
                answers[-1] = str(await run.cancel())
            except StoreError:
                await anyio.sleep(0.3)
            else:
                return

    async def _signal(self, run: Run, sent: Sent) -> None:
        """Say it until it is heard, or nobody is left to hear it."""
        await self._until(sent.at)
        while True:
            try:
                await run.signal(sent.name, sent.label, id=sent.label)
            except StoreError:
                await anyio.sleep(0.3)
            except RunEnded:
                if self._over:
                    return
                await anyio.sleep(0.3)  # it may be started again
            else:
                self._memory.signals.add(sent.label)
                return

    async def _revive(self, run: Run) -> None:
        while True:
            try:
                await run.retry()
            except StoreError:
                await anyio.sleep(0.3)
            except UsageError:
                return  # it was heard the first time, and the answer was lost
            else:
                return

    @staticmethod
    async def _until(at: float) -> None:
        await anyio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
