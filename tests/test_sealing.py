"""Runs of every kind, sealed: they do what they do in clear, and nothing of them can be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from millstream import Client, Context, RetryPolicy, RunFailed, Workflows
from millstream.errors import IdConflict, SealKeyMissing, StepFailed
from millstream.model.journal import Spilled
from millstream.model.schedule import Schedule
from millstream.model.tool import ToolResult
from millstream.store import keyring, resealing, scripts, sealing
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.testing import Harness

pytestmark = pytest.mark.anyio

ONE, TWO = keyring.fresh("one"), keyring.fresh("two")
LANE = Lane("default")
#: Stands in everything that is secret, and in nothing that is not; base64 has no hyphen.
HUSH = "hush-hush"
LARGE = len(f"{HUSH} large ") * 20_000
app = Workflows()
#: How often a child has failed.
broken: list[str] = []


@app.workflow(version="1")
async def everything(ctx: Context, word: str, again: bool = True) -> dict[str, Any]:
    """One step of every kind, each with a secret in it."""
    ctx.emit("progress", {"said": f"{word} event"})
    ctx.random()
    value = await ctx.step(echo, f"{word} value")
    large = await ctx.step(swell, word)
    answer = await ctx.tool("web", "fetch", {"for": f"{word} tool"})
    guessed = await ctx.infer("model", f"{word} prompt")
    child = await ctx.child("inner", {"word": f"{HUSH} child"}, id="kid")
    try:
        await ctx.step(refuse, word, retry=RetryPolicy(max_attempts=1))
    except StepFailed as error:
        value += str(error)
    told = await ctx.wait_signal("go")
    may = await ctx.approve(f"{word} question", data={"why": f"{word} data"})
    await ctx.sleep(30)
    if again:
        ctx.continue_as({"word": f"{word} again", "again": False})
    return {"all": [value, large, answer.text, guessed, child, told, may.comment]}


@app.workflow(version="1")
async def inner(ctx: Context, word: str) -> str:
    await ctx.step(echo, word)
    return f"{word} result"


@app.workflow(version="1", retry=RetryPolicy(max_attempts=2, initial=0.01))
async def fails(ctx: Context, word: str) -> None:
    await ctx.child("inner", {"word": word}, id="common")
    raise ValueError(f"{word} failed")


@app.workflow(version="1")
async def pair(ctx: Context) -> Any:
    """Two steps that look alike, a large one, and a wait."""
    both = [await ctx.step(echo, "one"), await ctx.step(echo, "two")]
    large = await ctx.step(swell, HUSH)
    return [*both, len(large), await ctx.wait_signal("go")]


@app.workflow(version="1", retry=RetryPolicy(max_attempts=2, initial=0.01))
async def insists(ctx: Context) -> str:
    answer: str = await ctx.child("flaky", {"word": HUSH}, id="flaky-one")
    return answer


@app.workflow(version="1")
async def flaky(ctx: Context, word: str) -> str:
    if len(broken) < 1:
        broken.append(word)
        raise ValueError("not yet")
    return f"{word} at last"


async def echo(word: str) -> str:
    return word


async def swell(word: str) -> str:
    return f"{word} large " * 20_000


async def refuse(word: str) -> None:
    raise ValueError(f"{word} error")


def fetch(**arguments: Any) -> ToolResult:
    return ToolResult(text=f"{arguments['for']} answer")


def answer(question: Any) -> str:
    return f"{question} guess"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file of keys."""
    file = tmp_path / "keys"
    file.write_text(ONE, "utf-8")
    return file


@pytest.fixture
async def bench(keys: Path) -> AsyncIterator[Harness]:
    async with harness(keys) as made:
        yield made


def put(keys: Path, text: str) -> None:
    """Give the ring other keys."""
    keys.write_text(text, "utf-8")


def ring(client: Client) -> keyring.Keyring:
    assert client._connection.sealer is not None
    return client._connection.sealer.ring


def harness(keys: Path | None) -> Harness:
    return Harness(
        app,
        tools={"web": {"fetch": fetch}},
        models={"model": answer},
        seal_keys=None if keys is None else str(keys),
    )


async def contents(connection: Connection) -> dict[str, bytes]:
    """Return everything that stands in a store: by key, all names and values in one."""
    client, found = connection.client, {}
    for key in await client.keys("*"):
        match (await client.type(key)).decode():
            case "hash":
                parts = [x for pair in (await client.hgetall(key)).items() for x in pair]
            case "stream":
                entries = await client.xrange(key)
                parts = [x for _, fields in entries for pair in fields.items() for x in pair]
            case "zset":
                parts = await client.zrange(key, 0, -1)
            case "set":
                parts = list(await client.smembers(key))
            case _:
                # It may have expired since it was listed.
                parts = [await client.get(key) or b""]
        found[key.decode()] = b"\n".join([key, *parts])
    return found


