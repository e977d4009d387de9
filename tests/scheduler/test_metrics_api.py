"""The Kubernetes metrics API: asked over TLS, as API servers ask, and the cluster may fail."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
import trustme
from msgspec.structs import replace

from millstream.errors import ConfigError
from millstream.events import CertificateRead, MetricAsked
from millstream_scheduler import compose
from millstream_scheduler.config import SchedulerConfig
from millstream_scheduler.readings import Readings
from millstream_scheduler.scaling import reviews as reviewing
from millstream_scheduler.scaling import serve
from millstream_scheduler.scaling.front_proxy import Caller
from tests.scheduler.kube import HPA, LOOPBACK, ApiServer, Papers
from tests.scheduler.replicas import Transcript
from tests.scheduler.test_readings import Clock, reading

EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1"
CUSTOM = "/apis/custom.metrics.k8s.io/v1beta2"
DEMAND = "millstream_queue_demand"
VOUCHED = {"X-Remote-User": HPA, "X-Remote-Group": "system:serviceaccounts"}


@dataclass(slots=True)
class Api:
    """The API of one scheduler, and what a test does with it."""

    papers: Papers
    cluster: ApiServer
    readings: Readings
    clock: Clock
    told: Transcript
    port: int
    proxy: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.proxy = self.papers.client_context()

    async def get(
        self,
        path: str,
        context: ssl.SSLContext | None = None,
        headers: Any = VOUCHED,
        method: str = "GET",
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Ask as the front proxy does, or as somebody else."""
        connector = aiohttp.TCPConnector(ssl=context or self.proxy)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                method, f"https://{LOOPBACK}:{self.port}{path}", headers=headers
            ) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else text, answer

    async def status(self, path: str, *args: Any, **kwargs: Any) -> int:
        """Return the status of an answer."""
        return (await self.get(path, *args, **kwargs))[0]

    async def until_trusting(self) -> None:
        """Return once it has heard whose word counts."""
        with anyio.fail_after(5):
            while await self.status(f"{EXTERNAL}/namespaces/shop/{DEMAND}") in {401, 503}:
                await anyio.sleep(0.01)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@asynccontextmanager
async def serving(papers: Papers, *, known: bool = True, **settings: Any) -> AsyncIterator[Api]:
    """Serve in front of a cluster; both queues have a reading."""
    clock, told, cluster = Clock(), Transcript(), ApiServer(papers)
    readings = Readings(["default", "mail"], stale_s=30, mono=clock)
    readings.keep(reading())
    readings.keep(reading("mail", waiting=2))
    async with cluster.serving():
        config = SchedulerConfig(
            metrics_api=0,
            host=LOOPBACK,
            tls_cert=papers.certificate,
            tls_key=papers.key,
            service_account=papers.account,
            **settings,
        )
        async with compose.metrics_api(config, readings, told, cluster.environment) as port:
            assert port is not None
            cluster.upstream = f"https://{LOOPBACK}:{port}"
            api = Api(papers, cluster, readings, clock, told, port)
            if known:
                await api.until_trusting()
                cluster.reviews.clear()
                told.clear()
            yield api


# -- values --------------------------------------------------------------------------------------


async def test_an_external_metric_has_a_value_for_each_queue(papers: Papers) -> None:
    """Its reader adds them up: without a selector that is the total."""
    async with serving(papers) as api:
        status, found, answer = await api.get(f"{EXTERNAL}/namespaces/shop/{DEMAND}")

    assert (status, answer.headers["Content-Type"]) == (200, "application/json")
    stamps = {item.pop("timestamp") for item in found["items"]}
    assert found == {
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [
            {"metricName": DEMAND, "metricLabels": {"queue": "default"}, "value": "11"},
            {"metricName": DEMAND, "metricLabels": {"queue": "mail"}, "value": "6"},
        ],
    }
    assert all(len(stamp) == len("2026-11-23T11:46:06Z") and stamp[-1] == "Z" for stamp in stamps)


