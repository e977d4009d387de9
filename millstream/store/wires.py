"""The masters of a cluster, each on a wire of its own: a call goes to the one that has its keys.

redis-py only opens the connections. Its client of a cluster would lend a connection to one call at
a time, as it does with a single server (see `wire`), and before Python 3.12 send each as a task
that stands behind others.

Promises: a call is sent anew only when a master has said that it was not executed. What is wrong
with one master holds up nobody who asks another.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import anyio
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import TimeoutError as Overdue

from millstream.store.guide import Guide, Node
from millstream.store.wire import CLOSED, Wire

#: What a master says that has executed nothing: the slot has moved, moves, or moves just now.
_ELSEWHERE = (MovedError, AskError, TryAgainError)
#: After these the cluster is asked who has the slot. One that is cut off from the others says so.
_LOST = (Broken, Overdue, OSError, ClusterDownError)
#: How often a call is sent anew, and the pause before that where one more way may lead nowhere.
_MOST_TIMES = 16
_PAUSE_S = 0.05
_SCRIPTS = frozenset({"EVALSHA", "EVAL"})


class Wires:
    """Calls of one program to a cluster. ``opens`` returns a connection of redis-py to a node."""

    def __init__(
        self, guide: Guide, opens: Callable[[Node], Awaitable[Any]], timeout_s: float
    ) -> None:
        self._guide = guide
        self._opens = opens
        self._timeout_s = timeout_s
        #: One to a node that has no slots any more is kept: it holds a connection at most.
        self._wires: dict[Node, Wire] = {}
        self._closed = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its reply. Raises errors of redis-py."""
        del options
        node = await self._master(args)
        try:
            return await self._to(node).execute_command(*args)
        except _ELSEWHERE as refusal:
            return await self._redirected(node, refusal, args)
        except _LOST:
            self._miss(node)
            raise

    async def execute_together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one packet, all to the master that has the keys of the first.

        See `Wire.execute_together`. Where the slot has moved, the first alone is sent on.
        """
        node = await self._master(commands[0])
        try:
            replies = await self._to(node).execute_together(*commands)
        except _LOST:
            self._miss(node)
            raise
        if isinstance(replies[0], _ELSEWHERE):
            try:
                replies[0] = await self._redirected(node, replies[0], commands[0])
            except Exception as error:  # noqa: BLE001 - told in the place of the reply
                replies[0] = error
        elif any(isinstance(reply, _LOST) for reply in replies):
            self._miss(node)
        return replies

    async def aclose(self) -> None:
        """Close every connection, for good: a call that comes later fails."""
        self._closed = True
        for wire in self._wires.values():
            await wire.aclose()

    async def _master(self, args: Sequence[Any]) -> Node:
        self._check_open()
        return await self._guide.master_of(_slot_of(args))

    def _miss(self, node: Node) -> None:
        if not self._closed:  # else it was given up here
            self._guide.miss(node)

    def _check_open(self) -> None:
        if self._closed:
            raise Broken(CLOSED)

    def _to(self, node: Node) -> Wire:
        self._check_open()
        wire = self._wires.get(node)
        if wire is None:
            opens = functools.partial(self._opens, node)
            # A refusal is of one slot: nobody else's calls on the connection are given up for it.
            wire = Wire(opens, self._timeout_s, passes=lambda _: False)
            self._wires[node] = wire
        return wire

    async def _redirected(self, node: Node, refusal: ResponseError, args: Sequence[Any]) -> Any:
        """Send a command where a master says, and where that one says; return the reply."""
        for times in range(_MOST_TIMES):
            if times or isinstance(refusal, TryAgainError):
                await anyio.sleep(_PAUSE_S)
            asking = isinstance(refusal, AskError) and not isinstance(refusal, MovedError)
            node = await self._next(node, refusal, args)
            try:
                if not asking:
                    return await self._to(node).execute_command(*args)
                # In one packet: what is announced is the very next command of the connection.
                wire = self._to(node)
                _, reply = await wire.execute_together(("ASKING",), tuple(args))
                if isinstance(reply, Exception):
                    raise reply
            except _ELSEWHERE as again:
                refusal = again
            except _LOST:
                self._miss(node)
                raise
            else:
                return reply
        raise TryAgainError("the slot is on its way from one master to another") from refusal

    async def _next(self, node: Node, refusal: ResponseError, args: Sequence[Any]) -> Node:
        """Return who is to be asked after a refusal by a node."""
        if isinstance(refusal, TryAgainError):
            return await self._master(args)
        said = cast("AskError", refusal)
        # Who is named without a host is on the same one.
        there = Node(said.host or node.host, said.port)
        if isinstance(refusal, MovedError):
            self._guide.moved(said.slot_id, there)
        return there


def _slot_of(args: Sequence[Any]) -> int:
    """Return the slot of a script's call, or of a read of streams."""
    key = args[3] if args[0] in _SCRIPTS else args[args.index("STREAMS") + 1]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())
