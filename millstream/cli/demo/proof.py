"""Hold the counted effects against the journals, to see whether anything was done again.

The lines of the effects stand in the order in which things were done. A step that one worker
recorded may have been begun by another before: that one was cut short of its record, and the step
had to be run again. What is done beyond that, once the worker that recorded it has done it, is a
violation. No clock is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from millstream import RetryPolicy
from millstream.cli.demo.effects import Effect
from millstream.model.journal import Record, RecordStatus, StepKind

Journals = Mapping[str, Mapping[str, Record]]


@dataclass(slots=True)
class Proof:
    """What the comparison found."""

    runs: int = 0
    #: Records of functions, of tool calls, and of all kinds.
    steps: int = 0
    calls: int = 0
    records: int = 0
    #: Effects that were counted.
    effects: int = 0
    #: Records of the killed worker in runs that went on elsewhere: done once, and not again.
    kept: int = 0
    #: Effects of a worker that could not record them any more, and that were repeated.
    cut: int = 0
    #: Runs that have records of both workers, or that a worker lost.
    moved: list[str] = field(default_factory=list)
    #: What should not be, one line each.
    violations: list[str] = field(default_factory=list)


def prove(
    journals: Journals,
    effects: Iterable[Effect],
    *,
    names: Mapping[str, str],
    killed: str,
    moved: Iterable[str],
) -> Proof:
    """Compare. ``names`` are the workers by token, ``killed`` is the one that was killed."""
    proof = Proof(runs=len(journals), moved=sorted(moved))
    done: dict[tuple[str, str], list[str]] = defaultdict(list)
    steps_of = {call_key(run, key): (run, key) for run, rows in journals.items() for key in rows}
    for effect in effects:
        proof.effects += 1
        place = steps_of.get(effect.call, ("?", effect.call)) if effect.call else None
        done[place or (effect.run, effect.step)].append(effect.worker)

    for run, records in journals.items():
        for key, record in records.items():
            proof.records += 1
            by = names.get(record.by, record.by)
            proof.kept += run in moved and by == killed
            if record.kind in {StepKind.STEP, StepKind.TOOL}:
                _compare(proof, f"{run} {key}", record, by, done.pop((run, key), []))
    for (run, key), workers in done.items():
        proof.violations.append(f"{run} {key}: done {len(workers)} times and never recorded")

    return proof


def _compare(proof: Proof, what: str, record: Record, by: str, workers: list[str]) -> None:
    proof.steps += record.kind is StepKind.STEP
    proof.calls += record.kind is StepKind.TOOL
    if record.status is RecordStatus.INTENT:
        proof.violations.append(f"{what}: announced, and never recorded")
    if by not in workers:
        proof.violations.append(f"{what}: recorded by worker {by}, which was not seen doing it")
        return

    first = workers.index(by)
    proof.cut += first
    later = workers[first:]
    if later.count(by) > record.attempts:
        again = later.count(by) - record.attempts
        proof.violations.append(f"{what}: done {again} times more than recorded")
    for other in sorted({*later} - {by}):
        proof.violations.append(f"{what}: done by worker {other} after it was recorded")


def call_key(run: str, step_key: str) -> str:
    """Return the idempotency key that the worker sends along with a tool call."""
    from millstream_worker.steps import Step
    from millstream_worker.toolsteps import ToolCall

    call = ToolCall(
        server="", tool="", arguments={}, retry=RetryPolicy(), timeout_s=1, run_id=run,
        queue="default", session="",
    )  # fmt: skip
    return call.idempotency_key(Step(key=step_key, kind=StepKind.TOOL, target="", digest=""))
