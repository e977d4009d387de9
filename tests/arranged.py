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

from tests.servers import RedisServer, ServerError, Tls

_SLOTS = 16384
_LIMIT_S = 20.0


class Cluster:
    """Masters that share the slots between them. Use it as a context manager."""

    def __init__(self, masters: int = 3, tls: Tls | None = None) -> None:
        settings = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
        if tls:
            settings["tls-cluster"] = "yes"
        self._tls = tls
        self.servers = [RedisServer(config=settings, tls=tls) for _ in range(masters)]
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The address, which names every master."""
        hosts = ",".join(f"127.0.0.1:{x.port}" for x in self.servers)
        return _address("cluster", hosts, self._tls)

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


class Guarded:
    """A master, its replica, and a sentinel that watches over them. Use it as a context manager."""

    NAME = "mymaster"

    def __init__(self, tls: Tls | None = None) -> None:
        settings = {"repl-diskless-sync-delay": "0"}
        if tls:
            settings["tls-replication"] = "yes"
        self._tls = tls
        self.servers = [RedisServer(config=settings, tls=tls) for _ in range(2)]
        self._sentinel: _Sentinel
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The address: that of the sentinel, and the name of what it watches over."""
        return _address("sentinel", f"127.0.0.1:{self._sentinel.port}/{self.NAME}/0", self._tls)

    @property
    def master(self) -> RedisServer:
        """The server that the sentinel takes for the master."""
        with self._sentinel.client() as client:
            port = int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)[1])
        return next(server for server in self.servers if server.port == port)

    def __enter__(self) -> Self:
        with self._stack:
            master, replica = (self._stack.enter_context(server) for server in self.servers)
            self.follow(replica, master)
            sentinel = _Sentinel(self.NAME, master.port, self._tls)
            self._sentinel = self._stack.enter_context(sentinel)
            with self._sentinel.client() as client:
                # It looks every ten seconds by itself.
                client.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 200)
            _until(self._knows_the_replica, "the sentinel knows the replica")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def follow(self, replica: RedisServer, master: RedisServer) -> None:
        """Have a server copy another one, and return when it does."""
        with replica.client() as client:
            client.replicaof("127.0.0.1", master.port)
        _until(lambda: self.copied(master, 0), "the replica follows")

    def copied(self, master: RedisServer, wait_ms: int = 10_000) -> bool:
        """Whether everything that a master has acknowledged so far is at its replica."""
        with master.client(socket_timeout=30) as client:
            client.set("mark", "here")  # WAIT is about the writes of its own connection
            return int(client.execute_command("WAIT", 1, wait_ms)) >= 1

    def until_master(self, server: RedisServer) -> None:
        """Return once the sentinel has made a server the master, and it takes writes."""
        _until(lambda: self.master is server and _leads(server), "another server is master")

    def hand_over(self) -> None:
        """Make the replica the master in good order; the old one is demoted and goes on."""

        def accepted() -> bool:
            with self._sentinel.client() as client:
                return bool(client.execute_command("SENTINEL", "FAILOVER", self.NAME))

        _until(accepted, "the sentinel takes the replica for a good one")

    def _knows_the_replica(self) -> bool:
        with self._sentinel.client() as client:
            found = client.execute_command("SENTINEL", "REPLICAS", self.NAME)
        return len(found) == 1 and b"slave" in found[0][found[0].index(b"flags") + 1]


class _Sentinel(RedisServer):
    """A sentinel of its own: its vote alone decides."""

    def __init__(self, name: str, master: int, tls: Tls | None) -> None:
        super().__init__(tls=tls)
        self._watched = (name, master)

    def _command(self) -> list[str]:
        name, master = self._watched
        file = self.directory / "sentinel.conf"
        tls = {**self.tls.settings(self.port), "tls-replication": "yes"} if self.tls else None
        ports = tls or {"port": str(self.port)}
        lines = [
            *(f"{directive} {value}" for directive, value in ports.items()),
            "bind 127.0.0.1",
            f"dir {self.directory}",
            f"logfile {self.directory / 'server.log'}",
            f"sentinel monitor {name} 127.0.0.1 {master} 1",
            f"sentinel down-after-milliseconds {name} 1000",
            f"sentinel failover-timeout {name} 5000",
            "",
        ]
        file.write_text("\n".join(lines), "utf-8")
        return [self.program, str(file), "--sentinel"]


def _address(kind: str, rest: str, tls: Tls | None) -> str:
    return (
        f"rediss+{kind}://{rest}?ssl_ca_certs={tls.authority}" if tls else f"redis+{kind}://{rest}"
    )


def _leads(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.info("replication")["role"] == "master")


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
