"""Durable agent workflows on the Redis you already run.

Authors write workflows with `Workflows` and `Context`; callers use `Client` (or `SyncClient`).
"""

from typing import TYPE_CHECKING, Any

from millstream.context import Context
from millstream.errors import (
    AgentError,
    ChildFailed,
    IdConflict,
    MillstreamError,
    OutcomeUnknown,
    QueueFull,
    ResultTimeout,
    RunCancelled,
    RunEnded,
    RunFailed,
    SignalsFull,
    SignalTimeout,
    StepError,
    StepFailed,
    StepTimeout,
    StoreUnavailable,
    Suspended,
    ToolError,
    UnknownRun,
)
from millstream.model.agent import AgentReply
from millstream.model.approval import Approval, OpenApproval
from millstream.model.backoff import RetryPolicy
from millstream.model.limit import Limit
from millstream.model.run import Depth, Priority, RunState, RunStatus, Times
from millstream.model.schedule import CatchUp, Overlap, Schedule, ScheduleStatus
from millstream.model.selection import Selection
from millstream.model.tool import ToolResult
from millstream.workflow import Workflow, Workflows

if TYPE_CHECKING:
    from millstream.client import Client, Enqueue, Run, RunEvent, SyncClient
else:

    def __getattr__(name: str) -> Any:
        # The client brings the library of Redis: a fifth of a second that only callers need pay.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

        from millstream import client  # noqa: PLC0415 - see above

        return getattr(client, name)


__version__ = "0.1.0"

__all__ = [
    "AgentError",
    "AgentReply",
    "Approval",
    "CatchUp",
    "ChildFailed",
    "Client",
    "Context",
    "Depth",
    "Enqueue",
    "IdConflict",
    "Limit",
    "MillstreamError",
    "OpenApproval",
    "OutcomeUnknown",
    "Overlap",
    "Priority",
    "QueueFull",
    "ResultTimeout",
    "RetryPolicy",
    "Run",
    "RunCancelled",
    "RunEnded",
    "RunEvent",
    "RunFailed",
    "RunState",
    "RunStatus",
    "Schedule",
    "ScheduleStatus",
    "Selection",
    "SignalTimeout",
    "SignalsFull",
    "StepError",
    "StepFailed",
    "StepTimeout",
    "StoreUnavailable",
    "Suspended",
    "SyncClient",
    "Times",
    "ToolError",
    "ToolResult",
    "UnknownRun",
    "Workflow",
    "Workflows",
]
