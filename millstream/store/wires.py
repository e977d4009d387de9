"""The masters of a cluster, each on a wire of its own: a call goes to the one that has its keys.

redis-py knows which master has which slot, and learns it anew when that changes; it opens the
connections, too. Only the calls go past it: it would lend a connection to one at a time, as it
does with a single server (see `wire`), and each would be a task that stands behind others.

Promises: a call is sent on only when a master has said that it was not executed. A master whose
connection broke is asked by redis-py until that has found it, or whoever took its place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import TimeoutError as Overdue

from millstream.store.wire import Wire

#: What a master says that has executed nothing. redis-py knows what follows from each, and does it.
_ELSEWHERE = (MovedError, AskError, TryAgainError, ClusterDownError)
_LOST = (Broken, Overdue, OSError)
_SCRIPTS = frozenset({"EVALSHA", "EVAL"})


class Wires:
    """Calls of one program to a cluster. ``client`` is redis-py's, and is closed with it."""

    def __init__(self, client: Any, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        #: By the name of the node.
        self._wires: dict[str, Wire] = {}
        #: Whose connection broke, and has not been seen since.
        self._missing: set[str] = set()
        self._closed = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its reply. Raises errors of redis-py."""
        del options
        name, wire = await self._way(args)
        if wire is None:
            return await self._ask(name, args)
        try:
            return await wire.execute_command(*args)
        except _ELSEWHERE:
            return await self._ask(name, args)
        except _LOST:
            self._missing.add(name)
            raise

    async def execute_together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one packet, all to the master that has the keys of the first.

        See `Wire.execute_together`.
        """
        name, wire = await self._way(commands[0])
        if wire is None:
            return [await self._tried(name, command) for command in commands]
        try:
            replies = await wire.execute_together(*commands)
        except _LOST:
            self._missing.add(name)
            raise
        for number, reply in enumerate(replies):
            if isinstance(reply, _ELSEWHERE):
                replies[number] = await self._tried(name, commands[number])
            elif isinstance(reply, _LOST):
                self._missing.add(name)
        return replies

    async def aclose(self) -> None:
        """Close every connection, for good: a call that comes later fails."""
        self._closed = True
        for wire in self._wires.values():
            await wire.aclose()
        await self._client.aclose()

    async def _way(self, args: Sequence[Any]) -> tuple[str, Wire | None]:
        """Return who has a command's keys, and the wire to it; None: redis-py is to ask."""
        if self._closed:
            raise Broken(f"{args[0]} came after the connection was closed by its owner")
        key = _key_of(args)
        if key is None:
            return "", None
        await self._client.initialize()
        try:
            node = self._client.get_node_from_key(key)
        except SlotNotCoveredError:
            return "", None  # it looks anew, or knows how to say so
        if node.name in self._missing:
            return node.name, None
        wire = self._wires.get(node.name)
        if wire is None:
            self._forget_who_left()
            opens = functools.partial(_opened, node)
            # A refusal is of one slot: nobody else's calls on the connection are given up for it.
            wire = Wire(opens, self._timeout_s, passes=lambda _: False)
            self._wires[node.name] = wire
        return node.name, wire

    async def _ask(self, name: str, args: Sequence[Any]) -> Any:
        """Have redis-py find who executes a command; it remembers what it learns on the way."""
        reply = await self._client.execute_command(*args)
        self._missing.discard(name)
        return reply

    async def _tried(self, name: str, args: Sequence[Any]) -> Any:
        try:
            return await self._ask(name, args)
        except Exception as error:  # noqa: BLE001 - told in the place of the reply
            return error

    def _forget_who_left(self) -> None:
        """Give up the wires to nodes that are masters no more, when there is a new one."""
        masters = {node.name for node in self._client.get_primaries()}
        for name in self._wires.keys() - masters:
            self._wires.pop(name).drop()
        self._missing &= masters


def _key_of(args: Sequence[Any]) -> Any | None:
    """Return a key of a command; None where that takes knowledge of the command."""
    if args[0] in _SCRIPTS:
        return args[3] if args[2] else None
    if args[0] == "XREADGROUP":
        return args[args.index("STREAMS") + 1]
    return None


async def _opened(node: Any) -> Any:
    # As a node makes its own: by itself a connection tries several times, with pauses.
    options = {**node.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
    connection = node.connection_class(**options)
    await connection.connect()
    return connection
