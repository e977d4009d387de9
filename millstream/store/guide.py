"""Who has which slot of a cluster: asked of the cluster when it is not known, or holds no more.

Promises: who did not answer is asked last, and waited for two seconds, or longer when nobody is as
quick as that. The addresses that the program was given are asked, too, also when the cluster has
long moved on from them. However many want to know, the cluster is asked once, and a few times a
second at most.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import anyio
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
)
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import TimeoutError as Overdue

#: How long one node may take to be reached and to answer: at first, and at most, on a slow way.
_PATIENCE_S = 2.0
_MOST_PATIENCE_S = 16.0
#: The time between two questions to the cluster.
_PACE_S = 0.25


class Node(NamedTuple):
    """A server of a cluster, by its address."""

    host: str
    port: int


class _Range(NamedTuple):
    first: int
    last: int
    master: Node
    replicas: tuple[Node, ...]


class Guide:
    """What a program knows of a cluster. ``opens`` returns a connection of redis-py to a node."""

    def __init__(self, seeds: Sequence[Node], opens: Callable[[Node], Awaitable[Any]]) -> None:
        self._seeds = seeds
        self._opens = opens
        self._ranges: list[_Range] = []
        #: What masters have said since the cluster was asked last.
        self._moved: dict[int, Node] = {}
        #: Who was found to be away since then, and who did not answer when asked last.
        self._missing: set[Node] = set()
        self._silent: set[Node] = set()
        self._patience_s = _PATIENCE_S
        self._asking = asyncio.Lock()
        self._asked = 0
        self._failure: Exception | None = None
        self._asked_at = float("-inf")

    async def master_of(self, slot: int) -> Node:
        """Return who has a slot; asks when that is not known, or is away. Raises of redis-py."""
        node = self._master(slot)
        if node is None or node in self._missing:
            await self._learn()
            node = self._master(slot)
        if node is None:
            raise SlotNotCoveredError(f"no master of the cluster has slot {slot}") from None
        return node

    def moved(self, slot: int, to: Node) -> None:
        """A master has said who has a slot now."""
        self._moved[slot] = to

    def miss(self, node: Node) -> None:
        """A node does not answer, or says that it is not up to the cluster's state."""
        self._missing.add(node)

    def _master(self, slot: int) -> Node | None:
        if slot in self._moved:
            return self._moved[slot]
        at = bisect_right(self._ranges, slot, key=lambda each: each.first) - 1
        found = self._ranges[at] if at >= 0 else None
        return found.master if found is not None and slot <= found.last else None

    async def _learn(self) -> None:
        asked = self._asked
        async with self._asking:
            if self._asked != asked:
                # Somebody else has asked meanwhile, and whoever waited shares what came of it.
                if self._failure is not None:
                    raise self._failure
                return
            loop = asyncio.get_running_loop()
            await anyio.sleep(max(0.0, self._asked_at + _PACE_S - loop.time()))
            missing = frozenset(self._missing)
            try:
                self._ranges = await self._slots(missing)
                self._failure = None
                self._moved.clear()
                self._missing -= missing
            except (RedisError, RedisClusterException, OSError) as error:
                # Not so when whoever asks gives up: then the next one asks.
                self._failure = error
                self._asked += 1
                raise
            finally:
                self._asked_at = loop.time()
            self._asked += 1

    async def _slots(self, missing: frozenset[Node]) -> list[_Range]:
        """Return what the first that answers says; raises what the last one has failed with."""
        known = [node for each in self._ranges for node in (each.master, *each.replicas)]
        random.shuffle(known)
        nodes = dict.fromkeys([*self._moved.values(), *known, *self._seeds])
        last = missing | self._silent
        failure: Exception = Broken("the cluster has no address")
        for node in sorted(nodes, key=last.__contains__):
            try:
                found = _ranges(await self._answer(node), node)
            except (AuthenticationError, NoPermissionError):
                raise  # no other node would say otherwise
            except (RedisError, OSError) as error:
                self._silent.add(node)
                failure = error
                continue
            self._silent.discard(node)
            if found:
                return found
            failure = SlotNotCoveredError(f"{node.host}:{node.port} knows of no slots")
        self._patience_s = min(_MOST_PATIENCE_S, 2 * self._patience_s)
        raise failure

    async def _answer(self, node: Node) -> Any:
        with anyio.move_on_after(self._patience_s):
            connection = await self._opens(node)
            try:
                await connection.send_command("CLUSTER", "SLOTS")
                return await connection.read_response()
            finally:
                with anyio.CancelScope(shield=True):
                    await connection.disconnect(nowait=True)
        raise Overdue(f"{node.host}:{node.port} did not answer within {self._patience_s:g} s")


def _ranges(reply: Sequence[Any], asked: Node) -> list[_Range]:
    """Return what ``CLUSTER SLOTS`` says, in order; who has no name there is who was asked."""
    return sorted(
        _Range(int(first), int(last), *_nodes(nodes, asked)) for first, last, *nodes in reply
    )


def _nodes(rows: Sequence[Any], asked: Node) -> tuple[Node, tuple[Node, ...]]:
    master, *replicas = [Node(_text(row[0]) or asked.host, int(row[1])) for row in rows]
    return master, tuple(replicas)


def _text(host: bytes | str | None) -> str:
    return host.decode() if isinstance(host, bytes) else host or ""
