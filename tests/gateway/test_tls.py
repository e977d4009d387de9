"""TLS in the gateway itself: who gets in on either port, and an exchange of files under load."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import grpc.aio
import pytest
import trustme
from a2a.types import a2a_pb2_grpc
from a2a.types.a2a_pb2 import ListTasksRequest

from millstream.errors import ConfigError
from millstream.events import CertificateRead, RequestServed
from tests.gateway.issuer import Issuer
from tests.gateway.processes import GatewayProcess, gateways
from tests.gateway.served import Served, served
from tests.papers import LOOPBACK, Papers
from tests.processes.fleet import wait_until
from tests.servers import RedisServer

#: The first file that is looked at again tells of the exchange; nothing waits longer than that.
SOON_S = 0.01


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    (tmp_path / "papers").mkdir()
    return Papers(tmp_path / "papers")


@asynccontextmanager
async def guarded(
    url: str,
    issuer: Issuer,
    papers: Papers,
    *,
    wall: Callable[[], float] | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """Serve over TLS for this block, to callers with a certificate."""
    given = {
        "tls_cert": papers.certificate, "tls_key": papers.key, "tls_client_ca": papers.authority,
        "grpc": 0, **settings,
    }  # fmt: skip
    parts: dict[str, Any] = {"files_s": SOON_S, **({"wall": wall} if wall else {})}
    async with served(url, issuer, parts=parts, **given) as gateway:
        gateway.url = f"https://{LOOPBACK}:{gateway.port}"
        yield gateway


async def over_http(gateway: Served, context: ssl.SSLContext, token: str | None = None) -> int:
    """Ask over a connection of its own; return the status."""
    shown = gateway.token if token is None else token
    headers = {"Authorization": f"Bearer {shown}"} if shown else {}
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as http,
        http.get(f"{gateway.url}/api/v1/queues") as answer,
    ):
        await answer.read()
        return answer.status


async def over_grpc(
    gateway: Served, papers: Papers, certificate: trustme.LeafCert | None, token: str | None = None
) -> grpc.StatusCode:
    """Ask over a channel of its own; return how that ended."""
    shown = gateway.token if token is None else token
    assert gateway.gateway.grpc is not None
    where = f"{LOOPBACK}:{gateway.gateway.grpc.port}"
    pair: tuple[bytes | None, bytes | None] = (None, None)
    if certificate is not None:
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        pair = (certificate.private_key_pem.bytes(), chain)
    trusted = grpc.ssl_channel_credentials(papers.serving.cert_pem.bytes(), *pair)
    # Channels of one program share connections, unless they are told not to.
    alone = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(where, trusted, options=alone) as channel:
        stub = a2a_pb2_grpc.A2AServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
        metadata = [("authorization", f"Bearer {shown}")] if shown else []
        try:
            await stub.ListTasks(ListTasksRequest(), metadata=metadata, timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


REFUSED = (aiohttp.ClientError, OSError)


async def test_who_gets_in_over_http(memory_url: str, issuer: Issuer, papers: Papers) -> None:
    """With a certificate of the right authority alone, and then with a key or token as ever."""
    async with guarded(memory_url, issuer, papers) as gateway:
        right = papers.caller()
        assert await over_http(gateway, right) == 200
        assert await over_http(gateway, right, "") == 401
        assert await over_http(gateway, right, issuer.token("janitor")) == 403
        card = "/.well-known/agent-card.json"
        async with gateway.http.get(
            gateway.url + card, ssl=right, headers={"Authorization": f"Bearer {gateway.token}"}
        ) as answer:
            found = await answer.json()
        asked = await _told(gateway, 1)
        for context in (
            papers.plain(), papers.caller(papers.stranger), papers.caller(expired=True),
        ):  # fmt: skip
            with pytest.raises(REFUSED):
                await over_http(gateway, context)
        with pytest.raises(REFUSED):
            async with gateway.http.get(f"http://{LOOPBACK}:{gateway.port}/health") as answer:
                await answer.read()

        assert len(gateway.of(RequestServed)) == asked
        urls = {each["protocolBinding"]: each["url"] for each in found["supportedInterfaces"]}
        assert urls["JSONRPC"] == f"{gateway.url}/a2a"


async def test_who_gets_in_over_grpc(memory_url: str, issuer: Issuer, papers: Papers) -> None:
    """The same."""
    async with guarded(memory_url, issuer, papers) as gateway:
        right = papers.issued()
        assert await over_grpc(gateway, papers, right) is grpc.StatusCode.OK
        assert await over_grpc(gateway, papers, right, "") is grpc.StatusCode.UNAUTHENTICATED
        asked = await _told(gateway, 2)
        for other in (None, papers.issued(papers.stranger), papers.issued(expired=True)):
            assert await over_grpc(gateway, papers, other) is grpc.StatusCode.UNAVAILABLE

        assert len(gateway.of(RequestServed)) == asked


async def test_a_connection_does_not_outlive_what_it_was_opened_with(
    memory_url: str, issuer: Issuer, papers: Papers
) -> None:
    """Neither the authority of its client nor the certificate; a new one of ours ends none."""
    now = [time.time()]
    connector = aiohttp.TCPConnector(ssl=papers.caller())
    headers = {"Authorization": f"Bearer {issuer.token('viewer')}"}

    async with (
        guarded(memory_url, issuer, papers, wall=lambda: now[0]) as gateway,
        aiohttp.ClientSession(connector=connector, headers=headers) as http,
    ):

        async def ask() -> tuple[int, bool]:
            async with http.get(f"{gateway.url}/api/v1/queues") as answer:
                await answer.read()
                return answer.status, "close" in answer.headers.get("Connection", "")

        assert await ask() == (200, False)
        papers.exchange()
        await until_told(gateway, 1)
        assert await ask() == (200, False)
        now[0] += 1000 * 365 * 86_400
        assert await ask() == (503, True)
        now[0] = time.time()
        assert await ask() == (200, False)
        papers.exchange(papers.stranger)
        await until_told(gateway, 2)

        assert await ask() == (503, True)
        with pytest.raises(REFUSED):
            await ask()


async def test_without_an_authority_of_callers_nobody_is_asked_for_a_certificate(
    memory_url: str, issuer: Issuer, papers: Papers
) -> None:
    """TLS alone, on both ports."""
    async with guarded(memory_url, issuer, papers, tls_client_ca=None) as gateway:
        assert await over_http(gateway, papers.plain()) == 200
        assert await over_grpc(gateway, papers, None) is grpc.StatusCode.OK
        assert await over_http(gateway, papers.caller(papers.stranger), "") == 401


@pytest.mark.slow
async def test_files_are_exchanged_under_load(
    memory_url: str, issuer: Issuer, papers: Papers
) -> None:
    """No request fails, on either port, and nobody has to start anything again."""
    other = trustme.CA()
    answers: list[object] = []
    enough = anyio.Event()

    async def ask(gateway: Served, context: ssl.SSLContext) -> None:
        while not enough.is_set():
            answers.append(await over_http(gateway, context))

    async def exchanged(gateway: Served, *believed: trustme.CA) -> bytes:
        told, asked = len(gateway.of(CertificateRead)), len(answers)
        issued = papers.exchange(*believed)
        with anyio.fail_after(20):
            while len(gateway.of(CertificateRead)) == told or len(answers) < asked + 4:
                await anyio.sleep(SOON_S)
        return issued

    async with guarded(memory_url, issuer, papers) as gateway:
        old, new = papers.caller(), papers.caller(other)
        before, after = papers.issued(), papers.issued(other)
        assert await over_grpc(gateway, papers, after) is grpc.StatusCode.UNAVAILABLE
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(ask, gateway, old)
            await exchanged(gateway)
            await exchanged(gateway, papers.callers, other)
            for context, certificate in ((old, before), (new, after)):
                assert await over_http(gateway, context) == 200
                assert await over_grpc(gateway, papers, certificate) is grpc.StatusCode.OK
            enough.set()
        answered = len(answers)
        issued = papers.exchange(other)
        await until_told(gateway, 3)

        assert set(answers) == {200}
        assert answered >= 8
        with pytest.raises(REFUSED):
            await over_http(gateway, old)
        assert await over_grpc(gateway, papers, before) is grpc.StatusCode.UNAVAILABLE
        assert await over_grpc(gateway, papers, after) is grpc.StatusCode.OK
        assert await shown(gateway.port, new) == issued
        assert gateway.gateway.grpc is not None
        assert await shown(gateway.gateway.grpc.port or 0, new, "h2") == issued
        assert {event.error for event in gateway.of(CertificateRead)} == {None}


async def until_told(gateway: Served, told: int) -> None:
    """Wait until so many exchanges were told."""
    with anyio.fail_after(20):
        while len(gateway.of(CertificateRead)) < told:
            await anyio.sleep(SOON_S)


async def shown(port: int, context: ssl.SSLContext, protocol: str | None = None) -> bytes:
    """Return the certificate that a port shows."""
    if protocol is not None:
        context.set_alpn_protocols([protocol])
    _, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tls_key": None}, "give --tls-cert and --tls-key"),
        ({"tls_cert": None, "tls_key": None}, "give --tls-cert and --tls-key"),
        ({"tls_client_ca": Path("/nowhere")}, "cannot read /nowhere"),
    ],
)
async def test_settings_that_make_no_sense_are_said_in_one_line(
    memory_url: str, issuer: Issuer, papers: Papers, settings: dict[str, Any], says: str
) -> None:
    """Before anything listens: a gateway without what was asked for would be an open one."""
    with pytest.raises(ConfigError, match=says):
        async with guarded(memory_url, issuer, papers, **settings):
            pass


@pytest.mark.slow
async def test_a_process_answers_probes_without_a_certificate_and_nothing_else(
    redis_server: RedisServer, papers: Papers, tmp_path: Path
) -> None:
    """On a port of their own: who asks there shows none, and gets no further."""
    redis_server.flush()
    flags = [
        "--insecure-open", "--host", LOOPBACK, "--probes", "0",
        "--tls-cert", str(papers.certificate), "--tls-key", str(papers.key),
        "--tls-client-ca", str(papers.authority),
    ]  # fmt: skip
    with gateways(tmp_path, redis_server.url, 1, *flags) as (gateway,):
        ports = {name: port_of(gateway, name) for name in ("https", "probes")}
        probes, api = f"http://{LOOPBACK}:{ports['probes']}", f"https://{LOOPBACK}:{ports['https']}"
        async with aiohttp.ClientSession() as http:
            found = {}
            for path in ("/health", "/startup", "/api/v1/queues", "/metrics", "/"):
                async with http.get(probes + path) as answer:
                    found[path] = answer.status
            async with http.get(f"{api}/api/v1/queues", ssl=papers.caller()) as answer:
                assert answer.status == 200
            with pytest.raises(REFUSED):
                async with http.get(f"{api}/health", ssl=papers.plain()) as answer:
                    await answer.read()
        assert gateway.stop() == 0

    assert found == {
        "/health": 200, "/startup": 200, "/api/v1/queues": 404, "/metrics": 404, "/": 404
    }  # fmt: skip


def port_of(gateway: GatewayProcess, name: str) -> str:
    """Which port a process says it has."""

    def found() -> list[str]:
        return re.findall(rf"^{name} on port (\d+)", gateway.log, re.MULTILINE)

    return str(wait_until(found, 30, f"a port:\n{gateway.log}")[0])


async def _told(gateway: Served, least: int) -> int:
    """How many requests were told of, once that many are: an answer is at hand before."""
    with anyio.fail_after(10):
        while len(gateway.of(RequestServed)) < least:
            await anyio.sleep(0.005)
    return len(gateway.of(RequestServed))
