"""One history: put everything together, let it run, break it, let it settle, and look.

faults until FAULTS_S, then none; everything must have ended by SETTLED_S after that
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import fakeredis

from millstream.model.run import FINAL
from millstream.store.keys import Lane
from millstream_scheduler.config import SchedulerConfig
from millstream_worker.config import WorkerConfig
from tests.simulation import faults as faulty
from tests.simulation import promises
from tests.simulation.director import Director
from tests.simulation.driver import Memory, client_main
from tests.simulation.flows import SimulatedTools, World, workflows
from tests.simulation.network import Link, Network
from tests.simulation.operator import check_ticks, drawn, operator_main
from tests.simulation.plans import Job, jobs
from tests.simulation.processes import Process, scheduler_main, worker_main
from tests.simulation.shadow import Shadow
from tests.simulation.view import View
from tests.simulation.virtual import Stuck, VirtualLoop, virtual_time

FAULTS_S = 9.0
SETTLED_S = 150.0
WORKERS = 3
SCHEDULERS = 2


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What came of a history."""

    seed: int
    #: Promises that were broken, the first one first: (promise, what happened).
    broken: list[tuple[str, str]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    commands: int = 0


class Broken(Exception):
    """A promise is broken; the history ends here."""


def run(seed: int, *, trace: bool = False) -> Verdict:
    """Run the history of one seed."""
    verdict = Verdict(seed=seed)
    collecting = gc.isenabled()
    gc.disable()
    try:
        with virtual_time() as loop:
            history = History(loop, seed, verdict, tracing=trace)
            story = loop.create_task(history.play())
            try:
                loop.run_until_complete(story)
            except (Broken, Stuck) as error:
                if isinstance(error, Stuck):
                    history.broken("time goes on", str(error))
            verdict.virtual_s = loop.time()
            story.cancel()
            _finish(loop, history.bury())
    finally:
        if collecting:
            gc.enable()
    return verdict


def _finish(loop: VirtualLoop, ending: Coroutine[Any, Any, None]) -> None:
    """Run to the end, also when the loop still wants to stop for a story that was cut short."""
    task = loop.create_task(ending)
    while not task.done():
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(task)


class History:
    """Everything that lives in one history."""

    def __init__(self, loop: VirtualLoop, seed: int, verdict: Verdict, *, tracing: bool) -> None:
        random = Random(seed)
        self.loop = loop
        self.verdict = verdict
        self.seed = seed
        self._tracing = tracing
        self._over = False
        self.config = WorkerConfig(
            redis="memory://simulated", concurrency=random.choice([2, 4, 8]), lease=2.0, grace=2.0,
            park_after=0.5, retention=7200.0, poison=6,
        )  # fmt: skip
        self.network = Network(loop, Random(random.getrandbits(64)))
        self.scheduling = SchedulerConfig(
            redis=self.config.redis, lease=self.config.lease, sample=5.0,
            retention=self.config.retention, poison=self.config.poison,
        )  # fmt: skip
        self.network = Network(loop, Random(random.getrandbits(64)))
        self.operator = drawn(seed)
        queue = self.config.queue[0]
        lanes = [Lane(queue, n) for n in range(self.operator.lanes)]
        if seed % 2:
            # A few runs make a crowd, so that tenants have to take turns.
            server = fakeredis.FakeRedis(server=self.network.server)
            for lane in lanes:
                server.hset(lane.meta, "window", "1")
        self.view = View(self.network, lanes)
        self.shadow = Shadow(self.view, self.broken)
        self.memory = Memory()
        self.world = World(loop.time, self._about_to)
        self.jobs: Sequence[Job] = jobs(
            Random(random.getrandbits(64)), random.randint(6, 14), FAULTS_S * 0.8
        )
        faults = faulty.draw(Random(random.getrandbits(64)), FAULTS_S, self.config.lease)
        self.director = Director(self, faults, Random(random.getrandbits(64)))
        self.network.fate = self.director.fate
        self.network.observe = self._observe
        self._random = random
        self._number = 0
        #: Whoever stands at each place: the workers, then the schedulers.
        self.places: list[Process] = []
        self.client: Process | None = None
        #: Runs that nobody can go on with at the moment, and since when.
        self.homeless: dict[str, float] = {}
        #: Everybody who ever lived, by name.
        self.processes: dict[str, Process] = {}

    @property
    def over(self) -> bool:
        """Whether nothing that happens from here on counts."""
        return self._over

    # -- the story -----------------------------------------------------------------------------

    async def play(self) -> None:
        """Let it happen, and check what came of it."""
        if self.operator.lanes > 1 or self.operator.schedule is not None:
            self._start("operator", operator_main(self.operator, FAULTS_S))
            while not self.operator.laid_out:
                await asyncio.sleep(0.01)
        self.places = [self.start(place) for place in range(WORKERS + SCHEDULERS)]
        self.client = self.start_client()
        self.director.begin()
        await self._watch_until(FAULTS_S)
        self.director.heal()
        deadline = FAULTS_S + SETTLED_S
        while self.loop.time() < deadline and not self._settled():
            await self._watch_until(self.loop.time() + 0.5)
        for promise, what in (*promises.check(self), *check_ticks(self)):
            self.broken(promise, what)
        await asyncio.sleep(0)

    async def _watch_until(self, at: float) -> None:
        while self.loop.time() < at:
            await asyncio.sleep(min(0.25, at - self.loop.time()))
            for promise, what in (*promises.check_places(self), *promises.check_leaders(self)):
                self.broken(promise, what)
            for process in self.processes.values():
                if process.error is not None:
                    self.broken("no process dies of an error", f"{process}: {process.error!r}")

    def _settled(self) -> bool:
        return (
            len(self.memory.done) == len(self.jobs)
            and (self.operator.done or self.operator.schedule is None)
            and all(
                self.view.run(each).get(b"state", b"").decode() in FINAL for each in self.view.ids()
            )
            and not self.view.posted()
            and not any(promises.check_left(self))
        )

    def broken(self, promise: str, what: str) -> None:
        """Note that a promise was broken; the first one ends the history."""
        if self._over:
            return
        self._over = True
        self.note("BROKEN", f"{promise}: {what}")
        self.verdict.broken.append((promise, what))
        self.loop.halt = Broken(promise)

    # -- processes -----------------------------------------------------------------------------

    def start(self, place: int) -> Process:
        """Start whoever belongs at a place."""
        if place >= WORKERS:
            main = scheduler_main(self.scheduling, self._said)
            return self._start(f"scheduler{place - WORKERS}", main)

        # Not every worker knows everything: a deployment is under way.
        versions = ("1", "2") if place else ("1",)
        app = workflows(self.world, versions=versions, rare=place != 1)
        tools = SimulatedTools(self.world)
        return self._start(f"worker{place}", worker_main(self.config, app, tools, self._said))

    def start_client(self) -> Process:
        """Start the client, which knows what it knew before."""
        main = client_main(list(self.jobs), self.memory, self.config.retention, self.seed)
        return self._start("client", main)

    def _start(self, name: str, main: Any) -> Process:
        self._number += 1
        process = Process(
            self.network, f"{name}.{self._number}", main, Random(self._random.getrandbits(64))
        )
        self.processes[process.name] = process
        self.note(process.name, "starts")
        process.start()
        return process

    async def bury(self) -> None:
        """Leave nothing behind."""
        self._over = True
        self._tracing = False
        self.network.away = "refuse"
        for process in self.processes.values():
            await process.bury()
        self.network.break_all()
        await asyncio.sleep(30)

    # -- what is seen --------------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        """Write a line of the trace."""
        if self._tracing:
            self.verdict.trace.append(f"{self.loop.time():10.4f}  {who:12} {what}")

    def _about_to(self, label: str, by: str) -> None:
        if self._over:
            return
        self.note(by, f"effect {label}")
        if self.shadow.recorded(label):
            self.broken("a recorded step never runs again", f"{label} by {by}")
        for promise, what in promises.check_beginning(self, label, self.processes[by]):
            self.broken(promise, what)
        self.director.began(self.processes[by])

    def _said(self, process: Process, event: Any) -> None:
        if self._tracing:
            self.note(process.name, repr(event))

    def _observe(self, link: Link, fields: list[bytes], reply: Any) -> None:
        self.verdict.commands += 1
        if self._over:
            return
        if self._tracing:
            self.note(link.host.name, f"> {self._told(fields)} -> {reply!r}")
        self.shadow.executed(link, fields, reply)
        self.director.executed()

    def _told(self, fields: list[bytes]) -> str:
        name = self.shadow.name_of(fields)
        if not name:
            return b" ".join(fields).decode("utf-8", "replace")
        args = fields[3 + int(fields[2]) :]
        return f"{name} {b' '.join(args).decode('utf-8', 'replace')}"
