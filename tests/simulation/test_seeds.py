"""Every seed keeps every promise, a seed replays exactly, and planted bugs are found."""

from __future__ import annotations

from itertools import count

import pytest

from tests.simulation.history import run
from tests.simulation.planted import PLANTED

SEEDS = 60
PLANTED_SEEDS = 300
#: Planted bugs that these seeds find; for the others more seeds are needed.
FOUND = ("acknowledge before the result", "strand what a lost reply brought")
_CHUNK = 15


@pytest.mark.parametrize("first", range(0, SEEDS, _CHUNK))
def test_every_seed_keeps_every_promise(first: int) -> None:
    for seed in range(first, first + _CHUNK):
        verdict = run(seed)
        assert not verdict.broken, f"python -m tests.simulation --seed {seed} --trace"


@pytest.mark.parametrize("seed", [3, 77])
def test_a_seed_tells_the_same_story_twice(seed: int) -> None:
    first, second = run(seed, trace=True), run(seed, trace=True)
    assert first.trace
    assert first.trace == second.trace


@pytest.mark.slow
@pytest.mark.parametrize("bug", FOUND)
def test_a_planted_bug_is_found(bug: str) -> None:
    with PLANTED[bug]():
        found = next(seed for seed in count() if seed == PLANTED_SEEDS or run(seed).broken)
    assert found < PLANTED_SEEDS