async def secret(connection: Connection) -> list[str]:
    """Return the keys in which something is to be read that should not be."""
    return [key for key, data in (await contents(connection)).items() if HUSH.encode() in data]


async def until_it_waits(bench: Harness, name: str = "s:go") -> None:
    """Return once the run is parked for a message of a name; an empty one: for a time alone."""
    with anyio.fail_after(30):
        while True:
            found = await bench.client.run("r1").status()
            assert not found.state.final, found.error
            awaited = "".join(found.awaits)
            fits = awaited.startswith(name) if name else not awaited
            if str(found.state) == "parked" and fits:
                return
            await anyio.sleep(0.002)


async def live_through(bench: Harness) -> Any:
    """Run `everything` to its end; whenever it waits, look for what can be read."""
    run = await bench.client.enqueue("everything", {"word": HUSH}, id="r1")
    for _ in range(2):
        await until_it_waits(bench)
        assert await secret(bench._connection) == []
        await run.signal("go", {"said": f"{HUSH} signal"})
        await until_it_waits(bench, "a:")
        (asked,) = await bench.client.approvals()
        assert asked.question.startswith(HUSH)
        await run.approve(asked.key, comment=f"{HUSH} comment")
        await until_it_waits(bench, "")
        bench._clock.offset_s += 60
    return (await run.result(timeout=20))["all"]


async def test_a_run_of_every_kind_of_step_is_sealed_from_end_to_end(bench: Harness) -> None:
    """Arguments, journal, large values, messages, events, children, errors, schedules, results."""
    await bench.client.schedules.create(
        Schedule(name="nightly", workflow="inner", cron="@daily", arguments={"word": HUSH})
    )
    found = await live_through(bench)
    with pytest.raises(RunFailed, match=f"{HUSH} failed"):
        await bench.run("fails", {"word": HUSH})

    assert found[0].startswith(f"{HUSH} again value")
    assert f"{HUSH} again error" in found[0]
    assert found[1] == f"{HUSH} again large " * 20_000
    assert found[2:] == [
        f"{HUSH} again tool answer", f"{HUSH} again prompt guess", f"{HUSH} child result",
        {"said": f"{HUSH} signal"}, f"{HUSH} comment",
    ]  # fmt: skip
    assert await secret(bench._connection) == []
    run = bench.client.run("r1")
    assert (await bench.client.arguments(run))["word"] == f"{HUSH} again"
    said = [event async for event in run.events()]
    assert said[0].data == {"said": f"{HUSH} event"}
    records = await bench.client.journal(run)
    assert {x.value["said"] for x in records.values() if x.target == "go"} == {f"{HUSH} signal"}
    assert all(record.sealed for record in records.values())
    assert (await bench.client.schedules.get("nightly")).schedule.arguments == {"word": HUSH}


async def test_without_keys_the_same_is_plain_to_see() -> None:
    """The search finds what there is."""
    async with harness(None) as bench:
        run = await bench.client.enqueue("everything", {"word": HUSH}, id="r1")
        await until_it_waits(bench)
        found = await secret(bench._connection)
        await run.cancel()

    assert {key.split(":")[-2] for key in found} >= {"run", "journal", "spilled", "events"}


# -- what moves ------------------------------------------------------------------------------------


async def test_a_child_that_is_started_again_is_recognised(bench: Harness) -> None:
    """Its arguments were sealed anew for the second attempt: other bytes, and the same run."""
    broken.clear()

    assert await bench.run("insists") == f"{HUSH} at last"
    assert broken == [HUSH]


async def test_a_fork_is_sealed_for_itself(bench: Harness) -> None:
    """It takes values along that would not open under its own name, a large one among them."""
    run = await bench.client.enqueue("pair", id="r1")
    await until_it_waits(bench)
    (step,) = [k for k, x in (await bench.client.journal(run)).items() if x.target == "go"]

    forked = await run.fork(step, id="r2")
    again = await run.fork(step, id="r2")
    await forked.signal("go", HUSH)

    assert (forked.created, again.created) == (True, False)
    assert await forked.result(timeout=20) == ["one", "two", LARGE, HUSH]
    journal = await bench.client.journal(forked)
    assert sum(isinstance(record.value, Spilled) for record in journal.values()) == 1
    assert await secret(bench._connection) == []


