"""Parents and children in different lanes: started once, ended once, whatever is said twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.outcome import Cancelled, Completed, Continued, Failed, Parked
from millstream.model.run import Delivery, RunState
from millstream.store import codec, commits, layouts, messages, outbox
from millstream.store.commits import Child, Verdict
from millstream.store.keys import Lane
from tests.store.bench import RETENTION_S, Bench, Send

pytestmark = pytest.mark.anyio

RECORD = Record(StepKind.CHILD, "flow", "", RecordStatus.WAITING, "kid", began=1.0)
DATA = codec.encode_record(RECORD, 1000)
PARTS = codec.record_parts(RECORD._replace(status=RecordStatus.ENDED), RecordStatus.WAITING)


def kid(attempt: int = 1, arguments: bytes = b'{"a":1}', queue: str = "other") -> Child:
    start = outbox.Start(workflow="flow", arguments=msgspec.Raw(arguments), attempt=attempt)
    return Child("kid", queue, outbox.encoded(start))


@pytest.fixture
async def other(bench: Bench) -> Bench:
    """The lane of the child: another queue."""
    made = replace(bench, lane=Lane("other"))
    await made.prepare()
    return made


async def start(bench: Bench, child: Child | None = None) -> Delivery:
    """A parent that has started a child, which nobody has heard of yet."""
    held = await bench.held("dad")
    item = commits.start_child(held, "k", DATA, child or kid(), "1")
    assert await bench.verdict("w1", item) is Verdict.WRITTEN
    return held


async def dispatch(*benches: Bench) -> list[int]:
    return [await outbox.dispatch(x.store, x.lane, RETENTION_S) for x in benches]


async def end_of(bench: Bench, held: Delivery, token: str = "w1") -> Any:
    """What the parent's wait comes to; None when it goes on."""
    item = commits.look(held, "k", "c:kid", PARTS, b"", "1")
    if await bench.verdict(token, item) is not Verdict.ANSWERED:
        return None
    return (await messages.taken(bench.store, bench.lane, "dad", "k")).value


async def test_a_child_is_started_in_its_queue_and_ends_in_its_parent(
    bench: Bench, other: Bench
) -> None:
    held = await start(bench)
    await bench.end(held, Parked(None, 0.0, 0, ("c",)))
    assert await dispatch(bench) == [1]
    (child,) = await other.take("w2")
    assert (child.run_id, child.arguments) == ("kid", b'{"a":1}')
    assert await bench.state("dad") is RunState.PARKED
    await other.end(child, Completed(b"[7]"), "w2")
    assert await dispatch(other) == [1]
    (again,) = await bench.take("w1")
    assert again.level == "resume"
    assert await end_of(bench, again) == ["completed", [7]]
    assert await dispatch(bench, other) == [0, 0]


