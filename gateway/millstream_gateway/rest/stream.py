"""What a run says, as server-sent events: while it is said, and again after any break.

An event's id is its id in the store. Whoever lost the connection names the last one it has seen, to
this gateway or any other, and nothing is missed or told twice, as long as the store keeps it. The
last message is ``end``; its id begins with ``end:``, and whoever comes back with that is told that
there is no more (204), which also stops a browser from asking again.

The token of a question is for those who may answer it: others follow the run without it.

Promise: who reads too slowly, or is gone, is let go of within seconds; a silent stream says that it
lives.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import anyio
import msgspec
from aiohttp import web

from millstream.client import Run, RunEvent
from millstream.errors import MillstreamError, UnknownRun
from millstream.model.progress import EventKind
from millstream.telemetry.redaction import HIDDEN, redact
from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.auth.rates import Places
from millstream_gateway.calls import Call
from millstream_gateway.outgoing import HEADERS, Out
from millstream_gateway.refusals import Malformed
from millstream_gateway.rest.runs import Runs
from millstream_gateway.waits import until_gone

_END = "end:"
#: What a run says when it asks a person: with the token that answers.
_QUESTION = "approval"
_ID = re.compile(r"\d{1,19}-\d{1,19}")


class Streams:
    """The handler. ``drain`` ends every stream; its readers come back elsewhere."""

    def __init__(self, runs: Runs, places: Places, drain: anyio.Event) -> None:
        self._runs = runs
        self._places = places
        self._drain = drain

    async def events(self, call: Call) -> web.StreamResponse:
        """Tell what a run says until it has ended."""
        run, status = await self._runs.visible(call)
        after = _seen(call)
        if after.startswith(_END) and status.state.final:
            return web.Response(status=HTTPStatus.NO_CONTENT)

        with self._places.hold(call.principal.name):
            answer = web.StreamResponse(headers=HEADERS)
            await answer.prepare(call.request)
            with contextlib.suppress(ConnectionError):
                await self._tell(call, answer, run, after.removeprefix(_END))
                await answer.write_eof()
            return answer

    async def _tell(self, call: Call, answer: web.StreamResponse, run: Run, after: str) -> None:
        out = Out(call.request, answer)
        await out.write(b"retry: 1000\n\n")
        async with anyio.create_task_group() as group:

            async def told() -> None:
                await _each_event(out, run, after, shown_to(call.principal, run.queue))
                group.cancel_scope.cancel()

            async def until_over() -> None:
                await self._drain.wait()
                group.cancel_scope.cancel()

            async def until_nobody() -> None:
                await until_gone(call.request)
                group.cancel_scope.cancel()

            for each in (told, out.ping_forever, until_over, until_nobody):
                group.start_soon(each)


async def _each_event(out: Out, run: Run, after: str, shown: Callable[[RunEvent], Any]) -> None:
    try:
        async with contextlib.aclosing(run.events(after)) as events:  # type: ignore[type-var]  # it is a generator
            async for event in events:
                if not await out.write(_message(event, shown)):
                    return
    except UnknownRun:
        await out.write(b"event: gone\ndata: {}\n\n")
    except MillstreamError:
        # The store is away for longer than we insist: whoever reads comes back, and goes on.
        return


def shown_to(principal: Principal, queue: str) -> Callable[[RunEvent], Any]:
    """Return what of an event somebody is shown.

    A program gets what was said, a page shows nothing that looks like a secret.
    """
    if principal.form_token is not None:
        return lambda event: redact(event.data)
    if principal.may(Role.OPERATOR, queue):
        return lambda event: event.data
    return without_token


def without_token(event: RunEvent) -> Any:
    """Return what was said, without what would let its reader answer a question."""
    if event.name != _QUESTION or not isinstance(event.data, dict):
        return event.data
    return {**event.data, "token": HIDDEN}


def _message(event: RunEvent, shown: Callable[[RunEvent], Any]) -> bytes:
    data: dict[str, Any]
    if event.final:
        data = {"state": event.name, "error": event.data, "at": event.at}
        return _framed(f"{_END}{event.id}", "end", data)
    data = {"name": event.name, "data": shown(event), "at": event.at}
    # What is missing has no place to go on from: the reader keeps the one that it has.
    place = None if event.kind is EventKind.LEFT_OUT else event.id
    return _framed(place, str(event.kind), data)


def _framed(event_id: str | None, kind: str, data: Any) -> bytes:
    head = b"" if event_id is None else b"id: %b\n" % event_id.encode()
    # JSON has no line breaks of its own, so the data is one line.
    return b"%bevent: %b\ndata: %b\n\n" % (head, kind.encode(), msgspec.json.encode(data))


def _seen(call: Call) -> str:
    """Return the id of the last event that a reader has seen. Raises `Malformed`."""
    seen = call.header("Last-Event-ID") or call.query.after or ""
    bare = seen.removeprefix(_END)
    if bare and not _ID.fullmatch(bare):
        raise Malformed("the last event id is none that was given out")
    return seen
