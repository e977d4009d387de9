"""The settings of a scheduler: one value, read once, never seen whole below `compose`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from millstream.config import DEFAULT_REDIS, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """What a scheduler can be told. Seconds are seconds; port 0 picks a free port, -1 none."""

    redis: str = setting(DEFAULT_REDIS, "address of Redis")
    queue: tuple[str, ...] = setting(
        ("default",), "queue to look after; may be given several times"
    )
    seal_keys: str | None = setting(
        None, "file with the keys that values are sealed under, or env: and a variable's name"
    )
    lease: float = setting(
        10.0,
        "seconds of silence after which others take over; as the workers have it",
        lowest=0.3,
        highest=300,
    )
    sample: float = setting(
        5.0, "seconds between two readings of a queue's gauges", lowest=0.05, highest=300
    )
    retention: float = setting(
        24 * 3600.0, "seconds the record of an ended run is kept", lowest=0.001
    )
    poison: int = setting(
        5, "a run is given up when this many workers died while they held it", lowest=1
    )
    http: int = setting(8080, "port of the health probes", lowest=-1, highest=65535)
    metrics: int = setting(9090, "port of the Prometheus metrics", lowest=-1, highest=65535)
    metrics_api: int = setting(
        -1, "port of the Kubernetes metrics API, over TLS", lowest=-1, highest=65535
    )
    tls_cert: Path | None = setting(None, "file with the certificate of the metrics API")
    tls_key: Path | None = setting(None, "file with its key")
    requestheader_ca: Path | None = setting(
        None,
        "file with the front proxy's authority; by default the cluster says which it is",
    )
    requestheader_names: tuple[str, ...] = setting(
        ("front-proxy-client",), "common name that the front proxy has; with --requestheader-ca"
    )
    service_account: Path = setting(
        Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        "directory with the token that the API server is asked with who may read metrics",
    )
    host: str = setting("0.0.0.0", "address the ports listen on")  # noqa: S104 - probes come from outside
    log_format: Literal["json", "console"] | None = setting(
        None, "json or console; by default console on a terminal, else json"
    )
    log_level: str = setting("INFO", "least severe level that is logged", "LOG_LEVEL")
