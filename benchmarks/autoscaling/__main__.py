"""Try the ways of scaling and write down what came of it: ``python -m benchmarks.autoscaling``.

``--search`` tries behaviors of an autoscaler by demand instead, and prints them in order of merit;
what is shipped stands in ``recommended.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

from benchmarks.autoscaling import policies, report, trial
from benchmarks.autoscaling.behavior import Behavior, Policy, Rules
from benchmarks.autoscaling.loads import LOADS
from benchmarks.autoscaling.policies import Scaling
from benchmarks.autoscaling.trial import Outage, Outcome

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scaling.md"
PICTURE = ROOT / "docs" / "scaling.png"
LINES = ROOT / "benchmarks" / "results" / "autoscaling.jsonl"


def main() -> None:
    """Read the flags and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=trial.HOURS)
    parser.add_argument("--search", action="store_true", help="search for a behavior")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    given = parser.parse_args()
    if given.search:
        _search(given.seeds, given.hours)
    else:
        _compare(given.seeds, given.hours, write=not given.dry)


def _compare(seeds: int, hours: float, *, write: bool) -> None:
    found = [
        trial.tried(load, scaling, seed, hours=hours)
        for load, scaling, seed in product(LOADS.values(), policies.compared(), range(seeds))
    ]
    outages = report.averaged(_outages(seeds))
    averaged = report.averaged(found)
    text = report.tables(averaged, outages)
    print(text)
    if write:
        report.write_lines(LINES, [*found, *outages])
        report.write_page(PAGE, text)
        report.plot(PICTURE, averaged, {"lag alone": "lag alone", _shipped().name: "shipped"})


def _outages(seeds: int) -> Iterator[Outcome]:
    """Let the metric be away: missing, as ours is then, or zero, as a gauge that fell silent."""
    away = {"missing (503)": False, "told as 0": True}
    for (name, as_zero), seed in product(away.items(), range(seeds)):
        outage = Outage(3000, 3720, as_zero=as_zero)
        found = trial.tried(LOADS["steady"], _shipped(), seed, hours=2.0, outage=outage)
        yield replace(found, scaling=f"demand, {name}")


def _shipped() -> Scaling:
    return policies.compared()[-1]


def _search(seeds: int, hours: float) -> None:
    ranked = sorted(
        ((trial.merit(found), scaling.name, found) for scaling, found in _searched(seeds, hours)),
        key=lambda each: each[0],
        reverse=True,
    )
    print("| merit | behavior | within | p99 wait | pod hours | interrupted |")
    print("|---:|---|---:|---:|---:|---:|")
    for merit, name, found in ranked:
        within = sum(each.within for each in found) / len(found)
        p99 = max(each.p99_s for each in found)
        hours_used = sum(each.pod_hours for each in found)
        interrupted = sum(each.interrupted for each in found)
        print(f"| {merit:.4f} | {name} | {within:.4f} | {p99:.0f} | {hours_used:.1f} |"
              f" {interrupted} |")  # fmt: skip


def _searched(seeds: int, hours: float) -> Iterator[tuple[Scaling, list[Outcome]]]:
    for headroom, pods, window_s, percent in product(
        (0.7, 0.8, 0.9), (4, 10), (120, 300, 600), (10, 20, 100)
    ):
        behavior = Behavior(
            up=Rules(window_s=0, policies=(Policy("Percent", 100, 15), Policy("Pods", pods, 15))),
            down=Rules(
                window_s=window_s, policies=(Policy("Percent", percent, 60), Policy("Pods", 1, 60))
            ),
        )
        name = (
            f"{headroom:.0%} of the slots, up {pods} pods, down {percent} %/60 s after {window_s} s"
        )
        scaling = policies.by_demand(name, behavior, headroom)
        outcomes = [
            trial.tried(load, scaling, seed, hours=hours)
            for load, seed in product(LOADS.values(), range(seeds))
        ]
        yield scaling, report.averaged(outcomes)


if __name__ == "__main__":
    main()
