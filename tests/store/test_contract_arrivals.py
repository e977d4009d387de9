"""What a blocking read brings is held by the script behind it, or told as a stray; never lost."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import fail_after

from millstream.model.outcome import Completed
from millstream.store import arrivals, commits, deliveries
from millstream.store.arrivals import Arrival
from millstream.store.commits import Verdict
from millstream.store.connection import Connection
from millstream.store.scripts import ExecutesTogether
from tests.store.bench import Bench

pytestmark = pytest.mark.anyio
BLOCK_S = 10.0


async def wait(
    bench: Bench, client: Any, after: Mapping[str, str] | None = None, block_s: float = BLOCK_S
) -> Arrival:
    return await arrivals.wait(
        bench.store, client, bench.lane, "w1", block_s, after=after or {}, suspect=True
    )


async def test_what_comes_while_the_read_waits_is_held_at_once(bench: Bench) -> None:
    """The script stands in the packet of the read: it is not sent when the delivery has come."""
    found: list[Arrival] = []
    with fail_after(20):
        async with aclosing(bench.store.new_reader(BLOCK_S)) as reader:
            # What is executed once is known from then on.
            await commits.commit(bench.store, bench.lane, "w1", [])

            async def read() -> None:
                found.append(await wait(bench, reader))

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.lowlevel.checkpoint()
                await bench.accept("r1")

    (taken,), strays, now = found[0]
    assert (taken.run_id, taken.fence, taken.records) == ("r1", 1, 0)
    assert now is not None
    assert now * 1000 >= int(taken.entry.partition("-")[0])
    assert list(strays) == []
    assert await bench.verdict("w1", commits.journal(taken, [("step#0", b"[1]")], "1")) is (
        Verdict.WRITTEN
    )


async def test_each_level_brings_one(bench: Bench) -> None:
    for level in ("high", "normal", "low"):
        await bench.accept(f"{level}-1", f"{level}-2", priority=level)

    taken, strays, _ = await wait(bench, bench.redis)

    assert [each.run_id for each in taken] == ["high-1", "normal-1", "low-1"]
    assert list(strays) == []
    assert len(await bench.pending()) == 3


async def test_a_read_without_an_end_brings_nothing(bench: Bench) -> None:
    assert await wait(bench, bench.redis, block_s=0.01) == Arrival((), [])


async def test_what_is_held_already_is_left_alone(bench: Bench) -> None:
    """A hint that is out of date costs a detour, never a run that is under way."""
    held = await bench.held("first")
    await bench.accept("second")

    taken, strays, _ = await wait(bench, bench.redis)

    assert taken == ()
    (second,) = strays
    assert (second.level, second.entry > held.entry) == ("normal", True)
    assert await bench.verdict("w1", commits.ending(held, Completed(b"1"), "1", 60)) is (
        Verdict.WRITTEN
    )
    verdict, (adopted,) = await bench.adopt("w1", second.level, second.entry)
    assert (verdict, adopted.run_id, adopted.fence) == (Verdict.WRITTEN, "second", 1)


async def test_what_comes_behind_what_is_held_is_found(bench: Bench) -> None:
    held = await bench.held("first")
    await bench.accept("second")

    (taken,), strays, _ = await wait(bench, bench.redis, {"normal": held.entry})

    assert (taken.run_id, taken.fence, list(strays)) == ("second", 1, [])


async def test_what_was_cancelled_meanwhile_is_not_begun(bench: Bench) -> None:
    await bench.accept("r1")
    await bench.cancel("r1")

    taken, strays, _ = await wait(bench, bench.redis)

    assert taken == ()
    for stray in strays:
        assert (await bench.adopt("w1", stray.level, stray.entry)) == (Verdict.FENCED, [])
    assert await bench.pending() == []


async def test_it_is_executed_twice_with_the_effect_of_once(bench: Bench) -> None:
    """Whatever has become of the connection: what is held is not taken again by it."""
    await bench.accept("r1")
    (stray,) = await bench.read("w1")
    item = commits.brought("normal", "0-0")

    first = await bench.commit("w1", item)
    again = await bench.commit("w1", item)
    others = await bench.commit("w2", item)

    assert [each.run_id for each in first.taken] == ["r1"]
    assert (again.verdicts, again.taken) == ((Verdict.FENCED,), ())
    assert (others.verdicts, others.taken) == ((Verdict.FENCED,), ())
    account = await deliveries.holdings(bench.store, bench.lane, "w1", [])
    assert account.strays == (stray,)


async def test_a_server_that_lacks_the_script_still_delivers(bench: Bench) -> None:
    """After a restart: the next commit sends the text, and adopts."""
    await bench.accept("r1")
    await bench.redis.execute_command("SCRIPT", "FLUSH")
    async with aclosing(bench.store.new_reader(BLOCK_S)) as reader:
        taken, strays, _ = await wait(bench, reader)

    ids = [each.run_id for each in taken]
    for stray in strays:
        _, adopted = await bench.adopt("w1", stray.level, stray.entry)
        ids += [each.run_id for each in adopted]
    assert ids == ["r1"]


async def test_connections_of_one_server_send_both_together(store: Connection) -> None:
    """Otherwise it would be the way back and forth that this is to spare."""
    async with aclosing(store.new_reader(1.0)) as reader:
        assert isinstance(reader, ExecutesTogether) is not store.in_memory
