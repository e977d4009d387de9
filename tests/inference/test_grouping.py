"""Groups: the cheapest there are, within every cap, and always with the head."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream_worker.inference.costs import Law
from millstream_worker.inference.grouping import Caps, choose, partition
from millstream_worker.inference.shapes import Shape, padded

laws = st.builds(
    Law,
    fixed=st.floats(0, 0.02),
    per_item=st.floats(0, 1e-3),
    per_token=st.floats(1e-7, 1e-4),
    per_square=st.floats(0, 1e-7),
)
lengths = st.lists(st.integers(1, 512), min_size=1, max_size=80)


def caps(items: int = 32, tokens: int = 16_384, room: float = float("inf")) -> Caps:
    """Caps in which every padded token takes a byte."""
    return Caps(
        items=items,
        tokens=tokens,
        fitting=lambda longest: 10**6 if room == float("inf") else int(room // longest),
    )


def cost(law: Law, groups: Sequence[Sequence[int]]) -> float:
    return sum(law.seconds(Shape(len(group), max(group))) for group in groups)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=9), laws, st.integers(1, 5))
def test_no_other_cut_is_cheaper(short: list[int], law: Law, most: int) -> None:
    """Against every way to cut a short queue, not against another clever method."""
    ordered = sorted(padded(x, 8) for x in short)
    found = partition(ordered, law, caps(items=most))
    ours = cost(law, [ordered[a:b] for a, b in found])
    best = float("inf")
    for cuts in itertools.product([False, True], repeat=len(ordered) - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(ordered)]
        groups = [ordered[a:b] for a, b in itertools.pairwise(edges)]
        if max(map(len, groups)) <= most:
            best = min(best, cost(law, groups))
    assert ours <= best * (1 + 1e-9) + 1e-12


@settings(max_examples=150, deadline=None)
@given(lengths, laws, st.integers(1, 40), st.integers(64, 8192), st.integers(64, 8192))
def test_what_leaves_holds_the_head_and_keeps_every_cap(
    waiting: list[int], law: Law, items: int, tokens: int, room: int
) -> None:
    limits = caps(items, tokens, room)
    chosen = choose(waiting, 0, law, limits)
    assert 0 in chosen
    assert len(set(chosen)) == len(chosen)
    shape = Shape(len(chosen), padded(max(waiting[i] for i in chosen), 8))
    assert shape.items <= items
    # One alone leaves whatever it is: whoever admits it decides.
    assert shape.items == 1 or (shape.tokens <= tokens and shape.tokens <= room)


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 40), st.integers(64, 4096))
def test_without_padding_the_most_urgent_leave_first(
    waiting: list[int], items: int, tokens: int
) -> None:
    limits = Caps(items=items, tokens=tokens, fitting=lambda _: 10**6, step=1, padding=False)
    chosen = choose(waiting, 0, Law(fixed=0.01), limits)
    assert chosen == list(range(len(chosen)))
    assert len(chosen) <= items
    assert len(chosen) == 1 or sum(waiting[i] for i in chosen) <= tokens


@settings(max_examples=50, deadline=None)
@given(lengths, laws)
def test_every_queue_is_emptied_in_finitely_many_launches(waiting: list[int], law: Law) -> None:
    """Every launch serves the head, so no item waits for more launches than there are items."""
    left, launches = list(waiting), 0
    while left:
        chosen = set(choose(left, 0, law, caps()))
        left = [x for i, x in enumerate(left) if i not in chosen]
        launches += 1
    assert launches <= len(waiting)


def test_long_items_do_not_set_the_price_of_short_ones() -> None:
    law = Law(fixed=0.001, per_token=1e-5)
    waiting = [16] * 20 + [512] * 4
    assert set(choose(waiting, 0, law, caps())) == set(range(20))


def test_a_large_fixed_cost_keeps_them_together() -> None:
    law = Law(fixed=1.0, per_token=1e-6)
    waiting = [16] * 20 + [512] * 4
    assert len(choose(waiting, 0, law, caps())) == 24


@pytest.mark.parametrize(
    "law",
    [Law(fixed=0.005), Law(fixed=0.0, per_token=1e-5), Law(fixed=0.0, per_item=1e-3)],
    ids=["only fixed", "only tokens", "only items"],
)
@pytest.mark.parametrize("waiting", [36, 68, 97])
def test_the_head_does_not_leave_with_the_rest_of_a_cut(law: Law, waiting: int) -> None:
    """Items of one length, cut by 32, leave a rest: in a law without a term that costs nothing."""
    assert len(choose([64] * waiting, 0, law, caps())) == 32
