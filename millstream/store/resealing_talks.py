"""Go through what other agents said, and where they want to be told: count it, seal it anew.

A conversation outlives its run, and has one key of its own, so it is found by that. Each field is
replaced only where it still is what was read: it may be walked beside gateways, twice at once, and
be cut off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from millstream.errors import SealingError
from millstream.store import conversations
from millstream.store.connection import Connection
from millstream.store.conversations import Subject
from millstream.store.resealing import CLEAR, Tally, is_stale
from millstream.store.scanning import key_pages
from millstream.store.scripts import Argument, call
from millstream.store.sealing import Sealer, keys_of, opened

_PAGE = 200


@dataclass(frozen=True, slots=True)
class _Hash:
    """The hash of one conversation."""

    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)


async def walk_talks(
    connection: Connection, tally: Tally, sealer: Sealer | None
) -> AsyncIterator[Tally]:
    """Go through all conversations; yield the tally after every page. Raises `StoreError`.

    With a ``sealer`` everything is brought to what its ring says; without, it is only counted.
    """
    async for page in key_pages(connection, conversations.every_key(), _PAGE):
        for key in page:
            await _pass_over(connection, _Hash(key.decode()), tally, sealer)
        yield tally


async def _pass_over(
    connection: Connection, kept: _Hash, tally: Tally, sealer: Sealer | None
) -> None:
    with connection.translated():
        row = await connection.client.hgetall(kept.key)
    subject, changes = Subject.of(kept.key), list[Argument]()
    for raw, before in row.items():
        name = raw.decode()
        if not conversations.may_be_sealed(name):
            continue
        after = before
        if sealer is not None and is_stale(sealer, conversations.parted(name, before)[1]):
            try:
                after = _renewed(sealer, subject, name, before)
            except SealingError as error:
                tally.refused[type(error).__name__] += 1
        if after != before:
            changes += (name, before, after)
        tally.keys.update(keys_of(after) or {CLEAR})
    if changes:
        with connection.translated():
            tally.changed += await call(connection.scripts, "swap", kept, changes)


def _renewed(sealer: Sealer, subject: Subject, name: str, before: bytes) -> bytes:
    clear, value = conversations.parted(name, before)
    place = subject.place(name)
    return clear + sealer.seal(place, opened(sealer, place, value))
