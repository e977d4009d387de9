"""Flow control as callers and authors meet it: limits, full queues, and what happens once."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from millstream import Client, Context, Enqueue, IdConflict, Limit, QueueFull, RunState, Workflows
from millstream.errors import UsageError
from millstream.model.ids import in_lane, lane_of
from millstream.model.selection import Selection
from millstream.store import keyring
from millstream.store.keys import Lane
from millstream.testing import Harness

_names = itertools.count(1)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(f"memory://flow-{next(_names)}") as client:
        yield client


class Bank:
    """Workflows that count who is inside."""

    def __init__(self) -> None:
        self.app = Workflows()
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun = anyio.Event()
        self.open = anyio.Event()
        one = Limit(key="arguments.account", concurrency=1)
        self.app.workflow(name="transfer", limits=[one])(self._transfer)
        two = Limit(key="tenant", concurrency=2)
        self.app.workflow(name="report", limits=[two])(self._report)

    async def _transfer(self, ctx: Context, account: str, wait: bool = False) -> str:
        if wait:
            self.begun.set()
            await self.open.wait()
        return account

    async def _report(self, ctx: Context) -> None:
        who = ctx.tenant or ""
        self.inside[who] += 1
        self.most[who] = max(self.most[who], self.inside[who])
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        self.inside[who] -= 1


async def test_a_run_over_its_limit_waits_and_others_do_not() -> None:
    """Two transfers of one account would overtake each other; other accounts do not care."""
    bank = Bank()
    async with Harness(bank.app) as bench:
        first = await bench.client.enqueue("transfer", {"account": "a", "wait": True})
        await bank.begun.wait()
        second = await bench.client.enqueue("transfer", {"account": "a"})
        other = await bench.client.enqueue("transfer", {"account": "b"})

        assert await other.result(timeout=10) == "b"
        status = await second.status()
        while status.limited_by is None:
            assert status.state in {RunState.QUEUED, RunState.RUNNING}
            await anyio.lowlevel.checkpoint()
            status = await second.status()
        assert status.waits_for == "a permit of limit transfer/arguments.account/runs:a"
        depth = await bench.client.depth()
        assert (depth.limited, depth.waiting, depth.running) == (1, 0, 1)

        bank.open.set()
        assert await first.result(timeout=10) == "a"
        assert await second.result(timeout=10) == "a"
        assert (await bench.client.depth()).limited == 0


async def test_those_in_line_are_listed_by_themselves_a_page_at_a_time() -> None:
    """An operator asks who is held up by limits; where they stand is a place of its own."""
    bank = Bank()
    async with Harness(bank.app) as bench:
        client = bench.client
        first = await client.enqueue("transfer", {"account": "a", "wait": True}, id="first")
        await bank.begun.wait()
        await client.enqueue_many(
            [Enqueue("transfer", {"account": "a"}, id=f"r{number}") for number in range(5)]
        )
        while (await client.depth()).limited < 5:
            await anyio.lowlevel.checkpoint()

        lined = [f"r{number}" for number in range(5)]
        assert sorted(run.id for run in await client.list(limited=True)) == lined
        wanted = Selection(limited=True)
        assert sorted(run.id for run in await client.select(wanted=wanted)) == lined
        assert await client.list(limited=True, states=[RunState.RUNNING]) == []
        assert sorted(await paged(client, limited=True)) == lined
        assert sorted(await paged(client)) == ["first", *lined]
        bank.open.set()
        await first.result(timeout=10)


async def paged(client: Client, **wanted: Any) -> list[str]:
    """Return the ids of runs, a page of two at a time."""
    page = await client.page(limit=2, **wanted)
    found = [status.id for status in page.runs]
    while page.cursor is not None:
        page = await client.page(limit=2, cursor=page.cursor, **wanted)
        found += [status.id for status in page.runs]
    return found


async def test_runs_that_wait_for_their_turn_are_met_page_by_page(client: Client) -> None:
    """A mark that names a run in a backlog leads on, like one that names an entry of a stream."""
    asked = [Enqueue("w", id=f"{tenant}{n}", tenant=tenant) for tenant in "ab" for n in range(18)]
    await client.enqueue_many(asked)
    assert sorted(await paged(client)) == sorted(f"{each.id}" for each in asked)


async def test_never_more_than_the_limit_are_inside() -> None:
    """By tenant, and every one of them has its turn in the end."""
    bank = Bank()
    async with Harness(bank.app) as bench:
        asked = [Enqueue("report", tenant=tenant) for tenant in "abab" * 6]
        for run in await bench.client.enqueue_many(asked):
            await run.result(timeout=10)
    assert bank.most == {"a": 2, "b": 2}


async def test_a_worker_that_crashes_leaks_no_permit() -> None:
    """Its runs go on elsewhere, and the line moves."""
    app = Workflows()
    crashed: list[str] = []

    async def work(name: str) -> str:
        return name

    @app.workflow(limits=[Limit(concurrency=1)])
    async def careful(ctx: Context, name: str) -> str:
        crashed.append(name)
        return await ctx.step(work, name)

    async with Harness(app) as bench:
        bench.crash_after(1)
        runs = [await bench.client.enqueue("careful", {"name": name}) for name in "abc"]
        assert [await run.result(timeout=10) for run in runs] == ["a", "b", "c"]
        assert bench.crashes == 1
    assert len(crashed) == 4, "one began twice"


async def test_a_full_queue_refuses_by_name(client: Client) -> None:
    """The caller can wait, or go elsewhere; what is known already is found as before."""
    await client.limit_depth("default", depth=2)
    await client.enqueue("w", id="r1")
    await client.enqueue("w", id="r2")

    with pytest.raises(QueueFull) as raised:
        await client.enqueue("w", id="r3")
    assert (raised.value.queue, raised.value.limit, raised.value.depth) == ("default", 2, 2)
    assert not (await client.enqueue("w", id="r1")).created
    await client.limit_depth("default", depth=None)
    assert (await client.enqueue("w", id="r3")).created


async def test_of_many_runs_a_full_queue_takes_what_it_has_room_for(client: Client) -> None:
    """Which were refused is told: the others were accepted, and must not be sent again."""
    await client.limit_depth("default", depth=3)
    asked = [Enqueue("w", id=f"r{number}") for number in range(5)]
    with pytest.raises(QueueFull) as raised:
        await client.enqueue_many(asked)

    assert raised.value.refused == (3, 4)
    assert len(await client.list()) == 3


@pytest.mark.parametrize("depth", [0, -1])
async def test_a_limit_of_nothing_is_refused(client: Client, depth: int) -> None:
    """Who wants that pauses the queue, or removes the limit."""
    with pytest.raises(UsageError):
        await client.limit_depth("default", depth=depth)


@pytest.mark.parametrize("lanes", [1, 5])
async def test_what_is_named_happens_once_within_its_window(client: Client, lanes: int) -> None:
    """Whichever lane the name leads to, the run is found by its id like any other."""
    await client.resize("default", lanes=lanes)
    first = await client.enqueue("w", {"n": 1}, dedupe="daily", window=60)
    second = await client.enqueue("w", {"n": 2}, dedupe="daily", window=60)
    (third,) = await client.enqueue_many([Enqueue("w", {"n": 3}, dedupe="daily", window=60)])

    assert (first.created, second.created, third.created) == (True, False, False)
    assert first.id == second.id == third.id
    assert (await first.status()).state is RunState.QUEUED
    with pytest.raises(IdConflict):
        await client.enqueue("other", dedupe="daily", window=60)


@pytest.mark.parametrize("lanes", [1, 5])
async def test_a_burst_becomes_one_run_with_the_last_arguments(client: Client, lanes: int) -> None:
    """It begins when the burst is over."""
    await client.resize("default", lanes=lanes)
    runs = [
        await client.enqueue("w", {"n": n}, debounce="save", window=30, longest=40)
        for n in range(3)
    ]

    assert {run.id for run in runs} == {runs[0].id}
    assert [run.created for run in runs] == [True, False, False]
    status = await runs[0].status()
    assert status.state is RunState.SCHEDULED
    assert status.times.due is not None
    assert 20 < status.times.due - status.times.enqueued <= 31
    assert await client.arguments(runs[0]) == {"n": 2}


async def test_the_name_of_a_burst_outlasts_its_wait(client: Client) -> None:
    """Who comes while the run waits names that run, however much longer a later one has it wait."""
    await client.enqueue("w", debounce="save", window=1, longest=10)
    run = await client.enqueue("w", debounce="save", window=100, longest=1000)
    due = (await run.status()).times.due
    now_s, _ = await client._connection.client.time()
    kept_ms = await client._connection.client.pttl(f"{Lane('default').prefix}debounce:save")

    assert due is not None
    assert kept_ms / 1000 > due - now_s > 90


@pytest.mark.parametrize(
    "wrong",
    [
        {"dedupe": "a"},
        {"window": 5},
        {"dedupe": "a", "debounce": "b", "window": 5},
        {"dedupe": "a", "window": 5, "id": "r1"},
        {"debounce": "a", "window": 5, "delay": 1},
        {"dedupe": "a", "window": -1},
        {"dedupe": "a", "window": 40 * 86400},
        {"debounce": "a\n", "window": 5},
    ],
)
async def test_what_makes_no_sense_together_is_refused(client: Client, wrong: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(UsageError):
        await client.enqueue("w", **wrong)
    assert await client.list() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"concurrency": 1, "rate": 1},
        {"concurrency": 0},
        {"rate": 1, "per": 0},
        {"concurrency": 1, "key": "account"},
        {"concurrency": 1, "key": "arguments."},
        {"concurrency": 1, "key": "arguments.a..b"},
        {"concurrency": 1, "name": ""},
    ],
)
def test_a_limit_that_limits_nothing_is_refused(wrong: Any) -> None:
    """Where it is written, not when a run comes to it."""
    with pytest.raises(UsageError):
        Limit(**wrong)


def test_what_a_run_asks_follows_from_its_tenant_and_arguments() -> None:
    """The same value is the same permit; any value can be told apart from any other."""
    arguments = {"account": "a", "deep": {"n": 7, "list": [1, 2]}, "long": "x" * 500, "odd": "\n"}

    def asked(key: str | None, **more: Any) -> tuple[str, int, int]:
        return Limit(key=key, **({"concurrency": 3} | more)).asked("w", "acme", arguments)

    assert asked(None) == ("w//runs:", 3, 0)
    assert asked("tenant") == ("w/tenant/runs:acme", 3, 0)
    assert asked("arguments.account")[0] == "w/arguments.account/runs:a"
    assert asked("arguments.deep.n")[0].endswith(":7")
    assert asked("arguments.deep.list")[0].endswith(":[1,2]")
    assert asked("arguments.missing.deeper")[0].endswith(":")
    assert asked("tenant", name="shared")[0] == "shared:acme"
    assert asked("tenant", concurrency=None, rate=5, per=2) == ("w/tenant/rate:acme", 5, 2000)
    assert len(asked("arguments.long")[0]) < 100
    assert "\n" not in asked("arguments.odd")[0]


def test_too_many_limits_are_refused() -> None:
    """Each of them is asked for every run."""
    with pytest.raises(UsageError):
        Workflows().workflow(name="w", limits=[Limit(concurrency=1)] * 9)(_nothing)


async def _nothing(ctx: Context) -> None:
    pass


def test_an_id_is_made_to_fit_its_lane() -> None:
    """What stands for a name has to be beside its run."""
    for lane in range(7):
        assert lane_of(in_lane("run", lane, 7), 7) == lane
    assert in_lane("run", 0, 1) == "run"


async def test_runs_of_one_key_stand_in_one_lane_and_share_its_limits() -> None:
    """A limit holds within a lane. Whose runs must not be more in all names what they share."""
    bank = Bank()
    async with Harness(bank.app) as bench:
        await bench.client.resize("default", lanes=4)
        asked = [Enqueue("report", tenant="a", lane_key="acme") for _ in range(12)]
        runs = await bench.client.enqueue_many(asked)
        runs.append(await bench.client.enqueue("report", tenant="a", lane_key="acme"))
        assert {lane_of(run.id, 4) for run in runs} == {lane_of("acme", 4)}
        assert len({run.id for run in runs}) == len(runs)
        for run in runs:
            await run.result(timeout=10)
    assert bank.most == {"a": 2}


@pytest.mark.parametrize(
    "more", [{"id": "x"}, {"dedupe": "x", "window": 5.0}, {"debounce": "x", "window": 5.0}]
)
async def test_a_key_of_a_lane_stands_for_no_id(client: Client, more: dict[str, Any]) -> None:
    """An id says which lane it is, and so does a name that happens once."""
    with pytest.raises(UsageError, match="lane_key"):
        await client.enqueue("w", lane_key="k", **more)
    with pytest.raises(UsageError, match="lane_key"):
        await client.enqueue("w", lane_key="")
    assert (await client.depth()).waiting == 0


async def test_a_limited_run_stays_on_the_version_that_began_it() -> None:
    """It asks for its permit first; what it writes first is what pins it."""
    app = Workflows()

    @app.workflow(name="slow", version="1", limits=[Limit(name="one", concurrency=1)])
    async def slow(ctx: Context) -> str:
        await ctx.step(str, 1, key="first")
        await ctx.wait_signal("go")
        return "by 1"

    async with Harness(app) as bench:
        run = await bench.client.enqueue("slow")
        await bench.settle()
        assert (await run.status()).version == "1"

        @app.workflow(name="slow", version="2", limits=[Limit(name="one", concurrency=1)])
        async def other(ctx: Context) -> str:
            return "by 2"

        await run.signal("go")
        assert await run.result(timeout=10) == "by 1"


async def test_a_limit_counts_by_an_argument_that_is_sealed(tmp_path: Path) -> None:
    """As it was said: another account is another limit, with keys as without."""
    keys = tmp_path / "keys"
    keys.write_text(keyring.fresh("one"), "utf-8")
    go = anyio.Event()
    app = Workflows()

    @app.workflow(limits=[Limit(key="arguments.account", concurrency=1)])
    async def transfer(ctx: Context, account: str, waits: bool = False) -> str:
        if waits:
            await go.wait()
        return account

    async with Harness(app, seal_keys=str(keys)) as bench:
        first = await bench.client.enqueue("transfer", {"account": "a", "waits": True})
        while (await first.status()).state is not RunState.RUNNING:
            await anyio.lowlevel.checkpoint()
        other = await bench.client.enqueue("transfer", {"account": "b"})
        assert await other.result(timeout=10) == "b"
        go.set()
        assert await first.result(timeout=10) == "a"
