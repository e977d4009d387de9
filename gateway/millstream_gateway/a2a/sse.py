"""Send what an agent tells as server-sent events, each a JSON message in one line.

Promise: an error that comes before anything was told is an answer of its own kind, with its own
status; one that comes later ends the stream with an event. Who reads too slowly, or is gone, is let
go of; a silent stream says that it lives.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import msgspec
from a2a.server.events.event_queue import Event
from a2a.utils.proto_utils import to_stream_response
from aiohttp import web
from google.protobuf.json_format import MessageToDict

from millstream_gateway.outgoing import HEADERS, Out
from millstream_gateway.waits import until_gone

#: Turns a message, or an error, into what is sent as JSON.
Wraps = Callable[[Any], dict[str, Any]]


async def stream(
    request: web.BaseRequest,
    events: AsyncGenerator[Event],
    *,
    told: Wraps,
    failed: Callable[[Exception], dict[str, Any]],
) -> web.StreamResponse:
    """Answer a request with all events. Raises what comes instead of the first one."""
    async with contextlib.aclosing(events):
        first = await anext(events, None)
        answer = web.StreamResponse(headers=HEADERS)
        await answer.prepare(request)
        out = Out(request, answer)
        with contextlib.suppress(ConnectionError):
            async with anyio.create_task_group() as group:

                async def until_nobody() -> None:
                    await until_gone(request)
                    group.cancel_scope.cancel()

                group.start_soon(out.ping_forever)
                group.start_soon(until_nobody)
                await _send(out, first, events, told, failed)
                group.cancel_scope.cancel()
            await answer.write_eof()
        return answer


async def _send(
    out: Out,
    first: Event | None,
    events: AsyncGenerator[Event],
    told: Wraps,
    failed: Callable[[Exception], dict[str, Any]],
) -> None:
    try:
        if first is not None and await out.write(_framed(told(_plain(first)))):
            async for event in events:
                if not await out.write(_framed(told(_plain(event)))):
                    return
    except Exception as error:  # noqa: BLE001 - whatever it is, the reader is told, and it ends
        await out.write(b"event: error\n" + _framed(failed(error)))


def _plain(event: Event) -> dict[str, Any]:
    plain: dict[str, Any] = MessageToDict(to_stream_response(event))
    return plain


def _framed(message: dict[str, Any]) -> bytes:
    # JSON has no line breaks of its own, so the data is one line.
    return b"data: %b\n\n" % msgspec.json.encode(message)
