"""The laws that batches are formed by: never falling, never below what was seen, quick to learn."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from millstream_worker.inference import fitting
from millstream_worker.inference.costs import CostLaw, Law
from millstream_worker.inference.footprint import Bytes, Footprint
from millstream_worker.inference.shapes import Shape, padded

shapes = st.builds(Shape, st.integers(1, 64), st.integers(1, 64).map(lambda n: 8 * n))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(shapes, st.floats(1e-5, 10)), min_size=1, max_size=60),
)
def test_no_law_of_time_ever_falls(seen: list[tuple[Shape, float]]) -> None:
    """A plan built on a law that rewards larger batches with less time would never end."""
    costs = CostLaw()
    for shape, seconds in seen:
        costs.observe(shape, seconds)
    law = costs.law
    assert min(law.fixed, law.per_item, law.per_token, law.per_square) >= 0


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1e-4, 0.05), st.floats(0, 1e-3), st.floats(1e-7, 1e-4), st.floats(0, 1e-8),
    st.lists(shapes, min_size=12, max_size=40, unique=True),
)  # fmt: skip
def test_a_law_of_time_is_found_again(
    fixed: float, item: float, token: float, square: float, seen: list[Shape]
) -> None:
    """What a device follows is learned from what it did, whatever the guess was."""
    true = Law(fixed=fixed, per_item=item, per_token=token, per_square=square)
    costs = CostLaw()
    for shape in seen * 3:
        costs.observe(shape, true.seconds(shape))
    rows = [(1.0, s.items, s.tokens, s.tokens * s.longest) for s in seen]
    found = fitting.fit(rows, [true.seconds(s) for s in seen])
    for shape, row in zip(seen, rows, strict=True):
        again = sum(x * y for x, y in zip(found, row, strict=True))
        assert abs(again / true.seconds(shape) - 1) < 0.05


def test_a_fit_is_never_negative_where_the_data_ask_for_it() -> None:
    rows = [(1.0, float(x)) for x in range(1, 9)]
    falling = [10.0 - x for x in range(1, 9)]
    assert min(fitting.fit(rows, falling)) >= 0


def test_a_slower_device_is_noticed() -> None:
    """A neighbour that halves the speed must not be believed away."""
    costs = CostLaw()
    law = Law(fixed=0.004, per_token=1e-5)
    mixed = [Shape(1 + n % 32, 8 * (1 + n % 13)) for n in range(600)]
    for shape in mixed[:300]:
        costs.observe(shape, law.seconds(shape))
    for shape in mixed[300:]:
        costs.observe(shape, 2 * law.seconds(shape))
    probe = Shape(16, 64)
    assert abs(costs.seconds(probe) / (2 * law.seconds(probe)) - 1) < 0.1


def test_a_device_that_is_bound_by_beginning_operations_has_a_least() -> None:
    """A GPU takes as long for four short texts as for thirty, until computing takes longer."""
    random = Random(3)
    costs = CostLaw()
    mixed = [
        Shape(random.choice((1, 4, 16, 24, 32)), 8 * random.randrange(1, 40)) for _ in range(400)
    ]
    for shape in mixed:
        costs.observe(shape, max(0.010, 5e-6 * shape.tokens) * random.uniform(0.95, 1.05))
    for shape in (Shape(1, 8), Shape(30, 48), Shape(32, 128), Shape(32, 300)):
        true = max(0.010, 5e-6 * shape.tokens)
        assert abs(costs.seconds(shape) / true - 1) < 0.1
    assert abs(costs.law.overhead / 0.010 - 1) < 0.1
    # So a plan fills batches as long as that is free.
    assert costs.law.falling(48, 32) == [costs.seconds(Shape(n, 48)) for n in range(32, 0, -1)]


def test_full_batches_alone_do_not_hide_what_is_fixed() -> None:
    """Under load nothing else runs for hours; then a single caller comes, or a plan is made."""
    random = Random(4)
    costs = CostLaw()
    law = Law(fixed=0.008, per_item=1e-5, per_token=1e-6)
    for items, longest in ((1, 16), (1, 64), (1, 256), (4, 64), (16, 64), (8, 256)):
        costs.observe(Shape(items, longest), law.seconds(Shape(items, longest)))
    for _ in range(2000):
        shape = Shape(random.choice((31, 32)), 8 * random.randrange(4, 20))
        costs.observe(shape, law.seconds(shape) * random.uniform(0.9, 1.1))
    for shape in (Shape(1, 64), Shape(8, 64)):
        assert abs(costs.seconds(shape) / law.seconds(shape) - 1) < 0.1
    # The device slows down, and only full batches tell so.
    for _ in range(600):
        shape = Shape(random.choice((31, 32)), 8 * random.randrange(4, 20))
        costs.observe(shape, 2 * law.seconds(shape) * random.uniform(0.9, 1.1))
    for shape in (Shape(1, 64), Shape(8, 64), Shape(32, 64)):
        assert abs(costs.seconds(shape) / (2 * law.seconds(shape)) - 1) < 0.15


def test_a_law_that_was_wrong_for_a_size_is_no_device_that_has_changed() -> None:
    """Small batches came first; what full ones take is news, and says nothing against the small."""
    random = Random(5)
    costs = CostLaw()
    for items, longest in ((1, 16), (1, 64), (1, 256), (4, 64), (8, 64), (8, 32), (2, 64), (4, 16)):
        costs.observe(Shape(items, longest), 0.010)
    for _ in range(2000):
        shape = Shape(random.choice((31, 32)), 8 * random.randrange(24, 32))
        costs.observe(shape, 4e-6 * shape.tokens * random.uniform(0.95, 1.05))
    assert abs(costs.seconds(Shape(1, 64)) / 0.010 - 1) < 0.1
    assert abs(costs.law.overhead / 0.010 - 1) < 0.1
    assert abs(costs.seconds(Shape(32, 224)) / (4e-6 * 32 * 224) - 1) < 0.1


def test_what_is_kept_of_a_law_may_be_rubbish() -> None:
    costs = CostLaw()
    costs.recall([(Shape(n, 8 * n), 1e-300) for n in range(1, 9)])
    assert costs.learned
    costs.observe(Shape(4, 64), 0.01)
    assert costs.seconds(Shape(4, 64)) > 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(shapes, st.integers(10_000, 10**10)), min_size=1, max_size=50))
def test_no_batch_that_was_just_seen_is_predicted_below_what_it_took(
    seen: list[tuple[Shape, int]],
) -> None:
    """A prediction below the truth is how memory runs out. Seen once, it must not be again."""
    footprint = Footprint(Bytes(fixed=1000.0, per_token=10.0))
    for shape, peak in seen:
        footprint.observe(shape, peak)
        assert footprint.predict(shape) >= int(peak * 0.999) - 1


@given(st.floats(0.34, 3.0))
def test_a_law_of_bytes_that_is_wrong_threefold_is_right_after_a_few_batches(wrong: float) -> None:
    true = Bytes(fixed=5e6, per_token=40_000.0, per_square=30.0)
    guess = Bytes(fixed=5e6 / wrong, per_token=40_000 / wrong, per_square=30 / wrong)
    footprint = Footprint(guess)
    mixed = [Shape(1 + n * 7 % 32, 8 * (1 + n * 5 % 40)) for n in range(20)]
    for shape in mixed:
        footprint.observe(shape, int(true.of(shape)))
    for shape in mixed:
        ratio = true.of(shape) / footprint.predict(shape)
        assert 0.45 <= ratio <= 1.0


def test_running_out_of_memory_cuts_at_once_and_is_forgiven_slowly() -> None:
    footprint = Footprint(Bytes(per_token=1000.0))
    shape, room = Shape(32, 128), 6_000_000
    before = footprint.most_items(128, room)
    footprint.ran_out(shape, room)
    after = footprint.most_items(128, room)
    assert after < min(before, 32)
    for _ in range(49):
        footprint.ran()
    assert footprint.most_items(128, room) == after
    for _ in range(5000):
        footprint.ran()
    assert footprint.most_items(128, room) == before


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_a_padded_length_is_the_next_multiple(length: int, step: int) -> None:
    found = padded(length, step)
    assert found % step == 0
    assert length <= found < length + step or (length == 0 and found == step)
