"""What a gateway costs: ``python -m benchmarks.gateway``.

Enqueueing over HTTP beside the plain client, by the processor time that each of them takes for a
run, so that a shared machine says the same; and a thousand open event streams on one gateway: what
they take of memory, what they cost while nothing is said, and how long until all have heard.

The gateway is a process of its own with its defaults but the limits, and asks for an API key.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.catalogue import SYSTEMS
from benchmarks.processes import Child, wait_until
from millstream import Client, Enqueue
from millstream.store import api_keys

LINES = Path(__file__).parent / "results" / "gateway.jsonl"
CALLERS = 100
_LIMITS = (
    "--rate", "1000000", "--enqueue-rate", "1000000", "--streams", "10000",
    "--connections", "20000",
)  # fmt: skip
_START_LIMIT_S = 60.0
_MICRO = 1e6
_BATCH = 100
_IDLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request was answered with."""

    status: int
    body: bytes


class Caller:
    """One connection that is kept: the least that HTTP takes, so that others are measured."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        """Disconnect."""
        self._writer.transport.abort()

    async def post(self, path: str, body: bytes) -> Reply:
        """Send a body and read the answer."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        found = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", found)
        read = await self._reader.readexactly(int(length[1]) if length else 0)
        return Reply(int(found[9:12]), read)

    async def follow(self, run_id: str) -> None:
        """Ask for the events of a run; return once they are promised."""
        head = f"GET /api/v1/runs/{run_id}/events HTTP/1.1\r\nHost: localhost\r\n"
        self._writer.write(f"{head}X-API-Key: {self._key}\r\n\r\n".encode())
        found = await self._reader.readuntil(b"retry: 1000\n\n")
        if not found.startswith(b"HTTP/1.1 200"):
            raise AssertionError(found)

    async def until_end(self) -> bool:
        """Read until the run has ended; whether that was told, or the stream cut before."""
        try:
            await self._reader.readuntil(b"event: end\n")
        except asyncio.IncompleteReadError:
            return False
        return True


@contextlib.contextmanager
def gateway(bench: Bench, name: str) -> Iterator[tuple[Child, int]]:
    """Start a gateway, and return it with its port."""
    command = [
        *(sys.executable, "-m", "millstream.cli", "gateway", "--redis", bench.server.url),
        *("--http", "0", "--grpc", "-1", "--metrics", "-1", "--host", "127.0.0.1", *_LIMITS),
    ]
    root, log = Path(__file__).parents[1], bench.directory / f"{name}.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MILLSTREAM_")}
    with Child(command, log=log, environment=environment, directory=root) as child:
        said = re.compile(r"http on port (\d+)")
        found = wait_until(
            lambda: said.search(log.read_text("utf-8", "replace")), _START_LIMIT_S, "it listens",
            [child],
        )  # fmt: skip
        yield child, int(found[1])


@contextlib.asynccontextmanager
async def callers(port: int, key: str, count: int) -> AsyncIterator[list[Caller]]:
    """Open connections for this block."""
    opened = [Caller(port, key) for _ in range(count)]
    for each in opened:
        await each.open()
    try:
        yield opened
    finally:
        for each in opened:
            each.close()


