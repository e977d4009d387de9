"""What could be reached if everything were known: the same items, with nobody waiting for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchmarks.batching.model import Forward
from benchmarks.batching.systems import BATCH
from millstream_worker.inference import grouping
from millstream_worker.inference.costs import CostLaw, Law
from millstream_worker.inference.shapes import Shape, padded

Plan = Callable[[Sequence[list[int]]], list[list[list[int]]]]


def fifo(texts: Sequence[list[int]]) -> list[list[list[int]]]:
    """In the order in which they come, always full."""
    return [list(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]


def by_length(texts: Sequence[list[int]]) -> list[list[list[int]]]:
    """All of them sorted at once: no queue ever sees so far."""
    return fifo(sorted(texts, key=len))


def windows(law: Law, size: int = 100) -> Plan:
    """The cheapest cut of every hundred: what a queue of a hundred callers could know."""

    def plan(texts: Sequence[list[int]]) -> list[list[list[int]]]:
        found = []
        caps = grouping.Caps(items=BATCH, tokens=1 << 30, fitting=lambda _: 1 << 30)
        for start in range(0, len(texts), size):
            window = sorted(texts[start : start + size], key=len)
            cuts = grouping.partition([padded(len(x), 8) for x in window], law, caps)
            found += [window[a:b] for a, b in cuts]
        return found

    return plan


def measured_law(forward: Forward) -> Law:
    """Fit the law of the device, on its own."""
    costs = CostLaw()
    quick = forward.device != "cpu"
    for _ in range(4 if quick else 2):
        for items in (1, 2, 4, 8, 16, 24, 32) if quick else (1, 8, 32):
            for longest in (8, 16, 32, 64, 128, 256, 512) if quick else (8, 32, 96, 256):
                batch = [[5] * longest] * items
                began = time.perf_counter()
                forward(batch)
                costs.observe(Shape(items, longest), time.perf_counter() - began)
    return costs.law


def rate(forward: Forward, batches: Sequence[list[list[int]]], seconds: float) -> float:
    """Return tokens a second, computing batches one after the other for about so long."""
    tokens, began = 0, time.perf_counter()
    while True:
        for batch in batches:
            forward(batch)
            tokens += sum(map(len, batch))
            if time.perf_counter() - began > seconds:
                return tokens / (time.perf_counter() - began)
