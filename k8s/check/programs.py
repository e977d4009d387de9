"""Whether the pods call the programs that there are: commands, settings, ports, probes, and time.

The settings are resolved as the process would resolve them, from the rendered environment, so a
misspelt name and a value that is out of bounds are both found here and not in a crashing pod.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from k8s.check.objects import Fault, Manifest, Place, Pod, where
from millstream.cli.commands import COMMANDS
from millstream.cli.flags import known_names
from millstream.config import check_names, resolve
from millstream.errors import ConfigError

#: Variables of others that our processes hand on or read.
FOREIGN = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "the standard of OpenTelemetry",
    "OTEL_RESOURCE_ATTRIBUTES": "the standard of OpenTelemetry",
    "POD_NAME": "part of OTEL_RESOURCE_ATTRIBUTES",
}
#: What a process takes beside its drain: releasing, resigning, the last commit, a slow node.
MARGIN_S = 15
#: What a process takes that is told nothing else.
_DRAINS_S = {"scheduler": 5, "gateway": 20, "worker": 30}
_PROBES = {"/health", "/ready", "/startup"}
#: Command -> the module that has its settings, and what they are called there.
_CONFIGS = {
    "worker": ("millstream_worker", "WorkerConfig"),
    "scheduler": ("millstream_scheduler", "SchedulerConfig"),
    "gateway": ("millstream_gateway", "GatewayConfig"),
}
_OURS = re.compile(r"(^|/)millstream(-gpu|-canary)?([:@]|$)")


@dataclass(frozen=True, slots=True)
class Process:
    """A container that runs one of our programs, with the environment that it will have."""

    pod: Pod
    container: Manifest
    environment: dict[str, str]

    @property
    def at(self) -> str:
        """How a fault names it."""
        return where(self.pod.owner)

    @property
    def command(self) -> str:
        """The subcommand that it runs."""
        return str((self.container.get("args") or [""])[0])


def processes(place: Place) -> Iterator[Process]:
    """All containers that run our image."""
    for pod in place.pods():
        for container in pod.containers:
            if _OURS.search(container["image"]):
                yield Process(pod, container, _environment(place, container))


def commands(place: Place) -> Iterator[Fault]:
    """The arguments are those of the command line."""
    for process in processes(place):
        if "command" in process.container:
            yield Fault("commands", process.at, "the image has an entry point; give it `args`")
        if process.command not in COMMANDS:
            yield Fault("commands", process.at, f"millstream has no command {process.command!r}")
        if not (config := _config(process.command)):
            continue
        for argument in process.container["args"][1:]:
            flag = argument.partition("=")[0]
            names = {each.name.replace("_", "-") for each in fields(config)}
            if flag.startswith("--") and flag[2:] not in names:
                said = f"millstream {process.command} has no flag {flag}"
                yield Fault("commands", process.at, said)


def settings(place: Place) -> Iterator[Fault]:
    """The environment resolves, and every variable in it means something."""
    known = known_names()
    for process in processes(place):
        for name in process.environment:
            setting = name.removeprefix("MILLSTREAM_").removesuffix("_FILE").lower()
            ours = name.startswith("MILLSTREAM_") and setting in known
            if not ours and name not in FOREIGN:
                yield Fault("settings", process.at, f"{name} is no setting of millstream")
        try:
            check_names(known, process.environment, Path("/nonexistent"))
            if config := _config(process.command):
                resolve(config, {}, _values(process.environment), Path("/nonexistent"))
        except ConfigError as error:
            yield Fault("settings", process.at, str(error))


def ports(place: Place) -> Iterator[Fault]:
    """The ports are those that the process listens on, and the probes ask what it answers."""
    for process in processes(place):
        if not process.pod.long_running:
            continue
        declared = {each["name"]: each["containerPort"] for each in process.container["ports"]}
        for name, default in (("http", 8080), ("metrics", 9090), ("probes", -1)):
            wanted = int(process.environment.get(f"MILLSTREAM_{name.upper()}", default))
            if declared.get(name, -1) != wanted:
                yield Fault("ports", process.at, f"it listens on {wanted} for {name}")
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            yield from _probe(process, kind)
    for service in place.of("Service"):
        for port in service["spec"]["ports"]:
            if not any(port["targetPort"] in _ports(pod) for pod in place.pods()):
                said = f"no pod has the port {port['targetPort']}"
                yield Fault("ports", where(service), said)


def probes(place: Place) -> Iterator[Fault]:
    """A probe can fail, asks for the right thing, and is gated once."""
    for pod in place.pods():
        for container in pod.spec["containers"] if pod.long_running else []:
            found = {
                kind: container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")
            }
            for kind, probe in found.items():
                if probe is None:
                    yield Fault("probes", where(pod.owner), f"it has a {kind} probe")
                elif found["startup"] and probe.get("initialDelaySeconds"):
                    said = f"{kind}: the startup probe gates it; a delay on top delays the verdict"
                    yield Fault("probes", where(pod.owner), said)
            if found["liveness"] and found["liveness"].get("httpGet", {}).get("path") == "/ready":
                yield Fault("probes", where(pod.owner), "liveness that asks Redis kills the fleet")
            for probe in found.values():
                yield from _exec_probe(pod, probe or {})


def drains(place: Place) -> Iterator[Fault]:
    """A pod is given longer than its process takes to leave."""
    for process in processes(place):
        drain = _drain(process)
        hook = process.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        wanted = drain + hook.get("seconds", 0) + MARGIN_S
        given = process.pod.spec.get("terminationGracePeriodSeconds", 30)
        if given < wanted:
            said = f"it drains for {drain} s and is killed after {given} s; give it {wanted}"
            yield Fault("drains", process.at, said)
        if process.pod.owner["spec"].get("progressDeadlineSeconds", 600) < given:
            yield Fault("drains", process.at, "a rollout may take as long as a drain")


def _config(command: str) -> Any:
    package, name = _CONFIGS.get(command, ("", ""))
    if not package or find_spec(package) is None:
        return None
    return getattr(importlib.import_module(f"{package}.config"), name)


def _probe(process: Process, kind: str) -> Iterator[Fault]:
    get = process.container.get(kind, {}).get("httpGet")
    if get is None:
        return
    if get["path"] not in _PROBES:
        yield Fault("ports", process.at, f"{kind}: nothing answers {get['path']}")
    own = process.environment.get("MILLSTREAM_PROBES")
    if get["port"] not in ({"http", 8080} if own is None else {"probes", int(own)}):
        # The kubelet shows no certificate, and would not get in beside the API.
        port = "http" if own is None else "probes"
        yield Fault("ports", process.at, f"{kind}: probes are answered on the port {port}")


def _exec_probe(pod: Pod, probe: Manifest) -> Iterator[Fault]:
    line = " ".join(probe.get("exec", {}).get("command", []))
    if "$(" in line:
        said = "a probe's command is expanded without Secrets: the password would be empty"
        yield Fault("probes", where(pod.owner), said)
    if "redis-cli" in line and "PONG" not in line:
        said = "redis-cli ends with 0 on NOAUTH and LOADING: read its answer"
        yield Fault("probes", where(pod.owner), said)


def _drain(process: Process) -> float:
    least = _DRAINS_S.get(process.command, 30)
    if process.command == "scheduler":
        return least
    return float(process.environment.get("MILLSTREAM_GRACE", least))


def _ports(pod: Pod) -> set[str | int]:
    found = [port for each in pod.containers for port in each.get("ports", [])]
    return {port["name"] for port in found} | {port["containerPort"] for port in found}


def _environment(place: Place, container: Manifest) -> dict[str, str]:
    """Return what is known of the environment. What comes from a Secret is only named."""
    known: dict[str, str] = {}
    for source in container.get("envFrom", []):
        config = place.find("ConfigMap", source.get("configMapRef", {}).get("name", ""))
        known |= (config or {}).get("data") or {}
    for variable in container.get("env", []):
        known[variable["name"]] = str(variable.get("value", ""))
        reference = variable.get("valueFrom", {}).get("configMapKeyRef")
        config = place.find("ConfigMap", reference["name"]) if reference else None
        if config:
            known[variable["name"]] = (config.get("data") or {}).get(reference["key"], "")
    return known


def _values(environment: dict[str, str]) -> dict[str, str]:
    """Return what stands in the environment itself: files are there only in the pod."""
    return {name: value for name, value in environment.items() if not name.endswith("_FILE")}
