"""Large values of runs, on their way to the store and back.

Insists while Redis does not answer, as a commit does: a step that was done must be recorded, and a
replay cannot go on without what it recorded. What stops the run stops the waiting too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, StoreFailed
from millstream.model.journal import Spilled
from millstream.model.limits import LIMITS, Limits
from millstream.store import codec, spills
from millstream.store.commits import Verdict
from millstream.store.connection import Connection
from millstream_worker.held import Held

T = TypeVar("T")
_PAUSE_S = 0.5


class Spills:
    """Keeps and recalls the values that are too large for the journals of their runs.

    A record of more than ``above`` bytes is large.
    """

    def __init__(
        self,
        connection: Connection,
        token: str,
        *,
        emit: Emit,
        above: int,
        limits: Limits = LIMITS,
    ) -> None:
        self.above = above
        self._connection = connection
        self._token = token
        self._emit = emit
        self._limits = limits

    async def keep(self, held: Held, step_key: str, value: Any) -> Spilled:
        """Return the reference to a value, once all of it stands. Raises what a record raises."""
        data = codec.encode(value, f"the result of step {step_key!r}")
        data = spills.sealed(
            self._connection.sealer, held.lane.queue, held.delivery.run_id, step_key, data
        )
        spilled = spills.reference(step_key, data)

        async def send() -> Verdict:
            return await spills.keep(
                self._connection, held.lane, self._token, held.delivery, spilled, data, self._limits
            )

        held.judge(await self._insist(send, "spill"))
        return spilled

    async def recall(self, held: Held, spilled: Spilled) -> Any:
        """Return a value that was kept. Raises `ValueLost` when it is not what was recorded."""

        async def ask() -> bytes:
            run_id = held.delivery.run_id
            return await spills.load(self._connection, held.lane, run_id, spilled)

        return codec.decode(await self._insist(ask, "load"))

    async def _insist(self, ask: Callable[[], Awaitable[T]], during: str) -> T:
        while True:
            try:
                return await ask()
            except StoreError as error:
                self._emit(StoreFailed(during=during, error=str(error)))
                await self._connection.reset()
                await anyio.sleep(_PAUSE_S)
