"""A streamable HTTP MCP server with one tool that does nothing: ``python -m benchmarks.null_mcp``.

It speaks revision 2026-07-28 by hand, so that the server costs little and the client is what is
measured. It prints its port as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvloop
from aiohttp import web

_TOOL = {
    "name": "null",
    "description": "Do nothing.",
    "inputSchema": {"type": "object", "properties": {}},
    "annotations": {"readOnlyHint": True},
}
_RESULTS: dict[str, dict[str, Any]] = {
    "server/discover": {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "ttlMs": 0,
        "cacheScope": "private",
    },
    "tools/list": {"tools": [_TOOL], "ttlMs": 60_000, "cacheScope": "private"},
    "tools/call": {"content": [{"type": "text", "text": "ok"}]},
}


async def answer(request: web.Request) -> web.Response:
    """Answer one message."""
    if request.method != "POST":
        return web.Response(status=405)
    message = json.loads(await request.read())
    if "id" not in message:
        return web.Response(status=202)
    result = _RESULTS.get(message["method"])
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    if result is None:
        body["error"] = {"code": -32601, "message": "Method not found"}
    else:
        body["result"] = {**result, "resultType": "complete"}
    return web.json_response(body)


async def serve() -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_route("*", "/mcp", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve())
