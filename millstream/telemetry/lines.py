"""Where log lines end up, and when they say they were written.

Promises: whole lines only, whatever thread they come from; a stream that hangs costs lines, never
a lease. It does not know what a line says.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import repeat, starmap
from typing import TextIO


class Lines:
    """A logger in the sense of structlog: what it is told it writes.

    What is said in one turn of an event loop leaves in one write, at the end of that turn; what is
    loud, or said outside of a loop, leaves at once.
    """

    #: A stream that hangs holds one thread. The others, above all the one that renews leases,
    #: give the line up rather than hang with it.
    _PATIENCE_S = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        #: Taken from one by one: another thread may add to it at any moment.
        self._waiting: deque[str] = deque()
        #: The loop that will write what waits.
        self._scheduled: asyncio.AbstractEventLoop | None = None

    def msg(self, line: str) -> None:
        """Write a line at once, with whatever waits."""
        self._waiting.append(line)
        self._write()

    def info(self, line: str) -> None:
        """Write a line at the end of this turn of the loop."""
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write()
        else:
            if self._scheduled is not loop:
                self._scheduled = loop
                loop.call_soon(self._write)

    debug = info
    warning = error = critical = msg

    def _write(self) -> None:
        if not self._lock.acquire(timeout=self._PATIENCE_S):
            self._waiting.clear()
            self._scheduled = None
            return
        try:
            self._scheduled = None
            lines: list[str] = []
            with contextlib.suppress(IndexError):  # a thread that gave up has thrown the rest away
                # Called from C: a generator would be entered anew for every line.
                lines.extend(starmap(self._waiting.popleft, repeat((), len(self._waiting))))
            if lines:
                lines.append("")
                self._stream.write("\n".join(lines))
                self._stream.flush()
        except (OSError, ValueError):
            pass  # the reader is gone or the stream is closed; no run fails for that
        finally:
            self._lock.release()


class Clock:
    """The time as text. Within a millisecond it is the same text, within a second most of it."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._second = -1
        self._head = ""
        self._millisecond = -1
        self._text = ""

    def __call__(self) -> str:
        """Return the time, to the millisecond, in UTC."""
        now = self._wall()
        millisecond = int(now * 1000)
        if millisecond == self._millisecond:
            return self._text
        self._millisecond = millisecond
        second = int(now)
        if second != self._second:
            self._head = datetime.fromtimestamp(second, UTC).isoformat(timespec="seconds")[:-6]
            self._second = second
        self._text = f"{self._head}.{int((now - second) * 1000):03d}+00:00"
        return self._text
