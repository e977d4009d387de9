"""What the store said of each run at its end, read before it expired."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import redis

from millstream.model.journal import Record
from millstream.store import catalogues, codec
from millstream.store.keys import GROUP, LEVELS, Lane
from tests.processes.fleet import Fleet
from tests.servers import RedisServer

LANE = Lane("default")
#: What living processes say of the workflows that they serve; it expires with them.
CATALOGUE = catalogues.board(LANE.queue).keys[0]
#: What a lane keeps however long nothing happens in it.
FIXED = {LANE.meta, LANE.leases, LANE.agents, CATALOGUE, *(LANE.stream(x) for x in LEVELS)}


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended."""

    state: str
    attempt: int
    fence: int
    crashes: int
    journal: dict[str, Record]


class Ledger:
    """Follows runs to their end by asking Redis itself; bears with a Redis that is away."""

    def __init__(self, server: RedisServer, runs: Iterable[str]) -> None:
        self._server = server
        self.waiting = list(runs)
        self.ended: dict[str, Ended] = {}

    def look(self) -> bool:
        """Note what has ended; return whether everything has."""
        try:
            with self._server.client(socket_timeout=2) as client:
                self._look(client)
        except redis.RedisError:
            return False  # it is being restarted
        return not self.waiting

    def _look(self, client: redis.Redis) -> None:
        pipe = client.pipeline(transaction=False)
        for run in self.waiting:
            pipe.hmget(LANE.run(run), "state", "attempt", "fence", "crashes")
            pipe.hgetall(LANE.journal(run))
        rows = pipe.execute()
        for run, head, journal in zip(self.waiting, rows[::2], rows[1::2], strict=True):
            state = (head[0] or b"gone").decode()
            if state in {"completed", "failed", "cancelled", "gone"}:
                records = {k.decode(): codec.decode_record(v) for k, v in journal.items()}
                attempt, fence, crashes = int(head[1] or 1), int(head[2] or 0), int(head[3] or 0)
                self.ended[run] = Ended(state, attempt, fence, crashes, records)
        self.waiting = [run for run in self.waiting if run not in self.ended]

    def states(self) -> set[str]:
        """Return the states that runs ended in."""
        return {ended.state for ended in self.ended.values()}

    def written_by_others(self, fleet: Fleet) -> list[str]:
        """Return the records that were not written by whoever held the run when it was its turn.

        Each worker logs which fence it took a run under, and how many records stood then. In a run
        whose steps follow one another the records between two takes are the work of the first
        taker, and of nobody else.
        """
        takes: dict[str, list[tuple[int, int, str]]] = {}
        for worker in fleet.workers:
            events = worker.events
            tokens = [x["worker"] for x in events if x["event"] == "worker_started"]
            for x in events:
                if x["event"] == "run_taken":
                    takes.setdefault(x["run_id"], []).append((x["fence"], x["records"], tokens[0]))

        wrong = []
        for run, ended in self.ended.items():
            for key, place in _places(ended.journal).items():
                owners = [token for _, stood, token in sorted(takes[run]) if stood <= place]
                if ended.journal[key].by != owners[-1]:
                    wrong.append(f"{run} {key}")
        return wrong


def _places(journal: dict[str, Record]) -> dict[str, int]:
    """Return the order in which the records of a chain were written: value, step, value, step."""

    def rank(key: str) -> tuple[int, bool]:
        name, _, number = key.rpartition("#")
        return int(number), name != "uuid"

    return {key: place for place, key in enumerate(sorted(journal, key=rank))}


def leftovers(server: RedisServer, living: set[str]) -> list[str]:
    """Return what a lane in which nothing happens should not have any more."""
    found = []
    with server.client() as client:
        found += [key.decode() for key in client.scan_iter(count=1000) if key.decode() not in FIXED]
        for index in (LANE.leases, LANE.agents):
            names = client.zrange(index, 0, -1) if index == LANE.leases else client.hkeys(index)
            found += [f"{index} {name.decode()}" for name in names if _token(name) not in living]
        for level in LEVELS:
            stream = LANE.stream(level)
            found += [f"{stream} holds {client.xlen(stream)}"] * bool(client.xlen(stream))
            for consumer in client.xinfo_consumers(stream, GROUP):
                name = consumer["name"].decode()
                found += [f"{stream} consumer {name}"] * (name not in living)
    return found


def _token(name: bytes) -> str:
    """Return whose lease, or whose field among the agents, this is."""
    return name.decode().removeprefix("sequence:")
