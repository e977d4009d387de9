"""Two regions over two real Redis, as their manifests have them: opened, exchanged, lost.

Configuration, users and probes are the rendered ones; certificates are real. The addresses of the
regions lead to two ports of this machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

from k8s.check.objects import Manifest, Place
from millstream import Enqueue, SyncClient
from millstream.errors import MillstreamError
from scripts import k8s_secrets
from tests.k8s.kubelet import Cluster, Container
from tests.k8s.test_life import LOOPBACK
from tests.processes.fleet import wait_until
from tests.servers import RedisServer, _free_port

pytestmark = [pytest.mark.k8s, pytest.mark.timeout(180)]

#: In the place of an image with an application.
_FLOWS = (Path(__file__).parents[2] / "k8s/components/example-app/flows.py").read_text("utf-8")


@dataclass
class Region:
    """The Redis of a region, and what belongs to it."""

    cluster: Cluster
    port: int
    secrets: dict[str, dict[str, str]]
    authority: Path
    store: Container | None = None

    def start(self) -> Container:
        """Start its Redis, also again: its volume stays."""
        here = ("--tls-port", str(self.port), "--bind", "127.0.0.1")
        # A full copy is sent at once, and not after five seconds in which another may come.
        extra = (*here, "--repl-diskless-sync-delay", "0")
        self.store = self.cluster.start("redis", extra=extra)
        self.store.environment["REDIS_PORT"] = str(self.port)
        self.store.until_ready()
        return self.store

    def kill(self) -> None:
        """As a node that is gone."""
        assert self.store is not None
        self.store.__exit__()

    def probed(self) -> Container:
        """Return its container after a probe of the kubelet, which keeps what it is."""
        assert self.store is not None
        assert self.store.passes("readinessProbe"), self.store.log
        return self.store

    def address(self, user: str, password: str) -> str:
        """An address from outside of the region."""
        return f"rediss://{user}:{password}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.authority}"

    @property
    def operator(self) -> str:
        """The address that `millstream failover` is given."""
        return self.address("operator", self.secrets["redis-operator"]["password"])

    @property
    def url(self) -> str:
        """What its processes are given, from this machine."""
        given = self.secrets["millstream-redis"]["url"]
        return self.address("millstream", given.partition("@")[0].rpartition(":")[2])

    @property
    def replication(self) -> dict[str, Any]:
        """What Redis says of it to whoever operates it."""
        with redis.Redis.from_url(self.operator) as client:
            return dict(client.info("replication"))

    @property
    def master(self) -> bool:
        """Whether it is the master."""
        return bool(self.replication["role"] == "master")

    def until_linked(self) -> None:
        """Wait until it hears its master."""
        wait_until(lambda: self.replication.get("master_link_status") == "up", 20, "a link")


@pytest.fixture
def regions(tmp_path: Path, place: Callable[[str], Place]) -> Iterator[tuple[Region, Region]]:
    """Both, as they are after the first `kubectl apply`: two volumes, and nothing on them."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    ports = {"a": _free_port(), "b": _free_port()}
    made = k8s_secrets.manifests(pair=True)["items"]
    authority = trustme.CA()
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    both = [
        Region(
            Cluster(
                tmp_path / name,
                place(f"region-{name}"),
                [*made, *_certificates(authority, place(f"region-{name}"))],
                _names(ports, name),
            ),
            ports[name],
            {each["metadata"]["name"]: each["stringData"] for each in made},
            file,
        )
        for name in "ab"
    ]
    try:
        for region in both:
            region.start()
        yield both[0], both[1]
    finally:
        for region in both:
            if region.store is not None:
                region.store.__exit__()


def test_nothing_is_lost_in_good_order_and_the_roles_outlive_a_restart(
    regions: tuple[Region, Region],
) -> None:
    """Region a writes, b takes over, a is fenced; nodes die, and both are what they were."""
    a, b = regions
    assert not a.master
    assert not b.master, "a new volume is no master that the other would copy"
    failover(to=a, of=b, how=("--lost", "--fence", "0"))
    b.until_linked()
    wait_until(lambda: a.replication["min_slaves_good_slaves"] == 1, 20, "a may write")

    accepted = [f"tides-{n}" for n in range(40)]
    with worker(a, "millstream-worker") as process, SyncClient(a.url) as client:
        process.until_ready()
        client.enqueue_many([_run(name) for name in accepted[:20]])
        client.run(accepted[0]).result(timeout=30)
        # As `standby` does, while half of them have begun and others come in.
        client.enqueue_many([_run(name) for name in accepted[20:]])
        assert process.delete() == 0, process.log

        handed = failover(to=b, of=a)
        assert handed["lost_bytes"] == 0
        with pytest.raises(MillstreamError, match="replica"):
            client.enqueue("tides", {"place": "late"}, id="late")

    for region in (a, b):
        region.probed()
        region.kill()
        region.start()
    a.until_linked()
    assert (a.master, b.master) == (False, True)

    wait_until(lambda: b.replication["min_slaves_good_slaves"] == 1, 20, "b may write")
    with worker(b, "millstream-worker") as process, SyncClient(b.url) as client:
        process.until_ready()
        results = [client.run(name).result(timeout=60) for name in accepted]
        assert process.delete() == 0, process.log
    assert results == [{name: [len(name)]} for name in accepted]
    assert b.master


