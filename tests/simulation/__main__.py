"""Run many seeds: ``python -m tests.simulation --seeds 100000 --jobs 2``."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from tests.simulation.history import Verdict, run


def main() -> int:
    """Run the seeds that were asked for; return 1 when one of them breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell its story")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    given = parser.parse_args()
    if given.seed is not None:
        verdict = run(given.seed, trace=given.trace)
        print("\n".join(verdict.trace))
        return _tell([verdict])

    began = time.monotonic()
    seeds = range(given.start, given.start + given.seeds)
    failed: list[Verdict] = []
    # Each process lives for some seeds only: what one leaves behind cannot add up.
    context = multiprocessing.get_context("spawn")
    with context.Pool(given.jobs, maxtasksperchild=20) as pool:
        for number, verdict in enumerate(pool.imap_unordered(run, seeds, chunksize=5), 1):
            if verdict.broken:
                failed.append(verdict)
                _tell([verdict])
            if number % 100 == 0:
                took_s = time.monotonic() - began
                print(f"{number} seeds, {len(failed)} failed, {took_s:.0f} s", flush=True)

    print(f"{len(seeds) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _tell(verdicts: list[Verdict]) -> int:
    for verdict in verdicts:
        for promise, happened in verdict.broken:
            print(f"seed {verdict.seed}: {promise}: {happened}")
        if verdict.broken:
            print(f"  again: python -m tests.simulation --seed {verdict.seed} --trace")

    return 1 if any(verdict.broken for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
