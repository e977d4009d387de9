"""commit.lua, in order: what was held up on its way does nothing when it arrives too late.

A worker that hears nothing sends again. The first message may still be under way, and arrive after
everything that followed: a network repeats what it could not deliver, also for a connection that
was closed.
"""

from __future__ import annotations

import pytest

from millstream.errors import StoreError
from millstream.model.outcome import Completed
from millstream.model.run import Delivery, RunState
from millstream.store import commits
from millstream.store.commits import CommitReply, Item, Verdict, Want
from millstream.store.keys import Lane
from tests.store.bench import Bench, ending


async def send(
    bench: Bench, sequence: int, *items: Item, token: str = "w1", want: int = 0
) -> CommitReply:
    return await commits.commit(
        bench.store, bench.lane, token, items, Want(normal=want), sequence=sequence
    )


def note(held: Delivery, value: bytes) -> Item:
    return commits.journal(held, [("step", value)], "1")


async def test_a_late_intent_does_not_undo_its_result(bench: Bench) -> None:
    """The step would seem to have no result, and would be asked about, or run again."""
    held = await bench.held("r1")
    await send(bench, 1, note(held, b"intent"))
    await send(bench, 2, note(held, b"intent"))
    await send(bench, 3, note(held, b"result"))
    before = await bench.snapshot()

    for late in (1, 2):
        with pytest.raises(StoreError, match="later commit"):
            await send(bench, late, note(held, b"intent"))

    assert await bench.snapshot() == before
    assert await bench.journal("r1") == {"step": b"result"}


async def test_a_late_take_takes_nothing(bench: Bench) -> None:
    """Its worker has given up waiting, and may have no slot any more."""
    await send(bench, 2)
    await bench.accept("r1")

    with pytest.raises(StoreError, match="later commit"):
        await send(bench, 1, want=1)

    assert await bench.pending() == []
    assert await bench.state("r1") is RunState.QUEUED


async def test_what_is_sent_again_under_a_new_number_is_heard(bench: Bench) -> None:
    """The reply was lost, not the message: nothing is done twice, and the end stands."""
    held = await bench.held("r1")
    items = [note(held, b"result"), ending(held, Completed(b"1"))]
    await send(bench, 1, *items)
    fields = await bench.fields("r1")

    reply = await send(bench, 2, *items)

    # The record finds a run that has ended; the last item speaks for all of a run.
    assert reply.verdicts == (Verdict.FENCED, Verdict.WRITTEN)
    assert await bench.fields("r1") == fields
    assert await bench.journal("r1") == {"step": b"result"}


async def test_every_process_and_every_lane_counts_for_itself(bench: Bench) -> None:
    """A new process begins at one, and so does an old one in another lane."""
    await send(bench, 9)

    await send(bench, 1, token="w2")
    await send(Bench(bench.store, Lane("other")), 1)

    with pytest.raises(StoreError):
        await send(bench, 9)


async def test_what_is_not_counted_is_always_heard(bench: Bench) -> None:
    """Tools and tests send one thing at a time."""
    held = await bench.held("r1")
    await send(bench, 5)

    reply = await send(bench, 0, note(held, b"result"))

    assert reply.verdicts == (Verdict.WRITTEN,)
    await send(bench, 6)


async def test_a_malformed_commit_uses_no_number_up(bench: Bench) -> None:
    """Nothing was done, so the sound part of it may be sent under the same number."""
    held = await bench.held("r1")
    with pytest.raises(StoreError, match="malformed"):
        await send(bench, 1, ["A", "nowhere", "1-1"])

    reply = await send(bench, 1, note(held, b"result"))

    assert reply.verdicts == (Verdict.WRITTEN,)


async def test_the_number_of_a_process_that_is_gone_goes_with_it(bench: Bench) -> None:
    """A fleet that is renewed every day must not leave one for each process it ever had."""
    await bench.renew("w1")
    before = await bench.keys()
    await send(bench, 1)
    assert await bench.keys() != before

    await bench.lapse("w1")
    await bench.sweep()

    assert await bench.keys() == before - {bench.lane.leases}
