"""Where notifications may be sent: an address comes from a caller, and is not to be trusted.

Promise: https alone and public addresses alone, unless the operator allows others; only hosts that
are listed, where a list is given; no redirect is followed; and what a name resolves to is checked
at the very moment it is dialled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

import aiohttp
from a2a.utils.errors import InvalidParamsError

from millstream import egress

_LONGEST = 2_000
CONNECT_S = 5.0
#: As the protocol recommends.
ANSWER_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """What the operator allows."""

    #: Patterns of hosts, such as ``*.example.com``; none: every host.
    hosts: Sequence[str] = ()
    #: Whether plain http and private addresses are allowed.
    private: bool = False

    def check(self, url: str) -> None:
        """Raise `InvalidParamsError` for an address that nothing will be sent to."""
        reason = self.reason_against(url)
        if reason is not None:
            raise InvalidParamsError(f"the notification url {reason}")

    def reason_against(self, url: str) -> str | None:
        """Return what is wrong with an address, as the end of a sentence; None when nothing is."""
        parts = _parts(url)
        if parts is None:
            return "is none"
        host = (parts.hostname or "").lower()
        if parts.scheme != "https" and not (self.private and parts.scheme == "http"):
            return "must begin with https://"
        if parts.username is not None or parts.password is not None:
            return "must not hold a user or password; use authentication"
        if self.hosts and not any(fnmatchcase(host, pattern.lower()) for pattern in self.hosts):
            return f"leads to {host}, which is not on the list of this gateway"
        if egress.is_address(host):
            return egress.reason_against(host, allow_private=self.private)
        return None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open a client that dials nothing else."""
        connector = aiohttp.TCPConnector(
            limit=0, resolver=egress.PinningResolver(self._check_address), ttl_dns_cache=None
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S),
            auto_decompress=False,
            trust_env=False,
        ) as http:
            yield http

    def _check_address(self, address: str, name: str) -> None:
        reason = egress.reason_against(address, allow_private=self.private)
        if reason is not None:
            raise egress.AddressRefused(f"{name} {reason}")


def _parts(url: str) -> SplitResult | None:
    """Return the parts of an address; None for what is none."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return parts if has_host and len(url) <= _LONGEST and url.isprintable() else None
