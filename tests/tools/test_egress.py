"""Addresses: private ones only where allowed, metadata never, and what is checked is dialled."""

from __future__ import annotations

import socket

import aiohttp
import pytest
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from millstream.errors import ToolNotSent, ToolRejected
from millstream_worker.tools.egress import check_address, check_host
from millstream_worker.tools.faults import AddressRefused
from millstream_worker.tools.sockets import open_http
from tests.tools.bench import benched
from tests.tools.fault_http import FaultHttp

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::",
]
NEVER = ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254", "::"]
PUBLIC = ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_refused_unless_allowed(address: str) -> None:
    """Also where it hides inside an IPv6 address."""
    with pytest.raises(AddressRefused, match="allowPrivate"):
        check_address(address, allow_private=False, name="n")
    check_address(address, allow_private=True, name="n")


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_dialled(address: str) -> None:
    """A cloud's credentials are one request away from there."""
    for allow_private in (False, True):
        with pytest.raises(AddressRefused):
            check_address(address, allow_private=allow_private, name="n")


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_dialled(address: str) -> None:
    check_address(address, allow_private=False, name="n")
    check_host("example.org", allow_private=False)


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name resolve to these addresses, and note which names were asked for."""
    asked: list[str] = []

    async def resolve(
        _: ThreadedResolver, host: str, port: int = 0, family: int = 0
    ) -> list[ResolveResult]:
        asked.append(host)
        if not addresses:
            raise OSError("no such host")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    return asked


async def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its addresses is enough: the next attempt might dial that one."""
    resolving(monkeypatch, "93.184.216.34", "10.0.0.7")
    async with benched({"s": {"url": "https://mcp.example.org/mcp"}}) as bench:
        with pytest.raises(ToolRejected, match=r"mcp\.example\.org is 10\.0\.0\.7, a private"):
            await bench.prepare("s", "echo")
    assert bench.statuses == ["rejected"]


async def test_a_private_address_in_the_url_is_refused() -> None:
    """No resolver is asked about an address."""
    async with benched({"s": {"url": "https://10.0.0.7/mcp"}}) as bench:
        with pytest.raises(ToolRejected, match="a private address"):
            await bench.prepare("s", "echo")


async def test_a_name_that_does_not_resolve_means_never_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name may be back in a minute."""
    resolving(monkeypatch)
    async with benched({"s": {"url": "https://mcp.example.org/mcp"}}) as bench:
        with pytest.raises(ToolNotSent):
            await bench.prepare("s", "echo")


async def test_the_address_that_was_checked_is_the_one_that_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second look at the name could give another answer: there is none."""
    asked = resolving(monkeypatch, "127.0.0.1")
    async with FaultHttp().serve() as server, open_http(allow_private=True) as http:
        url = f"http://mcp.example.org:{server.port}/mcp"
        async with http.get(url, timeout=aiohttp.ClientTimeout(5)) as response:
            assert response.status == 405

    assert asked == ["mcp.example.org"]
    assert server.headers[-1]["host"].startswith("mcp.example.org")
