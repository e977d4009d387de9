"""Bytes predicted and observed on the host: what torch's allocator gave out while a batch ran.

Its profiler hears of every allocation, those within a kernel included. That costs more than the
batch: it is for measuring the law, not for running by it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.batching import generation
from benchmarks.batching.model import Forward
from benchmarks.batching.systems import service_of
from benchmarks.batching.workload import inputs
from millstream.events import BatchRan, Event, SlotsAdvanced
from millstream.model.inference import CallOptions
from millstream_worker.inference.engine import Engine, NoMemory
from millstream_worker.inference.monitors.host import HostMonitor
from millstream_worker.inference.unit import Device

CALLERS, TEXTS = 100, 2000
#: Texts that are written, all asked for at once.
WRITTEN = 120
#: Batches after which the law counts as learned.
WARM = 20


class ProfiledMemory(NoMemory):
    """The allocator of torch on the host, while a batch runs."""

    def __init__(self) -> None:
        self._profile: Any = None

    def begin(self) -> None:
        import torch.autograd.profiler  # noqa: PLC0415 - comes with the model

        self._profile = torch.autograd.profiler.profile(profile_memory=True, use_kineto=True)
        self._profile.__enter__()

    def peak(self) -> int | None:
        """Return the highest sum of what was given out and not yet given back."""
        self._profile.__exit__(None, None, None)
        events = [x for x in self._profile.kineto_results.events() if x.name() == "[memory]"]
        held = highest = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            held += event.nbytes()
            highest = max(highest, held)
        return highest


async def measure(forward: Forward, say: Callable[..., None]) -> None:
    """Have a hundred callers ask for mixed lengths, and hold the law against each batch."""
    if forward.device != "cpu":
        return  # its own allocator is asked there
    events: list[Event] = []
    texts = inputs("mixed", TEXTS, 5)
    random = Random(5)
    random.shuffle(texts)
    options = CallOptions(dedupe=False)

    async with service_of(forward, events, memory=ProfiledMemory) as service:
        service.attend(lambda: CALLERS)

        async def caller(number: int) -> None:
            for text in texts[number::CALLERS]:
                await service.infer("m", [text], options, run=str(number))

        await asyncio.gather(*(caller(n) for n in range(CALLERS)))
    _tell(say, "batches", [x for x in events if isinstance(x, BatchRan)])
    _tell(say, "texts", await _texts())


async def _texts() -> list[SlotsAdvanced]:
    """Have texts written, and return what was seen of each token."""
    events: list[Event] = []
    device = Device(
        name="cpu",
        uuid="cpu",
        monitor=HostMonitor(),
        start=lambda backend, _spec: Engine("cpu", backend, ProfiledMemory),
    )
    with tempfile.TemporaryDirectory() as folder:
        generation.model_of("cpu").save_pretrained(folder)
        opened = generation.ours(Path(folder), "cpu", events=events, device=device)
        async with opened as ask:
            await asyncio.gather(*(ask(call) for call in generation.calls(WRITTEN, seed=6)))
    return [x for x in events if isinstance(x, SlotsAdvanced)]


def _tell(
    say: Callable[..., None], what: str, seen: Sequence[BatchRan] | Sequence[SlotsAdvanced]
) -> None:
    measured = [x for x in seen[WARM:] if x.observed and x.predicted]
    ratios = sorted((x.observed or 0) / x.predicted for x in measured)
    say(
        measure="bytes", of=what, on="host", count=len(ratios),
        observed_over_predicted={
            "p1": round(ratios[len(ratios) // 100], 3),
            "p50": round(ratios[len(ratios) // 2], 3),
            "p99": round(ratios[int(0.99 * len(ratios))], 3),
            "most": round(ratios[-1], 3),
        },
    )  # fmt: skip
