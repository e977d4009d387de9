"""The gRPC binding, on a port of its own: the SDK's own handler, behind the gateway's guard.

Promise: nobody gets in here whom HTTP would not let in, with the same keys and tokens (as
metadata), the same roles, tenants and allowances. Calls are bounded in number, messages in size.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import grpc
import grpc.aio
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.grpc_handler import GrpcServerCallContextBuilder
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types import a2a_pb2_grpc
from a2a.utils.constants import VERSION_HEADER
from a2a.utils.errors import VersionNotSupportedError

from millstream.certificates import Certificates
from millstream.errors import ConfigError, MillstreamError, StoreError, said
from millstream.events import Emit, RequestServed
from millstream_gateway.a2a.bindings import check_version
from millstream_gateway.a2a.callers import Caller, context_of
from millstream_gateway.a2a.grpc_tls import credentials
from millstream_gateway.a2a.statuses import GrpcErrors
from millstream_gateway.auth.guard import credential
from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.auth.rates import Rates
from millstream_gateway.refusals import Forbidden, Refused

_CALLER: ContextVar[Caller] = ContextVar("millstream_caller")
_CODES: Mapping[HTTPStatus, grpc.StatusCode] = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
#: A connection over TLS is verified once, and so is replaced after a while; its calls go on.
_AGE_MS = 600_000
_AWAY = "the store does not answer just now; ask again"


class Knows(Protocol):
    """Turns what somebody shows into a principal."""

    async def known(self, shown: str | None) -> Principal:
        """Return who it is. Raises `Refused`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcBounds:
    """What this port takes."""

    calls: int
    message: int
    grace_s: float


class _Contexts(GrpcServerCallContextBuilder):
    """Gives the SDK's handler the caller that was found out before."""

    def build(self, context: grpc.aio.ServicerContext[Any, Any]) -> ServerCallContext:
        """Return the context of a call."""
        del context
        return context_of(_CALLER.get())


class GrpcPort:
    """Serves an agent over gRPC."""

    def __init__(
        self,
        agent: RequestHandler,
        guard: Knows,
        rates: Rates,
        served: Sequence[str],
        bounds: GrpcBounds,
        *,
        host: str,
        port: int,
        tls: Certificates | None = None,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._handler = GrpcErrors(agent, _Contexts())
        self._guard = guard
        self._rates = rates
        self._served = tuple(served)
        self._bounds = bounds
        self._address = f"[{host}]" if ":" in host else host
        self._asked = port
        self._tls = tls
        self._emit = emit
        self._mono = mono
        #: The port, once it listens.
        self.port: int | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serve for this block. On the way out nothing new is taken; the rest gets the grace."""
        server = grpc.aio.server(
            interceptors=[_Door(self.entered)],
            maximum_concurrent_rpcs=self._bounds.calls,
            options=[
                ("grpc.max_receive_message_length", self._bounds.message),
                # Two gateways on one port would each get some of the calls, unasked.
                ("grpc.so_reuseport", 0),
                *([] if self._tls is None else [("grpc.max_connection_age_ms", _AGE_MS)]),
            ],
        )
        a2a_pb2_grpc.add_A2AServiceServicer_to_server(self._handler, server)  # type: ignore[no-untyped-call]  # generated
        where = f"{self._address}:{self._asked}"
        try:
            if self._tls is None:
                self.port = server.add_insecure_port(where)
            else:
                self.port = server.add_secure_port(where, credentials(self._tls))
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {where}: {error}; choose another port with"
                " --grpc (0 picks a free one, -1 none)"
            ) from error
        await server.start()
        try:
            yield
        finally:
            await server.stop(self._bounds.grace_s)

    @asynccontextmanager
    async def entered(self, method: str, context: Any) -> AsyncIterator[None]:
        """Let a caller in for this block, and tell of it. Aborts the call for what goes wrong."""
        began = self._mono()
        actor, error = "nobody", None
        try:
            caller = await self._admitted(context)
            actor = caller.principal.name
            _CALLER.set(caller)
            yield
        except MillstreamError as refused:
            code, told = _told(refused)
            await context.abort(code, told)
        except VersionNotSupportedError as other:
            await self._handler.abort_context(other, context)
        except grpc.aio.AbortError:
            raise
        except Exception as unforeseen:  # noqa: BLE001 - whatever it is, the call gets an answer
            # It is told without its text, which may hold anything and belongs in the log.
            error = f"{type(unforeseen).__name__}: {said(unforeseen)}"
            await context.abort(grpc.StatusCode.INTERNAL, "this should not happen; see the log")
        finally:
            self._emit(
                RequestServed(
                    method="GRPC",
                    endpoint=method,
                    status=_status(context),
                    took_s=self._mono() - began,
                    streamed=method.endswith(_STREAMS),
                    actor=actor,
                    error=error,
                )
            )

    async def _admitted(self, context: Any) -> Caller:
        found: dict[str, list[str]] = {}
        for name, value in context.invocation_metadata() or ():
            if isinstance(value, str):
                found.setdefault(name.lower(), []).append(value)

        def all_of(name: str, default: list[str], /) -> Sequence[str]:
            return found.get(name.lower(), default)

        principal = await self._guard.known(credential(all_of))
        self._rates.take(principal.name)
        if not principal.may_somewhere(Role.VIEWER):
            raise Forbidden("you have not the role viewer")
        # The service itself is that of version 1; a call that names another one is a mistake.
        for version in found.get(VERSION_HEADER.lower(), ()):
            check_version(version)
        authority = found.get(":authority", ["localhost"])[0]
        return Caller(
            principal=principal,
            served=self._served,
            origin=context.peer(),
            base=f"{'http' if self._tls is None else 'https'}://{authority}",
        )


_STREAMS = ("SendStreamingMessage", "SubscribeToTask")
_Entered = Callable[[str, Any], Any]


class _Door(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """Puts every method behind the guard."""

    def __init__(self, entered: _Entered) -> None:
        self._entered = entered

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Return the method, guarded; None when there is none of the name."""
        method = await continuation(handler_call_details)
        if method is None:
            return None
        name = handler_call_details.method
        wrapped = _streaming if method.response_streaming else _unary
        inner = method.unary_stream if method.response_streaming else method.unary_unary
        make = (
            grpc.unary_stream_rpc_method_handler
            if method.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(
            wrapped(self._entered, name, inner),
            request_deserializer=method.request_deserializer,
            response_serializer=method.response_serializer,
        )


def _unary(entered: _Entered, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> Any:
        async with entered(name, context):
            return await inner(request, context)

    return answer


def _streaming(entered: _Entered, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
        async with entered(name, context):
            async for each in inner(request, context):
                yield each

    return answer


def _told(error: MillstreamError) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, Refused):
        return _CODES.get(error.status, grpc.StatusCode.INTERNAL), said(error)
    if isinstance(error, StoreError):
        # What the store says of itself (addresses, settings) is not for callers.
        return grpc.StatusCode.UNAVAILABLE, _AWAY
    return grpc.StatusCode.INTERNAL, "this should not happen; see the log"


def _status(context: Any) -> int:
    """Return how a call ended, in the words of HTTP: one label for both."""
    code = context.code()
    if code in {None, 0, grpc.StatusCode.OK}:
        return 200
    return next((int(status) for status, each in _CODES.items() if each == code), 500)
