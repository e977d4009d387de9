"""Who is alive: leases are renewed here, and lanes are looked after by whoever is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoScriptError

from millstream.model.limits import LIMITS, Limits
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.scripts import Argument, call, script


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The answer to a renewal."""

    now: float
    #: There was no lease, or it had run out: others may have taken what this process held.
    lapsed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What looking after a lane found and did."""

    now: float
    #: Runs of the process that asked which somebody wants cancelled, or has sent messages to.
    cancelled: tuple[str, ...]
    addressed: tuple[str, ...]
    promoted: int
    reclaimed: int
    poisoned: int
    #: When the next scheduled or parked run goes on, by the clock of Redis; None: no such run.
    next_due: float | None
    #: Of the lane: when it grows the queue may have more lanes to serve.
    epoch: int = 0
    #: Whether something stands in the lane's outbox.
    posted: bool = False
    #: Whether workers take nothing new from the queue.
    paused: bool = False
    #: The versions that are on trial, see `trials.read_lines`; None: there never were any.
    trials: bytes | None = None


def renew_blocking(
    connection: Connection, client: Any, lanes: Sequence[Lane], token: str, lease_s: float
) -> Renewal:
    """Renew in every lane, from a thread, over that thread's own client. Raises `StoreError`."""
    now, lapsed = 0, 0
    with connection.translated():
        for lane in lanes:
            rest = script("renew").arguments(lane, [token, round(lease_s * 1000)])
            try:
                reply = client.execute_command("EVALSHA", script("renew").sha, *rest)
            except NoScriptError:
                reply = client.execute_command("EVAL", script("renew").body, *rest)
            now, lapsed = reply[0], lapsed | reply[1]

    return Renewal(now=now / 1000, lapsed=bool(lapsed))


async def renew(
    connection: Connection, lanes: Sequence[Lane], token: str, lease_s: float
) -> Renewal:
    """Renew in every lane, from the event loop. Raises `StoreError`."""
    now, lapsed = 0, 0
    with connection.translated():
        for lane in lanes:
            reply = await call(connection.scripts, "renew", lane, [token, round(lease_s * 1000)])
            now, lapsed = reply[0], lapsed | reply[1]

    return Renewal(now=now / 1000, lapsed=bool(lapsed))


async def sweep(
    connection: Connection,
    lane: Lane,
    token: str,
    *,
    interval_s: float,
    lease_s: float,
    retention_s: float,
    poison: int,
    limits: Limits = LIMITS,
) -> Sweep:
    """Promote what is due and requeue what dead workers held. Raises `StoreError`.

    After a restart or a promotion nothing is reclaimed for one lease. The script knows by what the
    server says of itself; where it says nothing, by the very call that teaches it the script.
    Hence this script must never be loaded in another way.
    """
    args: list[Argument] = [
        token, _ms(interval_s), _ms(lease_s), _ms(retention_s), poison, limits.dead_letters,
    ]  # fmt: skip
    found = script("sweep")
    with connection.translated():
        try:
            reply = await connection.scripts.execute_command(
                "EVALSHA", found.sha, *found.arguments(lane, [*args, 0])
            )
        except NoScriptError:
            reply = await connection.scripts.execute_command(
                "EVAL", found.body, *found.arguments(lane, [*args, 1])
            )

    now, cancelled, promoted, reclaimed, poisoned, next_due, epoch = reply[:7]
    addressed, posted, paused, *trials = reply[7:]
    return Sweep(
        now=now / 1000,
        cancelled=tuple(run_id.decode() for run_id in cancelled),
        addressed=tuple(run_id.decode() for run_id in addressed),
        promoted=promoted,
        reclaimed=reclaimed,
        poisoned=poisoned,
        next_due=next_due / 1000 if next_due else None,
        epoch=epoch,
        posted=posted > 0,
        paused=bool(paused),
        trials=trials[0] if trials else None,
    )


async def resign(connection: Connection, lane: Lane, token: str) -> None:
    """Give up a lease at once: what the process still holds may be taken by the next sweep."""
    with connection.translated():
        await connection.client.zadd(lane.leases, {token: 1}, xx=True)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


async def reclaim_at_once(connection: Connection, lane: Lane) -> None:
    """Have the next sweep take from the dead what they held, though the server may just have begun.

    For a store that nobody else uses: others would not have said yet that they live.
    """
    with connection.translated():
        await connection.client.hset(lane.meta, "hold", "0")
