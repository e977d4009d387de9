"""What must hold: while a history runs, after it has settled, and when everybody has left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from millstream.model.run import FINAL, RunState
from millstream.store import codec
from millstream_worker.replayer import Branch
from tests.simulation import plans
from tests.simulation.plans import Job

if TYPE_CHECKING:
    from tests.simulation.history import History

#: For so many leases a delivery may be with a process that is dead, and that nobody misses yet.
HOMELESS_LEASES = 4
#: The promise, and what happened.
Violation = tuple[str, str]


# -- at any moment ---------------------------------------------------------------------------------


def places(history: History) -> Iterator[Violation]:
    """Every run that has not ended stands somewhere from where somebody goes on with it."""
    view, lane = history.view, history.lane
    timers, parked = view.scores(lane.timers), view.scores(lane.parked)
    consumers = {(run_id, entry): consumer for _, entry, run_id, consumer in view.entries()}
    for run_id in view.ids():
        run = view.run(run_id)
        stands, missed = True, False
        match RunState(run[b"state"].decode()):
            case RunState.SCHEDULED:
                stands = run_id.encode() in timers
            case RunState.PARKED:
                stands = run_id.encode() in parked
            case RunState.QUEUED | RunState.RUNNING:
                place = (run_id, run[b"entry"].decode())
                stands = place in consumers
                missed = stands and not _looked_after(history, consumers[place])
            case _:
                pass
        if not stands:
            yield ("a run always stands somewhere", f"{run_id} {run} {consumers}")
        if not missed:
            history.missed.pop(run_id, None)
        elif _too_long(history, history.missed.setdefault(run_id, history.loop.time())):
            yield ("somebody misses a worker that is dead", f"{run_id} {run} {consumers}")


def _looked_after(history: History, consumer: str | None) -> bool:
    """Whether a delivery is with nobody, with somebody who lives, or with one who has a lease."""
    return (
        consumer is None
        or consumer.encode() in history.view.scores(history.lane.leases)
        or any(x.alive and x.worker and x.worker.token == consumer for x in history.processes)
    )


def _too_long(history: History, since: float) -> bool:
    patience_s = HOMELESS_LEASES * history.config.lease
    return history.loop.time() - max(since, history.healed) > patience_s


def leaders(history: History) -> Iterator[Violation]:
    """At most one scheduler leads, as far as clocks run at the same speed."""
    leading = [x.name for x in history.processes if x.alive and x.scheduler and x.scheduler.leading]
    if len(leading) > 1 and not history.clock_jumped:
        yield ("one scheduler leads", str(leading))


def processes(history: History) -> Iterator[Violation]:
    """Whatever happens to a process, it does not end by itself."""
    for process in history.processes:
        if process.error is not None:
            yield ("no process dies of an error", f"{process}: {process.error!r}")


# -- when all is quiet -----------------------------------------------------------------------------


def settled(history: History) -> Iterator[Violation]:
    """All runs have ended, as they may."""
    for job in history.jobs:
        run = history.view.run(job.id)
        state = run.get(b"state", b"").decode()
        if job.id not in history.memory.done or state not in FINAL:
            ends = history.memory.ends.get(job.id)
            yield ("accepted means kept", f"{job.id} has not ended: {run}, known: {ends}")
            return
        if job.id in history.memory.unknown and not history.shadow.forgot:
            yield ("accepted means kept", f"{job.id} was unknown for a while: {run}")
        yield from _end(history, job, run)
        yield from _deeds(history, job)


def _end(history: History, job: Job, run: dict[bytes, bytes]) -> Iterator[Violation]:
    state = RunState(run[b"state"].decode())
    end = history.memory.ends[job.id][-1]
    # A request to start it again may have come through late, after the client had given it up.
    late = history.shadow.revived.get(job.id, 0) > history.memory.revivals.get(job.id, 0)
    agreed = end.state == state and (
        state is not RunState.COMPLETED or end.value == codec.decode(run[b"result"])
    )
    if not agreed and not late and not history.shadow.forgot:
        yield ("the client learns the end", f"{job.id}: {end}, but it is {run}")
    if state is RunState.COMPLETED:
        yield from _completed(history, job, run)
    elif state is RunState.FAILED:
        cause, message = codec.decode(run[b"error"])
        if cause not in {*job.may_fail, "worker_lost"}:
            yield ("a run fails for its own reasons", f"{job.id}: {cause}: {message}")
        if job.id.encode() not in history.view.scores(history.lane.dead):
            yield ("a failed run is among the dead letters", job.id)
    elif job.cancel_at is None:
        yield ("nobody is cancelled unasked", job.id)


def _completed(history: History, job: Job, run: dict[bytes, bytes]) -> Iterator[Violation]:
    journal = {
        key.decode(): codec.decode_record(data)
        for key, data in history.view.journal(job.id).items()
        # A run that called a tool has also pinned what the server said of its tools.
        if not key.startswith(b"tools of ")
    }
    wanted = {key for key, _ in plans.keys(job.plan, Branch())}
    if journal.keys() != wanted:
        differ = sorted(journal.keys() ^ wanted)
        yield ("the journal of a completed run is complete", f"{job.id}: {differ}")
    values = {key: record.value for key, record in journal.items()}
    result = codec.decode(run[b"result"])
    if result != plans.expected(job.plan, Branch(), values):
        yield ("the result follows from the journal", f"{job.id}: {result}, {job.plan}")
    said = history.view.said(job.id)
    emits = [op for op in plans.leaves(job.plan) if op[0] == "emit"]
    if len(said) != len(emits):
        yield ("what is emitted is said once", f"{job.id}: {said}, {emits}")


def _deeds(history: History, job: Job) -> Iterator[Violation]:
    allowed = 1 + history.shadow.revived.get(job.id, 0)
    for op in plans.leaves(job.plan):
        label = str(op[2] if op[0] == "tool" else op[1] if len(op) > 1 else "")
        deeds = [deed for deed in history.world.deeds.get(label, ()) if deed.verdict != "raised"]
        if len(history.world.sent_keys.get(label, ())) > 1:
            yield ("an idempotency key stays", f"{label}: {history.world.sent_keys[label]}")
        once = (op[:2] == ["tool", "unsafe"] and not history.shadow.forgot) or not history.faults
        if once and len(deeds) > allowed:
            yield ("what is unsafe is not repeated blindly", f"{label}: {deeds}")


# -- when everybody has left -----------------------------------------------------------------------


def drained(history: History) -> Iterator[Violation]:
    """Workers that left in good order hold nothing."""
    for process in history.workers:
        if not process.ended:
            yield ("a drain comes to an end", str(process))
    if pending := history.view.pending():
        yield ("who leaves in good order leaves nothing behind", str(pending))


def forgotten(history: History) -> Iterator[Violation]:
    """After the retention nothing of the runs is left, nor of the workers."""
    lane = history.lane
    kept = {lane.meta, *(lane.stream(level) for level in ("resume", "high", "normal", "low"))}
    kept |= {lane.stream("suspect"), lane.agents, lane.leases}
    names = history.view.keys()
    left = [
        key
        for key in names
        if key.startswith(lane.prefix) and key not in kept and ":inbox:" not in key
    ]
    if left:
        yield ("what has ended is forgotten after its time", str(left))
    if entries := history.view.entries():
        yield ("what has ended is forgotten after its time", str(entries))
    if agents := history.view.fields(lane.agents):
        yield ("who has left is forgotten", str(agents))
