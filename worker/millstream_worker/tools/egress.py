"""Where a tool call may go: addresses are checked when they are resolved, and dialled as checked.

Promise: a server whose entry does not allow private addresses cannot lead us to one, whatever
its name resolves to, now or between the check and the connection. It does not know what is sent
there, nor how an address is judged (`millstream.egress`).
"""

from __future__ import annotations

from millstream import egress
from millstream_worker.tools.faults import AddressRefused


def resolver(*, allow_private: bool) -> egress.PinningResolver:
    """Return a resolver of addresses that are allowed."""

    def check(address: str, name: str) -> None:
        check_address(address, allow_private=allow_private, name=name)

    return egress.PinningResolver(check)


def check_host(host: str, *, allow_private: bool) -> None:
    """Check a host that may be an address already: aiohttp asks no resolver about those."""
    if egress.is_address(host):
        check_address(host, allow_private=allow_private, name=host)


def check_address(address: str, *, allow_private: bool, name: str) -> None:
    """Raise `AddressRefused` when an address is not one that may be dialled."""
    reason = egress.reason_against(address, allow_private=allow_private)
    if reason is None:
        return
    allowable = egress.reason_against(address, allow_private=True) is None
    hint = '; set "millstream": {"allowPrivate": true} if that is meant' if allowable else ""
    raise AddressRefused(f"{name} {reason}{hint}")
