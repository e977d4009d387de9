"""Another agent: the official A2A client, as any program would use it, over each binding."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.client import ClientCallContext
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
)
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct, Value

BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")


class Peer:
    """An agent that calls ours in one binding."""

    def __init__(
        self, client: Client, streaming: Client, card: AgentCard, binding: str, token: str
    ) -> None:
        self.binding = binding
        #: Everything but messages is asked through this.
        self.client = client
        self._streaming = streaming
        self.card = card
        shown = {"authorization": f"Bearer {token}"} if token else {}
        self.context = ClientCallContext(service_parameters=shown)

    async def send(
        self, *said: Any, wait: bool = True, push: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Send a message and return the task as it is answered."""
        request = request_of(*said, **fields)
        request.configuration.return_immediately = not wait
        if push is not None:
            ParseDict(push, request.configuration.task_push_notification_config)
        (answer,) = [each async for each in self.client.send_message(request, context=self.context)]
        return plain(answer.task)

    async def stream(self, *said: Any, **fields: Any) -> list[dict[str, Any]]:
        """Send a message and return everything that is streamed."""
        told = self._streaming.send_message(request_of(*said, **fields), context=self.context)
        return [plain(each) async for each in told]

    async def followed(self, task: str) -> AsyncIterator[dict[str, Any]]:
        """Subscribe to a task."""
        request = SubscribeToTaskRequest(id=task)
        async for each in self._streaming.subscribe(request, context=self.context):
            yield plain(each)

    async def subscribe(self, task: str) -> list[dict[str, Any]]:
        """Return everything that is told to who subscribes to a task."""
        return [each async for each in self.followed(task)]

    async def get(self, task: str, **fields: Any) -> dict[str, Any]:
        """Return a task."""
        request = GetTaskRequest(id=task, **fields)
        return plain(await self.client.get_task(request, context=self.context))

    async def list(self, **fields: Any) -> dict[str, Any]:
        """Return a page of tasks."""
        request = ListTasksRequest(**fields)
        return plain(await self.client.list_tasks(request, context=self.context))

    async def cancel(self, task: str) -> dict[str, Any]:
        """Ask a task to end."""
        request = CancelTaskRequest(id=task)
        return plain(await self.client.cancel_task(request, context=self.context))


def request_of(
    *said: Any,
    skill: str | None = None,
    message_id: str | None = None,
    task: str = "",
    context: str = "",
    answers: str | None = None,
) -> SendMessageRequest:
    """A message: texts as texts, parts as they are, anything else as data."""
    metadata = {k: v for k, v in (("skill", skill), ("answers", answers)) if v is not None}
    message = Message(
        message_id=message_id or str(uuid.uuid4()),
        role=Role.ROLE_USER,
        task_id=task,
        context_id=context,
        parts=[
            each
            if isinstance(each, Part)
            else Part(text=each)
            if isinstance(each, str)
            else Part(data=ParseDict(each, Value()))
            for each in said
        ],
        metadata=ParseDict(metadata, Struct()),
    )
    return SendMessageRequest(message=message)


@asynccontextmanager
async def peer(base: str, binding: str, token: str = "") -> AsyncIterator[Peer]:
    """Another agent that has fetched our card, and speaks one binding."""
    headers = {"A2A-Version": "1.0", **({"Authorization": f"Bearer {token}"} if token else {})}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:

        def client(card: AgentCard, *, streaming: bool) -> Client:
            config = ClientConfig(
                streaming=streaming,
                httpx_client=http,
                grpc_channel_factory=grpc.aio.insecure_channel,
                supported_protocol_bindings=[binding],
                use_client_preference=True,
            )
            return ClientFactory(config).create(card)

        fetched = await http.get(f"{base}/.well-known/agent-card.json")
        fetched.raise_for_status()
        card = ParseDict(fetched.json(), AgentCard())
        async with client(card, streaming=False) as one, client(card, streaming=True) as other:
            yield Peer(one, other, card, binding, token)


def plain(message: Any) -> dict[str, Any]:
    """A message of the protocol as JSON has it."""
    found: dict[str, Any] = MessageToDict(message)
    return found


def states(told: list[dict[str, Any]]) -> list[str]:
    """The states that a stream told, one after the other, each once."""
    found: list[str] = []
    for each in told:
        status = (each.get("task") or each.get("statusUpdate") or {}).get("status")
        if status and (not found or found[-1] != status["state"]):
            found.append(status["state"].removeprefix("TASK_STATE_").lower())
    return [state for n, state in enumerate(found) if n == 0 or found[n - 1] != state]
