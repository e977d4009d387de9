"""The tools of the fault server: what each of them does, well or badly, over any transport.

`effect` counts what it does; `keyed_effect` drops a repetition that carries the same idempotency
key (in `_meta` or as `request_id`). With a journal, every call leaves a line there, so that a
test can count effects over crashes of servers and workers:

    {"event": "effect", "tool": "effect", "name": "a", "key": "…", "pid": 7}
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

KEY = "millstream.dev/idempotency-key"

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_SAFE = {"readOnlyHint": True}


def _tool(name: str, properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties or {}, "additionalProperties": False}
    return {"name": name, "description": f"{name} for tests", "inputSchema": schema, **more}


TOOLS = [
    _tool("echo", {"text": _TEXT}, annotations=_SAFE),
    _tool("is_error", annotations=_SAFE),
    _tool("structured", annotations=_SAFE),
    _tool("effect", {"name": _TEXT, "request_id": _TEXT}),
    _tool("keyed_effect", {"name": _TEXT, "request_id": _TEXT}),
    _tool("effect_then", {"name": _TEXT, "fault": _TEXT}),
    _tool("fault", {"kind": _TEXT, "size": _NUMBER}),
    _tool("rpc_error", {"code": {"type": "integer"}}),
    _tool("rpc_error_with", {"words": _TEXT}),
    _tool("hang", {"name": _TEXT}),
    _tool("await_started", {"name": _TEXT}, annotations=_SAFE),
    _tool("await_cancelled", {"name": _TEXT}, annotations=_SAFE),
    _tool("meet", {"parties": {"type": "integer"}}, annotations=_SAFE),
    _tool("hold", {"name": _TEXT}, annotations=_SAFE),
    _tool("open", {"name": _TEXT}, annotations=_SAFE),
    _tool("ask_person", annotations=_SAFE),
    _tool("ask_model"),
    _tool("again"),
    _tool("pid", annotations=_SAFE),
]


class RpcFailure(Exception):
    """The call ends with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Misbehaviour(Exception):
    """The transport is to misbehave in this way."""

    def __init__(self, kind: str, size: int = 0) -> None:
        super().__init__(kind)
        self.kind = kind
        self.size = size


@dataclass
class FaultTools:
    """The state of the tools, and what a test may look at."""

    journal: Path | None = None
    tools: list[dict[str, Any]] = field(default_factory=lambda: list(TOOLS))
    effects: Counter[str] = field(default_factory=Counter)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    metas: list[dict[str, Any]] = field(default_factory=list)
    #: What came back with each call: what was answered to a question, and the state.
    inputs: list[tuple[Any, str | None]] = field(default_factory=list)
    #: Called once, when an answer has come and before the call ends.
    crash: Callable[[], None] | None = None
    in_flight: int = 0
    peak: int = 0
    started: defaultdict[str, anyio.Event] = field(default_factory=lambda: defaultdict(anyio.Event))
    cancelled: defaultdict[str, anyio.Event] = field(
        default_factory=lambda: defaultdict(anyio.Event)
    )
    opened: defaultdict[str, anyio.Event] = field(default_factory=lambda: defaultdict(anyio.Event))
    met: anyio.Event = field(default_factory=anyio.Event)

    async def call(self, params: dict[str, Any]) -> dict[str, Any]:
        """Do what the tool does, or raise how it fails."""
        name, arguments = params["name"], params.get("arguments") or {}
        meta = params.get("_meta") or {}
        self.metas.append(meta)
        self.inputs.append((params.get("inputResponses"), params.get("requestState")))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            handler = getattr(self, f"_{name}", None)
            if handler is None:
                raise RpcFailure(-32602, f"Unknown tool: {name}")
            answer = handler(arguments, meta)
            return answer if isinstance(answer, dict) else await answer
        finally:
            self.in_flight -= 1

    # -- the tools -----------------------------------------------------------------------------

    def _echo(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        return text(arguments.get("text", ""))

    def _pid(self, _arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        return text(str(os.getpid()))

    def _is_error(self, _arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        return text("no such thing") | {"isError": True}

    def _structured(self, _arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        return text("seven") | {"structuredContent": {"value": 7}}

    def _effect(self, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
        name = arguments.get("name", "")
        self.effects[name] += 1
        self.note("effect", tool="effect", name=name, key=_key(arguments, meta))
        return text(str(self.effects[name]))

    def _keyed_effect(self, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
        key = _key(arguments, meta)
        known = self.answers if self.journal is None else self._answered_before()
        if key not in known:
            name = arguments.get("name", "")
            self.effects[name] += 1
            self.answers[key] = text(str(self.effects[name]))
            self.note("effect", tool="keyed_effect", name=name, key=key)
        return self.answers.get(key) or known[key]

    def _effect_then(self, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
        self._effect(arguments, meta)
        raise Misbehaviour(arguments["fault"])

    def _fault(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        raise Misbehaviour(arguments["kind"], int(arguments.get("size", 0)))

    def _rpc_error(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        raise RpcFailure(arguments["code"], "as you asked")

    def _rpc_error_with(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        raise RpcFailure(-32603, arguments["words"])

    def _ask_person(self, _arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        responses, _state = self.inputs[-1]
        if responses:
            crash, self.crash = self.crash, None
            if crash is not None:
                crash()
            return text(json.dumps(responses))
        ask = {
            "method": "elicitation/create",
            "params": {"mode": "form", "message": "sure?", "requestedSchema": _EMPTY_FORM},
        }
        return {
            "resultType": "input_required",
            "inputRequests": {"sure": ask},
            "requestState": "state-1",
        }

    def _ask_model(self, _arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        ask = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
        return {"resultType": "input_required", "inputRequests": {"model": ask}}

    def _again(self, _arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        return {"resultType": "input_required", "requestState": "not yet"}

    async def _hang(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        name = arguments.get("name", "")
        self.started[name].set()
        self.note("started", name=name)
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled[name].set()
            self.note("cancelled", name=name)
        raise AssertionError

    async def _await_started(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        await self.started[arguments["name"]].wait()
        return text("started")

    async def _await_cancelled(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        await self.cancelled[arguments["name"]].wait()
        return text("cancelled")

    async def _meet(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        """Answer when so many calls are here at the same time."""
        if self.in_flight >= arguments["parties"]:
            self.met.set()
        await self.met.wait()
        return text(str(self.peak))

    async def _hold(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        self.started[arguments["name"]].set()
        await self.opened[arguments["name"]].wait()
        return text("opened")

    def _open(self, arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        self.opened[arguments["name"]].set()
        return text("open")

    # -- the journal ---------------------------------------------------------------------------

    def note(self, event: str, **facts: Any) -> None:
        """Write a line that survives us."""
        if self.journal is not None:
            line = json.dumps({"event": event, **facts, "pid": os.getpid()})
            with self.journal.open("a") as file:
                file.write(line + "\n")

    def _answered_before(self) -> dict[str, dict[str, Any]]:
        return {
            line["key"]: text("1")
            for line in read_journal(self.journal)
            if line["event"] == "effect"
        }


_EMPTY_FORM = {"type": "object", "properties": {}}


def text(words: str) -> dict[str, Any]:
    """A result that is a text."""
    return {"content": [{"type": "text", "text": words}], "isError": False}


def read_journal(journal: Path | None) -> list[dict[str, Any]]:
    """What the servers of a journal have done, in order."""
    if journal is None or not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_text().splitlines()]


def _key(arguments: dict[str, Any], meta: dict[str, Any]) -> str:
    return str(arguments.get("request_id") or meta.get(KEY) or "")
