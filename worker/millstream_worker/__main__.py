"""Start a worker: ``millstream worker APP``, or ``python -m millstream_worker APP``."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from pathlib import Path

import anyio
import anyio.lowlevel

from millstream.builtin import with_builtin
from millstream.errors import StoreUnavailable
from millstream.events import StoreFailed
from millstream.store.connection import Connection
from millstream.store.sealing import sealer_of
from millstream.telemetry.checks import check_forever
from millstream.telemetry.probes import Probes
from millstream.workflow import Workflows
from millstream_worker import compose
from millstream_worker.agents.opening import open_agents
from millstream_worker.config import WorkerConfig
from millstream_worker.described import publish_forever
from millstream_worker.loader import load
from millstream_worker.registrar import apply_schedules
from millstream_worker.serve import drain_on_signal


def run(config: WorkerConfig, target: str | None, directory: Path) -> None:
    """Serve the workflows of an application, and those that are built in, until a signal comes."""
    workflows = with_builtin(None if target is None else load(target, directory))
    try:
        anyio.run(serve, config, workflows, backend_options={"use_uvloop": sys.platform != "win32"})
    except Exception as error:
        if _threads_hang():
            from millstream.cli import failures  # noqa: PLC0415 - see `main`

            _exit_at_once(failures.tell(error))
        raise
    if _threads_hang():
        # Its run was released and goes on elsewhere: do not wait for it.
        _exit_at_once()


async def serve(config: WorkerConfig, workflows: Workflows) -> None:
    """Serve workflows with probes and metrics until a signal comes."""
    connection = Connection(config.redis, sealer=sealer_of(config.seal_keys))
    watched = compose.telemetry(config)
    probes = Probes(
        watched.health,
        watched.registry,
        http_port=_port(config.http),
        metrics_port=_port(config.metrics),
        host=config.host,
    )
    stuck = False
    try:
        # The servers' file is read first: what is wrong with it ends the process in one line.
        async with (
            compose.tools(config, watched.emit, connection) as tools,
            open_agents(config.agents, watched.emit) as agents,
            compose.inference(config, watched.emit, connection) as inference,
        ):
            with probes:
                _say_ports(probes)
                if not await _until_fit(connection, watched):
                    return
                parts = compose.Parts(
                    connection=connection,
                    emit=watched.emit,
                    make_log=watched.make_log,
                    tools=tools,
                    agents=agents,
                    inference=inference,
                    health=watched.health,
                    traces=watched.traces,
                )
                worker = await compose.compose(config, workflows, parts)
                _settle_heap()
                async with anyio.create_task_group() as group:
                    group.start_soon(drain_on_signal, worker)
                    group.start_soon(_beat, watched)
                    group.start_soon(
                        publish_forever, connection, config.queue, workflows, watched.emit
                    )
                    withdrawer = compose.withdrawer(parts)
                    group.start_soon(withdrawer.withdraw_forever, config.queue)
                    schedules = compose.schedules(connection)
                    group.start_soon(apply_schedules, schedules, workflows, watched.emit)
                    group.start_soon(
                        check_forever, watched.health, compose.checks(tools, inference)
                    )
                    await worker.serve()
                    group.cancel_scope.cancel()
                stuck = worker.stuck
    finally:
        with anyio.move_on_after(2, shield=True):
            await connection.aclose()
        if watched.traces is not None:
            watched.traces.close()
    if stuck:
        # A workflow swallows every cancellation, and the loop would not close before it ends.
        await anyio.lowlevel.checkpoint()  # for the last line of the log
        _exit_at_once()


async def _until_fit(connection: Connection, watched: compose.Telemetry) -> bool:
    """Wait for Redis as long as it takes; refuse at once one that can never do.

    Returns False when a signal came first. The first process of a container would not even end
    by itself: the kernel keeps from it every signal that it does not ask for.
    """
    fit = False
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_on_signal, group.cancel_scope)
        group.start_soon(_beat, watched)
        while not fit:
            try:
                await connection.check()
                fit = True
            except StoreUnavailable as error:
                watched.health.store_failed(str(error))
                watched.emit(StoreFailed(during="start", error=str(error)))
                await anyio.sleep(1.0)
        group.cancel_scope.cancel()
    return fit


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


async def _beat(watched: compose.Telemetry) -> None:
    """Show that the loop turns, whatever it waits for: Redis away is no reason to be killed."""
    while True:
        watched.health.loop_turned()
        await anyio.sleep(0.2)


def _threads_hang() -> bool:
    """Whether a step is still in a thread, which Python would wait for before it ends."""
    return any(not thread.daemon for thread in threading.enumerate()[1:])


def _exit_at_once(code: int = 0) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _settle_heap() -> None:
    """Take what was imported out of the reach of the garbage collector.

    It stays until the end, and looking through it again and again costs a busy worker an eighth
    of its time. What a run leaves behind is found as before, a little later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _say_ports(probes: Probes) -> None:
    for name, port in (("health", probes.http_port), ("metrics", probes.metrics_port)):
        if port is not None:
            print(f"{name} on port {port}", file=sys.stderr, flush=True)  # noqa: T201 - for people


def _port(number: int) -> int | None:
    return None if number < 0 else number


def main() -> None:
    """Hand over to the command line, which is the one place where flags are read."""
    from millstream.cli import main as cli  # noqa: PLC0415 - the roof imports its processes

    sys.argv[1:1] = ["worker"]
    cli()


if __name__ == "__main__":
    main()
