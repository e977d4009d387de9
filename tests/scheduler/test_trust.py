"""Whom the metrics API believes, and for how long: also while what it rests on changes or fails."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from millstream.certificates import Certificates
from millstream.errors import KubernetesUnavailable
from millstream.events import CertificateRead
from millstream_scheduler import compose
from millstream_scheduler.scaling import serve
from millstream_scheduler.scaling.front_proxy import Caller
from millstream_scheduler.scaling.kubernetes import Kubernetes
from millstream_scheduler.scaling.reviews import Request, Reviews
from tests.scheduler.kube import HPA, LOOPBACK, ApiServer, Papers
from tests.scheduler.replicas import Transcript
from tests.scheduler.test_metrics_api import DEMAND, EXTERNAL, VOUCHED, Api, exchanged, serving
from tests.scheduler.test_readings import Clock

PATH = f"{EXTERNAL}/namespaces/shop/{DEMAND}"
ASKED = Request(verb="list", group="g", version="v", namespace="n", resource="r")


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


# -- connections that last -----------------------------------------------------------------------


def lasting(api: Api) -> aiohttp.ClientSession:
    """A session that keeps the connection it has, as API servers do."""
    return aiohttp.ClientSession(
        f"https://{LOOPBACK}:{api.port}",
        connector=aiohttp.TCPConnector(ssl=api.proxy, limit=1),
        headers=VOUCHED,
    )


async def status(session: aiohttp.ClientSession) -> int:
    async with session.get(PATH) as answer:
        await answer.read()
        return answer.status


async def test_a_connection_does_not_outlive_the_authority_that_it_was_opened_under(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever has a key that was withdrawn goes on for as long as it keeps asking."""
    monkeypatch.setattr(serve, "PROXY_S", 0.02)
    async with serving(papers) as api, lasting(api) as session:
        assert await status(session) == 200
        new = await exchanged(papers, api)
        assert await status(session) == 503
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
            await status(session)
        assert await api.status(PATH, papers.client_context(new)) == 200


async def test_a_new_serving_certificate_ends_no_connection(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "FILES_S", 0.02)
    async with serving(papers) as api, lasting(api) as session:
        assert await status(session) == 200
        papers.issue()
        await api.told.until(lambda: api.told.of(CertificateRead))

        assert await status(session) == 200


async def test_a_connection_does_not_outlive_its_certificate(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS looks at the dates once; an API server that is never restarted keeps its connection."""
    later = timedelta()

    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Late:
            return cls.fromtimestamp((datetime.now(UTC) + later).timestamp(), tz)

    monkeypatch.setattr(compose, "datetime", Late)
    async with serving(papers) as api, lasting(api) as session:
        assert await status(session) == 200
        later = timedelta(days=365 * 1200)

        assert await status(session) == 503


# -- what the API server says --------------------------------------------------------------------


async def test_a_review_that_fails_has_failed_for_all_who_wait_for_it() -> None:
    """One after the other, the tenth would wait ten times as long for the same no."""
    may_fail, calls, refused = anyio.Event(), [], []

    async def may(*asked: Any) -> bool:
        calls.append(asked)
        await may_fail.wait()
        raise KubernetesUnavailable("a review of who may ask", "no answer")

    reviews = Reviews(may, mono=Clock())

    async def ask() -> None:
        with pytest.raises(KubernetesUnavailable, match="no answer"):
            await reviews.allowed(Caller(name="eve"), ASKED)
        refused.append(1)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        may_fail.set()

    assert (len(calls), len(refused)) == (1, 10)


async def test_a_review_that_was_cut_off_is_asked_for_again() -> None:
    """The client of the first is gone; the others want to know."""
    answers: list[Callable[[], Any]] = [anyio.sleep_forever, anyio.lowlevel.checkpoint]

    async def may(*_: Any) -> bool:
        await answers.pop(0)()
        return True

    reviews = Reviews(may, mono=Clock())
    allowed: list[bool] = []

    async def ask() -> None:
        allowed.append(await reviews.allowed(Caller(name="eve"), ASKED))

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as gone:
                gone.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                first.cancel()

    assert allowed == [True]


async def test_an_empty_authority_believes_nobody(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it would be everybody's authorities: the token would go to whoever has one."""
    everybody = papers.directory / "everybody.crt"
    papers.serving.cert_pem.write_to_path(everybody)
    monkeypatch.setenv("SSL_CERT_FILE", str(everybody))
    (papers.account / "ca.crt").write_bytes(b"")
    api_server = ApiServer(papers)
    async with api_server.serving():
        cluster = Kubernetes.around(api_server.environment, papers.account)
        try:
            with pytest.raises(KubernetesUnavailable):
                await cluster.may(Caller(name=HPA), ASKED)
        finally:
            await cluster.aclose()

    assert api_server.reviews == []


# -- files -------------------------------------------------------------------------------------


def test_files_that_cannot_be_read_any_more_are_told_of_once(papers: Papers) -> None:
    """What is shown meanwhile runs out some day, and nobody would know why."""
    told = Transcript()
    certificates = Certificates(papers.certificate, papers.key, told)
    pair = papers.certificate.read_bytes()
    papers.certificate.unlink()
    certificates.refresh()
    assert told == []
    for _ in range(3):
        certificates.refresh()
    assert ["cannot read" in (each.error or "") for each in told.of(CertificateRead)] == [True]

    papers.certificate.write_bytes(pair)
    certificates.refresh()
    certificates.refresh()
    assert told.of(CertificateRead)[1:] == [CertificateRead()]
