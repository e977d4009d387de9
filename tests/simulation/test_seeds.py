"""Every seed keeps every promise, a seed replays exactly, and planted bugs are found."""

from __future__ import annotations

from unittest import mock

import pytest
from fakeredis._socket import AsyncFakeSocket

from tests.simulation.history import run
from tests.simulation.planted import PLANTED
from tests.simulation.quick import QuickSocket

SEEDS = 300
#: So many of them are played every time, and the others with the proofs.
_ALWAYS = 90
_CHUNK = 10
#: Found early enough to be looked for every time; the others take a while together.
_EARLY = (
    "acknowledge before the result",
    "strand what a lost reply brought",
    "lose the timer of a run that was tried before",
)


#: A seed that found a bug when somebody looked last; bugs that are not here the first ones find.
#: A history changes with what the house does, so one that finds nothing any more is only slow.
_FOUND_BY = {
    "settle without the fence check": 195,
    "a renewal grants back blindly": 986,
}


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(first, marks=[] if first < _ALWAYS else pytest.mark.slow)
        for first in range(0, SEEDS, _CHUNK)
    ],
)
def test_every_seed_keeps_every_promise(first: int) -> None:
    """What nobody thought of is found here, or nowhere before production."""
    for seed in range(first, first + _CHUNK):
        verdict = run(seed)
        assert not verdict.broken, f"python -m tests.simulation --seed {seed} --trace"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1006])
def test_a_seed_that_found_something_keeps_every_promise(seed: int) -> None:
    """1006: paused between a tick's run and its record, a schedule did not count the run."""
    assert not run(seed).broken


@pytest.mark.parametrize("seed", [3, 77])
def test_a_seed_tells_the_same_story_twice(seed: int) -> None:
    """A failure that cannot be seen again cannot be mended."""
    first, second = run(seed, trace=True), run(seed, trace=True)
    assert first.trace
    assert first.trace == second.trace


def test_a_quick_server_tells_the_same_story_as_the_whole_one() -> None:
    """What is left out around each command must not change what a command does."""
    quick = run(8, trace=True)
    whole = {name: getattr(AsyncFakeSocket, name) for name in ("_process_command", "_run_command")}
    with mock.patch.multiple(QuickSocket, **whole):
        assert run(8, trace=True).trace == quick.trace


@pytest.mark.parametrize(
    "bug", [pytest.param(x, marks=[] if x in _EARLY else pytest.mark.slow) for x in PLANTED]
)
def test_a_planted_bug_is_found(bug: str) -> None:
    """A simulation that finds nothing may only be one that looks at nothing."""
    with PLANTED[bug]():
        assert any(run(seed).broken for seed in (_FOUND_BY.get(bug, 0), *range(SEEDS)))
