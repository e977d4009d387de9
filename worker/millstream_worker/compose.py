"""Put a worker together from its settings. Everything that is built, is built here."""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import Protocol, runtime_checkable

import anyio

from millstream import __version__
from millstream.client import Client
from millstream.client.schedules import Schedules
from millstream.events import Emit
from millstream.model import ids
from millstream.model.run import Delivery
from millstream.model.trace import trace_id_of
from millstream.store.agents import Agent
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.telemetry.checks import Check
from millstream.telemetry.emitter import Emitter
from millstream.telemetry.health import Health
from millstream.telemetry.logs import LogSubscriber, RunLogger, make_logger
from millstream.telemetry.metrics import MetricsSubscriber, Registry, new_registry
from millstream.telemetry.opening import Tracing, open_tracing
from millstream.workflow import Log, Workflows
from millstream_worker.absent import NoModels, NoTools
from millstream_worker.agents.asked import Agents, NoAgents
from millstream_worker.config import WorkerConfig
from millstream_worker.consumer import Consumer
from millstream_worker.dispatcher import Dispatcher
from millstream_worker.environment import (
    Environment,
    Inference,
    MakesLog,
    RunsInThread,
    Tools,
    Traces,
)
from millstream_worker.executor import Executor
from millstream_worker.gate import Gate
from millstream_worker.inference.declared import BUILT_IN, load_models
from millstream_worker.inference.notices import Notices
from millstream_worker.inference.service import InferenceService
from millstream_worker.lanes import Lanes
from millstream_worker.lease import Lease
from millstream_worker.renewer import Renewer
from millstream_worker.rooms import Rooms
from millstream_worker.serve import LaneDuties, Renews, Worker
from millstream_worker.slots import Slots
from millstream_worker.spilling import Spills
from millstream_worker.sweeper import Sweeper
from millstream_worker.telling import running_step
from millstream_worker.threads import Threads
from millstream_worker.withdrawing import Withdrawer

#: Threads for plain functions: as many as there can be MCP calls.
THREADS = 100

MakesRenewer = Callable[[Connection, Sequence[Lane], str, Lease, Emit], Renews]


