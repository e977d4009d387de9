"""What has arrived for one run, as far as this worker knows, and which branches wait for it.

Only the store knows for certain: a branch that is called looks there, and takes what it finds by
writing it into the journal. So a hint too many costs one look, and one that is missing is made up
for by the sweep, which asks for all that stands to be read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

from millstream.store.messages import Standing
from millstream_worker.reading import RunReader

#: The clock of Redis and the loop's may drift apart: no longer than this without a look.
_LONGEST_S = 60.0


class Waiter:
    """One branch that waits for a message of one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: Whether a message of its name has come since it looked last.
        self.called = False
        self._woken = asyncio.Event()

    def call(self) -> None:
        """A message of this name has come."""
        self.called = True
        self._woken.set()

    def wake(self) -> None:
        """Something has come; what, has to be read."""
        self._woken.set()

    def rest(self) -> None:
        """It is about to look: whatever comes from here on counts anew."""
        self.called = False
        self._woken.clear()

    async def wait(self, left_s: float | None) -> None:
        """Return when it was called or woken, or when some of the time has gone by."""
        with anyio.move_on_after(None if left_s is None else min(left_s, _LONGEST_S)):
            await self._woken.wait()
        self._woken.clear()


class Mailbox:
    """The messages of one run. ``begin`` is called when somebody begins to wait."""

    def __init__(self, reader: RunReader, *, received: bool, begin: Callable[[], None]) -> None:
        self.reader = reader
        #: The number of the last message that this worker has read of.
        self.heard = 0
        self._names: frozenset[str] = frozenset()
        self._stale = received
        self._reading = asyncio.Lock()
        self._begin = begin
        #: In the order in which they began to wait.
        self._waiters: dict[Waiter, None] = {}
        self._by_name: dict[str, dict[Waiter, None]] = {}

    def join(self, name: str) -> Waiter:
        """Begin to wait for messages of a name."""
        self._begin()
        waiter = Waiter(name)
        self._waiters[waiter] = None
        self._by_name.setdefault(name, {})[waiter] = None
        return waiter

    def leave(self, waiter: Waiter, *, answered: bool) -> None:
        """Wait no more. Where one message was, there may be another one, for the next in line."""
        del self._waiters[waiter]
        line = self._by_name[waiter.name]
        del line[waiter]
        if not line:
            del self._by_name[waiter.name]
        elif answered or waiter.called:
            next(iter(line)).call()

    def hear(self, name: str | None) -> None:
        """A message has come; None: perhaps, and nobody knows of what name."""
        if name is None:
            self._stale = True
            for waiter in self._waiters:
                return waiter.wake()
        elif name in self._by_name:
            next(iter(self._by_name[name])).call()
        return None

    async def stands(self, name: str) -> bool:
        """Whether a message of this name was there when this was read last."""
        await self.refresh()
        return name in self._names

    async def refresh(self) -> None:
        """Read anew what stands, where something may have come that nobody knows of."""
        while self._stale:
            async with self._reading:
                if self._stale:
                    await self._read()

    async def _read(self) -> None:
        self._stale = False
        try:
            found: Standing = await self.reader.standing()
        except BaseException:
            self._stale = True
            raise
        self.heard = max(self.heard, found.heard)
        self._names = found.names
        for name in found.names & self._by_name.keys():
            next(iter(self._by_name[name])).call()
