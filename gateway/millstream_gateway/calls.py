"""One request as a handler gets it: known, allowed, read and checked.

Reading is bounded in bytes and in time, and happens after the caller is known: who may not ask
makes nobody read.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import anyio
import msgspec
from aiohttp import hdrs
from aiohttp.web import BaseRequest

from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.refusals import (
    Forbidden,
    Malformed,
    NotFound,
    NotUnderstood,
    TooLarge,
    TooSlow,
)


class Ambiguous(Malformed):
    """Two servers could read the request differently, so nobody reads on."""

    closes = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered as JSON."""

    value: Any
    status: int = 200
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler is given. ``query`` and ``body`` have the types that the route names."""

    request: BaseRequest
    principal: Principal
    needs: Role
    served: Sequence[str]
    path: Mapping[str, str]
    query: Any
    body: Any = None

    def queue(self, name: str | None) -> str:
        """Return the queue that is meant, once it is clear that the caller may act in it.

        Every queue of a request goes through here: that is what makes roles hold.
        """
        return allowed_queue(self.principal, self.needs, self.served, name)

    def header(self, name: str) -> str | None:
        """Return a header that may stand there once."""
        found = self.request.headers.getall(name, [])
        if len(found) > 1:
            raise Malformed(f"header {name} stands there {len(found)} times")
        return found[0] if found else None


def allowed_queue(
    principal: Principal, needs: Role, served: Sequence[str], name: str | None
) -> str:
    """Return the queue that is meant; None is the first. Raises `Forbidden` or `NotFound`."""
    queue = served[0] if name is None else name
    if not principal.may(needs, queue):
        raise Forbidden(f"you have not the role {needs.name.lower()} in queue {queue!r}")
    if queue not in served:
        raise NotFound(f"this gateway does not serve queue {queue!r}")
    return queue


def check_head(request: BaseRequest) -> None:
    """Raise `Ambiguous` for a head that a proxy before us may have read in another way."""
    headers = request.headers
    if len(headers.getall(hdrs.HOST, [])) != 1 and request.version >= (1, 1):
        raise Ambiguous("a request has one Host header")
    lengths = headers.getall(hdrs.CONTENT_LENGTH, [])
    if len(lengths) > 1 or (lengths and hdrs.TRANSFER_ENCODING in headers):
        raise Ambiguous("the length of the body is said in more than one way")


async def read_body(request: BaseRequest, most: int, seconds: float, *media_types: str) -> bytes:
    """Return the body of a request. Raises `TooLarge`, `TooSlow` or `NotUnderstood`."""
    taken = media_types or ("application/json",)
    if request.content_type not in taken:
        raise NotUnderstood(f"send this: Content-Type: {taken[0]}")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise NotUnderstood("send the body without Content-Encoding")
    if (request.content_length or 0) > most:
        raise TooLarge(f"a body has at most {most:,} bytes")

    await _expected(request)
    if request.content.is_eof():
        # It came with its head, as small ones do: there is nothing to wait for.
        whole = request.content.read_nowait()
        if len(whole) > most:
            raise TooLarge(f"a body has at most {most:,} bytes")
        return whole
    parts = bytearray()
    try:
        with anyio.fail_after(seconds):
            while chunk := await request.content.readany():
                parts += chunk
                if len(parts) > most:
                    raise TooLarge(f"a body has at most {most:,} bytes")
    except TimeoutError:
        raise TooSlow(f"the body did not arrive within {seconds:g} s") from None
    return bytes(parts)


async def _expected(request: BaseRequest) -> None:
    """Ask for a body that is held back until somebody wants it."""
    expects = request.headers.get(hdrs.EXPECT)
    if expects is None:
        return
    if expects.lower() != "100-continue":
        raise Malformed("nothing but 100-continue can be expected")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # It is no answer yet: an error may still be told.
    request.writer.output_size = 0


def decoded(data: bytes, wanted: Any) -> Any:
    """Return a body as the type that is wanted. Raises `Malformed`."""
    try:
        return msgspec.json.decode(data, type=wanted)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
        raise Malformed(f"the body is not as described: {error}") from error


def filled_in(data: bytes) -> dict[str, list[str]]:
    """Return the fields of a form. Raises `Malformed`."""
    try:
        return parse_qs(
            data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000
        )
    except ValueError as error:
        raise Malformed("the form cannot be read") from error


def queried(request: BaseRequest, wanted: type[msgspec.Struct], *, drop_blank: bool = False) -> Any:
    """Return the query of a request as the type that is wanted. Raises `Malformed`.

    ``drop_blank``: a field that was left empty was not filled in.
    """
    values: dict[str, Any] = {}
    query = request.query if request.query_string else {}
    several = _several(wanted) if query else frozenset[str]()
    for name in query:
        found = request.query.getall(name)
        if drop_blank and not any(found):
            continue
        if name not in several and len(found) > 1:
            raise Malformed(f"{name} stands in the query {len(found)} times")
        values[name] = found if name in several else found[0]
    try:
        asked = msgspec.convert(values, wanted, strict=False)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Malformed(f"the query is not as described: {error}") from error

    for name in values:
        # Converted from the text "null", as if nothing had been said: there is no null in a query.
        if getattr(asked, name, ...) is None:
            raise Malformed(f"the query is not as described: {name} is null")
    return asked


@functools.cache
def _several(wanted: type[msgspec.Struct]) -> frozenset[str]:
    """Return the parameters that may be given more than once."""
    fields = msgspec.structs.fields(wanted)
    return frozenset(each.name for each in fields if typing.get_origin(each.type) is list)
