"""What the scripts do about sealed values: they tell them from others, and replace them whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.errors import SealKeyMissing
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.outcome import Completed, Parked
from millstream.store import codec, commits, keyring, messages, records, runs
from millstream.store.commits import Verdict
from millstream.store.keyring import Keyring
from millstream.store.messages import Message
from millstream.store.runs import NewRun
from millstream.store.scripts import call
from millstream.store.sealing import Place, Sealer
from tests.store.bench import RETENTION_S, Bench

RUN = ("default", "r1")
WAIT = Record(StepKind.SIGNAL, "go", "abc", RecordStatus.WAITING, began=1.0)
TAKEN = WAIT._replace(status=RecordStatus.OK)


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    file = tmp_path / "keys"
    file.write_text(keyring.fresh("one"), "utf-8")
    return Sealer(Keyring(str(file)))


async def sealed_signal(bench: Bench, sealer: Sealer) -> None:
    bench.store.sealer = sealer
    said = Message(run_id="r1", name="s:go", payload=b'"hush"', id="1")
    assert await messages.send(bench.store, bench.lane, [said], RETENTION_S) == ["kept"]
    bench.store.sealer = None


async def test_a_record_in_clear_takes_no_sealed_message(bench: Bench, sealer: Sealer) -> None:
    """It would be read as if it said those letters; it waits for a worker that seals."""
    held = await bench.held("r1")
    await sealed_signal(bench, sealer)
    item = commits.look(held, "k", "s:go", codec.record_parts(TAKEN, WAIT.status), b"x", "1")

    assert await bench.verdict("w1", item) is Verdict.SEALED
    assert await bench.redis.hgetall(bench.lane.journal("r1")) == {}
    standing = await messages.standing(bench.store, bench.lane, "r1")
    assert standing.names == {"s:go"}


@pytest.mark.parametrize("before", [True, False])
async def test_a_sealed_record_takes_messages_of_both_kinds(
    bench: Bench, sealer: Sealer, before: bool
) -> None:
    """Whoever sends may have no keys yet; and the wait may have begun before there were any."""
    held = await bench.held("r1")
    wait = WAIT._replace(sealed=before)
    data = records.encode(sealer, *RUN, "k", wait)
    assert await bench.verdict("w1", commits.journal(held, [("k", data)], "1")) is Verdict.WRITTEN
    await sealed_signal(bench, sealer)
    plain = Message(run_id="r1", name="s:go", payload=b'"loud"', id="2")
    await messages.send(bench.store, bench.lane, [plain], RETENTION_S)
    found = []
    for key in ("k", "l"):
        opening = wait if key == "k" else WAIT._replace(sealed=True)
        parts = records.parts(sealer, RUN, key, TAKEN, opening, ("default", "s:go"))
        item = commits.look(held, key, "s:go", parts, b"x", "1")
        assert await bench.verdict("w1", item) is Verdict.ANSWERED
        bench.store.sealer = sealer
        found.append(await messages.taken(bench.store, bench.lane, "r1", key))
        bench.store.sealer = None

    assert [(x.value, x.digest, x.status, x.sealed) for x in found] == [
        ("hush", "abc", RecordStatus.OK, True),
        ("loud", "abc", RecordStatus.OK, True),
    ]
    with pytest.raises(SealKeyMissing, match="the record of signal 'go'"):
        await messages.taken(bench.store, bench.lane, "r1", "k")


async def test_a_sealed_wait_that_stands_closed_is_left_alone(bench: Bench, sealer: Sealer) -> None:
    """Its record begins otherwise than one that waits, whatever is sealed in it."""
    held = await bench.held("r1")
    closed = records.encode(sealer, *RUN, "k", TAKEN._replace(sealed=True, value="first"))
    await bench.verdict("w1", commits.journal(held, [("k", closed)], "1"))
    await sealed_signal(bench, sealer)
    waiting = WAIT._replace(sealed=True)
    parts = records.parts(sealer, RUN, "k", TAKEN, waiting, ("default", "s:go"))

    assert await bench.verdict("w1", commits.look(held, "k", "s:go", parts, b"x", "1")) is (
        Verdict.ANSWERED
    )
    assert await bench.redis.hget(bench.lane.journal("r1"), "k") == closed


async def reseal(bench: Bench, *values: str | bytes) -> int:
    done: int = await call(bench.store.scripts, "reseal", bench.lane, ["r1", *values])
    return done


async def test_values_are_replaced_where_they_stand_as_they_were_read(bench: Bench) -> None:
    """Whoever was faster is not overwritten; said twice it is done once."""
    held = await bench.held("r1", arguments=b"{}")
    await bench.verdict("w1", commits.journal(held, [("k", b"old")], "1"))
    await bench.end(held, Parked(None, 0.0))
    change = ("journal", "k", b"old", b"newer", "run", "args", b"other", b"[]")

    assert await reseal(bench, *change) == 1
    assert await reseal(bench, *change) == 1
    fields = await bench.fields("r1")
    assert (fields["args"], fields["bytes"]) == ("{}", "5")
    assert await bench.redis.hget(bench.lane.journal("r1"), "k") == b"newer"


async def test_a_part_goes_only_with_the_record_that_referred_to_it(bench: Bench) -> None:
    held = await bench.held("r1")
    await bench.verdict("w1", commits.journal(held, [("k", b"old")], "1"))
    await bench.end(held, Parked(None, 0.0))
    await bench.redis.hset(bench.lane.spilled("r1"), "a:0", b"part")

    new = ("for", "k", b"old", b"", "spilled", "b:0", b"", b"other")
    await reseal(bench, *new, "drop", "a:0", "k", b"new")
    assert await bench.redis.hkeys(bench.lane.spilled("r1")) == [b"a:0", b"b:0"]
    await reseal(bench, "journal", "k", b"old", b"new", "drop", "a:0", "k", b"new")
    assert await bench.redis.hkeys(bench.lane.spilled("r1")) == [b"b:0"]


async def test_parts_of_a_record_that_is_another_by_now_do_not_stay(bench: Bench) -> None:
    """Neither those that come after it has changed, nor those from before: nobody names them."""
    held = await bench.held("r1")
    await bench.verdict("w1", commits.journal(held, [("k", b"old")], "1"))
    await bench.end(held, Parked(1.0, 0.0))
    first = ("for", "k", b"old", b"", "spilled", "b:0", b"", b"one")
    late = ("for", "k", b"old", b"", "spilled", "b:1", b"", b"two", "journal", "k", b"old", b"new")
    void = ("void", "b:0", "k", b"new", "void", "b:1", "k", b"new")
    before = await bench.fields("r1")

    assert await reseal(bench, *first) == 1
    await bench.redis.hset(bench.lane.journal("r1"), "k", b"won")
    assert await reseal(bench, *late) == 0
    assert await bench.redis.hkeys(bench.lane.spilled("r1")) == [b"b:0"]
    await bench.sweep()
    await bench.take("w1")
    assert await reseal(bench, *void) == -1, "a worker holds it, and what is void goes all the same"
    assert await bench.redis.exists(bench.lane.spilled("r1")) == 0
    assert (await bench.fields("r1"))["bytes"] == before["bytes"]


async def test_nothing_is_replaced_that_a_worker_holds(bench: Bench) -> None:
    """It has read what stands, and compares with it."""
    held = await bench.held("r1")
    await bench.verdict("w1", commits.journal(held, [("k", b"old")], "1"))

    assert await reseal(bench, "journal", "k", b"old", b"new") == -1
    assert await bench.redis.hget(bench.lane.journal("r1"), "k") == b"old"
    await bench.end(held, Completed(b"1"))
    assert await reseal(bench, "journal", "k", b"old", b"new", "run", "result", b"1", b"2") == 2


async def test_the_same_arguments_are_recognised_through_any_seal(
    bench: Bench, sealer: Sealer
) -> None:
    """The script sees other bytes each time; who has no key is told so, and the others go on."""
    bench.store.sealer = sealer
    assert await bench.accept("r1", "r2", arguments=b'{"a":1}') == [True, True]
    assert await bench.accept("r1", "r3", arguments=b'{"a":1}') == [False, True]
    assert await bench.accept("r1", arguments=b'{"a":2}') == ["flow"]
    assert await bench.accept("r1", workflow="other") == ["flow"]
    args = await bench.redis.hget(bench.lane.run("r1"), "args")
    assert sealer.open(Place("default", "r1", "arguments"), args) == b'{"a":1}'

    bench.store.sealer = None
    new = [NewRun(id=x, workflow="flow", arguments=b'{"a":1}') for x in ("r1", "r9")]
    answers = await runs.enqueue(bench.store, bench.lane, 0, new)
    assert answers == [runs.SEALED + "one", True]
