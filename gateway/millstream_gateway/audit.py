"""Who did what to which run: the seam between the gateway and wherever that is kept.

Everything that changes a run but enqueueing goes through `audited`, whatever comes of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from millstream.errors import MillstreamError
from millstream.events import Emit, OperatorActed

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that somebody did, or tried to."""

    actor: str
    tenant: str | None
    action: str
    queue: str
    target: str
    #: From which address.
    origin: str
    #: ``done``, or the name of what kept it from being done.
    outcome: str


class Audit(Protocol):
    """Where acts are written down."""

    async def record(self, act: Act) -> None:
        """Write an act down. Raises `StoreError` when that cannot be done."""


class EmittedAudit:
    """Tells the log of every act."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    async def record(self, act: Act) -> None:
        """Emit the act."""
        self._emit(
            OperatorActed(
                actor=act.actor,
                action=act.action,
                queue=act.queue,
                run_id=act.target,
                origin=act.origin,
                outcome=act.outcome,
            )
        )


async def audited(
    audit: Audit, do: Callable[[], Awaitable[T]], describe: Callable[[str], Act]
) -> T:
    """Do something and write down what came of it."""
    try:
        done = await do()
    except MillstreamError as error:
        await audit.record(describe(type(error).__name__))
        raise
    await audit.record(describe("done"))
    return done
