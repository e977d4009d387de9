"""The agent on a real worker: it acts, it stops, and no death makes it pay or act twice."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from millstream import RunFailed, ToolResult, Workflows
from millstream.testing import Harness

pytestmark = pytest.mark.anyio

app = Workflows()


@app.workflow()
async def idle(ctx: Any) -> None:
    """An application has something of its own."""


class Scripted:
    """A model that does what was written down: one answer for each number of messages so far."""

    def __init__(self, *turns: dict[str, Any]) -> None:
        self.turns = turns
        self.asked: Counter[int] = Counter()
        self.seen: list[list[dict[str, Any]]] = []
        self.offered: list[dict[str, Any]] = []

    def __call__(self, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        turn = sum(message["role"] == "assistant" for message in messages)
        self.asked[turn] += 1
        self.seen.append(messages)
        self.offered = options.get("tools", [])
        return {"usage": {"prompt_tokens": 100, "completion_tokens": 10}, **self.turns[turn]}


def calls(*asked: tuple[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "id": f"call-{number}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": given if isinstance(given, str) else json.dumps(given),
            },
        }
        for number, (name, given) in enumerate(asked)
    ]
    return {"text": "", "tool_calls": rows}


class Shop:
    """Tools that count what was done."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()

    def buy(self, item: str) -> str:
        """Buy an item."""
        self.done[item] += 1
        return f"bought {item}"

    def refuse(self) -> ToolResult:
        """Never work."""
        return ToolResult(text="closed", is_error=True)

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        return {"shop": {"buy": self.buy, "refuse": self.refuse}}


TASK = {"task": "buy three things", "model": "clerk", "servers": ["shop"]}
TURNS = (
    calls(("shop__buy", {"item": "tea"}), ("shop__buy", {"item": "milk"})),
    calls(("shop__buy", {"item": "salt"})),
    {"text": "done"},
)
#: Steps of the script: the tools, a time, three turns, and an intent and a result for each call.
RECORDS = 8


async def test_a_model_acts_until_it_answers() -> None:
    """Its tools are told to it with their schemas, its calls' results come back to it."""
    clerk, shop = Scripted(*TURNS), Shop()
    async with Harness(app, tools=shop.tools, models={"clerk": clerk}) as bench:
        found = await bench.run("agent", {**TASK, "system": "be brief"})
    assert (found["answer"], found["stopped"], found["turns"]) == ("done", "answered", 3)
    assert (found["tool_calls"], found["usage"]["input_tokens"]) == (3, 300)
    assert shop.done == {"tea": 1, "milk": 1, "salt": 1}
    assert [each["function"]["name"] for each in clerk.offered] == ["shop__buy", "shop__refuse"]
    assert clerk.offered[0]["function"]["description"] == "Buy an item."
    last = clerk.seen[-1]
    assert [message["role"] for message in last] == [
        *("system", "user", "assistant", "tool", "tool", "assistant", "tool")
    ]
    assert last[3]["content"] == "bought tea"


@pytest.mark.parametrize("crash", range(1, RECORDS + 1))
async def test_it_may_die_after_any_step(crash: int) -> None:
    """The journal is that of a run which nothing happened to: nothing is asked or bought twice."""
    clerk, shop = Scripted(*TURNS), Shop()
    async with Harness(app, tools=shop.tools, models={"clerk": clerk}) as bench:
        whole = await bench.client.enqueue("agent", TASK)
        assert (await whole.result(10))["answer"] == "done"
        expected = await bench.client.journal(whole)
        bench.crash_after(crash)
        run = await bench.client.enqueue("agent", TASK)
        assert (await run.result(10))["answer"] == "done"
        journal = await bench.client.journal(run)
        assert bench.crashes == (1 if crash < RECORDS else bench.crashes)
    values = {key: record.value for key, record in expected.items() if key != "now#0"}
    assert {key: record.value for key, record in journal.items() if "now" not in key} == {
        key: value for key, value in values.items() if "now" not in key
    }
    assert shop.done == {"tea": 2, "milk": 2, "salt": 2}
    assert clerk.asked == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize(
    ("bound", "stopped", "turns"),
    [
        ({"max_turns": 1}, "turns", 1),
        ({"max_tokens": 200}, "tokens", 2),
        ({"max_cost": 0.0005, "prices": {"input": 3.0, "output": 15.0}}, "cost", 2),
        ({"max_seconds": 0}, "seconds", 1),
    ],
)
async def test_a_bound_stops_it(bound: dict[str, Any], stopped: str, turns: int) -> None:
    """No tool is called after it."""
    endless = [calls(("shop__buy", {"item": str(n)})) for n in range(20)]
    clerk, shop = Scripted(*endless), Shop()
    async with Harness(app, tools=shop.tools, models={"clerk": clerk}) as bench:
        found = await bench.run("agent", {**TASK, **bound})
    assert (found["stopped"], found["turns"]) == (stopped, turns)
    assert sum(shop.done.values()) == turns - 1


