"""Private servers, one for each sample, and what they count of themselves."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks.processes import Child, Failed, wait_until

_START_LIMIT_S = 30.0
_SLOTS = 16_384
#: The masters of a cluster talk to each other on a port so far above the other.
_BUS = 10_000
_PORTS = 65_536
#: Of the measuring itself, not of the systems.
_OURS = ("info", "hello", "client")
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
#: A superuser cannot run Postgres; this user comes with its package.
_POSTGRES_USER = "postgres"


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server has done since it started. None: it does not count that."""

    cpu_s: float
    commands: int | None = None
    scripts: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    memory: int | None = None


class Server:
    """A server that runs."""

    def __init__(self, url: str, child: Child) -> None:
        self.url = url
        self.child = child

    def counters(self) -> Counters:
        """Return what it has done."""
        return Counters(cpu_s=self.child.cpu_s(changing=True))


class RedisServer(Server):
    """A Redis that counts commands and bytes as well."""

    def counters(self) -> Counters:
        """Return what it has done, those commands included that scripts call."""
        with redis.Redis.from_url(self.url, protocol=2) as client:
            found: dict[str, Any] = client.info("everything")
        calls = {
            name.removeprefix("cmdstat_"): row["calls"]
            for name, row in found.items()
            if name.startswith("cmdstat_")
        }
        return Counters(
            cpu_s=found["used_cpu_user"] + found["used_cpu_sys"],
            commands=sum(n for name, n in calls.items() if name.split("|")[0] not in _OURS),
            scripts=sum(calls.get(name, 0) for name in ("eval", "evalsha", "fcall")),
            bytes_in=found["total_net_input_bytes"],
            bytes_out=found["total_net_output_bytes"],
            memory=found["used_memory"],
        )


@contextlib.contextmanager
def redis_server(
    directory: Path, *, appendonly: bool = False, cluster: bool = False
) -> Iterator[RedisServer]:
    """Start a Redis on a free port; with ``appendonly`` it writes to disk once a second."""
    port = _free_port(_BUS if cluster else 0)
    command = [
        *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)),
        *("--save", "", "--appendonly", "yes" if appendonly else "no"),
        *("--appendfsync", "everysec", "--maxmemory-policy", "noeviction"),
        *("--cluster-enabled", "yes" if cluster else "no"),
    ]
    log = directory / "redis.log"
    with Child(command, log=log, environment=os.environ, directory=directory) as child:
        server = RedisServer(f"redis://127.0.0.1:{port}/0", child)
        wait_until(lambda: _answers(server.url), _START_LIMIT_S, "Redis answers", [child])
        yield server


@contextlib.contextmanager
def postgres_server(directory: Path) -> Iterator[Server]:
    """Start a Postgres on a free port, with a data directory of its own."""
    if not _POSTGRES:
        raise Failed("Postgres is not installed (Debian, Ubuntu: apt-get install postgresql)")
    data, port = directory / "data", _free_port()
    user = _POSTGRES_USER if os.getuid() == 0 else None
    data.mkdir()
    if user is not None:
        shutil.chown(data, user)
        directory.chmod(0o711)
    subprocess.run(
        [_POSTGRES[0] / "initdb", "-D", data, "-A", "trust", "-U", "bench", "--no-sync"],
        user=user, cwd="/", check=True, capture_output=True,
    )  # fmt: skip
    command = [
        *(str(_POSTGRES[0] / "postgres"), "-D", str(data), "-p", str(port)),
        *("-h", "127.0.0.1", "-k", "", "-c", "max_connections=300"),
    ]
    log = directory / "postgres.log"
    with Child(command, log=log, environment=os.environ, directory=Path("/"), user=user) as child:
        wait_until(lambda: _listens(port), _START_LIMIT_S, "Postgres answers", [child])
        time.sleep(0.3)  # it listens before it serves
        yield Server(f"postgresql://bench@127.0.0.1:{port}/postgres", child)


class RedisCluster(Server):
    """Masters that share the slots between them; each is a process, and counts for itself."""

    def __init__(self, masters: Sequence[RedisServer]) -> None:
        nodes = ",".join(each.url.split("/")[2] for each in masters)
        super().__init__(f"redis+cluster://{nodes}", masters[0].child)
        self.masters = masters

    def counters(self) -> Counters:
        """Return what all of them have done together."""
        each = [master.counters() for master in self.masters]
        return Counters(
            cpu_s=sum(one.cpu_s for one in each),
            commands=sum(one.commands or 0 for one in each),
            scripts=sum(one.scripts or 0 for one in each),
            bytes_in=sum(one.bytes_in or 0 for one in each),
            bytes_out=sum(one.bytes_out or 0 for one in each),
            memory=sum(one.memory or 0 for one in each),
        )


@contextlib.contextmanager
def redis_cluster(directory: Path, masters: int) -> Iterator[RedisCluster]:
    """Start masters on free ports, and join them with equal shares of the slots."""
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(masters):
            place = directory / f"master-{number}"
            place.mkdir()
            started.append(stack.enter_context(redis_server(place, cluster=True)))
        _join(started)
        yield RedisCluster(started)


def _join(masters: Sequence[RedisServer]) -> None:
    ports = [int(each.url.rsplit(":", 1)[1].split("/")[0]) for each in masters]
    bounds = [number * _SLOTS // len(masters) for number in range(len(masters) + 1)]
    for master, first, end in zip(masters, bounds, bounds[1:], strict=False):
        with redis.Redis.from_url(master.url, protocol=2) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            for port in ports:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", port)
    children = [each.child for each in masters]
    for master in masters:
        whole = functools.partial(_whole, master.url, len(masters))
        wait_until(whole, _START_LIMIT_S, "the cluster stands", children)


def _whole(url: str, count: int) -> bool:
    with redis.Redis.from_url(url, protocol=2) as client:
        info: Mapping[str, str] = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == count


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, protocol=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _free_port(bus: int = 0) -> int:
    """Return a free port; with ``bus`` one that leaves room for another so far above it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if not bus or (port + bus < _PORTS and not _listens(port + bus)):
            return port
