"""The process that calls a system: ``python -m benchmarks.caller NAME``, in its environment.

It reads questions as lines of JSON and answers each with one, so that enqueueing and latency are
measured by the same code for all. It needs the standard library alone, and uvloop where there is
one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.systems import Adapter

#: So many are handed to a system in one call.
_BULK = 10_000
#: Where many are enqueued, the first of them open the connections, and are not measured.
_WARM, _MANY = 500, 2_000


async def one_by_one(adapter: Adapter, *, job: str, callers: int, seconds: float) -> Any:
    """Let callers enqueue one job after the other for some seconds; all are connected before."""
    if adapter.blocking:
        return await asyncio.to_thread(_in_threads, adapter, job, callers, seconds)

    await asyncio.gather(*(adapter.enqueue(job) for _ in range(callers)))
    count = 0
    end = time.perf_counter() + seconds

    async def call() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await adapter.enqueue(job)
            count += 1

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call() for _ in range(callers)))
    return _answer(count, began, cpu)


async def bulk(adapter: Adapter, *, job: str, count: int) -> Any:
    """Enqueue many in the way that the system has for many."""
    warm = _WARM if count >= _MANY else 0
    await adapter.enqueue_many(job, warm)
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(warm, count, _BULK):
        await adapter.enqueue_many(job, min(_BULK, count - first))
    return _answer(count - warm, began, cpu)


async def latency(
    adapter: Adapter, *, job: str, samples: int, seconds: float, pause: float
) -> list[float]:
    """Return how many milliseconds pass from an enqueue to its result, one at a time."""
    took: list[float] = []
    await adapter.result(await adapter.enqueue(job))
    end = time.perf_counter() + seconds
    while len(took) < samples and time.perf_counter() < end:
        await asyncio.sleep(pause)
        began = time.perf_counter()
        await adapter.result(await adapter.enqueue(job))
        took.append(1000 * (time.perf_counter() - began))
    return took


OPERATIONS: dict[str, Callable[..., Awaitable[Any]]] = {
    "one_by_one": one_by_one,
    "bulk": bulk,
    "latency": latency,
}


def _in_threads(adapter: Adapter, job: str, callers: int, seconds: float) -> Any:
    """Do the same for a system whose calls block."""
    counts = [0] * callers
    # A connection is a thread's own or comes from a pool: each thread makes one call first.
    connected = threading.Barrier(callers + 1)
    end = float("inf")

    def call(place: int) -> None:
        adapter.enqueue_now(job)
        connected.wait()
        connected.wait()
        while time.perf_counter() < end:
            adapter.enqueue_now(job)
            counts[place] += 1

    threads = [threading.Thread(target=call, args=(n,)) for n in range(callers)]
    for thread in threads:
        thread.start()
    connected.wait()
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds
    connected.wait()
    for thread in threads:
        thread.join()
    return _answer(sum(counts), began, cpu)


def _answer(count: int, began: float, cpu: float) -> dict[str, float]:
    return {
        "count": count,
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
    }


async def serve(name: str) -> None:
    """Answer questions until the input ends."""
    adapter: Adapter = importlib.import_module(f"benchmarks.systems.{name}").ADAPTER()
    await adapter.open()
    _say({"ready": name})
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            question = json.loads(line)
            operation = OPERATIONS[question.pop("op")]
            try:
                _say(await operation(adapter, **question))
            except Exception as error:  # noqa: BLE001 - told to the benchmark, which ends it
                _say({"error": f"{type(error).__name__}: {error}"})
    finally:
        await adapter.close()


def _say(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Serve on the quickest loop that is installed."""
    factory = None
    with contextlib.suppress(ImportError):
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(sys.argv[1]))


if __name__ == "__main__":
    main()
