"""``millstream keys``: API keys of the gateway."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from millstream.cli.access import ago, refuse_memory, span, user
from millstream.cli.flags import ClientConfig, command
from millstream.cli.groups import Group
from millstream.cli.output import Listing, Output, Row
from millstream.client import Client
from millstream.client.keys import Keys
from millstream.errors import UsageError
from millstream.store.api_keys import ApiKey
from millstream.store.connection import Connection

_COLUMNS = ("ID", "NAME", "ROLES", "TENANT", "AGE", "EXPIRES", "STATE")
_DAY_S = 86_400.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=Group, help="Make, list and revoke the keys with which programs call the gateway."
    )
    group.command("create")(create)
    group.command("list")(list_keys)
    group.command("revoke")(revoke)
    group.command("prune")(prune)
    app.add_typer(group, name="keys")


@command(ClientConfig, without=("queue",))
async def create(
    *,
    config: ClientConfig,
    out: Output,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            metavar="ROLE[:QUEUE]",
            help="viewer, submitter, operator or admin, of all queues or of one; repeatable.",
        ),
    ],
    tenant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose runs it sees and enqueues [none: of no tenant]."),
    ] = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="It sees the runs of every tenant.")
    ] = False,
    days: Annotated[
        float, typer.Option(metavar="N", min=0.001, max=3650, help="It is good for so many days.")
    ] = 90.0,
) -> None:
    """Make a key and print it. It is shown this once: what is kept does not suffice to use it."""
    from millstream_gateway.auth.principals import ALL, check_grants

    if all_tenants and tenant is not None:
        raise UsageError("give --tenant or --all-tenants, not both")
    if not name.isprintable() or not 1 <= len(name) <= 100:
        raise UsageError("the name of a key has 1 to 100 printable characters")
    if tenant is not None and (tenant == ALL or not tenant.isprintable() or not tenant):
        raise UsageError(f"tenant {tenant!r} is no name; for all of them: --all-tenants")
    roles = check_grants(role)
    async with _opened(config) as keys:
        key, text = await keys.create(
            name=name,
            roles=roles,
            tenant=ALL if all_tenants else tenant,
            lasts_s=days * _DAY_S,
        )
    if out.json:
        out.document({"key": text, **_document(key)})
    else:
        out.say(text)


@command(ClientConfig, without=("queue",))
async def list_keys(*, config: ClientConfig, out: Output) -> None:
    """List the keys, the newest first."""
    async with _opened(config) as keys:
        found = await keys.every()
    out.listing(Listing("keys", _COLUMNS, [_row(key) for key in found]))


@command(ClientConfig, without=("queue",))
async def revoke(
    *,
    config: ClientConfig,
    out: Output,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, as `list` shows.")],
) -> None:
    """Have a key open nothing any more, within five seconds, in every gateway."""
    async with _opened(config) as keys:
        await keys.revoke(key_id)
    if out.json:
        out.document({"revoked": key_id})
    else:
        out.say(f"{key_id} revoked")


@command(ClientConfig, without=("queue",))
async def prune(*, config: ClientConfig, out: Output) -> None:
    """Forget the keys that have expired or were revoked."""
    async with _opened(config) as keys:
        count = await keys.prune()
    if out.json:
        out.document({"pruned": count})
    else:
        out.say(f"{count} forgotten")


@asynccontextmanager
async def _opened(config: ClientConfig) -> AsyncIterator[Keys]:
    refuse_memory(config.redis)
    connection = Connection(config.redis)
    # Not opened: nothing here needs its background tasks.
    client = Client(connection=connection, patience=config.patience, actor=config.actor or user())
    try:
        yield Keys(connection, client.auditor)
    finally:
        await connection.aclose()


def _row(key: ApiKey) -> Row:
    left = None if key.expires is None else key.expires - time.time()
    cells = [
        key.id,
        key.name,
        " ".join(key.roles),
        key.tenant or "-",
        ago(key.created),
        "-" if left is None else span(max(0.0, left)),
        _state(key),
    ]
    return Row(key.id, cells, _document(key))


def _state(key: ApiKey) -> str:
    if key.revoked is not None:
        return "revoked"
    return "valid" if key.valid(time.time()) else "expired"


def _document(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "roles": list(key.roles),
        "tenant": key.tenant,
        "created": key.created,
        "expires": key.expires,
        "state": _state(key),
    }