RUBBISH: list[Any] = [
    "no list",
    {"function": {"name": "shop__buy"}},
    ["no call", None, 7],
    [{"id": None, "function": "shop__buy"}],
    [{"id": 5, "function": {"name": ["shop__buy"], "arguments": "{}"}}],
    [{"id": "c", "function": {"name": "shop__buy", "arguments": "[" * 100_000}}],
    [{"id": "c", "function": {"name": "shop__buy", "arguments": '{"item": NaN}'}}],
    [{"id": "c", "function": {"name": "shop__buy", "arguments": '{"item": "\\ud800"}'}}],
    [{"id": "c", "function": {"name": "shop__buy", "arguments": 12}}],
    [{"id": "c", "function": {"name": "shop__buy", "arguments": ["tea"]}}],
]


async def test_no_answer_of_a_model_ends_its_run() -> None:
    """What is no call is none, and what is a wrong one is told; neither buys anything."""
    usage = {"prompt_tokens": "many", "completion_tokens": -5}
    models = {
        f"m{number}": Scripted({"tool_calls": calls_, "usage": usage}, {"text": "sorry"})
        for number, calls_ in enumerate(RUBBISH)
    }
    # Some models give what others write as JSON.
    call = {"id": "c", "function": {"name": "shop__buy", "arguments": {"item": "tea"}}}
    models["good"] = Scripted({"tool_calls": [call], "usage": None}, {"text": "done"})
    shop = Shop()
    async with Harness(app, tools=shop.tools, models=models) as bench:
        for name in models:
            found = await bench.run("agent", {**TASK, "model": name})
            assert found["stopped"] == "answered"
            assert found["usage"]["output_tokens"] in {0, 10}
        with pytest.raises(RunFailed, match="prices are of input and output"):
            await bench.run("agent", {**TASK, "model": "good", "prices": {"in": 3.0}})
    assert shop.done == {"tea": 1}


async def test_what_a_model_does_wrong_is_told_to_it() -> None:
    """It can mend that; only what nobody can mend ends the run."""
    wrong = calls(
        ("nobody", {}), ("shop__buy", "{not json"), ("shop__buy", "[1]"), ("shop__refuse", {})
    )
    clerk = Scripted(wrong, {"text": "sorry"})
    async with Harness(app, tools=Shop().tools, models={"clerk": clerk}) as bench:
        found = await bench.run("agent", TASK)
    assert found["answer"] == "sorry"
    told = [message["content"] for message in clerk.seen[-1] if message["role"] == "tool"]
    assert ["no tool" in told[0], "not JSON" in told[1], "no JSON object" in told[2]] == [True] * 3
    assert told[3] == "error: closed"


async def test_only_what_the_caller_allows_is_offered_and_called() -> None:
    """Whatever name a model comes up with."""
    clerk, shop = Scripted(calls(("shop__buy", {"item": "tea"})), {"text": "no"}), Shop()
    async with Harness(app, tools=shop.tools, models={"clerk": clerk}) as bench:
        await bench.run("agent", {**TASK, "tools": ["shop/ref*"]})
    assert [each["function"]["name"] for each in clerk.offered] == ["shop__refuse"]
    assert not shop.done


async def test_what_cannot_be_is_said() -> None:
    """An unknown server; a bound that nothing can be held against."""
    clerk = Scripted({"text": "hi"})
    async with Harness(app, tools=Shop().tools, models={"clerk": clerk}) as bench:
        with pytest.raises(RunFailed, match="no server mall"):
            await bench.run("agent", {**TASK, "servers": ["mall"]})
        with pytest.raises(RunFailed, match="prices"):
            await bench.run("agent", {**TASK, "max_cost": 1.0})
