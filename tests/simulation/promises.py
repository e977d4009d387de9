"""What must hold: while a history runs, and after it has settled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from millstream.model.journal import RecordStatus, StepKind
from millstream.model.run import FINAL, RunState
from millstream.store import codec
from millstream_worker.replayer import Branch
from tests.simulation import plans
from tests.simulation.flows import TELLS
from tests.simulation.plans import Job

if TYPE_CHECKING:
    from tests.simulation.history import History
    from tests.simulation.processes import Process
    from tests.simulation.view import LaneView

#: For so many leases a delivery may be with a process that is dead, and that nobody misses yet.
HOMELESS_LEASES = 4
#: Steps whose end nobody is told of.
_UNTOLD = {StepKind.VALUE, StepKind.EMIT, StepKind.SLEEP, StepKind.TOOLS}
#: The promise, and what happened.
Violation = tuple[str, str]


def check_places(history: History) -> Iterator[Violation]:
    """Every run that has not ended stands somewhere from where it can go on."""
    for view in history.view.lanes:
        yield from _check_lane(history, view)


def _check_lane(history: History, view: LaneView) -> Iterator[Violation]:
    lane = view.lane
    now, patience_s = history.loop.time(), HOMELESS_LEASES * history.config.lease
    healed = history.director.healed
    timers, parked = view.scores(lane.timers), view.scores(lane.parked)
    leases, beside = view.scores(lane.leases), view.beside()
    alive = {
        process.token for process in history.processes.values() if process.worker and process.alive
    }
    places: dict[str, list[tuple[str, str, str | None]]] = {}
    for level, entry, run_id, consumer in view.entries():
        places.setdefault(run_id, []).append((level, entry, consumer))
    for run_id in view.ids():
        run = view.run(run_id)
        state = RunState(run[b"state"].decode())
        key = run_id.encode()
        match state:
            case RunState.SCHEDULED:
                sound = key in timers
            case RunState.PARKED:
                sound = key in parked
            case RunState.QUEUED | RunState.RUNNING:
                entry = run[b"entry"].decode()
                sound = (not entry and key in beside) or any(
                    consumer is None or consumer.encode() in leases or consumer in alive
                    for _, at, consumer in places.get(run_id, ())
                    if at == entry
                )
            case _:
                sound = True
        if sound:
            history.homeless.pop(run_id, None)
        elif now - max(history.homeless.setdefault(run_id, now), healed) > patience_s:
            yield (
                "a run always stands where it can go on",
                f"{run_id} {run} {places.get(run_id)} leases {dict(leases)} alive {alive}",
            )


def check_beginning(history: History, label: str, process: Process) -> Iterator[Violation]:
    """A worker begins an effect: the run must be its own, or it would know better."""
    # Where the clock of Redis jumps, a lease may end long before its worker can think so.
    if "clock" in history.director.kinds:
        return
    run = history.view.run(label.partition("/")[0])
    if (run.get(b"state"), run.get(b"owner")) != (b"running", process.token.encode()):
        yield ("who has lost a run starts nothing new", f"{label} by {process}: {run}")


def check_leaders(history: History) -> Iterator[Violation]:
    """At most one scheduler leads."""
    leading = [x.name for x in history.processes.values() if x.scheduler and x.scheduler.leading]
    if len(leading) > 1 and "clock" not in history.director.kinds:
        yield ("one scheduler leads", f"{leading}")


def check_left(history: History) -> Iterator[Violation]:
    """Whoever has left is forgotten: lease, consumer, what it said of itself, what it was told."""
    for view, process in itertools.product(history.view.lanes, history.processes.values()):
        lane, token = view.lane, process.token
        if process.alive or not token:
            continue
        traces = {
            "lease": token.encode() in view.scores(lane.leases),
            "consumer": token in view.consumers(),
            "agent": any(field.decode().endswith(token) for field in view.fields(lane.agents)),
            "control": view.stands(f"{lane.prefix}control:{token}"),
        }
        left = [name for name, stands in traces.items() if stands]
        if left:
            yield ("who has left is forgotten", f"{process} {token}: {left}")


def check(history: History) -> Iterator[Violation]:
    """All runs have ended, as they may; nothing is left over."""
    memory = history.memory
    yield from check_left(history)
    if history.view.posted():
        yield ("what is said is heard", f"{history.view.posted()} entries stand in the outbox")
    if history.view.waits():
        yield ("a permit comes back", f"{history.view.waits()}")
    unheard = {job.id for job in history.jobs if _waits_unheard(history, job)}
    for run_id in history.view.ids():
        state = RunState(history.view.run(run_id)[b"state"].decode())
        if state not in FINAL and run_id not in unheard:
            yield ("accepted means kept", f"{run_id} is {state} for ever")
    for job in history.jobs:
        if job.id not in memory.done:
            yield (
                "accepted means kept",
                f"{job.id} has not ended: {history.view.run(job.id)}, ends {memory.ends}",
            )
        if job.id not in unheard:
            yield from _check_end(history, job)
        yield from _check_signals(history, job)
        yield from _check_deeds(history, job)


def _waits_unheard(history: History, job: Job) -> bool:
    """Whether a run waits for what nobody says any more.

    A request to start it again has come through late, after its client had given it up.
    """
    state = history.view.run(job.id).get(b"state")
    revived = history.shadow.revived.get(job.id, 0) > history.memory.revivals.get(job.id, 0)
    unsaid = any(sent.label not in history.memory.signals for sent in job.signals)
    return state == RunState.PARKED.value.encode() and revived and unsaid


def _check_end(history: History, job: Job) -> Iterator[Violation]:
    run = history.view.run(job.id)
    if not run:
        yield ("accepted means kept", f"{job.id} has no record")
    state = RunState(run[b"state"].decode())
    if state not in FINAL or not history.memory.ends[job.id]:
        yield ("an end is final", f"{job.id} is {state}, and its client heard of no end")
        return
    end = history.memory.ends[job.id][-1]
    # A request to start it again may have come through late, after the client had given it up.
    revived = history.shadow.revived.get(job.id, 0)
    if end.state != state and revived <= history.memory.revivals.get(job.id, 0):
        yield ("the client learns the end", f"{job.id}: {end}, but it is {run}")
    if state is RunState.COMPLETED:
        value = codec.decode(run[b"result"])
        if (end.state == state and value != end.value) or not plans.agrees(
            value, plans.expected(job.plan)
        ):
            yield ("the result is the workflow's", f"{job.id}: {value}, {job.plan}")
        yield from _check_journal(history, job)
        if job.workflow == TELLS:
            yield from _check_steps(history, job)
    elif state is RunState.FAILED:
        cause, message = codec.decode(run[b"error"])
        if cause not in {*job.may_fail, "worker_lost"}:
            yield ("a run fails for its own reasons", f"{job.id}: {cause}: {message}")
    elif job.cancel_at is None:
        yield ("nobody is cancelled unasked", job.id)


def _check_journal(history: History, job: Job) -> Iterator[Violation]:
    # A run that called a tool has also pinned what the server said of its tools.
    journal = {key.decode() for key in history.view.journal(job.id)} - {"tools of sim"}
    wanted = {key for key, _ in plans.keys(job.plan, Branch())}
    if journal != wanted:
        yield (
            "the journal of a completed run is complete",
            f"{job.id}: {sorted(journal ^ wanted)} differ",
        )
    said = [data for kind, data in history.view.said(job.id) if kind == b"emit"]
    emits = [op for op in plans.leaves(job.plan) if op[0] == "emit"]
    if len(said) != len(emits):
        yield ("what is emitted is said once", f"{job.id}: {said}, {emits}")


def _check_steps(history: History, job: Job) -> Iterator[Violation]:
    """What stands in the journal was said to have ended, once, where the workflow tells."""
    ends: dict[str, list[str]] = {}
    for kind, data in history.view.said(job.id):
        name, step = codec.decode(data)
        if kind == b"step" and name == "ended":
            ends.setdefault(step["step"], []).append(step["status"])
    for key, data in history.view.journal(job.id).items():
        record = codec.decode_record(data)
        if record.kind in _UNTOLD:
            continue
        said = ends.get(key.decode(), [])
        # What failed may have been done anew by a later attempt; a child that failed, too.
        once = record.status is RecordStatus.OK
        if not said or said[-1] != record.status or (once and said.count("ok") != 1):
            yield ("a step's end is said once", f"{job.id} {key.decode()}: {record}, said {said}")


def _check_signals(history: History, job: Job) -> Iterator[Violation]:
    """What was accepted was taken once, or waits still; what was not was taken once at most."""
    records = map(codec.decode_record, history.view.journal(job.id).values())
    found = [x.value for x in records if x.kind is StepKind.SIGNAL and x.status is RecordStatus.OK]
    received = history.view.received(job.id)
    found += [codec.decode(data) for name, data in received.items() if name.isdigit()]
    for sent in job.signals:
        least = 1 if sent.label in history.memory.signals else 0
        if not least <= found.count(sent.label) <= 1:
            yield ("a signal is delivered once", f"{sent} of {job.id}: {found}")


def _check_deeds(history: History, job: Job) -> Iterator[Violation]:
    for op in plans.leaves(job.plan):
        if op[0] != "tool":
            continue
        label = op[2]
        if len(history.world.sent_keys.get(label, ())) > 1:
            yield ("an idempotency key stays", f"{label}: {history.world.sent_keys[label]}")
        deeds = history.world.deeds.get(label, [])
        allowed = 1 + history.shadow.revived.get(job.id, 0)
        if op[1] == "unsafe" and len(deeds) > allowed:
            yield ("what is unsafe is not repeated blindly", f"{label}: {deeds}")
