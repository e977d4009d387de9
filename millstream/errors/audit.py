"""Errors of the audit trail: it was not told, or it does not hold."""

from __future__ import annotations

from millstream.errors.root import MillstreamError


class Unaudited(MillstreamError):
    """Something was done, and the audit trail could not be told. Doing it again may do it twice."""

    def __init__(self, verb: str, target: str, result: str) -> None:
        super().__init__(
            f"{verb} {target!r} was done ({result}) and does not stand in the audit trail: Redis"
            " did not take it; note it by hand"
        )
        self.verb = verb
        self.target = target
        self.result = result


class BrokenTrail(MillstreamError):
    """The audit trail was changed, or has a gap."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(
            f"the audit trail does not hold at entry {seq}: {reason}; compare with the last export"
        )
        self.seq = seq
        self.reason = reason
