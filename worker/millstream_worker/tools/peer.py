"""One server as its worker knows it: who may call it now, with what, and what came of it.

Promise: one attempt inside one absolute deadline. A server that is down costs its callers a
moment, not their time. What the server surely did not execute is mended once, in place. It
judges no fault, and knows neither workflows nor retries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from millstream.events import CircuitMoved, Emit, ToolCatalogueChanged
from millstream.model.elicitation import InputNeeded
from millstream.model.tool import ToolResult
from millstream_worker.tools.breaker import Breaker, Circuit, Pass
from millstream_worker.tools.call import Call
from millstream_worker.tools.catalogue import Catalogue
from millstream_worker.tools.credentials import Redactor
from millstream_worker.tools.faults import (
    CircuitOpen,
    Fault,
    RpcError,
    SessionGone,
    Unsent,
)
from millstream_worker.tools.gates import Gate, Gates
from millstream_worker.tools.judge import answered, before_sending, counts
from millstream_worker.tools.listing import list_tools
from millstream_worker.tools.policy import HEADER_MISMATCH, UNSUPPORTED_VERSION
from millstream_worker.tools.sending import send_call
from millstream_worker.tools.servers import ServerSpec
from millstream_worker.tools.session import Session
from millstream_worker.tools.sessions import Sessions

T = TypeVar("T")


class Peer:
    """One server."""

    def __init__(
        self,
        spec: ServerSpec,
        *,
        owners: TaskGroup,
        worker_gate: Gate,
        emit: Emit,
        now: Callable[[], float],
    ) -> None:
        self.spec = spec
        self.redactor = Redactor(spec.transport.sealed)
        #: What the server said last, fresh or not.
        self.known: Catalogue | None = None
        self._fresh_until = 0.0
        self._listing = anyio.Lock()
        self._gates = Gates(server=spec.max_connections, worker=worker_gate)
        self._breaker = Breaker(now=now)
        self._emit = emit
        self._now = now
        self._sessions = Sessions(
            spec,
            self.redactor,
            owners=owners,
            now=now,
            on_lost=lambda: self._moved(self._breaker.failed()),
            on_tools_changed=self._stale,
        )

    @property
    def away(self) -> bool:
        """Whether it is known not to answer."""
        return self._breaker.state is not Circuit.CLOSED

    async def catalogue(self, run_id: str, deadline: float) -> Catalogue:
        """Return the tools of the server, asked for not too long ago."""
        if self.known is not None and self._now() < self._fresh_until:
            return self.known

        with anyio.CancelScope(deadline=deadline) as scope:
            async with self._listing:
                if self.known is None or self._now() >= self._fresh_until:
                    await self._through_circuit(run_id, deadline)
                    if self._now() >= self._fresh_until:
                        await self._list(run_id, deadline)
        if scope.cancelled_caught or self.known is None:
            raise Unsent("the list of its tools was not there in time")
        return self.known

    async def call(self, call: Call) -> ToolResult | InputNeeded:
        """Send a call once, and return what the tool answered, or asks before it does."""
        self._refuse_if_open()
        async with self._gates.passed(call.deadline):
            if self.away:
                await self._through_circuit(call.run_id, call.deadline)
            try:
                return await self._send(call)
            except RpcError as error:
                if error.code == UNSUPPORTED_VERSION:
                    self._sessions.forget_era()
                if error.code != HEADER_MISMATCH:
                    raise
                # The headers are made from the listing, which has changed since.
                await self._list(call.run_id, call.deadline)
            return await self._send(call)

    def release_run(self, run_id: str) -> None:
        """End the session that belongs to a run."""
        self._sessions.release_run(run_id)

    async def aclose(self) -> None:
        """End every session."""
        await self._sessions.aclose()

    # -- one exchange --------------------------------------------------------------------------

    async def _send(self, call: Call) -> ToolResult | InputNeeded:
        return await self._exchange(call.run_id, call.deadline, partial(send_call, call=call))

    async def _list(self, run_id: str, deadline: float) -> None:
        try:
            found, holds_s = await self._exchange(
                run_id, deadline, lambda session: list_tools(session.client)
            )
        except Fault as fault:
            raise before_sending(fault) from None

        before, self.known = self.known, found
        self._fresh_until = self._now() + holds_s
        if before is not None and before.digest != found.digest:
            self._emit(
                ToolCatalogueChanged(
                    server=self.spec.name, before=before.digest, after=found.digest
                )
            )

    async def _exchange(
        self, run_id: str, deadline: float, send: Callable[[Session], Awaitable[T]]
    ) -> T:
        session = await self._sessions.get(run_id, deadline)
        try:
            return await self._reported(send(session))
        except SessionGone:
            # It has executed nothing: a new session may ask again, once.
            self._sessions.drop(session)
        session = await self._sessions.get(run_id, deadline)
        return await self._reported(send(session))

    def _stale(self) -> None:
        self._fresh_until = 0.0

    # -- the breaker ---------------------------------------------------------------------------

    def _refuse_if_open(self) -> None:
        """Refuse at once what would first wait at the gate and then be refused."""
        if self._breaker.state is Circuit.OPEN and self._breaker.wait_s > 0:
            raise self._refusal()

    async def _through_circuit(self, run_id: str, deadline: float) -> None:
        verdict, moved = self._breaker.ask()
        self._moved(moved)
        if verdict is Pass.REFUSED:
            raise self._refusal()
        if verdict is Pass.PROBE:
            # Listing its tools harms nobody, as the call that waits here might.
            try:
                await self._list(run_id, deadline)
            finally:
                self._moved(self._breaker.abandoned())

    def _refusal(self) -> CircuitOpen:
        wait_s = self._breaker.wait_s or 1.0
        return CircuitOpen(
            f"it failed too often; it is asked again in {wait_s:.1f} s", retry_after=wait_s
        )

    async def _reported(self, sent: Awaitable[T]) -> T:
        try:
            answer = await sent
        except Fault as fault:
            if answered(fault):
                self._answered()
            elif counts(fault):
                self._moved(self._breaker.failed())
            raise
        self._answered()
        return answer

    def _answered(self) -> None:
        self._sessions.answered()
        self._moved(self._breaker.answered())

    def _moved(self, to: Circuit | None) -> None:
        if to is not None:
            self._emit(CircuitMoved(server=self.spec.name, state=to))
