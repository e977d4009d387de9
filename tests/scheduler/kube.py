"""A cluster as the metrics API sees it: an API server, its front proxy, and their certificates."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import trustme
from aiohttp import web

LOOPBACK = "127.0.0.1"
#: What an API server of today sends when it asks an aggregated one what there is.
DISCOVERY = ", ".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    for version in ("v2", "v2beta1")
)
HPA = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"


class Papers:
    """Certificates of a cluster, as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.serving = trustme.CA()
        self.front_proxy = trustme.CA()
        self.stranger = trustme.CA()
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"
        self.issue()
        self.account = directory / "account"
        self.account.mkdir()
        (self.account / "token").write_text("the-token\n", "utf-8")
        self.serving.cert_pem.write_to_path(self.account / "ca.crt")

    def issue(self, authority: trustme.CA | None = None) -> bytes:
        """Write a new serving certificate; return it."""
        made = (authority or self.serving).issue_cert(LOOPBACK, "metrics.millstream.svc")
        made.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

    def server_context(self) -> ssl.SSLContext:
        """What the API server listens with."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.serving.issue_cert(LOOPBACK).configure_cert(context)
        return context

    def client_context(
        self, authority: trustme.CA | None = None, name: str = "front-proxy-client"
    ) -> ssl.SSLContext:
        """What a client connects with that has a certificate of that authority."""
        context = self.plain_context()
        made = (authority or self.front_proxy).issue_cert(f"{name}.test", common_name=name)
        made.configure_cert(context)
        return context

    def plain_context(self) -> ssl.SSLContext:
        """What a client connects with that has none."""
        context = ssl.create_default_context()
        self.serving.configure_trust(context)
        return context

    @cached_property
    def config_map(self) -> dict[str, str]:
        """What the cluster says of its front proxy."""
        return {
            "client-ca-file": self.stranger.cert_pem.bytes().decode(),
            "requestheader-client-ca-file": self.front_proxy.cert_pem.bytes().decode(),
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }


@dataclass(slots=True)
class ApiServer:
    """The API server: its ConfigMap, its reviews, and the proxy in front of aggregated servers."""

    papers: Papers
    #: Users that may read metrics.
    allowed: set[str] = field(default_factory=lambda: {HPA, "reader"})
    reviews: list[dict[str, Any]] = field(default_factory=list)
    #: How often it was asked for its front proxy's authority.
    told: int = 0
    #: A status that it answers everything with.
    failing: int | None = None
    #: Where the metrics API listens.
    upstream: str = ""
    #: What of discovery it understands.
    accepts: str = DISCOVERY
    port: int = 0
    _session: aiohttp.ClientSession | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What every container of the cluster has."""
        return {"KUBERNETES_SERVICE_HOST": LOOPBACK, "KUBERNETES_SERVICE_PORT": str(self.port)}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen while the block is open."""
        app = web.Application()
        path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
        app.router.add_get(path, self._config_map)
        app.router.add_post("/apis/authorization.k8s.io/v1/subjectaccessreviews", self._review)
        app.router.add_get("/{path:.*}", self._proxied)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        async with AsyncExitStack() as stack:
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(
                runner, LOOPBACK, self.port, ssl_context=self.papers.server_context()
            )
            await site.start()
            self.port = runner.addresses[0][1]
            connector = aiohttp.TCPConnector(ssl=self.papers.client_context())
            self._session = await stack.enter_async_context(
                aiohttp.ClientSession(connector=connector)
            )
            yield

    async def _config_map(self, asked: web.Request) -> web.Response:
        self.told += 1
        self._check(asked)
        return web.json_response({"kind": "ConfigMap", "data": self.papers.config_map})

    async def _review(self, asked: web.Request) -> web.Response:
        self._check(asked)
        review = await asked.json()
        self.reviews.append(review["spec"])
        review["status"] = {"allowed": review["spec"]["user"] in self.allowed}
        return web.json_response(review, status=201)

    def _check(self, asked: web.Request) -> None:
        assert asked.headers["Authorization"] == "Bearer the-token"
        if self.failing is not None:
            raise _Failure(self.failing)

    async def _proxied(self, asked: web.Request) -> web.Response:
        """Pass a request on under the name of who asks: the token, which is not checked here."""
        assert self._session is not None
        user = asked.headers.get("Authorization", "Bearer anonymous").split(" ", 1)[1]
        headers = {"X-Remote-User": user, "X-Remote-Group": "system:authenticated"}
        headers["Accept"] = asked.headers.get("Accept", "*/*")
        if asked.path == "/apis":
            headers |= {"X-Remote-User": "system:kube-aggregator", "Accept": self.accepts}
        async with self._session.get(self.upstream + asked.path_qs, headers=headers) as answer:
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers={"Content-Type": answer.headers["Content-Type"]},
            )


class _Failure(web.HTTPException):
    def __init__(self, status: int) -> None:
        self.status_code = status
        super().__init__(text=json.dumps({"message": "not now"}), content_type="application/json")
