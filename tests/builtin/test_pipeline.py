"""Pipelines on a real worker: results reach later steps, and nothing recorded runs again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from millstream import Client, RunFailed, ToolResult, Workflows
from millstream.builtin import with_builtin
from millstream.errors import InvalidPipeline
from millstream.testing import Harness

pytestmark = pytest.mark.anyio

app = Workflows()


class Web:
    """Tools that count their calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def fetch(self, url: str) -> dict[str, Any]:
        self.calls[url] += 1
        return {"links": [f"{url}/1", f"{url}/2"], "url": url}

    def broken(self) -> ToolResult:
        return ToolResult(text="no such page", is_error=True)

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        return {"web": {"fetch": self.fetch, "broken": self.broken}}


@app.workflow()
async def idle(ctx: Any) -> None:
    """An application has something of its own."""


STEPS = [
    {"id": "page", "tool": "web/fetch", "arguments": {"url": {"$ref": "input.url"}}},
    {
        "id": "each",
        "map": {"$ref": "page.data.links"},
        "as": "link",
        "limit": 1,
        "steps": [
            {"id": "sub", "tool": "web/fetch", "arguments": {"url": {"$ref": "link"}}},
            {"id": "size", "infer": "length", "inputs": {"$ref": "sub.data.url"}},
        ],
        "result": {"$ref": "size"},
    },
    {
        "id": "many",
        "if": {"at_least": [{"$ref": "each.0"}, 3]},
        "then": [{"id": "pause", "wait": {"seconds": 60}}],
        "else": [{"id": "pause", "tool": "web/broken"}],
    },
]


@pytest.mark.parametrize("crash", [None, 1, 2, 3, 4, 5, 6])
async def test_a_pipeline_comes_to_its_result_whatever_dies(crash: int | None) -> None:
    """Each tool call is recorded once, and a wait parks."""
    web = Web()
    arguments = {"steps": STEPS, "input": {"url": "u"}, "result": {"sizes": {"$ref": "each"}}}
    async with Harness(app, tools=web.tools, models={"length": len}) as bench:
        if crash is not None:
            bench.crash_after(crash)
        run = await bench.client.enqueue("pipeline", arguments)
        await bench.settle()
        await bench.jump(61)
        assert await run.result(10) == {"sizes": [3, 3]}
        journal = await bench.client.journal(run)
    assert web.calls == {"u": 1, "u/1": 1, "u/2": 1}
    assert {"web/fetch:page", "sleep#0"} <= set(journal)


async def test_a_failure_ends_it_or_is_its_result() -> None:
    """As the step says."""
    step = {"id": "bad", "tool": "web/broken"}
    async with Harness(app, tools=Web().tools) as bench:
        with pytest.raises(RunFailed, match="no such page"):
            await bench.run("pipeline", {"steps": [step]})
        tolerated = [{**step, "on_error": "continue"}, {"id": "a", "wait": {"seconds": 0}}]
        found = await bench.run("pipeline", {"steps": tolerated})
    assert found["bad"]["error"]["cause"] == "is_error"
    assert found["a"] is None


async def test_two_choices_may_use_the_same_ids_inside() -> None:
    """The key of a step has the way to it."""
    inner = [{"id": "x", "tool": "web/fetch", "arguments": {"url": "u"}}]
    steps = [
        {"id": "one", "if": True, "then": inner},
        {"id": "two", "if": False, "else": inner, "after": ["one"]},
    ]
    async with Harness(app, tools=Web().tools) as bench:
        found = await bench.run("pipeline", {"steps": steps})
    assert found["one"]["x"]["data"]["url"] == found["two"]["x"]["data"]["url"] == "u"


async def test_a_pipeline_that_cannot_run_is_not_accepted() -> None:
    """Nothing is written."""
    steps = [{"id": "a", "tool": "web/fetch", "arguments": {"url": {"$ref": "b.text"}}}]
    async with Client("memory://refused") as client:
        with pytest.raises(InvalidPipeline, match="no result 'b'"):
            await client.enqueue("pipeline", {"steps": steps}, id="p")
        assert (await client.depth()).waiting == 0


def test_what_an_application_has_stays() -> None:
    """Its schedules as well as its workflows."""
    mine = Workflows()
    mine.workflow("idle")(idle)
    mine.schedule("nightly", "idle", cron="0 2 * * *")
    everything = with_builtin(mine)
    assert {workflow.name for workflow in everything} == {"idle", "pipeline", "agent"}
    assert [schedule.name for schedule in everything.schedules] == ["nightly"]


def test_its_name_is_taken() -> None:
    """A workflow of the same name would be another one to whoever enqueues it."""
    mine = Workflows()
    mine.workflow("pipeline")(idle)
    with pytest.raises(Exception, match="'pipeline' is built in"):
        with_builtin(mine)


UNFIT: list[tuple[dict[str, Any], str, str]] = [
    ({"tool": "web/fetch", "arguments": {"$ref": "input.list"}}, "NotAnObject", "an object"),
    ({"wait": {"seconds": {"$ref": "input.list"}}}, "NotANumber", "number of seconds"),
    ({"map": {"$ref": "input.text"}, "steps": []}, "NotAList", "takes a list"),
    (
        {"infer": "length", "inputs": "a", "options": {"$ref": "input.taken"}},
        *("InvalidPipeline", "may not have key"),
    ),
    (
        {"infer": "length", "inputs": "a", "options": {"$ref": "input.list"}},
        *("InvalidPipeline", "options is an object"),
    ),
]


async def test_a_value_that_does_not_fit_is_named() -> None:
    """What a reference leads to is known only when it is there."""
    given = {"list": [1], "text": "t", "taken": {"key": "k"}}
    async with Harness(app, tools=Web().tools, models={"length": len}) as bench:
        for step, cause, says in UNFIT:
            with pytest.raises(RunFailed, match=says) as failed:
                await bench.run("pipeline", {"steps": [{"id": "a", **step}], "input": given})
            assert failed.value.cause == cause


async def test_maps_are_bounded_together() -> None:
    """A list in a list in a list would keep a worker's loop busy for ever."""
    inner = {"id": "inner", "map": {"$ref": "input.many"}, "as": "b", "steps": []}
    outer = {"id": "outer", "map": {"$ref": "input.many"}, "as": "a", "steps": [inner]}
    large = {"id": "large", "map": {"$ref": "input.many"}, "steps": [], "result": "x" * 500_000}
    async with Harness(app) as bench:
        for step, says in ((outer, "more than 10,000 items"), (large, "more than 32 MiB")):
            arguments = {"steps": [step], "input": {"many": [0] * 120}}
            with pytest.raises(RunFailed, match=says):
                await bench.run("pipeline", arguments)
