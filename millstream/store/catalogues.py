"""What the workers of a queue can run: names, versions, and the schemas of the arguments.

Workers of one application say the same, so what they say is kept once, under its own digest, and
falls off when nobody has said it for a while. For people and programs that look for a workflow;
never used to decide which worker runs what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from millstream.model.limits import KIB
from millstream.store import boards
from millstream.store.boards import Board
from millstream.store.connection import Connection

#: Bytes of one application's catalogue; at the bound schemas are left out, names never.
MOST_BYTES = 256 * KIB
_ANYTHING: dict[str, Any] = {"type": "object"}


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow, as its callers need to know it."""

    name: str
    version: str
    description: str = ""
    #: JSON Schema (2020-12) of the arguments.
    arguments: dict[str, Any] = msgspec.field(default_factory=lambda: dict(_ANYTHING))


def note(workflows: Sequence[Described]) -> bytes:
    """Return what a worker publishes, within the bound."""
    data = msgspec.json.encode(workflows, order="deterministic")
    if len(data) > MOST_BYTES:
        bare = [
            Described(name=each.name, version=each.version, arguments=_ANYTHING)
            for each in workflows
        ]
        data = msgspec.json.encode(bare, order="deterministic")
    return data


async def publish(connection: Connection, queue: str, data: bytes, ttl_s: float) -> None:
    """Say what is served in a queue, for so long. Raises `StoreError`."""
    digest = hashlib.blake2b(data, digest_size=10).hexdigest()
    await boards.pin(connection, board(queue), digest, data, ttl_s)


async def known(connection: Connection, queue: str) -> list[Described]:
    """Return what is served in a queue, by name and version. Raises `StoreError`.

    Where two applications describe the same version differently, one of them is taken.
    """
    notes = await boards.read(connection, board(queue))
    found = {
        (each.name, each.version): each
        for _, data in sorted(notes.items())
        for each in msgspec.json.decode(data, type=list[Described])
    }
    return [found[key] for key in sorted(found)]


def board(queue: str) -> Board:
    """Return the board of a queue, on which processes say what they serve."""
    return Board(f"workflows:{queue}")
