"""Label selectors mean what Kubernetes says they mean."""

from __future__ import annotations

import pytest

from millstream.errors import BadSelector
from millstream_scheduler.scaling.documents import quantity
from millstream_scheduler.scaling.selectors import parse

MAIL = {"queue": "mail"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("queue=mail", True),
        ("queue = mail", True),
        ("queue==mail", True),
        ("queue=", False),
        ("queue!=mail", False),
        ("queue!=other", True),
        ("tier!=other", True),
        ("tier=gold", False),
        ("queue in (a,mail)", True),
        ("queue in (a, b)", False),
        ("queue notin (a,b)", True),
        ("queue notin (mail)", False),
        ("tier notin (gold)", True),
        ("queue", True),
        ("!queue", False),
        ("tier", False),
        ("!tier", True),
        ("queue in (mail,a),queue!=a, !tier", True),
        ("queue=mail,tier", False),
    ],
)
def test_a_selector(text: str, matches: bool) -> None:
    assert parse(text).matches(MAIL) is matches


@pytest.mark.parametrize(
    "text",
    ["queue=mail,", ",", "=mail", "queue in mail", "queue in (", "queue>1", "queue<1", "a b",
     "queue in (a),(b)", "queue=a=b", "-queue", "x" * 5000],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str) -> None:
    """Passed over, it would select everything, and a fleet follow somebody else's queue."""
    with pytest.raises(BadSelector):
        parse(text)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (7.0, "7"),
        (4.217, "4217m"),
        (0.0001, "1m"),
        (1e9, "1000000000"),
        (2.9999999999, "3"),
    ],
)
def test_a_quantity_is_never_less_than_what_it_stands_for(value: float, written: str) -> None:
    """Rounded down, a little would be nothing."""
    assert quantity(value) == written
