"""The two calls that this process makes of the API server of its cluster.

Whose word counts (a ConfigMap), who may ask (a review), and nothing else: a client library would
bring a hundred modules for that. The token and the authority are files that the cluster exchanges
while we run, so they are read when they are needed.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from millstream.errors import ConfigError, KubernetesUnavailable
from millstream_scheduler.scaling.front_proxy import CONFIG_MAP, Caller, FrontProxy
from millstream_scheduler.scaling.reviews import Request

#: The API server's own asks give up after five seconds.
_TIMEOUT_S = 3.0
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Kubernetes:
    """The API server, as a pod's service account sees it. Close it with ``aclose``."""

    def __init__(self, address: str, account: Path) -> None:
        self._address = address
        self._account = account
        self._authority = b""
        self._session: aiohttp.ClientSession | None = None
        self._opening = anyio.Lock()

    @classmethod
    def around(cls, environ: Mapping[str, str], account: Path) -> Kubernetes:
        """Return the cluster that this process runs in. Raises `ConfigError` outside of one."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not (account / "token").is_file():
            raise ConfigError(
                "the metrics API has to ask the API server who may read it, and this process does"
                f" not run in a cluster: there is no {account / 'token'};"
                " mount the service account's token (automountServiceAccountToken: true)"
            )
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port or 443}", account)

    async def front_proxy(self) -> FrontProxy:
        """Return whose word counts in this cluster.

        Raises `KubernetesUnavailable`, and `ConfigError` when nobody's does.
        """
        namespace, name = CONFIG_MAP
        path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        found = await self._call("GET", path, "the front proxy's authority")
        data = found.get("data")
        return FrontProxy.of_config_map(data if isinstance(data, dict) else {})

    async def may(self, caller: Caller, request: Request) -> bool:
        """Whether a caller may. Raises `KubernetesUnavailable`."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": caller.name,
                "groups": list(caller.groups),
                "uid": caller.uid,
                "extra": {key: list(values) for key, values in caller.extra},
                "resourceAttributes": request.attributes(),
            },
        }
        found = await self._call("POST", _REVIEWS, "a review of who may ask", review)
        status = found.get("status") or {}
        return status.get("allowed") is True and status.get("denied") is not True

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _call(
        self, method: str, path: str, wanted: str, body: Any = None
    ) -> Mapping[str, Any]:
        try:
            session = await self._opened()
            token = (self._account / "token").read_text("utf-8").strip()
            async with session.request(
                method,
                self._address + path,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                allow_redirects=False,
            ) as answer:
                found = await answer.json(content_type=None)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise KubernetesUnavailable(wanted, reason) from error

        if answer.status >= 300 or not isinstance(found, dict):
            said = found.get("message", "") if isinstance(found, dict) else ""
            raise KubernetesUnavailable(wanted, f"status {answer.status} {said}".strip())

        return found

    async def _opened(self) -> aiohttp.ClientSession:
        """Return the session; another one when the authority's file has changed."""
        authority = (self._account / "ca.crt").read_bytes()
        async with self._opening:
            if self._session is None or authority != self._authority:
                # Not the default context: given an empty file it believes everybody's authorities.
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(cadata=authority.decode("ascii"))
                await self.aclose()
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=context, limit=16),
                    timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                )
                self._authority = authority
            return self._session
