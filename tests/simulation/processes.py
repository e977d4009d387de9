"""Processes that can be started, crashed, frozen, drained and started again.

A process is put together by its own ``compose``, as in production; only what is handed in differs:
the connection, the clock, the randomness, the renewer's thread and the threads of plain functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

import anyio

from millstream.errors import MillstreamError, StoreError
from millstream.events import Emit, LeaseRenewed, StoreFailed
from millstream.model.run import Delivery
from millstream.store import leases
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.workflow import Log, Workflows
from millstream_scheduler import compose as scheduling
from millstream_scheduler.config import SchedulerConfig
from millstream_scheduler.serve import Scheduler
from millstream_worker import compose
from millstream_worker.config import WorkerConfig
from millstream_worker.environment import Tools
from millstream_worker.lease import Lease
from millstream_worker.serve import Renews, Worker
from tests.simulation.network import Link, Network
from tests.simulation.virtual import HOST, Host
from tests.simulation.wires import SimulatedConnection

Main = Callable[["Process"], Coroutine[Any, Any, None]]


class Process:
    """One process of the simulation: what is started is `main`."""

    def __init__(self, network: Network, name: str, main: Main, random: Random) -> None:
        self.name = name
        self.random = random
        self.network = network
        #: The event loop of the process, and the thread that renews: a loop may be blocked alone.
        self.host = Host(name)
        self.thread = Host(f"{name}'s renewer")
        self.link = Link(self.host)
        self.thread_link = Link(self.thread)
        self.worker: Worker | None = None
        self.scheduler: Scheduler | None = None
        #: Why it ended by itself; None: it has not, or in good order.
        self.error: BaseException | None = None
        self.ended = False
        self._links = (self.link, self.thread_link)
        self._tasks: list[asyncio.Task[None]] = []
        self._main = main

    def __str__(self) -> str:
        return self.name

    def start(self) -> None:
        """Begin to run."""
        task = self.network.loop.start(self.host, self._main(self))
        self._tasks.append(task)
        task.add_done_callback(self._done)

    def start_thread(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something as the thread of this process."""
        task = self.network.loop.start(self.thread, main)
        self._tasks.append(task)
        return task

    def connection(self) -> Connection:
        """Return a way to the store for the event loop."""
        return SimulatedConnection(self.network, self.link)

    @property
    def alive(self) -> bool:
        """Whether it has neither crashed nor ended."""
        return not (self.host.dead or self.ended)

    @property
    def token(self) -> str:
        """Its name in the store; empty as long as it has none."""
        found = self.worker or self.scheduler
        return "" if found is None else found.token

    def drain(self) -> None:
        """Tell it to leave, as by SIGTERM."""
        found = self.worker or self.scheduler
        if found is not None:
            found.drain.set()

    def crash(self, *, power_loss: bool) -> None:
        """Stop for good, between two callbacks. After a power loss nobody tells Redis."""
        self.host.dead = self.thread.dead = True
        for link in self._links:
            link.cut = "hang" if power_loss else "refuse"
            if not power_loss:
                self.network.break_link(link)

    def freeze(self, *, whole: bool) -> None:
        """Run nothing for a while; only the event loop, or the whole process."""
        self.host.frozen = True
        self.thread.frozen = whole

    def thaw(self) -> None:
        """Go on where it was frozen."""
        if not self.host.dead:
            self.thread.thaw(self.network.loop)
            self.host.thaw(self.network.loop)

    def cut(self, style: str, *, renewer_only: bool = False) -> None:
        """Cut the process off from Redis; ``style`` as in `Link`."""
        for link in (self.thread_link,) if renewer_only else self._links:
            link.cut = style
            if style == "refuse":
                self.network.break_link(link)

    def heal(self) -> None:
        """Let the process reach Redis again."""
        if not self.host.dead:
            for link in self._links:
                link.cut = ""

    async def bury(self) -> None:
        """Clear up after the history: end every task, with nothing left to reach."""
        for link in self._links:
            link.cut = "refuse"
        for host in (self.host, self.thread):
            host.thaw(self.network.loop)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.ended = True
        if not task.cancelled():
            self.error = task.exception()


