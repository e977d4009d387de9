"""Where a request may go: addresses are checked when they are resolved, and dialled as checked.

Promise: a server whose entry does not allow private addresses cannot lead us to one, whatever
its name resolves to, now or between the check and the connection. Link-local addresses, where
clouds keep their metadata, are never dialled. It does not know what is sent there.
"""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from millstream_worker.tools.faults import AddressRefused

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Networks through which an IPv6 address reaches an IPv4 one.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PinningResolver(AbstractResolver):
    """Resolves names to addresses that are allowed; the connector dials exactly these."""

    def __init__(self, *, allow_private: bool) -> None:
        self._inner = ThreadedResolver()
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host, or raise when any of them is not allowed."""
        found = await self._inner.resolve(host, port, family)
        for result in found:
            check_address(result["host"], allow_private=self._allow_private, name=host)
        return found

    async def close(self) -> None:
        """Release nothing: the inner resolver holds nothing."""
        await self._inner.close()


def check_host(host: str, *, allow_private: bool) -> None:
    """Check a host that may be an address already: aiohttp asks no resolver about those."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    check_address(host, allow_private=allow_private, name=host)


def check_address(address: str, *, allow_private: bool, name: str) -> None:
    """Raise `AddressRefused` when an address is not one that may be dialled."""
    for ip in _meanings(ipaddress.ip_address(address.partition("%")[0])):
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            raise AddressRefused(f"{name} is {ip}, which is never called")
        if not allow_private and not ip.is_global:
            raise AddressRefused(
                f'{name} is {ip}, a private address; set "millstream": {{"allowPrivate": true}}'
                " if that is meant"
            )


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
