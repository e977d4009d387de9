"""The HTTP+JSON binding: a path for each operation.

Errors of the protocol are told as AIP-193 has it. What the protocol has no word for keeps its own
status and document, as everywhere in this gateway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.routes.common import serialize_list_tasks_response
from a2a.types import a2a_pb2 as pb
from a2a.utils.constants import A2A_JSON_MEDIA_TYPE
from a2a.utils.errors import A2AError, InvalidParamsError
from aiohttp import web
from google.protobuf.json_format import MessageToDict, Parse, ParseDict, ParseError
from google.protobuf.message import Message

from millstream_gateway.a2a.bindings import check_version_of, context_of_call
from millstream_gateway.a2a.sse import stream
from millstream_gateway.a2a.statuses import http_payload
from millstream_gateway.calls import Call
from millstream_gateway.rest.shapes import encoded

M = TypeVar("M", bound=Message)


class HttpJson:
    """Answers requests, one handler an operation."""

    def __init__(self, agent: RequestHandler) -> None:
        self._agent = agent

    async def send(self, call: Call) -> web.StreamResponse:
        """Begin a task or answer it."""

        async def ask(context: ServerCallContext) -> Mapping[str, Any]:
            params = _body(call, pb.SendMessageRequest())
            result = await self._agent.on_message_send(params, context)
            name = "task" if isinstance(result, pb.Task) else "message"
            return {name: MessageToDict(result)}

        return await _answered(call, ask)

    async def stream(self, call: Call) -> web.StreamResponse:
        """Begin a task or answer it, and follow it."""

        def ask(context: ServerCallContext) -> Any:
            params = _body(call, pb.SendMessageRequest())
            return self._agent.on_message_send_stream(params, context)

        return await _streamed(call, ask)

    async def subscribe(self, call: Call) -> web.StreamResponse:
        """Follow a task."""

        def ask(context: ServerCallContext) -> Any:
            params = pb.SubscribeToTaskRequest(id=call.path["id"])
            return self._agent.on_subscribe_to_task(params, context)

        return await _streamed(call, ask)

    async def task(self, call: Call) -> web.StreamResponse:
        """Return a task."""

        async def ask(context: ServerCallContext) -> Any:
            params = _query(call, pb.GetTaskRequest())
            params.id = call.path["id"]
            return await self._agent.on_get_task(params, context)

        return await _answered(call, ask)

    async def tasks(self, call: Call) -> web.StreamResponse:
        """Return a page of tasks."""

        async def ask(context: ServerCallContext) -> Mapping[str, Any]:
            params = _query(call, pb.ListTasksRequest())
            result = await self._agent.on_list_tasks(params, context)
            return serialize_list_tasks_response(result, params.include_artifacts)

        return await _answered(call, ask)

    async def cancel(self, call: Call) -> web.StreamResponse:
        """Ask a task to end."""

        async def ask(context: ServerCallContext) -> Any:
            params = _body(call, pb.CancelTaskRequest())
            params.id = call.path["id"]
            return await self._agent.on_cancel_task(params, context)

        return await _answered(call, ask)

    async def create_push(self, call: Call) -> web.StreamResponse:
        """Keep where somebody wants to be told."""

        async def ask(context: ServerCallContext) -> Any:
            params = _body(call, pb.TaskPushNotificationConfig())
            params.task_id = call.path["id"]
            return await self._agent.on_create_task_push_notification_config(params, context)

        return await _answered(call, ask)

    async def push(self, call: Call) -> web.StreamResponse:
        """Return where somebody wants to be told."""

        async def ask(context: ServerCallContext) -> Any:
            params = pb.GetTaskPushNotificationConfigRequest(
                task_id=call.path["id"], id=call.path["push"]
            )
            return await self._agent.on_get_task_push_notification_config(params, context)

        return await _answered(call, ask)

    async def pushes(self, call: Call) -> web.StreamResponse:
        """Return everywhere that somebody wants to be told."""

        async def ask(context: ServerCallContext) -> Any:
            params = _query(call, pb.ListTaskPushNotificationConfigsRequest())
            params.task_id = call.path["id"]
            return await self._agent.on_list_task_push_notification_configs(params, context)

        return await _answered(call, ask)

    async def drop_push(self, call: Call) -> web.StreamResponse:
        """Forget where somebody wanted to be told."""

        async def ask(context: ServerCallContext) -> Any:
            params = pb.DeleteTaskPushNotificationConfigRequest(
                task_id=call.path["id"], id=call.path["push"]
            )
            await self._agent.on_delete_task_push_notification_config(params, context)
            return {}

        return await _answered(call, ask)

    async def card(self, call: Call) -> web.StreamResponse:
        """Return the card with what the caller in particular can have done."""

        async def ask(context: ServerCallContext) -> Any:
            params = pb.GetExtendedAgentCardRequest()
            return await self._agent.on_get_extended_agent_card(params, context)

        return await _answered(call, ask)


async def _answered(
    call: Call, ask: Callable[[ServerCallContext], Awaitable[Any]]
) -> web.StreamResponse:
    try:
        check_version_of(call)
        result = await ask(context_of_call(call))
    except A2AError as error:
        return _refused(error)
    plain = MessageToDict(result) if isinstance(result, Message) else result
    return web.Response(body=encoded(plain), content_type=_media_type(call))


def _media_type(call: Call) -> str:
    """Return the type of an answer: JSON, or that of the protocol for whoever speaks of it."""
    headers = call.request.headers
    spoken = (headers.get("Accept", ""), headers.get("Content-Type", ""))
    named = any(A2A_JSON_MEDIA_TYPE in each.lower() for each in spoken)
    return A2A_JSON_MEDIA_TYPE if named else "application/json"


async def _streamed(call: Call, ask: Callable[[ServerCallContext], Any]) -> web.StreamResponse:
    try:
        check_version_of(call)
        return await stream(
            call.request,
            ask(context_of_call(call)),
            told=lambda event: event,
            failed=http_payload,
        )
    except A2AError as error:
        return _refused(error)


def _refused(error: A2AError) -> web.Response:
    payload = http_payload(error)
    return web.Response(
        body=encoded(payload),
        status=payload["error"]["code"],
        content_type="application/json",
    )


def _body(call: Call, message: M) -> M:
    if not call.body:
        return message
    try:
        Parse(call.body, message, ignore_unknown_fields=True)
    except (ParseError, RecursionError, UnicodeError, ValueError, TypeError) as error:
        raise InvalidParamsError(f"the body is not as described: {error}") from error
    return message


def _query(call: Call, message: M) -> M:
    """Fill a message from the query. Names that it does not have mean nothing."""
    fields = {field.json_name: field for field in message.DESCRIPTOR.fields}
    values: dict[str, Any] = {}
    for name, text in call.request.query.items():
        field = fields.get(name)
        if field is not None:
            values[name] = text.lower() == "true" if field.type == field.TYPE_BOOL else text
    try:
        ParseDict(values, message)
    except (ParseError, ValueError, TypeError) as error:
        raise InvalidParamsError(f"the query is not as described: {error}") from error
    return message
