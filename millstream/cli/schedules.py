"""``millstream schedules``: workflows that are run again and again, and what comes next."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from millstream.cli import planned
from millstream.cli.access import client_of, one_queue
from millstream.cli.enqueue import (
    File,
    Json,
    Level,
    Pairs,
    Tenant,
    Timeout,
    Version,
    read_arguments,
)
from millstream.cli.exits import Exit
from millstream.cli.expected import expect_a_worker
from millstream.cli.extras import part_of
from millstream.cli.failures import tell
from millstream.cli.flags import ONE_QUEUE, ClientConfig, command
from millstream.cli.groups import Group
from millstream.cli.output import Listing, Output
from millstream.cli.watching import Interval, Watch, watched
from millstream.cli.worker import App
from millstream.client import Client
from millstream.errors import UsageError
from millstream.model.limits import LIMITS
from millstream.model.run import Priority
from millstream.model.schedule import CatchUp, Overlap, Schedule

Word = TypeVar("Word", bound=StrEnum)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of schedules.")]
Cron = Annotated[
    str | None,
    typer.Option(metavar="LINE", help="Five fields, or six with seconds first, or @daily."),
]
Every = Annotated[float | None, typer.Option(metavar="SECONDS", help="Run at this interval.")]
Zone = Annotated[str, typer.Option(metavar="NAME", help="Zone in which the line is read.")]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Not before, such as 2026-12-24.")]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Not after.")]
Jitter = Annotated[float, typer.Option(metavar="SECONDS", help="Start up to so much later.")]
OnOverlap = Annotated[
    str,
    typer.Option(
        metavar="skip|queue|cancel|allow", help="What a time does while the last run goes on."
    ),
]
OnMissed = Annotated[
    str, typer.Option(metavar="skip|last|all", help="What becomes of times that were missed.")
]
Most = Annotated[int, typer.Option(metavar="N", help="With --catch-up all: how many at most.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=Group, help="Run workflows at the times of a cron line, or at an interval."
    )
    group.command("list")(list_schedules)
    group.command("create")(create)
    group.command("apply")(apply)
    group.command("show")(show)
    group.command("pause")(pause)
    group.command("resume")(resume)
    group.command("trigger")(trigger)
    group.command("delete")(delete)
    app.add_typer(group, name="schedules")


@command(ClientConfig, without=("queue",))
async def list_schedules(
    *,
    config: ClientConfig,
    out: Output,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", metavar="N", min=1, max=LIMITS.schedules, help="At most."),
    ] = 100,
    after: Annotated[
        str, typer.Option(metavar="NAME", help="Begin behind this name: the next page.")
    ] = "",
    watch: Watch = False,
    interval: Interval = 2.0,
) -> None:
    """List schedules by name, with the time that comes next."""
    async with client_of(config) as client:

        async def look() -> Listing:
            found = await client.schedules.list(after=after, limit=limit)
            return planned.listing(found, time.time())

        await watched(out, look, watch, interval)


@command(ClientConfig, said=ONE_QUEUE)
async def create(
    *,
    config: ClientConfig,
    out: Output,
    name: Name,
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.")],
    cron: Cron = None,
    every: Every = None,
    timezone: Zone = "UTC",
    start: Start = None,
    end: End = None,
    jitter: Jitter = 0.0,
    overlap: OnOverlap = "skip",
    catch_up: OnMissed = "last",
    catch_up_limit: Most = 100,
    arg: Pairs = None,
    json_args: Json = None,
    file: File = None,
    priority: Level = "normal",
    tenant: Tenant = None,
    timeout: Timeout = None,
    version: Version = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not fire before resumed.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Make it although no worker knows the workflow.")
    ] = False,
) -> None:
    """Make a schedule; the same one again changes nothing."""
    schedule = Schedule(
        name,
        workflow,
        read_arguments(arg or (), json_args, file),
        cron=cron,
        every=every,
        timezone=timezone,
        start=_time("--start", start),
        end=_time("--end", end),
        jitter=jitter,
        overlap=_word("--overlap", Overlap, overlap),
        catch_up=_word("--catch-up", CatchUp, catch_up),
        catch_up_limit=catch_up_limit,
        queue=one_queue(config),
        priority=_word("--priority", Priority, priority),
        tenant=tenant,
        timeout=timeout,
        version=version,
    )
    async with client_of(config) as client:
        remark = None if force else await expect_a_worker(client, config, workflow, version)
        found = await client.schedules.create(schedule, paused=paused)

    if remark is not None:
        out.note(remark)
    if out.json:
        out.document(planned.document(found))
    else:
        out.say(f"{name} {planned.outlook(found, time.time())}")


@command(ClientConfig, without=("queue",))
async def apply(*, config: ClientConfig, out: Output, app: App) -> None:
    """Make the schedules of an application, and change those that say something else by now."""
    workflows = part_of("worker", "millstream_worker.loader").load(app, Path.cwd())
    async with client_of(config) as client:
        applied = await client.schedules.apply(workflows.schedules)

    if out.json:
        changes = [{"change": str(change), **planned.document(x)} for x, change in applied]
        out.document({"schedules": changes})
        return
    for status, change in applied:
        out.say(f"{status.name} {change}")
    if not applied:
        out.note("the application has no schedules; it gets one with app.schedule(...)")


@command(ClientConfig, without=("queue",))
async def show(*, config: ClientConfig, out: Output, name: Name) -> None:
    """Show one schedule: what it runs, when it fires next, and how it has gone."""
    async with client_of(config) as client:
        found = await client.schedules.get(name)

    if out.json:
        out.document(planned.document(found))
        return
    for label, value in planned.facts(found):
        out.plain(f"{label:<10} {value}")


@command(ClientConfig, without=("queue",))
async def pause(*, config: ClientConfig, out: Output, names: Names) -> Exit:
    """Let schedules fire no more until they are resumed. What runs goes on."""

    async def one(client: Client, name: str) -> str:
        await client.schedules.pause(name)
        return "paused"

    return await _each(config, out, names, one)


@command(ClientConfig, without=("queue",))
async def resume(*, config: ClientConfig, out: Output, names: Names) -> Exit:
    """Let paused schedules fire again, from their next times on: nothing is caught up."""

    async def one(client: Client, name: str) -> str:
        return planned.outlook(await client.schedules.resume(name), time.time())

    return await _each(config, out, names, one)


@command(ClientConfig, without=("queue",))
async def trigger(
    *,
    config: ClientConfig,
    out: Output,
    name: Name,
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Id of the run: its idempotency key.")
    ] = None,
) -> None:
    """Start a run of a schedule now, paused or not; print its id."""
    async with client_of(config) as client:
        run = await client.schedules.trigger(name, id=id)

    if out.json:
        out.document({"id": run.id, "queue": run.queue, "created": run.created})
    else:
        out.say(run.id)


@command(ClientConfig, without=("queue",))
async def delete(*, config: ClientConfig, out: Output, names: Names) -> Exit:
    """Delete schedules. Their runs go on."""

    async def one(client: Client, name: str) -> str:
        await client.schedules.delete(name)
        return "deleted"

    return await _each(config, out, names, one)


async def _each(
    config: ClientConfig,
    out: Output,
    names: Sequence[str],
    one: Callable[[Client, str], Awaitable[str]],
) -> Exit:
    """Do something to each schedule; one that cannot be helped does not keep the others from it."""
    done: list[str] = []
    worst = Exit.OK
    async with client_of(config) as client:
        for name in dict.fromkeys(names):
            try:
                said = await one(client, name)
            except UsageError as error:
                worst = Exit(tell(error)) if worst is Exit.OK else worst
            else:
                done.append(name)
                out.say(f"{name} {said}")
    if out.json:
        out.document({"schedules": done})

    return worst


def _time(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{flag} {text!r} is no time; write it as 2026-12-24T18:00 or 2026-12-24T18:00+01:00"
        ) from None


def _word(flag: str, kind: type[Word], word: str) -> Word:
    try:
        return kind(word)
    except ValueError:
        raise UsageError(f"{flag} {word!r} is not one of {', '.join(kind)}") from None
