"""More pages to look at: what people are asked, what is run again and again, models and devices.

The page behind a link to a question is the one page that nobody signs in for: who has the link has
the token, and following a link decides nothing, since programs that look at mail follow links too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiohttp import web

from millstream.store import boards
from millstream.store.connection import Connection
from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.calls import Call
from millstream_gateway.dashboard.rendering import Rendering
from millstream_gateway.refusals import Malformed
from millstream_gateway.rest import operating_shapes
from millstream_gateway.rest.questions import Questions
from millstream_gateway.rest.schedules import Schedules

_LONGEST_COMMENT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """The handlers."""

    connection: Connection
    questions: Questions
    schedules: Schedules
    rendering: Rendering

    async def asked(self, call: Call) -> web.Response:
        """Show what people are asked in a queue."""
        queue = call.queue(call.query.queue)
        query = operating_shapes.QuestionsQuery(limit=call.query.limit, cursor=call.query.cursor)
        asked = replace(call, path={"queue": queue}, query=query)
        found: operating_shapes.QuestionList = (await self.questions.list(asked)).value
        return self.rendering.page(
            "questions",
            call.principal,
            queue=queue,
            queues=seen(call),
            questions=found.questions,
            next=found.next,
            may=call.principal.may(Role.OPERATOR, queue),
        )

    async def planned(self, call: Call) -> web.Response:
        """Show what is run again and again."""
        found = await self.schedules.listed(call)
        return self.rendering.page(
            "schedules",
            call.principal,
            schedules=found.schedules,
            next=found.next,
            may=lambda queue: call.principal.may(Role.OPERATOR, queue),
        )

    async def models(self, call: Call) -> web.Response:
        """Show models and the memory of the devices that they are on."""
        notes = await boards.read(self.connection, boards.MODELS)
        rows = [row for _, note in sorted(notes.items()) for row in _rows(note)]
        return self.rendering.page("models", call.principal, rows=rows, devices=_devices(rows))

    # -- by link -------------------------------------------------------------------------------

    async def linked(self, call: Call) -> web.Response:
        """Show the question that a link leads to, to whoever follows it."""
        found = await self.questions.linked(call, call.query.token)
        return self.rendering.page(
            "link",
            _STRANGER,
            question=found.question,
            data=found.data,
            here=call.request.rel_url.raw_path_qs,
        )

    async def answered(self, call: Call) -> web.Response:
        """Answer it."""
        said = (call.body.get("approved") or [""])[0]
        comment = (call.body.get("comment") or [""])[0].strip()
        if said not in {"true", "false"} or len(comment) > _LONGEST_COMMENT:
            raise Malformed("say yes or no")
        found = await self.questions.linked(call, call.query.token)
        approved = said == "true"
        await self.questions.answered(call, found, call.query.token, approved, comment or None)
        return self.rendering.page(
            "answered", _STRANGER, question=found.question, approved=approved
        )


_STRANGER = Principal(name="")


def seen(call: Call) -> list[str]:
    """Return the queues that a reader may choose from."""
    return [name for name in call.served if call.principal.may(Role.VIEWER, name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model on a device, or at a server."""

    host: str
    model: str
    backend: str
    state: str
    where: str
    facts: Mapping[str, Any]

    def size(self, name: str) -> int | None:
        """Return a number of bytes that a worker told; None where it told none."""
        found = self.facts.get(name)
        return int(found) if isinstance(found, int | float) else None


def _rows(note: bytes) -> Iterator[ModelRow]:
    """Yield what one worker says; nothing where a release says it differently."""
    try:
        said = msgspec.json.decode(note)
        for model in said["models"]:
            for device in model.get("devices") or [{}]:
                yield _row(str(said["host"]), model, device)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return


def _row(host: str, model: Mapping[str, Any], device: Mapping[str, Any]) -> ModelRow:
    state = str(model["state"])
    if device:
        state = "loaded" if device.get("loaded") else "ready"
    if "limit" in model:
        state = f"remote, {model.get('running', 0)} of {model['limit']}"
    return ModelRow(
        host=host,
        model=str(model["model"]),
        backend=str(model.get("backend", "")),
        state=state,
        where=str(device.get("device") or model.get("url") or ""),
        facts={**{name: each for name, each in model.items() if name != "devices"}, **device},
    )


def _devices(rows: list[ModelRow]) -> list[ModelRow]:
    """Return a row for each device: several models may share it."""
    found = {(row.host, row.where): row for row in rows if row.size("ceiling") is not None}
    return [found[each] for each in sorted(found)]
