"""The masters of a cluster, each on a wire of its own: a call goes to the one that has its keys.

redis-py finds out which master has which slot, and opens the connections. Only the calls go past
it: it would lend a connection to one at a time, as it does with a single server (see `wire`), and
before Python 3.12 send each as a task that stands behind others.

Promises: a call is sent anew only when a master has said that it was not executed. A master whose
connection broke is trusted again when the cluster has been asked who has its slots. What is wrong
with one master holds up nobody who asks another.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import anyio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import TimeoutError as Overdue

from millstream.store.pooling import close
from millstream.store.wire import CLOSED, Wire

#: What a master says that has executed nothing: the slot has moved, moves, or moves just now.
_ELSEWHERE = (MovedError, AskError, TryAgainError)
_LOST = (Broken, Overdue, OSError)
#: How often a call is sent anew, and how long a slot is left alone whose keys are on their way.
_MOST_TIMES = 16
_PAUSE_S = 0.05
_SCRIPTS = frozenset({"EVALSHA", "EVAL"})


class _Way(NamedTuple):
    name: str
    wire: Wire


class Wires:
    """Calls of one program to a cluster.

    ``client`` is redis-py's, sends nothing else, and is closed by whoever made it.
    """

    def __init__(self, client: Any, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        #: By the name of the node.
        self._wires: dict[str, Wire] = {}
        #: Whose connection broke, or who said that it is loading, since the cluster was asked last.
        self._missing: set[str] = set()
        self._closed = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its reply. Raises errors of redis-py."""
        del options
        way = await self._way(args)
        try:
            return await way.wire.execute_command(*args)
        except _ELSEWHERE as refusal:
            return await self._redirected(refusal, args)
        except _LOST:
            self._missing.add(way.name)
            raise

    async def execute_together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one packet, all to the master that has the keys of the first.

        See `Wire.execute_together`.
        """
        way = await self._way(commands[0])
        try:
            replies = await way.wire.execute_together(*commands)
        except _LOST:
            self._missing.add(way.name)
            raise
        failure: Exception | None = None
        for number, reply in enumerate(replies):
            if isinstance(reply, _ELSEWHERE):
                # One that was refused is not sent after one that has failed.
                replies[number] = failure or await self._tried(reply, commands[number])
            elif isinstance(reply, _LOST):
                self._missing.add(way.name)
            failure = replies[number] if isinstance(replies[number], Exception) else failure
        return replies

    async def aclose(self) -> None:
        """Close every connection, for good: a call that comes later fails."""
        self._closed = True
        for wire in self._wires.values():
            await wire.aclose()

    async def _way(self, args: Sequence[Any]) -> _Way:
        """Return who has a command's keys, and the wire to it."""
        self._check_open()
        slot = self._client.keyslot(_key_of(args))
        nodes = self._client.nodes_manager.slots_cache.get(slot)
        # By what is known of the slots alone: redis-py would ask some master for more than that,
        # and every call would wait for that one.
        if not nodes or nodes[0].name in self._missing:
            await self._learn(nodes and nodes[0].name)
        return self._way_to(self._client.nodes_manager.get_node_from_slot(slot))

    def _way_to(self, node: Any) -> _Way:
        wire = self._wires.get(node.name)
        if wire is None:
            opens = functools.partial(_opened, node)
            # A refusal is of one slot: nobody else's calls on the connection are given up for it.
            wire = Wire(opens, self._timeout_s, passes=lambda _: False)
            self._wires[node.name] = wire
        return _Way(node.name, wire)

    async def _learn(self, missing: str | None = None) -> None:
        """Ask the cluster who has which slots, ``missing`` last; leave those that have none."""
        try:
            await self._client.nodes_manager.initialize(last_failed_node_name=missing)
        finally:
            if self._closed:
                await close(self._client)  # it has opened connections meanwhile
        self._check_open()
        self._missing.clear()
        masters = {node.name for node in self._client.get_primaries()}
        for name in self._wires.keys() - masters:
            await self._wires.pop(name).aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise Broken(CLOSED)

    # -- what is elsewhere ---------------------------------------------------------------------

    async def _redirected(self, refusal: ResponseError, args: Sequence[Any]) -> Any:
        """Send a command where a master says, and where that one says; return the reply."""
        for _ in range(_MOST_TIMES):
            way, asking = await self._other_way(refusal, args)
            try:
                if not asking:
                    return await way.wire.execute_command(*args)
                # In one packet: what is asked for is the very next command of a connection.
                _, reply = await way.wire.execute_together(("ASKING",), tuple(args))
                if isinstance(reply, Exception):
                    raise reply
            except _ELSEWHERE as again:
                refusal = again
            except _LOST:
                self._missing.add(way.name)
                raise
            else:
                return reply
        raise TryAgainError("the slot is on its way from one master to another") from refusal

    async def _other_way(self, refusal: ResponseError, args: Sequence[Any]) -> tuple[_Way, bool]:
        """Return who is to be asked instead, and whether as of a slot that is not yet its own."""
        if isinstance(refusal, TryAgainError):
            await anyio.sleep(_PAUSE_S)
            return await self._way(args), False
        if isinstance(refusal, MovedError):
            await self._client.nodes_manager.move_slot(refusal)
            return await self._way(args), False
        asked = cast("AskError", refusal)
        node = self._client.get_node(host=asked.host, port=asked.port)
        if node is None:
            await self._learn()
            node = self._client.get_node(host=asked.host, port=asked.port)
        self._check_open()
        if node is None:
            raise refusal  # the one who is asked knows of nobody there: it passes
        return self._way_to(node), True

    async def _tried(self, refusal: ResponseError, args: Sequence[Any]) -> Any:
        try:
            return await self._redirected(refusal, args)
        except Exception as error:  # noqa: BLE001 - told in the place of the reply
            return error


def _key_of(args: Sequence[Any]) -> Any:
    """Return a key of a call of a script, or of a read of streams."""
    return args[3] if args[0] in _SCRIPTS else args[args.index("STREAMS") + 1]


async def _opened(node: Any) -> Any:
    # As a node makes its own: by itself a connection tries several times, with pauses.
    options = {**node.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
    connection = node.connection_class(**options)
    await connection.connect()
    return connection