def current() -> Host:
    """Return the process that runs right now."""
    host = HOST.get()
    assert host is not None
    return host


class RenewerTask:
    """Renews like the thread, as a task of the thread's host with a connection of its own."""

    def __init__(
        self,
        process: Process,
        lanes: Sequence[Lane],
        token: str,
        lease: Lease,
        emit: Emit,
    ) -> None:
        self._process = process
        self._lanes = lanes
        self._token = token
        self._lease = lease
        self._emit = emit
        self._connection = SimulatedConnection(
            process.network, process.thread_link, lease.length_s / 3
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to renew."""
        self._task = self._process.start_thread(self._renew_forever())

    def stop(self) -> None:
        """Renew no more."""
        if self._task is not None:
            self._task.cancel()

    async def _renew_forever(self) -> None:
        loop = self._process.network.loop
        while True:
            sent = loop.time()
            try:
                renewal = await leases.renew(
                    self._connection, self._lanes, self._token, self._lease.length_s
                )
            except MillstreamError as error:
                self._emit(StoreFailed(during="renew", error=str(error)))
                await self._connection.reset()
                await asyncio.sleep(self._lease.length_s / 10)
            else:
                self._lease.renewed(sent, lapsed=renewal.lapsed)
                self._emit(LeaseRenewed(lapsed=renewal.lapsed, took_s=loop.time() - sent))
                await asyncio.sleep(self._lease.length_s / 3)


class SilentLog:
    """A workflow's logger that nobody reads."""

    def debug(self, message: str, /, **fields: Any) -> None:
        """Say nothing."""

    info = warning = error = debug


def worker_main(
    config: WorkerConfig, workflows: Workflows, tools: Tools, emit: Callable[[Process, Any], None]
) -> Main:
    """Return the main function of a worker process."""

    async def main(process: Process) -> None:
        loop = process.network.loop

        def make_renewer(
            _: Connection, lanes: Sequence[Lane], token: str, lease: Lease, said: Emit
        ) -> Renews:
            return RenewerTask(process, lanes, token, lease, said)

        def make_log(
            delivery: Delivery,
            queue: str,
            replaying: Callable[[], bool],
            branch: Callable[[], str],
        ) -> Log:
            return SilentLog()

        async def in_thread(function: Callable[[], Any]) -> Any:
            value = function()
            await asyncio.sleep(process.random.random() * 0.01)
            return value

        parts = compose.Parts(
            connection=process.connection(),
            emit=lambda event: emit(process, event),
            make_log=make_log,
            tools=tools,
            random=process.random,
            mono=loop.time,
            wall=loop.redis_time,
            in_thread=in_thread,
            make_renewer=make_renewer,
        )
        try:
            process.worker = await _composed(config, workflows, parts)
            await process.worker.serve()
        finally:
            with anyio.move_on_after(2, shield=True):
                await parts.connection.aclose()

    return main


async def _composed(config: WorkerConfig, workflows: Workflows, parts: compose.Parts) -> Worker:
    """Compose as often as it takes: in production the process would be started again."""
    while True:
        try:
            return await compose.compose(config, workflows, parts)
        except StoreError:
            await asyncio.sleep(0.5)


def scheduler_main(config: SchedulerConfig, emit: Callable[[Process, Any], None]) -> Main:
    """Return the main function of a scheduler process."""

    async def main(process: Process) -> None:
        parts = scheduling.Parts(
            connection=process.connection(),
            emit=lambda event: emit(process, event),
            random=process.random,
            mono=process.network.loop.time,
        )
        try:
            process.scheduler = scheduling.compose(config, parts)
            await process.scheduler.serve()
        finally:
            with anyio.move_on_after(2, shield=True):
                await parts.connection.aclose()

    return main
