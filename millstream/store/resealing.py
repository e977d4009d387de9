"""Go through all that is sealed, or should be: count under which keys, and seal it anew.

A lane is walked a page at a time, a run in few script calls and at any time: what a worker holds is
left alone, and met again by the next walk. A walk that is cut off is begun again; what was done is
passed over. What runs have said to their watchers, and what is on its way to another lane, is not
rewritten: it goes by itself, and is counted.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from millstream.errors import SealingError
from millstream.model.journal import Record, Spilled
from millstream.model.message import CHILDREN
from millstream.store import losses, records, schedules, spills
from millstream.store.connection import Connection
from millstream.store.foreign import sifted
from millstream.store.keys import Lane
from millstream.store.schedules import Written
from millstream.store.scripts import Argument, call
from millstream.store.sealing import Place, Sealer, keys_of, opened

#: Keys that are looked at in one call, fields of a hash in one, and bytes that leave in one.
_PAGE, _FIELDS, _MOST_BYTES = 200, 200, 4 * 1024 * 1024
#: What changes say of parts of large values, which are counted by their names.
_OF_PARTS = frozenset(("for", "spilled", "drop", "void"))
#: Under what is counted what stands in clear.
CLEAR = ""
_KINDS = {"args": "arguments", "asked": "arguments", "result": "result", "error": "error"}


@dataclass(slots=True)
class Tally:
    """What a walk has met."""

    runs: int = 0
    #: Values by the name of the key that they are sealed under, as they stand after the walk.
    keys: Counter[str] = field(default_factory=Counter)
    #: Values that were sealed anew, or opened for good.
    changed: int = 0
    #: Runs that a worker held; their values stand as they were.
    held: int = 0
    #: What does not open here, by the error; it stands as it was.
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Change:
    part: str
    field: str
    before: bytes
    after: bytes


async def walk(
    connection: Connection, lane: Lane, tally: Tally, sealer: Sealer | None
) -> AsyncIterator[Tally]:
    """Go through the runs of a lane; yield the tally after every page. Raises `StoreError`.

    With a ``sealer`` everything is brought to what its ring says; without, it is only counted.
    """
    cursor = 0
    while True:
        page = await losses.page(connection, lane, cursor, _PAGE)
        for run_id in page.ids:
            await _Run(connection, lane, run_id, tally, sealer).pass_over()
        cursor = page.cursor
        yield tally
        if not cursor:
            return


async def walk_schedules(connection: Connection, tally: Tally, sealer: Sealer | None) -> None:
    """Do the same to the schedules. Raises `StoreError`."""
    after = ""
    while page := await schedules.page(connection, after):
        after = page[-1].name
        standing = await schedules.standing(connection, [each.name for each in page])
        for stored, (spec, due) in zip(page, standing, strict=True):
            if spec is None:
                continue
            if stored.refusal is not None:
                tally.refused[type(stored.refusal).__name__] += 1
            elif sealer is not None and is_stale(sealer, spec):
                same = Written(stored.name, stored.revision, stored.progress, due, stored.spec)
                (done,) = await schedules.write(connection, [same])
                tally.changed += done
                if done:
                    tally.keys[sealer.ring.first()[0]] += 1
                    continue
            tally.keys.update(keys_of(spec) or {CLEAR})


def is_stale(sealer: Sealer, data: bytes) -> bool:
    """Whether a value is not as the ring has it: sealed under its first key, or in clear."""
    return keys_of(data) != _wanted(sealer)


def _key_in(name: str) -> str:
    """Return under which key a large value is, by its name: ``hash``, ``hash.key`` or longer."""
    return [*name.split("."), CLEAR][1]


def _wanted(sealer: Sealer) -> set[str]:
    first = sealer.ring.first()[0]
    return {first} if first else set()


class _Run:
    """One run, while it is looked at."""

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        run_id: str,
        tally: Tally,
        sealer: Sealer | None,
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._id = run_id
        self._tally = tally
        self._sealer = sealer
        self._changes: list[_Change] = []
        self._bytes = 0
        self._held = False
        #: Names of large values that are not sealed as they should be.
        self._stale_values: set[str] = set()
        #: The keys that large values have had and got.
        self._moved: list[tuple[str, str]] = []

    async def pass_over(self) -> None:
        """Count every value of the run, and replace those that are not as they should be."""
        self._tally.runs += 1
        await self._look_at_large_values()
        async for part, name, data in self._values():
            if self._sealer is None or self._held or not self._may_be_stale(part, data):
                self._count(data)
                continue
            try:
                await self._renew(self._sealer, part, name, data)
            except SealingError as error:
                self._tally.refused[type(error).__name__] += 1
                self._count(data)
        await self._send()
        self._tally.held += self._held
        if not self._held:
            self._tally.keys -= Counter(old for old, _ in self._moved)
            self._tally.keys += Counter(new for _, new in self._moved)

    def _may_be_stale(self, part: str, data: bytes) -> bool:
        assert self._sealer is not None
        return is_stale(self._sealer, data) or (part == "journal" and bool(self._stale_values))

    # -- what there is -------------------------------------------------------------------------

    async def _look_at_large_values(self) -> None:
        """Count large values by their names, which say under what key they are."""
        names = await self._ask("hkeys", self._lane.spilled(self._id), missing=[])
        for name in {found.decode().partition(":")[0] for found in names}:
            key = _key_in(name)
            self._tally.keys[key] += 1
            if self._sealer is not None and ({key} - {CLEAR}) != _wanted(self._sealer):
                self._stale_values.add(name)

    async def _values(self) -> AsyncIterator[tuple[str, str, bytes]]:
        """Yield part, field and value; the field of a message is ``<number>/<name>``."""
        lane = self._lane
        row = await self._ask("hmget", lane.run(self._id), *_KINDS, missing=[None] * len(_KINDS))
        for name, data in zip(_KINDS, row, strict=True):
            if data is not None:
                yield "run", name, data
        async for name, data in self._fields(lane.journal(self._id)):
            yield "journal", name, data
        async for name, data in self._messages():
            yield "received", name, data
        for _, said in await self._ask("xrange", lane.events(self._id), missing=[]):
            self._count(said[b"data"])

    async def _messages(self) -> AsyncIterator[tuple[str, bytes]]:
        names: dict[str, str] = {}
        found: dict[str, bytes] = {}
        async for name, data in self._fields(self._lane.received(self._id)):
            if name.startswith("~"):
                names |= dict.fromkeys(data.decode().split(), name[1:])
            elif name.isdigit():
                found[name] = data
        for number, data in found.items():
            # The end of a child is the child's; and what came just now has no name here yet.
            if names.get(number, CHILDREN).partition(":")[0] == CHILDREN:
                self._count(data)
            else:
                yield f"{number}/{names[number]}", data

    async def _fields(self, key: str) -> AsyncIterator[tuple[str, bytes]]:
        cursor = 0
        while True:
            cursor, page = await self._ask("hscan", key, cursor, None, _FIELDS, missing=(0, {}))
            for name, data in page.items():
                yield name.decode(), data
            if not cursor:
                return

    async def _ask(self, command: str, *args: Any, missing: Any) -> Any:
        """Return what a command answers; ``missing`` for a key that is not ours."""
        with self._connection.translated():
            pipe = self._connection.client.pipeline(transaction=False)
            getattr(pipe, command)(*args)
            (answer,) = sifted(await pipe.execute(raise_on_error=False), missing)
        return answer

    # -- what is to be -------------------------------------------------------------------------

    async def _renew(self, sealer: Sealer, part: str, name: str, data: bytes) -> None:
        queue = self._lane.queue
        if part == "journal":
            record = records.decode(sealer, queue, self._id, name, data)
            if type(record.value) is Spilled and record.value.name in self._stale_values:
                await self._renew_large(sealer, name, record, data, record.value)
            elif is_stale(sealer, data):
                await self._change(part, name, data, self._encoded(sealer, name, record))
            else:
                self._count(data)
            return
        number, _, message = name.partition("/")
        if part == "received":
            place = Place(queue, self._id, "message", message)
        else:
            place = Place(queue, self._id, _KINDS[name])
        await self._change(part, number, data, sealer.seal(place, opened(sealer, place, data)))

    async def _renew_large(
        self, sealer: Sealer, key: str, record: Record, data: bytes, kept: Spilled
    ) -> None:
        """First the parts under a new name, then the record, and the old parts with it.

        The parts of a large value may leave in several calls: where the record is another one by
        then, they go again.
        """
        whole = await spills.load(self._connection, self._lane, self._id, kept)
        value = spills.sealed(sealer, self._lane.queue, self._id, key, whole)
        reference = spills.reference(key, value)
        # Two walks at the same time must not write each other's parts.
        dotted = reference.name if "." in reference.name else f"{reference.name}."
        reference = reference._replace(name=f"{dotted}.{secrets.token_hex(4)}")
        parts = spills.split(reference, value)
        for name, part in parts.items():
            # With every one of them: each may be the first in its call.
            await self._change("for", key, data, b"")
            await self._change("spilled", name, b"", part)
        after = self._encoded(sealer, key, record._replace(value=reference))
        await self._change("journal", key, data, after)
        for name in spills.names(kept):
            await self._change("drop", name, key.encode(), after)
        for name in parts:
            await self._change("void", name, key.encode(), after)
        self._moved.append((_key_in(kept.name), _key_in(reference.name)))

    def _encoded(self, sealer: Sealer, key: str, record: Record) -> bytes:
        record = record._replace(sealed=sealer.active)
        return records.encode(sealer, self._lane.queue, self._id, key, record)

    async def _change(self, part: str, name: str, before: bytes, after: bytes) -> None:
        self._changes.append(_Change(part, name, before, after))
        self._bytes += len(before) + len(after)
        # What a part is for holds for what follows it in the same call.
        if self._bytes >= _MOST_BYTES and part != "for":
            await self._send()

    async def _send(self) -> None:
        changes, self._changes, self._bytes = self._changes, [], 0
        if not changes:
            return
        args: list[Argument] = [self._id]
        for each in changes:
            # Once a worker held the run, what came before may be missing: nothing is replaced then.
            if not self._held or each.part == "void":
                args += (each.part, each.field, each.before, each.after)
        with self._connection.translated():
            done: int = await call(self._connection.scripts, "reseal", self._lane, args)
        self._held = self._held or done < 0
        self._tally.changed += max(0, done)
        for each in changes:
            if each.part not in _OF_PARTS:
                self._count(each.before if self._held else each.after)

    def _count(self, data: bytes) -> None:
        self._tally.keys.update(keys_of(data) or {CLEAR})
