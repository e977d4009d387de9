"""The built-in workflow ``agent``: a model decides, tools act, until it answers or a bound is met.

Promise: every turn of the model and every call of a tool is a step of its own, so what is recorded
is never paid again, whichever worker goes on. Tools are called only on the servers that the caller
named, and only those that the worker's own configuration allows. It knows no provider: any model
that takes messages and gives text or tool calls will do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from millstream.errors import (
    NotEncodable,
    OutcomeUnknown,
    PayloadTooLarge,
    ToolError,
    UsageError,
)
from millstream.model.tool import ToolInfo
from millstream.workflow import Context

_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64
_CUT = "\n[... cut: {more:,} more characters]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """When to stop, whatever the model wants."""

    turns: int
    tokens: int | None
    seconds: float | None
    cost: float | None

    def exceeded(self, used: Used, seconds: float) -> str | None:
        """Return the name of a bound that has been met."""
        if used.turns >= self.turns:
            return "turns"
        if self.tokens is not None and used.input_tokens + used.output_tokens >= self.tokens:
            return "tokens"
        if self.seconds is not None and seconds >= self.seconds:
            return "seconds"
        if self.cost is not None and used.cost >= self.cost:
            return "cost"
        return None


@dataclass(slots=True, kw_only=True)
class Used:
    """What the model has taken so far, as it says itself."""

    #: What a million tokens cost, in and out.
    prices: Mapping[str, float] = field(default_factory=dict)
    turns: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def cost(self) -> float:
        """In the unit of the prices."""
        given = self.input_tokens * self.prices.get("input", 0.0)
        return (given + self.output_tokens * self.prices.get("output", 0.0)) / 1e6

    def add(self, usage: Any) -> None:
        """Count one answer of the model. What is no count is none."""
        said = usage if isinstance(usage, Mapping) else {}
        self.turns += 1
        self.input_tokens += _count(said.get("prompt_tokens"))
        self.output_tokens += _count(said.get("completion_tokens"))


async def agent(  # noqa: PLR0917 - a workflow is given its arguments by name
    ctx: Context,
    task: str,
    model: str,
    servers: list[str] | None = None,
    tools: list[str] | None = None,
    system: str | None = None,
    max_turns: int = 20,
    max_tokens: int | None = None,
    max_seconds: float | None = None,
    max_cost: float | None = None,
    prices: dict[str, float] | None = None,
    max_tool_text: int = 20_000,
    options: dict[str, Any] | None = None,
    stream: bool = False,
) -> dict[str, Any]:
    """Let a model work on a task with the tools of some MCP servers.

    ``tools`` are patterns of ``server/tool`` that it may use, all of these servers if none are
    given. ``prices`` are what a million tokens cost: ``{"input": 3.0, "output": 15.0}``. With
    ``stream`` whoever watches the run reads along. Returns the answer, why it stopped
    (``answered``, or the bound: turns, tokens, seconds, cost), and what it took.
    """
    if max_turns < 1 or (max_cost is not None and not prices):
        raise UsageError("an agent needs at least one turn, and prices where max_cost bounds it")
    if stray := sorted(set(prices or {}) - {"input", "output"}):
        raise UsageError(f"prices are of input and output, not of {', '.join(stray)}")
    bounds = Bounds(turns=max_turns, tokens=max_tokens, seconds=max_seconds, cost=max_cost)
    used = Used(prices=prices or {})
    kit = await _toolkit(ctx, servers or [], tools)
    messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    began = ctx.now()

    while True:
        asked = {**(options or {}), **({"stream": True} if stream else {})}
        answer = await _turn(ctx, model, messages, kit, used.turns + 1, asked)
        used.add(answer.get("usage"))
        calls = _calls_of(answer)
        messages.append(_said(answer, calls))
        if not calls:
            return _result("answered", answer, used)
        stopped = bounds.exceeded(used, ctx.now() - began)
        if stopped is not None:
            return _result(stopped, answer, used)
        texts = await ctx.gather(*(_called(ctx, kit, call, max_tool_text) for call in calls))
        used.calls += len(calls)
        for call, text in zip(calls, texts, strict=True):
            called = str(call.get("id") or "")
            messages.append({"role": "tool", "tool_call_id": called, "content": text})


# -- the model -----------------------------------------------------------------------------------


async def _turn(  # noqa: PLR0917 - what a turn is made of
    ctx: Context,
    model: str,
    messages: list[dict[str, Any]],
    kit: Mapping[str, _Kit],
    number: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    offered = {"tools": [each.offered(name) for name, each in kit.items()]} if kit else {}
    answer = await ctx.infer(model, messages, key=f"turn-{number}", **{**offered, **options})
    # Some models give a string and nothing else.
    return dict(answer) if isinstance(answer, Mapping) else {"text": str(answer)}


def _calls_of(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the model calls; what cannot even be answered is no call."""
    calls = answer.get("tool_calls")
    found = calls if isinstance(calls, list | tuple) else ()
    return [call for call in found if isinstance(call, Mapping)]


