"""``millstream runs``: list, show, cancel, retry and signal runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from millstream.cli import answers
from millstream.cli.access import ago, client_of, located, span, waits_for
from millstream.cli.exits import Exit
from millstream.cli.failures import tell
from millstream.cli.flags import ClientConfig, command
from millstream.cli.output import Listing, Output, Row
from millstream.cli.watching import Interval, Watch, watched
from millstream.client import Client, Run
from millstream.errors import RunError, UsageError
from millstream.model.run import RunState, RunStatus

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of runs.")]

_COLUMNS = ("ID", "WORKFLOW", "STATE", "ATTEMPT", "AGE", "TOOK", "ERROR")
_WIDE = ("ID", "QUEUE", "WORKFLOW", "VERSION", "TENANT", "STATE", "ATTEMPT", "CRASHES", "AGE",
         "TOOK", "ERROR")  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="List, show, cancel, retry and signal runs.")
    group.command("list")(list_runs)
    group.command("show")(show)
    group.command("cancel")(cancel)
    group.command("retry")(retry)
    answers.register(group)
    app.add_typer(group, name="runs")


@command(ClientConfig)
async def list_runs(
    *,
    config: ClientConfig,
    out: Output,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", metavar="STATE", help="Only these; may be repeated."),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Only of this workflow.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this tenant.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="At most so many.")
    ] = 50,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="wide", help="More columns.")
    ] = None,
    watch: Watch = False,
    interval: Interval = 2.0,
) -> None:
    """List runs, the newest first."""
    states = tuple(map(_state, state or RunState))
    wide = wants_wide(output)

    async with client_of(config) as client:

        async def look() -> Listing:
            found = [
                status
                for queue in dict.fromkeys(config.queue)
                for status in await client.list(
                    queue, states=states, workflow=workflow, tenant=tenant, limit=limit
                )
            ]
            found.sort(key=lambda status: status.times.enqueued, reverse=True)
            return listing("runs", found[:limit], wide=wide)

        await watched(out, look, watch, interval)


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
async def cancel(*, config: ClientConfig, out: Output, ids: Ids) -> Exit:
    """Ask runs to end. A running one is told; it ends at its next step."""

    async def one(client: Client, id: str) -> str:
        run, before = await located(client, config, id)
        state = await run.cancel()
        if before.state.final:
            out.say(f"{id} is already {before.state}")
        else:
            out.say(f"{id} cancelled" if state.final else f"{id} is told to stop")
        return str(state)

    return await _each(config, out, ids, one)


@command(ClientConfig)
async def retry(*, config: ClientConfig, out: Output, ids: Ids) -> Exit:
    """Start failed or cancelled runs once more, from where their journals end."""

    async def one(client: Client, id: str) -> str:
        run, _ = await located(client, config, id)
        await run.retry()
        out.say(f"{id} queued")
        return str(RunState.QUEUED)

    return await _each(config, out, ids, one)


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
        "STATE": str(status.state),
        "ATTEMPT": str(status.attempt),
        "CRASHES": str(status.crashes),
        "AGE": ago(times.enqueued),
        "TOOK": "-" if took is None else span(took),
        "ERROR": waits_for(status) or status.error or "-",
    }


def _state(word: str) -> RunState:
    try:
        return RunState(word)
    except ValueError:
        raise UsageError(f"--state {word!r} is not one of {', '.join(RunState)}") from None


async def _result(run: Run, status: RunStatus) -> Any:
    if status.state is not RunState.COMPLETED:
        return None
    try:
        return await run.result(timeout=5)
    except RunError:
        return None  # it was started again between the two questions


async def _each(
    config: ClientConfig,
    out: Output,
    ids: Sequence[str],
    one: Callable[[Client, str], Awaitable[str]],
) -> Exit:
    """Do something to each run; one that cannot be helped does not keep the others from it."""
    done: list[dict[str, str]] = []
    worst = Exit.OK
    async with client_of(config) as client:
        for run_id in dict.fromkeys(ids):
            try:
                done.append({"id": run_id, "state": await one(client, run_id)})
            except UsageError as error:
                worst = Exit(tell(error)) if worst is Exit.OK else worst
    if out.json:
        out.document({"runs": done})

    return worst
