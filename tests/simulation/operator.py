"""What an operator does in a history: lays the queue out, and schedules a workflow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from millstream import Client
from millstream.errors import StoreError
from millstream.model.schedule import CatchUp, Overlap, Progress, Schedule
from tests.simulation.processes import Main, Process

if TYPE_CHECKING:
    from tests.simulation.history import History

#: As many lanes as the queue has where it has several.
_LANES = 2
#: A run that was in the hands of too many dead workers is given up, whatever it is.
_LOST = b'["worker_lost"'
#: What a tick runs: nothing that is counted by name, since all ticks run the same.
_PLAN: list[list[Any]] = [["values"], ["sleep", 0.7], ["values"]]


@dataclass(slots=True)
class Operator:
    """What a seed's operator wants, and what it knows in the end."""

    lanes: int
    #: None: nothing is scheduled.
    schedule: Schedule | None
    laid_out: bool = False
    paused: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.laid_out and (self.schedule is None or self.paused)


def drawn(seed: int) -> Operator:
    """Return what the operator of a seed wants; the rest of the history is drawn elsewhere."""
    random = Random(f"operator {seed}")
    scheduled = random.random() < 0.08
    return Operator(
        lanes=_LANES if random.random() < 0.12 else 1,
        schedule=Schedule(
            "tick", "flow", {"plan": _PLAN}, every=random.choice([1, 2]),
            overlap=Overlap.ALLOW, catch_up=CatchUp.ALL,
        ) if scheduled else None,
    )  # fmt: skip


def operator_main(operator: Operator, pause_at: float) -> Main:
    """Return the main function of the operator: insist until all of it is done."""

    async def main(process: Process) -> None:
        async with Client(connection=process.connection(), random=process.random) as client:
            if operator.lanes > 1:
                await _insist(lambda: client.resize("default", lanes=operator.lanes))
            operator.laid_out = True
            schedule = operator.schedule
            if schedule is None:
                return
            await _insist(lambda: client.schedules.create(schedule))
            await asyncio.sleep(max(0.0, pause_at - asyncio.get_running_loop().time()))
            await _insist(lambda: client.schedules.pause("tick"))
            operator.paused = True

    return main


def check_ticks(history: History) -> Iterator[tuple[str, str]]:
    """Every tick up to the last that fired has its run, once, and that has ended."""
    schedule, progress = history.operator.schedule, history.view.progress("tick")
    if schedule is None or progress is None or not history.operator.paused:
        return
    found = {run_id for run_id in history.view.ids() if run_id.startswith("tick@")}
    ticks = set(_ticks(schedule, progress, range(1 - progress.fired, 1)))
    # A run stands before its schedule moves on. One that was paused in between counts it, unless
    # the scheduler that knows of it has died.
    died = any(x.scheduler and not x.alive for x in history.processes.values())
    beyond = set(_ticks(schedule, progress, range(1, schedule.catch_up_limit))) if died else set()
    if ticks - found or found - ticks - beyond or progress.skipped:
        yield ("a tick has one run", f"{sorted(found ^ ticks)} differ; {progress}")
    for run_id in found:
        run = history.view.run(run_id)
        if run[b"state"] != b"completed" and not run.get(b"error", b"").startswith(_LOST):
            yield ("a tick's run completes", f"{run_id}: {run}")


def _ticks(schedule: Schedule, progress: Progress, numbers: range) -> Iterator[str]:
    """Yield the ids of the runs of ticks, counted from the last one that fired."""
    if progress.last is None or schedule.every is None:
        return
    for number in numbers:
        yield schedule.run_id(progress.last + number * schedule.every)


async def _insist(do: Callable[[], Awaitable[Any]]) -> Any:
    while True:
        try:
            return await do()
        except StoreError:
            await asyncio.sleep(0.3)
