"""commit.lua, writing: what the holder says is kept once, what anybody else says is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.limits import LIMITS, Limits
from millstream.model.outcome import Completed, Parked, Released, Retry
from millstream.model.run import Delivery
from millstream.store import codec, commits, journals, sayings
from millstream.store.commits import Item, Verdict
from tests.store.bench import Bench, ending

SMALL = Limits(journal_records=3, journal_bytes=100, events=100)


def note(held: Delivery, *pairs: tuple[str, bytes], version: str = "1") -> Item:
    return commits.journal(held, pairs, version)


def say(held: Delivery, key: str, data: bytes = b'["n",1]') -> Item:
    return commits.emit(held, key, b"said", data, "1")


async def test_records_are_kept_under_their_keys(bench: Bench) -> None:
    """A replay finds every step by its key."""
    held = await bench.held("r1")

    assert await bench.verdict("w1", note(held, ("a", b"1"), ("b", b"2"))) is Verdict.WRITTEN
    assert await bench.verdict("w1", note(held, ("c", b"3"))) is Verdict.WRITTEN

    assert await bench.journal("r1") == {"a": b"1", "b": b"2", "c": b"3"}


async def test_a_result_replaces_its_intent(bench: Bench) -> None:
    """One step, one record: what was about to happen, then what came of it."""
    held = await bench.held("r1")

    await bench.verdict("w1", note(held, ("a", b"intent")))
    await bench.verdict("w1", note(held, ("a", b"ok")))

    assert await bench.journal("r1") == {"a": b"ok"}


async def test_a_run_stays_on_the_version_that_first_wrote(bench: Bench) -> None:
    """A replay by other code than the one that began would not follow the journal."""
    held = await bench.held("r1")
    assert "version" not in await bench.fields("r1")

    await bench.verdict("w1", note(held, ("a", b"1"), version="1"))
    await bench.verdict("w1", note(held, ("b", b"2"), version="2"))

    assert (await bench.fields("r1"))["version"] == "1"


async def test_a_loaded_journal_is_what_was_written(bench: Bench) -> None:
    """Records survive the way through the store, also where they fill many pages."""
    held = await bench.held("r1")
    record = Record(
        kind=StepKind.TOOL, target="time/now", digest="abc", status=RecordStatus.OK,
        value={"x": [1, "é"]}, attempts=2, began=1.5, took_s=0.25, run_attempt=3, by="w1",
    )  # fmt: skip
    written = {f"step {number}": record._replace(value=number) for number in range(1_200)}
    pairs = [(key, codec.encode_record(value, LIMITS.record)) for key, value in written.items()]

    assert await bench.verdict("w1", commits.journal(held, pairs, "1")) is Verdict.WRITTEN

    assert await journals.load(bench.store, bench.lane, "r1") == written
    assert await journals.load(bench.store, bench.lane, "other") == {}
    await bench.end(held, Released())
    (again,) = await bench.take("w2")
    assert again.records == 1_200


@pytest.mark.parametrize("wrong", ["token", "fence behind", "fence ahead", "no such run"])
async def test_nobody_but_the_holder_writes(bench: Bench, wrong: str) -> None:
    """A worker that slept through its lease must not touch a run that moved on."""
    first = await bench.held("r1")
    await bench.end(first, Released())
    (held,) = await bench.take("w1")
    token = "w2" if wrong == "token" else "w1"
    if wrong == "fence behind":
        held = first
    elif wrong == "fence ahead":
        held = held._replace(fence=held.fence + 1)
    elif wrong == "no such run":
        held = held._replace(run_id="r2")
    before = await bench.snapshot()
    outcomes = (Completed(b"1"), Retry(1, "E", "m"), Parked(1, 1), Released())
    items = [note(held, ("a", b"1")), say(held, "e"), *(ending(held, x) for x in outcomes)]

    for item in items:
        assert await bench.verdict(token, item) is Verdict.FENCED
    reply = await bench.commit(token, *items)

    assert set(reply.verdicts) == {Verdict.FENCED}
    assert await bench.snapshot() == before


async def test_nothing_is_journaled_after_the_end(bench: Bench) -> None:
    """The fence still matches, but the delivery has been given back."""
    for run_id, outcome in (("r1", Completed(b"1")), ("r2", Parked(1, 1)), ("r3", Released())):
        held = await bench.held(run_id)
        reply = await bench.commit("w1", ending(held, outcome), note(held, ("a", b"1")))
        assert reply.verdicts == (Verdict.WRITTEN, Verdict.FENCED)
        assert await bench.verdict("w1", say(held, "e")) is Verdict.FENCED
        assert await bench.journal(run_id) == {}


async def test_items_are_applied_in_their_order(bench: Bench) -> None:
    """The last steps of a run and its end leave in one commit."""
    held = await bench.held("r1")

    reply = await bench.commit(
        "w1", note(held, ("a", b"1")), say(held, "e"), ending(held, Completed(b"1"))
    )

    assert reply.verdicts == (Verdict.WRITTEN,) * 3
    assert await bench.journal("r1") == {"a": b"1", "e": b"said"}


async def test_one_refused_item_never_spoils_the_others(bench: Bench) -> None:
    """A hundred runs share a commit; each has its own verdict."""
    await bench.accept("r1", "r2", "r3", "r4")
    one, two, three, four = await bench.take("w1", 4)
    await bench.cancel("r3")
    big = note(two, ("a", b"x" * 101))

    reply = await bench.commit(
        "w1",
        note(one, ("a", b"1")),
        note(one._replace(fence=9), ("b", b"1")),
        big,
        note(three, ("a", b"1")),
        commits.adopt("normal", "1-1"),
        ending(four, Completed(b"1")),
        limits=SMALL,
    )

    assert reply.verdicts == (
        Verdict.WRITTEN, Verdict.FENCED, Verdict.FULL, Verdict.CANCEL, Verdict.FENCED,
        Verdict.WRITTEN,
    )  # fmt: skip
    assert [await bench.journal(f"r{n}") for n in (1, 2, 3)] == [{"a": b"1"}, {}, {"a": b"1"}]


async def test_a_commit_sent_twice_changes_nothing_more(bench: Bench) -> None:
    """After a lost reply everything is sent again, and every verdict is the same."""
    await bench.accept("r1", "r2")
    one, two = await bench.take("w1", 2)
    items = [note(one, ("a", b"1"), ("b", b"2")), say(one, "e"), ending(two, Completed(b"1"))]
    first = await bench.commit("w1", *items)
    before = await bench.snapshot()

    again = await bench.commit("w1", *items)

    assert again.verdicts == first.verdicts == (Verdict.WRITTEN,) * 3
    after = await bench.snapshot()
    for content in (before, after):
        content[bench.lane.run("r1")].pop(b"bytes")
    assert after == before


async def test_a_full_journal_takes_no_further_record(bench: Bench) -> None:
    """At the bound the run gets a named error, and nothing is written half."""
    held = await bench.held("r1")
    await bench.verdict("w1", note(held, ("a", b"1"), ("b", b"2")), SMALL)
    before = await bench.snapshot()

    over = note(held, ("c", b"3"), ("d", b"4"))
    assert await bench.verdict("w1", over, SMALL) is Verdict.FULL
    assert await bench.verdict("w1", note(held, ("c", b"x" * 99)), SMALL) is Verdict.FULL
    assert await bench.snapshot() == before

    assert await bench.verdict("w1", note(held, ("c", b"x" * 98)), SMALL) is Verdict.WRITTEN
    before = await bench.snapshot()
    assert await bench.verdict("w1", say(held, "e"), SMALL) is Verdict.FULL
    assert await bench.snapshot() == before


async def test_a_repetition_at_the_bound_is_not_full(bench: Bench) -> None:
    """It was written, the reply was lost: the run must not fail for what it has."""
    held = await bench.held("r1")
    by_count = note(held, ("a", b"1"), ("b", b"2"), ("c", b"3"))
    assert await bench.verdict("w1", by_count, SMALL) is Verdict.WRITTEN
    assert await bench.verdict("w1", by_count, SMALL) is Verdict.WRITTEN

    other = await bench.held("r2")
    by_size = note(other, ("a", b"x" * 60))
    assert await bench.verdict("w1", by_size, SMALL) is Verdict.WRITTEN
    assert await bench.verdict("w1", by_size, SMALL) is Verdict.WRITTEN
    assert await bench.verdict("w1", by_size, SMALL) is Verdict.WRITTEN
    assert (await bench.fields("r2"))["bytes"] == "60"


async def test_a_result_still_fits_where_its_intent_was_the_last_record(bench: Bench) -> None:
    """The call was made: its answer must find its place."""
    held = await bench.held("r1")
    await bench.verdict("w1", note(held, ("a", b"1"), ("b", b"2"), ("c", b"intent")), SMALL)

    assert await bench.verdict("w1", note(held, ("c", b"ok")), SMALL) is Verdict.WRITTEN

    assert (await bench.journal("r1"))["c"] == b"ok"


async def test_a_journal_far_from_its_bytes_can_still_be_over_by_one_record(bench: Bench) -> None:
    """A replacement counts by what it adds, not by its size."""
    held = await bench.held("r1")
    await bench.verdict("w1", note(held, ("a", b"x" * 60)), SMALL)

    assert await bench.verdict("w1", note(held, ("a", b"y" * 100)), SMALL) is Verdict.WRITTEN
    assert await bench.verdict("w1", note(held, ("a", b"y" * 101)), SMALL) is Verdict.FULL
    assert await bench.verdict("w1", note(held, ("b", b"z")), SMALL) is Verdict.FULL

    assert await bench.journal("r1") == {"a": b"y" * 100}


async def test_the_writer_is_told_of_a_cancellation(bench: Bench) -> None:
    """The step is kept all the same: it happened."""
    held = await bench.held("r1")
    await bench.cancel("r1")

    assert await bench.verdict("w1", note(held, ("a", b"1"))) is Verdict.CANCEL
    assert await bench.verdict("w1", say(held, "e")) is Verdict.CANCEL

    assert await bench.journal("r1") == {"a": b"1", "e": b"said"}


async def test_what_is_said_is_said_once(bench: Bench) -> None:
    """A replayed or repeated emit finds its record and stays silent."""
    held = await bench.held("r1")
    items = [say(held, "e1", b'["progress",1]'), say(held, "e2", b'["progress",2]')]
    await bench.commit("w1", *items)
    await bench.commit("w1", *items, items[0])
    await bench.end(held, Released())
    (again,) = await bench.take("w2")
    assert await bench.verdict("w2", say(again, "e1")) is Verdict.WRITTEN

    heard = (await sayings.heard(bench.store, bench.lane, "r1", "")).said

    assert [(event.name, event.data) for event in heard] == [("progress", 1), ("progress", 2)]
    rest = (await sayings.heard(bench.store, bench.lane, "r1", heard[0].id)).said
    assert [event.data for event in rest] == [2]
    none = (await sayings.heard(bench.store, bench.lane, "r1", heard[1].id)).said
    assert none == ()


async def test_events_are_bounded(bench: Bench) -> None:
    """The oldest are dropped: a run that talks much must not fill the store."""
    held = await bench.held("r1")
    limits = replace(SMALL, journal_records=10_000, journal_bytes=10**6)

    for first in range(0, 500, 100):
        await bench.commit(
            "w1", *(say(held, f"e{number}") for number in range(first, first + 100)), limits=limits
        )

    # The bound is soft by one node of a stream, which is 100 entries.
    assert 100 <= await bench.redis.xlen(bench.lane.events("r1")) <= 200
    assert len(await bench.journal("r1")) == 500


async def test_a_full_batch_fits_into_one_commit(bench: Bench) -> None:
    """The bound of a batch is a size that the script can take."""
    ids = [f"r{number}" for number in range(500)]
    await bench.accept(*ids)
    taken = await bench.take("w1", 500)

    reply = await bench.commit("w1", *(ending(held, Completed(b"1")) for held in taken))

    assert reply.verdicts == (Verdict.WRITTEN,) * 500
    assert await bench.waiting() == []
    assert await bench.pending() == []


async def test_a_record_far_from_every_bound_takes_three_commands(bench: Bench) -> None:
    """Agents record many steps: whether one is new is found out by writing it."""
    if bench.store.in_memory:
        pytest.skip("it does not count its commands")
    held = await bench.held()
    await bench.verdict("w1", commits.journal(held, [("step#0", b"[1]")], "1"))
    second = commits.journal(held, [("step#1", b"[1,2]")], "1")
    await bench.redis.config_resetstat()

    assert await bench.verdict("w1", second) is Verdict.WRITTEN

    counted = await bench.redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): row["calls"] for name, row in counted.items()}
    assert {name: calls[name] for name in calls if name.startswith("h")} == {
        "hmget": 1, "hsetnx": 1, "hset": 1,
    }  # fmt: skip
    # Said twice, it counts once.
    assert await bench.verdict("w1", second) is Verdict.WRITTEN
    assert await bench.redis.hget(bench.lane.run(held.run_id), "bytes") == b"8"
