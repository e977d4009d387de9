"""``millstream queues``: what the queues hold, and who serves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from millstream.cli.access import client_of, queues_there, span
from millstream.cli.flags import ClientConfig, command
from millstream.cli.output import Listing, Output, Row
from millstream.cli.runs import wants_wide
from millstream.cli.watching import Interval, Watch, watched
from millstream.client import Client

_COLUMNS = ("QUEUE", "WAITING", "RUNNING", "SCHEDULED", "PARKED", "DEAD", "OLDEST", "WORKERS")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("queues")(queues)


@command(ClientConfig)
async def queues(
    *,
    config: ClientConfig,
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
    wide = wants_wide(output)
    async with client_of(config) as client:

        async def look() -> Listing:
            names = await queues_there(config) if all else tuple(dict.fromkeys(config.queue))
            columns = (*_COLUMNS, "SLOTS", "WORKFLOWS") if wide else _COLUMNS
            rows = [await _row(client, name, columns) for name in names]
            return Listing("queues", columns, rows)

        await watched(out, look, watch, interval)


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