async def test_a_selector_says_which_queues_are_meant(papers: Papers) -> None:
    meant = {
        "queue%3Dmail": ["mail"],
        "queue!=mail": ["default"],
        "queue+in+(mail,default),queue": ["default", "mail"],
        "!team": ["default", "mail"],
    }
    async with serving(papers) as api:
        for selector, queues in meant.items():
            path = f"{EXTERNAL}/namespaces/shop/{DEMAND}?labelSelector={selector}"
            _, found, _ = await api.get(path)
            assert [item["metricLabels"]["queue"] for item in found["items"]] == queues


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
async def test_a_custom_metric_belongs_to_the_object_that_is_described(
    papers: Papers, version: str
) -> None:
    """One value for all queues that are meant: an object has one."""
    path = f"/apis/custom.metrics.k8s.io/{version}/namespaces/shop/services/worker/{DEMAND}"
    async with serving(papers) as api:
        _, both, _ = await api.get(path)
        _, one, _ = await api.get(f"{path}?metricLabelSelector=queue%3Dmail")

    assert (both["kind"], both["apiVersion"]) == (
        "MetricValueList", f"custom.metrics.k8s.io/{version}"
    )  # fmt: skip
    (item,) = both["items"]
    assert item["describedObject"] == {
        "kind": "Service", "namespace": "shop", "name": "worker", "apiVersion": "v1"
    }  # fmt: skip
    assert item["value"] == "17"
    named = one["items"][0]
    assert named["value"] == "6"
    if version == "v1beta1":
        assert named["metricName"] == DEMAND
    else:
        assert named["metric"] == {"name": DEMAND, "selector": {"matchLabels": {"queue": "mail"}}}


async def test_fractions_are_written_in_thousandths(papers: Papers) -> None:
    async with serving(papers) as api:
        path = f"{EXTERNAL}/namespaces/shop/millstream_queue_arrival_rate?labelSelector=queue=mail"
        _, found, _ = await api.get(path)

    assert found["items"][0]["value"] == "500m"


# -- what is not known ---------------------------------------------------------------------------


async def test_a_stale_reading_is_503_and_never_a_number(papers: Papers) -> None:
    """An autoscaler that gets an error changes nothing; a zero would scale the fleet away."""
    async with serving(papers) as api:
        api.clock.now += 20
        api.readings.keep(reading())
        api.clock.now += 20

        fresh = await api.status(f"{EXTERNAL}/namespaces/shop/{DEMAND}?labelSelector=queue=default")
        status, found, _ = await api.get(f"{EXTERNAL}/namespaces/shop/{DEMAND}")
        custom = await api.status(f"{CUSTOM}/namespaces/shop/services/worker/{DEMAND}")
        discovery = await api.status(EXTERNAL)

    assert (fresh, status, custom, discovery) == (200, 503, 503, 200)
    assert (found["kind"], found["reason"], found["code"]) == ("Status", "ServiceUnavailable", 503)
    assert "the last reading is 40 s old" in found["message"]
    assert [event.status for event in api.told.of(MetricAsked)] == [200, 503, 503]


async def test_a_figure_that_is_not_known_yet_is_503(papers: Papers) -> None:
    async with serving(papers) as api:
        api.readings.keep(replace(reading(), arrival_rate=None))
        path = f"{EXTERNAL}/namespaces/shop/millstream_queue_arrival_rate"

        assert await api.status(path) == 503


REFUSED = (
    (f"{EXTERNAL}/namespaces/shop/queue_length", 404, "no metric 'queue_length'"),
    (f"{EXTERNAL}/namespaces/shop/{DEMAND}?labelSelector=queue=none", 404, "default, mail"),
    (f"{EXTERNAL}/namespaces/shop/{DEMAND}?labelSelector=queue>1", 400, "no requirement"),
    (f"{EXTERNAL}/namespaces/shop/{DEMAND}?labelSelector=,", 400, "no requirement"),
    (f"{CUSTOM}/namespaces/shop/pods/*/{DEMAND}", 404, "services, deployments.apps"),
    (f"{CUSTOM}/namespaces/shop/services/*/{DEMAND}", 400, "name the object"),
    ("/apis/custom.metrics.k8s.io/v7", 404, "v1beta2, v1beta1"),
    ("/apis/metrics.k8s.io", 404, "the groups are"),
    ("/openapi/v2", 404, "Not Found"),
    ("/api", 404, "Not Found"),
)


async def test_what_is_not_served_is_refused_in_a_document(papers: Papers) -> None:
    async with serving(papers) as api:
        for path, status, says in REFUSED:
            code, found, _ = await api.get(path)

            assert (code, found["kind"], found["code"]) == (status, "Status", status)
            assert says in found["message"]


