"""Put a gateway together from its settings. Everything that is built, is built here."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from random import Random, SystemRandom

import aiohttp
import anyio
from aiohttp import web

from millstream import __version__
from millstream.certificates import FILES_S, Certificates
from millstream.client import Client
from millstream.errors import ConfigError
from millstream.events import Emit
from millstream.model import ids
from millstream.store.connection import Connection
from millstream.telemetry.emitter import Emitter
from millstream.telemetry.health import Health
from millstream.telemetry.logs import LogSubscriber, make_logger
from millstream.telemetry.metrics import MetricsSubscriber, Registry, new_registry
from millstream_gateway import probing
from millstream_gateway.a2a import compose as a2a
from millstream_gateway.a2a.cards import Identity
from millstream_gateway.a2a.destinations import Destinations
from millstream_gateway.a2a.grpc import GrpcBounds, GrpcPort
from millstream_gateway.a2a.signing import signs_with
from millstream_gateway.audit import Audit, EmittedAudit
from millstream_gateway.auth.guard import LOOPBACK, Guard, OpenGuard
from millstream_gateway.auth.keyring import Keyring
from millstream_gateway.auth.keysets import Keys, source_of
from millstream_gateway.auth.rates import Places, Rates
from millstream_gateway.auth.tokens import Tokens
from millstream_gateway.config import GatewayConfig
from millstream_gateway.dashboard import table as pages_table
from millstream_gateway.dashboard.choices import Choices
from millstream_gateway.dashboard.deeds import Deeds
from millstream_gateway.dashboard.flow import Flow
from millstream_gateway.dashboard.pages import Pages
from millstream_gateway.dashboard.planning import Planning
from millstream_gateway.dashboard.rendering import Rendering
from millstream_gateway.dashboard.starting import Starting
from millstream_gateway.dashboard.views import Views
from millstream_gateway.dashboard.visitors import Visitors
from millstream_gateway.listener import IDLE_S, listening
from millstream_gateway.mcp.host import Host
from millstream_gateway.mcp.tools import RunTools
from millstream_gateway.rest import described, table
from millstream_gateway.rest.acting import Acting
from millstream_gateway.rest.bulk import Bulk
from millstream_gateway.rest.lists import Lists
from millstream_gateway.rest.operating import Operating
from millstream_gateway.rest.operating_table import Handlers
from millstream_gateway.rest.questions import Questions
from millstream_gateway.rest.queues import Queues
from millstream_gateway.rest.runs import Runs
from millstream_gateway.rest.schedules import Schedules
from millstream_gateway.rest.stream import Streams
from millstream_gateway.routes import Table
from millstream_gateway.serve import Duty, Gateway
from millstream_gateway.server import Api, Bounds
from millstream_gateway.tls import StillBelieved, tls_of

#: Streams and waiting requests of all callers together, as a share of the connections.
_OPEN_SHARE = 0.75
_ANSWER_S = 75.0
_BODY_S = 15.0
#: Links to questions that are followed from one address, a second.
_STRANGERS_RATE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a gateway is made of that a test may want to replace."""

    connection: Connection
    #: Open for as long as the gateway serves.
    client: Client
    emit: Emit
    random: Random = field(default_factory=SystemRandom)
    mono: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    health: Health = field(default_factory=Health)
    audit: Audit | None = None
    body_s: float = _BODY_S
    idle_s: float = IDLE_S
    #: How soon exchanged certificates are noticed.
    files_s: float = FILES_S


