"""How a run reaches a worker: the streams of a lane, read as a consumer group."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import redis.exceptions as refused

from millstream.model.run import Delivery
from millstream.store.connection import Connection
from millstream.store.keys import CANARY, GROUP, LEVELS, SUSPECT, Lane
from millstream.store.scripts import Argument, call

#: What a run that nobody has held before has of its past.
_NO_PAST = (0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Stray:
    """A delivery that is pending for a process which does not know of it."""

    level: str
    entry: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the store says a process holds, compared with what the process said."""

    lost: frozenset[str]
    #: Runs that somebody asked to cancel, and those that somebody has sent messages to.
    cancelled: frozenset[str]
    addressed: frozenset[str]
    strays: tuple[Stray, ...]


async def ensure_groups(connection: Connection, lane: Lane) -> None:
    """Make the streams and their group.

    The group starts at 0: what came before the first worker counts too.
    """
    with connection.translated():
        for level in LEVELS:
            try:
                await connection.client.execute_command(
                    "XGROUP", "CREATE", lane.stream(level), GROUP, "0", "MKSTREAM"
                )
            except refused.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise


def blocking_read(
    lane: Lane, token: str, block_s: float, suspect: bool, canary: bool
) -> tuple[tuple[Any, ...], Mapping[bytes, str]]:
    """Return the command that waits for deliveries, and which level a stream of its reply is.

    At most one a level comes, none that is suspected of killing its workers unless ``suspect``, and
    none of a version on trial unless ``canary``. Each must be adopted, or handed back.
    """
    level_of, asked = _asked(lane, suspect, canary)
    block_ms = max(1, round(block_s * 1000))
    head = ("XREADGROUP", "GROUP", GROUP, token, "COUNT", 1, "BLOCK", block_ms, "STREAMS")
    return (*head, *asked), level_of


async def delivered(
    connection: Connection, reply: Any, level_of: Mapping[bytes, str]
) -> list[Stray]:
    """Return what the reply to a blocking read has brought."""
    found = [
        Stray(level_of[stream], entry[0].decode())
        for stream, entries in _streams(reply)
        for entry in entries
    ]
    if not found and connection.in_memory:
        # The in-memory server may answer at once, with nothing: that must not become a hot loop.
        await anyio.sleep(0.001)

    return found


@functools.lru_cache(maxsize=1024)
def _asked(lane: Lane, suspect: bool, canary: bool) -> tuple[dict[bytes, str], tuple[str, ...]]:
    """Return which level a stream of a lane is, and what is read of them."""
    wanted = {SUSPECT: suspect, CANARY: canary}
    level_of = {lane.stream(x): x for x in LEVELS if wanted.get(x, True)}
    names = {stream.encode(): level for stream, level in level_of.items()}
    return names, (*level_of, *[">"] * len(level_of))


async def holdings(
    connection: Connection, lane: Lane, token: str, held: Sequence[Delivery]
) -> Holdings:
    """Compare what a process holds with what the store says. Raises `StoreError`."""
    args: list[Argument] = [token]
    for delivery in held:
        args += (delivery.run_id, delivery.fence)

    with connection.translated():
        lost, strays, cancelled, addressed = await call(connection.scripts, "holdings", lane, args)

    return Holdings(
        lost=frozenset(run_id.decode() for run_id in lost),
        cancelled=frozenset(run_id.decode() for run_id in cancelled),
        addressed=frozenset(run_id.decode() for run_id in addressed),
        strays=tuple(Stray(level.decode(), entry.decode()) for level, entry in strays),
    )


def delivery_from(row: Sequence[Any]) -> Delivery:
    """Return the delivery that a script described."""
    (
        run_id, fence, level, entry, attempt, workflow, version, arguments,
        enqueued, timeout, tenant, *past
    ) = row  # fmt: skip
    base, crashes, ran, refusals, records, received, generation, *trace = past or _NO_PAST
    # In the order of its fields: naming all of them for every delivery costs as much as the rest.
    return Delivery(
        run_id.decode(),
        fence,
        level.decode(),
        entry.decode(),
        workflow.decode(),
        version.decode() if version else None,
        arguments,
        int(attempt) if attempt else 1,
        int(base),
        int(crashes),
        int(ran) / 1000,
        int(timeout) / 1000 if timeout else None,
        tenant.decode() if tenant else None,
        int(enqueued) / 1000,
        records,
        int(refusals),
        bool(received),
        int(generation),
        trace[0].decode() if trace else None,
    )


def _streams(reply: Any) -> list[tuple[bytes, list[Any]]]:
    if not reply:
        return []
    if isinstance(reply, dict):
        return [(name, entries[0] if entries else []) for name, entries in reply.items()]

    return [(name, entries) for name, entries in reply]


async def end_reads(connection: Connection, lane: Lane) -> None:
    """Have a blocking read of a dead worker end: in memory it outlives the connection.

    It would take what is meant for the living. What it is given is the id of no run.
    """
    with connection.translated():
        await connection.client.xadd(lane.stream("low"), {"id": "-"})
