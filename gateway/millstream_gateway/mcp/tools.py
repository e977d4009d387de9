"""What an MCP host can do here: start each workflow, and follow, read and stop its run.

A workflow is a tool whose arguments are the workflow's own. Calling it starts a durable run and
waits for it a while; when that is not enough, the answer names the run, and the host goes on with
the tools for runs, from any process and after any crash. Whoever sends the same idempotency key
again (`_meta`) gets the same run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from millstream.client import Client, Run, RunEvent
from millstream.errors import (
    MillstreamError,
    ResultTimeout,
    RunCancelled,
    RunFailed,
)
from millstream.store import catalogues
from millstream.store.connection import Connection
from millstream_gateway.auth.principals import Role
from millstream_gateway.calls import Call
from millstream_gateway.offered import Offered, offered, parted
from millstream_gateway.refusals import Malformed, NotFound
from millstream_gateway.rest import shapes
from millstream_gateway.rest.runs import Runs
from millstream_gateway.rest.stream import shown_to

#: How long a call waits for its run, in seconds; many hosts give up on a request after thirty.
WAIT_S = 20.0
#: The same key as our own workers send to the tools that they call.
KEY = "millstream.dev/idempotency-key"
_MOST_EVENTS = 200
_RUN = {
    "run": {"type": "string", "description": "Id of the run."},
    "queue": {"type": "string", "description": "Queue of the run; by default the first one."},
}
_WAIT = {"type": "number", "minimum": 0, "maximum": 30, "description": "Seconds to wait for it."}
_AFTER = {"type": "string", "description": "Tell what was said after this event id."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool, as a host is told of it."""

    name: str
    description: str
    arguments: Mapping[str, Any]
    #: Whether it changes nothing, and whether calling it again with the same arguments does not.
    reads: bool
    repeatable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a tool answers."""

    data: dict[str, Any]
    failed: bool = False

    @property
    def text(self) -> str:
        """The same as text, for hosts that read nothing else."""
        return msgspec.json.encode(self.data).decode()


_OF_RUNS = (
    Tool(
        name="run_status",
        description="Show where a run is: its state, attempt, times and last error.",
        arguments={"type": "object", "properties": _RUN, "required": ["run"]},
        reads=True,
        repeatable=True,
    ),
    Tool(
        name="run_result",
        description="Get the result of a run, waiting for its end for up to 30 seconds.",
        arguments={
            "type": "object",
            "properties": {**_RUN, "wait": _WAIT},
            "required": ["run"],
        },
        reads=True,
        repeatable=True,
    ),
    Tool(
        name="run_events",
        description="Read what a run has said of its progress, the oldest first.",
        arguments={
            "type": "object",
            "properties": {**_RUN, "after": _AFTER},
            "required": ["run"],
        },
        reads=True,
        repeatable=True,
    ),
    Tool(
        name="run_cancel",
        description="Ask a run to end.",
        arguments={"type": "object", "properties": _RUN, "required": ["run"]},
        reads=False,
        repeatable=True,
    ),
)


class UnknownTool(NotFound):
    """There is no such tool, or none that the caller may use."""


class RunTools:
    """The tools of a caller."""

    def __init__(self, runs: Runs, client: Client, connection: Connection) -> None:
        self._runs = runs
        self._client = client
        self._connection = connection
        self._verbs: Mapping[str, tuple[Role, Callable[[Call, Any], Awaitable[Told]]]] = {
            "run_status": (Role.VIEWER, self._status),
            "run_result": (Role.VIEWER, self._result),
            "run_events": (Role.VIEWER, self._events),
            "run_cancel": (Role.OPERATOR, self._cancel),
        }

    async def list(self, call: Call) -> list[Tool]:
        """Return the tools that a caller may use."""
        tools = [
            tool for tool in _OF_RUNS if call.principal.may_somewhere(self._verbs[tool.name][0])
        ]
        found = await offered(
            self._connection,
            call.served,
            lambda queue: call.principal.may(Role.SUBMITTER, queue),
        )
        return [*tools, *map(_tool_of, found)]

    async def call(
        self, call: Call, name: str, arguments: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> Told:
        """Use a tool. Raises `UnknownTool` and what else keeps it from being used."""
        try:
            if name in self._verbs:
                role, verb = self._verbs[name]
                return await verb(replace(call, needs=role), arguments)
            return await self._start(replace(call, needs=Role.SUBMITTER), name, arguments, meta)
        except UnknownTool:
            raise
        except MillstreamError as error:
            # A host shows it to its model, which can do better next time.
            return Told(data={"error": str(error)}, failed=True)

    # -- start ---------------------------------------------------------------------------------

    async def _start(
        self, call: Call, name: str, arguments: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> Told:
        named, workflow = parted(name, call.served)
        queue = call.queue(named)
        key = meta.get(KEY)
        if key is not None and not isinstance(key, str):
            raise Malformed(f"{KEY} is no text")
        known = {each.name for each in await catalogues.known(self._connection, queue)}
        if workflow not in known:
            raise UnknownTool(f"no worker serves a workflow for the tool {name!r}")
        asked = shapes.NewRun(workflow=workflow, arguments=dict(arguments), queue=queue)
        return await self._told_of(await self._runs.start(call, asked, key), WAIT_S)

    async def _told_of(self, run: Run, wait_s: float) -> Told:
        named = {"run": run.id, "queue": run.queue}
        try:
            result = await run.result(wait_s)
        except RunFailed as error:
            data = {**named, "state": "failed", "error": f"{error.cause}: {error.reason}"}
            return Told(data=data, failed=True)
        except RunCancelled:
            return Told(data={**named, "state": "cancelled"}, failed=True)
        except ResultTimeout:
            state = str((await run.status()).state)
            hint = "it goes on; ask for it with run_result"
            return Told(data={**named, "state": state, "hint": hint})
        return Told(data={**named, "state": "completed", "result": result})

    # -- follow --------------------------------------------------------------------------------

    async def _status(self, call: Call, arguments: Any) -> Told:
        _, status = await self._runs.visible(_of_run(call, arguments))
        view: dict[str, Any] = msgspec.to_builtins(shapes.view(status))
        return Told(data=view)

    async def _result(self, call: Call, arguments: Any) -> Told:
        run, _ = await self._runs.visible(_of_run(call, arguments))
        wait_s = arguments.get("wait", 0)
        if not isinstance(wait_s, int | float) or not 0 <= wait_s <= 30:
            raise Malformed("wait is 0 to 30 seconds")
        return await self._told_of(run, max(0.5, wait_s))

    async def _events(self, call: Call, arguments: Any) -> Told:
        run, _ = await self._runs.visible(_of_run(call, arguments))
        shown = shown_to(call.principal, run.queue)
        after = arguments.get("after", "")
        if not isinstance(after, str):
            raise Malformed("after is the id of an event")
        said = await self._client.said(run, after, most=_MOST_EVENTS)
        return Told(data={"events": [_event(event, shown(event)) for event in said]})

    async def _cancel(self, call: Call, arguments: Any) -> Told:
        reply = await self._runs.cancel(_of_run(call, arguments))
        moved: dict[str, Any] = msgspec.to_builtins(reply.value)
        return Told(data=moved)


def _tool_of(found: Offered) -> Tool:
    return Tool(
        name=found.name,
        description=found.described.description or f"Run the workflow {found.described.name}.",
        arguments=found.described.arguments,
        reads=False,
        repeatable=False,
    )


def _of_run(call: Call, arguments: Any) -> Call:
    run_id, queue = arguments.get("run"), arguments.get("queue")
    if not isinstance(run_id, str) or not isinstance(queue, str | None):
        raise Malformed("name the run by its id: run, and its queue where it is not the first")
    return replace(call, path={"id": run_id}, query=shapes.OfQueue(queue=queue))


def _event(event: RunEvent, data: Any) -> dict[str, Any]:
    said = {"id": event.id, "kind": event.kind, "name": event.name}
    return {**said, "data": data, "at": event.at}
