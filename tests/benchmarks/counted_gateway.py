"""A gateway that counts the calls which the interpreter makes, from one request to another.

    python -m tests.benchmarks.counted_gateway REDIS REQUESTS

It prints its port; then, when a hundred requests and after them as many as it was told are
answered, the calls of Python and of builtins that these took.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio

from millstream import Client
from millstream.events import Event, RequestServed
from millstream.store.connection import Connection
from millstream_gateway.compose import Parts, compose, telemetry
from millstream_gateway.config import GatewayConfig

#: They find everything for the first time.
FIRST = 100


class Counter:
    """Tells the process's own subscribers, and counts between two requests."""

    def __init__(self, inner: Any, requests: int) -> None:
        self._inner = inner
        self._last = FIRST + requests
        self._served = 0
        self._calls = {"call": 0, "c_call": 0}

    def __call__(self, event: Event) -> None:
        """Tell, and begin or end counting."""
        self._inner(event)
        if not isinstance(event, RequestServed):
            return
        self._served += 1
        if self._served == FIRST:
            sys.setprofile(self._count)
        if self._served == self._last:
            sys.setprofile(None)
            print(self._calls["call"], self._calls["c_call"], flush=True)

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        if event in self._calls:
            self._calls[event] += 1


async def serve(redis: str, requests: int) -> None:
    """Serve until somebody ends the process."""
    config = GatewayConfig(
        redis=redis,
        http=0,
        grpc=-1,
        host="127.0.0.1",
        rate=1e6,
        enqueue_rate=1e6,
        log_format="json",
    )
    emit: Any = Counter(telemetry(config).emit, requests)
    connection = Connection(redis)
    async with Client(connection=connection) as client:
        gateway = compose(config, Parts(connection=connection, client=client, emit=emit))
        async with anyio.create_task_group() as group:
            group.start_soon(gateway.serve)
            await gateway.started.wait()
            print(gateway.port, flush=True)


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1], int(sys.argv[2]), backend_options={"use_uvloop": True})
