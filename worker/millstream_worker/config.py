"""The settings of a worker: one value, read once, never seen whole below `compose`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from millstream.config import DEFAULT_REDIS, OTLP, setting
from millstream.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker can be told. Seconds are seconds; port 0 picks a free port, -1 none."""

    redis: str = setting(DEFAULT_REDIS, "address of Redis")
    queue: tuple[str, ...] = setting(("default",), "queue to serve; may be given several times")
    seal_keys: str | None = setting(
        None, "file with the keys that values are sealed under, or env: and a variable's name"
    )
    concurrency: int = setting(
        100, "runs held at once", "MAX_CONCURRENT_WORKFLOWS", lowest=1, highest=10_000
    )
    lease: float = setting(
        10.0, "seconds of silence after which others take the runs", lowest=0.3, highest=300
    )
    grace: float = setting(30.0, "seconds that running runs get after SIGTERM", lowest=0)
    park_after: float = setting(5.0, "a longer sleep parks the run", lowest=0)
    spill_above: int = setting(
        256 * KIB,
        "bytes above which a step's value is kept beside the journal",
        lowest=16 * KIB,
        highest=16 * MIB,
    )
    journal_inputs: int = setting(
        2 * KIB,
        "bytes of what a tool or a model is called with that are kept for people to see; 0: none",
        lowest=0,
        highest=64 * KIB,
    )
    retention: float = setting(
        24 * 3600.0, "seconds the record of an ended run is kept", lowest=0.001
    )
    poison: int = setting(
        5, "a run is given up when this many workers died while they held it", lowest=1
    )
    liveness: float = setting(
        60.0, "seconds of a blocked event loop after which liveness turns red", lowest=0.5
    )
    http: int = setting(8080, "port of the health probes", lowest=-1, highest=65535)
    metrics: int = setting(9090, "port of the Prometheus metrics", lowest=-1, highest=65535)
    host: str = setting("0.0.0.0", "address the ports listen on")  # noqa: S104 - probes come from outside
    mcp: Path | None = setting(None, "file with the mcpServers that tools are called on")
    agents: Path | None = setting(None, "file with the agents that may be called by A2A")
    models: Path | None = setting(None, "file with the models that inference is done with")
    otlp_endpoint: str | None = setting(
        None, "address of a collector that traces are sent to, by OTLP over HTTP", *OTLP
    )
    log_format: Literal["json", "console"] | None = setting(
        None, "json or console; by default console on a terminal, else json"
    )
    log_level: str = setting("INFO", "least severe level that is logged", "LOG_LEVEL")
