"""A kubelet without a cluster: pods of rendered manifests, as processes of this machine.

What a container would find is laid out under a directory: its mounts from the rendered ConfigMaps
and the Secrets that the script makes. Paths are moved there, ports are free ones on loopback, and
the name of the Redis service is this machine. Everything else, arguments, environment, probes and
the time to leave, is taken from the manifests as it stands.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from k8s.check.objects import Manifest, Place, Pod

_PROGRAMS = Path(sys.executable).parent
#: What every container gets from the image or the machine.
_INHERITED = {"PATH": f"{_PROGRAMS}:{os.environ['PATH']}", "HOME": "/tmp", "LANG": "C.UTF-8"}


class Cluster:
    """What pods find: the rendered objects, the Secrets, and where names lead."""

    def __init__(
        self, directory: Path, place: Place, secrets: list[Manifest], names: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.place = place
        self.names = names
        self._secrets = {each["metadata"]["name"]: each["stringData"] for each in secrets}

    def start(self, owner: str, *, number: int = 0, extra: tuple[str, ...] = ()) -> Container:
        """Start a pod of a workload; ``extra`` stands in for a pod's own network."""
        pods = self.place.pods()
        pod = next(each for each in pods if each.owner["metadata"]["name"] == owner)
        return Container(self, pod, self.directory / f"{owner}-{number}", extra)

    def files(self, pod: Pod, volume: str) -> dict[str, str]:
        """Return what a volume holds; nothing for one that is empty at first."""
        found = next((each for each in pod.volumes if each["name"] == volume), {})
        if config := found.get("configMap"):
            held = self.place.find("ConfigMap", config["name"])
            data: dict[str, str] = (held or {})["data"]
            return _chosen(data, config)
        if secret := found.get("secret"):
            if secret["secretName"] not in self._secrets and secret.get("optional"):
                return {}
            return _chosen(self._secrets[secret["secretName"]], secret)
        return {}

    def secret(self, name: str) -> dict[str, str]:
        """Return what a Secret holds."""
        held: dict[str, str] = self._secrets[name]
        return held

    def led(self, text: str) -> str:
        """Return a text with the names of services led to this machine."""
        for name, address in self.names.items():
            text = text.replace(name, address)
        return text


class Container:
    """The first container of a pod, after those that run before it."""

    def __init__(self, cluster: Cluster, pod: Pod, root: Path, extra: tuple[str, ...]) -> None:
        self.pod = pod
        self.manifest: Manifest = pod.spec["containers"][0]
        self.root = root
        self._cluster = cluster
        self._mounts = [each["mountPath"] for each in self.manifest.get("volumeMounts", [])]
        self._lay_out()
        for first in pod.spec.get("initContainers", []):
            subprocess.run(
                [*map(self._moved, first["args"])], check=True, env=_INHERITED, timeout=30
            )
        self.environment = {**_INHERITED, **self._environment()}
        self.log_path = root / "log"
        self._log = self.log_path.open("wb")
        self.process = subprocess.Popen(
            [*self._command(), *extra],
            cwd=root / "app" if (root / "app").is_dir() else root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()

    @property
    def log(self) -> str:
        """What it wrote."""
        return self.log_path.read_text("utf-8", "replace")

    def until_ready(self) -> None:
        """Ask its probes as a kubelet does: startup until it passes, then readiness."""
        for kind in ("startupProbe", "readinessProbe"):
            probe = self.manifest[kind]
            for _ in range(probe["failureThreshold"] * probe["periodSeconds"] * 10):
                assert self.process.poll() is None, f"it ended:\n{self.log}"
                if self.passes(kind):
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(f"{kind} does not pass:\n{self.log}")

    def passes(self, kind: str) -> bool:
        """Ask one probe once."""
        probe = self.manifest[kind]
        if "exec" in probe:
            command = [self._moved(word) for word in probe["exec"]["command"]]
            try:
                done = subprocess.run(
                    command,
                    env=self.environment,
                    capture_output=True,
                    check=False,
                    timeout=probe["timeoutSeconds"],
                )
            except subprocess.TimeoutExpired:
                return False
            return done.returncode == 0
        return self._get(probe["httpGet"], probe["timeoutSeconds"])

    def delete(self, meanwhile: Callable[[], None] = lambda: None) -> int:
        """Delete the pod: the hook, the signal, the time to leave, and the kill after it."""
        began = time.monotonic()
        hook = self.manifest.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        time.sleep(hook.get("seconds", 0))
        self.process.send_signal(signal.SIGTERM)
        meanwhile()
        left = self.pod.spec["terminationGracePeriodSeconds"] - (time.monotonic() - began)
        try:
            return self.process.wait(left)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _get(self, get: Manifest, seconds: float) -> bool:
        # Here the port is a free one; what counts is whether the manifest asks at the one that the
        # process would have listened on.
        declared = {each["name"]: each["containerPort"] for each in self.manifest["ports"]}
        asked = declared.get(get["port"], get["port"])
        found = re.search(r"(?:health|http) on port (\d+)", self.log)
        if not found or asked != int(self.environment.get("MILLSTREAM_HTTP", 8080)):
            return False
        address = f"http://127.0.0.1:{found[1]}{get['path']}"
        try:
            with urllib.request.urlopen(address, timeout=seconds) as answer:
                return 200 <= int(answer.status) < 400
        except (urllib.error.URLError, TimeoutError):
            return False

    def _lay_out(self) -> None:
        for mount in self.manifest.get("volumeMounts", []):
            place = self.root / mount["mountPath"].lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            for name, text in self._cluster.files(self.pod, mount["name"]).items():
                (place / name).write_text(self._moved(self._cluster.led(text)), "utf-8")

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in self.manifest.get("envFrom", []):
            config = self._cluster.place.find("ConfigMap", source["configMapRef"]["name"])
            found |= (config or {})["data"]
        for variable in self.manifest.get("env", []):
            text = self._field(variable) if "valueFrom" in variable else variable["value"]
            for name, value in found.items():
                text = text.replace(f"$({name})", value)
            found[variable["name"]] = self._cluster.led(self._moved(text))
        return found

    def _field(self, variable: Manifest) -> str:
        path = variable["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == "metadata.name", f"no other field was needed so far: {path}"
        return self.root.name

    def _command(self) -> list[str]:
        # An image of ours has an entry point; that of Redis runs what it is given.
        program = [] if "redis" in self.manifest["image"] else [str(_PROGRAMS / "millstream")]
        words = [*self.manifest.get("command", []), *self.manifest.get("args", [])]
        return [*program, *map(self._moved, words)]

    def _moved(self, text: str) -> str:
        """Return a text with the paths of mounts under our directory."""
        for path in self._mounts:
            text = re.sub(rf"(?<![\w/.-]){re.escape(path)}(?=[/\s]|$)", f"{self.root}{path}", text)
        return text


def _chosen(data: Mapping[str, str], source: Mapping[str, Any]) -> dict[str, str]:
    if items := source.get("items"):
        return {item["path"]: data[item["key"]] for item in items}
    return dict(data)
