"""What is asked of a lane when it is to accept a run, and what it answers: see `runs.enqueue`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from millstream.model.limits import LIMITS, MIB
from millstream.model.run import Priority

#: The most that leaves in one call, unless a single run is larger.
MOST_BYTES = 8 * MIB


class Full(NamedTuple):
    """The lane holds as many runs as it may that nobody has begun; nothing was written."""

    limit: int
    waiting: int


class Stands(NamedTuple):
    """Which run stands for the one that was asked for, and whether it is that one."""

    id: str
    new: bool


class Once(NamedTuple):
    """That a run is to happen once. See ``lua/once.lua``."""

    #: ``dedupe`` or ``debounce``.
    mode: str
    name: str
    window_s: float
    longest_s: float


class NewRun(msgspec.Struct, frozen=True, gc=False):
    """What is written when a run is accepted. Sizes are checked before."""

    id: str
    workflow: str
    arguments: bytes
    version: str = ""
    priority: Priority = Priority.NORMAL
    delay_s: float = 0.0
    timeout_s: float | None = None
    tenant: str = ""
    trace: str = ""
    #: Encoded; empty: none.
    attributes: bytes = b""
    #: Somebody chose the id, so it may be known already. Not written.
    chosen: bool = True
    #: Written beside it: others that ask for the same get this run.
    once: Once | None = None


@dataclass(frozen=True, slots=True)
class Resized:
    """The queue has another number of lanes, or is about to; nothing was written."""

    lanes: int
    epoch: int


#: What becomes of a run that is to be accepted: see `runs.enqueue`.
Answer = bool | str | Full | Stands


def batches(news: Sequence[NewRun]) -> Iterator[list[NewRun]]:
    """Yield runs as they leave together, in one call."""
    batch: list[NewRun] = []
    size = 0
    for new in news:
        size += len(new.arguments)
        if batch and (len(batch) >= LIMITS.batch or size > MOST_BYTES):
            yield batch
            batch, size = [], len(new.arguments)
        batch.append(new)
    if batch:
        yield batch
