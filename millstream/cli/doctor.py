"""``millstream doctor``: look at everything that can be wrong, and say what to do about it.

Promise: it only reads. Each finding is ok, a warning or a failure; what is not ok comes with its
remedy. The exit code is that of an unfit Redis when there is a failure, else that of success.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import typer

from millstream import __version__
from millstream.cli.access import queues_there, refuse_memory, span
from millstream.cli.exits import Exit
from millstream.cli.extras import EXTRAS, missing
from millstream.cli.flags import ClientConfig, command
from millstream.cli.hints import again
from millstream.cli.output import STYLES, Output, clean
from millstream.client import Client
from millstream.config import FILE
from millstream.errors import MillstreamError, StoreError, UnfitStore, UsageError
from millstream.model.limits import MIB
from millstream.model.run import RunState
from millstream.store import inspection, schedules
from millstream.store.connection import Connection
from millstream.store.sealing import Sealer, sealer_of

#: A round trip that takes longer than this slows every run.
_SLOW_S = 0.005
_CLOCK_S = 1.0
_FULL = 0.8
_WAITING = (RunState.SCHEDULED, RunState.QUEUED)
#: A schedule that is so late has nobody who fires it.
_LATE_S = 60.0


class Level(StrEnum):
    """How a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: Level
    detail: str
    remedy: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


