"""What happens inside a run gets its place in the trace, from the client to the batch."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from millstream import Client, Context, Enqueue, Workflows
from millstream.events import Event
from millstream.store.connection import Connection
from millstream.telemetry.opening import open_tracing
from millstream_worker import compose
from millstream_worker.config import WorkerConfig
from millstream_worker.embedded import SilentLog
from millstream_worker.inference.declared import BUILT_IN
from millstream_worker.inference.service import InferenceService
from millstream_worker.telling import running_step
from tests.telemetry.collector import Collector, Seen, collecting

pytestmark = pytest.mark.anyio
_names = itertools.count()
app = Workflows()


@app.workflow()
async def embed(ctx: Context, text: str) -> int:
    (vector,) = await ctx.infer("embedder", [text])
    await ctx.sleep(1.0)
    return len(vector)


def in_thread(seen: list[tuple[str, bool]]) -> None:
    seen.append((running_step(), threading.current_thread() is threading.main_thread()))


SEEN: list[tuple[str, bool]] = []


@app.workflow()
async def looks(ctx: Context) -> str:
    async def in_loop() -> str:
        return running_step()

    before = running_step()
    inside = await ctx.step(in_loop, key="a")
    await ctx.step(in_thread, SEEN)
    return f"{before}|{inside}|{running_step()}"


def make_log(*args: Any, **options: Any) -> SilentLog:
    return SilentLog()


async def traced(
    collector: Collector, use: Callable[[Client], Any], name: str
) -> tuple[Any, list[Seen]]:
    """Use a client that traces beside a worker that does; return what came of it, and the spans."""
    events: list[Event] = []
    tracing = open_tracing(collector.url, "both", "1", events.append)
    assert tracing is not None
    url = f"memory://traced-{next(_names)}"
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(InferenceService(BUILT_IN, emit=tracing))
        connection = Connection(url)
        stack.push_async_callback(connection.aclose)
        parts = compose.Parts(
            connection=connection,
            emit=tracing,
            make_log=make_log,
            inference=models,
            traces=tracing,
        )
        worker = await compose.compose(WorkerConfig(park_after=0.0, grace=5.0), app, parts)
        client = await stack.enter_async_context(Client(url, tracing=tracing))
        async with anyio.create_task_group() as group:
            group.start_soon(worker.serve)
            await worker.started.wait()
            answer = await use(client)
            worker.drain.set()
    tracing.close()
    assert all(getattr(event, "outcome", "") == "exported" for event in events), name
    return answer, collector.spans


async def test_runs_that_share_a_batch_are_linked_by_it() -> None:
    """And a run that was parked has a take of its own for each time that it ran."""

    async def use(client: Client) -> list[int]:
        runs = await client.enqueue_many([Enqueue("embed", {"text": f"t{n}"}) for n in range(4)])
        return [await run.result(timeout=20) for run in runs]

    with collecting() as collector:
        answers, spans = await traced(collector, use, "embed")

    assert answers == [512] * 4
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans)
    enqueues = [span for span in spans if span.name == "enqueue embed"]
    assert len({span.trace for span in enqueues}) == 4
    for enqueue in enqueues:
        mine = [span for span in spans if span.trace == enqueue.trace]
        takes = [span for span in mine if span.name == "take embed"]
        assert [span.parent for span in takes] == [enqueue.id] * 2
        states = {x.attributes["millstream.state"] for x in mine if x.name == "run embed"}
        assert states == {"parked", "completed"}
        (step,) = [span for span in mine if span.name == "step embedder"]
        (call,) = [span for span in mine if span.name == "infer embedder"]
        assert call.parent == step.id
        assert by_id[step.parent].name == "take embed"
    linked = [link for span in spans if span.name == "batch embedder" for link in span.links]
    assert sorted(linked) == sorted(x.id for x in spans if x.name == "infer embedder")


async def test_a_caller_that_is_traced_hands_its_context_on() -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def use(client: Client) -> str:
        run = await client.enqueue("looks", trace=caller)
        return str(await run.result(timeout=20))

    SEEN.clear()
    with collecting() as collector:
        answer, spans = await traced(collector, use, "looks")

    assert {span.trace for span in spans} == {caller[3:35]}
    assert answer == "|looks.in_loop:a|"
    assert SEEN == [("in_thread#0", False)]


async def test_a_client_that_does_not_trace_hands_on_what_it_is_given() -> None:
    """And what cannot be read begins a trace anew: no run fails for it."""
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with Client(f"memory://traced-{next(_names)}") as client:
        await client.enqueue("w", id="r1", trace=caller)
        await client.enqueue("w", id="r2", trace="nonsense")
        await client.enqueue("w", id="r3")

        lane = "millstream:{default:0}:run:"
        found = [await client._connection.client.hget(f"{lane}r{n}", "trace") for n in (1, 2, 3)]
    assert found == [caller.encode(), None, None]
