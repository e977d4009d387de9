"""A lane on a bench: small verbs, so that a test reads as what happens to a run."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from millstream.model.limits import LIMITS, Limits
from millstream.model.outcome import Outcome
from millstream.model.run import Delivery, RunState
from millstream.store import commits, deliveries, leases, runs
from millstream.store.commits import CommitReply, Item, Verdict, Want
from millstream.store.connection import Connection
from millstream.store.keys import GROUP, LEVELS, Lane
from millstream.store.runs import NewRun

#: Long enough that nothing lapses or expires by itself while a test runs.
LEASE_S = 60.0
RETENTION_S = 3600.0
LONG_S = 1000.0

Snapshot = dict[str, Any]
Send = Callable[..., Awaitable[Any]]


async def brought(
    connection: Connection, client: Any, lane: Lane, token: str
) -> list[deliveries.Stray]:
    """Let the blocking read bring what waits, as if the script behind it was not executed."""
    read, level_of = deliveries.blocking_read(lane, token, 0.01, suspect=True, canary=False)
    reply = await client.execute_command(*read)
    return await deliveries.delivered(connection, reply, level_of)


@dataclass(slots=True)
class Bench:
    """One lane of one store, and what a test does with it."""

    store: Connection
    lane: Lane = field(default_factory=lambda: Lane("default"))

    @property
    def redis(self) -> Any:
        """The client, for looking and for meddling."""
        return self.store.client

    async def prepare(self) -> None:
        """Make the groups, teach the server the sweep, and end the hold that this begins."""
        await deliveries.ensure_groups(self.store, self.lane)
        await self.sweep()
        await self.redis.hset(self.lane.meta, "hold", "0")

    # -- what clients do

    async def accept(self, *ids: str, **values: Any) -> list[runs.Answer]:
        """Enqueue runs with the same values."""
        new = {"workflow": "flow", "arguments": b"{}", **values}
        answers = await runs.enqueue(self.store, self.lane, 0, [NewRun(id=x, **new) for x in ids])
        assert isinstance(answers, list)
        return answers

    async def cancel(self, *ids: str, retention_s: float = RETENTION_S) -> list[str]:
        """Ask for runs to end."""
        return await runs.cancel(self.store, self.lane, ids, retention_s)

    async def revive(self, *ids: str) -> list[str]:
        """Start ended runs once more."""
        return await runs.revive(self.store, self.lane, ids)

    # -- what workers do

    async def commit(
        self, token: str, *items: Item, want: Want = commits.NOTHING, limits: Limits = LIMITS
    ) -> CommitReply:
        """Send a commit."""
        return await commits.commit(self.store, self.lane, token, items, want, limits=limits)

    async def verdict(self, token: str, item: Item, limits: Limits = LIMITS) -> Verdict:
        """Send one item and return what became of it."""
        reply = await self.commit(token, item, limits=limits)
        (verdict,) = reply.verdicts
        return verdict

    async def take(self, token: str, count: int = 1, *, suspect: bool = True) -> list[Delivery]:
        """Take what waits, whatever its level."""
        reply = await self.commit(token, want=Want(normal=count, suspect=suspect))
        return list(reply.taken)

    async def held(self, run_id: str = "r1", token: str = "w1", **values: Any) -> Delivery:
        """Accept one run and take it; nothing else may be waiting."""
        assert await self.accept(run_id, **values) == [True]
        (delivery,) = await self.take(token)
        assert delivery.run_id == run_id
        return delivery

    async def end(self, held: Delivery, outcome: Outcome, token: str = "w1") -> Verdict:
        """Give a delivery its end."""
        return await self.verdict(token, ending(held, outcome))

    async def adopt(self, token: str, level: str, entry: str) -> tuple[Verdict, list[Delivery]]:
        """Adopt one delivery."""
        reply = await self.commit(token, commits.adopt(level, entry))
        return reply.verdicts[0], list(reply.taken)

    async def read(self, token: str) -> list[deliveries.Stray]:
        """Let the blocking read bring what waits, one delivery a level; nothing is adopted."""
        return await brought(self.store, self.redis, self.lane, token)

    async def sweep(
        self,
        token: str = "sweeper",
        *,
        interval_s: float = 0,
        lease_s: float = LEASE_S,
        poison: int = 3,
        limits: Limits = LIMITS,
    ) -> leases.Sweep:
        """Look after the lane; never too soon unless an interval is given."""
        return await leases.sweep(
            self.store,
            self.lane,
            token,
            interval_s=interval_s,
            lease_s=lease_s,
            retention_s=RETENTION_S,
            poison=poison,
            limits=limits,
        )

    async def renew(self, *tokens: str, lease_s: float = LEASE_S) -> None:
        """Let processes say that they are alive."""
        for token in tokens:
            await leases.renew(self.store, [self.lane], token, lease_s)

    # -- what time does

    async def lapse(self, *tokens: str) -> None:
        """Let leases run out; who has none gets none."""
        await self.redis.zadd(self.lane.leases, dict.fromkeys(tokens, 1), xx=True)

    async def fall_due(self, *ids: str) -> None:
        """Let the time of scheduled and parked runs come."""
        for index in (self.lane.timers, self.lane.parked):
            await self.redis.zadd(index, dict.fromkeys(ids, 1), xx=True)

    async def expire(self, run_id: str) -> None:
        """Let the retention of an ended run pass; its index learns of it in the next sweep."""
        lane = self.lane
        keys = (lane.run, lane.journal, lane.events, lane.received, lane.spilled)
        for key in (each(run_id) for each in keys):
            await self.redis.pexpireat(key, 1)
        await self.redis.zadd(lane.ended, {run_id: 1}, xx=True)

    # -- what stands between

    def intercept(self, monkeypatch: Any, act: Callable[[Send, Sequence[Any]], Any]) -> None:
        """Have ``act(send, command)`` stand in for the sending of every command, and of scripts."""
        # By identity: in memory, and where hiredis is missing, both are the same client.
        for client in {id(x): x for x in (self.redis, self.store.scripts)}.values():
            send = client.execute_command
            monkeypatch.setattr(client, "execute_command", _intercepted(send, act))

    # -- what stands in the store

    async def now_ms(self) -> int:
        """The clock of the store."""
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def fields(self, run_id: str) -> dict[str, str]:
        """The record of a run."""
        found = await self.redis.hgetall(self.lane.run(run_id))
        return {key.decode(): value.decode() for key, value in found.items()}

    async def state(self, run_id: str) -> RunState | None:
        """The state of a run."""
        found = await self.fields(run_id)
        return RunState(found["state"]) if found else None

    async def journal(self, run_id: str) -> dict[str, bytes]:
        """The journal of a run, undecoded."""
        found = await self.redis.hgetall(self.lane.journal(run_id))
        return {key.decode(): value for key, value in found.items()}

    async def waiting(self) -> list[tuple[str, str]]:
        """(level, run id) of every entry of the streams, held or not."""
        found = []
        for level in LEVELS:
            for _, entry in await self.redis.xrange(self.lane.stream(level)):
                found.append((level, entry[b"id"].decode()))
        return found

    async def pending(self) -> list[tuple[str, str, str]]:
        """(level, entry, token) of every delivery."""
        found = []
        for level in LEVELS:
            rows = await self.redis.xpending_range(self.lane.stream(level), GROUP, "-", "+", 10_000)
            found += [(level, x["message_id"].decode(), x["consumer"].decode()) for x in rows]
        return found

    async def consumers(self) -> set[str]:
        """Every consumer that a stream's group knows."""
        found = set()
        for level in LEVELS:
            for row in await self.redis.xinfo_consumers(self.lane.stream(level), GROUP):
                found.add(row["name"].decode())
        return found

    async def keys(self) -> set[str]:
        """Every key of the store."""
        return {key.decode() for key in await self.redis.keys("*")}

    async def snapshot(self) -> Snapshot:
        """Everything that stands in the store, to be compared."""
        content: Snapshot = {"pending": await self.pending()}
        for key in sorted(await self.keys()):
            content[key] = await self._content(key)
        return content

    async def _content(self, key: str) -> Any:
        kind = (await self.redis.type(key)).decode()
        match kind:
            case "hash":
                return await self.redis.hgetall(key)
            case "zset":
                return await self.redis.zrange(key, 0, -1, withscores=True)
            case "stream":
                return await self.redis.xrange(key)
            case "set":
                return await self.redis.smembers(key)
            case _:
                return await self.redis.get(key)


def ending(held: Delivery, outcome: Outcome, version: str = "1", drop: Sequence[str] = ()) -> Item:
    """The item that gives a delivery its end."""
    return commits.ending(held, outcome, version, RETENTION_S, drop)


def _intercepted(send: Send, act: Callable[[Send, Sequence[Any]], Any]) -> Send:
    async def execute_command(*command: Any, **options: Any) -> Any:
        return await act(functools.partial(send, **options), command)

    return execute_command