@command(ClientConfig)
async def doctor(*, config: ClientConfig, out: Output) -> Exit:
    """Find out what is wrong here, and what to do about it. Changes nothing."""
    refuse_memory(config.redis)
    findings = [*_installation()]
    _tell(out, findings)
    async for finding in _redis(config):
        findings.append(finding)
        _tell(out, [finding])

    failed = any(finding.level is Level.FAILED for finding in findings)
    if out.json:
        out.document({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    return Exit.REDIS if failed else Exit.OK


def _installation() -> Iterator[Finding]:
    python = platform.python_version()
    yield Finding("millstream", Level.OK, f"{__version__} on Python {python}, {sys.platform}")
    file = Path.cwd() / FILE
    yield Finding("settings", Level.OK, f"{file} is read" if file.exists() else f"no {FILE} here")
    for extra in EXTRAS:
        absent = missing(extra)
        # Nobody needs every extra: what is missing is said, not held against anyone.
        detail = f"not installed (missing: {', '.join(absent)})" if absent else "installed"
        remedy = f"where it is wanted: pip install 'millstream[{extra}]'" if absent else ""
        yield Finding(f"extra {extra}", Level.OK, detail, remedy)


async def _redis(config: ClientConfig) -> AsyncIterator[Finding]:
    try:
        sealer = sealer_of(config.seal_keys)
    except UsageError as error:
        yield Finding("sealing", Level.FAILED, str(error), "correct --seal-keys")
        sealer = None
    else:
        yield Finding("sealing", Level.OK, _sealing(sealer))
    connection = Connection(config.redis, sealer=sealer)
    try:
        try:
            await connection.check()
            servers = await inspection.servers(connection)
        except (StoreError, UnfitStore) as error:
            yield _failure("redis", error)
            return
        for server in servers:
            at = server.node or connection.address
            yield Finding("redis", Level.OK, f"{server.name} {server.version} at {at}")
            for judge in (_latency, _memory, _persistence, _clock):
                yield _of(server, judge(server))
        try:
            yield await _schedules(connection, config)
        except MillstreamError as error:
            yield _failure("schedules", error)
    finally:
        await connection.aclose()

    async for finding in _queues(config):
        yield finding


def _sealing(sealer: Sealer | None) -> str:
    if sealer is None:
        return "off: values stand in clear"
    first, names = sealer.ring.first()[0], ", ".join(sealer.ring.names())
    return f"on, under key {first}; keys here: {names}" if first else f"ends; keys here: {names}"


def _of(server: inspection.Server, finding: Finding) -> Finding:
    """Of several servers, say which one was looked at."""
    if not server.node:
        return finding
    return replace(finding, detail=f"{finding.detail} ({server.node})")


async def _queues(config: ClientConfig) -> AsyncIterator[Finding]:
    try:
        names = sorted({*config.queue, *await queues_there(config)})
    except UsageError as error:
        yield Finding("queues", Level.WARNING, str(error), "name them with --queue")
        names = list(config.queue)

    async with Client(config.redis, patience=config.patience) as client:
        for name in names:
            try:
                yield await _queue(client, config, name)
                for finding in await _refused(client, config, name):
                    yield finding
            except MillstreamError as error:
                yield _failure(f"queue {name}", error)


async def _schedules(connection: Connection, config: ClientConfig) -> Finding:
    found = await schedules.due(connection, 1)
    first = found.schedules[0] if found.schedules else None
    late_s = 0.0
    if first is not None and first.progress.next is not None:
        late_s = found.now - first.progress.next - first.schedule.jitter
    if first is not None and late_s > _LATE_S:
        return Finding(
            "schedules",
            Level.WARNING,
            f"{first.name} should have fired {span(late_s)} ago",
            again(config, "scheduler"),
        )
    if found.next_due is None and first is None:
        return Finding("schedules", Level.OK, "none will fire")

    next_due = found.now if first is not None else found.next_due or found.now
    return Finding("schedules", Level.OK, f"the next fires in {span(next_due - found.now)}")


async def _queue(client: Client, config: ClientConfig, name: str) -> Finding:
    depth = await client.depth(name)
    agents = await client.agents(name)
    workflows = sorted({workflow for agent in agents for workflow in agent.workflows})
    subject = f"queue {name}"
    if depth.paused:
        return Finding(
            subject,
            Level.WARNING,
            f"paused; {_count(depth.waiting, 'run')} waiting",
            again(config, "queues", "resume", name),
        )
    if agents:
        served = f"{_count(len(agents), 'worker')} with {', '.join(workflows)}"
        if depth.dead:
            return Finding(
                subject,
                Level.WARNING,
                f"{served}; {_count(depth.dead, 'dead letter')}",
                again(config, "dead", "list", queue=name),
            )
        return Finding(subject, Level.OK, f"{served}; {_count(depth.waiting, 'run')} waiting")
    open_runs = depth.waiting + depth.running + depth.scheduled + depth.parked
    if open_runs:
        return Finding(
            subject,
            Level.WARNING,
            f"{_count(open_runs, 'open run')}, and no worker is alive",
            again(config, "worker", "APP", queue=name),
        )

    return Finding(subject, Level.OK, "empty, and no worker is alive")


async def _refused(client: Client, config: ClientConfig, name: str) -> list[Finding]:
    """Runs that look as if they only waited: whoever takes one hands it back."""
    page = await client.page(name, states=_WAITING, matches=lambda run: run.refusals > 0)
    if not page.runs:
        return []
    first = page.runs[0]
    more = f", and {len(page.runs) - 1} more" if len(page.runs) > 1 else ""
    remedy = f"start a worker that can, or: {again(config, 'runs', 'cancel', first.id, queue=name)}"
    detail = f"run {first.id}{more}: {first.waits_for}"
    return [Finding(f"queue {name}", Level.WARNING, detail, remedy)]


def _latency(server: inspection.Server) -> Finding:
    detail = f"{server.latency_s * 1e3:.2f} ms a round trip, {server.slowest_s * 1e3:.2f} at worst"
    if server.latency_s <= _SLOW_S:
        return Finding("latency", Level.OK, detail)

    return Finding(
        "latency", Level.WARNING, detail, "move workers nearer to Redis, or see what slows it"
    )


def _memory(server: inspection.Server) -> Finding:
    used = f"{server.used_memory / MIB:,.0f} MiB used"
    if server.evicted:
        return Finding(
            "memory",
            Level.WARNING,
            f"{used}; {server.evicted:,} keys were evicted since it started: runs may be lost",
            "keep maxmemory-policy at noeviction, and give Redis to millstream alone",
        )
    if not server.max_memory:
        return Finding(
            "memory",
            Level.WARNING,
            f"{used}, no limit is set",
            "set maxmemory, or the system ends Redis when memory runs out",
        )

    detail = f"{used} of {server.max_memory / MIB:,.0f}"
    if server.used_memory > _FULL * server.max_memory:
        return Finding("memory", Level.WARNING, detail, "raise maxmemory, or shorten --retention")

    return Finding("memory", Level.OK, detail)


def _persistence(server: inspection.Server) -> Finding:
    copies = _count(server.replicas, "replica")
    if server.write_failed:
        return Finding(
            "persistence",
            Level.WARNING,
            f"its last write to disk failed; {copies}",
            "look at the disk and the log of Redis",
        )
    if server.append_only:
        return Finding("persistence", Level.OK, f"append-only file; {copies}")

    return Finding(
        "persistence",
        Level.WARNING,
        f"no append-only file; {copies}",
        "set appendonly yes, or a restart of Redis forgets runs",
    )


def _clock(server: inspection.Server) -> Finding:
    ahead = server.clock_ahead_s
    detail = f"{abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} that of Redis"
    if abs(ahead) <= _CLOCK_S:
        return Finding("clock", Level.OK, detail)

    return Finding(
        "clock",
        Level.WARNING,
        detail,
        "synchronise the clocks; leases go by that of Redis, but logs and journals do not",
    )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _failure(subject: str, error: MillstreamError) -> Finding:
    if isinstance(error, UnfitStore):
        return Finding(subject, Level.FAILED, error.reason, error.remedy)

    return Finding(subject, Level.FAILED, str(error), "start Redis, or correct --redis")


def _tell(out: Output, findings: Sequence[Finding]) -> None:
    if out.json:
        return
    if not out.drawn:
        for finding in findings:
            out.plain(f"{finding.level:<8} {finding.subject:<16} {clean(finding.detail)}")
            if finding.remedy:
                out.plain(f"{'':<25} -> {clean(finding.remedy)}")
        return

    from rich.text import Text

    console = out.console()
    for finding in findings:
        line = Text()
        line.append(f"{finding.level:<8}", style=STYLES[finding.level])
        line.append(f" {finding.subject:<16} ", style="bold")
        line.append(clean(finding.detail))
        console.print(line, soft_wrap=True)
        if finding.remedy:
            console.print(Text(f"{'':<25} → {clean(finding.remedy)}", style="dim"), soft_wrap=True)