def _said(answer: Mapping[str, Any], calls: list[Mapping[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.get("text") or ""}
    if calls:
        message["tool_calls"] = calls
    return message


def _count(value: Any) -> int:
    sound = isinstance(value, int | float) and math.isfinite(value)
    return max(0, int(value)) if sound else 0


def _result(stopped: str, answer: Mapping[str, Any], used: Used) -> dict[str, Any]:
    return {
        "answer": answer.get("text") or "",
        "stopped": stopped,
        "turns": used.turns,
        "tool_calls": used.calls,
        "usage": {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens},
        "cost": round(used.cost, 6),
    }


# -- the tools -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kit:
    server: str
    info: ToolInfo

    def offered(self, name: str) -> dict[str, Any]:
        """Return the tool as a model is told of it."""
        function = {
            "name": name,
            "description": self.info.description,
            "parameters": self.info.input_schema,
        }
        return {"type": "function", "function": function}


async def _toolkit(
    ctx: Context, servers: Sequence[str], patterns: Sequence[str] | None
) -> dict[str, _Kit]:
    """Return what the model may use, by the name under which it is offered."""
    kit: dict[str, _Kit] = {}
    for server in servers:
        for info in await ctx.tools(server):
            path = f"{server}/{info.name}"
            if patterns is None or any(fnmatchcase(path, pattern) for pattern in patterns):
                kit[_offered_name(server, info.name, kit)] = _Kit(server, info)
    return kit


def _offered_name(server: str, tool: str, taken: Mapping[str, Any]) -> str:
    """Return a name that models take: letters, digits, _ and -, and not taken yet."""
    plain = _NAME.sub("_", f"{server}__{tool}")[:_LONGEST_NAME]
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain[: _LONGEST_NAME - 4]}_{number}"
    return name


async def _called(ctx: Context, kit: Mapping[str, _Kit], call: Mapping[str, Any], most: int) -> str:
    """Return what the model is told of a call. What it did wrong is told, so that it can mend it.

    `OutcomeUnknown` is not told: the model would call again, and the effect might be there twice.
    """
    function = call.get("function")
    if not isinstance(function, Mapping):
        return "error: a call names a function"
    name = str(function.get("name", ""))
    found = kit.get(name)
    if found is None:
        return f"error: there is no tool {name!r}"
    try:
        arguments = _arguments(function.get("arguments"))
    except (ValueError, RecursionError) as error:
        return f"error: the arguments are not JSON: {error}"
    if not isinstance(arguments, dict):
        return "error: the arguments are no JSON object"
    try:
        answer = await ctx.tool(found.server, found.info.name, arguments)
    except OutcomeUnknown:
        raise
    except (ToolError, NotEncodable, PayloadTooLarge) as error:
        return f"error: {error}"
    text = answer.text or json.dumps(answer.data, ensure_ascii=False)
    told = f"error: {text}" if answer.is_error else text
    return told if len(told) <= most else told[:most] + _CUT.format(more=len(told) - most)


def _arguments(given: Any) -> Any:
    """Return what the model calls a tool with: a text of JSON, or from some what it stands for."""
    if isinstance(given, str):
        return msgspec.json.decode(given) if given.strip() else {}
    return {} if given is None else given
