"""One session with a server: the SDK's `ClientSession`, and the task that owns it.

Promise: one task enters and leaves the session and its transport, so that no scope is left in
another task and no failure of a server reaches the group that all servers share. The era is
found out once; whoever opens the next session hands it in. It does not know tools or runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import anyio
from mcp import ClientSession
from mcp.client import IncomingMessage
from mcp_types import (
    ClientCapabilities,
    DiscoverResult,
    ElicitationCapability,
    FormElicitationCapability,
    Implementation,
    ToolListChangedNotification,
    UnsupportedProtocolVersionErrorData,
    UrlElicitationCapability,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from millstream import __version__
from millstream_worker.tools.faults import Cut, Fault, Refused, RpcError, Unfit, Unsent
from millstream_worker.tools.judge import speaks_against
from millstream_worker.tools.pipes import PipeDispatcher
from millstream_worker.tools.policy import UNSUPPORTED_VERSION
from millstream_worker.tools.sockets import reason_of
from millstream_worker.tools.web import WebDispatcher

Line = PipeDispatcher | WebDispatcher
OpensLine = Callable[[], AbstractAsyncContextManager[Line]]


@dataclass(frozen=True, slots=True)
class Era:
    """How a server is spoken to. Without a discovery: by handshake, as until 2025."""

    discovered: DiscoverResult | None = None


class Session:
    """A session that is being opened, is open, or is over."""

    def __init__(
        self,
        opens: OpensLine,
        *,
        era: Era | None,
        connect_s: float,
        run_id: str,
        on_tools_changed: Callable[[], None],
    ) -> None:
        self._opens = opens
        self._connect_s = connect_s
        self._on_tools_changed = on_tools_changed
        self._ready = anyio.Event()
        self._stop = anyio.Event()
        self._fault: Fault | None = None
        self._line: Line | None = None
        self._client: ClientSession | None = None
        self.era = era
        #: The run for which it was opened; the only one that uses it if it has a state.
        self.run_id = run_id
        #: Whether the server remembers something of it between two calls.
        self.stateful = False
        self.ended = anyio.Event()

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.ended.is_set() or self._stop.is_set() or self._broke_off()

    @property
    def lost(self) -> bool:
        """Whether its end speaks against the server: it broke off, or could not be reached."""
        if self._stop.is_set():
            return False
        if self.ended.is_set():
            return self._fault is None or speaks_against(self._fault)
        return self._broke_off()

    def _broke_off(self) -> bool:
        return isinstance(self._line, PipeDispatcher) and self._line.lost.is_set()

    def stop(self) -> None:
        """Tell the owner to leave. What is under way is cut."""
        self._stop.set()

    @property
    def is_ready(self) -> bool:
        """Whether it was opened. Nobody has to wait, or is told anything, before it ends."""
        return self._client is not None

    @property
    def client(self) -> ClientSession:
        """The SDK's session, once this one is open."""
        assert self._client is not None
        return self._client

    @property
    def line(self) -> Line:
        """What carries its messages, once this one is open."""
        assert self._line is not None
        return self._line

    async def opened(self, deadline: float) -> None:
        """Return once it is open, or raise the `Fault` that prevented it."""
        if not self._ready.is_set():
            with anyio.CancelScope(deadline=deadline) as scope:
                await self._ready.wait()
            if scope.cancelled_caught:
                raise Unsent("its session was not ready in time")
        if self._client is None:
            raise self._fault or Unsent("its session ended before it was ready")

    async def own(self) -> None:
        """Open the session, hold it open, leave it. One task runs this from end to end."""
        try:
            async with self._opens() as self._line:
                await self._hold(self._line)
        except Exception as error:  # noqa: BLE001  whoever waits for the session raises it
            self._fault = _fault_of(error)
        finally:
            self.ended.set()
            self._ready.set()

    async def _hold(self, line: Line) -> None:
        client = _Client(
            dispatcher=line,
            client_info=Implementation(name="millstream", version=__version__),
            message_handler=self._on_message,
            read_timeout_seconds=self._connect_s,
        )
        async with client:
            with anyio.fail_after(self._connect_s):
                self.era = await _negotiate(
                    client, self.era, patient=isinstance(line, PipeDispatcher)
                )
            self.stateful = isinstance(line, WebDispatcher) and line.session_id is not None
            self._client = client
            self._ready.set()
            await self._until_over(line)

    async def _until_over(self, line: Line) -> None:
        async with anyio.create_task_group() as group:

            async def end_with(event: anyio.Event) -> None:
                await event.wait()
                group.cancel_scope.cancel()

            group.start_soon(end_with, self._stop)
            if isinstance(line, PipeDispatcher):
                group.start_soon(end_with, line.lost)

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._on_tools_changed()


