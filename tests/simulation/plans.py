"""What is enqueued: plans that a seed draws, and what a run of each must come to.

A plan is JSON, and the argument of every workflow here: a list of operations, each a list whose
first element is its name. Labels are unique in the whole history, so that every effect is known
by name to the ledger of effects.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from millstream_worker.replayer import Branch

Plan = list[list[Any]]
#: On whose behalf runs are, in turn.
TENANTS = ("a", None, "b", "a")
#: Stands in an expected result where any value is right.
ANY = "<any>"


@dataclass(frozen=True, slots=True)
class Sent:
    """A signal that the client sends."""

    at: float
    name: str
    #: Its payload and its id: unique in the whole history.
    label: str


@dataclass(slots=True, kw_only=True)
class Job:
    """One run that the client wants: what, when, and what it does to it later."""

    id: str
    workflow: str
    plan: Plan
    at: float
    priority: str = "normal"
    delay: float | None = None
    timeout: float | None = None
    version: str | None = None
    tenant: str | None = None
    #: When the client asks for it to be cancelled; None: never.
    cancel_at: float | None = None
    #: What the client says to it meanwhile, until it has ended.
    signals: list[Sent] = field(default_factory=list)
    #: How often the client starts it again when it has failed.
    revivals: int = 0
    #: Causes of failure that follow from the plan itself.
    may_fail: set[str] = field(default_factory=set)
    #: Whether it can come to its end at all.
    may_complete: bool = True


def jobs(random: Random, count: int, until: float) -> list[Job]:
    """Draw what a client enqueues in the time until ``until``."""
    found = [_job(random, f"r{number}", until) for number in range(count)]
    for job, tenant in zip(found, itertools.cycle(TENANTS), strict=False):
        job.tenant = tenant
    return found


def _job(random: Random, run_id: str, until: float) -> Job:
    workflow = random.choices(["flow", "stubborn", "hasty", "rare"], [6, 3, 1, 1])[0]
    labels = (f"{run_id}/{number}" for number in itertools.count())
    job = Job(
        id=run_id,
        workflow=workflow,
        plan=_plan(random, labels, depth=0),
        at=random.random() ** 2 * until,
        priority=random.choice(["normal", "normal", "high", "low"]),
        delay=random.choice([None, None, None, random.random() * 4]),
        version=random.choice([None, None, "1", "2"]) if workflow == "flow" else None,
    )
    if random.random() < 0.15:
        job.cancel_at = job.at + random.random() * 6
    if random.random() < 0.15:
        # Every attempt before this one fails; a run that is tried once needs a revival.
        job.plan.insert(random.randrange(len(job.plan) + 1), ["raise", random.choice([2, 2, 3, 9])])
    if random.random() < 0.5:
        job.revivals = 1
    if random.random() < 0.1:
        job.timeout = 1.0 + random.random() * 3
    job.signals = list(_signals(random, job))
    _foresee(job)
    return job


def _signals(random: Random, job: Job) -> Iterator[Sent]:
    """Draw what a run is told: enough for whoever waits without an end, and some more."""
    for number, op in enumerate(leaves(job.plan)):
        if op[0] == "signal" and (op[2] is None or random.random() < 0.7):
            # Often in the very moment in which the run gets to its wait.
            at = job.at + random.choice([random.random() * 0.03, random.random() ** 2 * 8])
            yield Sent(at, op[1], f"{job.id}!{number}")
            if random.random() < 0.2:
                yield Sent(at + random.random(), op[1], f"{job.id}!{number}again")


def _foresee(job: Job) -> None:
    if any(op[0] == "raise" for op in job.plan):
        job.may_fail.add("Boom")
    for op in leaves(job.plan):
        if op[0] == "tool" and op[1] == "unsafe":
            job.may_fail.add("OutcomeUnknown")
        if op[0] == "effect" and op[3] >= 3:
            job.may_fail.add("Boom")
    if job.workflow == "hasty" or job.timeout is not None:
        job.may_fail.add("TimeoutError")


def _plan(random: Random, labels: Iterator[str], depth: int) -> Plan:
    return [_operation(random, labels, depth) for _ in range(random.randint(1, 4 - depth))]


def _operation(  # noqa: PLR0911 - one for each operation
    random: Random, labels: Iterator[str], depth: int
) -> list[Any]:
    names = ["effect", "plain", "tool", "sleep", "values", "emit", "caught", "gather", "signal",
             "child"]  # fmt: skip
    name = random.choices(names, [6, 2, 3, 3, 2, 1, 1, 3 if depth < 2 else 0, 2, 1.5])[0]
    match name:
        case "effect":
            fails = random.choices([0, 1, 3], [8, 2, 0.3])[0]
            return ["effect", next(labels), _took(random), fails]
        case "plain":
            return ["plain", next(labels)]
        case "tool":
            kind = random.choice(["read-only", "keyed", "unsafe", "unsafe"])
            interrupted = int(kind != "unsafe" and random.random() < 0.2)
            return ["tool", kind, next(labels), _took(random), interrupted]
        case "sleep":
            return ["sleep", round(random.choice([0.1, 0.6, 2, 5]) * random.random(), 3)]
        case "emit":
            return ["emit", next(labels)]
        case "caught":
            return ["caught", next(labels)]
        case "signal" if random.random() < 0.5:
            return ["signal", next(labels), None]
        case "signal":
            return ["signal", "shared", round(random.random() * 4, 3)]
        case "child":
            return _child(random, next(labels).replace("/", "c"))
        case "gather":
            count = random.randint(2, 3)
            return ["gather", [_plan(random, labels, depth + 1) for _ in range(count)]]
        case _:
            return ["values"]


def _child(random: Random, child_id: str) -> list[Any]:
    """A run of its own, that fails for no reason of its own."""
    plan: Plan = []
    for number in range(random.randint(1, 3)):
        label = f"{child_id}/{number}"
        effect = ["effect", label, _took(random), random.choice([0, 0, 1])]
        plan.append(random.choice([effect, ["plain", label], ["sleep", _took(random)]]))
    return ["child", child_id, plan]


def _took(random: Random) -> float:
    return round(random.choice([0.0, 0.05, 0.3, 0.3, 1.5]) * random.random(), 3)


def leaves(plan: Plan) -> Iterator[list[Any]]:
    """Yield the operations of a plan, those of branches too."""
    for op in plan:
        if op[0] == "gather":
            for branch in op[1]:
                yield from leaves(branch)
        else:
            yield op


def expected(plan: Plan) -> list[Any]:
    """Return what a run of the plan returns; `ANY` where only the journal can tell."""
    values: list[Any] = []
    for op in plan:
        match op[0]:
            case "effect" | "plain":
                values.append(f"did {op[1]}")
            case "tool":
                values.append(f"did {op[2]}")
            case "caught":
                values.append(f"caught {op[1]}")
            case "signal":
                values.append(ANY)
            case "child":
                values.append(expected(op[2]))
            case "gather":
                values.append([expected(branch) for branch in op[1]])
            case "values":
                values.append([ANY, ANY, ANY])
            case _:
                values.append(None)

    return values


def keys(plan: Plan, branch: Branch) -> Iterator[tuple[str, Any]]:
    """Yield the step keys that a completed run has visited, each with its operation."""
    for op in plan:
        match op[0]:
            case "effect" | "plain" | "caught":
                yield branch.key("effect" if op[0] == "effect" else op[0], op[1]), op
            case "tool":
                yield branch.key(f"sim/{op[1]}", op[2]), op
            case "sleep":
                yield branch.key("sleep", None), op
            case "values":
                for name in ("now", "random", "uuid"):
                    yield branch.key(name, None), op
            case "emit":
                yield branch.key(f"emit {op[1]}", None), op
            case "signal":
                yield branch.key(f"signal {op[1]}", None), op
            case "child":
                yield branch.key("child flow", None), op
            case "gather":
                for part, inner in zip(op[1], branch.children(len(op[1])), strict=True):
                    yield from keys(part, inner)
            case _:
                pass


def agrees(value: Any, wanted: Any) -> bool:
    """Whether a result is what the plan wants, where it wants anything in particular."""
    if wanted == ANY:
        return True
    if isinstance(wanted, list) and isinstance(value, list):
        return len(value) == len(wanted) and all(map(agrees, value, wanted))

    return bool(value == wanted)
