"""From a fault of the transport to the error that a workflow sees.

Promise: one place decides it, by the matrix in `policy`, and the text is one line without
secrets. It does not know whether the call will be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from millstream.errors import ToolError, ToolInterrupted, ToolNotSent, ToolRejected
from millstream_worker.tools import policy
from millstream_worker.tools.faults import (
    AddressRefused,
    CircuitOpen,
    Cut,
    Fault,
    Malformed,
    ProcessEnded,
    ProcessGone,
    Refused,
    RpcError,
    SessionGone,
    TooLarge,
    Unfit,
    Unsent,
)

#: Enough for a reason, too little for a page of HTML or a stack trace.
_LONGEST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The error of a call, and its label in the metric."""

    error: ToolError
    status: str


def judge(fault: BaseException, *, call: str, redact: Callable[[str], str]) -> Verdict:
    """Return what a fault means for the call named ``call`` (``server/tool``)."""
    kind, status = _kind(fault)
    error = kind(
        f"{call}: {_opening(kind)}: {one_line(redact(str(fault) or type(fault).__name__))}",
        # What does not fit was found out here: the error's own name says more than ours for it.
        cause=kind.__name__ if isinstance(fault, Unfit) else type(fault).__name__,
        retry_after=getattr(fault, "retry_after", None),
    )
    return Verdict(error=error, status=status)


def speaks_against(fault: BaseException) -> bool:
    """Whether a fault speaks against the server's transport."""
    if isinstance(fault, Refused):
        return fault.status >= 500
    return isinstance(fault, Unsent | Cut | ProcessGone) and not isinstance(fault, CircuitOpen)


def counts(fault: BaseException) -> bool:
    """Whether a fault of a call counts as a failure of the server.

    The end of a process is counted once, by its session, and not by each of its calls.
    """
    return speaks_against(fault) and not isinstance(fault, ProcessEnded | ProcessGone)


def answered(fault: BaseException) -> bool:
    """Whether a fault shows that the server is there and speaks."""
    if isinstance(fault, Refused):
        return fault.status < 500
    if isinstance(fault, ProcessGone):
        return False
    return isinstance(fault, RpcError | TooLarge | SessionGone)


def before_sending(fault: Fault) -> Fault:
    """Return what a fault means to a call that was yet to come: it was never sent."""
    kind, _ = _kind(fault)
    if kind is not ToolInterrupted:
        return fault
    return Unsent(str(fault), retry_after=getattr(fault, "retry_after", None))


def one_line(text: str) -> str:
    """Return the text as one bounded line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…"


def _kind(fault: BaseException) -> tuple[type[ToolError], str]:
    match fault:
        case Refused():
            kind = policy.error_of_status(fault.status, fault.retry_after)
            return kind, _LABELS[kind]
        case RpcError():
            return policy.error_of_code(fault.code), "protocol_error"
        case Cut() if fault.timed_out:
            return ToolInterrupted, "timeout"
        case _:
            for cls, kind, status in _FIXED:
                if isinstance(fault, cls):
                    return kind, status

    # Something we did not foresee, while a call was under way: it may have run.
    return ToolInterrupted, "interrupted"


#: The first that matches decides.
_FIXED: tuple[tuple[type[Exception], type[ToolError], str], ...] = (
    (CircuitOpen, ToolNotSent, "circuit_open"),
    (Unsent, ToolNotSent, "not_sent"),
    (SessionGone, ToolNotSent, "not_sent"),
    (AddressRefused, ToolRejected, "rejected"),
    (Unfit, ToolRejected, "rejected"),
    (TooLarge, ToolRejected, "protocol_error"),
    (Malformed, ToolInterrupted, "protocol_error"),
)

_LABELS: dict[type[ToolError], str] = {
    ToolNotSent: "not_sent",
    ToolInterrupted: "interrupted",
    ToolRejected: "rejected",
}


def _opening(kind: type[ToolError]) -> str:
    if kind is ToolNotSent:
        return "not sent"
    if kind is ToolRejected:
        return "rejected"
    return "sent, but no valid answer came"
