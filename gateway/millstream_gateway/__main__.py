"""Start a gateway: ``millstream gateway``, or ``python -m millstream_gateway``."""

from __future__ import annotations

import sys

import anyio

from millstream.client import Client
from millstream.errors import ConfigError, StoreError
from millstream.events import StoreFailed
from millstream.store.connection import Connection
from millstream.store.sealing import sealer_of
from millstream.telemetry.probes import Probes
from millstream_gateway import compose
from millstream_gateway.config import GatewayConfig
from millstream_gateway.serve import Gateway, drain_on_signal


def run(config: GatewayConfig) -> None:
    """Answer requests until a signal comes."""
    anyio.run(serve, config, backend_options={"use_uvloop": sys.platform != "win32"})


async def serve(config: GatewayConfig) -> None:
    """Answer requests, with metrics, until a signal comes."""
    connection = Connection(config.redis, sealer=sealer_of(config.seal_keys))
    watched = compose.telemetry(config)
    metrics = Probes(
        watched.health,
        watched.registry,
        http_port=None if config.probes < 0 else config.probes,
        metrics_port=None if config.metrics < 0 else config.metrics,
        host=config.host,
        http_flag="--probes",
    )
    # The client closes the connection: the last to leave.
    async with Client(connection=connection, patience=config.patience) as client:
        with metrics:
            parts = compose.Parts(
                connection=connection, client=client, emit=watched.emit, health=watched.health
            )
            gateway = compose.compose(config, parts)
            async with anyio.create_task_group() as group:
                group.start_soon(drain_on_signal, gateway)
                group.start_soon(_refuse_unknown, config, connection, watched)
                group.start_soon(_say_ports, gateway, metrics)
                await gateway.serve()
                group.cancel_scope.cancel()


async def _refuse_unknown(
    config: GatewayConfig, connection: Connection, watched: compose.Telemetry
) -> None:
    """Raise `ConfigError` when nobody could call, as soon as the store can be asked for keys."""
    while True:
        try:
            known = await compose.somebody_known(config, connection)
        except StoreError as error:
            watched.emit(StoreFailed(during="start", error=f"{type(error).__name__}: {error}"))
            await anyio.sleep(1.0)
            continue
        if not known:
            raise ConfigError(
                "nobody could call this gateway: make a key (millstream keys create), or name an"
                " identity provider (--jwt-keys, --jwt-issuer, --jwt-audience); to try things out"
                " on this machine alone: --insecure-open --host 127.0.0.1"
            )
        return


async def _say_ports(gateway: Gateway, metrics: Probes) -> None:
    await gateway.started.wait()
    grpc = None if gateway.grpc is None else gateway.grpc.port
    ports = {
        "https" if gateway.secure else "http": gateway.port,
        "grpc": grpc,
        "probes": metrics.http_port,
        "metrics": metrics.metrics_port,
    }
    for name, port in ports.items():
        if port is not None:
            print(f"{name} on port {port}", file=sys.stderr, flush=True)  # noqa: T201 - for people


def main() -> None:
    """Hand over to the command line, which is the one place where flags are read."""
    from millstream.cli import main as cli  # noqa: PLC0415 - the roof imports its processes

    sys.argv[1:1] = ["gateway"]
    cli()


if __name__ == "__main__":
    main()
