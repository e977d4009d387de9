"""The JSON-RPC binding: one path, and the method in the body.

Errors of the protocol are answers, with status 200. What the protocol has no word for (who calls is
not known, asks too often, may not) keeps its own status, as everywhere in this gateway.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.request_handlers.response_helpers import build_error_response
from a2a.server.routes.common import serialize_list_tasks_response
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidParamsError,
    InvalidRequestError,
    JSONParseError,
    MethodNotFoundError,
)
from aiohttp import web
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from millstream.errors import MillstreamError
from millstream_gateway.a2a.bindings import check_version_of, context_of_call
from millstream_gateway.a2a.sse import stream
from millstream_gateway.calls import Call, Reply

_Method = Callable[[Any, ServerCallContext], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Request:
    """A request, as far as it could be read."""

    id: str | int | None
    method: str
    params: Any


class JsonRpc:
    """Answers JSON-RPC requests."""

    def __init__(self, agent: RequestHandler) -> None:
        self._agent = agent
        self._calls: dict[str, tuple[type[Message], _Method]] = {
            "SendMessage": (pb.SendMessageRequest, agent.on_message_send),
            "GetTask": (pb.GetTaskRequest, agent.on_get_task),
            "ListTasks": (pb.ListTasksRequest, agent.on_list_tasks),
            "CancelTask": (pb.CancelTaskRequest, agent.on_cancel_task),
            "CreateTaskPushNotificationConfig": (
                pb.TaskPushNotificationConfig,
                agent.on_create_task_push_notification_config,
            ),
            "GetTaskPushNotificationConfig": (
                pb.GetTaskPushNotificationConfigRequest,
                agent.on_get_task_push_notification_config,
            ),
            "ListTaskPushNotificationConfigs": (
                pb.ListTaskPushNotificationConfigsRequest,
                agent.on_list_task_push_notification_configs,
            ),
            "DeleteTaskPushNotificationConfig": (
                pb.DeleteTaskPushNotificationConfigRequest,
                agent.on_delete_task_push_notification_config,
            ),
            "GetExtendedAgentCard": (
                pb.GetExtendedAgentCardRequest,
                agent.on_get_extended_agent_card,
            ),
        }
        self._streams: dict[str, tuple[type[Message], Callable[..., Any]]] = {
            "SendStreamingMessage": (pb.SendMessageRequest, agent.on_message_send_stream),
            "SubscribeToTask": (pb.SubscribeToTaskRequest, agent.on_subscribe_to_task),
        }

    async def answer(self, call: Call) -> Reply | web.StreamResponse:
        """Answer one request. Raises what is no error of the protocol."""
        asked_id: str | int | None = None
        try:
            decoded = _decoded(call.body)
            asked_id = _id_of(decoded)
            asked = _read(decoded, asked_id)
            check_version_of(call)
            context = context_of_call(call)
            if asked.method in self._streams:
                return await self._stream(call, asked, context)
            return Reply(value=_success(asked, await self._call(asked, context)))
        except A2AError as error:
            return Reply(value=build_error_response(asked_id, error))

    async def _call(self, asked: _Request, context: ServerCallContext) -> Any:
        if asked.method not in self._calls:
            raise MethodNotFoundError
        kind, method = self._calls[asked.method]
        params = _params(asked, kind)
        result = await method(params, context)
        match result:
            case pb.Task() | pb.Message() if asked.method == "SendMessage":
                name = "task" if isinstance(result, pb.Task) else "message"
                return {name: MessageToDict(result)}
            case pb.ListTasksResponse():
                assert isinstance(params, pb.ListTasksRequest)
                return serialize_list_tasks_response(result, params.include_artifacts)
            case Message():
                return MessageToDict(result)
            case _:
                return None

    async def _stream(
        self, call: Call, asked: _Request, context: ServerCallContext
    ) -> web.StreamResponse:
        kind, method = self._streams[asked.method]
        events = method(_params(asked, kind), context)
        return await stream(
            call.request,
            events,
            told=lambda event: _success(asked, event),
            failed=lambda error: build_error_response(asked.id, _shown(error)),
        )


def _success(asked: _Request, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked.id, "result": result}


def _shown(error: Exception) -> A2AError:
    """Return an error as a stream tells it. One that nobody foresaw is told without its text."""
    if isinstance(error, A2AError):
        return error
    return InternalError(str(error) if isinstance(error, MillstreamError) else "see the log")


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise JSONParseError from error


def _id_of(decoded: Any) -> str | int | None:
    found = decoded.get("id") if isinstance(decoded, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def _read(decoded: Any, asked_id: str | int | None) -> _Request:
    """Return the request. Raises `InvalidRequestError`, also for batches, which 1.0 has not."""
    if not isinstance(decoded, dict) or decoded.get("jsonrpc") != "2.0":
        raise InvalidRequestError('a request is one object with "jsonrpc": "2.0"')
    method = decoded.get("method")
    if not isinstance(method, str) or not method:
        raise InvalidRequestError("a request names its method")
    if decoded.get("id") is not None and asked_id is None:
        raise InvalidRequestError("the id of a request is a text or a whole number")
    return _Request(asked_id, method, decoded.get("params", {}))


def _params(asked: _Request, kind: type[Message]) -> Message:
    if not isinstance(asked.params, dict):
        raise InvalidParamsError("the params are an object")
    try:
        return ParseDict(asked.params, kind(), ignore_unknown_fields=True)
    except (ParseError, RecursionError, ValueError, TypeError) as error:
        raise InvalidParamsError(f"the params are not as described: {error}") from error
