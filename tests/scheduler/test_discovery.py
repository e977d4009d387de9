"""Discovery, as API servers of every age ask for it, and as kubectl reads it.

The golden documents are what the API server's own types are written as. One that differs is either
a mistake or a change that old API servers have to be thought of for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from millstream_scheduler.scaling import documents
from tests.processes.fleet import ROOT
from tests.scheduler.kube import DISCOVERY, HPA
from tests.scheduler.test_metrics_api import CUSTOM, DEMAND, EXTERNAL, Api, papers, serving

__all__ = ["papers"]

GOLDEN = Path(__file__).with_name("golden")
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
V2 = V2BETA1.replace("v2beta1", "v2")


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (DISCOVERY, "v2"),
        (f"{V2BETA1},application/json", "v2beta1"),
        (f"{V2}, */*", "v2"),
        ("application/json", ""),
        ("application/json, */*", ""),
        ("*/*", ""),
        ("", ""),
        ("application/vnd.kubernetes.protobuf, application/json", ""),
        (V2.replace("v=v2", "v=v3"), None),
        (V2.replace("apidiscovery", "other"), None),
        ("application/yaml", None),
    ],
)
def test_what_a_client_accepts(accept: str, expected: str | None) -> None:
    """A refusal makes an API server ask the old way; a wrong document does not."""
    assert documents.discovery_version(accept) == expected


WORDS = (
    ("/apis", V2, "aggregated-v2"),
    ("/apis", V2BETA1, "aggregated-v2beta1"),
    ("/apis", "application/json", "groups"),
    ("/apis/external.metrics.k8s.io", "*/*", "external"),
    ("/apis/external.metrics.k8s.io/v1beta1", "*/*", "external-v1beta1"),
    ("/apis/custom.metrics.k8s.io", "*/*", "custom"),
    ("/apis/custom.metrics.k8s.io/v1beta1", "*/*", "custom-v1beta1"),
    ("/apis/custom.metrics.k8s.io/v1beta2", "*/*", "custom-v1beta2"),
)


async def test_discovery_is_answered_word_for_word(papers: Any) -> None:
    async with serving(papers) as api:
        for path, accept, name in WORDS:
            status, found, answer = await api.get(path, headers={"Accept": accept})

            assert status == 200
            assert found == golden(name)
            wanted = accept if "as=" in accept else "application/json"
            assert answer.headers["Content-Type"] == wanted


async def test_what_has_not_changed_is_not_sent_again(papers: Any) -> None:
    """An API server asks every minute, with the tag of what it has."""
    async with serving(papers) as api:
        _, _, answer = await api.get("/apis", headers={"Accept": V2})
        tag = answer.headers["ETag"]
        same = await api.status("/apis", headers={"Accept": V2, "If-None-Match": tag})
        other = await api.status("/apis", headers={"Accept": V2BETA1, "If-None-Match": tag})

    assert (same, other) == (304, 200)


async def test_what_nobody_can_write_is_406_and_not_404(papers: Any) -> None:
    """A 404 kept every namespace of a cluster from being deleted, with older API servers."""
    async with serving(papers) as api:
        assert await api.status("/apis", headers={"Accept": V2.replace("v=v2", "v=v9")}) == 406


# -- kubectl -------------------------------------------------------------------------------------


class Kubectl:
    """The real client, pointed at the cluster."""

    def __init__(self, api: Api) -> None:
        found = shutil.which("kubectl", path=f"{ROOT / '.tools'}{os.pathsep}{os.environ['PATH']}")
        if found is None:
            pytest.skip("kubectl is neither in .tools nor on PATH; scripts/kubectl.sh brings it")
        self._command = [
            found, "--server", f"https://127.0.0.1:{api.cluster.port}",
            "--certificate-authority", str(api.papers.account / "ca.crt"),
            "--cache-dir", str(api.papers.directory / "cache"), "--kubeconfig", "/dev/null",
            "--request-timeout", "20s",
        ]  # fmt: skip

    async def __call__(self, *args: str, token: str = HPA) -> subprocess.CompletedProcess[str]:
        """Run it, while the cluster goes on serving."""
        return await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                [*self._command, "--token", token, *args],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        )


@pytest.mark.parametrize("accepts", [DISCOVERY, V2BETA1, "application/json"])
async def test_kubectl_discovers_what_is_served(papers: Any, accepts: str) -> None:
    """In each of the three forms, passed on by an API server of that age."""
    async with serving(papers) as api:
        api.cluster.accepts = accepts
        kubectl = Kubectl(api)
        said = await kubectl("api-resources", "--verbs", "get", "-o", "wide", "--no-headers")
        versions = await kubectl("api-versions") if accepts == DISCOVERY else None

    assert said.returncode == 0, said.stderr
    rows = [line.split() for line in said.stdout.splitlines()]
    external = {row[0]: row[-2] for row in rows if row[1].startswith("external")}
    assert external[DEMAND] == external["millstream_queue_waiting"] == "ExternalMetricValueList"
    if versions is not None:
        assert versions.stdout.split() == [
            "custom.metrics.k8s.io/v1beta1",
            "custom.metrics.k8s.io/v1beta2",
            "external.metrics.k8s.io/v1beta1",
        ]


async def test_kubectl_reads_values_and_refusals(papers: Any) -> None:
    """Through the front proxy, under the name of whoever asks."""
    path = f"{EXTERNAL}/namespaces/shop/{DEMAND}"
    async with serving(papers) as api:
        kubectl = Kubectl(api)
        value = await kubectl("get", "--raw", f"{path}?labelSelector=queue%3Ddefault")
        custom = await kubectl(
            "get", "--raw", f"{CUSTOM}/namespaces/shop/deployments.apps/worker/{DEMAND}"
        )
        refused = await kubectl("get", "--raw", path, token="eve")
        api.clock.now += 60
        stale = await kubectl("get", "--raw", path)

    assert json.loads(value.stdout)["items"][0]["value"] == "11", value.stderr
    assert json.loads(custom.stdout)["items"][0]["describedObject"]["kind"] == "Deployment"
    assert (refused.returncode, stale.returncode) == (1, 1)
    assert "(Forbidden): eve may not list millstream_queue_demand" in refused.stderr
    assert "(ServiceUnavailable): what queue 'default' holds is not known" in stale.stderr
