"""``millstream queues``: what queues hold and who serves them; pause and limit them; lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from millstream.cli.access import client_of, queues_there, span
from millstream.cli.flags import ClientConfig, Given, command
from millstream.cli.groups import Group
from millstream.cli.output import Listing, Output, Row
from millstream.cli.runs import wants_wide
from millstream.cli.watching import Interval, Watch, watched
from millstream.client import Client
from millstream.errors import UsageError

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of queues.")]

_COLUMNS = (
    "QUEUE",
    "WAITING",
    "RUNNING",
    "SCHEDULED",
    "PARKED",
    "DEAD",
    "OLDEST",
    "WORKERS",
    "STATE",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=Group,
        help="Show what queues hold and who serves them; OLDEST is the longest wait of a run.",
        invoke_without_command=True,
    )
    group.callback()(queues)
    group.command("lanes")(lanes)
    group.command("limit")(limit)
    group.command("pause")(pause)
    group.command("resume")(resume)
    app.add_typer(group, name="queues")


@command(ClientConfig)
async def queues(
    *,
    context: typer.Context,
    given: Given,
    out: Output,
    all: Annotated[
        bool, typer.Option("--all", "-A", help="Every queue that Redis holds something of.")
    ] = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="wide", help="More columns.")
    ] = None,
    watch: Watch = False,
    interval: Interval = 2.0,
) -> None:
    """Show what queues hold and who serves them. OLDEST is the longest that a run has waited."""
    if context.invoked_subcommand is not None:
        if given.flags or out.json:
            raise UsageError(f"flags of `queues {context.invoked_subcommand}` go behind that word")
        return

    config = given.resolved(ClientConfig)
    wide = wants_wide(output)
    async with client_of(config) as client:

        async def look() -> Listing:
            names = await queues_there(config) if all else tuple(dict.fromkeys(config.queue))
            columns = (*_COLUMNS, "SLOTS", "WORKFLOWS") if wide else _COLUMNS
            rows = [await _row(client, name, columns) for name in names]
            return Listing("queues", columns, rows)

        await watched(out, look, watch, interval)


@command(ClientConfig, without=("queue",))
async def lanes(
    *,
    config: ClientConfig,
    out: Output,
    queue: Annotated[str, typer.Argument(metavar="NAME", help="Name of the queue.")],
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", help="Give the queue so many lanes."),
    ] = None,
) -> None:
    """Show how many lanes a queue has, or give it another number of them.

    Lanes spread a queue over the masters of a cluster. Workers begin to serve new lanes within a
    second; runs stay where they were accepted. One that was cut off is simply said again.
    """
    async with client_of(config) as client:
        await client.check()
        if count is None:
            found = await client.layout(queue)
        else:
            found = await client.resize(queue, lanes=count)

    if out.json:
        out.document({"queue": queue, **asdict(found)})
    else:
        had = f", had {', '.join(map(str, found.past))} before" if found.past else ""
        out.say(f"queue {queue} has {found.lanes} lane{'s' * (found.lanes != 1)}{had}")


@command(ClientConfig, without=("queue",))
async def limit(
    *,
    config: ClientConfig,
    out: Output,
    queue: Annotated[str, typer.Argument(metavar="NAME", help="Name of the queue.")],
    depth: Annotated[
        int | None,
        typer.Option("--depth", metavar="N", help="Accept no more while N runs wait; 0: no limit."),
    ] = None,
) -> None:
    """Show how many runs may wait in a queue, or set it: at the limit it accepts no more.

    What nobody has begun counts: queued and scheduled runs. Those that are there stay.
    """
    async with client_of(config) as client:
        await client.check()
        if depth is not None:
            await client.limit_depth(queue, depth=depth or None)
        layout = await client.layout(queue)

    most = layout.depth_limit
    if out.json:
        out.document({"queue": queue, "depth_limit": most or None, "lanes": layout.lanes})
    else:
        out.say(
            f"queue {queue} " + (f"accepts up to {most} waiting runs" if most else "has no limit")
        )


@command(ClientConfig, without=("queue",))
async def pause(*, config: ClientConfig, out: Output, queues: Names) -> None:
    """Have workers take nothing new from queues. What they hold goes on; runs are accepted."""
    async with client_of(config) as client:
        for queue in dict.fromkeys(queues):
            new = await client.pause(queue)
            out.say(f"queue {queue} is paused" + ("" if new else ", as it was before"))
    if out.json:
        out.document({"paused": list(dict.fromkeys(queues))})


@command(ClientConfig, without=("queue",))
async def resume(*, config: ClientConfig, out: Output, queues: Names) -> None:
    """Let paused queues go on."""
    async with client_of(config) as client:
        for queue in dict.fromkeys(queues):
            was = await client.resume(queue)
            out.say(f"queue {queue} goes on" if was else f"queue {queue} was not paused")
    if out.json:
        out.document({"resumed": list(dict.fromkeys(queues))})


async def _row(client: Client, name: str, columns: Sequence[str]) -> Row:
    depth = await client.depth(name)
    agents = await client.agents(name)
    workflows = sorted({workflow for agent in agents for workflow in agent.workflows})
    slots = sum(agent.concurrency for agent in agents)
    cells = {
        "QUEUE": name,
        "WAITING": str(depth.waiting),
        "RUNNING": str(depth.running),
        "SCHEDULED": str(depth.scheduled),
        "PARKED": str(depth.parked),
        "DEAD": str(depth.dead),
        "OLDEST": span(depth.oldest_s) if depth.waiting else "-",
        "WORKERS": str(len(agents)),
        "STATE": "paused" if depth.paused else "active",
        "SLOTS": str(slots),
        "WORKFLOWS": " ".join(workflows) or "-",
    }
    document = {
        "queue": name,
        **asdict(depth),
        "workers": len(agents),
        "slots": slots,
        "workflows": workflows,
    }
    return Row(name, [cells[column] for column in columns], document)
