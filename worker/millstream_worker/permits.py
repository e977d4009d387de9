"""Permits of a pool that this process has, and the line of those here who wait for one.

A permit that came back is used again here without asking anybody, and given back when it was idle
for a moment, or at once where another process waits. While one does, this process uses what it has
for a short term only, and then goes to the end of the line with the rest.

Promise: never more are in use than Redis says this process has, and none is begun to be used that
may have lapsed: trust is counted from when a call was sent. Whoever waits is woken by a message, by
the moment in which a lease lapses, or by the renewal that is due anyway; nobody looks in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import anyio

from millstream.errors import StoreError
from millstream.store.pools import WAITS, Share

#: For how long a permit is kept that nobody uses, and nobody else waits for.
IDLE_S = 1.0
#: For how long what this process has is used here while others wait.
TERM_S = 0.25
#: What is asked again because something lapses is not asked more often than this.
_LEAST_S = 0.05

#: Speaks to the pool: sequence, keep, want.
Speaks = Callable[[int, int, int], Awaitable[Share | None]]


class Hears(Protocol):
    """What hears of a pool."""

    async def open(self) -> None:
        """Return when nothing is missed any more."""

    async def next(self, pause_s: float) -> bytes | None:
        """Return what is said next."""

    async def aclose(self) -> None:
        """Hear no more."""


class Permits:
    """The part of one pool that is here. It lives as long as `serve` runs."""

    def __init__(
        self,
        speak: Speaks,
        listen: Callable[[], Hears],
        *,
        token: str,
        most: int,
        lease_s: float,
        mono: Callable[[], float],
    ) -> None:
        self._say = speak
        self._listen = listen
        self._token = token.encode()
        self._most = most
        self._lease_s = lease_s
        self._mono = mono
        self._line: deque[asyncio.Future[None]] = deque()
        self._has = 0
        self._used = 0
        self._sequence = 0
        #: How many other processes wait, as far as is known.
        self._others = 0
        #: Whether this process stands in the line of the pool.
        self._lined = False
        #: Somebody said that there may be a permit.
        self._hinted = False
        self._trusted = self._spoke = self._term = self._idle = float("-inf")
        self._lapse_s = 0.0
        self._wake = anyio.Event()

    def take(self) -> bool:
        """Take a permit if one is here, and nobody waits for it."""
        free = not self._line and self._may_use()
        self._used += free
        return free

    async def enter(self) -> None:
        """Return with a permit."""
        if self.take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        self._wake.set()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The permit came in the very moment in which its caller was cancelled.
                self.leave()
            else:
                with suppress(ValueError):
                    self._line.remove(turn)
            raise

    def leave(self) -> None:
        """Give a permit back, to whoever waits here first, or to others."""
        self._used -= 1
        self._hand_out()
        if not self._line:
            self._idle = self._mono()
        if self._line or self._others:
            self._wake.set()

    async def serve(self) -> None:
        """Keep what is used, ask for what is waited for, and give back the rest."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._hear)
            while True:
                self._wake = anyio.Event()
                with anyio.move_on_after(self._pause_s()):
                    await self._wake.wait()
                if self._pause_s() <= 0:
                    await self._patiently()

    async def resign(self) -> None:
        """Give back what is not used, after `serve` has ended."""
        self._sequence += 1
        await self._say(self._sequence, self._used, 0)

    # -- what is here --------------------------------------------------------------------------

    def _may_use(self) -> bool:
        now = self._mono()
        return (
            self._used < self._has
            and now < self._trusted
            and (not self._others or now < self._term)
        )

    def _hand_out(self) -> None:
        while self._line and self._may_use():
            turn = self._line.popleft()
            if not turn.done():
                self._used += 1
                turn.set_result(None)

    # -- what is said --------------------------------------------------------------------------

    def _pause_s(self) -> float:
        """Return for how long there is nothing to say, unless something happens."""
        now = self._mono()
        if self._has + self._used + len(self._line) == 0:
            return 0.0 if self._lined else float("inf")
        due = self._spoke + self._lease_s / 3
        if self._hinted or (self._line and not self._lined) or self._gives_way(now):
            due = now
        elif self._line:
            due = min(due, self._spoke + max(_LEAST_S, self._lapse_s))
        elif self._has > self._used:
            due = min(due, self._idle + IDLE_S)
        return max(0.0, due - now)

    def _gives_way(self, now: float) -> bool:
        """Whether others should have what is here."""
        spare = self._has > self._used and self._others > 0
        return spare and (not self._line or now >= self._term)

    async def _patiently(self) -> None:
        try:
            await self._speak()
        except StoreError:
            # Whoever waits goes on waiting; what it had is trusted as long as it was.
            await anyio.sleep(min(1.0, self._lease_s / 10))

    async def _speak(self) -> None:
        sent = self._mono()
        idle = not self._line and sent >= self._idle + IDLE_S
        keep = self._used if idle or self._gives_way(sent) else max(self._used, self._has)
        # What is given back is not here any more from now on.
        self._has = min(self._has, keep)
        want = min(self._most, max(0, len(self._line) - (keep - self._used)))
        self._hinted = False
        self._sequence += 1
        share = await self._say(self._sequence, keep, want)
        if share is None:
            return
        if share.has > keep or (share.others and not self._others):
            self._term = self._mono() + TERM_S
        self._has, self._others, self._lapse_s = share
        self._spoke, self._trusted = sent, sent + self._lease_s
        self._lined = want > 0 and share.has < keep + want
        self._hand_out()
        if self._has > self._used and not self._line:
            self._idle = self._mono()

    async def _hear(self) -> None:
        while True:
            ear = self._listen()
            try:
                await ear.open()
                self._hint()
                while True:
                    said = await ear.next(self._lease_s)
                    self._said(said or b"")
            except StoreError:
                await anyio.sleep(min(1.0, self._lease_s / 10))
            finally:
                with anyio.move_on_after(1, shield=True):
                    await ear.aclose()

    def _said(self, said: bytes) -> None:
        if said == self._token:
            self._hint()
        elif said.startswith(WAITS) and said != WAITS + self._token:
            if not self._others:
                # Those who come later wait for the same end of the term.
                self._others = 1
                self._term = max(self._term, self._mono() + TERM_S)
            self._wake.set()

    def _hint(self) -> None:
        self._hinted = bool(self._line)
        self._wake.set()
