"""``millstream runs``: list and show runs; what is done to them has modules of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from millstream.cli import answers, bulk, forks
from millstream.cli.access import ago, client_of, located, one_queue, span, waits_for
from millstream.cli.enqueue import watched_to_the_end
from millstream.cli.exits import Exit
from millstream.cli.flags import ClientConfig, command
from millstream.cli.groups import Group
from millstream.cli.output import Listing, Output, Row
from millstream.cli.selecting import (
    Attribute,
    Cause,
    Limited,
    Since,
    States,
    Tenant,
    Until,
    Workflow,
    selection,
)
from millstream.cli.watching import Interval, Watch, watched
from millstream.client import Client, Run
from millstream.errors import RunError, UsageError
from millstream.model.run import RunState, RunStatus
from millstream.model.selection import Selection

_COLUMNS = ("ID", "WORKFLOW", "STATE", "ATTEMPT", "AGE", "TOOK", "ERROR")
_WIDE = ("ID", "QUEUE", "WORKFLOW", "VERSION", "TENANT", "STATE", "ATTEMPT", "CRASHES", "AGE",
         "TOOK", "ATTRIBUTES", "ERROR")  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=Group, help="List, show, watch, cancel, retry, signal and fork runs.")
    group.command("list")(list_runs)
    group.command("show")(show)
    group.command("watch")(watch)
    bulk.register(group)
    forks.register(group)
    answers.register(group)
    app.add_typer(group, name="runs")


@command(ClientConfig)
async def list_runs(
    *,
    config: ClientConfig,
    out: Output,
    state: States = None,
    workflow: Workflow = None,
    tenant: Tenant = None,
    cause: Cause = None,
    since: Since = None,
    until: Until = None,
    attribute: Attribute = None,
    limited: Limited = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="At most so many.")
    ] = 50,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="wide", help="More columns.")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Page by page, as they are met: begin with 'first'."),
    ] = None,
    watch: Watch = False,
    interval: Interval = 2.0,
) -> None:
    """List runs, the newest first."""
    wanted = selection(state, workflow, tenant, cause, since, until, attribute, limited=limited)
    wide = wants_wide(output)

    async with client_of(config) as client:
        if after is not None:
            await _page(client, out, one_queue(config), wanted, after, limit=limit, wide=wide)
            return

        async def look() -> Listing:
            found = [
                status
                for queue in dict.fromkeys(config.queue)
                for status in await client.list(queue, **asdict(wanted), limit=limit)
            ]
            found.sort(key=lambda status: status.times.enqueued, reverse=True)
            return listing("runs", found[:limit], wide=wide)

        await watched(out, look, watch, interval)


async def _page(
    client: Client,
    out: Output,
    queue: str,
    wanted: Selection,
    after: str,
    *,
    limit: int,
    wide: bool,
) -> None:
    """List a page, and say where the next one begins."""
    found: list[RunStatus] = []
    following: str | None = None if after == "first" else after
    while len(found) < limit:
        page = await client.page(
            queue,
            states=wanted.states,
            limited=wanted.limited,
            matches=wanted.matches,
            limit=limit - len(found),
            cursor=following,
        )
        found += page.runs
        following = page.cursor
        if following is None:
            break
    shown = listing("runs", found, wide=wide)
    if out.json:
        out.document({"runs": [row.document for row in shown.rows], "next": following})
        return
    out.listing(shown)
    if following:
        out.note(f"there may be more: --after {following}")


@command(ClientConfig)
async def show(
    *,
    config: ClientConfig,
    out: Output,
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the run.")],
) -> None:
    """Show one run: what it was asked, each step on a timeline, and how it ended."""
    from millstream.cli import timeline

    async with client_of(config) as client:
        run, status = await located(client, config, id)
        story = timeline.Story(
            status=status,
            arguments=await client.arguments(run),
            journal=await client.journal(run),
            result=await _result(run, status),
        )

    if out.json:
        out.document(story.document())
    elif out.drawn:
        timeline.draw(story, out.console())
    else:
        for line in timeline.plain(story):
            out.plain(line)


@command(ClientConfig)
async def watch(
    *,
    config: ClientConfig,
    out: Output,
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the run.")],
    after: Annotated[
        str, typer.Option(metavar="EVENT", help="Only what was said after this event.")
    ] = "",
) -> Exit:
    """Follow what a run says, its steps and the text of models if it tells them, to its end."""
    async with client_of(config) as client:
        run, _ = await located(client, config, id)
        return await watched_to_the_end(run, out, after)


def listing(name: str, found: Sequence[RunStatus], *, wide: bool) -> Listing:
    """Return runs as a listing."""
    columns = _WIDE if wide else _COLUMNS
    rows = []
    for status in found:
        cells = _cells(status)
        rows.append(Row(status.id, [cells[column] for column in columns], document(status)))

    return Listing(name, columns, rows)


def document(status: RunStatus) -> dict[str, Any]:
    """Return what is known of a run for programs."""
    return {**asdict(status), "waits_for": status.waits_for}


def wants_wide(output: str | None) -> bool:
    """Whether more columns are asked for. Raises `UsageError`."""
    if output not in {None, "wide"}:
        raise UsageError(f"--output {output!r} is not known; use wide, or --json")

    return output == "wide"


def _cells(status: RunStatus) -> dict[str, str]:
    times = status.times
    took = times.ended - times.started if times.ended and times.started else None
    return {
        "ID": status.id,
        "QUEUE": status.queue,
        "WORKFLOW": status.workflow,
        "VERSION": status.version or "-",
        "TENANT": status.tenant or "-",
        "ATTRIBUTES": ",".join(f"{k}={v}" for k, v in status.attributes.items()) or "-",
        "STATE": str(status.state),
        "ATTEMPT": str(status.attempt),
        "CRASHES": str(status.crashes),
        "AGE": ago(times.enqueued),
        "TOOK": "-" if took is None else span(took),
        "ERROR": waits_for(status) or status.error or "-",
    }


async def _result(run: Run, status: RunStatus) -> Any:
    if status.state is not RunState.COMPLETED:
        return None
    try:
        return await run.result(timeout=5)
    except RunError:
        return None  # it was started again between the two questions
