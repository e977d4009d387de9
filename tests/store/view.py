"""The store as the model sees it: items written out, and all that stands there read back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from millstream.model.run import Delivery, RunState
from millstream.store import runs
from millstream.store.commits import Item
from millstream.store.keys import FRESH, GROUP, LEVELS
from tests.store.bench import Bench
from tests.store.lines import MOST
from tests.store.model import Given, Op


def to_item(op: Op) -> Item:  # noqa: PLR0911 - one return for each kind
    """The arguments of an item: written out here, so that the order of the header is checked."""
    head: Item = [op.run_id, op.fence, op.version]
    place: Item = [*head, op.level, op.entry, 3_600_000]
    match op.kind:
        case "J":
            return ["J", *head, len(op.records), *itertools.chain(*op.records)]
        case "E":
            ((key, record),) = op.records
            return ["E", *head, key, record, f'["{key}",1]']
        case "D":
            dead = int(op.state is RunState.FAILED)
            return ["D", *place, op.state, op.payload, dead, "\n".join(op.drop)]
        case "R":
            return ["R", *place, 1_000_000, len(op.drop), op.payload, *op.drop]
        case "P":
            return ["P", *place, 4_000_000_000_000, 0, op.heard, "\n".join(op.awaits)]
        case "W":
            ((key, otherwise),) = op.records
            return ["W", *head, key, otherwise, *op.awaits, "open", "done", "."]
        case "K":
            item: Item = ["K", *place[:-1], len(op.limits)]
            for name in op.limits:
                item += (name, MOST[name], 0)
            return item
        case "L":
            return ["L", *place]
        case "U":
            return ["U", *place, 1_000_000]
        case "A":
            return ["A", op.level, op.entry]
        case _:
            return ["H", op.level, op.entry, 3_600_000]


async def look(bench: Bench, ids: Sequence[str]) -> dict[str, Any]:
    """Everything that stands in the store, in few round trips."""
    lane = bench.lane
    indexes = (lane.timers, lane.parked, lane.ended, lane.dead, lane.leases)
    pipe = bench.redis.pipeline(transaction=False)
    for run_id in ids:
        pipe.hgetall(lane.run(run_id))
        pipe.hgetall(lane.journal(run_id))
        pipe.xrange(lane.events(run_id))
        pipe.hgetall(lane.received(run_id))
    for index in indexes:
        pipe.zrange(index, 0, -1)
    for level in FRESH:
        pipe.zrange(lane.backlog(level), 0, -1, withscores=True)
    for name in MOST:
        pipe.hgetall(f"{lane.prefix}permits:{name}")
        pipe.zrange(f"{lane.prefix}limited:{name}", 0, -1)
    pipe.zrange(lane.limited, 0, -1)
    for level in LEVELS:
        pipe.xrange(lane.stream(level))
        pipe.xpending_range(lane.stream(level), GROUP, "-", "+", 1000)
    replies = iter(await pipe.execute())

    seen: dict[str, Any] = {}
    for run_id in ids:
        fields, journal, events = text(next(replies)), text(next(replies)), next(replies)
        said = [fields_[b"data"].decode().split('"')[1] for _, fields_ in events]
        seen[run_id] = (essence(fields), journal, said, waiting(text(next(replies))))
    for index in indexes:
        seen[index] = [run_id.decode() for run_id in next(replies)]
    for level in FRESH:
        backlog = [(int(turn), run_id.decode()) for run_id, turn in next(replies)]
        seen[lane.backlog(level)] = backlog
    for name in MOST:
        holders_, line = text(next(replies)), next(replies)
        permits = {run_id: int(fence) for run_id, fence in holders_.items()}
        seen[f"limit {name}"] = (permits, [run_id.decode() for run_id in line])
    seen[lane.limited] = [run_id.decode() for run_id in next(replies)]
    for level in LEVELS:
        entries, pending = next(replies), next(replies)
        holders = {row["message_id"]: row["consumer"].decode() for row in pending}
        assert set(holders) <= {name for name, _ in entries}, "an entry pending for nothing"
        seen[lane.stream(level)] = [
            (name.decode(), fields_[b"id"].decode(), holders.get(name)) for name, fields_ in entries
        ]
    depth = await runs.depth(bench.store, lane)
    seen["depth"] = (
        depth.waiting, depth.running, depth.scheduled, depth.due, depth.parked, depth.dead,
        depth.limited,
    )  # fmt: skip
    return seen


def essence(fields: dict[str, str]) -> dict[str, Any]:
    """The fields of a record that the model knows."""
    if not fields:
        return {}
    state = RunState(fields["state"])
    payload = fields.get("result" if state is RunState.COMPLETED else "error", "")
    return {
        "state": state,
        "workflow": fields["workflow"],
        "owner": fields.get("owner", ""),
        "version": fields.get("version", ""),
        "cancel": "cancel" in fields,
        "payload": payload,
        "entry": fields.get("entry"),
        "attempt": int(fields.get("attempt", 1)),
        **{name: int(fields.get(name, 0)) for name in ("fence", "base", "crashes", "refusals")},
    }


def waiting(received: dict[str, str]) -> dict[str, list[str]]:
    """The messages that wait, by name and in order; every number is one, and counted."""
    found = {
        name[1:]: [received[number] for number in numbers.split()]
        for name, numbers in received.items()
        if name[0] == "~"
    }
    count = sum(map(len, found.values()))
    assert count == int(received.get("#count", 0)) == sum(name.isdigit() for name in received)
    size = sum(len(each) for part in found.values() for each in part)
    assert size == int(received.get("#bytes", 0))
    return found


def text(found: dict[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in found.items()}


def to_given(held: Delivery) -> Given:
    return Given(
        held.run_id, held.fence, held.level, held.attempt, held.base, held.crashes,
        held.refusals, held.records, held.received,
    )  # fmt: skip
