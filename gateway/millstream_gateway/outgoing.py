"""A stream of server-sent events to one reader, whatever is sent in it.

Promise: a message goes out whole or the reader is let go of, within seconds; a silent stream says
that it lives.
"""

from __future__ import annotations

import anyio
from aiohttp import web

MEDIA_TYPE = "text/event-stream"
#: A silent stream says so often that it lives: proxies cut what is silent for a minute.
PING_S = 15.0
#: Whoever takes longer to read a message is let go of.
_WRITE_S = 10.0
HEADERS = {
    "Content-Type": MEDIA_TYPE,
    "Cache-Control": "no-store",
    # Proxies that gather answers before they pass them on would turn news into history.
    "X-Accel-Buffering": "no",
    "Connection": "close",
}


class Out:
    """One reader: messages go out whole, one after the other, or it is let go of."""

    def __init__(self, request: web.BaseRequest, answer: web.StreamResponse) -> None:
        self._request = request
        self._answer = answer
        self._lock = anyio.Lock()
        self._wrote = anyio.current_time()

    async def write(self, data: bytes) -> bool:
        """Send a message; False when nobody takes it any more."""
        try:
            with anyio.fail_after(_WRITE_S):
                async with self._lock:
                    await self._answer.write(data)
                    self._wrote = anyio.current_time()
        except ConnectionError:
            return False
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            return False
        return True

    async def ping_forever(self) -> None:
        """Say that the stream lives when it has said nothing for a while."""
        while True:
            pause_s = self._wrote + PING_S - anyio.current_time()
            if pause_s > 0:
                await anyio.sleep(pause_s)
            elif not await self.write(b": alive\n\n"):
                return
