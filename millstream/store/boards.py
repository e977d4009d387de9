"""Boards: short notes that processes pin for one another, each gone when its writer is.

What workers hold and plan on a device that they share, what their models are like, and what was
learned of them. Notes help to decide well; nothing that must be right depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.store.connection import Connection
from millstream.store.scripts import call


@dataclass(frozen=True, slots=True)
class Board:
    """One board. Its hash tag is that of no queue."""

    name: str
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", (f"millstream:{{board:{self.name}}}",))


#: What every worker says of its models.
MODELS = Board("models")


def device(uuid: str) -> Board:
    """Return the board of a device, on which its tenants say what they hold and plan."""
    return Board(f"device:{uuid}")


def laws(device: str) -> Board:
    """Return the board of a device, on which is kept what was learned of models there."""
    return Board(f"laws:{device}")


async def pin(
    connection: Connection, board: Board, token: str, note: bytes, ttl_s: float
) -> dict[str, bytes]:
    """Pin a note, and return the notes of the others. Raises `StoreError`."""
    with connection.translated():
        found = await call(
            connection.scripts, "board", board, [token, note, max(1, round(ttl_s * 1000))]
        )

    rows = [part if isinstance(part, bytes) else str(part).encode() for part in found]
    return {rows[i].decode(): rows[i + 1] for i in range(0, len(rows), 2)}


async def read(connection: Connection, board: Board) -> dict[str, bytes]:
    """Return every note that hangs. Raises `StoreError`."""
    return await pin(connection, board, "", b"", 1)
