"""TLS that follows its files: what is shown, who is believed, what becomes of a bad exchange."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import pytest

from millstream.certificates import Certificates
from millstream.errors import ConfigError
from millstream.events import CertificateRead
from tests.papers import LOOPBACK, Papers


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


class Port:
    """Says hello to whoever gets in."""

    def __init__(self, papers: Papers) -> None:
        self.told: list[CertificateRead] = []
        self.certificates = Certificates(
            papers.certificate, papers.key, self._tell,
            authority=papers.authority, clients=ssl.CERT_REQUIRED,
        )  # fmt: skip
        self.number = 0

    def _tell(self, event: object) -> None:
        assert isinstance(event, CertificateRead)
        self.told.append(event)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Port]:
        """Listen for this block."""

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            await writer.drain()
            writer.close()

        listening = self.certificates.listening
        server = await asyncio.start_server(greet, LOOPBACK, 0, ssl=listening)
        self.number = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def shown(self, context: ssl.SSLContext) -> bytes:
        """Return the certificate that is shown to who gets in."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.number, ssl=context)
        try:
            assert await reader.read() == b"hello"
            found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return found
        finally:
            writer.close()


async def test_what_stands_in_the_files_is_shown_and_believed(papers: Papers) -> None:
    """From the next connection on; who was believed before is believed no more."""
    async with Port(papers).open() as port:
        right, other = papers.caller(), papers.caller(papers.stranger)
        before = await port.shown(right)
        after = papers.exchange(papers.stranger)
        port.certificates.refresh()
        port.certificates.refresh()

        assert await port.shown(other) == after != before
        for context in (right, papers.plain(), papers.caller(papers.stranger, expired=True)):
            with pytest.raises((OSError, AssertionError)):
                await port.shown(context)
    assert port.told == [CertificateRead()]


BROKEN = {
    "half of a pair": {"tls.key": None},
    "no certificate": {"tls.crt": b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"},
    "no authority": {"ca.crt": b"# to be filled in\n"},
    "nothing": {"ca.crt": b"\n"},
    "no text": {"ca.crt": b"\xff\xfe"},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_bad_exchange_changes_nothing_and_is_told_once(
    papers: Papers, broken: dict[str, bytes | None]
) -> None:
    """And a good one behind it is told as well."""
    files = (papers.certificate, papers.key, papers.authority)
    good = {path.name: path.read_bytes() for path in files}
    async with Port(papers).open() as port:
        right = papers.caller()
        before = await port.shown(right)
        papers.exchange()
        strange = papers.key.read_bytes()
        papers.put(
            {
                **good,
                **{name: data if data is not None else strange for name, data in broken.items()},
            }
        )
        for _ in range(3):
            port.certificates.refresh()
        assert [bool(event.error) for event in port.told] == [True]
        assert await port.shown(right) == before
        with pytest.raises((OSError, AssertionError)):
            await port.shown(papers.caller(papers.stranger))
        after = papers.exchange()
        port.certificates.refresh()

        assert await port.shown(right) == after
    assert [bool(event.error) for event in port.told] == [True, False]


async def test_a_file_that_is_away_for_a_moment_is_no_news(papers: Papers) -> None:
    """Between the removal of the old one and the making of the new one."""
    async with Port(papers).open() as port:
        papers.put({"tls.crt": b"", "tls.key": b""})
        port.certificates.refresh()

        assert port.told == []
        assert await port.shown(papers.caller())


async def test_a_session_of_before_is_not_taken_up_behind_a_change(papers: Papers) -> None:
    """TLS 1.2 does not verify who comes back; one who is believed no more must not come back so."""
    context = papers.caller()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def visit(port: Port, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        plain = socket.create_connection((LOOPBACK, port.number), timeout=10)
        with context.wrap_socket(plain, server_hostname=LOOPBACK, session=session) as found:
            assert found.recv(10) == b"hello"
            return bool(found.session_reused), found.session

    async with Port(papers).open() as port:
        _, session = await anyio.to_thread.run_sync(visit, port, None)
        reused, session = await anyio.to_thread.run_sync(visit, port, session)
        assert reused, "this test shows nothing where no session is kept"
        papers.exchange(papers.stranger)
        port.certificates.refresh()

        with pytest.raises((OSError, AssertionError)):
            await anyio.to_thread.run_sync(visit, port, session)


def test_what_cannot_be_used_from_the_start_is_refused(papers: Papers) -> None:
    """In one line that names the file."""
    papers.put({"tls.crt": b"x", "tls.key": b"y", "ca.crt": b"z"})
    with pytest.raises(ConfigError, match=r"mounted/tls.crt .* must be PEM"):
        Port(papers)
    papers.exchange(authority=b"z")
    with pytest.raises(ConfigError, match=r"authority of clients in .*mounted/ca.crt"):
        Port(papers)
    papers.put({})
    with pytest.raises(ConfigError, match=r"cannot read .*mounted/tls.crt"):
        Port(papers)
