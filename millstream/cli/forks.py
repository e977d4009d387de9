"""``millstream runs fork``: begin another run with what one had done before some step."""

from __future__ import annotations

from typing import Annotated

import typer

from millstream.cli.access import client_of, located
from millstream.cli.flags import ClientConfig, command
from millstream.cli.hints import again
from millstream.cli.output import Output


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fork")(fork)


@command(ClientConfig)
async def fork(
    *,
    config: ClientConfig,
    out: Output,
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the run.")],
    from_step: Annotated[
        str,
        typer.Option(
            "--from", metavar="STEP", help="Key of the step from which on it is done anew."
        ),
    ],
    new_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Id of the new run.")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Version to go on with; by default the run's own."),
    ] = None,
) -> None:
    """Begin another run with what a run recorded before a step; print its id.

    The run itself is not touched. `runs show` has the keys of its steps.
    """
    async with client_of(config) as client:
        run, _ = await located(client, config, id)
        forked = await run.fork(from_step, id=new_id, version=version)

    if not forked.created:
        out.note(f"run {forked.id!r} was already there; nothing was added")
    if out.json:
        out.document({"id": forked.id, "queue": forked.queue, "created": forked.created})
    else:
        out.say(forked.id)
        out.note(f"see: {again(config, 'runs', 'show', forked.id, queue=forked.queue)}")
