"""The fault server's JSON-RPC, for both transports: from a request to its answer.

It speaks the wire itself and imports neither the SDK nor millstream, so that no mistake of
theirs can hide one of ours.
"""

from __future__ import annotations

from typing import Any

from tests.tools.fault_tools import FaultTools, RpcFailure

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


class Wire:
    """JSON-RPC for both transports: from a message to its answer."""

    def __init__(self, tools: FaultTools, *, era: str = "2026") -> None:
        self.tools = tools
        self.era = era
        self.page_size = 1000
        #: Leave out what 2026 servers forget.
        self.forgetful = False
        #: What the client said last that it can do.
        self.capabilities: dict[str, Any] = {}

    async def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request."""
        try:
            result = await self._result(message["method"], message.get("params") or {})
        except RpcFailure as failure:
            return self.failure(message["id"], failure.code, str(failure))
        if self.era == "2026" and not self.forgetful:
            result.setdefault("resultType", "complete")
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}

    @staticmethod
    def failure(number: Any, code: int, message: str) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}

    async def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        said = params.get("capabilities", (params.get("_meta") or {}).get(_CAPABILITIES))
        self.capabilities = self.capabilities if said is None else said
        match method:
            case "server/discover" if self.era == "2026":
                return {
                    "supportedVersions": [MODERN],
                    "capabilities": {"tools": {}},
                    "ttlMs": 0,
                    "cacheScope": "private",
                }
            case "initialize" if self.era == "2025":
                return {
                    "protocolVersion": LEGACY,
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "faults", "version": "1"},
                }
            case "tools/list":
                return self._page(int(params.get("cursor") or 0))
            case "tools/call":
                return await self.tools.call(params)
            case _:
                raise RpcFailure(-32601, f"Method not found: {method}")

    def _page(self, begin: int) -> dict[str, Any]:
        end = begin + self.page_size
        page: dict[str, Any] = {"tools": self.tools.tools[begin:end]}
        if self.era == "2026":
            page |= {"ttlMs": 0, "cacheScope": "private"}
        if end < len(self.tools.tools):
            page["nextCursor"] = str(end)
        return page
