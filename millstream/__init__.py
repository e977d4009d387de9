"""Durable agent workflows on the Redis you already run.

Authors write workflows with `Workflows` and `Context`; callers use `Client` (or `SyncClient`).
"""

from millstream.client import Client, Enqueue, Run, RunEvent, SyncClient
from millstream.errors import (
    IdConflict,
    MillstreamError,
    OutcomeUnknown,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    StepError,
    StepFailed,
    StepTimeout,
    StoreUnavailable,
    Suspended,
    ToolError,
    UnknownRun,
)
from millstream.model.backoff import RetryPolicy
from millstream.model.run import Depth, Priority, RunState, RunStatus, Times
from millstream.model.tool import ToolResult
from millstream.workflow import Context, Workflow, Workflows

__version__ = "0.1.0"

__all__ = [
    "Client",
    "Context",
    "Depth",
    "Enqueue",
    "IdConflict",
    "MillstreamError",
    "OutcomeUnknown",
    "Priority",
    "ResultTimeout",
    "RetryPolicy",
    "Run",
    "RunCancelled",
    "RunEvent",
    "RunFailed",
    "RunState",
    "RunStatus",
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
