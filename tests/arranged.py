"""Servers that belong together: a cluster of masters, a master with its replica and sentinels.

Each is a set of the private servers of `tests.servers`, joined as an operator would join them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Self

import redis

from tests.servers import RedisServer, ServerError

_SLOTS = 16384
_LIMIT_S = 20.0


class Cluster:
    """Masters that share the slots between them. Use it as a context manager."""

    def __init__(self, masters: int = 3) -> None:
        settings = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
        self.servers = [RedisServer(config=settings) for _ in range(masters)]
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The address, which names every master."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{x.port}" for x in self.servers)

    def __enter__(self) -> Self:
        with self._stack:
            for server in self.servers:
                self._stack.enter_context(server)
            self._join()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def flush(self) -> None:
        """Forget all data and all scripts, on every master."""
        for server in self.servers:
            server.flush()

    def owner(self, key: str) -> RedisServer:
        """Return the master that has a key's slot."""
        with self.servers[0].client() as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", key))
        return self.servers[slot * len(self.servers) // _SLOTS]

    def _join(self) -> None:
        count = len(self.servers)
        for number, server in enumerate(self.servers):
            # So that `owner` finds the master again: slot * count // slots is its number.
            first = -(-number * _SLOTS // count)
            last = -(-(number + 1) * _SLOTS // count) - 1
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                for other in self.servers:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for server in self.servers:
            _until(partial(_whole, server, count), "the cluster stands")


def _whole(server: RedisServer, count: int) -> bool:
    with server.client() as client:
        info = client.execute_command("CLUSTER", "INFO").decode()
    return "cluster_state:ok" in info and f"cluster_known_nodes:{count}" in info


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except redis.RedisError:
            pass  # not there yet
        time.sleep(0.02)

    raise ServerError(f"it did not come about that {what}")
