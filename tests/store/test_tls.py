"""TLS where several servers stand behind one address: every one of them is asked over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from millstream import Client, Context, Workflows
from millstream.errors import UnfitStore
from millstream.store.connection import Connection
from millstream_worker import compose
from millstream_worker.config import WorkerConfig
from millstream_worker.embedded import SilentLog
from tests.arranged import Cluster, Guarded
from tests.servers import RedisServer, Tls


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for this machine, and who vouches for it."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    directory = tmp_path_factory.mktemp("tls")
    files = Tls(*(directory / f"{name}.pem" for name in ("certificate", "key", "authority")))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(files.authority))
    shown = authority.issue_cert("127.0.0.1")
    shown.cert_chain_pems[0].write_to_path(str(files.certificate))
    shown.private_key_pem.write_to_path(str(files.key))
    return files


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that vouched for none of them."""
    file = tmp_path_factory.mktemp("stranger") / "authority.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    return file


@pytest.fixture(scope="module", params=["sentinel", "cluster"])
def address(request: pytest.FixtureRequest, tls: Tls) -> Iterator[str]:
    """Servers that speak nothing but TLS, to each other too."""
    with Guarded(tls) if request.param == "sentinel" else Cluster(3, tls) as servers:
        yield servers.url


def make_log(*args: Any, **options: Any) -> SilentLog:
    return SilentLog()


async def test_a_run_goes_its_whole_way(address: str) -> None:
    """Client and worker, the thread that renews, and the read that blocks."""
    app = Workflows()

    @app.workflow()
    async def flow(ctx: Context) -> int:
        return await ctx.step(int, 7)

    connection = Connection(address)
    await connection.check()
    parts = compose.Parts(connection=connection, emit=lambda _: None, make_log=make_log)
    async with Client(address) as client:
        worker = await compose.compose(WorkerConfig(), app, parts)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.serve)
            await worker.started.wait()
            run = await client.enqueue("flow")
            assert await run.result(timeout=30) == 7
            worker.drain.set()
    await connection.aclose()


async def test_whoever_is_not_vouched_for_is_not_believed(address: str, stranger: Path) -> None:
    """Whoever can stand in for a sentinel says where the master is."""
    connection = Connection(f"{address.partition('?')[0]}?ssl_ca_certs={stranger}")

    with pytest.raises(UnfitStore, match="certificate is not trusted"):
        await connection.check()

    await connection.aclose()
