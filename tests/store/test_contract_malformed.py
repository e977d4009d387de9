"""commit.lua, refusing: Lua does not roll back, so a malformed item must write nothing at all.

Not even what stands before it in the same commit: the caller learns nothing of any item, and
must be able to send the sound ones again.
"""

from __future__ import annotations

import pytest

from millstream.errors import StoreError, UsageError
from millstream.store import commits
from millstream.store.commits import Item
from millstream.store.scripts import Argument, call, script
from tests.store.bench import Bench

WRONG: dict[str, list[Argument]] = {
    "an unknown operation": ["X", "r1", 1],
    "an empty operation": [""],
    "a journal cut short": ["J", "r1", 1, "1", 2, "a", "1", "b"],
    "a journal of no number": ["J", "r1", 1, "1", "many"],
    "a journal of a negative number": ["J", "r1", 1, "1", -1, "a", "1"],
    "a journal of half a record": ["J", "r1", 1, "1", "0.5", "a"],
    "an event cut short": ["E", "r1", 1, "1", "e", "said"],
    "a saying cut short": ["S", "r1", 1, 1, "", "step"],
    "a saying of no number": ["S", "r1", 1, "first", "", "step", "[]"],
    "an end in no state": ["D", "r1", 1, "1", "normal", "1-1", 9, "done", "x", 0, ""],
    "an end that is none": ["D", "r1", 1, "1", "normal", "1-1", 9, "running", "x", 0, ""],
    "an end without retention": ["D", "r1", 1, "1", "normal", "1-1", "", "failed", "x", 0, ""],
    "an end kept for ever": ["D", "r1", 1, "1", "normal", "1-1", "inf", "failed", "x", 0, ""],
    "an end at no level": ["D", "r1", 1, "1", "urgent", "1-1", 9, "failed", "x", 0, ""],
    "an end of no entry": ["D", "r1", 1, "1", "normal", "first", 9, "failed", "x", 0, ""],
    "an end cut short": ["D", "r1", 1, "1", "normal", "1-1", 9, "failed", "x", 0],
    "a retry that waits for nan": ["R", "r1", 1, "1", "normal", "1-1", 9, "nan", 0, "e"],
    "a retry in the past": ["R", "r1", 1, "1", "normal", "1-1", 9, -5, 0, "e"],
    "a retry that drops no number": ["R", "r1", 1, "1", "normal", "1-1", 9, 5, "x", "e"],
    "a retry cut short": ["R", "r1", 1, "1", "normal", "1-1", 9, 5, 2, "e", "a"],
    "a park until never": ["P", "r1", 1, "1", "normal", "1-1", 9, "never", 0],
    "a park that ran for nan": ["P", "r1", 1, "1", "normal", "1-1", 9, 5, "nan"],
    "a release at no level": ["L", "r1", 1, "1", "", "1-1", 9],
    "a refusal without a pause": ["U", "r1", 1, "1", "normal", "1-1", 9, "x"],
    "an adoption at no level": ["A", "urgent", "1-1"],
    "an adoption of no entry": ["A", "normal", "-"],
    "a hand-back at no level": ["H", "urgent", "1-1", 9],
    "a hand-back of no entry": ["H", "normal", "*", 9],
    "a hand-back without retention": ["H", "normal", "1-1", "x"],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
async def test_a_malformed_item_writes_nothing(bench: Bench, wrong: list[Argument]) -> None:
    """Neither before it nor after it, and nothing is taken either."""
    held = await bench.held("r1")
    await bench.accept("r2")
    wrong = [held.entry if value == "1-1" else value for value in wrong]
    before = await bench.snapshot()
    sound: Item = commits.journal(held, [("a", b"1")], "1")
    head: list[Argument] = ["w1", 0, 1, 0, 0, 10, 1000, 10, 10, 0]

    for items in ([*sound, *wrong], [*wrong, *sound]):
        with pytest.raises(StoreError), bench.store.translated():
            await call(bench.redis, "commit", bench.lane, [*head, *items])
        assert await bench.snapshot() == before

    reply = await bench.commit("w1", sound)
    assert reply.verdicts == (commits.Verdict.WRITTEN,)


async def test_an_item_of_more_records_than_a_journal_holds_writes_nothing(bench: Bench) -> None:
    """However many they are: it is refused by itself, and the items beside it stand."""
    held = await bench.held("r1")
    huge = commits.journal(held, [(f"k{n}", b"1") for n in range(20_000)], "1")

    reply = await bench.commit("w1", commits.journal(held, [("a", b"1")], "1"), huge)

    assert reply.verdicts == (commits.Verdict.WRITTEN, commits.Verdict.FULL)
    assert await bench.journal("r1") == {"a": b"1"}


async def test_too_few_fixed_arguments_never_leave_the_process(bench: Bench) -> None:
    """The header of a script is its contract; a call that does not fit is our mistake."""
    with pytest.raises(UsageError, match="script commit takes"):
        script("commit").arguments(bench.lane, ["w1", 0])
    with pytest.raises(UsageError, match="script depth takes"):
        script("depth").arguments(bench.lane, ["too many"])
