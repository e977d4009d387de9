"""The pods of the overlay `dev`, as processes over a real Redis: started, probed, used, deleted.

What a manifest says of a program is believed only when the program did it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from k8s.check.objects import Place
from millstream import Client, Enqueue
from scripts import k8s_secrets
from tests.k8s.kubelet import Cluster, Container
from tests.servers import RedisServer, _free_port

pytestmark = [pytest.mark.k8s, pytest.mark.timeout(180)]

#: In the place of a network of its own for each pod.
LOOPBACK = ("--http", "0", "--metrics", "0", "--host", "127.0.0.1")


@pytest.fixture
def port() -> int:
    if not RedisServer.available("redis-server") or not shutil.which("redis-cli"):
        pytest.skip("redis-server and redis-cli are not on PATH")
    return _free_port()


@pytest.fixture
def cluster(tmp_path: Path, port: int, place: Callable[[str], Place]) -> Cluster:
    names = {f"{k8s_secrets.HOST}:6379": f"127.0.0.1:{port}", k8s_secrets.HOST: "127.0.0.1"}
    secrets = k8s_secrets.manifests()["items"]
    return Cluster(tmp_path, place("dev"), secrets, names)


@pytest.fixture
def store(cluster: Cluster, port: int) -> Iterator[Container]:
    """The Redis of the manifests, with their configuration, users and probes."""
    extra = ("--port", str(port), "--bind", "127.0.0.1")
    with cluster.start("redis", extra=extra) as container:
        container.environment["REDIS_PORT"] = str(port)
        container.until_ready()
        yield container


def url(worker: Container) -> str:
    """The address that a worker was given."""
    return Path(worker.environment["MILLSTREAM_REDIS_FILE"]).read_text("utf-8").strip()


async def test_a_pod_that_is_deleted_in_the_middle_of_its_runs_loses_none(
    cluster: Cluster, store: Container
) -> None:
    """The signal, the drain and the time to leave, as `kubectl delete pod` gives them."""
    runs = [Enqueue("tides", {"place": f"p{n}", "days": 2}, id=f"tides-{n}") for n in range(20)]
    with (
        cluster.start("millstream-scheduler", extra=LOOPBACK) as scheduler,
        cluster.start("millstream-worker", number=0, extra=LOOPBACK) as first,
    ):
        scheduler.until_ready()
        first.until_ready()
        assert first.passes("livenessProbe")
        assert scheduler.passes("livenessProbe")

        async with Client(url(first)) as client:
            handles = await client.enqueue_many(runs[:10])
            with cluster.start("millstream-worker", number=1, extra=LOOPBACK) as second:
                second.until_ready()
                code = first.delete(meanwhile=lambda: None)
                handles += await client.enqueue_many(runs[10:])
                results = [await handle.result(timeout=60) for handle in handles]
                assert second.delete() == 0
        assert scheduler.delete() == 0

    assert code == 0, first.log
    assert results == [{f"p{n}": [2, 2] if n < 10 else [3, 3]} for n in range(20)]


def test_a_gateway_is_probed_and_leaves_as_its_manifest_says(
    cluster: Cluster, store: Container
) -> None:
    """It answers its probes, which fail at another path or port, and drains within its grace."""
    address = cluster.led(cluster.secret("millstream-redis")["url"])
    command = [sys.executable, "-m", "millstream.cli", "keys", "create", "me", "--role", "admin"]
    subprocess.run([*command, "--redis", address], check=True, capture_output=True, timeout=30)

    with cluster.start("millstream-gateway", extra=(*LOOPBACK, "--grpc", "0")) as gateway:
        gateway.until_ready()
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = gateway.manifest[kind]["httpGet"]
            assert gateway.passes(kind)
            for broken in ({"path": "/healthz"}, {"port": "metrics"}):
                gateway.manifest[kind]["httpGet"] = get | broken
                assert not gateway.passes(kind), broken
            gateway.manifest[kind]["httpGet"] = get
        assert gateway.delete() == 0, gateway.log


async def test_a_pod_waits_for_its_redis_and_is_not_killed_for_it(
    cluster: Cluster, store: Container
) -> None:
    """Liveness that followed Redis would restart the whole fleet in an outage of seconds."""
    with cluster.start("millstream-worker", extra=LOOPBACK) as worker:
        worker.until_ready()
        store.process.kill()
        store.process.wait()
        _until(lambda: not worker.passes("readinessProbe"))
        assert worker.passes("livenessProbe")
        assert worker.passes("startupProbe")

    with cluster.start("millstream-worker", number=1, extra=LOOPBACK) as early:
        _until(lambda: early.passes("startupProbe"))
        assert not early.passes("readinessProbe")
        assert early.delete() == 0


async def test_redis_comes_back_with_what_it_had(
    cluster: Cluster, store: Container, port: int
) -> None:
    """What scripts wrote is replayed, too, although nobody may be the user that it is replayed as.

    Redis would drop it without an error, and without a line to the client.
    """
    address = cluster.led(cluster.secret("millstream-redis")["url"])
    async with Client(address) as client:
        await client.enqueue("tides", {"place": "Brest"}, id="kept")
    store.process.send_signal(signal.SIGTERM)
    assert store.process.wait(30) == 0

    extra = ("--port", str(port), "--bind", "127.0.0.1")
    with cluster.start("redis", extra=extra) as again:
        again.environment["REDIS_PORT"] = str(port)
        again.until_ready()
        async with Client(address) as client:
            assert (await client.run("kept").status()).state == "queued"


def test_the_probes_of_redis_can_fail(store: Container) -> None:
    """The usual ones pass while nobody can log in, since redis-cli ends with 0."""
    assert store.passes("livenessProbe")
    assert store.passes("readinessProbe")

    store.process.send_signal(signal.SIGSTOP)
    assert not store.passes("livenessProbe")
    store.process.send_signal(signal.SIGCONT)
    assert store.passes("livenessProbe")

    store.process.kill()
    store.process.wait()
    assert not store.passes("livenessProbe")
    assert not store.passes("readinessProbe")


def test_redis_lets_in_whom_the_acl_names_and_no_further(store: Container, port: int) -> None:
    """The passwords are in the Secrets of those who use them; here are their hashes."""
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port).ping()
    probe = redis.Redis(port=port, username="probe", password="probe")
    assert probe.ping()
    with pytest.raises(redis.exceptions.NoPermissionError):
        probe.get("millstream:x")
    probe.close()


async def test_a_backup_brings_back_what_was_lost(
    cluster: Cluster, store: Container, port: int, tmp_path: Path, place: Callable[[str], Place]
) -> None:
    """Ended runs with their results, and open ones, which go on; with the jobs of the manifests."""
    backups = tmp_path / "backups"
    backups.mkdir()
    jobs = Cluster(tmp_path / "jobs", place("backup"), [], cluster.names)
    jobs._secrets = cluster._secrets
    with cluster.start("millstream-worker", extra=LOOPBACK) as worker:
        worker.until_ready()
        address = url(worker)
        async with Client(address) as client:
            ended = await client.enqueue("tides", {"place": "Brest", "days": 1}, id="ended")
            assert await ended.result(timeout=30) == {"Brest": [5]}
            await client.enqueue("tides", {"place": "Rye"}, id="open", delay=1)
            _run(jobs, "millstream-backup", backups)
        worker.process.kill()

    store.process.kill()
    store.process.wait()
    shutil.rmtree(store.root / "data")
    (store.root / "data").mkdir()

    extra = ("--port", str(port), "--bind", "127.0.0.1")
    with cluster.start("redis", extra=extra) as again:
        again.environment["REDIS_PORT"] = str(port)
        again.until_ready()
        _run(jobs, "millstream-restore", backups)
        with cluster.start("millstream-worker", number=2, extra=LOOPBACK) as worker:
            worker.until_ready()
            async with Client(address) as client:
                assert await client.run("ended").result(timeout=5) == {"Brest": [5]}
                assert await client.run("open").result(timeout=30) == {"Rye": [3, 3, 3]}
                depth = await client.depth("default")
    assert (depth.waiting, depth.running, depth.scheduled) == (0, 0, 0)


def _run(jobs: Cluster, name: str, backups: Path) -> None:
    """Run a job of the component `backup` to its end."""
    container = Job(jobs, name, {"/backups": backups})
    assert container.code == 0, container.log


class Job(Container):
    """A container that ends by itself, over directories that are there before it."""

    def __init__(self, cluster: Cluster, name: str, mounted: dict[str, Path]) -> None:
        pod = next(x for x in cluster.place.pods() if x.owner["metadata"]["name"] == name)
        root = cluster.directory / name
        root.mkdir(parents=True)
        for path, there in mounted.items():
            (root / path.lstrip("/")).symlink_to(there)
        super().__init__(cluster, pod, root, ())
        self.code = self.process.wait(60)
        self._log.close()


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(300):
        if condition():
            return
        subprocess.run(["sleep", "0.1"], check=True)
    raise AssertionError("it did not come true in 30 s")
