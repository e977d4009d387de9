"""Say why a result is late: a run that waits for nobody's answer looks as if it were only slow.

Promise: whoever has waited is told within a second, also by a Redis that does not answer. It does
not wait any longer for the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from millstream.client.handles import Run
from millstream.errors import MillstreamError, ResultTimeout

if TYPE_CHECKING:
    from millstream.client.asynchronous import Client

#: How long the question may take: the time that was given is over.
_LOOK_S = 1.0


async def late(client: Client, run: Run, timeout: float) -> ResultTimeout:
    """Return the error for a run that did not end in time, with what it waits for."""
    try:
        with anyio.move_on_after(_LOOK_S):
            async with client.turns:
                found = await client.status(run)
            return ResultTimeout(run.id, timeout, found.state, found.waits_for)
    except MillstreamError:
        pass  # that it is late is known; why is not

    return ResultTimeout(run.id, timeout)
