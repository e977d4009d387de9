"""The retry matrix: what may be repeated is exactly what does no harm."""

from __future__ import annotations

import pytest

from millstream.errors import (
    ToolError,
    ToolInterrupted,
    ToolNotSent,
    ToolRejected,
)
from millstream.model.tool import Effect
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
from millstream_worker.tools.judge import judge
from millstream_worker.tools.policy import Hints, effect_of, needs_intent

STATUSES = {
    "ok",
    "is_error",
    "protocol_error",
    "timeout",
    "cancelled",
    "interrupted",
    "rejected",
    "not_sent",
    "circuit_open",
}

#: Fault, error, label; the rows of the table in `policy`.
MATRIX: list[tuple[Exception, type[ToolError], str]] = [
    (Unsent("refused"), ToolNotSent, "not_sent"),
    (CircuitOpen("open", retry_after=1), ToolNotSent, "circuit_open"),
    (SessionGone("404"), ToolNotSent, "not_sent"),
    (ProcessGone("exit"), ToolNotSent, "not_sent"),
    (Refused(429, ""), ToolNotSent, "not_sent"),
    (Refused(503, "", retry_after=3), ToolNotSent, "not_sent"),
    (Refused(503, ""), ToolInterrupted, "interrupted"),
    (Refused(500, ""), ToolInterrupted, "interrupted"),
    (Refused(502, ""), ToolInterrupted, "interrupted"),
    (Refused(504, ""), ToolInterrupted, "interrupted"),
    (Refused(408, ""), ToolInterrupted, "interrupted"),
    (Refused(202, ""), ToolInterrupted, "interrupted"),
    (Refused(301, ""), ToolRejected, "rejected"),
    (Refused(401, ""), ToolRejected, "rejected"),
    (Refused(403, ""), ToolRejected, "rejected"),
    (Refused(404, ""), ToolRejected, "rejected"),
    (Cut("reset"), ToolInterrupted, "interrupted"),
    (Cut("late", timed_out=True), ToolInterrupted, "timeout"),
    (ProcessEnded("exit"), ToolInterrupted, "interrupted"),
    (Malformed("no JSON"), ToolInterrupted, "protocol_error"),
    (TooLarge(8), ToolRejected, "protocol_error"),
    (Unfit("arguments"), ToolRejected, "rejected"),
    (AddressRefused("private"), ToolRejected, "rejected"),
    *[(RpcError(code, ""), ToolRejected, "protocol_error") for code in (-32600, -32601, -32602)],
    *[(RpcError(code, ""), ToolRejected, "protocol_error") for code in (-32700, -32020, -32021)],
    *[(RpcError(code, ""), ToolInterrupted, "protocol_error") for code in (-32603, -32000, 1)],
    (KeyError("a mistake of ours"), ToolInterrupted, "interrupted"),
]


@pytest.mark.parametrize(("fault", "error", "status"), MATRIX)
def test_every_fault_has_its_verdict(fault: Exception, error: type[ToolError], status: str) -> None:
    """The error that the workflow sees, and a label out of the closed set."""
    verdict = judge(fault, call="s/t", redact=str)
    assert (type(verdict.error), verdict.status) == (error, status)
    assert verdict.status in STATUSES
    # What did not fit was found out before anything was sent: there the error names itself.
    named = error if isinstance(fault, Unfit) else type(fault)
    assert verdict.error.cause == named.__name__
    assert verdict.error.retry_after == getattr(fault, "retry_after", None)


def test_no_fault_is_without_a_verdict() -> None:
    """A new fault has to be put into the table. Those of agents are judged by who calls them."""
    judged = {type(fault) for fault, _, _ in MATRIX}
    tools = {fault for fault in _all(Fault) if fault.__module__ == Fault.__module__}
    assert Unsent in tools
    assert tools <= judged


def _all(cls: type[Fault]) -> set[type[Fault]]:
    return {leaf for sub in cls.__subclasses__() for leaf in {sub, *_all(sub)}}


READ_ONLY, IDEMPOTENT, SILENT = Hints(read_only=True), Hints(idempotent=True), Hints()


def test_our_word_goes_before_the_servers() -> None:
    """Annotations are hints of a peer that may lie, or be mistaken."""
    for effect in Effect:
        assert effect_of(effect, READ_ONLY, trusted=True) is effect
    assert effect_of(None, READ_ONLY, trusted=True) is Effect.READ_ONLY
    assert effect_of(None, IDEMPOTENT, trusted=True) is Effect.IDEMPOTENT
    for hints in (READ_ONLY, IDEMPOTENT, SILENT):
        assert effect_of(None, hints, trusted=False) is Effect.UNSAFE
    assert effect_of(None, SILENT, trusted=True) is Effect.UNSAFE


def test_an_intent_is_recorded_unless_somebody_calls_the_tool_harmless() -> None:
    """Believing a hint here risks a record; believing it for a repetition risks an effect."""
    assert needs_intent(None, SILENT)
    assert not needs_intent(None, READ_ONLY)
    assert not needs_intent(None, IDEMPOTENT)
    assert needs_intent(Effect.UNSAFE, READ_ONLY)
    assert needs_intent(Effect.KEYED, SILENT)
    assert not needs_intent(Effect.IDEMPOTENT, SILENT)


def test_a_message_is_one_bounded_line() -> None:
    """A server's error page is not a log line."""
    message = str(judge(RpcError(1, "a\n" * 10_000), call="s/t", redact=str).error)
    assert "\n" not in message
    assert len(message) < 700
