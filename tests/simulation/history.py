"""One history: put everything together, let it run, break it, let it settle, and look.

    faults until FAULTS_S, then none; everything must have ended by SETTLED_S after that
    then the workers leave in good order, and the retention passes
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from millstream.model.run import FINAL
from millstream.store.keys import Lane
from millstream_scheduler.config import SchedulerConfig
from millstream_worker.config import WorkerConfig
from tests.simulation import faults, promises
from tests.simulation.director import Director
from tests.simulation.driver import Memory, client_main
from tests.simulation.faults import Flakiness
from tests.simulation.flows import SimulatedTools, World, workflows
from tests.simulation.network import Link, Network
from tests.simulation.plans import jobs
from tests.simulation.processes import Main, Process, scheduler_main, worker_main
from tests.simulation.promises import Violation
from tests.simulation.shadow import Shadow
from tests.simulation.view import View
from tests.simulation.virtual import Stuck, VirtualLoop, virtual_time

FAULTS_S = 16.0
SETTLED_S = 200.0
WORKERS = 3
SCHEDULERS = 2
RETENTION_S = 7200.0


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What came of a history."""

    seed: int
    #: The promise that was broken first, and what happened; empty when all were kept.
    broken: list[Violation] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    commands: int = 0


class Broken(Exception):
    """A promise is broken; the history ends here."""


def run(seed: int, *, trace: bool = False) -> Verdict:
    """Run the history of one seed."""
    verdict = Verdict(seed=seed)
    with _no_collection(), virtual_time() as loop:
        history = History(loop, seed, verdict, tracing=trace)
        story = loop.create_task(history.play())
        try:
            loop.run_until_complete(story)
        except Broken:
            pass
        except Stuck as stuck:
            history.broken("time goes on", str(stuck))
        verdict.virtual_s = loop.time()
        story.cancel()
        _finish(loop, history.bury())

    return verdict


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: it takes time, and it comes when it likes."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _finish(loop: VirtualLoop, ending: Coroutine[Any, Any, None]) -> None:
    """Run to the end, also when the loop still wants to stop for a story that was cut short."""
    loop.halt = None
    task = loop.create_task(ending)
    while not task.done():
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(task)