def compose(config: GatewayConfig, parts: Parts) -> Gateway:
    """Return a gateway that is ready to serve. Nothing is sent; Redis may be away."""
    queues = tuple(dict.fromkeys(ids.check_queue(queue) for queue in config.queue))
    drain = anyio.Event()
    keyring = Keyring(parts.connection, mono=parts.mono, wall=parts.wall)
    guard, duties = _guarded(config, parts, keyring)
    visitors = Visitors(guard, keyring, parts.connection)
    shared = _shared(config, parts, drain, guard)
    tls = tls_of(config, parts.emit)
    agent = a2a.compose(_agent_settings(config, queues, tls), shared)
    routes, tell_person, more = _table(config, parts, shared, visitors, agent)
    api = Api(
        routes,
        guard,
        shared.requests,
        queues,
        Bounds(body=config.max_body, body_s=parts.body_s, answer_s=_ANSWER_S),
        visitors=visitors,
        tell_person=tell_person,
        emit=parts.emit,
        mono=parts.mono,
        wall=parts.wall,
        check_connection=(
            StillBelieved(tls, parts.wall) if tls is not None and config.tls_client_ca else None
        ),
    )
    listens = functools.partial(
        listening,
        api,
        host=config.host,
        port=config.http,
        connections=config.connections,
        grace_s=config.grace,
        idle_s=parts.idle_s,
        tls=None if tls is None else tls.listening,
    )
    if tls is not None:
        duties.append(functools.partial(tls.follow_forever, parts.files_s))
    return Gateway(
        parts.connection,
        listens if agent.grpc is None else functools.partial(_both, listens, agent.grpc),
        grpc=agent.grpc,
        drain=drain,
        duties=[*duties, *more, *agent.duties],
        busy=lambda: api.busy,
        queues=queues,
        health=parts.health,
        emit=parts.emit,
        grace_s=config.grace,
        secure=tls is not None,
    )


def _shared(
    config: GatewayConfig, parts: Parts, drain: anyio.Event, guard: Guard | OpenGuard
) -> a2a.Shared:
    """Return what all the rooms have in common: allowances, places, whom to tell."""
    return a2a.Shared(
        client=parts.client,
        connection=parts.connection,
        guard=guard,
        requests=Rates(config.rate, parts.mono),
        enqueues=Rates(config.enqueue_rate, parts.mono),
        places=Places(config.streams, max(1, int(config.connections * _OPEN_SHARE))),
        audit=parts.audit or EmittedAudit(parts.emit),
        drain=drain,
        emit=parts.emit,
        random=parts.random,
        mono=parts.mono,
    )


def _agent_settings(
    config: GatewayConfig, queues: Sequence[str], tls: Certificates | None
) -> a2a.Settings:
    return a2a.Settings(
        identity=Identity(
            name=config.agent_name,
            description=config.agent_description,
            url=config.public_url,
            grpc=config.public_grpc,
            guarded=not config.insecure_open,
        ),
        destinations=Destinations(hosts=config.push_hosts, private=config.push_private),
        served=queues,
        discovery=config.a2a_discovery,
        skill=config.a2a_skill,
        signs=signs_with(config.card_key),
        heartbeat_s=config.heartbeat if config.acp_registry else None,
        host=config.host,
        port=config.grpc,
        tls=tls,
        bounds=GrpcBounds(calls=config.connections, message=config.max_body, grace_s=config.grace),
    )


def _table(
    config: GatewayConfig,
    parts: Parts,
    shared: a2a.Shared,
    visitors: Visitors,
    agent: a2a.Spoken,
) -> tuple[Table, Callable[[Exception], web.Response], list[Duty]]:
    """Return all routes, what tells people of errors, and what has to run for it all."""
    acting = Acting(parts.client, shared.audit)
    new_id = functools.partial(ids.new_run_id, parts.random)
    lists = Lists(parts.client, parts.connection)
    runs = Runs(
        parts.client,
        acting,
        lists,
        enqueues=shared.enqueues,
        places=shared.places,
        drain=shared.drain,
        new_id=new_id,
    )
    queues = Queues(parts.client, parts.connection, acting, lists)
    operate = Handlers(
        operating=Operating(parts.client, runs, acting, shared.enqueues),
        questions=Questions(parts.client, acting, lists, Rates(_STRANGERS_RATE, parts.mono)),
        bulk=Bulk(parts.client, acting, lists),
        queues=queues,
        schedules=Schedules(parts.client, acting, shared.enqueues),
    )
    streams = Streams(runs, shared.places, shared.drain)
    host = Host(RunTools(runs, parts.client, parts.connection), config.max_body)
    rendering = Rendering(parts.wall)
    pages = Pages(parts.client, runs, queues, visitors, rendering, Flow(parts.mono))
    views = Views(
        connection=parts.connection,
        questions=operate.questions,
        schedules=operate.schedules,
        rendering=rendering,
    )
    deeds = _deeds(operate, runs, rendering, Choices(parts.connection), new_id)
    routes = [
        *probing.routes(parts.health),
        *described.routes(
            [
                *table.routes(runs, queues, operate.bulk, streams),
                *operate.routes(),
                *agent.described,
            ]
        ),
        *host.routes(),
        *agent.routes,
        *pages_table.routes(pages, views, deeds, streams),
    ]
    return Table(routes), pages.refused, [host.serve_forever]