async def test_nothing_is_written_here(papers: Papers) -> None:
    async with serving(papers) as api:
        code, found, _ = await api.get(EXTERNAL, method="DELETE")

    assert (code, found["reason"]) == (405, "MethodNotAllowed")


# -- who asks ------------------------------------------------------------------------------------


async def test_headers_count_only_over_a_connection_of_the_front_proxy(papers: Papers) -> None:
    """Whoever reaches the port could write them."""
    path = f"{EXTERNAL}/namespaces/shop/{DEMAND}"
    lie = {"X-Remote-User": "root", "X-Remote-Group": "system:masters"}
    async with serving(papers) as api:
        without = await api.status(path, papers.plain_context(), lie)
        misnamed = await api.status(path, papers.client_context(name="kubelet"), lie)
        silent = await api.status(path, headers={})
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
            await api.status(path, papers.client_context(papers.stranger), lie)

        assert (without, misnamed, silent) == (401, 401, 401)
        assert api.cluster.reviews == []
        assert await api.status("/readyz", papers.plain_context(), {}) == 200
        assert await api.status(EXTERNAL, papers.plain_context(), {}) == 200


async def test_a_review_decides_who_may_and_gets_the_whole_caller(papers: Papers) -> None:
    path = f"{CUSTOM}/namespaces/shop/services/worker/{DEMAND}"
    headers = [
        ("X-Remote-User", "eve"), ("X-Remote-Group", "a"), ("X-Remote-Group", "b"),
        ("X-Remote-Uid", "u-1"), ("X-Remote-Extra-Acme.com%2FTeam", "red"),
    ]  # fmt: skip
    async with serving(papers) as api:
        code, found, _ = await api.get(path, headers=headers)
        listing = await api.status(f"{EXTERNAL}/namespaces/shop/{DEMAND}", headers=headers)

        assert (code, found["reason"], listing) == (403, "Forbidden", 403)
        assert "eve may not get services/millstream_queue_demand" in found["message"]
        first, second = api.cluster.reviews
    assert first == {
        "user": "eve",
        "groups": ["a", "b"],
        "uid": "u-1",
        "extra": {"acme.com/team": ["red"]},
        "resourceAttributes": {
            "verb": "get", "group": "custom.metrics.k8s.io", "version": "v1beta2",
            "namespace": "shop", "resource": "services", "subresource": DEMAND, "name": "worker",
        },
    }  # fmt: skip
    assert second["resourceAttributes"] == {
        "verb": "list", "group": "external.metrics.k8s.io", "version": "v1beta1",
        "namespace": "shop", "resource": DEMAND,
    }  # fmt: skip


async def test_a_verdict_is_asked_for_once_in_a_while_and_not_at_every_question(
    papers: Papers,
) -> None:
    """Twenty at once, and then twenty more, are one review."""
    async with serving(papers) as api:
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(api.status, f"{EXTERNAL}/namespaces/new/{DEMAND}")

        assert len(api.cluster.reviews) == 1


async def test_an_api_server_that_does_not_answer_is_503_and_not_a_no(papers: Papers) -> None:
    path = f"{EXTERNAL}/namespaces/other/{DEMAND}"
    async with serving(papers) as api:
        api.cluster.failing = 500
        code, found, _ = await api.get(path)
        assert (code, found["reason"]) == (503, "ServiceUnavailable")
        assert "status 500 not now" in found["message"]
        api.cluster.failing = None

        assert await api.status(path) == 200


async def test_a_verdict_runs_out() -> None:
    """A right that was taken away ends within seconds."""
    clock, verdicts = Clock(), [True, False]

    async def may(*_: Any) -> bool:
        return verdicts.pop(0)

    asked = reviewing.Request(
        verb="get", group="g", version="v", namespace="n", resource="r", name="x"
    )
    reviews = reviewing.Reviews(may, mono=clock)
    caller = Caller(name="eve")

    assert await reviews.allowed(caller, asked)
    clock.now += reviewing.KEEP_S - 0.1
    assert await reviews.allowed(caller, asked)
    clock.now += 0.2
    assert not await reviews.allowed(caller, asked)
    assert await reviews.allowed(Caller(name="root", groups=("system:masters",)), asked)


# -- what changes while it runs ------------------------------------------------------------------


