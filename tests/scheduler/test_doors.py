"""Who opens many connections to the metrics API is in nobody's way but his own."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AsyncExitStack, ExitStack, closing, suppress
from pathlib import Path

import anyio
import pytest

from millstream_scheduler.scaling import doors
from tests.scheduler.kube import LOOPBACK, Papers
from tests.scheduler.test_metrics_api import Api, serving
from tests.scheduler.test_trust import PATH, lasting, status

FLOOD = "127.0.0.2"


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def silent(api: Api, source: str = FLOOD) -> socket.socket:
    """A connection over which not even the handshake begins."""
    return socket.create_connection((LOOPBACK, api.port), timeout=10, source_address=(source, 0))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def ended(connection: socket.socket) -> None:
    """Return once the other side has closed it."""
    connection.setblocking(False)
    with anyio.fail_after(5):
        with suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""


async def test_handshakes_that_do_not_begin_give_way(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs fifty kilobytes for a minute; a few thousand are all that a scheduler has."""
    monkeypatch.setattr(doors, "SHAKING", 4)
    async with serving(papers) as api:
        with ExitStack() as stack:
            one = stack.enter_context(closing(silent(api, LOOPBACK)))
            flood = [stack.enter_context(closing(silent(api))) for _ in range(12)]
            for each in flood[:8]:
                await ended(each)

            assert await api.status(PATH) == 200
            await ended(flood[8])
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.recv(1)


@pytest.mark.slow
async def test_a_handshake_takes_a_bounded_time(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "HANDSHAKE_S", 0.02)
    async with serving(papers, known=False) as api:
        with closing(silent(api)) as each:
            await ended(each)


async def test_who_shows_no_certificate_gives_way_to_who_does(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest connection is that of the API server, and it is kept."""
    monkeypatch.setattr(doors, "INSIDE", 2)
    async with serving(papers) as api, lasting(api) as session, AsyncExitStack() as stack:
        assert await status(session) == 200
        readers = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection(
                LOOPBACK, api.port, ssl=papers.plain_context(), local_addr=(FLOOD, 0)
            )
            stack.callback(writer.close)
            readers.append(reader)
        for reader in readers[:3]:
            with anyio.fail_after(5):
                assert await reader.read() == b""

        connector = session.connector
        assert connector is not None
        before = {id(x) for group in connector._conns.values() for x, _ in group}
        assert await status(session) == 200
        after = {id(x) for group in connector._conns.values() for x, _ in group}
        assert before == after


async def test_what_is_no_request_is_refused_and_no_news(
    papers: Papers, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Thirty lines for each of them would fill the log, with what a stranger wrote."""
    async with serving(papers) as api:
        reader, writer = await asyncio.open_connection(
            LOOPBACK, api.port, ssl=papers.plain_context()
        )
        writer.write(b"GET /livez HTTP/1.1\r\nX: " + b"forged" * 5000 + b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
        writer.close()

    assert (caplog.records, capsys.readouterr().err) == ([], "")


@pytest.mark.slow
async def test_what_gave_way_leaves_nothing_behind(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "SHAKING", 2)
    async with serving(papers) as api:
        await api.status(PATH)
        before = descriptors()
        for _ in range(20):
            silent(api).close()
        assert await api.status(PATH) == 200
        gc.collect()
        with anyio.fail_after(5):
            while descriptors() > before:
                await anyio.sleep(0.01)
