"""Server-sent events survive every way of being cut into chunks, and are bounded."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists, sampled_from

from millstream_worker.tools.faults import TooLarge
from millstream_worker.tools.sse import Event, EventParser

STREAM = (
    b": a comment\n\nevent: message\nid: 1\ndata: one\n\n"
    b"retry: 250\r\nid: 2\r\ndata: two\r\ndata:lines\r\n\r\n"
    b"id: 3\rdata:\r\rdata: \xc3\xa9\n\n"
)
EVENTS = [Event(b"one", "1"), Event(b"two\nlines", "2"), Event("é".encode(), "3")]


@given(lists(integers(0, len(STREAM)), max_size=20))
def test_the_cuts_do_not_matter(cuts: list[int]) -> None:
    """A network cuts where it likes, also between the two bytes of a line end."""
    places = sorted({0, len(STREAM), *cuts})
    parser = EventParser(1000)
    events = [
        event
        for begin, end in itertools.pairwise(places)
        for event in parser.feed(STREAM[begin:end])
    ]

    assert events == EVENTS
    assert parser.retry_s == 0.25


@given(lists(binary(max_size=50)))
def test_nothing_makes_it_fail(chunks: list[bytes]) -> None:
    """Whatever a server sends, the only error is that it is too much."""
    parser = EventParser(100_000)
    for chunk in chunks:
        parser.feed(chunk)


@pytest.mark.parametrize("chunk", [b"x" * 100, b"data: " + b"x" * 94, b"data: xxxxxxxxx\n" * 7])
def test_an_event_without_end_is_refused(chunk: bytes) -> None:
    """In one line or in many, with or without a name."""
    parser = EventParser(1000)
    fed = (parser.feed(chunk) for _ in range(100))
    with pytest.raises(TooLarge):
        list(fed)


@given(sampled_from([b"\n\n", b"\r\n\r\n", b"\r\rx"]))
def test_many_small_events_are_no_large_one(end: bytes) -> None:
    """The bound is of one event: progress may be reported for as long as it takes."""
    parser = EventParser(100)
    for _ in range(1000):
        parser.feed(b"data: 12345" + end)
