"""What stands in the store right now, read behind its back: no command, no time, no fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from millstream.model import ids
from millstream.model.schedule import Progress
from millstream.store import schedules
from millstream.store.keys import FRESH, GROUP, LEVELS, Lane
from tests.simulation.network import Network

_EMPTY: Mapping[bytes, Any] = {}


class View:
    """The lanes of a queue. They were there before the first run, and stay as many."""

    def __init__(self, network: Network, lanes: Sequence[Lane]) -> None:
        self._db = network.server.dbs[0]
        self.lanes = [LaneView(network, lane) for lane in lanes]

    def of(self, run_id: str) -> LaneView:
        """Return the lane of a run."""
        return self.lanes[ids.lane_of(run_id, len(self.lanes))]

    def look_for_runs(self) -> None:
        """Find the runs there are: new ones have been enqueued."""
        for lane in self.lanes:
            lane.look_for_runs()

    def ids(self) -> list[str]:
        """Return the ids of all runs that have a record."""
        return [run_id for lane in self.lanes for run_id in lane.ids()]

    def live(self) -> Iterator[tuple[str, Mapping[bytes, bytes], Mapping[bytes, bytes]]]:
        """Yield the record and the journal of every run; live values, not to be kept."""
        for lane in self.lanes:
            yield from lane.live()

    def run(self, run_id: str) -> dict[bytes, bytes]:
        """Return the record of a run; empty when there is none."""
        return self.of(run_id).run(run_id)

    def held_by(self, token: str) -> set[str]:
        """Return the ids of the runs that a process is running, by the account of the store."""
        return {run_id for lane in self.lanes for run_id in lane.held_by(token)}

    def journal(self, run_id: str) -> Mapping[bytes, bytes]:
        """Return the journal of a run; the live value, not to be kept."""
        return self.of(run_id).journal(run_id)

    def received(self, run_id: str) -> Mapping[bytes, bytes]:
        """Return what was sent to a run and waits; the live value, not to be kept."""
        return self.of(run_id).received(run_id)

    def said(self, run_id: str) -> list[tuple[bytes, bytes]]:
        """Return what a run has said: kind and data of each event."""
        return self.of(run_id).said(run_id)

    def waits(self) -> set[str]:
        """Return what is kept of those who wait for a turn or a permit, or hold one."""
        waiting = {run_id.decode() for lane in self.lanes for run_id in lane.beside()}
        return waiting.union(*(lane.permits() for lane in self.lanes))

    def progress(self, schedule: str) -> Progress | None:
        """Return how far a schedule has come; None when there is none."""
        found = self._db._dict.get(schedules.key(schedule).encode())
        return found and msgspec.json.decode(found.value._values[b"progress"], type=Progress)

    def posted(self) -> int:
        """Return how much stands in the outboxes."""
        return sum(lane.posted() for lane in self.lanes)

    def length(self) -> tuple[int, ...]:
        """Return how long the streams and the indexes are."""
        return tuple(number for lane in self.lanes for number in lane.length())


class LaneView:
    """The keys of one lane."""

    def __init__(self, network: Network, lane: Lane) -> None:
        self.lane = lane
        self._db = network.server.dbs[0]
        self._run_prefix = lane.run("").encode()
        self._ids: list[str] = []
        self._keys: dict[str, tuple[bytes, bytes]] = {}

    def look_for_runs(self) -> None:
        """Find the runs there are: new ones have been enqueued."""
        prefix = self._run_prefix
        self._ids = [
            key[len(prefix) :].decode() for key in self._db._dict if key.startswith(prefix)
        ]
        self._keys = {
            run_id: (self.lane.run(run_id).encode(), self.lane.journal(run_id).encode())
            for run_id in self._ids
        }

    def ids(self) -> list[str]:
        """Return the ids of all runs that have a record."""
        return self._ids

    def live(self) -> Iterator[tuple[str, Mapping[bytes, bytes], Mapping[bytes, bytes]]]:
        """Yield the record and the journal of every run; live values, not to be kept."""
        items = self._db._dict
        for run_id, (run, journal) in self._keys.items():
            found = items.get(journal)
            yield run_id, items[run].value._values, _EMPTY if found is None else found.value._values

    def stands(self, key: str) -> bool:
        """Whether there is such a key."""
        return self._item(key.encode()) is not None

    def run(self, run_id: str) -> dict[bytes, bytes]:
        """Return the record of a run; empty when there is none."""
        return dict(self._hash(self.lane.run(run_id)))

    def held_by(self, token: str) -> set[str]:
        """Return the ids of the runs that a process is running, by the account of the store."""
        owner = token.encode()
        return {
            run_id
            for run_id in self.ids()
            if (run := self.run(run_id)).get(b"state") == b"running" and run.get(b"owner") == owner
        }

    def journal(self, run_id: str) -> Mapping[bytes, bytes]:
        """Return the journal of a run; the live value, not to be kept."""
        return self._hash(self.lane.journal(run_id))

    def scores(self, key: str) -> Mapping[bytes, float]:
        """Return a sorted set: member to score."""
        found = self._item(key.encode())
        return _EMPTY if found is None else found._bylex

    def beside(self) -> set[bytes]:
        """Return the queued runs that stand in no stream: they wait for a turn, or for a permit."""
        lane = self.lane
        return {
            run_id
            for key in (*(lane.backlog(level) for level in FRESH), lane.limited)
            for run_id in self.scores(key)
        }

    def permits(self) -> set[str]:
        """Return the keys that say who holds a permit."""
        prefix = f"{self.lane.prefix}permits:"
        return {key.decode() for key in self._db._dict if key.startswith(prefix.encode())}

    def members(self, key: str) -> list[bytes]:
        """Return a set."""
        found = self._item(key.encode())
        return [] if found is None else sorted(found._values)

    def fields(self, key: str) -> Mapping[bytes, bytes]:
        """Return a hash."""
        return self._hash(key)

    def entries(self) -> list[tuple[str, str, str, str | None]]:
        """Return every entry of every stream: level, entry, run id, the consumer it is with."""
        found = []
        for level in LEVELS:
            stream = self._item(self.lane.stream(level).encode())
            if stream is None:
                continue
            group = stream.group_get(GROUP.encode())
            for key in stream._ids:
                pending = group.pel.get(key) if group else None
                consumer = pending.consumer_name.decode() if pending else None
                if pending is None and group and key <= group.last_delivered_key:
                    consumer = ""  # delivered and acknowledged, but not deleted
                values = stream._values_dict[key]
                found.append((level, key.encode().decode(), values[1].decode(), consumer))

        return found

    def consumers(self) -> set[str]:
        """Return the names of all consumers of all streams."""
        found = set()
        for level in LEVELS:
            stream = self._item(self.lane.stream(level).encode())
            group = stream.group_get(GROUP.encode()) if stream is not None else None
            found |= {name.decode() for name in (group.consumers if group else {})}

        return found

    def length(self) -> tuple[int, ...]:
        """Return how long the streams and the indexes are."""
        streams = [self._item(self.lane.stream(level).encode()) for level in LEVELS]
        return (
            *(0 if stream is None else len(stream._ids) for stream in streams),
            len(self.scores(self.lane.timers)),
            len(self.scores(self.lane.parked)),
            len(self.beside()),
        )

    def received(self, run_id: str) -> Mapping[bytes, bytes]:
        """Return what was sent to a run and waits; the live value, not to be kept."""
        return self._hash(self.lane.received(run_id))

    def posted(self) -> int:
        """Return how much stands in the outbox."""
        stream = self._item(self.lane.outbox.encode())
        return 0 if stream is None else len(stream._ids)

    def said(self, run_id: str) -> list[tuple[bytes, bytes]]:
        """Return what a run has said: kind and data of each event."""
        stream = self._item(self.lane.events(run_id).encode())
        rows = [] if stream is None else [stream._values_dict[key] for key in stream._ids]
        fields = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
        return [(found.get(b"kind", b"emit"), found[b"data"]) for found in fields]

    def _hash(self, key: str) -> Mapping[bytes, bytes]:
        found = self._item(key.encode())
        return _EMPTY if found is None else found._values

    def _item(self, key: bytes) -> Any:
        item = self._db._dict.get(key)
        return None if item is None or self._db.expired(item) else item.value
