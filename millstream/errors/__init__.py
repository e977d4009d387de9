"""Every exception this project raises, in one tree.

The tree is sorted by who has to act, not by where the error came from:

* ``UsageError``   the caller wrote something that can never work; fix it, never retry.
* ``StoreError``   Redis did not answer, or answered no; the loop that called tries again.
* ``LeaseLost``    this worker no longer holds the run; stop and write nothing more.
* ``StepError``    a step of a workflow ended badly; the workflow may catch it.
* ``RunError``     a run ended badly, or not in time; raised where its result is awaited.
* ``ScalingError`` an autoscaler does not get its number; it asks again.

An error carries its facts as attributes and builds its own message, one line that says what
happened and what to do. ``Suspended`` stands outside the tree: user code must not catch it.
"""

from __future__ import annotations

from typing import Any

from millstream.errors.agents import (
    AgentError,
    AgentNotReached,
    AgentOutcomeUnknown,
    AgentRejected,
    AgentTimeout,
    AgentUntrusted,
)
from millstream.errors.audit import BrokenTrail, Unaudited
from millstream.errors.backups import BrokenBackup, StoreInUse
from millstream.errors.forks import UnknownStep
from millstream.errors.messages import RunEnded, SignalsFull
from millstream.errors.pipelines import InvalidPipeline
from millstream.errors.queues import QueueFull
from millstream.errors.root import MillstreamError, StoreError, UsageError, said
from millstream.errors.runs import ResultTimeout, RunCancelled, RunError, RunFailed
from millstream.errors.scaling import (
    BadSelector,
    KubernetesUnavailable,
    NoSuchQueue,
    ScalingError,
    StaleReading,
)
from millstream.errors.schedules import InvalidSchedule, ScheduleConflict, UnknownSchedule
from millstream.errors.sealing import SealBroken, SealingError, SealKeyMissing
from millstream.errors.steps import (
    CallError,
    ChildFailed,
    DeadlineExceeded,
    InferenceError,
    InferenceFailed,
    InferenceOverloaded,
    InferenceRejected,
    InferenceUnavailable,
    ItemTooLarge,
    OutcomeUnknown,
    SignalTimeout,
    StepError,
    StepFailed,
    StepTimeout,
    ToolError,
    ToolInterrupted,
    ToolNotSent,
    ToolRejected,
)
from millstream.errors.trials import TrialConflict, UnknownTrial

__all__ = [
    "AgentError", "AgentNotReached", "AgentOutcomeUnknown", "AgentRejected", "AgentTimeout",
    "AgentUntrusted",
    "BadSelector", "BrokenBackup", "BrokenTrail", "CallError", "ChildFailed", "ConfigError",
    "Continued", "DeadlineExceeded", "DuplicateKey", "IdConflict", "InferenceError",
    "InferenceFailed", "InferenceOverloaded", "InferenceRejected", "InferenceUnavailable",
    "InvalidArguments", "InvalidPipeline", "InvalidSchedule", "ItemTooLarge", "JournalFull",
    "KeyOccupied", "KubernetesUnavailable", "LeaseLost", "LoadError", "MillstreamError",
    "MissingExtra", "NeverAwaited", "NewerRecord", "NoSuchQueue", "NonDeterminism", "NotEncodable",
    "OutcomeUnknown", "PayloadTooLarge", "QueueFull", "ResultTimeout", "RunCancelled", "RunEnded",
    "RunError", "RunFailed", "ScalingError", "ScheduleConflict", "SealBroken", "SealKeyMissing",
    "SealingError", "SignalTimeout", "SignalsFull", "StaleReading", "StepError", "StepFailed",
    "StepTimeout", "StoreError", "StoreFull", "StoreInUse", "StoreUnavailable", "Suspended",
    "ToolError", "ToolInterrupted", "ToolNotSent", "ToolRejected", "TrialConflict", "Unaudited",
    "UnfitStore", "UnknownRun", "UnknownSchedule", "UnknownStep", "UnknownTrial",
    "UnknownWorkflow", "UsageError", "ValueLost", "said",
]  # fmt: skip


# -- the caller has to act ---------------------------------------------------------------------


class ConfigError(UsageError):
    """A setting is missing, malformed or outside its bounds."""


class MissingExtra(UsageError):
    """A part of millstream was called whose optional packages are not installed."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(f"{module} is not installed; get it: pip install 'millstream[{extra}]'")
        self.extra = extra
        self.module = module


class LoadError(UsageError):
    """The workflows of an application could not be imported."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(f"cannot load {target!r}: {reason}")
        self.target = target
        self.reason = reason


class NotEncodable(UsageError):
    """A value is not JSON and no type was given that says how it becomes JSON."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"{what} cannot be written as JSON ({reason}); pass JSON values, dataclasses,"
            " msgspec structs, TypedDicts or pydantic models"
        )
        self.what = what
        self.reason = reason


class PayloadTooLarge(UsageError):
    """A value is larger than the store accepts."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} is {size:,} bytes, the limit is {limit:,};"
            " store it elsewhere and pass a reference"
        )
        self.what = what
        self.size = size
        self.limit = limit


class InvalidArguments(UsageError):
    """Arguments do not fit the annotations of the workflow."""

    def __init__(self, workflow: str, reason: str) -> None:
        super().__init__(f"arguments do not fit workflow {workflow!r}: {reason}")
        self.workflow = workflow
        self.reason = reason


