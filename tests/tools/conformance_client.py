r"""The client that the public conformance suite drives: our transport, asked what a suite asks.

    npm install node@22 @modelcontextprotocol/conformance@0.2.0-alpha.12
    node node_modules/.bin/conformance client --requirements 2026-07-28 \
        --command "python tests/tools/conformance_client.py"

The suite appends the address of its server. Every tool is called once, with arguments made from
its schema or given by the suite. Not part of the test run: it needs Node 22.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "worker"))


from millstream.errors import ToolError, ToolRejected
from millstream.model.elicitation import Inputs
from millstream.model.tool import ToolResult
from millstream_worker.tools.caller import ToolCaller
from millstream_worker.tools.catalogue import Described
from millstream_worker.tools.servers import parse_servers

SAMPLES = {"string": "text", "number": 1, "integer": 1, "boolean": True, "array": [], "object": {}}


def made(tool: Described, first: Described) -> dict[str, Any]:
    """Return arguments that fit a simple schema; a tool that wants a schema gets the first one."""
    properties = tool._schema.get("properties", {})
    arguments = {name: SAMPLES.get(properties[name].get("type"), "text") for name in properties}
    return arguments | ({"schema": first._schema} if "schema" in arguments else {})


async def main(url: str) -> None:
    """Call every tool of the suite's server."""
    entry = {"url": url, "millstream": {"allowPrivate": True, "timeout": 20}}
    specs = parse_servers({"mcpServers": {"suite": entry}})
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    async with ToolCaller(specs, emit=lambda _: None) as caller:
        with suppress(ToolRejected):  # there is no tool without a name: this lists the others
            await caller.prepare("suite", "", {}, run_id="run")
        known = caller._peers["suite"].known
        tools = [] if known is None else list(known.tools.values())
        calls = context.get("toolCalls") or [
            {"name": tool.info.name, "arguments": made(tool, tools[0])} for tool in tools
        ]
        for call in calls:
            # The suite sends null where its own schema wants a boolean; we send nothing.
            given = {k: v for k, v in call["arguments"].items() if v is not None}
            await one(caller, call["name"], given)


async def one(caller: ToolCaller, tool: str, arguments: dict[str, Any]) -> None:
    """Call one tool; that it fails is an answer too."""
    inputs: Inputs | None = None
    try:
        for number in range(1, 6):
            prepared = await caller.prepare("suite", tool, arguments, run_id="run")
            result = await caller.call(
                prepared,
                arguments,
                timeout_s=20,
                idempotency_key=f"key-{tool}",
                run_id="run",
                inputs=inputs,
            )
            if isinstance(result, ToolResult):
                print(tool, result.text, file=sys.stderr)
                return
            accepted = {"action": "accept", "content": {"confirmed": True}}
            inputs = Inputs(number, result.state, dict.fromkeys(result.asks, accepted))
    except ToolError as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    anyio.run(main, sys.argv[-1])
