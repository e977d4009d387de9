"""Put a scheduler together from its settings. Everything that is built, is built here."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random, SystemRandom

from millstream import __version__
from millstream.client.queues import Queues
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
from millstream_scheduler.serve import Scheduler
from millstream_scheduler.surveyor import Surveyor
from millstream_scheduler.term import Term
from millstream_scheduler.ticker import Ticker

#: A queue's gauges disappear when their last reading is older than this, or than three readings.
STALE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a scheduler is made of that a test or a simulation may want to replace."""

    connection: Connection
    emit: Emit
    random: Random = field(default_factory=SystemRandom)
    mono: Callable[[], float] = time.monotonic
    health: Health = field(default_factory=Health)


def compose(config: SchedulerConfig, parts: Parts) -> Scheduler:
    """Return a scheduler that is ready to serve. Nothing is sent; Redis may be away."""
    queues = tuple(ids.check_queue(queue) for queue in config.queue)
    token = ids.new_process_token(parts.random)
    elector = Elector(
        parts.connection,
        Seat(queues),
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

    def make_gauge(queue: str, lanes: Sequence[Lane], term: Term) -> Gauge:
        return Gauge(
            parts.connection,
            queue,
            lanes,
            term,
            interval_s=config.sample,
            emit=parts.emit,
            mono=parts.mono,
        )

    return Scheduler(
        elector,
        Surveyor(parts.connection, queues, emit=parts.emit, mono=parts.mono),
        make_janitor=make_janitor,
        make_gauge=make_gauge,
        make_ticker=_make_ticker(config, parts, token),
        emit=parts.emit,
        pulse=parts.health.loop_turned,
        on_drain=parts.health.draining,
    )


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
    emit = Emitter(
        LogSubscriber(logger),
        MetricsSubscriber(
            registry,
            service="millstream-scheduler",
            version=__version__,
            stale_s=max(STALE_S, 3 * config.sample),
        ),
    )
    return Telemetry(emit=emit, health=Health(), registry=registry)


def _turned(health: Health, refusal: str | None) -> None:
    health.claim_turned()
    if refusal is None:
        health.store_answered()
    else:
        health.store_failed(refusal)
