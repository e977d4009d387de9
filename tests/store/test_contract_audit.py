"""audit.lua: what stands in the trail stays, in one chain, whoever writes at the same time."""

from __future__ import annotations

import anyio
import pytest

from millstream.model.audit import Act, Break, Chain, End, entry_of
from millstream.store import audit
from millstream.store.audit import TRAIL
from millstream.store.connection import Connection


def act(target: str) -> Act:
    return Act(
        actor="ada", origin="here", verb="cancel", queue="q", target=target, result="cancelled",
        details={"why": "ö"},
    )  # fmt: skip


async def broken(store: Connection) -> Break | None:
    """The first place where the chain does not hold, as far as there are entries."""
    base, _ = await audit.bounds(store)
    chain = Chain(base)
    async for line in audit.lines(store, base.seq):
        found = chain.follow(line.text, line.hash)
        if found is not None:
            return found
    return None


async def targets(store: Connection) -> list[str]:
    return [entry_of(line.text).target async for line in audit.lines(store)]


async def test_acts_stand_in_the_order_in_which_they_were_told(store: Connection) -> None:
    assert await audit.bounds(store) == (End(), End())

    await audit.append(store, [act("r1")])
    end = await audit.append(store, [act("r2"), act("r3")])

    assert await targets(store) == ["r1", "r2", "r3"]
    assert end.seq == 3
    assert await audit.bounds(store) == (End(), end)
    assert await broken(store) is None


async def test_an_entry_says_who_did_what_when_from_where_with_what_result(
    store: Connection,
) -> None:
    await audit.append(store, [act("r1")])

    (line,) = [line async for line in audit.lines(store)]
    entry = entry_of(line.text)
    seconds, _ = await store.client.time()
    assert (entry.actor, entry.origin, entry.verb) == ("ada", "here", "cancel")
    assert (entry.queue, entry.target, entry.result) == ("q", "r1", "cancelled")
    assert entry.details == {"why": "ö"}
    assert abs(entry.at / 1000 - int(seconds)) < 60


async def test_writers_at_the_same_time_make_one_chain(store: Connection) -> None:
    """Each of them knew another end; none overwrites, none is lost."""
    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(audit.append, store, [act(f"r{number}")])

    assert sorted(await targets(store)) == sorted(f"r{number}" for number in range(12))
    assert await broken(store) is None


async def test_a_trail_that_is_trimmed_can_still_be_verified(store: Connection) -> None:
    for number in range(30):
        await audit.append(store, [act(f"r{number}")], most=10)

    base, end = await audit.bounds(store)
    assert (base.seq, end.seq) == (20, 30)
    assert await targets(store) == [f"r{number}" for number in range(20, 30)]
    assert await broken(store) is None


async def test_what_is_too_old_goes_a_part_at_a_time_and_the_last_entry_stays(
    store: Connection,
) -> None:
    await audit.append(store, [act(f"r{number}") for number in range(15)])

    await audit.append(store, [act("new")], kept_s=-60)
    assert await targets(store) == [*(f"r{number}" for number in range(10, 15)), "new"]

    await audit.append(store, [act("newer")], kept_s=-60)
    assert await targets(store) == ["newer"]
    assert await broken(store) is None


async def test_an_entry_that_was_taken_out_is_missed(store: Connection) -> None:
    await audit.append(store, [act(f"r{number}") for number in range(5)])

    await store.client.xdel(TRAIL.keys[0], "3-0")

    assert await broken(store) == Break(3, "missing: 3")


@pytest.mark.parametrize("thorough", [False, True], ids=["careless", "with a hash that fits"])
async def test_an_entry_that_was_changed_shows(store: Connection, thorough: bool) -> None:
    """Also when whoever changed it made its hash anew: the next one knows the old one."""
    from millstream.model.audit import hash_of

    await audit.append(store, [act(f"r{number}") for number in range(3)])
    rows = await store.client.xrange(TRAIL.keys[0])
    await store.client.delete(TRAIL.keys[0])
    for id_, fields in rows:
        text, hash_ = fields[b"entry"], fields[b"hash"]
        if id_ == b"2-0":
            text = text.replace(b'"ada"', b'"eve"')
            hash_ = hash_of(text).encode() if thorough else hash_
        await store.client.xadd(TRAIL.keys[0], {"entry": text, "hash": hash_}, id=id_)

    found = await broken(store)
    assert found is not None
    assert found.seq == (3 if thorough else 2)
