"""The story of the demo: a survey, a run for each commit and file, a kill, a search, a summary.

It is a client like any other: it enqueues, watches and collects. What it alone does is to kill a
worker, and afterwards to hold the journals against what was really done.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec

from millstream import Client, Depth, Enqueue, Run, RunState
from millstream.cli.demo import batches, effects, searching
from millstream.cli.demo.findings import Commit, Source, Survey
from millstream.cli.demo.git import Repository
from millstream.cli.demo.proof import Proof, call_key, prove
from millstream.cli.demo.screen import Busy, Screen, View
from millstream.cli.demo.stage import LEASE_S, DemoFailed, Stage
from millstream.cli.demo.study import SERVER

#: Files that get a run of their own, and runs that a worker holds at most.
FILES, MOST_HELD = 24, 6
_LOOK_S = 0.1
_RESULT_S = 60.0
#: Batches that are in sight while files are searched.
_BATCHES = 6
#: About how long the studying would take if nobody were killed.
_STUDY_S = 8.0
#: How long the kill waits for a step to be under way, and the steps that it is worth waiting for.
_AIM_S, _SLOW = 1.0, ("measure#0", "ask_for_authors#0")


@dataclass(slots=True)
class Kill:
    """What happened to the worker that was killed."""

    worker: str
    pid: int
    #: The worker that is left.
    heir: str
    at_s: float
    #: The runs it held, and when the last of them was in other hands again.
    held: list[str]
    recovered_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """Everything that the report is made of."""

    repository: Repository
    redis: str
    survey: Survey
    commits: list[Commit]
    files: list[Source]
    chapters: dict[str, Any]
    kill: Kill
    batches: list[batches.Batch]
    proof: Proof
    took_s: float


@dataclass(slots=True)
class _Watched:
    """What is seen of the runs while they run."""

    runs: list[Run]
    titles: dict[str, str]
    #: Idempotency key of a run's call to the server -> the run.
    calls: dict[str, str]
    #: The worker that last did something for a run, and what.
    where: dict[str, tuple[str, str]] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    #: Runs that a worker has in hand.
    running: set[str] = field(default_factory=set)
    depth: Depth = field(default_factory=Depth)
    kill: Kill | None = None

    @property
    def done(self) -> int:
        """How many have ended."""
        depth = self.depth
        return len(self.runs) - depth.waiting - depth.running - depth.scheduled - depth.parked

    def hear(self, news: Iterable[effects.Effect]) -> None:
        """Take note of who does what."""
        for effect in news:
            run = self.calls.get(effect.call, effect.run)
            self.where[run] = (effect.worker, effect.step.partition("#")[0] or "git_show")

    def holder(self, run: str) -> str:
        """Return the worker that a run is with, as far as it was seen."""
        worker = self.where.get(run, ("", ""))[0]
        if self.kill and worker == self.kill.worker and run in self.moved:
            return self.kill.heir
        return worker

    def held_by(self, worker: str) -> list[str]:
        """Return the runs that are in the hands of a worker."""
        return sorted(run for run in self.running if self.holder(run) == worker)


class Play:
    """One performance."""

    def __init__(
        self, repository: Repository, stage: Stage, client: Client, screen: Screen
    ) -> None:
        self._repository = repository
        self._stage = stage
        self._client = client
        self._screen = screen
        self._reader = effects.Reader(stage.effects)
        self._counted: list[effects.Effect] = []
        self._names: dict[str, str] = {}
        self._logs = batches.Reader({})
        self._batches: list[batches.Batch] = []

    async def perform(self, commits: int, redis: str) -> Played:
        """Play it through. Raises `DemoFailed` or what the client raises."""
        planned = min(commits, self._repository.commits) + FILES
        held = max(1, min(MOST_HELD, math.ceil(planned / 6)))
        self._stage.start_workers(held)
        self._stage.start_scheduler()
        self._names = await self._stage.until_ready(self._client)
        self._logs = batches.Reader({n: x.log for n, x in self._stage.workers.items()})
        pids = {name: process.popen.pid for name, process in self._stage.workers.items()}
        said = " and ".join(f"{name} (pid {pid})" for name, pid in sorted(pids.items()))
        self._screen.say(f"workers {said}, at most {held} runs each, lease {LEASE_S:g} s")

        repo = str(self._repository.path)
        arguments = {"repo": repo, "commits": commits, "files": FILES}
        first = await self._client.enqueue("survey", arguments, id="survey")
        survey = msgspec.convert(await self._result(first), Survey)
        watched = await self._enqueue(survey, held)
        kill = await self._watch(watched)
        findings = [await self._result(run) for run in watched.runs]
        files = msgspec.convert(findings[len(survey.commits) :], list[Source])
        read = msgspec.convert(findings[: len(survey.commits)], list[Commit])
        searches, hits = await self._search(survey, read)
        last = await self._client.enqueue(
            "summary",
            {"survey": survey, "commits": read, "files": files, "hits": hits},
            id="summary",
        )
        chapters = await self._result(last)
        self._screen.say("the last run has put the findings together")
        self._batches += self._logs.news()
        proof = await self._prove([first, *watched.runs, *searches, last], kill)
        return Played(
            repository=self._repository,
            redis=redis,
            survey=survey,
            commits=read,
            files=files,
            chapters=chapters,
            kill=kill,
            batches=self._batches,
            proof=proof,
            took_s=self._screen.elapsed_s,
        )

    # -- in order ------------------------------------------------------------------------------

    async def _enqueue(self, survey: Survey, held: int) -> _Watched:
        repo = str(self._repository.path)
        count = len(survey.commits) + len(survey.files)
        if not count:
            raise DemoFailed(f"{repo} has no commit and no text that could be read")

        rounds = count / (2 * held)
        pause = round(min(2.0, max(0.3, _STUDY_S / rounds - 0.2)), 2)
        asked = [
            Enqueue("commit", {"repo": repo, "sha": sha, "pause": pause}, id=f"commit-{sha[:12]}")
            for sha in survey.commits
        ]
        asked += [
            Enqueue("file", {"repo": repo, "path": path, "pause": pause}, id=f"file-{number:02d}")
            for number, path in enumerate(survey.files, 1)
        ]
        titles = {f"commit-{sha[:12]}": f"commit {sha[:8]}" for sha in survey.commits}
        titles |= {f"file-{number:02d}": path for number, path in enumerate(survey.files, 1)}
        runs = await self._client.enqueue_many(asked)
        self._screen.say(
            f"{len(survey.commits)} commits and {len(survey.files)} files to read, one run for each"
        )
        calls = {call_key(run.id, f"{SERVER}/git_show#0"): run.id for run in runs}
        return _Watched(runs, titles, calls)

    async def _watch(self, watched: _Watched) -> Kill:
        """Look on until all runs have ended; kill a worker when a third of them has."""
        while True:
            await self._look(watched)
            kill = watched.kill
            self._stage.check(kill.worker if kill else "")
            if watched.depth.dead:
                await self._fail()
            if kill is None:
                await self._maybe_kill(watched)
            elif kill.recovered_s is None and set(kill.held) <= watched.moved:
                kill.recovered_s = self._screen.elapsed_s - kill.at_s
                self._screen.say(
                    f"worker {kill.heir} has the {_runs(kill.held)} of worker {kill.worker},"
                    f" {kill.recovered_s:.1f} s after the kill"
                )
            self._screen.show(self._view(watched))
            if watched.done == len(watched.runs):
                if watched.kill is None:
                    raise DemoFailed(
                        "the runs ended before a worker could be killed; try --commits 60"
                    )
                self._screen.say(f"all {len(watched.runs)} runs have ended")
                return watched.kill
            await anyio.sleep(_LOOK_S)

    async def _search(self, survey: Survey, read: list[Commit]) -> tuple[list[Run], list[Any]]:
        """Search every file for the words of the commits, and show the batches that form."""
        repo, asked = str(self._repository.path), searching.questions(read)
        if not asked or not survey.files:
            return [], []
        files = survey.files
        self._screen.say(f"{len(files)} files to search for what {len(asked)} commits say")
        given = [{"repo": repo, "path": path, "asked": asked} for path in files]
        runs = await self._client.enqueue_many(
            [Enqueue("search", x, id=f"search-{n:02d}") for n, x in enumerate(given, 1)]
        )
        hits: list[Any] = []
        for number, run in enumerate(runs, 1):
            hits += await self._result(run)
            self._batches += self._logs.news()
            latest = [str(batch) for batch in self._batches[-_BATCHES:]]
            self._screen.show(View(number, len(runs), batches=latest))
        self._screen.say(batches.in_one_line(self._batches))
        return runs, hits

    async def _look(self, watched: _Watched) -> None:
        watched.hear(self._hear())
        watched.depth = await self._client.depth()
        running = await self._client.list(states=(RunState.RUNNING,), limit=1000)
        watched.running = {status.id for status in running}
        watched.moved |= {status.id for status in running if status.crashes}
        kill = watched.kill
        for run in watched.runs:
            # One that has ended since the last look was not seen running under its new worker.
            if kill and run.id in kill.held and run.id not in watched.moved | watched.running:
                status = await run.status()
                if status.crashes and status.state.final:
                    watched.moved.add(run.id)

    async def _maybe_kill(self, watched: _Watched) -> None:
        victim = max(self._stage.workers, key=lambda name: len(watched.held_by(name)))
        # By the time that it strikes, about a third has ended.
        begun = 4 * watched.done >= len(watched.runs)
        all_taken = not watched.depth.waiting
        if not watched.held_by(victim) or not (begun or all_taken):
            return

        await self._aim(watched, victim)
        pid = self._stage.kill(victim)
        heir = next(name for name in self._stage.workers if name != victim)
        kill = Kill(victim, pid, heir, self._screen.elapsed_s, [])
        # Nobody takes its runs before its lease is over: what it held can be read now.
        await self._look(watched)
        kill.held = watched.held_by(victim)
        watched.kill = kill
        self._screen.say(
            f"SIGKILL to worker {victim} (pid {pid}) while it holds {_runs(kill.held)}"
        )

    async def _aim(self, watched: _Watched, victim: str) -> None:
        """Wait a little for the worst moment: a step that takes its time has just begun."""
        with anyio.move_on_after(_AIM_S):
            while True:
                news = self._hear()
                watched.hear(news)
                if any(x.worker == victim and (x.call or x.step in _SLOW) for x in news):
                    return
                await anyio.sleep(0.002)

    async def _prove(self, runs: Iterable[Run], kill: Kill) -> Proof:
        journals, moved = {}, []
        for run in runs:
            journals[run.id] = await self._client.journal(run)
            if (await run.status()).crashes:
                moved.append(run.id)
        self._hear()
        return prove(journals, self._counted, names=self._names, killed=kill.worker, moved=moved)

    # -- below ---------------------------------------------------------------------------------

    def _hear(self) -> list[effects.Effect]:
        news = self._reader.news()
        self._counted += news
        return news

    async def _result(self, run: Run) -> Any:
        """Return a result, and notice when nobody is left to work for it."""
        found: list[Any] = []

        async def wait(scope: anyio.CancelScope) -> None:
            found.append(await run.result(timeout=_RESULT_S))
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(wait, group.cancel_scope))
            while True:
                await anyio.sleep(0.5)
                if sum(process.alive for process in self._stage.workers.values()) == 0:
                    self._stage.check()
        return found[0]

    async def _fail(self) -> None:
        dead = await self._client.dead(limit=1)
        raise DemoFailed(f"run {dead[0].id} failed: {dead[0].error}")

    def _view(self, watched: _Watched) -> View:
        kill = watched.kill
        return View(
            done=watched.done,
            total=len(watched.runs),
            workers={
                name: [
                    Busy(watched.titles[run], watched.where[run][1], moved=run in watched.moved)
                    for run in watched.held_by(name)
                ]
                for name in self._stage.workers
            },
            fate={kill.worker: "killed"} if kill else {},
        )


def _runs(runs: list[str]) -> str:
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
