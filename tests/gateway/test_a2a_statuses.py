"""Statuses and media types of A2A, for programs that go by them alone, as it specifies them."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from a2a.types import a2a_pb2 as pb
from a2a.types import a2a_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

from millstream import Context, Workflows
from millstream.store import catalogues
from millstream_worker.described import describe
from tests.gateway.issuer import Issuer
from tests.gateway.served import served, worker_of

app = Workflows()
JSON, A2A_JSON = "application/json", "application/a2a+json"


@app.workflow()
async def echo(ctx: Context, message: str) -> str:
    """Say it again."""
    return message


def said(**fields: Any) -> dict[str, Any]:
    """A message in JSON."""
    part = {"text": "x", "mediaType": "text/plain"}
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [part], **fields}
    return {"message": message}


async def test_an_error_has_the_status_of_the_specification(
    memory_url: str, issuer: Issuer
) -> None:
    """Of the two bindings that have statuses; the official SDK has others for some."""
    async with served(memory_url, issuer, grpc=0) as gateway, worker_of(gateway.store, app):
        data = catalogues.note(describe(app))
        await catalogues.publish(gateway.connection, "default", data, 600)

        async def ask(method: str, path: str, version: str = "1.0", **options: Any) -> Any:
            headers = {
                "Authorization": f"Bearer {gateway.token}", "A2A-Version": version,
                **options.pop("headers", {}),
            }  # fmt: skip
            async with gateway.http.request(
                method, f"{gateway.url}/a2a/v1{path}", headers=headers, **options
            ) as answer:
                document = await answer.json(content_type=None)
                return answer.status, answer.content_type, document

        status, kind, begun = await ask("POST", "/message:send", json=said())
        assert (status, kind) == (200, JSON)
        task = begun["task"]["id"]
        assert (await ask("GET", f"/tasks/{task}", headers={"Accept": A2A_JSON}))[1] == A2A_JSON
        spoken: dict[str, Any] = {"headers": {"Content-Type": A2A_JSON}, "data": b"{}"}
        status, kind, refused = await ask("POST", f"/tasks/{task}:cancel", **spoken)
        assert (status, kind, refused["error"]["code"]) == (409, JSON, 409)
        image = [{"raw": "eA==", "mediaType": "image/png"}]
        assert (await ask("POST", "/message:send", json=said(parts=image)))[0] == 415
        more = said(taskId=task, messageId="m2")
        for status, _, refused in (
            await ask("GET", "/tasks", version="99.0"),
            await ask("POST", "/message:send", json=more),
        ):
            assert (status, refused["error"]["status"]) == (400, "UNIMPLEMENTED")

        assert gateway.gateway.grpc is not None
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.gateway.grpc.port}") as channel:
            stub: Any = a2a_pb2_grpc.A2AServiceStub(channel)  # type: ignore[no-untyped-call]
            shown = ("authorization", f"Bearer {gateway.token}")

            async def code(call: Any, request: Any, version: str = "1.0") -> tuple[Any, str]:
                with pytest.raises(grpc.aio.AioRpcError) as told:
                    await call(request, metadata=(shown, ("a2a-version", version)))
                details = dict(told.value.trailing_metadata() or ())["grpc-status-details-bin"]
                document = status_pb2.Status.FromString(details)
                info = error_details_pb2.ErrorInfo()
                assert document.details[0].Unpack(info)
                assert document.code == told.value.code().value[0]
                return told.value.code(), info.reason

            wanted = pb.GetTaskRequest(id=task)
            assert await code(stub.GetTask, wanted, "99.0") == (
                grpc.StatusCode.UNIMPLEMENTED, "VERSION_NOT_SUPPORTED",
            )  # fmt: skip
            message = pb.Message(
                message_id="m3", role=pb.ROLE_USER, task_id=task, parts=[pb.Part(text="x")]
            )
            assert await code(stub.SendMessage, pb.SendMessageRequest(message=message)) == (
                grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED_OPERATION",
            )  # fmt: skip
            assert await code(stub.CancelTask, pb.CancelTaskRequest(id=task)) == (
                grpc.StatusCode.FAILED_PRECONDITION, "TASK_NOT_CANCELABLE",
            )  # fmt: skip
