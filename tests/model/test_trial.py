"""When a version on trial does worse than the one that is kept."""

from __future__ import annotations

import pytest

from millstream.errors import UsageError
from millstream.model.trial import Tally, Trial, fails

TRIAL = Trial(workflow="flow", version="2", kept="1", share=0.05, started=1.0, changed=1.0)


@pytest.mark.parametrize(
    ("tried", "kept", "verdict"),
    [
        (Tally(16, 4), Tally(100, 0), True),
        (Tally(18, 2), Tally(100, 0), False),  # a tenth is allowed
        (Tally(15, 4), Tally(100, 0), False),  # too few to tell
        (Tally(10, 10), Tally(10, 9), False),  # the others fail as often: it is not the version
        (Tally(10, 10), Tally(), True),
        (Tally(16, 3, 1), Tally(0, 0, 9), True),
        (Tally(0, 0, 50), Tally(50), False),  # a cancelled run says nothing against it
    ],
)
def test_a_version_fails_by_more_than_is_allowed(tried: Tally, kept: Tally, verdict: bool) -> None:
    assert fails(TRIAL, tried, kept) is verdict


@pytest.mark.parametrize(
    "values",
    [{"share": 0.0}, {"share": 1.1}, {"kept": "2"}, {"threshold": 0.0}, {"threshold": 1.0},
     {"minimum": 0}],
)  # fmt: skip
def test_what_could_not_be_meant_is_refused(values: dict[str, float]) -> None:
    given = {name: getattr(TRIAL, name) for name in TRIAL.__struct_fields__}
    with pytest.raises(UsageError):
        Trial(**{**given, **values}).checked()


def test_a_tally_that_was_set_back_takes_nothing_away() -> None:
    """The counts of a Redis that lost its last writes, or of a trial that was begun anew."""
    assert Tally(3, 1).since(Tally(5, 0)) == Tally(0, 1)
