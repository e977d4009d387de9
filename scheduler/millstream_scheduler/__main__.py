"""Start a scheduler: ``millstream scheduler``, or ``python -m millstream_scheduler``."""

from __future__ import annotations

import os
import sys

import anyio

from millstream.errors import StoreError
from millstream.store.connection import Connection
from millstream.store.sealing import sealer_of
from millstream.telemetry.probes import Probes
from millstream_scheduler import compose
from millstream_scheduler.config import SchedulerConfig
from millstream_scheduler.serve import drain_on_signal


def run(config: SchedulerConfig) -> None:
    """Look after the queues until a signal comes."""
    anyio.run(serve, config, backend_options={"use_uvloop": sys.platform != "win32"})


async def serve(config: SchedulerConfig) -> None:
    """Look after the queues, with probes and metrics, until a signal comes."""
    connection = Connection(config.redis, sealer=sealer_of(config.seal_keys))
    watched = compose.telemetry(config)
    known = compose.readings(config)
    probes = Probes(
        watched.health,
        watched.registry,
        http_port=_port(config.http),
        metrics_port=_port(config.metrics),
        host=config.host,
    )
    try:
        async with compose.metrics_api(config, known, watched.emit, os.environ) as api_port:
            with probes:
                _say_ports(probes, api_port)
                parts = compose.Parts(
                    connection=connection,
                    emit=watched.emit,
                    health=watched.health,
                    readings=known,
                )
                scheduler = compose.compose(config, parts)
                async with anyio.create_task_group() as group:
                    group.start_soon(drain_on_signal, scheduler)
                    group.start_soon(_refuse_unfit, connection)
                    await scheduler.serve()
                    group.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(2, shield=True):
            await connection.aclose()


async def _refuse_unfit(connection: Connection) -> None:
    """Raise `UnfitStore` for a Redis that can never do, as soon as it can be asked."""
    while True:
        try:
            await connection.check()
        except StoreError:
            await anyio.sleep(1.0)  # the election tells of it
        else:
            return


def _say_ports(probes: Probes, api_port: int | None) -> None:
    ports = (
        ("health", probes.http_port),
        ("metrics", probes.metrics_port),
        ("metrics API", api_port),
    )
    for name, port in ports:
        if port is not None:
            print(f"{name} on port {port}", file=sys.stderr, flush=True)  # noqa: T201 - for people


def _port(number: int) -> int | None:
    return None if number < 0 else number


def main() -> None:
    """Hand over to the command line, which is the one place where flags are read."""
    from millstream.cli import main as cli  # noqa: PLC0415 - the roof imports its processes

    sys.argv[1:1] = ["scheduler"]
    cli()


if __name__ == "__main__":
    main()
