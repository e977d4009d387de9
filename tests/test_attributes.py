"""What a caller writes on its runs, it finds them by; and it decides nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from millstream import Client, Context, Enqueue, Workflows
from millstream.errors import UsageError
from millstream.model import attributes
from millstream.model.run import RunState
from millstream.model.selection import Selection
from millstream.testing import Harness

pytestmark = pytest.mark.anyio


async def test_runs_are_found_by_what_was_written_on_them(store_url: str) -> None:
    """All that is asked for must be there, wherever the run stands."""
    async with Client(store_url) as client:
        both = {"customer": "42", "plan": "gold é"}
        run = await client.enqueue("w", id="a", attributes=both)
        await client.enqueue_many(
            [
                Enqueue("w", id="b", delay=60, attributes={"customer": "42"}),
                Enqueue("w", id="c", attributes={"customer": "7"}),
                Enqueue("w", id="d"),
            ]
        )
        assert (await run.status()).attributes == both
        assert (await client.run("d").status()).attributes == {}
        await run.cancel()

        async def ids(**wanted: str) -> set[str]:
            found = {status.id for status in await client.list(attributes=wanted)}
            selection = Selection(attributes=wanted)
            assert {x.id for x in await client.select(wanted=selection)} == found
            return found

        assert await ids(customer="42") == {"a", "b"}
        assert await ids(customer="42", plan="gold é") == {"a"}
        assert await ids(customer="4") == set()
        assert await ids() == {"a", "b", "c", "d"}


async def test_the_same_run_keeps_what_was_written_first(memory_url: str) -> None:
    """They are no part of what a run is: an enqueue that is said again may say others."""
    async with Client(memory_url) as client:
        await client.enqueue("w", id="a", attributes={"customer": "1"})
        again = await client.enqueue("w", id="a", attributes={"customer": "2"})

        assert not again.created
        assert (await again.status()).attributes == {"customer": "1"}


async def test_a_fork_has_those_of_its_origin() -> None:
    app = Workflows()

    async def act() -> int:
        return 1

    @app.workflow()
    async def flow(ctx: Context) -> int:
        return await ctx.step(act)

    async with Harness(app) as bench:
        run = await bench.client.enqueue("flow", attributes={"customer": "42"})
        assert await run.result(timeout=10) == 1
        forked = await run.fork(*await bench.client.journal(run))
        assert await forked.result(timeout=10) == 1
        status = await forked.status()
        assert (status.attributes, status.state) == ({"customer": "42"}, RunState.COMPLETED)


@pytest.mark.parametrize(
    "wrong",
    [
        {"": "x"}, {"a b": "x"}, {"n" * 65: "x"}, {"a": ""}, {"a": "x" * 257}, {"a": "x\n"},
        {"a": 1}, {f"n{n}": "x" for n in range(17)}, ["a"],
    ],
)  # fmt: skip
async def test_what_cannot_be_written_is_refused(wrong: Any, memory_url: str) -> None:
    async with Client(memory_url) as client:
        with pytest.raises(UsageError, match="attribute"):
            await client.enqueue("w", id="a", attributes=wrong)
        assert await client.list() == []


def test_words_are_read_as_pairs() -> None:
    assert attributes.pairs(["a=1", "b=x=y", "a=1"]) == {"a": "1", "b": "x=y"}
    for wrong in (["a"], ["a=1", "a=2"]):
        with pytest.raises(UsageError):
            attributes.pairs(wrong)
