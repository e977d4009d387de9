"""Let those who follow runs look at the store a few at a time, each in its turn.

A thousand streams whose runs end in the same moment would all look at once: they would wait for the
connections of one client, for longer than it has patience, and look as if the store were away.

Promise: who has waited longest is next, and whoever waits costs the store nothing. It bounds
look-ups and no waiting for news; what others ask of the same client does not wait behind it.
"""

from __future__ import annotations

from types import TracebackType

import anyio

#: Look-ups at a time: a third of the connections that a client's commands share.
AT_ONCE = 32


class Turns:
    """``async with`` it around one look. Not to be held while somebody reads what was found."""

    def __init__(self) -> None:
        self._free = anyio.Semaphore(AT_ONCE, fast_acquire=True)

    async def __aenter__(self) -> None:
        await self._free.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._free.release()
