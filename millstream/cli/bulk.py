"""``millstream runs cancel`` and ``runs retry``: by id, or all that match.

Promise: what is chosen by a filter is shown or counted, and asked about, before anything is done;
and it has a bound. One run that cannot be helped does not keep the others from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from millstream.cli.access import client_of, located
from millstream.cli.exits import Exit
from millstream.cli.failures import tell
from millstream.cli.flags import ClientConfig, command
from millstream.cli.output import Output
from millstream.cli.selecting import (
    Attribute,
    Cause,
    DryRun,
    Since,
    States,
    Tenant,
    Until,
    Workflow,
    Yes,
    confirmed,
    selection,
)
from millstream.client import Client
from millstream.client.overview import MOST_SELECTED
from millstream.errors import UsageError
from millstream.model.run import FINAL, RunState, RunStatus
from millstream.model.selection import Selection

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Ids of runs.")]
All = Annotated[bool, typer.Option("--all", help="Every run that matches, instead of ids.")]
Limit = Annotated[
    int,
    typer.Option("--limit", "-n", metavar="N", min=1, max=MOST_SELECTED, help="With --all."),
]
#: Does something to many runs of a queue; answers with what became of each.
_Many = Callable[..., Awaitable[Mapping[str, str]]]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("cancel")(cancel)
    app.command("retry")(retry)


@command(ClientConfig)
async def cancel(
    *,
    config: ClientConfig,
    out: Output,
    ids: Ids = None,
    all: All = False,
    state: States = None,
    workflow: Workflow = None,
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    attribute: Attribute = None,
    limit: Limit = MOST_SELECTED,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> Exit:
    """Ask runs to end. A running one is told; it ends at its next step."""
    wanted = selection(state, workflow, tenant, None, since, until, attribute)
    _check(ids, all, wanted != Selection())

    async def one(client: Client, id: str) -> str:
        run, before = await located(client, config, id)
        after = await run.cancel()
        if before.state.final:
            out.say(f"{id} is already {before.state}")
        else:
            out.say(f"{id} cancelled" if after.final else f"{id} is told to stop")
        return str(after)

    async with client_of(config) as client:
        if ids:
            return await _each(client, out, ids, one)
        open_ = replace(wanted, states=wanted.states - FINAL)
        chosen = await _chosen(client, config, open_, limit)
        if ready(out, "cancel", chosen, dry_run=dry_run, yes=yes):
            await _all(out, "cancelling", client.cancel_many, chosen)
    return Exit.OK


@command(ClientConfig)
async def retry(
    *,
    config: ClientConfig,
    out: Output,
    ids: Ids = None,
    all: All = False,
    state: States = None,
    workflow: Workflow = None,
    tenant: Tenant = None,
    cause: Cause = None,
    since: Since = None,
    until: Until = None,
    attribute: Attribute = None,
    limit: Limit = MOST_SELECTED,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> Exit:
    """Start failed or cancelled runs once more, from where their journals end.

    With --all the failed ones, unless --state says otherwise.
    """
    wanted = selection(state, workflow, tenant, cause, since, until, attribute)
    _check(ids, all, wanted != Selection())
    if not state:
        wanted = replace(wanted, states=frozenset({RunState.FAILED}))

    async def one(client: Client, id: str) -> str:
        run, _ = await located(client, config, id)
        await run.retry()
        out.say(f"{id} queued")
        return str(RunState.QUEUED)

    async with client_of(config) as client:
        if ids:
            return await _each(client, out, ids, one)
        chosen = await _chosen(client, config, wanted, limit)
        if ready(out, "retry", chosen, dry_run=dry_run, yes=yes):
            await _all(out, "retrying", client.retry_many, chosen)
    return Exit.OK


async def _chosen(
    client: Client, config: ClientConfig, wanted: Selection, limit: int
) -> list[RunStatus]:
    chosen: list[RunStatus] = []
    for queue in dict.fromkeys(config.queue):
        chosen += await client.select(queue, wanted, limit=limit - len(chosen))
        if len(chosen) >= limit:
            break
    return chosen


def ready(out: Output, verb: str, chosen: Sequence[RunStatus], *, dry_run: bool, yes: bool) -> bool:
    """Whether to go on with what was chosen."""
    if dry_run:
        rows = [{"id": x.id, "queue": x.queue, "state": str(x.state)} for x in chosen]
        if out.json:
            out.document({"would": verb, "runs": rows})
        for row in rows:
            out.say(f"would {verb} {row['id']} ({row['state']})")
        out.say(f"{len(rows)} in all; nothing was done")
        return False
    if not chosen:
        out.document({"done": {}}) if out.json else out.note("no runs match")
        return False
    runs = "run" if len(chosen) == 1 else "runs"
    return confirmed(f"{verb.capitalize()} {len(chosen):,} {runs}?", yes=yes)


async def acted(
    out: Output, doing: str, act: _Many, chosen: Iterable[RunStatus]
) -> list[tuple[str, str]]:
    """Do something to the runs that were chosen; return (id, what became of it) for each."""
    by_queue: dict[str, list[str]] = {}
    for status in chosen:
        by_queue.setdefault(status.queue, []).append(status.id)

    answers: list[tuple[str, str]] = []
    with out.progress(doing, sum(map(len, by_queue.values()))) as count:

        def told(number: int) -> None:
            for _ in range(number):
                count()

        for queue, ids in by_queue.items():
            answers += (await act(queue, ids, told=told)).items()
    return answers


async def _all(out: Output, doing: str, act: _Many, chosen: Iterable[RunStatus]) -> None:
    answers = await acted(out, doing, act, chosen)
    done = Counter(answer or "gone" for _, answer in answers)
    if out.json:
        out.document({"done": dict(done)})
    else:
        out.say(", ".join(f"{count:,} {answer}" for answer, count in sorted(done.items())))


async def _each(
    client: Client,
    out: Output,
    ids: Sequence[str],
    one: Callable[[Client, str], Awaitable[str]],
) -> Exit:
    done: list[dict[str, str]] = []
    worst = Exit.OK
    for run_id in dict.fromkeys(ids):
        try:
            done.append({"id": run_id, "state": await one(client, run_id)})
        except UsageError as error:
            worst = Exit(tell(error)) if worst is Exit.OK else worst
    if out.json:
        out.document({"runs": done})

    return worst


def _check(ids: Sequence[str] | None, all: bool, filtered: bool) -> None:
    if bool(ids) == all:
        raise UsageError("say which: ids of runs, or --all")
    if ids and filtered:
        raise UsageError("filters choose among --all; ids choose for themselves")