async def test_an_entry_that_is_heard_twice_starts_and_ends_once(
    bench: Bench, other: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after it was heard and before it was taken out: the next one delivers again."""
    held = await start(bench)

    async def forgetful(send: Send, command: Sequence[Any]) -> Any:
        return 0 if command[0] == "XDEL" else await send(*command)

    with monkeypatch.context() as patch:
        bench.intercept(patch, forgetful)
        await dispatch(bench, bench)
        assert await other.waiting() == [("normal", "kid")]
        (child,) = await other.take("w2")
        await other.end(child, Failed("E", "m"), "w2")
        await dispatch(bench, other, other)
        assert await end_of(bench, held) == ["failed", ["E", "m"]]
        await dispatch(other, bench)
    await dispatch(other, bench)
    await dispatch(other, bench)
    found = await messages.standing(bench.store, bench.lane, "dad")
    assert found.names == frozenset()
    assert await other.state("kid") is RunState.FAILED


async def test_a_start_is_written_once(bench: Bench) -> None:
    """The commit may be sent twice."""
    held = await start(bench)
    item = commits.start_child(held, "k", DATA, kid(), "1")
    assert await bench.verdict("w1", item) is Verdict.WRITTEN
    assert await bench.verdict("thief", item) is Verdict.FENCED
    assert await bench.redis.xlen(bench.lane.outbox) == 1


async def test_a_later_attempt_starts_a_failed_child_again(bench: Bench, other: Bench) -> None:
    await start(bench)
    await dispatch(bench)
    (child,) = await other.take("w2")
    await other.end(child, Failed("E", "m"), "w2")
    assert await other.redis.pttl(other.lane.run("kid")) > 0
    await dispatch(other)
    page = outbox._Page(bench.store, bench.lane, [], RETENTION_S)
    for attempt, wanted in ((1, RunState.FAILED), (2, RunState.QUEUED)):
        entry = outbox._Entry(b"1-1", dict(_fields(kid(attempt))))
        assert await page._started(other.lane, 0, [entry]) == [1]
        assert await other.state("kid") is wanted
    assert await other.redis.pttl(other.lane.run("kid")) == -1


def _fields(child: Child) -> Iterator[tuple[bytes, bytes]]:
    yield b"run", b"dad"
    yield b"id", child.id.encode()
    yield b"data", child.start


@pytest.mark.parametrize("workflow", ["flow", "else"])
async def test_an_id_that_is_taken_fails_the_child_by_name(
    bench: Bench, other: Bench, workflow: str
) -> None:
    arguments = b'{"a":1}' if workflow == "else" else b"{}"
    await other.accept("kid", workflow=workflow, arguments=arguments)
    held = await start(bench)
    await dispatch(bench, other)
    state, error = await end_of(bench, held)
    assert (state, error[0]) == ("failed", "IdConflict")


async def test_a_cancelled_parent_takes_its_open_children_with_it(
    bench: Bench, other: Bench
) -> None:
    """Also when nobody has heard of them yet: they are started, and cancelled."""
    held = await start(bench)
    await bench.end(held, Cancelled())
    await dispatch(bench)
    assert await other.state("kid") is RunState.CANCELLED
    await dispatch(other, bench)
    assert await dispatch(bench, other) == [0, 0]


async def test_a_child_whose_parent_is_gone_ends_and_its_end_is_dropped(
    bench: Bench, other: Bench
) -> None:
    await start(bench)
    await dispatch(bench)
    await bench.redis.delete(bench.lane.run("dad"), bench.lane.received("dad"))
    (child,) = await other.take("w2")
    await other.end(child, Completed(b"1"), "w2")
    assert await dispatch(other) == [1]
    assert not any("dad" in key for key in await bench.keys() if ":run:" in key)


async def test_a_start_stands_while_its_queue_is_being_resized(bench: Bench, other: Bench) -> None:
    """It is delivered once the resize is through, to the lane that accepts it then."""
    await start(bench)
    await layouts._close(bench.store, other.lane, 0, 4)
    assert await dispatch(bench) == [0]
    assert await bench.redis.xlen(bench.lane.outbox) == 1
    assert (await layouts.layout(bench.store, "other")).lanes == 4
    assert await dispatch(bench) == [1]
    found = await layouts.layout(bench.store, "other")
    lane = replace(other, lane=Lane("other", found.numbers("kid")[0]))
    assert await lane.state("kid") is RunState.QUEUED


async def test_a_run_that_begins_anew_is_the_run_that_was_asked_for(bench: Bench) -> None:
    held = await bench.held("dad")
    await bench.verdict("w1", commits.journal(held, [("k", b"x")], "1"))
    send = [messages.Message(run_id="dad", name="s:go", payload=b"1", id="m")]
    await messages.send(bench.store, bench.lane, send, RETENTION_S)
    assert await bench.end(held, Continued(b'{"left":1}')) is Verdict.WRITTEN
    # Said twice it finds the run given back, as a release does.
    assert await bench.end(held, Continued(b'{"left":1}')) is Verdict.FENCED
    assert await bench.journal("dad") == {}
    assert await bench.accept("dad") == [False]
    assert await bench.accept("dad", arguments=b'{"left":1}') == ["flow"]
    (again,) = await bench.take("w2")
    assert (again.arguments, again.generation, again.attempt, again.version) == (
        b'{"left":1}', 1, 1, None,
    )  # fmt: skip
    assert (await messages.standing(bench.store, bench.lane, "dad")).names == {"s:go"}
    assert await bench.end(held, Continued(b"{}")) is Verdict.FENCED
