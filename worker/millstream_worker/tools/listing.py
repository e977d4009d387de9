"""Asking a server for its tools, page by page.

Promise: a listing ends, whatever the server answers. It keeps nothing.
"""

from __future__ import annotations

from mcp import ClientSession
from mcp_types import ListToolsResult, PaginatedRequestParams, Tool
from pydantic import ValidationError

from millstream_worker.tools.catalogue import Catalogue
from millstream_worker.tools.faults import Malformed

_MOST_PAGES = 100
_MOST_TOOLS = 5_000

#: A server that says nothing about how long its listing holds, or says zero, means "I do not
#: know". Asking before every call would double its cost, and a change is announced or noticed.
_LEAST_S, _USUAL_S, _MOST_S = 60.0, 300.0, 3600.0


async def list_tools(client: ClientSession) -> tuple[Catalogue, float]:
    """Return the server's tools, and for how many seconds they need not be asked for again."""
    tools: list[Tool] = []
    seen: set[str] = set()
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await _page(client, cursor)
        tools += page.tools
        cursor = page.next_cursor
        if not cursor:
            return Catalogue.of(tools), _holds_s(client, page)
        if cursor in seen or len(tools) > _MOST_TOOLS:
            break
        seen.add(cursor)

    raise Malformed("its list of tools does not end")


async def _page(client: ClientSession, cursor: str | None) -> ListToolsResult:
    params = PaginatedRequestParams(cursor=cursor) if cursor else None
    try:
        return await client.list_tools(params=params)
    except ValidationError as error:
        raise Malformed(f"its list of tools is invalid ({first_of(error)})") from error


def first_of(error: ValidationError) -> str:
    """Return the first of the errors, without the input: that may be anything."""
    details = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in details['loc'])}: {details['msg']}"


def _holds_s(client: ClientSession, page: ListToolsResult) -> float:
    if client.discover_result is None or page.ttl_ms == 0:
        return _USUAL_S
    return min(_MOST_S, max(_LEAST_S, page.ttl_ms / 1000))
