"""spill.lua: what is too large for a journal is kept beside it, under the same fence and bounds."""

from __future__ import annotations

import pytest

from millstream.errors import KeyOccupied, NewerRecord, ValueLost
from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.model.limits import LIMITS, Limits
from millstream.model.outcome import Completed, Failed, Released
from millstream.model.run import Delivery
from millstream.store import codec, commits, spills
from millstream.store.commits import Verdict
from tests.store.bench import RETENTION_S, Bench, ending

#: Two parts, the second one shorter.
LARGE = bytes(range(256)) * (spills.PART // 256 + 100)


async def keep(
    bench: Bench, held: Delivery, data: bytes = LARGE, token: str = "w1", limits: Limits = LIMITS
) -> tuple[Verdict, Spilled]:
    spilled = spills.reference("step#0", data)
    verdict = await spills.keep(bench.store, bench.lane, token, held, spilled, data, limits)
    return verdict, spilled


async def test_a_value_comes_back_as_it_was(bench: Bench) -> None:
    """In as many parts as it takes, and said twice it stands once."""
    held = await bench.held("r1")

    for _ in range(2):
        verdict, spilled = await keep(bench, held)
        assert verdict is Verdict.WRITTEN
        assert (await bench.fields("r1"))["bytes"] == str(len(LARGE))

    assert spilled.parts == 2
    assert await spills.load(bench.store, bench.lane, "r1", spilled) == LARGE


async def test_parts_and_records_share_one_bound(bench: Bench) -> None:
    """However a run divides its bytes, it has no more of them."""
    held = await bench.held("r1")
    small = Limits(journal_bytes=len(LARGE) + 10)
    assert (await keep(bench, held, limits=small))[0] is Verdict.WRITTEN

    note = commits.journal(held, [("a", b"x" * 11)], "1")
    assert await bench.verdict("w1", note, small) is Verdict.FULL
    note = commits.journal(held, [("a", b"x" * 10)], "1")
    assert await bench.verdict("w1", note, small) is Verdict.WRITTEN
    longer = spills.reference("step#1", b"more")
    assert (
        await spills.keep(bench.store, bench.lane, "w1", held, longer, b"more", small)
        is Verdict.FULL
    )
    # What replaces something no larger is always let through.
    assert (await keep(bench, held, limits=small))[0] is Verdict.WRITTEN


async def test_only_the_holder_keeps_anything(bench: Bench) -> None:
    """A worker that was thought dead must not replace the value of who came after it."""
    held = await bench.held("r1")
    assert (await keep(bench, held, token="w2"))[0] is Verdict.FENCED
    assert (await keep(bench, held._replace(fence=9)))[0] is Verdict.FENCED
    await bench.end(held, Released())

    assert (await keep(bench, held))[0] is Verdict.FENCED
    assert bench.lane.spilled("r1") not in await bench.keys()


async def test_a_holder_hears_that_its_run_is_to_stop(bench: Bench) -> None:
    held = await bench.held("r1")
    await bench.cancel("r1")

    assert (await keep(bench, held))[0] is Verdict.CANCEL


@pytest.mark.parametrize("part", ["spilled", "run"])
async def test_a_foreign_key_costs_its_own_run(bench: Bench, part: str) -> None:
    held = await bench.held("r1")
    spilled = spills.reference("step#0", LARGE)
    key = getattr(bench.lane, part)("r1")
    await bench.redis.delete(key)
    await bench.redis.set(key, "not yours")

    assert (await keep(bench, held))[0] is Verdict.OCCUPIED
    if part == "spilled":
        with pytest.raises(KeyOccupied, match="large values of run 'r1'"):
            await spills.load(bench.store, bench.lane, "r1", spilled)


@pytest.mark.parametrize("harm", ["all", "part", "other"])
async def test_a_value_that_is_not_what_was_recorded_is_not_returned(
    bench: Bench, harm: str
) -> None:
    """A workflow must not go on with half of what a tool has said."""
    held = await bench.held("r1")
    _, spilled = await keep(bench, held)
    key = bench.lane.spilled("r1")
    match harm:
        case "all":
            await bench.redis.delete(key)
        case "part":
            await bench.redis.hdel(key, f"{spilled.name}:1")
        case _:
            await bench.redis.hset(key, f"{spilled.name}:0", b"y" * spills.PART)

    with pytest.raises(ValueLost, match="start it again under another id"):
        await spills.load(bench.store, bench.lane, "r1", spilled)


@pytest.mark.parametrize("outcome", [Completed(b"1"), Failed("E", "m")])
async def test_parts_live_as_long_as_their_run(bench: Bench, outcome: Completed | Failed) -> None:
    """They expire with its record, and stay when it is started once more."""
    held = await bench.held("r1")
    await keep(bench, held, b"x" * spills.LEAST)
    await bench.verdict("w1", ending(held, outcome))

    assert 0 < await bench.redis.pttl(bench.lane.spilled("r1")) <= RETENTION_S * 1000
    if isinstance(outcome, Failed):
        assert await bench.revive("r1") == ["queued"]
        assert await bench.redis.pttl(bench.lane.spilled("r1")) == -1


async def test_parts_go_with_a_run_that_ends_in_nobodys_hands(bench: Bench) -> None:
    """Cancelled while it waits, or given up by a sweep: the same end."""
    for name in ("poison", "waits"):
        held = await bench.held(name, token="w1")
        await keep(bench, held, b"x" * spills.LEAST)
        if name == "waits":
            await bench.end(held, Released())
            assert await bench.cancel(name) == ["cancelled"]
    await bench.renew("w1")
    await bench.lapse("w1")
    assert (await bench.sweep(poison=1)).poisoned == 1

    for name in ("waits", "poison"):
        assert 0 < await bench.redis.pttl(bench.lane.spilled(name)) <= RETENTION_S * 1000


def test_a_record_that_refers_to_a_value_is_no_record_of_before() -> None:
    """A release that does not know of references would take one for the value."""
    spilled = spills.reference("step#0", LARGE)
    record = Record(StepKind.TOOL, "s/t", "d", RecordStatus.OK, spilled)
    data = codec.encode_record(record, LIMITS.record)

    assert codec.decode_record(data) == record
    assert codec.decode(data)[0] == codec.SPILLED_VERSION == codec.RECORD_VERSION + 1
    with pytest.raises(NewerRecord):
        codec.decode_record(data.replace(b"[2,", b"[9,", 1))