async def test_the_same_run_is_the_same_under_any_key(bench: Harness, keys: Path) -> None:
    """An id is an idempotency key whatever has become of the keys in between."""
    word = {"word": HUSH}
    async with Client(bench._url) as plain:
        await plain.enqueue("inner", word, id="r1", delay=600)
    first = await bench.client.enqueue("inner", word, id="r1", delay=600)
    second = await bench.client.enqueue("inner", word, id="r2", delay=600)
    put(keys, f"{TWO}\n{ONE}\n")
    async with Client(bench._url, seal_keys=str(keys)) as later:
        third = await later.enqueue("inner", word, id="r2", delay=600)
        with pytest.raises(IdConflict):
            await later.enqueue("inner", {"word": "other"}, id="r2", delay=600)

    assert (first.created, second.created, third.created) == (False, True, False)


async def test_what_begins_after_a_quiet_has_the_last_arguments(bench: Harness) -> None:
    """They were sealed by somebody who did not know yet whose they would be."""
    asked = [
        await bench.client.enqueue("inner", {"word": word}, debounce="once", window=60)
        for word in ("first", HUSH)
    ]
    bench._clock.offset_s += 200

    assert asked[0].id == asked[1].id
    assert await asked[0].result(timeout=20) == f"{HUSH} result"
    assert await secret(bench._connection) == []


# -- who may not open ------------------------------------------------------------------------------


async def test_without_the_key_nothing_opens_and_everything_is_named(bench: Harness) -> None:
    run = await bench.client.enqueue("inner", {"word": HUSH}, id="r1")
    assert await run.result(timeout=20) == f"{HUSH} result"
    with pytest.raises(RunFailed):
        await bench.run("fails", {"word": HUSH})

    async with Client(bench._url) as other:
        for ask in (other.run("r1").result, lambda: other.journal(other.run("r1")),
                    lambda: other.arguments(other.run("r1")),
                    lambda: other.enqueue("inner", {"word": HUSH}, id="r1")):  # fmt: skip
            with pytest.raises(SealKeyMissing, match="'one', which is not here"):
                await ask()
        (failed,) = await other.dead()
        assert (failed.error or "").startswith("SealKeyMissing: the error of run")


async def test_a_run_that_cannot_be_opened_is_left_to_who_can(keys: Path) -> None:
    """Its worker hands it back; a signal that it cannot open stays where it is."""
    async with harness(None) as bench, Client(bench._url, seal_keys=str(keys)) as client:
        sealed = await client.enqueue("inner", {"word": HUSH}, id="r1")
        plain = await bench.client.enqueue("pair", id="r2")
        while not (await sealed.status()).refusals:
            await anyio.lowlevel.checkpoint()
        await bench.settle()
        await client.run("r2").signal("go", HUSH)
        while not (await plain.status()).refusals:
            await anyio.lowlevel.checkpoint()
        assert str((await plain.status()).state) == "scheduled"

        other = bench._embedded.EmbeddedWorker(
            bench._url, app, bench.events.append, bench._tools, bench._models, str(keys)
        )
        await other.start(bench._group)
        bench._worker.crash()
        bench._clock.offset_s += 60

        assert await sealed.result(timeout=20) == f"{HUSH} result"
        assert (await client.run("r2").result(timeout=20))[3] == HUSH
        other.crash()


@pytest.mark.parametrize("what", ["step", "run", "value", "byte"])
async def test_what_was_changed_or_swapped_fails_its_run(bench: Harness, what: str) -> None:
    """Whoever can write to Redis cannot make a run believe something else."""
    redis, word = bench._connection.client, {"word": HUSH}
    run = await bench.client.enqueue("pair", id="r1")
    await until_it_waits(bench)
    other = await bench.client.enqueue("inner", word, id="r2", delay=600)
    if what == "step":
        journal = LANE.journal("r1")
        first, second = (f"echo#{n}" for n in range(2))
        await redis.hset(journal, second, await redis.hget(journal, first))
    elif what == "run":
        await bench.client.enqueue("inner", {"word": "other"}, id="r3", delay=600)
        await redis.hset(LANE.run("r2"), "args", await redis.hget(LANE.run("r3"), "args"))
        await bench.jump(700)
    elif what == "value":
        parts = await redis.hgetall(LANE.spilled("r1"))
        name = min(parts)
        await redis.hset(LANE.spilled("r1"), name, parts[name].replace(b"A", b"B"))
    else:
        await run.signal("go", HUSH)
        data = await redis.hget(LANE.run("r2"), "args")
        await redis.hset(LANE.run("r2"), "args", data[:-3] + b"AA" + data[-1:])
        await bench.jump(700)
    failed = other
    if what in {"step", "value"}:
        failed = run
        await run.signal("go", HUSH)

    with pytest.raises(RunFailed, match="ValueLost" if what == "value" else "SealBroken"):
        await failed.result(timeout=20)