class History:
    """Everything that lives in one history."""

    def __init__(self, loop: VirtualLoop, seed: int, verdict: Verdict, *, tracing: bool) -> None:
        self._random = Random(seed)
        self.loop = loop
        self.verdict = verdict
        self.seed = seed
        self._tracing = tracing
        self.over = False
        self.config = WorkerConfig(
            redis="memory://simulated",
            concurrency=self._random.choice([2, 4, 8]),
            lease=self._random.choice([2.0, 2.0, 4.0]),
            grace=2.0,
            park_after=0.5,
            retention=RETENTION_S,
            poison=6,
        )
        self.network = Network(loop, self._another())
        self.lane = Lane(self.config.queue[0])
        self.view = View(self.network, self.lane)
        self.shadow = Shadow(self.view, self.broken)
        self.memory = Memory()
        self.world = World(loop.time, self._about_to)
        self.jobs = jobs(self._another(), self._random.randint(6, 12), FAULTS_S * 0.8)
        self.faults = faults.draw(self._another(), FAULTS_S, self.config.lease)
        flakiness = Flakiness(self._another())
        self.network.fate = flakiness.fate
        self.network.observe = self._observe
        self._director = Director(self, flakiness)
        #: Every process that ever was, and those that serve now: workers, then schedulers.
        self.processes: list[Process] = []
        self.serving: list[Process] = []
        self._client: Process | None = None
        #: Whether the clock of Redis has jumped, when the faults have ended, and the runs that
        #: nobody goes on with at the moment, with the time since when.
        self.clock_jumped = False
        self.healed = FAULTS_S
        self.missed: dict[str, float] = {}

    @property
    def workers(self) -> list[Process]:
        """The workers that serve now."""
        return self.serving[:WORKERS]

    # -- the story -----------------------------------------------------------------------------

    async def play(self) -> None:
        """Let it happen, and check what came of it."""
        for slot in range(WORKERS + SCHEDULERS):
            self.start(slot)
        self.restart_client()
        self._director.begin()
        await self._until(lambda: self.loop.time() >= FAULTS_S)
        self._director.heal()
        await self._until(self._settled, SETTLED_S)
        self._check(promises.settled)
        for worker in self.workers:
            worker.drain()
        await self._until(lambda: all(worker.ended for worker in self.workers), 10.0)
        self._check(promises.drained)
        self.loop.redis_offset += RETENTION_S + 60
        self.clock_jumped = True
        await self._until(lambda: not any(promises.forgotten(self)), 8 * self.config.lease)
        self._check(promises.forgotten)
        await asyncio.sleep(0)

    async def _until(self, done: Callable[[], bool], patience_s: float = 1e9) -> None:
        """Let time pass and keep an eye on what must hold at any moment."""
        deadline = self.loop.time() + patience_s
        while not done() and self.loop.time() < deadline:
            await asyncio.sleep(0.25)
            for promise in (promises.places, promises.leaders, promises.processes):
                self._check(promise)

    def _settled(self) -> bool:
        return len(self.memory.done) == len(self.jobs) and all(
            self.view.run(job.id).get(b"state", b"").decode() in FINAL for job in self.jobs
        )

    def _check(self, promise: Callable[[History], Iterator[Violation]]) -> None:
        for broken, what in promise(self):
            self.broken(broken, what)

    def broken(self, promise: str, what: str) -> None:
        """Note that a promise was broken; the first one ends the history."""
        if self.over:
            return
        self.over = True
        self.note("BROKEN", f"{promise}: {what}")
        self.verdict.broken.append((promise, what))
        self.loop.halt = Broken(promise)

    async def bury(self) -> None:
        """Leave nothing behind."""
        self.over = True
        self._tracing = False
        self.network.away = "refuse"
        for process in self.processes:
            await process.bury()
        self.network.break_all()
        await asyncio.sleep(30)

    # -- processes -----------------------------------------------------------------------------

    def start(self, slot: int) -> None:
        """Start what serves in a slot, with a new token."""
        if slot < WORKERS:
            # Not every worker knows everything: a deployment is under way.
            versions = ("1", "2") if slot else ("1",)
            app = workflows(self.world, versions=versions, rare=slot != 1)
            main = worker_main(self.config, app, SimulatedTools(self.world), self._said)
            name = f"worker{slot}"
        else:
            main = scheduler_main(
                SchedulerConfig(
                    redis="memory://simulated",
                    lease=self.config.lease,
                    retention=self.config.retention,
                    poison=self.config.poison,
                ),
                self._said,
            )
            name = f"scheduler{slot - WORKERS}"
        self.serving[slot : slot + 1] = [self._launch(name, main)]

    def restart_client(self) -> None:
        """Start the client, after a crash if there was one before."""
        if self._client is not None:
            self._client.crash(power_loss=False)
        main = client_main(self.jobs, self.memory, self.config.retention, self.seed)
        self._client = self._launch("client", main)

    def _launch(self, name: str, main: Main) -> Process:
        number = len(self.processes)
        process = Process(self.network, f"{name}.{number}", main, self._another())
        self.processes.append(process)
        self.note(process.name, "starts")
        process.start()
        return process

    def _another(self) -> Random:
        return Random(self._random.getrandbits(64))

    # -- what is seen --------------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        """Write a line of the trace."""
        if self._tracing:
            self.verdict.trace.append(f"{self.loop.time():10.4f}  {who:12} {what}")

    def _about_to(self, label: str, by: str) -> None:
        if self.over:
            return
        if self._tracing:
            self.note(by, f"effect {label}")
        if self.shadow.recorded(label):
            self.broken("a recorded step never runs again", f"{label} by {by}")

    def _said(self, process: Process, event: Any) -> None:
        if self._tracing:
            self.note(process.name, repr(event))

    def _observe(self, link: Link, fields: list[bytes], reply: Any) -> None:
        self.verdict.commands += 1
        if self.over:
            return
        if self._tracing:
            self.note(link.host.name, f"> {self.shadow.told(fields)} -> {reply!r}")
        self.shadow.executed(link, fields, reply)
