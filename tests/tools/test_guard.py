"""The guard passes lines on unchanged, and replaces only those that are too long."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from millstream_worker.tools.guard import OVERSIZE, Lines

LIMIT = 1000
SMALL = [b'{"jsonrpc":"2.0","id":1,"result":{}}\n', b" {}\n", b"{" + b"x" * (LIMIT - 1) + b"\n"]


@given(lists(integers(0, 1100), max_size=20))
def test_lines_within_the_limit_pass_unchanged(cuts: list[int]) -> None:
    """Whatever pieces they come in."""
    whole = b"".join(SMALL)
    lines = Lines(LIMIT)
    places = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    passed = b"".join(lines.feed(whole[begin:end]) for begin, end in itertools.pairwise(places))
    assert passed == whole


def test_what_is_no_message_is_dropped() -> None:
    """A log line on the wrong stream would be taken for a broken answer."""
    assert Lines(LIMIT).feed(b"starting\n\n" + SMALL[0] + b"[1]\nready\n") == SMALL[0]


PAD = "x" * 3000


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (f'{{"jsonrpc":"2.0","id":7,"result":{{"t":"{PAD}"}}}}', 7),
        (f'{{"jsonrpc": "2.0", "id": "a-7", "result": {{"t": "{PAD}"}}}}', "a-7"),
        (f'{{"id":7,"jsonrpc":"2.0","result":{{"t":"{PAD}"}}}}', 7),
        (f'{{"result":{{"t":"{PAD}"}},"jsonrpc":"2.0","id":7}}', 7),
        (f'{{"jsonrpc":"2.0","result":{{"t":"{PAD}"}},"id":7}}', 7),
        (f'{{"result":{{"t":"{PAD}"}},"id":7,"jsonrpc":"2.0"}}', 7),
    ],
)
@pytest.mark.parametrize("piece", [1, 64, 5000])
def test_a_line_that_is_too_long_becomes_an_error_of_its_request(
    line: str, number: object, piece: int
) -> None:
    """Servers in Python write the id first, in TypeScript last."""
    lines = Lines(LIMIT)
    sent = line.encode() + b"\n" + SMALL[0]
    passed = b"".join(lines.feed(sent[at : at + piece]) for at in range(0, len(sent), piece))
    error, rest = passed.splitlines(keepends=True)

    assert json.loads(error)["id"] == number
    assert json.loads(error)["error"]["code"] == OVERSIZE
    assert rest == SMALL[0]


@pytest.mark.parametrize(
    "line",
    [
        f'{{"result":{{"t":"{PAD}","id":7}}}}',
        f'{{"result":{{"t":"{PAD}\\"id\\":7}}',
        f'{{"params":{{"id":7,"t":"{PAD}"}},"method":"m"}}',
        PAD,
    ],
)
def test_an_id_inside_the_content_is_not_taken_for_the_requests(line: str) -> None:
    """A tool's text must not be able to end another call."""
    assert Lines(LIMIT).feed(line.encode() + b"\n") == b""


def test_a_line_without_end_is_noticed() -> None:
    """And takes no memory until then."""
    lines = Lines(LIMIT)
    for _ in range(40):
        assert lines.feed(b"x" * LIMIT) == b""
    assert lines.endless
