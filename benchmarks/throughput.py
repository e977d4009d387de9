"""Measure one worker process on a private Redis without persistence.

    python -m benchmarks.throughput [--runs N] [--repeat N]

Prints one JSON line a measure: the median, the least and the most of the repetitions. The worker
runs as in production: leases, metrics, probes, JSON logs (at WARNING, unless --log-level says
otherwise).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import redis.asyncio

from millstream import Client, Enqueue

_ROOT = Path(__file__).parent.parent
Measure = Callable[[Client, int], Awaitable[float]]


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    """Start a Redis on a free port, in a directory of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        server = subprocess.Popen(
            [*command, "--appendonly", "no", "--dir", directory, "--loglevel", "warning"],
            stdout=subprocess.DEVNULL,
        )
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait(timeout=10)


@contextlib.contextmanager
def worker(url: str, log_level: str) -> Iterator[None]:
    """Start a worker process."""
    command = [sys.executable, "-m", "millstream_worker", "benchmarks.flows:app"]
    flags = ["--redis", url, "--http", "0", "--metrics", "0", "--host", "127.0.0.1"]
    environment = os.environ | {"MILLSTREAM_LOG_LEVEL": log_level}
    process = subprocess.Popen(
        [*command, *flags], cwd=_ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


async def bulk(client: Client, count: int) -> float:
    """Enqueue in bulk, nothing else: runs a second."""
    began = time.perf_counter()
    await client.enqueue_many([Enqueue("noop", queue="parking") for _ in range(count)])
    return count / (time.perf_counter() - began)


async def one_by_one(client: Client, count: int) -> float:
    """Enqueue one at a time from a hundred callers: runs a second."""

    async def call() -> None:
        for _ in range(count // 100):
            await client.enqueue("noop", queue="parking")

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(call)
    return count / (time.perf_counter() - began)


def drain(workflow: str, share: int) -> Measure:
    """Measure enqueueing in bulk and running to the end: runs a second."""

    async def measure(client: Client, count: int) -> float:
        number = count // share
        began = time.perf_counter()
        await client.enqueue_many([Enqueue(workflow) for _ in range(number)])
        while True:
            depth = await client.depth()
            if not depth.waiting and not depth.running:
                return number / (time.perf_counter() - began)
            await anyio.sleep(0.01)

    return measure


async def latency(client: Client, count: int) -> float:
    """Enqueue one run and await its result, at low load: median milliseconds."""
    del count
    took = []
    for _ in range(200):
        began = time.perf_counter()
        await (await client.enqueue("noop")).result(10)
        took.append(1000 * (time.perf_counter() - began))
        await anyio.sleep(0.002)
    return statistics.median(took)


MEASURES: dict[str, Measure] = {
    "enqueue in bulk, runs/s": bulk,
    "enqueue one by one, 100 callers, runs/s": one_by_one,
    "drain of no-op runs, runs/s": drain("noop", 1),
    "drain of runs with 5 recorded steps, runs/s": drain("five_steps", 5),
    "drain of runs that wait 50 ms, runs/s": drain("waits", 10),
    "latency enqueue to result, ms": latency,
}


async def measure_all(url: str, runs: int, repeat: int) -> dict[str, list[float]]:
    """Run every measure in turn, several times over."""
    values: dict[str, list[float]] = {name: [] for name in MEASURES}
    server = redis.asyncio.from_url(url)
    async with Client(url, patience=30) as client:
        await (await client.enqueue("noop")).result(30)
        for _ in range(repeat):
            for name, measure in MEASURES.items():
                values[name].append(await measure(client, runs))
                await server.delete(*[key async for key in server.scan_iter("*{parking:0}*")])
    await server.aclose()
    return values


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--log-level", default="WARNING")
    given = parser.parse_args()
    with private_redis() as url, worker(url, given.log_level):
        options: dict[str, Any] = {"use_uvloop": True}
        values = anyio.run(measure_all, url, given.runs, given.repeat, backend_options=options)

    for name, found in values.items():
        row = {
            "measure": name,
            "median": round(statistics.median(found), 2),
            "min": round(min(found), 2),
            "max": round(max(found), 2),
            "n": len(found),
            "python": platform.python_version(),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