class IdConflict(UsageError):
    """The id is already used for another workflow or for other arguments."""

    def __init__(self, run_id: str, queue: str, workflow: str) -> None:
        super().__init__(
            f"run id {run_id!r} in queue {queue!r} already belongs to a run of workflow"
            f" {workflow!r} with other arguments; choose another id"
        )
        self.run_id = run_id
        self.queue = queue
        self.workflow = workflow


class UnknownRun(UsageError):
    """No run has this id, or its record has expired."""

    def __init__(self, run_id: str, queue: str) -> None:
        super().__init__(
            f"no run {run_id!r} in queue {queue!r}: it was never enqueued, or its record expired"
        )
        self.run_id = run_id
        self.queue = queue


class UnknownWorkflow(UsageError):
    """No worker that serves the queue knows the workflow, or not in this version."""

    def __init__(self, workflow: str, version: str | None, known: str) -> None:
        name = f"{workflow!r} version {version!r}" if version else f"{workflow!r}"
        super().__init__(
            f"no worker of this queue knows workflow {name} (known: {known or 'none'});"
            " start a worker that has it, or correct the name"
        )
        self.workflow = workflow
        self.version = version
        self.known = known


class NonDeterminism(UsageError):
    """A replay did not follow the journal of the run: its code is not the code that wrote it."""

    def __init__(self, key: str, recorded: str, called: str) -> None:
        super().__init__(
            f"replay differs from the journal at step {key!r}: its record says {recorded}, the"
            f" code {called}; guard the change with ctx.patched() or give it a version of its own,"
            f" then retry the run, or fork it from {key!r} to forget what comes from there on"
        )
        #: The step, whose record `runs show` has under the same key.
        self.key = key
        #: What the record says was called, and what the code did instead.
        self.recorded = recorded
        self.called = called


class NewerRecord(UsageError):
    """A record of the journal was written by a newer release; another worker may read it."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the journal has records of format {version}, which is newer than this release;"
            " finish the upgrade of the workers"
        )
        self.version = version


class DuplicateKey(UsageError):
    """Two steps of one branch were given the same key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"step key {key!r} was already used in this branch; keys must be unique")
        self.key = key


class NeverAwaited(UsageError):
    """A workflow called steps and returned without having awaited them: they were never done."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        shown = ", ".join(repr(key) for key in keys[:3])
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        super().__init__(
            f"{shown}{more} {'was' if len(keys) == 1 else 'were'} called and never awaited, so"
            " nothing came of it; write `await` before the call, and retry the run"
        )
        self.keys = keys


class JournalFull(UsageError):
    """A run has recorded more steps, or more bytes, than a journal may hold."""

    def __init__(self, run_id: str, records: int, size: int) -> None:
        super().__init__(
            f"run {run_id!r} has filled its journal ({records:,} records or {size:,} bytes);"
            " split it into several runs"
        )
        self.run_id = run_id
        self.records = records
        self.size = size


class ValueLost(UsageError):
    """A value that a record refers to is gone from Redis, or is not what was recorded."""

    def __init__(self, run_id: str, size: int, found: int) -> None:
        super().__init__(
            f"run {run_id!r} recorded a value of {size:,} bytes, and Redis has {found:,} of it, or"
            " others; something deleted a part of the run: start it again under another id"
        )
        self.run_id = run_id
        self.size = size
        self.found = found


class KeyOccupied(UsageError):
    """Another program keeps something under a key that belongs to a run."""

    def __init__(self, run_id: str, part: str) -> None:
        super().__init__(
            f"Redis holds something else where the {part} of run {run_id!r} should stand; find out"
            " what writes to keys that begin with 'millstream:', and delete that key"
        )
        self.run_id = run_id
        self.part = part


# -- the store ---------------------------------------------------------------------------------


class StoreUnavailable(StoreError):
    """Redis does not answer."""

    def __init__(self, address: str, reason: str) -> None:
        # What the connection says may end with a full stop, and this sentence goes on.
        said = reason.rstrip(". ")
        super().__init__(f"cannot reach Redis at {address}: {said}; is it running?")
        self.address = address
        self.reason = reason


class StoreFull(StoreError):
    """Redis refuses writes because its memory is used up."""

    def __init__(self) -> None:
        super().__init__("Redis is at its maxmemory and refuses writes; raise maxmemory")


class UnfitStore(UsageError):
    """Redis as it is can never do: too old, evicting, or not permitted to us."""

    def __init__(self, address: str, reason: str, remedy: str) -> None:
        super().__init__(f"Redis at {address} cannot be used: {reason}; {remedy}")
        self.address = address
        self.reason = reason
        self.remedy = remedy


class LeaseLost(MillstreamError):
    """Another worker holds the run now. Nothing was written. Do not retry."""

    def __init__(self, run_id: str, fence: int) -> None:
        super().__init__(f"run {run_id!r} is no longer held under fence {fence}")
        self.run_id = run_id
        self.fence = fence


# -- outside the tree --------------------------------------------------------------------------


class Continued(BaseException):
    """The run begins anew with other arguments; not an error. Raised by ``ctx.continue_as``.

    Outside the tree for the same reason as `Suspended`, and like it to be let pass.
    """

    def __init__(self, arguments: Any) -> None:
        super().__init__("the run begins anew; do not catch Continued, let it pass")
        self.arguments = arguments


class Suspended(BaseException):
    """The run is being put aside (parked, released or cancelled); not an error.

    It derives from ``BaseException`` so that ``except Exception`` in a workflow lets it pass.
    Code that catches it must raise it again.
    """

    def __init__(self) -> None:
        super().__init__("the run is being put aside; do not catch Suspended, let it pass")
