"""Copies a store that is in use, frame by frame: what `archives` keeps and `restores` brings back.

Each run is read by one script, so it is whole: what its record says, its journal has. The copy
has the runs that were accepted before it began, each as it was at some moment since; it is no
moment of the whole store, and need not be. What two runs know of each other is made to agree: a
child that its parent waits for is in the copy, however late it was started, and restoring tells
ends once more.

Streams, leases and lists of workers are not copied: they say who held what, and nobody will. Never
more than a few runs are in memory. It does not know files.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from millstream.errors import StoreError
from millstream.model.limits import KIB, MIB
from millstream.store import layouts
from millstream.store.archives import Frame
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.plain import conversation, plain_keys
from millstream.store.scanning import key_pages
from millstream.store.scripts import Argument, call

#: Keys that are looked at in one call, runs that are read in one, and the bytes at which it ends.
_SCAN = 1_000
_RUNS = 100
_BUDGET = 1 * MIB
_ENTRIES = 500
#: How deep a tree of children may be that grows while it is copied.
_ROUNDS = 100
#: How often a run is read again that begins anew under the reader's hands.
_TRIES = 5
#: Only what makes a journal of this many bytes can have values beside it.
_SPILLS_FROM = 10 * KIB
_KEY = re.compile(rb"millstream:\{([^}]*)\}:?(.*)", re.DOTALL)
_LANE = re.compile(rb"([^:]+):(\d+)")
#: What belongs to a run goes with its record. The rest is said anew by whoever is alive.
_OF_RUNS = (b"journal:", b"events:", b"received:", b"spilled:")
_LEFT_OUT = (
    b"leases", b"agents", b"timers", b"parked", b"ended", b"dead", b"placing", b"unsaid",
    b"control:", b"stream:", b"backlog:", b"turns", b"limited", b"permits:", b"dedupe:",
    b"debounce:", b"rate:",
)  # fmt: skip
_LANE_KEYS = (b"meta", b"trials", b"tried", b"outbox")
_TAGS = (
    b"scheduler", b"session", b"schedules", b"audit", b"keys", b"restore", b"pushes", b"gateway",
)  # fmt: skip
_META = ("lanes", "epoch", "past", "next", "paused", "trials", "depth")


@dataclass(slots=True)
class Backup:
    """One copy on its way. Iterate over `frames`; afterwards the rest says what it came to."""

    connection: Connection
    #: When it began, by the clock of Redis, in ms.
    began_ms: int = 0
    #: Keys of a kind that this release does not know, and one of them.
    unknown: int = 0
    unknown_key: str = ""
    _lanes: set[Lane] = field(default_factory=set)
    #: Children that their parents wait for and that were not there yet: (queue, id).
    _awaited: set[tuple[str, str]] = field(default_factory=set)
    _layouts: dict[str, layouts.Layout] = field(default_factory=dict)

    async def frames(self) -> AsyncIterator[Frame]:
        """Read everything, once. Raises `StoreError`."""
        with self.connection.translated():
            seconds, micros = await self.connection.client.time()
        self.began_ms = int(seconds) * 1000 + int(micros) // 1000
        # So that all is read later than that: what a parent starts after it was read is then
        # no run of before.
        await anyio.sleep(0.002)
        yield ["began", self.began_ms]
        waiting: dict[Lane, list[str]] = {}
        async for found in self._found():
            if isinstance(found, bytes):
                async for frame in conversation(self.connection, found):
                    yield frame
                continue
            lane, run_id = found
            ids = waiting.setdefault(lane, [])
            ids.append(run_id)
            if len(ids) == _RUNS:
                async for frame in self._runs(lane, waiting.pop(lane), "before"):
                    yield frame
        for lane, ids in waiting.items():
            async for frame in self._runs(lane, ids, "before"):
                yield frame
        async for frame in self._children():
            yield frame
        for lane in sorted(self._lanes, key=str):
            yield await self._lane(lane)
        async for frame in plain_keys(self.connection):
            yield frame

    async def _children(self) -> AsyncIterator[Frame]:
        """Read what is to be started, and what was started in the meantime.

        A start that is not in its outbox any more was heard: the child is looked for after the
        outbox was read. What such a child waits for itself is looked for in the next round.
        """
        looked_for: set[tuple[str, str]] = set()
        for _ in range(_ROUNDS):
            for lane in sorted(self._lanes, key=str):
                async for frame in self._starts(lane):
                    yield frame
            fresh = self._awaited - looked_for
            if not fresh:
                return
            looked_for |= fresh
            for child in fresh:
                async for frame in self._child(*child):
                    yield frame
        raise StoreError("children are started faster than they can be copied; try again")

    # -- finding -------------------------------------------------------------------------------

    async def _found(self) -> AsyncIterator[tuple[Lane, str] | bytes]:
        """Go through every key of every master: runs, and keys of conversations.

        What stays is met at least once.
        """
        async for page in key_pages(self.connection, "millstream:*", _SCAN):
            for key in page:
                if found := self._classify(key):
                    yield found

    def _classify(self, key: bytes) -> tuple[Lane, str] | bytes | None:
        """Return the run whose record this key is, or the key; note what else it says."""
        tag, name = found.groups() if (found := _KEY.fullmatch(key)) else (b"", key)
        if tag.startswith(b"talk:"):
            return key
        place = _LANE.fullmatch(tag)
        if place is None or tag.startswith((b"board:", b"pool:")):
            if tag not in _TAGS and not tag.startswith((b"board:", b"pool:", b"session")):
                self._wonder(key)
            return None
        lane = Lane(place[1].decode(), int(place[2]))
        if name.startswith(b"run:"):
            self._lanes.add(lane)
            return lane, name[4:].decode()
        if name in _LANE_KEYS:
            self._lanes.add(lane)
        elif not name.startswith((*_OF_RUNS, *_LEFT_OUT)):
            self._wonder(key)
        return None

    def _wonder(self, key: bytes) -> None:
        self.unknown += 1
        self.unknown_key = self.unknown_key or key.decode("utf-8", "replace")

    # -- runs ----------------------------------------------------------------------------------

    async def _runs(self, lane: Lane, ids: Sequence[str], side: str) -> AsyncIterator[Frame]:
        """Read runs of a lane, and the children that they wait for."""
        left = list(ids)
        while left:
            args: list[Argument] = [side, self.began_ms, _BUDGET, *left]
            with self.connection.translated():
                read, *rows = await call(self.connection.scripts, "copy", lane, args)
            left = left[read:]
            for row in rows:
                run = _Run.of(lane, row)
                async for frame in self._run(run, side):
                    yield frame
                for queue, child in run.children():
                    self._awaited.add((queue, child))
                    async for frame in self._child(queue, child):
                        yield frame

    async def _run(self, run: _Run, side: str) -> AsyncIterator[Frame]:
        """Read what stands beside the journal of a run; all again if it begins anew meanwhile."""
        for _ in range(_TRIES):
            yield run.frame()
            if not run.may_have_spilled:
                return
            async for frame in self._spilled(run):
                yield frame
            args: list[Argument] = [side, self.began_ms, 0, run.id]
            with self.connection.translated():
                _, *rows = await call(self.connection.scripts, "copy", run.lane, args)
            if not rows or (again := _Run.of(run.lane, rows[0])).generation == run.generation:
                return
            run = again

    async def _spilled(self, run: _Run) -> AsyncIterator[Frame]:
        cursor, first = 0, True
        while cursor or first:
            first = False
            with self.connection.translated():
                cursor, page = await self.connection.client.hscan(
                    run.lane.spilled(run.id), cursor, count=2
                )
            if page:
                yield ["spilled", run.lane.queue, run.lane.number, run.id, page]

    async def _child(self, queue: str, run_id: str) -> AsyncIterator[Frame]:
        """Read a child that was accepted after the copy began; the others are met anyway."""
        if queue not in self._layouts:
            self._layouts[queue] = await layouts.layout(self.connection, queue)
        for number in self._layouts[queue].numbers(run_id):
            lane = Lane(queue, number)
            with self.connection.translated():
                there = await self.connection.client.hget(lane.run(run_id), "enqueued")
            if there is not None:
                self._awaited.discard((queue, run_id))
                self._lanes.add(lane)
                if int(there) >= self.began_ms:
                    async for frame in self._runs(lane, [run_id], "since"):
                        yield frame
                return

    # -- the lanes -----------------------------------------------------------------------------

    async def _lane(self, lane: Lane) -> Frame:
        with self.connection.translated():
            values = await self.connection.client.hmget(lane.meta, *_META)
            trials = await self.connection.client.hgetall(lane.trials)
            tried = await self.connection.client.hgetall(lane.tried)
        meta = {name: x for name, x in zip(_META, values, strict=True) if x is not None}
        return ["lane", lane.queue, lane.number, meta, trials, tried]

    async def _starts(self, lane: Lane) -> AsyncIterator[Frame]:
        after = "-"
        while True:
            with self.connection.translated():
                page = await self.connection.client.xrange(lane.outbox, after, "+", count=_ENTRIES)
            starts = [fields for _, fields in page if fields[b"kind"] == b"start"]
            if starts:
                yield ["starts", lane.queue, lane.number, starts]
            if len(page) < _ENTRIES:
                return
            after = f"({page[-1][0].decode()}"


@dataclass(frozen=True, slots=True)
class _Run:
    """A run as the script has read it."""

    lane: Lane
    id: str
    record: dict[bytes, bytes]
    journal: dict[bytes, bytes]
    received: dict[bytes, bytes]
    events: list[tuple[bytes, dict[bytes, bytes]]]
    ttl_ms: int
    due_ms: bytes
    dead_ms: bytes

    @classmethod
    def of(cls, lane: Lane, row: Sequence[Any]) -> _Run:
        run_id, record, journal, received, events, ttl, due, dead = row
        said = [(entry, _pairs(fields)) for entry, fields in events]
        return cls(
            lane=lane,
            id=run_id.decode(),
            record=_pairs(record),
            journal=_pairs(journal),
            received=_pairs(received),
            events=said,
            ttl_ms=ttl,
            due_ms=due,
            dead_ms=dead,
        )

    @property
    def may_have_spilled(self) -> bool:
        return int(self.record.get(b"bytes", b"0")) >= _SPILLS_FROM

    @property
    def generation(self) -> bytes:
        return self.record.get(b"generation", b"0")

    def children(self) -> list[tuple[str, str]]:
        """Queue and id of every child that has not ended, as far as this run knows."""
        open_ = [(queue, name) for name, queue in self.received.items() if name[:1] == b"+"]
        return [(queue.decode(), name[1:].decode()) for queue, name in open_]

    def frame(self) -> Frame:
        return [
            "run", self.lane.queue, self.lane.number, self.id, self.record, self.journal,
            self.received, self.events, self.ttl_ms, self.due_ms, self.dead_ms,
        ]  # fmt: skip


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
