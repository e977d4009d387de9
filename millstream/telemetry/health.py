"""Whether the process is alive, ready and started, as three verdicts.

Promises: liveness follows the progress of the event loop and of the claim loop, and nothing else,
so a Redis that is away never gets a process killed; it turns readiness red instead. It does not
know HTTP, nor what a claim is: the process tells it that one was served or refused. A verdict names
every check that it rests on, and what is wrong with each.

Threads: the loop's thread writes, the probes' thread reads. Each fact is one attribute, written
whole and read once, so there is no lock that a blocked loop could hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from millstream.telemetry.redaction import redact_text


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one question about the process; ``reason`` says why it is no."""

    ok: bool
    reason: str | None = None
    #: All that was looked at, by name, and what is wrong with it; None: nothing.
    checks: Mapping[str, str | None] = field(default_factory=dict)


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
        #: Replaced, never changed: another thread reads it.
        self._checked: Mapping[str, str | None] = {}
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

    def checked(self, name: str, fault: str | None) -> None:
        """Something that the process needs was looked at; ``fault`` is what is wrong with it."""
        found = None if fault is None else redact_text(fault)
        if name not in self._checked or self._checked[name] != found:
            self._checked = {**self._checked, name: found}

    def draining(self) -> None:
        """The process takes nothing new from here on."""
        self._draining = True

    # -- asked by the probes -------------------------------------------------------------------

    def loop_age_s(self) -> float:
        """Return how long ago the event loop came round."""
        return max(0.0, self._mono() - self._loop_at)

    def live(self) -> Verdict:
        """Whether to let the process live."""
        return _verdict(self._alive())

    def ready(self) -> Verdict:
        """Whether the process can take work."""
        return _verdict(
            {
                "drain": "draining" if self._draining else None,
                "redis": self._store_fault,
                **self._checked,
                **self._begun(),
                **self._alive(),
            }
        )

    def started(self) -> Verdict:
        """Whether the claim loop has turned at least once. It never turns back."""
        return _verdict(self._begun())

    def _begun(self) -> dict[str, str | None]:
        begun = self._claim_at is not None
        return {"start": None if begun else "the claim loop has not turned yet"}

    def _alive(self) -> dict[str, str | None]:
        # A drain ends the claim loop on purpose; the runs that are held must not be killed for it.
        claim_at = None if self._draining else self._claim_at
        return {
            "event_loop": self._overdue("event", self._loop_at, self._loop_s),
            "claim_loop": self._overdue("claim", claim_at, self._claim_s),
        }

    def _overdue(self, loop: str, at: float | None, most_s: float) -> str | None:
        age = 0.0 if at is None else self._mono() - at
        return f"the {loop} loop last turned {age:.0f} s ago" if age > most_s else None


def _verdict(checks: Mapping[str, str | None]) -> Verdict:
    reason = next((fault for fault in checks.values() if fault is not None), None)
    return Verdict(ok=reason is None, reason=reason, checks=checks)
