"""Whether the process is alive, ready and started, as three verdicts.

Promises: liveness follows the progress of the event loop and of the claim loop, and nothing else,
so a Redis that is away never gets a process killed; it turns readiness red instead. It does not
know HTTP, nor what a claim is: the process tells it that one was served or refused.

Threads: the loop's thread writes, the probes' thread reads. Each fact is one attribute, written
whole and read once, so there is no lock that a blocked loop could hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from millstream.telemetry.redaction import redact_text


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one question about the process; ``reason`` says why it is no."""

    ok: bool
    reason: str | None = None


_YES = Verdict(ok=True)


class Health:
    """What the process last said of itself.

    ``loop_s`` and ``claim_s`` bound how old the last turn of each loop may be, in seconds. A
    claim loop that waits for a free slot must go on telling that it turns.
    """

    def __init__(
        self,
        *,
        loop_s: float = 60.0,
        claim_s: float = 60.0,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop_s = loop_s
        self._claim_s = claim_s
        self._mono = mono
        # From the start on: a loop that never turns at all must not pass for alive.
        self._loop_at = mono()
        self._claim_at: float | None = None
        self._store_fault: str | None = "the store has not answered yet"
        self._draining = False

    # -- told by the process -------------------------------------------------------------------

    def loop_turned(self) -> None:
        """The event loop came round."""
        self._loop_at = self._mono()

    def claim_turned(self) -> None:
        """The claim loop came round: served, refused, or without a free slot."""
        self._claim_at = self._mono()

    def store_answered(self) -> None:
        """The store answered."""
        self._store_fault = None

    def store_failed(self, reason: str) -> None:
        """The store did not answer, or answered no."""
        self._store_fault = redact_text(reason)

    def draining(self) -> None:
        """The process takes nothing new from here on."""
        self._draining = True

    # -- asked by the probes -------------------------------------------------------------------

    def live(self) -> Verdict:
        """Whether to let the process live."""
        now = self._mono()
        if (age := now - self._loop_at) > self._loop_s:
            return _no(f"the event loop last turned {age:.0f} s ago")

        # A drain ends the claim loop on purpose; the runs that are held must not be killed for it.
        claim_at = None if self._draining else self._claim_at
        if claim_at is not None and (age := now - claim_at) > self._claim_s:
            return _no(f"the claim loop last turned {age:.0f} s ago")

        return _YES

    def ready(self) -> Verdict:
        """Whether the process can take work."""
        if self._draining:
            return _no("draining")
        if (fault := self._store_fault) is not None:
            return _no(fault)
        if not (started := self.started()).ok:
            return started
        return self.live()

    def started(self) -> Verdict:
        """Whether the claim loop has turned at least once. It never turns back."""
        return _YES if self._claim_at is not None else _no("the claim loop has not turned yet")


def _no(reason: str) -> Verdict:
    return Verdict(ok=False, reason=reason)
