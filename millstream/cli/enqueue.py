"""``millstream enqueue``: accept a run, and follow it to its end if asked to.

Promise: what is refused left nothing in Redis. A workflow that no living worker of the queue knows
is refused, since its run would wait for nobody; with no worker alive it is accepted, with a remark.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
import typer

from millstream.cli.access import client_of, one_queue, tracing_of
from millstream.cli.exits import Exit
from millstream.cli.expected import expect_a_worker
from millstream.cli.flags import ONE_QUEUE, EnqueueConfig, command
from millstream.cli.hints import again
from millstream.cli.output import Output
from millstream.cli.telling import told
from millstream.client import Run
from millstream.errors import (
    PayloadTooLarge,
    ResultTimeout,
    RunCancelled,
    RunError,
    RunFailed,
    StoreError,
    UsageError,
)
from millstream.model.attributes import pairs
from millstream.model.limits import LIMITS

#: How long the result of a run that has ended may take to be read.
_READ_S = 10.0
#: A file may be written more widely than the JSON that is stored, but not without end.
_FILE_LIMIT = 8 * LIMITS.arguments

Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--arg",
        "-a",
        metavar="NAME=VALUE",
        help="One argument; what reads as JSON is JSON, else a text. May be repeated.",
    ),
]
Json = Annotated[str | None, typer.Option(metavar="JSON", help="All arguments as one JSON object.")]
File = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="The same from a file; - is stdin."),
]
Id = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="Id of the run: also its idempotency key.")
]
Level = Annotated[str, typer.Option(metavar="high|normal|low", help="How soon it is started.")]
Delay = Annotated[float | None, typer.Option(metavar="SECONDS", help="Do not start it before.")]
Tenant = Annotated[str | None, typer.Option(metavar="NAME", help="On whose behalf it runs.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Bound on one attempt's running time.")
]
Version = Annotated[str | None, typer.Option(metavar="VERSION", help="Version of the workflow.")]
Attribute = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="What it can be found by; may be repeated."),
]
WaitTimeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="With --wait: how long at most.")
]
Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Show what it says on the way, then its result.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Enqueue although no worker knows the workflow.")
]
Dedupe = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Within --window, the run of whoever named it first."),
]
Debounce = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Begin when nobody has named it for --window seconds."),
]
Window = Annotated[float | None, typer.Option(metavar="SECONDS", help="Of --dedupe or --debounce.")]
Longest = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="With --debounce: begin so long after the first at most."),
]
LaneKey = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Runs of one key stand in one lane, for limits and turns."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("enqueue")(enqueue)


@command(EnqueueConfig, said=ONE_QUEUE)
async def enqueue(
    *,
    config: EnqueueConfig,
    out: Output,
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.")],
    arg: Pairs = None,
    json_args: Json = None,
    file: File = None,
    id: Id = None,
    priority: Level = "normal",
    delay: Delay = None,
    tenant: Tenant = None,
    timeout: Timeout = None,
    version: Version = None,
    attribute: Attribute = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and print the result.")] = False,
    wait_timeout: WaitTimeout = None,
    watch: Watch = False,
    force: Force = False,
    dedupe: Dedupe = None,
    debounce: Debounce = None,
    window: Window = None,
    longest: Longest = None,
    lane_key: LaneKey = None,
) -> Exit:
    """Enqueue a run; print its id, or with --wait its result."""
    queue = one_queue(config)
    arguments = read_arguments(arg or (), json_args, file)
    async with tracing_of(config) as tracing, client_of(config, tracing=tracing) as client:
        await client.check()
        remark = None if force else await expect_a_worker(client, config, workflow, version)
        if remark is not None:
            out.note(remark)
        run = await client.enqueue(
            workflow,
            arguments,
            id=id,
            queue=queue,
            priority=priority,
            delay=delay,
            tenant=tenant,
            timeout=timeout,
            version=version,
            attributes=pairs(attribute or ()),
            # As build servers and shells hand their trace on.
            trace=os.environ.get("TRACEPARENT"),
            dedupe=dedupe,
            debounce=debounce,
            window=window,
            longest=longest,
            lane_key=lane_key,
        )
        look = again(config, "runs", "show", run.id, queue=queue)
        if not run.created:
            out.note(f"run {run.id!r} was already there; nothing was added")
        if watch:
            return await watched_to_the_end(run, out, look=look)
        if wait:
            return await waited(run, out, wait_timeout, look)
    return _told(run, out)


def read_arguments(pairs: Sequence[str], text: str | None, file: str | None) -> Any:
    """Return the arguments from whichever way they were given. Raises `UsageError`."""
    if (bool(pairs) + (text is not None) + (file is not None)) > 1:
        raise UsageError("give the arguments in one way: --arg, --json-args or --file")
    if text is not None:
        return _parsed(text.encode(), "--json-args")
    if file is not None:
        return _parsed(_read(file), f"--file {file}")

    return dict(_pair(pair) for pair in pairs)


async def waited(
    run: Run, out: Output, timeout: float | None = None, look: str | None = None
) -> Exit:
    """Follow a run to its end and write its result. Raises how it ended, when it ended badly.

    ``look`` is the command that shows the run, for whoever does not wait for it.
    """
    return await _ended(run, out, lambda: _followed(run, out, timeout), look)


async def watched_to_the_end(
    run: Run, out: Output, after: str = "", look: str | None = None
) -> Exit:
    """Write what a run says, and then as `waited`; ``after`` is the id of an event."""

    async def result() -> Any:
        await told(run, out, after)
        return await run.result(_READ_S)

    return await _ended(run, out, result, look)


async def _ended(
    run: Run, out: Output, result_of: Callable[[], Awaitable[Any]], look: str | None = None
) -> Exit:
    try:
        result = await result_of()
    except RunError as error:
        if out.json:
            out.document({**_named(run), **_ending(error)})
        raise
    except anyio.get_cancelled_exc_class():
        out.note(f"run {run.id!r} goes on" + (f"; see: {look}" if look else ""))
        raise

    if out.json:
        out.document({**_named(run), "state": "completed", "result": result})
    else:
        out.document(result)
    return Exit.OK


async def _followed(run: Run, out: Output, timeout: float | None) -> Any:
    result: Any = None
    failure: RunError | StoreError | UsageError | None = None
    with out.waiting(f"run {run.id} in queue {run.queue}") as tell:
        async with anyio.create_task_group() as group:
            group.start_soon(_tell_events, run, tell)
            try:
                result = await run.result(timeout)
            except (RunError, StoreError, UsageError) as error:
                failure = error  # raised in the group it would come out as a group
            group.cancel_scope.cancel()

    if failure is not None:
        raise failure

    return result


async def _tell_events(run: Run, tell: Callable[[str], None]) -> None:
    try:
        async for event in run.events():
            tell(f"{event.name} {msgspec.json.encode(event.data).decode()}")
    except (StoreError, UsageError):
        return  # what is told on the way is a courtesy; the result says what went wrong


def _told(run: Run, out: Output) -> Exit:
    out.document(_named(run)) if out.json else out.say(run.id)
    return Exit.OK


def _named(run: Run) -> dict[str, Any]:
    return {"id": run.id, "queue": run.queue, "created": run.created}


def _ending(error: RunError) -> dict[str, Any]:
    match error:
        case RunFailed():
            return {"state": "failed", "error": {"cause": error.cause, "message": error.reason}}
        case RunCancelled():
            return {"state": "cancelled"}
        case ResultTimeout():
            return {"timed_out": True}
        case _:
            return {"error": {"cause": type(error).__name__, "message": str(error)}}


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--arg {text!r} is not NAME=VALUE")
    try:
        return name, msgspec.json.decode(value.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return name, value


def _parsed(data: bytes, source: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{source} is not JSON: {error}") from error


def _read(file: str) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_FILE_LIMIT + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"cannot read --file {file}: {error.strerror}") from error
    if len(data) > _FILE_LIMIT:
        raise PayloadTooLarge(f"--file {file}", len(data), _FILE_LIMIT)

    return data
