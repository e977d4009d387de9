"""The statuses of errors over HTTP and gRPC, as the table of the specification has them (5.4).

The SDK (1.3) has others for some of them. Who reads the reason beside it, as its client does, sees
no difference; who goes by the status alone does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
from a2a.server.request_handlers.grpc_handler import GrpcHandler
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import (
    A2A_ERROR_REASONS,
    A2AError,
    ContentTypeNotSupportedError,
    InternalError,
    InvalidAgentResponseError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    UnsupportedOperationError,
    VersionNotSupportedError,
)
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from millstream.errors import said

_HTTP: Mapping[type[Exception], int] = {
    TaskNotCancelableError: 409,
    ContentTypeNotSupportedError: 415,
    InvalidAgentResponseError: 502,
}
_GRPC: Mapping[type[Exception], grpc.StatusCode] = {
    PushNotificationNotSupportedError: grpc.StatusCode.UNIMPLEMENTED,
    UnsupportedOperationError: grpc.StatusCode.UNIMPLEMENTED,
    VersionNotSupportedError: grpc.StatusCode.UNIMPLEMENTED,
}
_DOMAIN = "a2a-protocol.org"
_DETAILS = "grpc-status-details-bin"


def http_payload(error: Exception) -> dict[str, Any]:
    """Return the document of an error; its status is the ``code`` in it."""
    # One that nobody foresaw is told without its text.
    known = error if isinstance(error, A2AError) else InternalError("see the log")
    payload = build_rest_error_payload(known)
    kind = type(known)
    payload["error"]["code"] = _HTTP.get(kind, payload["error"]["code"])
    if kind in _GRPC:
        payload["error"]["status"] = _GRPC[kind].name
    return payload


class GrpcErrors(GrpcHandler):
    """The SDK's handler, with the statuses of the specification."""

    async def abort_context(
        self, error: A2AError, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """End a call with an error."""
        code = _GRPC.get(type(error))
        if code is None:
            await super().abort_context(error, context)
            return
        detail = any_pb2.Any()
        detail.Pack(
            error_details_pb2.ErrorInfo(reason=A2A_ERROR_REASONS[type(error)], domain=_DOMAIN)
        )
        status = status_pb2.Status(code=code.value[0], message=said(error), details=[detail])
        before = tuple(context.trailing_metadata() or ())
        context.set_trailing_metadata((*before, (_DETAILS, status.SerializeToString())))
        await context.abort(code, said(error))
