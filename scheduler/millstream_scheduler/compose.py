"""Put a scheduler together from its settings. Everything that is built, is built here."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import TYPE_CHECKING

from millstream import __version__
from millstream.certificates import Certificates
from millstream.client.queues import Queues
from millstream.errors import ConfigError
from millstream.events import Emit
from millstream.model import ids
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.leadership import Seat
from millstream.telemetry.emitter import Emitter
from millstream.telemetry.health import Health
from millstream.telemetry.logs import LogSubscriber, make_logger
from millstream.telemetry.metrics import MetricsSubscriber, Registry, new_registry
from millstream_scheduler.config import SchedulerConfig
from millstream_scheduler.elector import Elector
from millstream_scheduler.gauge import Gauge
from millstream_scheduler.janitor import Janitor
from millstream_scheduler.judge import Judge
from millstream_scheduler.readings import Readings
from millstream_scheduler.scaling.front_proxy import FrontProxy
from millstream_scheduler.serve import Scheduler
from millstream_scheduler.sharing import Sharing
from millstream_scheduler.surveyor import Surveyor
from millstream_scheduler.term import Term
from millstream_scheduler.ticker import Ticker

if TYPE_CHECKING:
    from millstream_scheduler.scaling.kubernetes import Kubernetes
    from millstream_scheduler.scaling.serve import FindsProxy

#: A queue's gauges disappear, and the metrics API refuses, when their last reading is older than
#: this, or than three readings.
STALE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a scheduler is made of that a test or a simulation may want to replace."""

    connection: Connection
    emit: Emit
    random: Random = field(default_factory=SystemRandom)
    mono: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    health: Health = field(default_factory=Health)
    #: Handed in where somebody else reads them too.
    readings: Readings | None = None


def readings(config: SchedulerConfig, mono: Callable[[], float] = time.monotonic) -> Readings:
    """Return what the process will know of its queues."""
    return Readings(config.queue, stale_s=_stale_s(config), mono=mono)


def compose(config: SchedulerConfig, parts: Parts) -> Scheduler:
    """Return a scheduler that is ready to serve. Nothing is sent; Redis may be away."""
    queues = tuple(ids.check_queue(queue) for queue in config.queue)
    token = ids.new_process_token(parts.random)
    seat = Seat(queues)
    known = parts.readings or readings(config, parts.mono)
    elector = Elector(
        parts.connection,
        seat,
        token,
        lease_s=config.lease,
        emit=parts.emit,
        mono=parts.mono,
        turned=functools.partial(_turned, parts.health),
    )

    def make_janitor(lane: Lane, term: Term) -> Janitor:
        return Janitor(
            parts.connection,
            lane,
            term,
            token,
            lease_s=config.lease,
            retention_s=config.retention,
            poison=config.poison,
            emit=parts.emit,
            mono=parts.mono,
        )

    return Scheduler(
        elector,
        Surveyor(parts.connection, queues, emit=parts.emit, mono=parts.mono),
        Sharing(
            parts.connection,
            seat,
            token,
            known,
            interval_s=config.sample,
            emit=parts.emit,
            mono=parts.mono,
        ),
        make_janitor=make_janitor,
        make_gauge=_make_gauge(config, parts, known),
        make_judge=_make_judge(config, parts, token),
        make_ticker=_make_ticker(config, parts, token),
        emit=parts.emit,
        pulse=parts.health.loop_turned,
        on_drain=parts.health.draining,
    )


def _make_gauge(
    config: SchedulerConfig, parts: Parts, known: Readings
) -> Callable[[str, Sequence[Lane], Term], Gauge]:
    def make(queue: str, lanes: Sequence[Lane], term: Term) -> Gauge:
        return Gauge(
            parts.connection,
            queue,
            lanes,
            term,
            known,
            interval_s=config.sample,
            emit=parts.emit,
            mono=parts.mono,
        )

    return make


def _make_judge(
    config: SchedulerConfig, parts: Parts, token: str
) -> Callable[[Sequence[Lane], Term], Judge]:
    def make(lanes: Sequence[Lane], term: Term) -> Judge:
        return Judge(
            parts.connection,
            lanes,
            term,
            token,
            interval_s=config.sample,
            emit=parts.emit,
            mono=parts.mono,
            wall=parts.wall,
        )

    return make


def _make_ticker(config: SchedulerConfig, parts: Parts, token: str) -> Callable[[Term], Ticker]:
    # Whoever asks here does not insist: the loop that asked comes round again.
    queues = Queues(parts.connection, token, patience_s=0.0)

    def make(term: Term) -> Ticker:
        return Ticker(
            parts.connection,
            queues,
            term,
            retention_s=config.retention,
            random=parts.random,
            emit=parts.emit,
            mono=parts.mono,
        )

    return make


@asynccontextmanager
async def metrics_api(
    config: SchedulerConfig, known: Readings, emit: Emit, environ: Mapping[str, str]
) -> AsyncIterator[int | None]:
    """Serve the Kubernetes metrics API where it is wanted; yield its port."""
    if config.metrics_api < 0:
        yield None
        return

    from millstream_scheduler.scaling.kubernetes import Kubernetes  # noqa: PLC0415 - aiohttp
    from millstream_scheduler.scaling.reviews import Reviews  # noqa: PLC0415 - see above
    from millstream_scheduler.scaling.serve import Trusted, listening  # noqa: PLC0415 - see above
    from millstream_scheduler.scaling.server import MetricsServer  # noqa: PLC0415 - see above

    if config.tls_cert is None or config.tls_key is None:
        raise ConfigError("the metrics API is served over TLS: give --tls-cert and --tls-key")
    certificates = Certificates(config.tls_cert, config.tls_key, emit)
    cluster = Kubernetes.around(environ, config.service_account)
    trusted = Trusted(_finds_proxy(config, cluster), certificates, emit)
    server = MetricsServer(
        readings=known,
        reviews=Reviews(cluster.may, mono=time.monotonic),
        proxy=lambda: trusted.proxy,
        outlived=certificates.outlived,
        emit=emit,
        wall=lambda: datetime.now(UTC),
    )
    try:
        async with listening(
            server.application(),
            certificates,
            trusted,
            host=config.host,
            port=config.metrics_api,
        ) as port:
            yield port
    finally:
        await cluster.aclose()


def _finds_proxy(config: SchedulerConfig, cluster: Kubernetes) -> FindsProxy:
    """Return how the front proxy's authority is found: in a file, or by asking the cluster."""
    path = config.requestheader_ca
    if path is None:
        return cluster.front_proxy

    async def of_file() -> FrontProxy:
        return FrontProxy.of_file(path, config.requestheader_names)

    return of_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """How a process is watched."""

    emit: Emit
    health: Health
    registry: Registry


def telemetry(config: SchedulerConfig) -> Telemetry:
    """Return the subscribers of a scheduler process."""
    log_format = config.log_format or ("console" if sys.stderr.isatty() else "json")
    logger = make_logger(log_format=log_format, level=config.log_level)
    registry = new_registry()
    health = Health()
    emit = Emitter(
        LogSubscriber(logger),
        MetricsSubscriber(
            registry,
            service="millstream-scheduler",
            version=__version__,
            stale_s=_stale_s(config),
            loop_age_s=health.loop_age_s,
        ),
    )
    return Telemetry(emit=emit, health=health, registry=registry)


def _stale_s(config: SchedulerConfig) -> float:
    return max(STALE_S, 3 * config.sample)


def _turned(health: Health, refusal: str | None) -> None:
    health.claim_turned()
    if refusal is None:
        health.store_answered()
    else:
        health.store_failed(refusal)
