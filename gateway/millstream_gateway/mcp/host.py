"""The MCP server of the official SDK, over our tools: stateless, on streamable HTTP.

Both eras are spoken, as the SDK does it: nothing is kept between two requests, so any gateway
answers any of them.
"""

from __future__ import annotations

from typing import Any

import anyio
import mcp_types as types
from aiohttp import web
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from millstream import __version__
from millstream_gateway.auth.principals import Role
from millstream_gateway.calls import Call
from millstream_gateway.mcp.bridge import CALL, exchange
from millstream_gateway.mcp.tools import RunTools, Tool, UnknownTool
from millstream_gateway.routes import Answer, Route

PATH = "/mcp"
_INSTRUCTIONS = (
    "Each workflow is a tool that starts a durable run. A run that does not end at once goes on by"
    " itself: its answer names it, and run_status, run_result, run_events and run_cancel follow it."
)

_Context = ServerRequestContext[Any, Any]


class Host:
    """Answers MCP requests. ``serve_forever`` must run."""

    def __init__(self, tools: RunTools, most_bytes: int) -> None:
        self._tools = tools
        server: Server[Any] = Server(
            "millstream",
            version=__version__,
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        self._manager = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, max_request_body_size=most_bytes
        )

    async def serve_forever(self) -> None:
        """Have a place for what the SDK starts."""
        async with self._manager.run():
            await anyio.sleep_forever()

    def routes(self) -> list[Route]:
        """Return the one route of the server."""
        return [
            Route(
                method="POST",
                path=PATH,
                name="mcp",
                summary="Speak MCP",
                tag="mcp",
                handler=self.answer,
                needs=Role.VIEWER,
                body=bytes,
                answers={200: Answer("An MCP message.")},
                described=False,
            )
        ]

    async def answer(self, call: Call) -> web.StreamResponse:
        """Answer one MCP request."""
        return await exchange(self._manager.handle_request, call)

    async def _list(
        self, context: _Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        del params
        found = await self._tools.list(_call(context))
        return types.ListToolsResult(tools=[_described(tool) for tool in found])

    async def _call(
        self, context: _Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        meta = dict(context.meta or {})
        try:
            told = await self._tools.call(_call(context), params.name, params.arguments or {}, meta)
        except UnknownTool as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from error
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=told.text)],
            structured_content=told.data,
            is_error=told.failed,
        )


def _call(context: _Context) -> Call:
    request: Any = context.request
    call: Call = request.scope[CALL]
    return call


def _described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=dict(tool.arguments),
        annotations=types.ToolAnnotations(
            read_only_hint=tool.reads,
            destructive_hint=not tool.reads,
            idempotent_hint=tool.repeatable,
        ),
    )