class _Client(ClientSession):
    """Says that questions to a person are welcome, where they end a call.

    Until 2025-11-25 a server asks while the call is under way: nobody could answer before its
    time is over, and a worker that goes down meanwhile would lose the question.
    """

    def _build_capabilities(self, version: str) -> ClientCapabilities:
        can = super()._build_capabilities(version)
        if version in MODERN_PROTOCOL_VERSIONS:
            can.elicitation = ElicitationCapability(
                form=FormElicitationCapability(), url=UrlElicitationCapability()
            )
        return can


async def _negotiate(client: ClientSession, era: Era | None, *, patient: bool) -> Era:
    """Find out which era the server speaks, or take it as known."""
    if era is not None and era.discovered is not None:
        client.adopt(era.discovered)
        return era
    if era is not None:
        await client.initialize()
        return era

    found = await _discover(client, MODERN_PROTOCOL_VERSIONS[-1], patient=patient)
    if isinstance(found, str):
        found = await _discover(client, found, patient=patient)
    if isinstance(found, DiscoverResult):
        client.adopt(found)
        return Era(found)

    try:
        await client.initialize()
    except RpcError as error:
        # It started slowly, and has understood the discovery after all: ask in its own words.
        newest = _offered(error)
        found = await _discover(client, newest, patient=patient) if newest else None
        if not isinstance(found, DiscoverResult):
            raise
        client.adopt(found)
        return Era(found)

    return Era()


async def _discover(
    client: ClientSession, offer: str, *, patient: bool
) -> DiscoverResult | str | None:
    """Return what the server says of itself, a version to ask again with, or None: older era."""
    try:
        result = DiscoverResult.model_validate(await client.send_discover(offer))
    except ValidationError:
        return None
    except RpcError as error:
        newest = _offered(error)
        if newest is None:
            raise
        return newest or None
    except Refused as refused:
        # What an older server says to a method it does not know; never what a dying one says.
        if refused.status not in {400, 404, 405, 406, 415, 422, 500, 501}:
            raise
        return None
    except Cut as cut:
        # A program of the older era may leave a request that it does not know unanswered.
        if not (patient and cut.timed_out):
            raise
        return None

    modern = any(known in result.supported_versions for known in MODERN_PROTOCOL_VERSIONS)
    return result if modern else None


def _offered(error: RpcError) -> str | None:
    """Return the newest version both speak; an empty one for the older era; None for neither."""
    if error.code != UNSUPPORTED_VERSION:
        return ""
    try:
        offered = UnsupportedProtocolVersionErrorData.model_validate(error.data).supported
    except ValidationError:
        return ""
    modern = [known for known in MODERN_PROTOCOL_VERSIONS if known in offered]
    if modern:
        return modern[-1]
    return "" if any(known in HANDSHAKE_PROTOCOL_VERSIONS for known in offered) else None


def _fault_of(error: Exception) -> Fault:
    """Return why a session could not be opened or held, from whatever wrapping it comes in."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    match error:
        case Fault():
            return error
        case TimeoutError():
            return Unsent("it did not open a session in time")
        case RuntimeError():
            # The SDK's word for a version it does not know.
            return Unfit(reason_of(error))
        case _:
            return Unsent(reason_of(error))