async def rate(
    child: Child, port: int, key: str, requests: int, *, batch: int = 0
) -> dict[str, float]:
    """Send so many requests from a hundred callers; return what a run took of the gateway."""
    run = {"workflow": "noop"}
    body = json.dumps({"runs": [run] * batch} if batch else run).encode()
    path = "/api/v1/runs/batch" if batch else "/api/v1/runs"

    async def call(caller: Caller, number: int) -> None:
        for _ in range(number):
            reply = await caller.post(path, body)
            if reply.status not in {200, 201}:
                raise AssertionError(reply)

    each = max(1, requests // CALLERS)
    async with callers(port, key, CALLERS) as opened:
        # The first requests find everything for the first time, and are not measured.
        await asyncio.gather(*(call(caller, max(1, each // 10)) for caller in opened))
        began, cpu = time.perf_counter(), child.cpu_s()
        await asyncio.gather(*(call(caller, each) for caller in opened))
        used, took = child.cpu_s() - cpu, time.perf_counter() - began
    count = each * CALLERS * (batch or 1)
    return {"runs": count, "us_a_run": _MICRO * used / count, "runs_a_second": count / took}


async def streams(url: str, child: Child, port: int, key: str, count: int) -> dict[str, float]:
    """Follow so many runs at once, one each, until all have ended."""
    async with Client(url) as client:
        runs = await client.enqueue_many(
            [Enqueue("nobody", id=f"s{n}", delay=1000) for n in range(count)]
        )
        before = child.memory().pss
        async with callers(port, key, count) as opened:
            for caller, run in zip(opened, runs, strict=True):
                await caller.follow(run.id)
            held = child.memory().pss
            cpu = child.fine_cpu_s()
            await asyncio.sleep(_IDLE_S)
            idle = (child.fine_cpu_s() - cpu) / _IDLE_S
            cpu, began = child.fine_cpu_s(), time.perf_counter()
            await client.cancel_many("default", [run.id for run in runs])
            heard = sum(await asyncio.gather(*(caller.until_end() for caller in opened)))
            took, used = time.perf_counter() - began, child.fine_cpu_s() - cpu
    return {
        "streams": count,
        "mib_before": round(before, 1),
        "mib_held": round(held, 1),
        "kib_a_stream": round((held - before) * 1024 / count, 1),
        "idle_cores": round(idle, 4),
        "heard": heard,
        "cut": count - heard,
        "until_all_ended_s": round(took, 3),
        "us_a_stream_to_end": round(_MICRO * used / count, 1),
    }


def plain(bench: Bench, seconds: float) -> dict[str, float]:
    """Enqueue from a hundred callers of one plain client; return what a run took of it."""
    with bench.caller() as caller:
        took = caller.ask(op="one_by_one", job="noop", callers=CALLERS, seconds=seconds)
    count = took["count"]
    return {
        "runs": count,
        "us_a_run": _MICRO * took["cpu_s"] / count,
        "runs_a_second": count / took["seconds"],
    }


async def admin_key(url: str) -> str:
    """Make a key that opens everything."""
    async with Client(url) as client:
        _, text = await api_keys.create(
            client._connection,  # noqa: SLF001 - keys are made by the command line, which is slower to start
            name="bench",
            roles=("admin",),
            tenant=None,
            lasts_s=3600,
        )
    return text


def measure(requests: int, count: int, repeat: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield what was found, each with its name; plain client and gateway by turns."""
    for _ in range(repeat):
        with Bench(SYSTEMS["millstream"]) as bench:
            key = asyncio.run(admin_key(bench.server.url))
            yield "client", plain(bench, requests / 4000)
            with gateway(bench, "requests") as (child, port):
                yield "POST /runs", asyncio.run(rate(child, port, key, requests))
                batched = rate(child, port, key, max(1, requests // 20), batch=_BATCH)
                yield f"POST /runs/batch of {_BATCH}", asyncio.run(batched)
            with gateway(bench, "streams") as (child, port):
                url = bench.server.url
                yield "streams", asyncio.run(streams(url, child, port, key, count))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the lines down."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.gateway")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=LINES)
    given = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))

    lines: list[dict[str, object]] = [{"machine": machine.facts([])}]
    costs: dict[str, list[float]] = {}
    for name, found in measure(given.requests, given.streams, given.repeat):
        lines.append({"measure": name, **found})
        print(json.dumps(lines[-1]), flush=True)
        costs.setdefault(name, []).append(found.get("us_a_run", 0.0))
    middle = {name: sorted(each)[len(each) // 2] for name, each in costs.items() if each[0]}
    for name, cost in middle.items():
        if name != "client":
            lines.append(
                {"measure": f"{name}, beside the client", "ratio": middle["client"] / cost}
            )
            print(json.dumps(lines[-1]), flush=True)
    given.out.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
