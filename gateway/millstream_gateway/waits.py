"""Wait for whichever comes first: what was asked for, the end of this process, or of the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from aiohttp.web import BaseRequest

from millstream.errors import MillstreamError

#: How often it is looked whether somebody is still there.
_LOOK_S = 1.0


async def first_of(*awaited: Callable[[], Awaitable[object]]) -> None:
    """Return when one of these has returned; stop the others. Raises what one of them raised."""
    failures: list[MillstreamError] = []
    async with anyio.create_task_group() as group:

        async def until(one: Callable[[], Awaitable[object]]) -> None:
            try:
                await one()
            except MillstreamError as error:
                failures.append(error)
            group.cancel_scope.cancel()

        for one in awaited:
            group.start_soon(until, one)
    if failures:
        raise failures[0]


async def until_gone(request: BaseRequest) -> None:
    """Return when whoever asked has hung up."""
    while request.transport is not None and not request.transport.is_closing():
        await anyio.sleep(_LOOK_S)
