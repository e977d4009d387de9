"""Where a request may go that somebody else's text leads to: checked when a name is resolved.

Promise: what is dialled is what was checked, so a name cannot lead elsewhere between the two;
link-local addresses, where clouds keep their metadata, are never dialled; private ones only where
that was allowed. It knows neither what is sent nor who allows what.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Raises for an address, given with the name that led to it.
Check = Callable[[str, str], None]

#: Networks through which an IPv6 address reaches an IPv4 one.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """A name led to an address that may not be dialled."""


class PinningResolver(AbstractResolver):
    """Resolves names to addresses that pass a check; the connector dials exactly these."""

    def __init__(self, check: Check) -> None:
        self._inner = ThreadedResolver()
        self._check = check

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host, or raise when any of them is not allowed."""
        found = await self._inner.resolve(host, port, family)
        for result in found:
            self._check(result["host"], host)
        return found

    async def close(self) -> None:
        """Release nothing: the inner resolver holds nothing."""
        await self._inner.close()


def is_address(host: str) -> bool:
    """Whether a host is an address already: aiohttp asks no resolver about those."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def reason_against(address: str, *, allow_private: bool) -> str | None:
    """Return why an address may not be dialled, as the end of a sentence; None when it may."""
    for ip in _meanings(ipaddress.ip_address(address.partition("%")[0])):
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            return f"is {ip}, which is never called"
        if not allow_private and not ip.is_global:
            return f"is {ip}, a private address"
    return None


def _meanings(ip: IPAddress) -> list[IPAddress]:
    """Return every address that an address may end up at."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]

    inner: list[ipaddress.IPv4Address | None] = [ip.ipv4_mapped, ip.sixtofour]
    if ip.teredo is not None:
        inner.append(ip.teredo[1])
    if ip in _NAT64:
        inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    wrapped: list[IPAddress] = [other for other in inner if other is not None]
    # An IPv4-mapped address is that IPv4 address; Python 3.11 calls all of them private.
    return wrapped if ip.ipv4_mapped is not None else [ip, *wrapped]
