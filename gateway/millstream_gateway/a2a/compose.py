"""Put the agent together: what it is made of, its routes, its port and its duties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import anyio

from millstream.certificates import Certificates
from millstream.client import Client
from millstream.errors import ConfigError
from millstream.events import Emit
from millstream.model import ids
from millstream.store.connection import Connection
from millstream_gateway.a2a.agent import Agent, Rooms
from millstream_gateway.a2a.cards import Cards, Identity
from millstream_gateway.a2a.courier import Courier
from millstream_gateway.a2a.destinations import Destinations
from millstream_gateway.a2a.grpc import GrpcBounds, GrpcPort, Knows
from millstream_gateway.a2a.httpjson import HttpJson
from millstream_gateway.a2a.intake import Intake
from millstream_gateway.a2a.jsonrpc import JsonRpc
from millstream_gateway.a2a.listing import Listing
from millstream_gateway.a2a.pushes import Pushes
from millstream_gateway.a2a.registry import Registry
from millstream_gateway.a2a.signing import Signs
from millstream_gateway.a2a.stopping import Stopping
from millstream_gateway.a2a.table import routes
from millstream_gateway.a2a.tasks import Tasks
from millstream_gateway.a2a.watching import Watching
from millstream_gateway.audit import Audit
from millstream_gateway.auth.rates import Places, Rates
from millstream_gateway.routes import Route
from millstream_gateway.serve import Duty


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the configuration says of the agent."""

    identity: Identity
    destinations: Destinations
    served: Sequence[str]
    discovery: bool
    #: The skill of messages that name none.
    skill: str | None
    host: str
    #: -1: no gRPC.
    port: int
    #: What the port is served with; None: without TLS.
    tls: Certificates | None = None
    bounds: GrpcBounds
    #: Seconds between two words in the catalogue of agents; None: there is none.
    heartbeat_s: float | None = None
    #: Signs the cards, where there is a key.
    signs: Signs


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the agent shares with the rest of the gateway."""

    client: Client
    connection: Connection
    guard: Knows
    requests: Rates
    enqueues: Rates
    places: Places
    audit: Audit
    drain: anyio.Event
    emit: Emit
    random: Random
    mono: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """The agent, ready to be spoken to."""

    #: Those that stand in the document of the API, and the others.
    described: Sequence[Route]
    routes: Sequence[Route]
    duties: Sequence[Duty]
    #: None: no gRPC.
    grpc: GrpcPort | None


def compose(settings: Settings, shared: Shared) -> Spoken:
    """Return the agent. Nothing is sent, and nothing listens yet."""
    client, connection = shared.client, shared.connection
    tasks = Tasks(client, connection)
    pushes = Pushes(connection, settings.destinations)
    opened: list[GrpcPort] = []
    cards = Cards(
        connection,
        settings.identity,
        settings.served,
        grpc_port=lambda: opened[0].port if opened else None,
        signs=settings.signs,
        mono=shared.mono,
    )
    agent = Agent(
        Rooms(
            client=client,
            tasks=tasks,
            intake=Intake(
                client, connection, tasks, pushes,
                enqueues=shared.enqueues, default=settings.skill,
            ),
            watching=Watching(client, tasks, shared.drain.wait),
            listing=Listing(client, connection, tasks),
            stopping=Stopping(client, tasks, shared.audit),
            pushes=pushes,
            cards=cards,
            places=shared.places,
            emit=shared.emit,
            mono=shared.mono,
        )
    )  # fmt: skip
    courier = Courier(
        client=client,
        connection=connection,
        tasks=tasks,
        destinations=settings.destinations,
        served=settings.served,
        emit=shared.emit,
        random=shared.random,
    )
    if settings.port >= 0:
        opened.append(_port(settings, shared, agent))
    spoken = routes(JsonRpc(agent), HttpJson(agent), cards, discovery=settings.discovery)
    listed = _registry(settings, shared, cards)
    return Spoken(
        described=[] if listed is None else listed.described(),
        routes=spoken if listed is None else [*spoken, *listed.routes()],
        duties=[courier.deliver_forever, *([] if listed is None else [listed.beat_forever])],
        grpc=opened[0] if opened else None,
    )


def _registry(settings: Settings, shared: Shared, cards: Cards) -> Registry | None:
    """Return the catalogue of agents, where there is to be one. Raises `ConfigError`."""
    if settings.heartbeat_s is None:
        return None
    if settings.identity.url is None:
        raise ConfigError(
            "the catalogue of agents says where this gateway is reached; give --public-url"
        )
    return Registry(
        shared.connection,
        cards,
        ids.new_process_token(shared.random),
        url=settings.identity.url,
        heartbeat_s=settings.heartbeat_s,
        emit=shared.emit,
    )


def _port(settings: Settings, shared: Shared, agent: Agent) -> GrpcPort:
    return GrpcPort(
        agent,
        shared.guard,
        shared.requests,
        settings.served,
        settings.bounds,
        host=settings.host,
        port=settings.port,
        tls=settings.tls,
        emit=shared.emit,
        mono=shared.mono,
    )
