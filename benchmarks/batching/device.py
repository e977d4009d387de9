"""What only a real device can show: its driver's numbers, and bytes predicted and observed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any

from benchmarks.batching.model import Forward
from benchmarks.batching.systems import service_of
from benchmarks.batching.workload import inputs
from millstream.events import BatchRan, DeviceRanOut, Event
from millstream.model.inference import CallOptions
from millstream_worker.inference import devices
from millstream_worker.inference.monitors import cuda, nvml

Say = Callable[..., None]


async def check(forward: Forward, say: Say) -> None:
    """Check the monitors, the law of bytes, and memory that really runs out."""
    if forward.device == "cpu":
        say(measure="device", skipped="no device: --device cuda")
        return
    _monitors(forward, say)
    await _bytes(forward, say)
    await _tight(forward, say)
    await _runs_out(forward, say)


def _monitors(forward: Forward, say: Say) -> None:
    torch = forward.torch
    found = devices.visible()
    uuid = cuda.uuid_of(forward.device)
    driver = nvml.NvmlMonitor(uuid)
    before, by_torch = driver.read(), cuda.TorchMonitor(forward.device).read()
    size = 1 << 30
    held = torch.empty(size, dtype=torch.uint8, device=forward.device)
    torch.cuda.synchronize()
    after = driver.read()
    memory = cuda.TorchMemory(forward.device)
    memory.begin()
    extra = torch.empty(size // 4, dtype=torch.uint8, device=forward.device)
    peak = memory.peak()
    del held, extra
    memory.release()
    released = driver.read()
    say(
        measure="monitor",
        devices=[x.uuid for x in found],
        maps=any(x.uuid == uuid for x in found),
        usable=before.usable,
        used=before.used,
        torch_usable=by_torch.usable,
        torch_used=by_torch.used,
        a_gib_more=round((after.used - before.used) / size, 3),
        given_back=round((after.used - released.used) / size, 3),
        peak_of_a_quarter=round((peak or 0) / size, 3),
    )


async def _bytes(forward: Forward, say: Say) -> None:
    """Mixed lengths; after the warm-up no batch takes more than was predicted."""
    events: list[Event] = []
    random = Random(5)
    texts = inputs("mixed", 3000, 5)
    async with service_of(forward, events) as service:
        service.attend(lambda: 100)
        await _closed(service, texts, random)
    batches = [x for x in events if isinstance(x, BatchRan)]
    ratios = sorted(x.observed / x.predicted for x in batches[50:] if x.observed)
    say(
        measure="bytes",
        batches=len(batches),
        observed_over_predicted={
            "p50": round(ratios[len(ratios) // 2], 3),
            "p99": round(ratios[int(0.99 * len(ratios))], 3),
            "most": round(ratios[-1], 3),
        },
    )


async def _tight(forward: Forward, say: Say) -> None:
    """A budget so small that it forms the batches: total use never goes above it."""
    torch = forward.torch
    uuid = cuda.uuid_of(forward.device)
    driver = nvml.NvmlMonitor(uuid)
    torch.cuda.empty_cache()
    now = driver.read()
    # Room for a few hundred MiB beyond what the model and the runtime hold already.
    fraction = (now.used + 400 * 2**20) / now.usable
    highest, ended = 0, False

    def watch() -> None:
        nonlocal highest
        while not ended:
            highest = max(highest, driver.read().used)
            time.sleep(0.005)

    events: list[Event] = []
    watcher = asyncio.get_running_loop().run_in_executor(None, watch)
    texts = [[7] * n for n in (512, 480, 400, 512) for _ in range(400)]
    async with service_of(forward, events, fraction=fraction) as service:
        service.attend(lambda: 100)
        failed = await _closed(service, texts, Random(6))
    ended = True
    await watcher
    batches = [x for x in events if isinstance(x, BatchRan)]
    say(
        measure="tight budget",
        ceiling=int(fraction * now.usable),
        highest=highest,
        within=highest <= int(fraction * now.usable),
        use_of_room=round((highest - now.used) / (400 * 2**20), 3),
        items=len(texts),
        failed=failed,
        largest_batch=max(x.items for x in batches),
        ran_out=sum(isinstance(x, DeviceRanOut) for x in events),
    )


async def _runs_out(forward: Forward, say: Say) -> None:
    """The allocator refuses for real, at a limit that the budget does not know of."""
    torch = forward.torch
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(forward.device).total_memory
    held = torch.cuda.memory_reserved(forward.device)
    torch.cuda.set_per_process_memory_fraction((held + 60 * 2**20) / total, forward.device)
    events: list[Event] = []
    texts = [[7] * n for n in (512, 64, 256, 500) for _ in range(200)]
    try:
        # The account of ours would lift the limit: it knows a better one.
        async with service_of(forward, events, memory=lambda: _Limited(forward.device)) as service:
            service.attend(lambda: 100)
            failed = await _closed(service, texts, Random(8))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, forward.device)
    batches = [x for x in events if isinstance(x, BatchRan)]
    ran_out = [n for n, x in enumerate(batches) if x.fault == "memory"]
    say(
        measure="runs out",
        items=len(texts),
        failed=failed,
        batches=len(batches),
        ran_out=len(ran_out),
        last_at_batch=max(ran_out, default=-1),
    )


class _Limited(cuda.TorchMemory):
    """An account that leaves the allocator the limit that it has."""

    def limit(self, size: int | None) -> None:
        """Do nothing."""


async def _closed(service: Any, texts: list[list[int]], random: Random) -> int:
    """Have a hundred callers ask for all of them; return how many failed."""
    order = list(range(len(texts)))
    random.shuffle(order)
    options = CallOptions(dedupe=False)
    failed = 0

    async def caller(number: int) -> None:
        nonlocal failed
        for index in order[number::100]:
            try:
                await service.infer("m", [texts[index]], options, run=str(number))
            except Exception:  # noqa: BLE001 - counted
                failed += 1

    await asyncio.gather(*(caller(n) for n in range(100)))
    return failed
