"""Hands the store over from one Redis to its replica, so that the two are never both written.

In good order the old master stops writing, waits until the replica has every byte, and becomes a
replica itself: nothing is lost, and it refuses writes from then on. When it is lost, the replica is
promoted and nobody is let in before the old one refuses by itself, as one does that has
`min-replicas-to-write` and has lost its replica. It does not know who serves what: workers of both
sides find out by their own connections.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from millstream.errors import StoreError, StoreUnavailable, UsageError
from millstream.store.addresses import StoreKind
from millstream.store.connection import Connection

_POLL_S = 0.05
#: What both servers may take to change their roles once the replica has everything.
_SWITCH_S = 10.0
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A replica, as its master sees it."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a server says of its part in the replication."""

    master: bool
    port: int
    #: The history that it follows; a replica has that of its master.
    history: str
    offset: int
    #: Whether a replica hears its master.
    linked: bool
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """How it went."""

    #: How long nobody could write, as seen from here.
    seconds: float
    #: Bytes of the replication that the new master lacks; None when the old one cannot be asked.
    lost_bytes: int | None


async def standing(connection: Connection) -> Standing:
    """Ask a server. Raises `StoreError`, or `UnfitStore` when that is not permitted."""
    if connection.address.kind is not StoreKind.SINGLE:
        raise UsageError(
            f"{connection.address} is no single server: sentinels and clusters fail over by"
            " themselves; give the addresses of two masters of two regions"
        )
    with connection.translated():
        found = await connection.client.info("replication")
        server = await connection.client.info("server")
    return Standing(
        master=found["role"] == "master",
        port=int(server["tcp_port"]),
        history=str(found["master_replid"]),
        offset=int(found.get("slave_repl_offset", found["master_repl_offset"])),
        linked=found.get("master_link_status") == "up",
        copies=tuple(_copies(found)),
    )


async def hand_over(old: Connection, new: Connection, *, patience_s: float) -> Handover:
    """Exchange the roles of a master and its replica. Nothing that was acknowledged is lost.

    Raises `UsageError` when they are no such pair, and `StoreError` when the replica does not get
    every byte within ``patience_s``: then nothing has changed.
    """
    before, then = await standing(old), await standing(new)
    copy = _pair(old, before, new, then)
    began = time.monotonic()
    with old.translated():
        await old.client.execute_command(
            "FAILOVER", "TO", copy.host, copy.port, "TIMEOUT", int(patience_s * 1000)
        )
    deadline = began + patience_s + _SWITCH_S
    while time.monotonic() < deadline:
        # The old one first: it is fenced before the new one is believed.
        now = await _asked(old)
        if now is not None and not now.master and (await standing(new)).master:
            return Handover(seconds=time.monotonic() - began, lost_bytes=0)
        if now is not None and now.master and not await _under_way(old):
            raise StoreError(
                f"{new.address} did not get every byte within {patience_s:g} s, and nothing has"
                " changed; see its link, or give --timeout more"
            )
        await anyio.sleep(_POLL_S)

    raise StoreError(f"{old.address} and {new.address} did not change their roles; see both logs")


async def take_over(
    old: Connection | None, new: Connection, *, fence_s: float, sleep: Sleep = anyio.sleep
) -> Handover:
    """Promote the replica of a master that is lost, and return when nobody writes there any more.

    Raises `UsageError` while the old one answers as a master: then it can be handed over in good
    order. One that answers as a replica writes for nobody: a region that lost its volume, or two
    that are new.
    """
    then = await standing(new)
    if then.master:
        raise UsageError(f"{new.address} is a master already")
    before = None if old is None else await _asked(old)
    if then.linked or (before is not None and before.master):
        raise UsageError(
            "the old master answers: hand over in good order, without --lost; or cut it off first"
        )
    if before is None:
        await _alone(new)
    began = time.monotonic()
    with new.translated():
        await new.client.execute_command("REPLICAOF", "NO", "ONE")
    # From here on the old one hears of no replica; it goes on writing for so long at most.
    await sleep(fence_s)
    return Handover(seconds=time.monotonic() - began, lost_bytes=None)


async def _alone(connection: Connection) -> None:
    """Let a master write that has no replica: the setting that fences the old one holds here, too.

    Before the promotion, so that nothing has changed when it is not permitted.
    """
    with connection.translated():
        if "min_slaves_good_slaves" in await connection.client.info("replication"):
            await connection.client.config_set("min-replicas-to-write", 0)


def _pair(old: Connection, before: Standing, new: Connection, then: Standing) -> Copy:
    """Return how the master calls the replica, or say why they are no pair."""
    if not before.master:
        raise UsageError(f"{old.address} is no master; give the address of the one that writes now")
    if then.master or then.history != before.history or not then.linked:
        raise UsageError(
            f"{new.address} is no replica of {old.address} that hears it; REPLICAOF first, and wait"
            " until INFO replication says master_link_status:up"
        )
    found = [copy for copy in before.copies if copy.port == then.port]
    named = [copy for copy in found if copy.host == new.address.hosts[0][0]]
    if len(found) != 1 and len(named) != 1:
        raise UsageError(
            f"{old.address} has {len(found)} replicas on port {then.port}, and none is called"
            f" {new.address.hosts[0][0]}; give the address that INFO replication shows"
        )
    return (named or found)[0]


def _copies(info: Mapping[str, Any]) -> list[Copy]:
    found = [info[f"slave{n}"] for n in range(int(info.get("connected_slaves", 0)))]
    return [Copy(host=each["ip"], port=int(each["port"])) for each in found]


async def _asked(connection: Connection) -> Standing | None:
    try:
        return await standing(connection)
    except StoreUnavailable:
        return None


async def _under_way(connection: Connection) -> bool:
    with connection.translated():
        found = await connection.client.info("replication")
    return str(found.get("master_failover_state", "no-failover")) != "no-failover"
