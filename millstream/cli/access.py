"""The way of a command to Redis: a client for a moment, and the queue a run is looked for in."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from millstream import __version__
from millstream.cli.flags import ClientConfig, EnqueueConfig
from millstream.client import Client, Run
from millstream.client.tracing import TracesEnqueue
from millstream.errors import ConfigError, UnknownRun
from millstream.model.run import RunState, RunStatus
from millstream.store import inspection
from millstream.store.addresses import StoreKind, parse_address
from millstream.store.connection import Connection
from millstream.telemetry.opening import open_tracing


@asynccontextmanager
async def client_of(
    config: ClientConfig, *, tracing: TracesEnqueue | None = None
) -> AsyncIterator[Client]:
    """Open a client for the time of a command."""
    refuse_memory(config.redis)
    async with Client(
        config.redis,
        patience=config.patience,
        tracing=tracing,
        actor=config.actor or user(),
        seal_keys=config.seal_keys,
    ) as client:
        yield client


@asynccontextmanager
async def tracing_of(config: EnqueueConfig) -> AsyncIterator[TracesEnqueue | None]:
    """Open the tracing of a command; a collector that is away is no reason to fail."""
    tracing = open_tracing(config.otlp_endpoint, "millstream-cli", __version__, lambda _: None)
    try:
        yield tracing
    finally:
        if tracing is not None:
            tracing.close()


def user() -> str:
    """Return who calls, for the audit trail."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a numbered user in a container has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def refuse_memory(redis: str) -> None:
    """Raise `ConfigError` when the store would end with this command."""
    if parse_address(redis).kind is StoreKind.MEMORY:
        raise ConfigError(
            f"{redis} lives inside one process, so another cannot reach it; start"
            " `millstream dev APP` and give the address that it prints as --redis"
        )


def one_queue(config: ClientConfig) -> str:
    """Return the queue, where only one can be meant."""
    queues = tuple(dict.fromkeys(config.queue))
    if len(queues) != 1:
        raise ConfigError(f"several queues are set ({', '.join(queues)}); say which with --queue")

    return queues[0]


async def located(client: Client, config: ClientConfig, run_id: str) -> tuple[Run, RunStatus]:
    """Return a run and its status from the first of the queues that has it."""
    queues = tuple(dict.fromkeys(config.queue))
    for queue in queues:
        run = client.run(run_id, queue)
        try:
            return run, await run.status()
        except UnknownRun:
            continue

    raise UnknownRun(run_id, ", ".join(queues))


async def queues_there(config: ClientConfig) -> Sequence[str]:
    """Return the names of the queues that Redis holds something of."""
    connection = Connection(config.redis)
    try:
        return await inspection.queues(connection)
    finally:
        await connection.aclose()


def waits_for(status: RunStatus) -> str | None:
    """Return what a run waits for, and until when, or when it is tried again."""
    if status.waits_for is None or status.times.due is None:
        return status.waits_for
    if status.state is RunState.PARKED:
        return f"{status.waits_for}, until {clock(status.times.due)}"

    return f"{status.waits_for}, next try in {span(max(0.0, status.times.due - time.time()))}"


def ago(epoch_s: float | None) -> str:
    """Return how long ago something was, in one unit, as kubectl says it."""
    return "-" if epoch_s is None else span(max(0.0, time.time() - epoch_s))


def clock(epoch_s: float) -> str:
    """Return a time as people here read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s))


def span(seconds: float) -> str:
    """Return a length of time in a unit that fits it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f}{unit}"

    return f"{seconds / 86_400:.0f}d"
