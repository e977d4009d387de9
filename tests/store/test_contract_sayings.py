"""commit.lua, telling: what stands in no journal is said once, and what is missing is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from millstream.model.limits import LIMITS
from millstream.model.outcome import Completed, Parked, Released
from millstream.model.progress import EventKind, Saying
from millstream.model.run import Delivery
from millstream.store import codec, commits, sayings
from millstream.store.commits import ONCE_ANSWERED, ONCE_WRITTEN, Item, Verdict
from tests.store.bench import Bench, ending

FEW = replace(LIMITS, events=100)


def tell(held: Delivery, number: int, when: str = "", data: object = None) -> Item:
    said = codec.encode(["started", number if data is None else data], "it")
    return commits.say(held, number, Saying(EventKind.STEP, said), when)


def note(held: Delivery, key: str = "a", record: bytes = b"1") -> Item:
    return commits.journal(held, [(key, record)], "1")


async def heard(bench: Bench) -> list[object]:
    found = await sayings.heard(bench.store, bench.lane, "r1", "")
    assert all((x.kind, x.name) == (EventKind.STEP, "started") for x in found.said)
    return [each.data for each in found.said]


async def test_a_commit_that_is_sent_again_says_nothing_again(bench: Bench) -> None:
    """Its reply was lost: what is said under one fence is numbered."""
    held = await bench.held("r1")
    items = [tell(held, 1), note(held), tell(held, 2, ONCE_WRITTEN)]

    for _ in range(2):
        reply = await bench.commit("w1", *items)
        assert set(reply.verdicts) == {Verdict.WRITTEN}
    await bench.commit("w1", tell(held, 2), tell(held, 3))

    assert await heard(bench) == [1, 2, 3]
    await bench.end(held, Released())
    (again,) = await bench.take("w2")
    await bench.verdict("w2", tell(again, 1, data="anew"))
    assert await heard(bench) == [1, 2, 3, "anew"]


async def test_what_was_not_written_is_not_said_to_be(bench: Bench) -> None:
    """A step whose record found no room has not ended."""
    held = await bench.held("r1")
    full = replace(LIMITS, journal_records=1, journal_bytes=10)

    reply = await bench.commit(
        "w1", note(held), tell(held, 1, ONCE_WRITTEN), note(held, "b", b"x" * 20),
        tell(held, 2, ONCE_WRITTEN), limits=full,
    )  # fmt: skip

    assert reply.verdicts == (Verdict.WRITTEN, Verdict.WRITTEN, Verdict.FULL, Verdict.FULL)
    assert await heard(bench) == [1]


async def test_the_end_of_a_wait_is_said_as_it_came(bench: Bench) -> None:
    """Whether there was a message is known in the script alone."""
    held = await bench.held("r1")
    parts = codec.Parts(b"[1,", b"[2,", b"]")

    def look(number: int) -> list[Item]:
        wait = commits.look(held, "s", "s:go", parts, b"[1,null]", "1")
        return [wait, tell(held, number, ONCE_ANSWERED), tell(held, number + 1, ONCE_WRITTEN)]

    reply = await bench.commit("w1", *look(1))
    assert reply.verdicts == (Verdict.WRITTEN,) * 3
    assert await heard(bench) == [2]

    box = bench.lane.received("r1")
    await bench.redis.hset(box, mapping={"1": "7", "~s:go": "1", "#": "1", "#count": "1"})
    await bench.redis.hset(bench.lane.run("r1"), "received", "1")
    reply = await bench.commit("w1", *look(3))
    assert reply.verdicts == (Verdict.ANSWERED,) * 3
    assert await heard(bench) == [2, 3]


async def test_nobody_but_the_holder_says_anything(bench: Bench) -> None:
    held = await bench.held("r1")

    assert await bench.verdict("w2", tell(held, 1)) is Verdict.FENCED
    assert await bench.verdict("w1", tell(held._replace(fence=9), 1)) is Verdict.FENCED
    assert await bench.verdict("w1", tell(held, 1, ONCE_WRITTEN)) is Verdict.FENCED
    reply = await bench.commit("w1", ending(held, Parked(1, 1)), tell(held, 1))

    assert reply.verdicts == (Verdict.WRITTEN, Verdict.FENCED)
    assert bench.lane.events("r1") not in await bench.keys()


async def test_what_was_said_leaves_with_the_run(bench: Bench) -> None:
    held = await bench.held("r1")
    await bench.commit("w1", tell(held, 1), ending(held, Completed(b"1")))

    assert await bench.redis.pttl(bench.lane.events("r1")) > 0


async def test_whoever_stops_a_run_that_talks_is_heard(bench: Bench) -> None:
    held = await bench.held("r1")
    await bench.cancel("r1")

    assert await bench.verdict("w1", tell(held, 1)) is Verdict.CANCEL


@pytest.mark.parametrize("most", [7, 1000])
async def test_what_is_not_kept_any_more_is_counted(bench: Bench, most: int) -> None:
    """The oldest leave; a reader learns how many it has missed, and goes on from what there is."""
    held = await bench.held("r1")
    await bench.commit("w1", *(tell(held, n) for n in range(1, 6)), limits=FEW)
    first = await sayings.heard(bench.store, bench.lane, "r1", "", most)
    assert (first.before, first.cut, [x.data for x in first.said]) == (0, False, [1, 2, 3, 4, 5])
    seen = first.said[-1].id
    for begin in range(6, 406, 100):
        told = (tell(held, n) for n in range(begin, begin + 100))
        await bench.commit("w1", *told, limits=FEW)

    late = await sayings.heard(bench.store, bench.lane, "r1", "", most)
    again = await sayings.heard(bench.store, bench.lane, "r1", seen, most)

    assert late.before is not None
    assert late.before >= 200
    assert late.said[0].data == late.before + 1, "as many are missing as it says"
    assert again == replace(late, cut=True)
    rest = await sayings.heard(bench.store, bench.lane, "r1", late.said[0].id, most)
    assert not rest.cut
    assert rest.before in {None, late.before + 1}


async def test_a_run_that_has_said_nothing_has_left_nothing_out(bench: Bench) -> None:
    await bench.held("r1")

    assert await sayings.heard(bench.store, bench.lane, "r1", "") == sayings.Heard((), 0, cut=False)
    nothing = await sayings.heard(bench.store, bench.lane, "r1", "5-0")
    assert nothing == sayings.Heard((), None, cut=False)
