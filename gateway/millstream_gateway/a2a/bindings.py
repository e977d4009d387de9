"""What both HTTP bindings need: who calls, in which version of the protocol, and what was sent."""

from __future__ import annotations

from a2a.server.context import ServerCallContext
from a2a.utils.constants import PROTOCOL_VERSION_0_3, PROTOCOL_VERSION_1_0, VERSION_HEADER
from a2a.utils.errors import VersionNotSupportedError

from millstream_gateway.a2a.callers import Caller, context_of
from millstream_gateway.calls import Call
from millstream_gateway.waits import until_gone


def context_of_call(call: Call) -> ServerCallContext:
    """Return the context of a request over HTTP."""
    request = call.request
    return context_of(
        Caller(
            principal=call.principal,
            served=call.served,
            origin=request.remote or "",
            base=base_of(call),
            gone=lambda: until_gone(request),
        )
    )


def base_of(call: Call) -> str:
    """Return the address under which a caller has reached us, as far as we can see it."""
    return f"{call.request.scheme}://{call.request.headers.get('Host', 'localhost')}"


def check_version(said: str | None) -> None:
    """Raise `VersionNotSupportedError` for another version than ours; none at all is 0.3."""
    version = said or PROTOCOL_VERSION_0_3
    if version.split(".")[:2] != PROTOCOL_VERSION_1_0.split(".")[:2]:
        raise VersionNotSupportedError(
            f"version {version[:20]!r} is not spoken here; send this header: {VERSION_HEADER}:"
            f" {PROTOCOL_VERSION_1_0}"
        )


def check_version_of(call: Call) -> None:
    """Raise `VersionNotSupportedError` for a request in another version than ours."""
    check_version(call.header(VERSION_HEADER) or call.request.query.get(VERSION_HEADER))