def test_a_region_that_was_lost_comes_back_and_takes_no_write(
    regions: tuple[Region, Region],
) -> None:
    """It believes that it is the master, and so would its workers: nobody follows it any more."""
    a, b = regions
    failover(to=a, of=b, how=("--lost", "--fence", "0"))
    b.until_linked()
    wait_until(lambda: a.replication["min_slaves_good_slaves"] == 1, 20, "a may write")
    a.probed()
    with SyncClient(a.url) as client:
        client.enqueue("tides", {"place": "Brest"}, id="kept")
    wait_until(lambda: _same(a, b), 20, "the replica has it")
    a.kill()
    wait_until(lambda: b.replication["master_link_status"] == "down", 20, "b hears that")
    assert failover(to=b, of=a, how=("--lost", "--fence", "0"))["lost_bytes"] is None
    with SyncClient(b.url) as client:
        assert client.run("kept").status().state == "queued"
        client.enqueue("tides", {"place": "Rye"}, id="alone")

    a.start()
    assert (a.master, b.master) == (True, True)
    with SyncClient(a.url) as client, pytest.raises(MillstreamError, match="replicas"):
        client.enqueue("tides", {"place": "twice"}, id="twice")

    # It follows the one that has gone on, and has everything again.
    with redis.Redis.from_url(a.operator) as client:
        client.replicaof("127.0.0.1", b.port)
    a.until_linked()
    with redis.Redis.from_url(b.operator) as client:
        client.config_set("min-replicas-to-write", 1)
    wait_until(lambda: b.replication["min_slaves_good_slaves"] == 1, 20, "b may write")
    a.probed()
    a.kill()
    a.start()
    a.until_linked()
    failover(to=a, of=b)
    with SyncClient(a.url) as client:
        assert {client.run(name).status().state for name in ("kept", "alone")} == {"queued"}


def test_who_is_not_the_other_region_is_not_let_in(
    regions: tuple[Region, Region],
) -> None:
    """Without TLS nobody is heard; each user may do its own part, and no more."""
    a, _b = regions
    once = Retry(NoBackoff(), 0)
    for ssl in (False, True):
        with (
            redis.Redis(port=a.port, retry=once, ssl=ssl) as client,
            pytest.raises(redis.ConnectionError),
        ):
            client.ping()
    replica = dict(
        line.split() for line in a.secrets["redis-replication"]["replication.conf"].splitlines()
    )
    for url, word in (
        (a.address("replica", replica["masterauth"]), ("GET", "millstream:x")),
        (a.operator, ("GET", "millstream:x")),
        (a.url, ("REPLICAOF", "NO", "ONE")),
        (a.address("probe", "probe"), ("INFO",)),
    ):
        with redis.Redis.from_url(url) as client:
            assert client.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*word)


def failover(*, to: Region, of: Region, how: tuple[str, ...] = ()) -> dict[str, Any]:
    """Exchange two regions as docs/deploy.md says."""
    command = ["failover", to.operator, "--redis", of.operator, *how, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "millstream.cli", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def worker(region: Region, name: str) -> Container:
    """Start a worker of a region, with an application in its image."""
    app = region.cluster.directory / f"{name}-0" / "app"
    app.mkdir(parents=True)
    (app / "flows.py").write_text(_FLOWS, "utf-8")
    return region.cluster.start(name, extra=LOOPBACK)


def _run(name: str) -> Enqueue:
    return Enqueue("tides", {"place": name, "days": 1}, id=name)


def _same(a: Region, b: Region) -> bool:
    return bool(a.replication["master_repl_offset"] == b.replication["slave_repl_offset"])


def _names(ports: dict[str, int], here: str) -> dict[str, str]:
    """Lead the names of the regions, and of the Service in this one, to this machine."""
    led = {f"{k8s_secrets.HOST}:6379": f"127.0.0.1:{ports[here]}"}
    for name, port in ports.items():
        led[f"replicaof redis-{name}.example.com 6379"] = f"replicaof 127.0.0.1 {port}"
        led[f"redis-{name}.example.com"] = "127.0.0.1"
    # Nobody collects spans here, and a worker must not mind.
    led["collector.observability"] = "127.0.0.1"
    led["replica-announce-port 6379"] = f"replica-announce-port {ports[here]}"
    return led


def _certificates(authority: trustme.CA, place: Place) -> list[Manifest]:
    """What cert-manager would make of the Certificate, and the vault would hand out."""
    (wanted,) = [
        each["spec"]
        for each in place.of("Certificate")
        if each["spec"]["secretName"] == "redis-tls"
    ]
    made = authority.issue_cert(*wanted["dnsNames"], *wanted["ipAddresses"])
    ca = authority.cert_pem.bytes().decode()
    shown = {
        "tls.crt": made.cert_chain_pems[0].bytes().decode(),
        "tls.key": made.private_key_pem.bytes().decode(),
        "ca.crt": ca,
    }
    return [
        {"metadata": {"name": "redis-tls"}, "stringData": shown},
        {"metadata": {"name": "redis-ca"}, "stringData": {"ca.crt": ca}},
    ]
