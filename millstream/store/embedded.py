"""Time for the store that lives in the process: it can be made to jump, for tests.

Knows the one place where fakeredis answers TIME; scripts take every time from there.
"""

from __future__ import annotations

import importlib
import time as real
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class JumpingClock:
    """Stands in for the module ``time`` where the in-memory server reads it."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def time(self) -> float:
        """Return the time in epoch seconds, jumps included."""
        return real.time() + self.offset_s

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)


@contextmanager
def jumping_clock() -> Iterator[JumpingClock]:
    """Give the in-memory servers of this process a clock that can jump, for this block."""
    server: Any = importlib.import_module("fakeredis.commands_mixins.server_mixin")
    clock = JumpingClock()
    before = server.time
    server.time = clock
    try:
        yield clock
    finally:
        server.time = before
