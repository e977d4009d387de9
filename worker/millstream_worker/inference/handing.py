"""Batches that a device was given before it was free: who begins one, or takes it back, and when.

Between two batches a device should not wait until another process has noticed the end of the first,
found its interpreter free, and sent the second. So the second lies with the device's process while
the first is computed. Until it begins it can be taken back: a better one was formed, or somebody
gave up. Both sides may want it in the same moment, and the kernel decides: a batch has one byte of
a file that both have open, and whoever locks it first has the batch.

Promise: a batch is begun or taken back, never both.
"""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from millstream_worker.inference.engine import Ran

#: Questions that are sent and not answered, those that were taken back included. More, or larger
#: ones, could fill the pipe while its reader computes, and the event loop would wait for it.
MOST_SENT = 3
_MOST = 8192
#: Batches whose locks are kept behind the latest: more than there can be unanswered.
_KEPT = 16


class NotBegun(Exception):
    """The device never began a batch: it was taken back, or the device died before."""


class Handed(Protocol):
    """A batch that a device was given, and begins by itself."""

    def take_back(self) -> bool:
        """Take it back; False when it has begun."""

    def outcome(self) -> Ran:
        """Wait for what becomes of it. Raises `NotBegun` when it never began."""


class Claims:
    """One side of the agreement. ``base`` is where in the file the bytes of batches begin.

    Locks of the kind used here belong to a process: two claims within one never collide.
    """

    def __init__(self, file: int, base: int) -> None:
        self._file = file
        self._base = base

    def take(self, ticket: int) -> bool:
        """Take a batch, by its number; False when the other side has it."""
        try:
            if ticket > _KEPT:
                fcntl.lockf(self._file, fcntl.LOCK_UN, ticket - _KEPT, self._base)
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._base + ticket)
        except OSError:
            return False
        return True


def light(payloads: Sequence[Any]) -> bool:
    """Whether payloads are token ids or texts, and so few that a pipe takes them at once."""
    size = 0
    for each in payloads:
        numbers = type(each) is list and (not each or type(each[0]) is type(each[-1]) is int)
        if not (numbers or type(each) is str):
            return False
        size += len(each)
    return size <= _MOST


def packed(answer: Any) -> Any:
    """Return an answer as it is sent: JSON values travel in a third of the time that objects do.

    The device stands still while they are put together: half a millisecond for 32 vectors.
    """
    if not isinstance(answer, Ran) or answer.results is None:
        return answer
    try:
        return replace(answer, results=msgspec.msgpack.encode(answer.results))
    except Exception:  # noqa: BLE001 - an exception among them, most likely: they travel as objects
        return answer


def unpacked(answer: Any) -> Any:
    """Return an answer as it was before it was packed."""
    if isinstance(answer, Ran) and isinstance(answer.results, bytes):
        return replace(answer, results=msgspec.msgpack.decode(answer.results))
    return answer
