"""The fault server over stdio: a program that crashes, floods and stops listening."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import anyio

from tests.tools.fault_tools import Misbehaviour
from tests.tools.fault_wire import Wire


class FaultStdio:
    """The server over stdio, as a program."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._under_way: dict[Any, anyio.CancelScope] = {}

    async def serve(self) -> None:
        async with anyio.create_task_group() as group:
            async for line in anyio.wrap_file(sys.stdin):
                message = json.loads(line)
                if "id" in message:
                    group.start_soon(self._answer, message)
                elif message["method"] == "notifications/cancelled":
                    scope = self._under_way.get(message["params"]["requestId"])
                    if scope is not None:
                        scope.cancel()
            group.cancel_scope.cancel()

    async def _answer(self, message: dict[str, Any]) -> None:
        with anyio.CancelScope() as scope:
            self._under_way[message["id"]] = scope
            try:
                self._say(json.dumps(await self._wire.answer(message)))
            except Misbehaviour as fault:
                self._misbehave(message["id"], fault)
            finally:
                del self._under_way[message["id"]]

    def _misbehave(self, number: Any, fault: Misbehaviour) -> None:
        good = {"jsonrpc": "2.0", "id": number, "result": {"content": []}}
        match fault.kind:
            case "bad_json":
                self._say("this is not JSON")
            case "wrong_id":
                self._say(json.dumps(good | {"id": 999_999}))
            case "bad_result":
                self._say(json.dumps(good | {"result": {"content": "not a list"}}))
            case "huge":
                blocks = [{"type": "text", "text": "x" * fault.size}]
                self._say(json.dumps(good | {"result": {"content": blocks}}))
            case "deaf":
                # Reads no more: what is written to it stays in the pipe.
                time.sleep(3600)
            case _:  # crash
                print("cannot go on", file=sys.stderr, flush=True)
                os._exit(3)

    @staticmethod
    def _say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
