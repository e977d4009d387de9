"""The settings of a gateway: one value, read once, never seen whole below `compose`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from millstream.config import DEFAULT_REDIS, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """What a gateway can be told. Seconds are seconds; port 0 picks a free port, -1 none."""

    redis: str = setting(DEFAULT_REDIS, "address of Redis")
    queue: tuple[str, ...] = setting(
        ("default",), "queue to serve; may be given several times, the first is the default"
    )
    seal_keys: str | None = setting(
        None, "file with the keys that values are sealed under, or env: and a variable's name"
    )
    http: int = setting(8080, "port of the API, the pages and the probes", lowest=0, highest=65535)
    grpc: int = setting(8081, "port of A2A over gRPC", lowest=-1, highest=65535)
    probes: int = setting(
        -1,
        "port of the probes alone, without TLS; they also are on the API's",
        lowest=-1,
        highest=65535,
    )
    metrics: int = setting(9090, "port of the Prometheus metrics", lowest=-1, highest=65535)
    host: str = setting("0.0.0.0", "address the ports listen on")  # noqa: S104 - callers are elsewhere
    tls_cert: Path | None = setting(
        None, "file with the certificate that HTTP and gRPC are served with"
    )
    tls_key: Path | None = setting(None, "file with its key")
    tls_client_ca: Path | None = setting(
        None, "file with the authorities of callers, who then have to show a certificate"
    )
    grace: float = setting(20.0, "seconds that requests get after SIGTERM", lowest=0)
    patience: float = setting(
        2.0, "seconds to insist while Redis does not answer", lowest=0, highest=20
    )
    jwt_keys: tuple[str, ...] = setting(
        (), "file (JWKS or PEM) or https address of the keys that tokens are checked with"
    )
    jwt_issuer: tuple[str, ...] = setting((), "issuer whose tokens are taken")
    jwt_audience: tuple[str, ...] = setting((), "audience that tokens must be for")
    jwt_roles: str = setting("roles", "claim that holds the roles; a dot leads into it")
    jwt_tenant: str = setting("tenant", "claim that holds the tenant; a dot leads into it")
    jwt_refresh: float = setting(
        300.0, "seconds between two readings of the keys", lowest=1, highest=86_400
    )
    insecure_open: bool = setting(
        False, "let everybody on this machine do everything; on a loopback address only"
    )
    rate: float = setting(100.0, "requests a second that one caller may send", lowest=0.1)
    enqueue_rate: float = setting(1000.0, "runs a second that one caller may enqueue", lowest=0.1)
    streams: int = setting(
        50, "streams and waiting requests that one caller may hold", lowest=1, highest=10_000
    )
    connections: int = setting(2000, "connections that are held at once", lowest=1, highest=100_000)
    max_body: int = setting(
        8 * 1024 * 1024, "bytes of a request's body", lowest=1024, highest=256 * 1024 * 1024
    )
    public_url: str | None = setting(
        None, "address under which others reach this gateway; by default the one they asked"
    )
    public_grpc: str | None = setting(None, "host and port under which others reach A2A over gRPC")
    agent_name: str = setting("millstream", "name on the agent card")
    agent_description: str = setting(
        "Durable workflows as skills.", "description on the agent card"
    )
    a2a_discovery: bool = setting(False, "let everybody fetch the agent card")
    a2a_skill: str | None = setting(None, "workflow of A2A messages that name no skill")
    card_key: str | None = setting(
        None, "file with the private key (PEM) that agent cards are signed with"
    )
    acp_registry: bool = setting(
        False, "keep a catalogue of the agents that are there, for all to search"
    )
    heartbeat: float = setting(
        15.0, "seconds between two words of this agent in the catalogue", lowest=1, highest=300
    )
    push_hosts: tuple[str, ...] = setting(
        (), "host that push notifications may go to, such as *.example.com; by default any"
    )
    push_private: bool = setting(
        False, "let push notifications go to private addresses, and by plain http"
    )
    log_format: Literal["json", "console"] | None = setting(
        None, "json or console; by default console on a terminal, else json"
    )
    log_level: str = setting("INFO", "least severe level that is logged", "LOG_LEVEL")
