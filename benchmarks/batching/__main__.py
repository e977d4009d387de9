"""Run the comparison: one process, one model, systems interleaved, medians of several rounds.

python -m benchmarks.batching --seconds 3 --rounds 5 --out results.jsonl
python -m benchmarks.batching --device cuda --out results.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.batching import (
    budget,
    device,
    faults,
    footprints,
    generation,
    killed,
    offline,
    systems,
)
from benchmarks.batching.model import SIZES, Forward
from benchmarks.batching.workload import Call, Load, closed_loop, inputs

WAITS_MS = (0.0, 1.0, 5.0, 20.0)
_USUAL = ("device", "mixed", "uniform", "bimodal", "one", "generation", "bytes", "faults", "budget")
#: Parts that compute nothing with the model, and need no library for it.
_PLAYED = {"faults", "budget"}


class Bench:
    """The rounds of one run."""

    def __init__(self, forward: Forward, options: argparse.Namespace) -> None:
        self.forward = forward
        self.options = options
        self._out = options.out.open("a", encoding="utf-8") if options.out else None

    def say(self, **facts: Any) -> None:
        """Write one line of JSON."""
        line = json.dumps(facts)
        print(line, flush=True)
        if self._out is not None:
            self._out.write(line + "\n")
            self._out.flush()

    async def load(self, opens: systems.Opens, kind: str, callers: int, seconds: float) -> Load:
        """Run one system once."""
        texts = inputs(kind)
        async with opens(self.forward, callers) as call:
            return await closed_loop(call, texts, callers, seconds, min(1.0, seconds / 3))

    @asynccontextmanager
    async def kept(
        self, tuned: dict[str, systems.Opens], callers: int
    ) -> AsyncIterator[dict[str, systems.Opens]]:
        """Open ours once for all rounds: a process loads its model for seconds, outside of them.

        It does next to nothing while others are measured. Peers are opened for each of theirs.
        """
        async with AsyncExitStack() as stack:
            found = dict(tuned)
            for name, opens in tuned.items():
                if name.startswith("millstream"):
                    call = await stack.enter_async_context(opens(self.forward, callers))
                    found[name] = _opened(call)
            yield found

    async def tuned(self, kind: str, callers: int) -> dict[str, systems.Opens]:
        """Return each peer at the best of its settings for this load."""
        found: dict[str, systems.Opens] = {"millstream": systems.millstream}
        found["millstream in a thread"] = systems.ours(isolated=False)
        for peer, variants in _peers(self.say).items():
            best: tuple[float, str, systems.Opens] | None = None
            for name, opens in variants.items():
                try:
                    load = await self.load(opens, kind, callers, self.options.tune)
                except Exception as error:  # noqa: BLE001 - a peer that breaks is said, and left out
                    self.say(
                        measure="tuning", system=name, error=f"{type(error).__name__}: {error}"
                    )
                    continue
                self.say(measure="tuning", kind=kind, system=name, tokens_per_s=round(load.rate))
                if best is None or load.rate > best[0]:
                    best = load.rate, name, opens
            if best is not None:
                found[f"{peer} ({best[1]})"] = best[2]
        return found

    async def throughput(self, kind: str, callers: int) -> None:
        """Systems and offline references, interleaved."""
        law = offline.measured_law(self.forward)
        texts = inputs(kind)
        plans: dict[str, Any] = {
            "offline fifo": offline.fifo(texts),
            "offline dp, windows of 100": offline.windows(law)(texts),
            "offline sorted": offline.by_length(texts),
        }
        if kind != "uniform":
            # Sorted batches must be met in no order, or a short run would see short items alone.
            plans = {name: [x[i] for i in _spread(len(x))] for name, x in plans.items()}
        rates: dict[str, list[float]] = {}
        loads: dict[str, list[Load]] = {}
        async with self.kept(await self.tuned(kind, callers), callers) as tuned:
            for turn in range(self.options.rounds):
                names = [*tuned, *plans]
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    if name in plans:
                        rate = await asyncio.to_thread(
                            offline.rate, self.forward, plans[name], self.options.seconds
                        )
                    else:
                        self.forward.reset()
                        load = await self.load(tuned[name], kind, callers, self.options.seconds)
                        rate = load.rate
                        loads.setdefault(name, []).append(load)
                    rates.setdefault(name, []).append(rate)
        self._tell(kind, callers, rates, loads)

    def _tell(
        self, kind: str, callers: int, rates: dict[str, list[float]], loads: dict[str, list[Load]]
    ) -> None:
        for name, values in rates.items():
            facts: dict[str, Any] = {}
            if name in loads:
                found = loads[name]
                facts = {
                    "items_per_s": round(statistics.median(x.items / x.seconds for x in found), 1),
                    "p50_ms": round(statistics.median(x.quantile(0.5) for x in found), 2),
                    "p99_ms": round(statistics.median(x.quantile(0.99) for x in found), 2),
                    "failed": sum(x.failed for x in found),
                }
            self.say(
                measure="throughput", kind=kind, callers=callers, system=name,
                tokens_per_s=round(statistics.median(values)),
                lowest=round(min(values)), highest=round(max(values)), rounds=len(values), **facts,
            )  # fmt: skip
        medians = {name: statistics.median(values) for name, values in rates.items()}
        ours = medians["millstream"]
        peers = {
            x: y
            for x, y in medians.items()
            if not x.startswith("millstream") and "offline" not in x
        }
        self.say(
            measure="claims", kind=kind, callers=callers,
            over_best_peer=round(ours / max(peers.values()), 3) if peers else None,
            best_peer=max(peers, key=peers.__getitem__) if peers else None,
            of_offline={x: round(ours / y, 3) for x, y in medians.items() if "offline" in x},
        )  # fmt: skip

    async def curve(self, kind: str) -> None:
        """Each system under more and more callers: for a picture of throughput against p99."""
        for callers in (1, 8, 32, 100, 400):
            tuned = await self.tuned(kind, callers)
            for name, opens in tuned.items():
                load = await self.load(opens, kind, callers, self.options.seconds)
                self.say(
                    measure="curve", kind=kind, callers=callers, system=name.partition(" (")[0],
                    tokens_per_s=round(load.rate), p99_ms=round(load.quantile(0.99), 2),
                )  # fmt: skip

    async def one_caller(self) -> None:
        """What batching adds where there is nothing to batch."""
        texts = inputs("uniform", 400)
        direct: list[float] = []
        ours: list[float] = []
        async with systems.millstream(self.forward, 1) as call:
            for _ in range(self.options.rounds):
                times = []
                for text in texts[: self.options.singles]:
                    began = time.perf_counter()
                    await asyncio.to_thread(self.forward, [text])
                    times.append(time.perf_counter() - began)
                direct.append(1000 * statistics.median(times))
                times = []
                for text in texts[: self.options.singles]:
                    began = time.perf_counter()
                    await call(text, 0)
                    times.append(time.perf_counter() - began)
                ours.append(1000 * statistics.median(times))
        self.say(
            measure="one caller", direct_p50_ms=round(statistics.median(direct), 3),
            ours_p50_ms=round(statistics.median(ours), 3),
            added_ms=round(statistics.median(x - y for x, y in zip(ours, direct, strict=True)), 3),
        )  # fmt: skip


def _opened(call: Call) -> systems.Opens:
    return lambda _forward, _callers: nullcontext(call)


def _peers(say: Callable[..., None]) -> dict[str, dict[str, systems.Opens]]:
    makers: dict[str, Callable[[], dict[str, systems.Opens]]] = {
        "batched": lambda: {
            f"wait {w:g} ms{' length 2048' if n else ''}": systems.batched_peer(w, n)
            for w in WAITS_MS
            for n in (None, 2048)
        },
        "bentoml": lambda: {"dispatcher": systems.bentoml_peer()},
        "infinity": lambda: {
            f"delay {w:g} ms{' tokenized' if t else ''}": systems.infinity_peer(w, tokenize=t)
            for w in WAITS_MS
            for t in (False, True)
        },
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            say(measure="peer", system=name, missing=str(error))
    return found


def _spread(count: int) -> list[int]:
    """Return an order in which any stretch is like the whole."""
    step = next(s for s in range(max(1, int(count * 0.618)), count + 2) if _coprime(s, count))
    return [(i * step) % count for i in range(count)]


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


async def main(options: argparse.Namespace) -> None:
    """Run what was asked for."""
    wanted = set(options.only.split(",")) if options.only else {*_USUAL}
    if wanted <= _PLAYED:
        await _play(options, wanted)
        return
    forward = Forward(options.device, options.size)
    bench = Bench(forward, options)
    bench.say(
        measure="machine", python=platform.python_version(), cores=os.cpu_count(),
        load=os.getloadavg(), **forward.facts(),
    )  # fmt: skip
    forward.warm()
    parts: dict[str, Callable[[], Any]] = {
        "device": functools.partial(device.check, forward, bench.say),
        "mixed": functools.partial(bench.throughput, "mixed", 100),
        "uniform": functools.partial(bench.throughput, "uniform", 100),
        "bimodal": functools.partial(bench.throughput, "bimodal", 100),
        "one": bench.one_caller,
        "generation": functools.partial(
            generation.measure, options.device, bench.say, rounds=options.rounds
        ),
        "bytes": functools.partial(footprints.measure, forward, bench.say),
        "curve": functools.partial(bench.curve, "mixed"),
        "faults": functools.partial(_faults, bench.say),
        "budget": functools.partial(_budget, bench.say, options),
    }
    for name, run in parts.items():
        if name in wanted:
            began = time.perf_counter()
            await run()
            bench.say(measure="took", part=name, seconds=round(time.perf_counter() - began, 1))


async def _play(options: argparse.Namespace, wanted: set[str]) -> None:
    with (options.out or Path(os.devnull)).open("a", encoding="utf-8") as out:

        def say(**facts: Any) -> None:
            line = json.dumps(facts)
            print(line, flush=True)
            out.write(line + "\n")

        say(measure="machine", python=platform.python_version(), cores=os.cpu_count())
        if "faults" in wanted:
            await _faults(say)
        if "budget" in wanted:
            await _budget(say, options)


async def _faults(say: Callable[..., None]) -> None:
    for measure in (faults.poison, faults.cancelled, faults.out_of_memory, killed.killed):
        say(**await measure())


async def _budget(say: Callable[..., None], options: argparse.Namespace) -> None:
    # In a thread: time is played there, on a loop of its own.
    say(**await asyncio.to_thread(budget.measure, options.minutes))


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--size", default="", choices=["", *SIZES], help="of the encoder")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one run of one system")
    parser.add_argument("--tune", type=float, default=1.5, help="seconds of one run for tuning")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=100, help="calls of the single caller")
    parser.add_argument(
        "--only",
        default="",
        help="some of device,mixed,uniform,bimodal,one,generation,bytes,faults,budget,curve",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="played for the budget")
    parser.add_argument("--out", type=Path, default=None, help="file for lines of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    given = options()
    if given.device.startswith("cuda"):
        given.device = "cuda:0"
    asyncio.run(main(given))
    sys.stdout.flush()
    # Peers leave threads behind that never end.
    os._exit(0)