async def test_a_new_certificate_is_shown_without_a_restart(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are exchanged every few weeks; half of a pair on the way is not shown."""
    monkeypatch.setattr(serve, "FILES_S", 0.02)
    async with serving(papers) as api:
        before = await shown(api)
        old_key = papers.key.read_bytes()
        issued = papers.issue()
        new_key = papers.key.read_bytes()
        papers.key.write_bytes(old_key)
        await api.told.until(lambda: api.told.of(CertificateRead))
        assert api.told.of(CertificateRead)[-1].error is not None
        assert await shown(api) == before
        papers.key.write_bytes(new_key)
        await api.told.until(lambda: api.told.of(CertificateRead)[-1].error is None)

        assert await shown(api) == issued != before


async def exchanged(papers: Papers, api: Api) -> trustme.CA:
    """Have another authority sign for the front proxy; return it once it is known."""
    new = trustme.CA()
    papers.config_map["requestheader-client-ca-file"] = new.cert_pem.bytes().decode()
    asked = api.cluster.told
    with anyio.fail_after(5):
        while api.cluster.told < asked + 2:
            await anyio.sleep(0.01)
    return new


async def test_the_front_proxys_authority_is_followed(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was believed before is believed no more."""
    monkeypatch.setattr(serve, "PROXY_S", 0.02)
    path = f"{EXTERNAL}/namespaces/shop/{DEMAND}"
    async with serving(papers) as api:
        assert await api.status(path) == 200
        new = await exchanged(papers, api)
        assert await api.status(path, papers.client_context(new)) == 200
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
            await api.status(path, papers.client_context())


async def test_it_listens_before_the_cluster_has_said_whose_word_counts(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discovery must be answered; values are not known to be for whoever asks."""
    monkeypatch.setattr(serve, "RETRY_S", 0.02)
    papers.config_map["requestheader-username-headers"] = "[]"
    async with serving(papers, known=False) as api:
        await api.told.until(lambda: api.told.of(CertificateRead))
        assert await api.status(EXTERNAL, papers.plain_context()) == 200
        path = f"{EXTERNAL}/namespaces/shop/{DEMAND}"
        assert await api.status(path, papers.plain_context()) == 503
        said = len(api.told.of(CertificateRead))
        papers.config_map["requestheader-username-headers"] = '["X-Remote-User"]'
        with anyio.fail_after(5):
            while await api.status(path, papers.plain_context()) != 401:
                await anyio.sleep(0.01)

        assert await api.status(path) == 200
        assert len(api.told.of(CertificateRead)) == said == 1


async def test_the_authority_may_come_from_a_file(papers: Papers) -> None:
    """And then the names that are allowed come from the settings."""
    path = papers.directory / "front-proxy.crt"
    papers.front_proxy.cert_pem.write_to_path(path)
    async with serving(
        papers, requestheader_ca=path, requestheader_names=("gate",), known=False
    ) as api:
        gate = papers.client_context(name="gate")
        with anyio.fail_after(5):
            while await api.status(f"{EXTERNAL}/namespaces/shop/{DEMAND}", gate) != 200:
                await anyio.sleep(0.01)

        assert await api.status(f"{EXTERNAL}/namespaces/shop/{DEMAND}") == 401
        assert api.cluster.told == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tls_cert": None}, "give --tls-cert and --tls-key"),
        ({"tls_cert": Path("/nowhere.crt")}, "cannot read /nowhere.crt"),
        ({"service_account": Path("/nowhere")}, "does not run in a cluster"),
        ({"metrics_api": 70000}, "cannot listen"),
    ],
)
async def test_what_cannot_be_served_is_said_in_one_line(
    papers: Papers, settings: dict[str, Any], says: str
) -> None:
    given = {
        "metrics_api": 0, "tls_cert": papers.certificate, "tls_key": papers.key,
        "service_account": papers.account, **settings,
    }  # fmt: skip
    readings = Readings(["default"], stale_s=30, mono=anyio.current_time)
    environment = {"KUBERNETES_SERVICE_HOST": LOOPBACK, "KUBERNETES_SERVICE_PORT": "1"}

    with pytest.raises(ConfigError, match=says):
        async with compose.metrics_api(
            SchedulerConfig(host=LOOPBACK, **given), readings, Transcript(), environment
        ):
            pass


async def shown(api: Api) -> bytes:
    """Return the certificate that the port shows."""
    _, writer = await asyncio.open_connection(LOOPBACK, api.port, ssl=api.papers.plain_context())
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found
