"""``millstream failover``: let the replica of another region become the master, and fence the old.

Promise: it says that the other region may be opened only after the one before can write no more.
It changes two servers and no setting: who connects where is told by their own addresses.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from millstream.cli.access import span
from millstream.cli.flags import ClientConfig, command
from millstream.cli.output import Output
from millstream.errors import UsageError
from millstream.store import failover as store
from millstream.store.connection import Connection

To = Annotated[str, typer.Argument(metavar="URL", help="Address of the replica that takes over.")]
Lost = Annotated[
    bool, typer.Option("--lost", help="The master of --redis is gone and cannot be asked.")
]
Fence = Annotated[
    float | None,
    typer.Option(
        "--fence",
        metavar="SECONDS",
        help="With --lost: how long the old master may still write, its min-replicas-max-lag;"
        " 0 when it is cut off for certain.",
    ),
]
Limit = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", help="How long writes may stand still meanwhile."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("failover")(failover)


@command(ClientConfig, without=("queue",))
async def failover(
    *,
    config: ClientConfig,
    out: Output,
    to: To,
    lost: Lost = False,
    fence: Fence = None,
    timeout: Limit = 10.0,
) -> None:
    """Make the replica at URL the master in the place of the one at --redis.

    Both addresses need a user that may FAILOVER and REPLICAOF, and CONFIG SET with --lost: the new
    master writes without a replica, until its min-replicas-to-write is put back. Workers of the old
    region get no more than refusals from then on; those of the new one may be started when this
    ends.
    """
    if lost and (fence is None or fence < 0):
        raise UsageError(
            "--lost needs --fence SECONDS: the old master's min-replicas-max-lag, or 0 when it is"
            " cut off for certain; two masters would run everything twice"
        )
    old, new = Connection(config.redis), Connection(to)
    try:
        if lost:
            found = await store.take_over(old, new, fence_s=fence or 0.0)
        else:
            found = await store.hand_over(old, new, patience_s=timeout)
    finally:
        await old.aclose()
        await new.aclose()

    if out.json:
        out.document({"from": str(old.address), "to": str(new.address), **asdict(found)})
        return
    missing = "what it had not received is lost" if lost else "nothing is lost"
    out.say(
        f"{new.address} is the master after {span(found.seconds)}, and {missing};"
        " its region may be opened"
    )