def _deeds(
    operate: Handlers,
    runs: Runs,
    rendering: Rendering,
    choices: Choices,
    new_id: Callable[[], str],
) -> Deeds:
    """Return what the forms of the pages do."""
    return Deeds(
        runs=runs,
        queues=operate.queues,
        bulk=operate.bulk,
        operating=operate.operating,
        schedules=operate.schedules,
        planning=Planning(schedules=operate.schedules, choices=choices, rendering=rendering),
        starting=Starting(runs=runs, choices=choices, rendering=rendering, new_id=new_id),
    )


@asynccontextmanager
async def _both(
    http: Callable[[], AbstractAsyncContextManager[int]], grpc: GrpcPort
) -> AsyncIterator[int]:
    """Listen on both ports; both take nothing new at the same time."""
    async with grpc.listening(), http() as port:
        yield port


def _guarded(
    config: GatewayConfig, parts: Parts, keyring: Keyring
) -> tuple[Guard | OpenGuard, list[Duty]]:
    """Return who asks callers for their names, and what has to run for that."""
    if config.insecure_open:
        if config.host not in LOOPBACK:
            raise ConfigError(
                f"--insecure-open lets everybody do everything, and {config.host} is not only this"
                " machine; add --host 127.0.0.1, or give callers tokens or keys"
            )
        return OpenGuard(), []

    if not config.jwt_keys:
        return Guard(keyring), []

    if not config.jwt_issuer or not config.jwt_audience:
        raise ConfigError(
            "tokens are checked for their issuer and audience; give --jwt-issuer and --jwt-audience"
        )
    keys = Keys(
        [source_of(where, aiohttp.ClientSession) for where in config.jwt_keys],
        refresh_s=config.jwt_refresh,
        emit=parts.emit,
        mono=parts.mono,
    )
    tokens = Tokens(
        keys,
        audience=config.jwt_audience,
        issuer=config.jwt_issuer,
        roles_claim=config.jwt_roles,
        tenant_claim=config.jwt_tenant,
    )
    return Guard(keyring, tokens), [keys.refresh_forever]


async def somebody_known(config: GatewayConfig, connection: Connection) -> bool:
    """Whether anybody could call at all. Raises `StoreError`."""
    if config.insecure_open or config.jwt_keys:
        return True
    return await Keyring(connection, mono=time.monotonic, wall=time.time).any_valid()


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """How a process is watched."""

    emit: Emit
    health: Health
    registry: Registry


def telemetry(config: GatewayConfig) -> Telemetry:
    """Return the subscribers of a gateway process."""
    log_format = config.log_format or ("console" if sys.stderr.isatty() else "json")
    logger = make_logger(log_format=log_format, level=config.log_level)
    registry = new_registry()
    emit = Emitter(
        LogSubscriber(logger),
        MetricsSubscriber(registry, service="millstream-gateway", version=__version__),
    )
    return Telemetry(emit=emit, health=Health(), registry=registry)
