"""``millstream canary``: try a version of a workflow on a part of the new runs."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import typer

from millstream.cli.access import ago, client_of, one_queue
from millstream.cli.flags import ONE_QUEUE, ClientConfig, command
from millstream.cli.groups import Group
from millstream.cli.output import Listing, Output, Row
from millstream.client.trials import TrialStatus
from millstream.errors import UsageError
from millstream.model.trial import Tally, Trial

_COLUMNS = ("WORKFLOW", "VERSION", "KEPT", "SHARE", "PHASE", "AGE", "TRIED", "FAILED", "KEPT RUNS",
            "KEPT FAILED")  # fmt: skip
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,2})?)%?")

Name = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=Group,
        help="Try a version of a workflow on a share of the new runs; roll it back, or promote it.",
    )
    group.command("start")(start)
    group.command("status")(status)
    group.command("promote")(promote)
    group.command("rollback")(rollback)
    group.command("end")(end)
    app.add_typer(group, name="canary")


@command(ClientConfig, said=ONE_QUEUE)
async def start(
    *,
    config: ClientConfig,
    out: Output,
    workflow: Name,
    version: Annotated[str, typer.Option("--version", metavar="V", help="The version to try.")],
    share: Annotated[
        str, typer.Option("--share", metavar="PERCENT", help="Of new runs: 5, or 0.5%.")
    ],
    kept: Annotated[
        str | None,
        typer.Option(
            "--kept", metavar="V", help="The version of the others [the one that is served]."
        ),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(
            "--threshold",
            metavar="PERCENT",
            help="Roll back when its failure rate lies so far above that of the others.",
        ),
    ] = "10",
    minimum: Annotated[
        int, typer.Option("--minimum", metavar="N", min=1, help="Judge it after so many runs.")
    ] = 20,
    manual: Annotated[
        bool, typer.Option("--manual", help="Do not roll it back by itself.")
    ] = False,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Also when no worker serves both versions yet.")
    ] = False,
) -> None:
    """Give a share of the new runs of a workflow another version.

    Runs that name a version, and runs that have begun, stay on theirs. Said again it changes the
    share.
    """
    queue = one_queue(config)
    async with client_of(config) as client:
        trial = await client.trials.start(
            workflow,
            version=version,
            share=_percent(share, "--share"),
            kept=kept,
            queue=queue,
            threshold=_percent(threshold, "--threshold"),
            minimum=minimum,
            automatic=not manual,
            unseen=unseen,
        )
    _tell(out, queue, trial, f"{trial.share * 100:g} % of its new runs get version {trial.version}")


@command(ClientConfig, said=ONE_QUEUE)
async def status(*, config: ClientConfig, out: Output) -> None:
    """Show what is on trial, and how the runs of both versions have ended."""
    queue = one_queue(config)
    async with client_of(config) as client:
        found = await client.trials.list(queue)
    out.listing(Listing("trials", _COLUMNS, [_row(queue, each) for each in found]))


@command(ClientConfig, said=ONE_QUEUE)
async def promote(*, config: ClientConfig, out: Output, workflow: Name) -> None:
    """Give all new runs the version that was tried."""
    queue = one_queue(config)
    async with client_of(config) as client:
        trial = await client.trials.promote(workflow, queue=queue)
    _tell(out, queue, trial, f"all of its new runs get version {trial.version}")


@command(ClientConfig, said=ONE_QUEUE)
async def rollback(
    *,
    config: ClientConfig,
    out: Output,
    workflow: Name,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever looks later.")
    ] = "",
) -> None:
    """Give all new runs, and those that nobody has begun, the kept version."""
    queue = one_queue(config)
    async with client_of(config) as client:
        trial = await client.trials.rollback(workflow, queue=queue, reason=reason)
    _tell(out, queue, trial, f"all of its new runs get version {trial.kept}")


@command(ClientConfig, said=ONE_QUEUE)
async def end(*, config: ClientConfig, out: Output, workflow: Name) -> None:
    """Forget a trial that was promoted or rolled back, once all workers have one mind.

    From then on a run gets the version that its worker has registered last.
    """
    queue = one_queue(config)
    async with client_of(config) as client:
        await client.trials.end(workflow, queue=queue)
    if out.json:
        out.document({"queue": queue, "ended": workflow})
    else:
        out.say(f"the trial of {workflow} in queue {queue} is over")


def _tell(out: Output, queue: str, trial: Trial, sentence: str) -> None:
    if out.json:
        out.document({"queue": queue, **_document(trial)})
    else:
        out.say(f"{trial.workflow} in queue {queue}: {sentence}")


def _percent(text: str, flag: str) -> float:
    found = _SHARE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{flag} {text!r} is no percentage; such as 5, or 0.5%")
    return float(found[1]) / 100


def _row(queue: str, found: TrialStatus) -> Row:
    trial, tried, kept = found
    cells = (
        trial.workflow, trial.version, trial.kept, f"{trial.share * 100:g}%", str(trial.phase),
        ago(trial.started), str(tried.total), f"{tried.rate:.1%}", str(kept.total),
        f"{kept.rate:.1%}",
    )  # fmt: skip
    document = {
        "queue": queue,
        **_document(trial),
        "tried": _counts(tried),
        "kept_runs": _counts(kept),
    }
    return Row(trial.workflow, cells, document)


def _document(trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(trial)
    return found


def _counts(tally: Tally) -> dict[str, Any]:
    return {
        "completed": tally.completed,
        "failed": tally.failed,
        "cancelled": tally.cancelled,
        "failure_rate": round(tally.rate, 6),
    }
