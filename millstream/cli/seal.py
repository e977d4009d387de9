"""``millstream seal``: keys that values are sealed under, what is sealed, and rotation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from millstream.cli.access import client_of, queues_there
from millstream.cli.exits import Exit
from millstream.cli.flags import ClientConfig, command
from millstream.cli.groups import Group
from millstream.cli.output import Listing, Output, Row
from millstream.client import Client
from millstream.store import keyring
from millstream.store.resealing import CLEAR, Tally
from millstream.store.sealing import Sealer, sealer_of

_COLUMNS = ("KEY", "VALUES", "STATE")

Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", "-q", metavar="NAME", help="Only this queue; repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=Group, help="Make sealing keys, see what is sealed, and seal it anew.")
    group.command("new")(new)
    group.command("status")(status)
    group.command("rekey")(rekey)
    app.add_typer(group, name="seal")


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the key, such as the month: 2026-11.")
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Write JSON to stdout, and nothing else.")
    ] = False,
) -> None:
    """Make a key and print its line for the file of keys. It is shown this once, kept nowhere."""
    out = Output(json=json)
    line = keyring.fresh(name)
    if json:
        out.document({"name": name, "line": line})
    else:
        out.say(line)


@command(ClientConfig, without=("queue",))
async def status(*, config: ClientConfig, out: Output, queue: Queues = None) -> None:
    """Count what stands in Redis by the keys that it is sealed under. Changes nothing."""
    sealer = sealer_of(config.seal_keys)
    async with client_of(config) as client:
        tallies = [
            await client.sealing.counted_schedules(),
            await client.sealing.counted_talks(),
        ]
        names = queue or await queues_there(config)
        with out.waiting("counting") as news:
            tallies += [
                await client.sealing.counted(name, told=_teller(name, news)) for name in names
            ]
    _tell(out, sealer, tallies)


@command(ClientConfig, without=("queue",))
async def rekey(*, config: ClientConfig, out: Output, queue: Queues = None) -> Exit:
    """Seal everything under the first key of the file, while workers go on.

    Where the file begins with the word clear, everything is opened for good. What is done is passed
    over, so a rekey that was cut off is said again. The exit code is 9 while something is left.
    """
    sealer = sealer_of(config.seal_keys)
    async with client_of(config) as client:
        tallies = await _renewed(client, config, out, queue)
    return Exit.SEALED if _tell(out, sealer, tallies) else Exit.OK


async def _renewed(
    client: Client, config: ClientConfig, out: Output, queue: Sequence[str] | None
) -> list[Tally]:
    tallies = [await client.sealing.renew_schedules(), await client.sealing.renew_talks()]
    with out.waiting("sealing") as news:
        return tallies + [
            await client.sealing.renew(name, told=_teller(name, news))
            for name in queue or await queues_there(config)
        ]


def _teller(name: str, news: Callable[[str], None]) -> Callable[[Tally], None]:
    def told(tally: Tally) -> None:
        news(f"{name}: {tally.runs:,} runs, {tally.changed:,} values changed")

    return told


def _tell(out: Output, sealer: Sealer | None, tallies: Sequence[Tally]) -> int:
    """Write what was met; return how many values are not as the ring has them."""
    keys: Counter[str] = sum((tally.keys for tally in tallies), Counter())
    first = "" if sealer is None else sealer.ring.first()[0]
    here = set() if sealer is None else set(sealer.ring.names())
    names = dict.fromkeys([first, *sorted(here), *sorted(keys)])
    rows = [_row(name, keys[name], first, here) for name in names if keys[name] or name in here]
    left = keys.total() - keys[first]
    held = sum(tally.held for tally in tallies)
    refused: Counter[str] = sum((tally.refused for tally in tallies), Counter())
    if out.json:
        out.document(
            {
                "keys": [row.document for row in rows],
                "changed": sum(tally.changed for tally in tallies),
                "left": left,
                "held": held,
                "refused": dict(refused),
            }
        )
        return left
    out.listing(Listing("values", _COLUMNS, rows))
    if held:
        out.note(f"{held} runs are held by workers, and were left as they are; say it again later")
    for name, count in refused.items():
        out.note(f"{count} values could not be opened: {name}")
    return left


def _row(name: str, count: int, first: str, here: set[str]) -> Row:
    if name == first:
        state = "seals" if name else "in clear, as it is to be"
    elif name == CLEAR:
        state = "in clear"
    else:
        state = "opens" if name in here else "not here"
    return Row(
        name, [name or "-", f"{count:,}", state], {"key": name, "values": count, "state": state}
    )
