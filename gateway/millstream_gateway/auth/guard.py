"""Find out who sent a request, from what stands in its head.

Promise: nobody is anybody without showing it. In open mode everybody is an administrator, and then
only browsers' pages of this very machine may call: a page from elsewhere could reach the loopback
address through a browser too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp.web import BaseRequest

from millstream_gateway.auth.principals import ALL, Principal, Role
from millstream_gateway.refusals import Forbidden, Malformed, Unauthenticated

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_KEY_PREFIX = "ms_"


class Knows(Protocol):
    """Turns what somebody shows into a principal."""

    async def principal(self, shown: str) -> Principal:
        """Return who it is. Raises `Unauthenticated`."""


class Guard:
    """Asks for a token or a key. Without ``tokens`` only keys are taken."""

    def __init__(self, keyring: Knows, tokens: Knows | None = None) -> None:
        self._keyring = keyring
        self._tokens = tokens

    async def admit(self, request: BaseRequest) -> Principal:
        """Return who calls. Raises `Unauthenticated`."""
        return await self.known(credential(request.headers.getall))

    async def known(self, shown: str | None) -> Principal:
        """Return whose token or key this is. Raises `Unauthenticated`."""
        if shown is None:
            raise Unauthenticated
        if shown.startswith(_KEY_PREFIX):
            return await self._keyring.principal(shown)
        if self._tokens is None:
            raise Unauthenticated("only API keys are taken here", error="invalid_token")
        return await self._tokens.principal(shown)


class OpenGuard:
    """Lets everybody in who calls from this machine."""

    async def admit(self, request: BaseRequest) -> Principal:
        """Return the one principal there is. Raises `Forbidden` for pages from elsewhere."""
        if _name(f"//{request.headers.get('Host', '')}") not in LOOPBACK:
            raise Forbidden("an open gateway is called as localhost")
        origin = request.headers.get("Origin")
        if origin is not None and _name(origin) not in LOOPBACK:
            raise Forbidden("an open gateway is not called by pages from elsewhere")
        return await self.known("")

    async def known(self, shown: str | None) -> Principal:
        """Return the one principal there is."""
        del shown
        return Principal(name="open", tenant=ALL, grants={ALL: Role.ADMIN})


class Shows(Protocol):
    """All values of a header, under its name in any case."""

    def __call__(self, name: str, default: list[str], /) -> Sequence[str]:
        """Return the values, or the default."""


def credential(headers: Shows) -> str | None:
    """Return what a request shows; None when it shows nothing. Raises `Malformed`."""
    given = headers("Authorization", [])
    keys = headers("X-API-Key", [])
    if len(given) + len(keys) > 1:
        raise Malformed("show one token or key, not several")
    if keys:
        return keys[0].strip()
    if not given:
        return None

    scheme, _, rest = given[0].partition(" ")
    if scheme.lower() != "bearer" or not rest.strip():
        raise Unauthenticated("only the Bearer scheme is taken", error="invalid_request")
    return rest.strip()


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
