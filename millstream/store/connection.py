"""One program's way to Redis, whatever stands behind the address.

Timeouts are always set explicitly: redis-py's own default would cut a longer blocking read. Its
automatic retries are switched off: a command that takes work must not be sent twice by somebody
who does not know what it does. Errors of redis-py end here and go on as ours.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import redis
import redis.asyncio
import redis.exceptions as refused
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from millstream.errors import (
    ConfigError,
    StoreUnavailable,
    UnfitStore,
)
from millstream.store import refusals
from millstream.store.addresses import Address, StoreKind, parse_address
from millstream.store.pooling import close, queueing
from millstream.store.sealing import Sealer

if TYPE_CHECKING:
    from millstream.store.ear import Ear
    from millstream.store.guide import Guide
    from millstream.store.wire import Wire
    from millstream.store.wires import Wires

#: How long an ordinary command may take before its connection counts as dead.
COMMAND_TIMEOUT_S = 5.0
MINIMUM_VERSION = (7, 0)
#: Where one server has everything, and a connection that redis-py has opened can be taken over.
_ONE_SERVER = frozenset({StoreKind.SINGLE, StoreKind.SENTINEL})

#: The servers behind ``memory://`` addresses. The one shared value of the project: an address is
#: a name, and two clients of one program that use the same name must meet.
_memory_servers: WeakValueDictionary[str, Any] = WeakValueDictionary()


class Connection:
    """Clients of one address. Opening sends nothing; the first command connects."""

    def __init__(
        self,
        url: str,
        *,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
        sealer: Sealer | None = None,
    ) -> None:
        self.address: Address = parse_address(url)
        #: Seals what is written and opens what is read; None: what is written stands in clear.
        self.sealer = sealer
        self._timeout_s = command_timeout_s
        self._server = self._memory_server() if self.in_memory else None
        self._clients: list[Any] = []
        #: What asks the sentinels, by the client that it finds a master for: it closes with it.
        self._asking: dict[int, list[Any]] = {}
        #: Whether it has ever answered: until then the address itself may be wrong.
        self._met = False
        self._closed = False
        #: For ordinary commands.
        self.client: Any
        #: Who has which slot of a cluster, for all that goes there over wires.
        self._guide: Guide | None
        self._wire: Wire | Wires | None
        self._make_clients()

    def open(self) -> None:
        """Make a connection usable again that was closed; one that is open stays as it is."""
        if self._closed:
            self._closed = False
            self._make_clients()

    def _make_clients(self) -> None:
        self.client = self.new_client()
        self._guide = None
        self._wire = self._new_wire(self._timeout_s)

    @property
    def scripts(self) -> Any:
        """What scripts are sent with: one connection a server for all of them, where possible."""
        return self._wire or self.client

    @property
    def in_memory(self) -> bool:
        """Whether the store lives in this process."""
        return self.address.kind is StoreKind.MEMORY

    def new_client(self, *, read_timeout_s: float | None = None) -> Any:
        """Return another asynchronous client, such as for blocking reads of ``read_timeout_s``."""
        timeout_s = self._timeout_s if read_timeout_s is None else read_timeout_s + self._timeout_s
        client = self._new(redis.asyncio, AsyncRetry(NoBackoff(), 0), timeout_s)
        self._clients.append(client)
        return client

    def new_threaded_client(self, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """Return a client for a thread that must not depend on the event loop."""
        return self._new(redis, Retry(NoBackoff(), 0), min(timeout_s, self._timeout_s))

    async def close_client(self, client: Any) -> None:
        """Close one of the clients made by `new_client`."""
        self._clients.remove(client)
        for each in (client, *self._asking.pop(id(client), ())):
            await close(each)

    async def aclose(self) -> None:
        """Close every client. A thread must not use its own any more.

        Scripts are refused from here on: whoever comes late must not open what nobody closes.
        """
        self._closed = True
        if self._wire is not None:
            await self._wire.aclose()
        for client in (*self._clients, *itertools.chain.from_iterable(self._asking.values())):
            await close(client)
        self._clients.clear()
        self._asking.clear()

    async def reset(self) -> None:
        """Drop all connections of the ordinary client.

        The next command finds its server anew: a demoted master stays connected, and refuses. The
        wire of the scripts sees to that itself; others may have calls under way on it.
        """
        pool = getattr(self.client, "connection_pool", None)
        if pool is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                # Not those in use: each of them fails by itself, in the hands of who uses it.
                await pool.disconnect(inuse_connections=False)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of redis-py into ours."""
        try:
            yield
            self._met = True
        except (redis.RedisError, refused.RedisClusterException, OSError) as error:
            raise refusals.translated(error, self.address, met=self._met) from error
        except (RuntimeError, AttributeError) as error:
            # How uvloop and redis-py trip over a connection that was closed under their hands.
            if not _within(error, "redis", "uvloop", "asyncio"):
                raise
            raise StoreUnavailable(str(self.address), f"the connection broke: {error}") from error

    async def check(self) -> None:
        """Raise `UnfitStore` when this Redis can never do, `StoreUnavailable` when it is away."""
        if self.in_memory:
            return

        with self.translated():
            await self._ask_sentinels()
            infos = await self._infos("server")
            # Hosted services forbid CONFIG; INFO says the same.
            memories = await self._infos("memory")

        for info, memory in zip(infos, memories, strict=True):
            self._check_master(info, memory.get("maxmemory_policy", "noeviction"))

    async def _ask_sentinels(self) -> None:
        """Raise why no sentinel answers: of a search for the master only the failure is told."""
        failure: Exception | None = None
        for sentinel in self._asking.get(id(self.client), ()):
            try:
                await sentinel.ping()
            except (redis.RedisError, OSError) as error:
                failure = error
            else:
                return
        if failure is not None:
            raise failure

    async def _infos(self, section: str) -> list[dict[str, str]]:
        """Return what every master says of itself: any of them may be the one that is not fit."""
        if self.address.kind is not StoreKind.CLUSTER:
            return [await self.client.info(section)]

        await self.client.initialize()
        masters = self.client.get_primaries()
        return [await self.client.info(section, target_nodes=node) for node in masters]

    def _check_master(self, info: Mapping[str, str], policy: str) -> None:
        if "server_name" not in info and _version(info["redis_version"]) < MINIMUM_VERSION:
            raise UnfitStore(
                str(self.address),
                f"it is version {info['redis_version']}",
                "millstream needs Redis 7.0 or Valkey 8",
            )
        if policy != "noeviction":
            raise UnfitStore(
                str(self.address),
                f"it evicts keys when memory runs out (maxmemory-policy {policy})",
                "set maxmemory-policy to noeviction, or runs will be lost",
            )

    def new_reader(self, read_timeout_s: float) -> Any:
        """Return what blocking reads are sent with, to be closed with ``aclose``."""
        wire = self._new_wire(read_timeout_s + self._timeout_s)
        return wire or self.new_client(read_timeout_s=read_timeout_s)

    async def new_ear(self) -> Ear | None:
        """Return what a channel is heard with, on a connection of its own.

        None where only redis-py knows the way: in memory, in a cluster, and without hiredis.
        """
        if self.address.kind not in _ONE_SERVER:
            return None
        try:
            from millstream.store.ear import Ear
        except ImportError:
            return None  # hiredis is not installed
        return Ear.take_over(await self._opened(self.client.connection_pool))

    def _new_wire(self, timeout_s: float) -> Wire | Wires | None:
        """Return None where only redis-py knows the way: in memory, and without hiredis."""
        if self.in_memory:
            return None
        try:
            from millstream.store.wire import Wire
        except ImportError:
            return None  # hiredis is not installed
        if self.address.kind is StoreKind.CLUSTER:
            return self._new_wires(timeout_s)
        opens = functools.partial(self._opened, self.client.connection_pool)
        return Wire(opens, timeout_s, passes=refusals.passing)

    def _new_wires(self, timeout_s: float) -> Wires:
        from millstream.store.guide import Guide, Node
        from millstream.store.wires import Wires

        options = self.client.nodes_manager.connection_kwargs

        async def opens(node: Node) -> Any:
            # As redis-py's own, by one that knows which class and options a connection has.
            known = redis.asyncio.cluster.ClusterNode(*node, **options)
            # Without pauses and trials anew: whoever calls decides about these.
            retry = AsyncRetry(NoBackoff(), 0)
            connection: Any = known.connection_class(**known.connection_kwargs | {"retry": retry})
            await connection.connect()
            return connection

        if self._guide is None:
            self._guide = Guide([Node(*each) for each in self.address.hosts], opens)
        return Wires(self._guide, opens, timeout_s)

    async def _opened(self, pool: Any) -> Any:
        connection = pool.make_connection()
        await connection.connect()
        return connection

    def _memory_server(self) -> Any:
        from millstream.store.in_memory import MemoryServer

        server = _memory_servers.get(self.address.name)
        if server is None:
            server = MemoryServer()
            _memory_servers[self.address.name] = server

        return server

    def _new(self, library: Any, retry: Any, timeout_s: float) -> Any:
        if self._server is not None:
            import fakeredis

            kind = fakeredis.FakeAsyncRedis if library is redis.asyncio else fakeredis.FakeRedis
            # RESP2: the shapes of fakeredis' replies from Lua differ under RESP3.
            return kind(server=self._server, protocol=2)

        options: dict[str, Any] = {
            "username": self.address.username,
            "password": self.address.password,
            "socket_timeout": timeout_s,
            "socket_connect_timeout": min(timeout_s, COMMAND_TIMEOUT_S),
            "socket_keepalive": True,
            "protocol": 2,
            "retry": retry,
            "client_name": f"millstream-{os.getpid()}",
        }
        if self.address.tls:
            options |= {"ssl": True, **self.address.tls_options}
        return self._arranged(library, options)

    def _arranged(self, library: Any, options: dict[str, Any]) -> Any:
        address = self.address
        if address.kind is StoreKind.SENTINEL:
            asking = {key: options[key] for key in ("socket_timeout", "socket_connect_timeout")}
            if address.tls:
                asking |= {"ssl": True, **address.tls_options}
            sentinel = library.sentinel.Sentinel(list(address.hosts), sentinel_kwargs=asking)
            client = sentinel.master_for(address.name, db=address.db, **options)
            self._asking[id(client)] = sentinel.sentinels
            return client
        if address.kind is StoreKind.CLUSTER:
            if not hasattr(redis.asyncio.RedisCluster, "pubsub"):
                raise ConfigError(
                    f"redis {redis.__version__} cannot listen on a cluster from an event loop;"
                    " pip install 'redis>=8'"
                )
            nodes = [library.cluster.ClusterNode(host, port) for host, port in address.hosts]
            if library is redis.asyncio:
                # By itself it closes all of its connections at every fifth slot that has moved,
                # under whoever waits for a reply.
                options["reinitialize_steps"] = 0
            return library.cluster.RedisCluster(startup_nodes=nodes, **options)

        host, port = address.hosts[0]
        client = library.Redis(host=host, port=port, db=address.db, **options)
        return queueing(client) if library is redis.asyncio else client


def _within(error: Exception, *packages: str) -> bool:
    """Whether an error was raised by the code of one of these packages."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(name).partition(".")[0] in packages


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
