"""The budget in one sentence, as arithmetic: total use never above the fraction."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millstream_worker.inference.budget import Budget, Own, Reading

GIB = 1 << 30
sizes = st.integers(0, 80 * GIB)


@given(sizes, sizes, sizes, st.floats(0, 1), st.floats(0.05, 1.0))
def test_what_is_admitted_never_takes_the_device_above_its_fraction(
    usable: int, others: int, held: int, cached: float, fraction: float
) -> None:
    """Ours plus everyone else's, whatever the allocator keeps in its pocket."""
    own = Own(reserved=held, cached=int(cached * held))
    budget = Budget(fraction)
    budget.read(Reading(usable=usable, used=others + held), own)
    room = budget.headroom(own)
    # What is reused was counted already: the device sees only the rest as new.
    new = max(0, room - int(0.9 * own.cached))
    if room > 0:
        assert others + held + new <= max(fraction * usable, others + held) + 1


@given(st.lists(sizes, min_size=1, max_size=20))
def test_a_neighbour_that_grows_is_believed_at_once_and_one_that_shrinks_late(
    seen: list[int],
) -> None:
    budget = Budget(0.8)
    for used in seen:
        budget.read(Reading(usable=80 * GIB, used=used), Own())
    assert budget.others == max(seen[-3:])


def test_a_share_divides_a_card() -> None:
    """Four workers with a fifth each stay within the fraction without knowing of each other."""
    budget = Budget(0.8, 0.2)
    own = Own(reserved=10 * GIB)
    budget.read(Reading(usable=80 * GIB, used=10 * GIB), own)
    assert budget.headroom(own) == 6 * GIB
    assert budget.largest(10 * GIB) == 6 * GIB


def test_what_a_neighbour_has_announced_counts_as_used() -> None:
    budget = Budget(0.8)
    budget.read(Reading(usable=80 * GIB, used=20 * GIB), Own())
    before = budget.headroom(Own())
    budget.announced = 10 * GIB
    assert budget.headroom(Own()) == before - 10 * GIB


def test_a_cache_in_pieces_is_counted_on_less() -> None:
    own = Own(reserved=10 * GIB, cached=10 * GIB)
    budget = Budget(0.8)
    budget.read(Reading(usable=80 * GIB, used=10 * GIB), own)
    before = budget.headroom(own)
    budget.fragmented()
    assert budget.headroom(own) == before - 1 * GIB


def test_a_device_that_was_never_read_admits_nothing() -> None:
    assert Budget(0.8).headroom(Own()) <= 0
