"""``millstream dev``: an application served on a Redis of its own, for trying things out.

Promise: nothing but the flag ``--redis`` leads it to a Redis that others use; an address that
stands in the environment or in a file for production is not touched. What was enqueued is gone
when it ends.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from millstream.cli.enqueue import File, Json, Pairs, read_arguments, waited
from millstream.cli.exits import Exit
from millstream.cli.extras import part_of
from millstream.cli.failures import tell
from millstream.cli.flags import ClientConfig, Given, command
from millstream.cli.hints import again, without_password
from millstream.cli.output import Output
from millstream.cli.samples import flags_for
from millstream.cli.worker import App
from millstream.client import Client
from millstream.errors import MillstreamError, UnknownWorkflow, UsageError
from millstream.store.addresses import StoreKind, parse_address
from millstream.store.connection import Connection
from millstream.store.local_server import LocalServer, local_server
from millstream.store.sealing import sealer_of
from millstream.workflow import Workflows
from millstream_scheduler.config import SchedulerConfig
from millstream_worker.config import WorkerConfig

#: What a store is called that no other process can reach.
_INSIDE = "a store inside this process"
#: And one that others have, and keep.
_THEIRS = "your Redis"
#: What is not as for a worker in production.
_OTHERWISE = {
    "redis": "Address of a Redis to use instead of one of its own.",
    "http": "Port of the health probes; by default none.",
    "metrics": "Port of the Prometheus metrics; by default none.",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("dev")(dev)


@command(WorkerConfig, said=_OTHERWISE)
def dev(
    *,
    given: Given,
    out: Output,
    app: App,
    enqueue: Annotated[
        str | None, typer.Option("--enqueue", metavar="WORKFLOW", help="Run this once it serves.")
    ] = None,
    arg: Pairs = None,
    json_args: Json = None,
    file: File = None,
    once: Annotated[
        bool, typer.Option("--once", help="End with the run of --enqueue, and as it ended.")
    ] = False,
) -> Exit:
    """Serve an application on a Redis of its own, and print the address of that.

    Takes the settings of a worker; without --redis it uses no Redis but its own.
    """
    if enqueue is None and (arg or json_args is not None or file is not None or once):
        raise UsageError("arguments and --once belong to --enqueue WORKFLOW")

    arguments = read_arguments(arg or (), json_args, file)
    loader = part_of("worker", "millstream_worker.loader")
    part_of("worker", "millstream_worker.__main__")
    workflows = loader.load(app, Path.cwd())
    if enqueue is not None and workflows.find(enqueue) is None:
        raise UnknownWorkflow(enqueue, None, ", ".join(map(str, workflows)))

    with _server(given) as server:
        ours = {"redis": server.url, **_defaults(given, out)}
        config = given.resolved(WorkerConfig, **ours)
        scheduling = given.resolved(SchedulerConfig, **ours)
        stage = _Stage(config, scheduling, workflows, replace(out, stream=out.json))
        stage.announce(server, lasts=not once or server.program == _THEIRS)
        return anyio.run(stage.play, enqueue, arguments, once)


class _Stage:
    """A worker, a scheduler and whoever tries them, in one process."""

    def __init__(
        self, config: WorkerConfig, scheduling: SchedulerConfig, workflows: Workflows, out: Output
    ) -> None:
        self._config = config
        self._scheduling = scheduling
        self._workflows = workflows
        self._out = out
        self._exit = Exit.OK

    def announce(self, server: LocalServer, *, lasts: bool) -> None:
        """Say where it is, and, if it lasts, what can be done with it."""
        names = [str(workflow) for workflow in self._workflows]
        if self._out.json:
            self._out.document({"event": "serving", "redis": server.url, "workflows": names})
            return

        shown = without_password(server.url)
        self._out.say(f"serving {', '.join(names)} on {server.program} at {shown}")
        if lasts and server.program != _INSIDE:
            self._out.say(f"try: {self._example(server.url)}")

    def _example(self, url: str) -> str:
        """Return a line that runs one of the workflows when it is pasted."""
        asked = ClientConfig(redis=url, queue=self._config.queue)
        for workflow in self._workflows:
            flags = flags_for(workflow)
            if flags is not None:
                words = ["enqueue", workflow.name, *filter(None, [flags]), "--wait"]
                return again(asked, *words, queue=self._config.queue[0])

        first = next(iter(self._workflows)).name
        return again(asked, "enqueue", first, "--json-args", "JSON", "--wait")

    async def play(self, workflow: str | None, arguments: Any, once: bool) -> Exit:
        """Serve until a signal comes, or until the run has ended when that is all."""
        serve = part_of("worker", "millstream_worker.__main__").serve
        async with anyio.create_task_group() as group:
            group.start_soon(self._schedule)
            if workflow is not None:
                group.start_soon(self._try, workflow, arguments, once)
            await serve(self._config, self._workflows)
            group.cancel_scope.cancel()

        return self._exit if once else Exit.OK

    async def _schedule(self) -> None:
        # Put together here: the process of a scheduler would take the signals from the worker.
        compose = part_of("scheduler", "millstream_scheduler.compose")
        watched = compose.telemetry(self._scheduling)
        sealer = sealer_of(self._scheduling.seal_keys)
        connection = Connection(self._scheduling.redis, sealer=sealer)
        try:
            parts = compose.Parts(connection=connection, emit=watched.emit, health=watched.health)
            await compose.compose(self._scheduling, parts).serve()
        finally:
            with anyio.move_on_after(2, shield=True):
                await connection.aclose()

    async def _try(self, workflow: str, arguments: Any, once: bool) -> None:
        queue = self._config.queue[0]
        try:
            async with Client(self._config.redis, seal_keys=self._config.seal_keys) as client:
                await _until_served(client, queue)
                run = await client.enqueue(workflow, arguments, queue=queue)
                self._exit = await waited(run, self._out)
        except MillstreamError as error:
            self._exit = Exit(tell(error))
        if once:
            # The way that a worker is stopped: it drains, and nothing is left half done.
            signal.raise_signal(signal.SIGTERM)


async def _until_served(client: Client, queue: str) -> None:
    while not await client.agents(queue):
        await anyio.sleep(0.02)


@contextlib.contextmanager
def _server(given: Given) -> Iterator[LocalServer]:
    url = given.flags.get("redis")
    if url is not None:
        inside = parse_address(url).kind is StoreKind.MEMORY
        yield LocalServer(url, _INSIDE if inside else _THEIRS)
        return

    with local_server() as server:
        yield server


def _defaults(given: Given, out: Output) -> dict[str, Any]:
    """Return what is other than for a worker in production, where no flag says anything."""
    wanted = {
        "http": "-1",
        "metrics": "-1",
        "log_format": "json" if out.json or not sys.stderr.isatty() else "console",
    }
    return {name: value for name, value in wanted.items() if name not in given.flags}
