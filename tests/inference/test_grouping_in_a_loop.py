"""What the groups of a closed loop cost, beside plans that know the whole: counted, not timed.

Here a batch takes what a law says, and nothing else takes any time. So what a real device loses
beyond this is no matter of which items leave together.
"""

from __future__ import annotations

import pytest

from benchmarks.batching.workload import lengths
from millstream_worker.inference.costs import Law
from millstream_worker.inference.grouping import Caps, choose, partition
from millstream_worker.inference.shapes import Shape, shape_of

CALLERS = 100
CAPS = Caps(items=32, tokens=65_536, fitting=lambda _: 1 << 30)


def looped(texts: list[int], law: Law) -> float:
    """Return tokens a second of callers that ask again at once, with one batch picked ahead."""
    waiting, rest = texts[:CALLERS], iter(texts[CALLERS:])
    tokens, seconds = 0, 0.0
    ahead: list[int] = []
    while True:
        running = ahead or leaving(waiting, law)
        ahead = leaving(waiting, law) if len(waiting) >= CAPS.items // 2 else []
        tokens += sum(running)
        seconds += law.seconds(shape_of(running, CAPS.step))
        back = [text for text, _ in zip(rest, running, strict=False)]
        if len(back) < len(running):
            return tokens / seconds
        waiting += back


def leaving(waiting: list[int], law: Law) -> list[int]:
    """Take the group of the one that came first."""
    chosen = choose(waiting, 0, law, CAPS)
    group = [waiting[i] for i in chosen]
    for index in sorted(chosen, reverse=True):
        del waiting[index]
    return group


def planned(texts: list[int], law: Law, window: int) -> float:
    """Return tokens a second of the cheapest cut of each window."""
    seconds = 0.0
    for start in range(0, len(texts), window):
        rising = sorted(shape_of([x], CAPS.step).longest for x in texts[start : start + window])
        for begin, end in partition(rising, law, CAPS):
            seconds += law.seconds(Shape(end - begin, rising[end - 1]))
    return sum(texts) / seconds


@pytest.mark.parametrize(
    "law",
    [
        Law(fixed=0.005, per_token=7.3e-6),
        Law(fixed=0.003, per_token=6e-6, per_square=1.5e-8),
        Law(fixed=0.0008, per_item=5e-5, per_token=1.4e-5, per_square=2e-8),
    ],
    ids=["mostly fixed", "between", "mostly by token"],
)
def test_groups_in_a_loop_cost_no_more_than_the_best_cut_of_every_hundred(law: Law) -> None:
    """And three quarters of what could be reached if all were known at once."""
    texts = lengths("mixed", 3000)
    found = looped(texts, law)
    assert found >= 1.0 * planned(texts, law, CALLERS)
    assert found >= 0.75 * planned(texts, law, len(texts))


def test_callers_with_one_length_leave_in_full_batches() -> None:
    """A hundred callers are three batches and a rest of 4: it never becomes a batch of its own."""
    texts = [64] * 3000
    for law in (Law(fixed=0.005), Law(fixed=0.0, per_token=1e-5), Law(fixed=0.003, per_token=1e-5)):
        full = sum(texts) / (len(texts) / 32 * law.seconds(Shape(32, 64)))
        assert looped(texts, law) >= 0.999 * full
