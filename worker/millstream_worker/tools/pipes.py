"""The stdio transport: a server as a child process, through the SDK's `stdio_client`.

Promise: a server that dies, hangs or stops reading costs its own calls and nothing else, and no
call waits longer than its time; no process is left behind, also when the worker is killed (see
`guard`). It does not know when a server is started again.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

import anyio
from anyio.abc import TaskGroup, TaskStatus
from mcp import MCPError, StdioServerParameters
from mcp.client._transport import TransportStreams  # it has no public name
from mcp.client.stdio import get_default_environment, stdio_client
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from millstream_worker.tools.credentials import Redactor
from millstream_worker.tools.faults import (
    Cut,
    Fault,
    ProcessEnded,
    ProcessGone,
    RpcError,
    TooLarge,
    Unsent,
)
from millstream_worker.tools.guard import OVERSIZE
from millstream_worker.tools.messages import plain, settle
from millstream_worker.tools.servers import ServerSpec, Stdio
from millstream_worker.tools.sockets import reason_of

_GUARD = Path(__file__).with_name("guard.py")

#: How much of what a server wrote to its standard error is kept for messages.
_LAST_WORDS = 2048


@asynccontextmanager
async def open_pipes(
    spec: ServerSpec, stdio: Stdio, redactor: Redactor
) -> AsyncIterator[PipeDispatcher]:
    """Start the server's process; end it, and all it started, on the way out."""
    env = {name: redactor.reveal(value) for name, value in stdio.env.items()}
    command = _find(stdio, get_default_environment() | env)
    parameters = StdioServerParameters(
        command=sys.executable,
        args=[
            *("-I", "-S", str(_GUARD), str(spec.max_answer), str(os.getpid()), command),
            *(redactor.reveal(argument) for argument in stdio.args),
        ],
        env=env,
        cwd=stdio.cwd,
    )
    async with _errors() as (errors, sink), _spawned(parameters, sink) as (read, write):
        # Only the server holds its standard error now, so that its end is seen.
        sink.close()
        lost = anyio.Event()
        inner = JSONRPCDispatcher(_Watched(read, lost), write)
        yield PipeDispatcher(inner, lost, errors, limit=spec.max_answer)


class PipeDispatcher:
    """A `Dispatcher` of the SDK whose requests run beside their callers.

    The SDK's own one lets a caller wait for a server that does not read its input, and holds a
    cancelled caller while it says so to the server. Here the caller leaves on time; the rest
    happens in the group of the session.
    """

    def __init__(
        self,
        inner: JSONRPCDispatcher[Any],
        lost: anyio.Event,
        errors: _LastWords,
        *,
        limit: int,
    ) -> None:
        self._inner = inner
        self._limit = limit
        self._errors = errors
        self._group: TaskGroup | None = None
        #: Set when the server has closed its output, which is how a process says that it ended.
        self.lost = lost

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Read what the server writes until it ends or the session is left."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                await self._inner.run(
                    on_request, on_notify, on_notify_intercept, task_status=task_status
                )
            finally:
                self._group = None
                self.lost.set()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Send a request and return its result, or raise the `Fault` that ended it."""
        # The SDK's own clock would start only when the server has read the request.
        inner: CallOptions = {**(opts or {})}
        timeout = inner.pop("timeout", None)
        if self._group is None or self.lost.is_set():
            raise ProcessGone(self._ended())

        # What cannot be written is found out here, and not in the group that all calls share.
        params = plain(params)
        exchange = _Exchange()
        self._group.start_soon(self._perform, exchange, method, params, inner)
        try:
            with anyio.fail_after(timeout):
                await exchange.done.wait()
        except TimeoutError:
            raise Cut("no answer within its time", timed_out=True) from None
        finally:
            exchange.scope.cancel()

        if exchange.fault is not None:
            raise exchange.fault
        version = inner.get("headers", {}).get("mcp-protocol-version")
        modern = version in MODERN_PROTOCOL_VERSIONS
        return settle({"result": exchange.result}, modern=modern)

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        """Send a notification."""
        await self._inner.notify(method, params, opts)

    async def _perform(
        self,
        exchange: _Exchange,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions,
    ) -> None:
        exchange.fault = ProcessEnded(self._ended())
        try:
            with exchange.scope:
                exchange.result = await self._inner.send_raw_request(method, params, opts)
                exchange.fault = None
        except MCPError as error:
            exchange.fault = self._reading_of(error)
        finally:
            if exchange.fault is not None and self.lost.is_set():
                exchange.fault = ProcessEnded(self._ended())
            exchange.done.set()

    def _reading_of(self, error: MCPError) -> Fault:
        if error.code == OVERSIZE:
            return TooLarge(self._limit)
        return RpcError(error.code, error.message, error.data)

    def _ended(self) -> str:
        words = self._errors.text()
        return f"its process ended{f'; its last words: {words}' if words else ''}"


@dataclass(slots=True)
class _Exchange:
    """One request under way, and what came of it."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    result: dict[str, Any] | None = None
    fault: Fault | None = None


class _Incoming(Protocol):
    async def receive(self) -> SessionMessage | Exception: ...
    async def aclose(self) -> None: ...


class _Watched:
    """The SDK's stream of incoming messages, which tells us when it ends."""

    def __init__(self, inner: _Incoming, lost: anyio.Event) -> None:
        self._inner = inner
        self._lost = lost

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await self._inner.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            # Before the SDK fails the calls in flight: they can then say why.
            self._lost.set()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _LastWords:
    """The end of what a server wrote to its standard error, for messages."""

    def __init__(self, source: int) -> None:
        self._source = source
        self._kept = b""

    async def listen_forever(self) -> None:
        """Read on, so that the server never blocks on a full pipe."""
        while True:
            await anyio.wait_readable(self._source)
            chunk = os.read(self._source, _LAST_WORDS)
            if not chunk:
                await anyio.sleep_forever()
            self._kept = (self._kept + chunk)[-_LAST_WORDS:]

    def text(self) -> str:
        """Return the last line that says something."""
        lines = self._kept.decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


@asynccontextmanager
async def _spawned(
    parameters: StdioServerParameters, sink: TextIO
) -> AsyncIterator[TransportStreams]:
    async with AsyncExitStack() as stack:
        try:
            streams = await stack.enter_async_context(stdio_client(parameters, sink))
        except (OSError, ValueError) as error:
            raise Unsent(f"its program cannot be started ({reason_of(error)})") from error
        yield streams


@asynccontextmanager
async def _errors() -> AsyncIterator[tuple[_LastWords, TextIO]]:
    source, sink = os.pipe()
    os.set_blocking(source, False)
    words = _LastWords(source)
    try:
        with os.fdopen(sink, "w") as file:
            async with anyio.create_task_group() as group:
                group.start_soon(words.listen_forever)
                yield words, file
                group.cancel_scope.cancel()
    finally:
        os.close(source)


def _find(stdio: Stdio, env: Mapping[str, str]) -> str:
    wanted = stdio.command
    if "/" in wanted:
        # A path is relative to where the program will run, as a shell there would read it.
        wanted = str(Path(stdio.cwd or ".", wanted).absolute())
    found = shutil.which(wanted, path=env.get("PATH"))
    if found is None:
        raise Unsent(f"its program {stdio.command!r} is not found; install it, or correct the path")
    return found
