"""What is asked: lengths by distribution, and callers that ask again once they are answered."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

Call = Callable[[list[int], int], Awaitable[float]]


def lengths(kind: str, count: int, seed: int = 1) -> list[int]:
    """Return lengths in tokens."""
    random = Random(seed)
    match kind:
        case "mixed":
            drawn = (random.lognormvariate(math.log(48), 0.7) for _ in range(count))
            return [min(512, max(8, round(x))) for x in drawn]
        case "bimodal":
            return [512 if random.random() < 0.1 else 16 for _ in range(count)]
        case "uniform":
            return [64] * count
        case _:
            raise ValueError(kind)


def inputs(kind: str, count: int = 4000, seed: int = 1) -> list[list[int]]:
    """Return inputs as token ids, no two the same."""
    random = Random(seed)
    return [[random.randrange(5, 8000) for _ in range(n)] for n in lengths(kind, count, seed)]


@dataclass
class Load:
    """What came of a closed loop."""

    seconds: float
    items: int = 0
    tokens: int = 0
    failed: int = 0
    waits: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens of inputs a second, without padding."""
        return self.tokens / self.seconds

    def quantile(self, share: float) -> float:
        """Return a quantile of the waits, in milliseconds."""
        ordered = sorted(self.waits)
        if not ordered:
            return math.nan
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def closed_loop(
    call: Call, texts: Sequence[list[int]], callers: int, seconds: float, warm_s: float
) -> Load:
    """Have callers ask, each one thing at a time; what ends in the warm-up is not counted."""
    begin = time.perf_counter() + warm_s
    end = begin + seconds
    load = Load(seconds)

    async def caller(number: int) -> None:
        position = number
        while time.perf_counter() < end:
            text = texts[position % len(texts)]
            position += callers
            asked = time.perf_counter()
            try:
                await call(text, number)
            except Exception:  # noqa: BLE001 - counted as what it is
                load.failed += 1
                await asyncio.sleep(0.001)
                continue
            done = time.perf_counter()
            if begin <= done <= end:
                load.items += 1
                load.tokens += len(text)
                load.waits.append(done - asked)

    await asyncio.gather(*(caller(n) for n in range(callers)))
    return load