# -- other keys ------------------------------------------------------------------------------------


async def keys_in(connection: Connection) -> dict[str, set[str]]:
    """Return the names of the keys under which something is sealed, by kind of Redis key."""
    found: dict[str, set[str]] = {}
    for key, data in (await contents(connection)).items():
        found.setdefault(key.split("}:")[-1].partition(":")[0], set()).update(sealing.keys_of(data))
    return {kind: names for kind, names in found.items() if names}


@pytest.mark.parametrize("bytes_a_call", [resealing._MOST_BYTES, 1])
async def test_all_that_is_kept_gets_the_new_key_and_goes_on(
    bench: Harness, keys: Path, monkeypatch: pytest.MonkeyPatch, bytes_a_call: int
) -> None:
    """A parked run with a large value, an ended one, a schedule, and a signal that waits.

    However many calls its parts leave in.
    """
    monkeypatch.setattr(resealing, "_MOST_BYTES", bytes_a_call)
    await bench.client.schedules.create(
        Schedule(name="nightly", workflow="inner", cron="@daily", arguments={"word": HUSH})
    )
    await bench.run("inner", {"word": HUSH})
    run = await bench.client.enqueue("pair", id="r1")
    await until_it_waits(bench)
    await run.signal("later", HUSH)
    put(keys, f"{TWO}\n{ONE}\n")
    async with Client(bench._url, seal_keys=str(keys)) as client:
        schedules = await client.sealing.renew_schedules()
        first = await client.sealing.renew()
        second = await client.sealing.renew()
        counted = await client.sealing.counted()

    assert schedules.keys == {"two": 1}
    assert first.changed > 5
    assert (second.changed, first.held, first.refused) == (0, 0, {})
    assert set(counted.keys) == {"two"}
    assert set().union(*(await keys_in(bench._connection)).values()) == {"two"}
    put(keys, TWO)
    bench.crash()
    assert ring(bench.client).names() == ("two",)
    await run.signal("go", HUSH)
    assert await run.result(timeout=20) == ["one", "two", LARGE, HUSH]
    assert await secret(bench._connection) == []


async def test_sealing_is_switched_off_and_on_while_a_run_waits(keys: Path) -> None:
    """Everything stands in clear then, as if there had never been a key; and the other way."""
    async with harness(keys) as bench:
        run = await bench.client.enqueue("pair", id="r1")
        await until_it_waits(bench)
        put(keys, f"clear\n{ONE}\n")
        async with Client(bench._url, seal_keys=str(keys)) as client:
            opened = await client.sealing.renew()
            assert await keys_in(bench._connection) == {}
            put(keys, ONE)
            assert ring(client).names() == ("one",)
            closed = await client.sealing.renew()
        await run.signal("go", HUSH)

        assert await run.result(timeout=20) == ["one", "two", LARGE, HUSH]
        assert await secret(bench._connection) == []
    assert min(opened.changed, closed.changed) > 5
    assert set(opened.keys) == {""}
    assert set(closed.keys) == {"one"}


async def test_a_run_that_was_held_meanwhile_keeps_its_large_value(
    bench: Harness, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that were refused are missing, so the record must not speak of them any more."""
    run = await bench.client.enqueue("pair", id="r1")
    await until_it_waits(bench)
    put(keys, f"{TWO}\n{ONE}\n")
    monkeypatch.setattr(resealing, "_MOST_BYTES", 1)
    refused: list[str] = []

    async def held_once(client: Any, name: str, on: Any, args: Any) -> Any:
        if "spilled" in args and not refused:
            refused.append(name)
            return -1
        return await scripts.call(client, name, on, args)

    monkeypatch.setattr(resealing, "call", held_once)
    async with Client(bench._url, seal_keys=str(keys)) as client:
        first = await client.sealing.renew()
        second = await client.sealing.renew()

    assert (refused, first.held, second.held) == (["reseal"], 1, 0)
    await run.signal("go", HUSH)
    assert await run.result(timeout=20) == ["one", "two", LARGE, HUSH]
