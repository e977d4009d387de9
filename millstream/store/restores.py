"""Brings a copy back into an empty store, and has what it holds go on.

Promise: until all of it is there nobody takes a run: the queues are paused, and what one lane
has to say in another stands aside. Who held a run in the store of before holds it no more; what
had begun goes on from its journal, ahead of what had not, and in the order of before. A restore
that was cut off leaves a mark, and the store is refused from then on. It does not know files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millstream.errors import BrokenBackup, StoreInUse
from millstream.model.limits import MIB
from millstream.store.addresses import StoreKind
from millstream.store.archives import Frame
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.plain import bring_back
from millstream.store.scripts import Argument, call

#: Stands while a restore is under way.
MARK = "millstream:{restore}:under-way"
#: Runs that leave in one call, and the bytes at which it does; fields that are written in one.
_RUNS = 100
_BYTES = 4 * MIB
_FIELDS = 500
_ENTRIES = 500
_LINE = 500
_PLAIN = frozenset({"talk", "schedule", "revision", "keys", "trail", "trail-end"})


@dataclass(slots=True)
class Restore:
    """One restore on its way."""

    connection: Connection
    retention_s: float
    runs: int = 0
    _placed: set[Lane] = field(default_factory=set)
    #: Whether the queues were paused in the store of before.
    _paused: set[Lane] = field(default_factory=set)
    _batch: dict[Lane, list[Frame]] = field(default_factory=dict)
    _size: int = 0

    async def begin(self) -> None:
        """Claim the store. Raises `StoreInUse`, `StoreError`."""
        async for key in _ours(self.connection):
            raise StoreInUse(
                str(self.connection.address),
                key.decode("utf-8", "replace"),
                cut_off=key.decode("utf-8", "replace") == MARK or await self._marked(),
            )
        with self.connection.translated():
            await self.connection.client.set(MARK, "1")

    async def write(self, frames: Iterable[Frame]) -> None:
        """Write frames, in their order. Raises `BrokenBackup`, `StoreError`."""
        for frame in frames:
            match frame[0]:
                case "run":
                    await self._hold(frame)
                case "spilled":
                    await self._flush()
                    await self._spilled(*frame[1:])
                case "starts":
                    await self._starts(*frame[1:])
                case "lane":
                    await self._lane(*frame[1:])
                case kind if kind in _PLAIN:
                    await bring_back(self.connection, frame)
                case "began":
                    pass
                case kind:
                    raise BrokenBackup(f"this release does not know frames of kind {kind!r}")
        await self._flush()

    async def finish(self) -> None:
        """Have everything go on. Raises `StoreError`."""
        lanes = sorted(self._placed, key=str)
        for lane in lanes:
            await self._say(lane)
        for lane in lanes:
            while await self._line_up(lane):
                pass
        for lane in lanes:
            if lane not in self._paused:
                with self.connection.translated():
                    await self.connection.client.hdel(lane.meta, "paused")
        with self.connection.translated():
            await self.connection.client.delete(MARK)

    # -- runs ----------------------------------------------------------------------------------

    async def _hold(self, frame: Frame) -> None:
        """Keep a run until there are enough of them for a call."""
        lane = Lane(frame[1], frame[2])
        held = self._batch.setdefault(lane, [])
        held.append(frame)
        self.runs += 1
        self._size += sum(_size(part) for part in frame[4:7])
        if len(held) >= _RUNS or self._size >= _BYTES:
            await self._flush()

    async def _flush(self) -> None:
        batch, self._batch, self._size = self._batch, {}, 0
        for lane, frames in batch.items():
            await self._claim(lane)
            with self.connection.translated():
                pipe = self.connection.client.pipeline(transaction=False)
                for frame in frames:
                    _write(pipe, lane, frame)
                await pipe.execute()
                await call(
                    self.connection.scripts, "place", lane, _places(frames, self.retention_s)
                )

    async def _spilled(self, queue: str, number: int, run_id: str, page: Mapping[Any, Any]) -> None:
        with self.connection.translated():
            key = Lane(queue, number).spilled(run_id)
            await self.connection.client.hset(key, mapping=page)
            ttl = await self.connection.client.pttl(Lane(queue, number).run(run_id))
            if ttl > 0:
                await self.connection.client.pexpire(key, ttl)

    async def _line_up(self, lane: Lane) -> int:
        args: list[Argument] = [round(self.retention_s * 1000), _LINE]
        with self.connection.translated():
            left: int = await call(self.connection.scripts, "line_up", lane, args)
        return left

    # -- the lanes -----------------------------------------------------------------------------

    async def _claim(self, lane: Lane) -> None:
        """Have nobody take anything of a lane before all of it is there."""
        if lane not in self._placed:
            self._placed.add(lane)
            with self.connection.translated():
                await self.connection.client.hset(lane.meta, "paused", "1")

    async def _lane(
        self,
        queue: str,
        number: int,
        meta: Mapping[str, Any],
        trials: Mapping[Any, Any],
        tried: Mapping[Any, Any],
    ) -> None:
        lane = Lane(queue, number)
        await self._claim(lane)
        if "paused" in meta:
            self._paused.add(lane)
        with self.connection.translated():
            await self.connection.client.hset(lane.meta, mapping={**meta, "paused": "1"})
            for key, fields in ((lane.trials, trials), (lane.tried, tried)):
                if fields:
                    await self.connection.client.hset(key, mapping=fields)

    async def _starts(self, queue: str, number: int, starts: Sequence[Mapping[Any, Any]]) -> None:
        lane = Lane(queue, number)
        await self._claim(lane)
        with self.connection.translated():
            pipe = self.connection.client.pipeline(transaction=False)
            for fields in starts:
                pipe.xadd(_unsaid(lane), fields)
            await pipe.execute()

    async def _say(self, lane: Lane) -> None:
        """Say what stood aside: starts of children that their parents wait for, and ends."""
        after = "-"
        while True:
            with self.connection.translated():
                page = await self.connection.client.xrange(
                    _unsaid(lane), after, "+", count=_ENTRIES
                )
                if not page:
                    await self.connection.client.delete(_unsaid(lane))
                    return
                after = f"({page[-1][0].decode()}"
                said = await self._wanted(lane, [fields for _, fields in page])
                pipe = self.connection.client.pipeline(transaction=False)
                for fields in said:
                    pipe.xadd(lane.outbox, fields)
                if said:
                    await pipe.execute()

    async def _wanted(
        self, lane: Lane, said: Sequence[Mapping[bytes, bytes]]
    ) -> Sequence[Mapping[bytes, bytes]]:
        """Leave out starts that the copied parent does not know of: it will start them anew."""
        starts = [fields for fields in said if fields[b"kind"] == b"start"]
        pipe = self.connection.client.pipeline(transaction=False)
        for fields in starts:
            box = lane.received(fields[b"run"].decode())
            pipe.hexists(box, b"+" + fields[b"id"])
        known = await pipe.execute() if starts else []
        strange = {id(fields) for fields, here in zip(starts, known, strict=True) if not here}
        return [fields for fields in said if id(fields) not in strange]

    async def _marked(self) -> bool:
        with self.connection.translated():
            return bool(await self.connection.client.exists(MARK))


def _write(pipe: Any, lane: Lane, frame: Frame) -> None:
    """Write the keys of a run in the place of whatever an earlier frame said of it."""
    run_id, record, journal, received, events = frame[3:8]
    parts = ((lane.run(run_id), record), (lane.journal(run_id), journal),
             (lane.received(run_id), received))  # fmt: skip
    pipe.delete(*(key for key, _ in parts), lane.events(run_id), lane.spilled(run_id))
    for key, fields in parts:
        rows = list(fields.items())
        for first in range(0, len(rows), _FIELDS):
            pipe.hset(key, mapping=dict(rows[first : first + _FIELDS]))
    for entry, said in events:
        pipe.xadd(lane.events(run_id), said, id=entry)


def _places(frames: Sequence[Frame], retention_s: float) -> list[Argument]:
    args: list[Argument] = []
    for frame in frames:
        ttl_ms, due, dead = frame[8:]
        args += (frame[3], ttl_ms if ttl_ms >= 0 else round(retention_s * 1000), due, dead)
    return args


def _size(fields: Mapping[bytes, bytes]) -> int:
    return sum(len(value) for value in fields.values())


def _unsaid(lane: Lane) -> str:
    """Stream: what a lane has to say in others once everything is there."""
    return f"{lane.prefix}unsaid"


async def _ours(connection: Connection) -> AsyncIterator[bytes]:
    """Iterate over the keys that are there already."""
    nodes: list[dict[str, Any]] = [{}]
    if connection.address.kind is StoreKind.CLUSTER:
        with connection.translated():
            await connection.client.initialize()
        nodes = [{"target_nodes": node} for node in connection.client.get_primaries()]
    for node in nodes:
        with connection.translated():
            async for key in connection.client.scan_iter("millstream:*", count=1000, **node):
                yield key
