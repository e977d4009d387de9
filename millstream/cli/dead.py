"""``millstream dead``: the runs that failed for good, and their second chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from millstream.cli import bulk
from millstream.cli.access import client_of, located
from millstream.cli.exits import Exit
from millstream.cli.failures import tell
from millstream.cli.flags import ClientConfig, command
from millstream.cli.groups import Group
from millstream.cli.output import Output
from millstream.cli.runs import listing, wants_wide
from millstream.cli.selecting import Cause, DryRun, Workflow
from millstream.client import Client
from millstream.errors import UsageError
from millstream.model.limits import LIMITS
from millstream.model.run import RunState, RunStatus


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=Group, help="List and replay the dead letters.")
    group.command("list")(list_dead)
    group.command("replay")(replay)
    app.add_typer(group, name="dead")


@command(ClientConfig)
async def list_dead(
    *,
    config: ClientConfig,
    out: Output,
    workflow: Workflow = None,
    cause: Cause = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="At most so many."),
    ] = 50,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="wide", help="More columns.")
    ] = None,
) -> None:
    """List the dead letters, the newest first."""
    wide = wants_wide(output)
    async with client_of(config) as client:
        found = await _dead(client, config, workflow, cause)

    out.listing(listing("dead letters" if not out.json else "dead", found[:limit], wide=wide))


@command(ClientConfig)
async def replay(
    *,
    config: ClientConfig,
    out: Output,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Ids of runs.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Every dead letter that matches.")] = False,
    workflow: Workflow = None,
    cause: Cause = None,
    dry_run: DryRun = False,
) -> Exit:
    """Start dead letters once more, from where their journals end."""
    if bool(ids) == all:
        raise UsageError("say which: ids of runs, or --all")
    if ids and (workflow or cause or dry_run):
        raise UsageError("--workflow and --cause choose among --all; ids choose for themselves")

    async with client_of(config) as client:
        if all:
            found = await _dead(client, config, workflow, cause)
            if dry_run:
                bulk.ready(out, "replay", found, dry_run=True, yes=True)
                return Exit.OK
            return await _replay_all(client, out, found)
        return await _replay_named(client, config, out, ids or [])


async def _replay_all(client: Client, out: Output, found: Sequence[RunStatus]) -> Exit:
    answers = await bulk.acted(out, "replaying", client.retry_many, found)
    replayed = [run_id for run_id, state in answers if state == RunState.QUEUED]
    skipped = len(found) - len(replayed)
    if out.json:
        out.document({"replayed": replayed, "skipped": skipped})
    else:
        more = f"; {skipped} had moved on meanwhile" if skipped else ""
        out.say(f"{len(replayed)} replayed{more}")
    return Exit.OK


async def _replay_named(
    client: Client, config: ClientConfig, out: Output, ids: Sequence[str]
) -> Exit:
    replayed = []
    worst = Exit.OK
    for run_id in dict.fromkeys(ids):
        try:
            run, _ = await located(client, config, run_id)
            await run.retry()
        except UsageError as error:
            worst = Exit(tell(error)) if worst is Exit.OK else worst
        else:
            replayed.append(run_id)
            out.say(f"{run_id} queued")
    if out.json:
        out.document({"replayed": replayed, "skipped": 0})

    return worst


async def _dead(
    client: Client, config: ClientConfig, workflow: str | None, cause: str | None
) -> list[RunStatus]:
    return [
        status
        for queue in dict.fromkeys(config.queue)
        for status in await client.dead(queue, limit=LIMITS.dead_letters)
        if workflow in {None, status.workflow}
        and (cause is None or (status.error or "").partition(":")[0] == cause)
    ]
