"""Large answers stand beside the journal: a replay has them, and nobody carries them about."""

from __future__ import annotations

from typing import Any

import pytest

from millstream import Context, RunFailed, Workflows
from millstream.model.journal import Spilled
from millstream.model.tool import ToolResult
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.testing import Harness

pytestmark = pytest.mark.anyio

LARGE = "large " * 100_000
#: What the calls with large values are recorded as.
LARGE_ONES = {"web/fetch", "make_large", "model"}
app = Workflows()


@app.workflow()
async def collects(ctx: Context) -> list[int]:
    """A large value of each kind, and then a small one."""
    answer = await ctx.tool("web", "fetch")
    value = await ctx.step(make_large, "x")
    said = await ctx.infer("model", "question")
    await ctx.step(str, 1)
    assert (answer.text, value, said) == (LARGE, LARGE, LARGE)
    return [len(answer.text), len(value), len(said)]


calls: list[str] = []


async def make_large(name: str) -> str:
    calls.append(name)
    return LARGE


def fetch() -> ToolResult:
    calls.append("fetch")
    return ToolResult(text=LARGE, content=[{"type": "text", "text": LARGE}])


def answer(_: Any) -> str:
    calls.append("model")
    return LARGE


def harness() -> Harness:
    calls.clear()
    return Harness(app, tools={"web": {"fetch": fetch}}, models={"model": answer})


@pytest.mark.parametrize("crash", [1, 3])
async def test_a_large_value_is_there_again_after_a_crash(crash: int) -> None:
    async with harness() as bench:
        bench.crash_after(crash)

        assert await bench.run("collects", timeout=30) == [len(LARGE)] * 3

        assert bench.crashes == 1
        assert sorted(calls) == ["fetch", "model", "x"]


async def test_a_journal_holds_only_the_reference() -> None:
    """It is loaded whole whenever a run is taken: that must not bring megabytes."""
    async with harness() as bench:
        run = await bench.client.enqueue("collects")
        await run.result(timeout=30)
        connection = Connection(bench._url)
        records = await connection.client.hgetall(Lane("default").journal(run.id))
        await connection.aclose()
        journal = await bench.client.journal(run)

    assert sum(map(len, records.values())) < 2000
    values = {
        record.kind: record.value for record in journal.values() if record.target in LARGE_ONES
    }
    assert all(isinstance(value, Spilled) for value in values.values()), values
    assert {kind: value.size // 100_000 for kind, value in values.items()} == {
        "tool": 6, "step": 6, "infer": 6,
    }  # fmt: skip


@app.workflow()
async def loses(ctx: Context) -> int:
    """Have a value, and then be parked."""
    value = await ctx.step(make_large, "x")
    await ctx.sleep(3600)
    return len(value)


async def test_a_value_that_somebody_deleted_fails_the_run_by_name() -> None:
    """To do the step again would be an effect that happens twice."""
    async with harness() as bench:
        run = await bench.client.enqueue("loses")
        await bench.settle()
        connection = Connection(bench._url)
        assert await connection.client.delete(Lane("default").spilled(run.id)) == 1
        await connection.aclose()
        await bench.jump(3600)

        with pytest.raises(RunFailed) as caught:
            await run.result(timeout=10)

    assert caught.value.cause == "ValueLost"
    assert calls == ["x"]


async def test_a_fork_has_the_large_values_that_it_keeps() -> None:
    """And none of those that come after the step it begins from."""
    async with harness() as bench:
        run = await bench.client.enqueue("collects")
        assert await run.result(30) == [len(LARGE)] * 3
        model = next(key for key in await bench.client.journal(run) if key.startswith("model"))

        forked = await run.fork(model, id="forked")

        assert await forked.result(30) == [len(LARGE)] * 3
        assert sorted(calls) == ["fetch", "model", "model", "x"]