def renewing_thread(
    connection: Connection, lanes: Sequence[Lane], token: str, lease: Lease, emit: Emit
) -> Renews:
    """Return the thread that renews."""
    return Renewer(connection, lanes, token, lease, emit=emit, mono=time.monotonic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a worker is made of that a test or a simulation may want to replace."""

    connection: Connection
    emit: Emit
    make_log: MakesLog
    tools: Tools = field(default_factory=NoTools)
    agents: Agents = field(default_factory=NoAgents)
    inference: Inference = field(default_factory=NoModels)
    random: Random = field(default_factory=SystemRandom)
    mono: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    in_thread: RunsInThread = field(default_factory=lambda: Threads(THREADS))
    make_renewer: MakesRenewer = renewing_thread
    health: Health = field(default_factory=Health)
    traces: Traces | None = None


async def compose(config: WorkerConfig, workflows: Workflows, parts: Parts) -> Worker:
    """Return a worker that is ready to serve, as soon as Redis answers."""
    lanes = Lanes(parts.connection, config.queue, parts.emit)
    await lanes.look_up()
    agent = _agent(config, workflows, parts)
    lease = Lease(config.lease, parts.mono)
    environment = _environment(config, agent, lease, parts)
    # Which kind of loop runs is asked once: for each scope it costs as much as the scope.
    make_scope = type(anyio.CancelScope())
    executor = Executor(workflows, environment, parts.mono, make_scope=make_scope)
    slots = Slots(config.concurrency)
    parts.inference.attend(lambda: slots.total - slots.free)

    def make_duties(lane: Lane) -> LaneDuties:
        return _duties(config, lane, agent, lease, slots, executor, parts, lanes.noticed)

    lanes.make_duties = make_duties
    return Worker(
        parts.connection,
        agent,
        [make_duties(lane) for lane in lanes.served],
        parts.make_renewer(parts.connection, lanes.served, agent.token, lease, parts.emit),
        lease,
        more_lanes=lanes,
        emit=parts.emit,
        grace_s=config.grace,
        on_drain=parts.health.draining,
    )


def _environment(config: WorkerConfig, agent: Agent, lease: Lease, parts: Parts) -> Environment:
    return Environment(
        token=agent.token,
        lease=lease,
        random=parts.random,
        emit=parts.emit,
        tools=parts.tools,
        agents=parts.agents,
        inference=parts.inference,
        in_thread=parts.in_thread,
        make_log=parts.make_log,
        inputs_most=config.journal_inputs,
        spills=Spills(parts.connection, agent.token, emit=parts.emit, above=config.spill_above),
        traces=parts.traces,
        sealer=parts.connection.sealer,
        park_after_s=config.park_after,
    )


def _agent(config: WorkerConfig, workflows: Workflows, parts: Parts) -> Agent:
    return Agent(
        token=ids.new_process_token(parts.random),
        host=socket.gethostname(),
        pid=os.getpid(),
        concurrency=config.concurrency,
        started=parts.wall(),
        workflows=tuple(str(workflow) for workflow in workflows),
        release=__version__,
    )


def _duties(  # noqa: PLR0917 - what a lane shares with the others
    config: WorkerConfig,
    lane: Lane,
    agent: Agent,
    lease: Lease,
    slots: Slots,
    executor: Executor,
    parts: Parts,
    noticed: Callable[[Lane, int], None],
) -> LaneDuties:
    dispatcher = Dispatcher(parts.connection, lane, emit=parts.emit, retention_s=config.retention)
    gate = Gate(slots)
    consumer = Consumer(
        parts.connection,
        lane,
        agent.token,
        gate,
        lease,
        emit=parts.emit,
        retention_s=config.retention,
        alive=parts.health.claim_turned,
        posted=dispatcher.posted,
        answered=functools.partial(_answered, parts.health, lease),
    )
    sweeper = Sweeper(
        parts.connection,
        consumer,
        agent,
        lease,
        emit=parts.emit,
        retention_s=config.retention,
        poison=config.poison,
        turned=parts.health.loop_turned,
        posted=dispatcher.posted,
        noticed=noticed,
        gate=gate,
        knows=executor.knows,
    )
    execute = functools.partial(executor.execute, consumer)
    return LaneDuties(consumer=consumer, sweeper=sweeper, dispatcher=dispatcher, execute=execute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """How a process is watched."""

    emit: Emit
    make_log: MakesLog
    health: Health
    registry: Registry
    traces: Tracing | None = None


def telemetry(config: WorkerConfig) -> Telemetry:
    """Return the subscribers of a worker process."""
    log_format = config.log_format or ("console" if sys.stderr.isatty() else "json")
    logger = make_logger(log_format=log_format, level=config.log_level)
    registry = new_registry()
    health = Health(loop_s=config.liveness)
    watching = Emitter(
        LogSubscriber(logger),
        MetricsSubscriber(
            registry, service="millstream-worker", version=__version__, loop_age_s=health.loop_age_s
        ),
    )
    # What becomes of the spans is told to those who do not make any.
    tracing = open_tracing(config.otlp_endpoint, "millstream-worker", __version__, watching)
    emit = watching if tracing is None else Emitter(watching, tracing)

    def make_log(
        delivery: Delivery,
        queue: str,
        replaying: Callable[[], bool],
        branch: Callable[[], str],
    ) -> Log:
        return RunLogger(
            logger,
            run_id=delivery.run_id,
            workflow=delivery.workflow,
            queue=queue,
            attempt=delivery.attempt,
            replaying=replaying,
            tenant=delivery.tenant,
            branch=branch,
            trace=trace_id_of(delivery.trace),
            step=running_step,
        )

    return Telemetry(emit=emit, make_log=make_log, health=health, registry=registry, traces=tracing)


@asynccontextmanager
async def tools(config: WorkerConfig, emit: Emit, connection: Connection) -> AsyncIterator[Tools]:
    """Open the tools that are declared. The MCP SDK is imported only when there are any."""
    if config.mcp is None:
        yield NoTools()
        return

    from millstream_worker.tools.caller import ToolCaller  # noqa: PLC0415 - costs 40 MB
    from millstream_worker.tools.servers import load_servers  # noqa: PLC0415 - see above

    async with AsyncExitStack() as stack:
        servers = load_servers(config.mcp)
        rooms = None
        if any(spec.limit is not None for spec in servers.values()):
            token = ids.new_process_token(SystemRandom())
            shared = Rooms(connection, token, config.lease, emit=emit)
            rooms = await stack.enter_async_context(shared)
        caller = ToolCaller(servers, emit=emit, rooms=rooms)
        yield await stack.enter_async_context(caller)


@asynccontextmanager
async def inference(
    config: WorkerConfig, emit: Emit, connection: Connection
) -> AsyncIterator[Inference]:
    """Open the models that are declared; without a file, the embedder that needs nothing.

    No library that computes is imported before the first model is needed.
    """
    declared = BUILT_IN if config.models is None else load_models(config.models)
    notices = Notices(connection, ids.new_process_token(SystemRandom()))
    async with InferenceService(declared, emit=emit, notices=notices) as service:
        yield service


def withdrawer(parts: Parts) -> Withdrawer:
    """Return what has agents stop what they do for runs that have ended."""
    return Withdrawer(parts.connection, parts.agents, parts.emit, parts.random)


def schedules(connection: Connection) -> Schedules:
    """Return the schedules of a Redis. Whoever asks does not insist: it asks again itself."""
    # Not opened: nothing here needs its background tasks, and the connection is not its own.
    return Client(connection=connection, patience=0.0).schedules


@runtime_checkable
class Checked(Protocol):
    """A part of a worker that knows whether it is of any use."""

    async def check(self) -> str | None:
        """Return why it is of none."""


def checks(tools: Tools, inference: Inference) -> list[Check]:
    """Return what readiness asks besides Redis and the lease."""
    parts: dict[str, object] = {"tools": tools, "models": inference}
    return [Check(name, part.check) for name, part in parts.items() if isinstance(part, Checked)]


def _answered(health: Health, lease: Lease, refusal: str | None) -> None:
    """Note what Redis answered. A full one answers every read, and refuses the lease."""
    health.checked("lease", None if lease.trusted else "it could not be renewed")
    if refusal is None:
        health.store_answered()
    else:
        health.store_failed(refusal)
