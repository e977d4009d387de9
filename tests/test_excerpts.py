"""What a record keeps of what a step was called with: short, cheap, and without its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from millstream.errors import NewerRecord
from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.store import codec
from millstream_worker.excerpts import excerpt

MOST = 500


@dataclass
class Order:
    """Something that a program calls with."""

    sum: int
    password: str


def test_what_is_short_is_kept_as_it_is() -> None:
    """Most arguments are a few words."""
    values: list[Any] = [{"a": [1, 2.5, None, True], "b": {"c": "text"}}, [], "", {"max_tokens": 9}]
    for value in values:
        assert excerpt(value, MOST) == value


def test_no_secret_is_kept() -> None:
    """Not under its name, not in a text, not in an object."""
    value: dict[str, Any] = {
        "api_key": "hunter2", "url": "https://ada:hunter2@x.test/", "head": "Bearer hunter2hunter2",
        "list": [{"token": "hunter2"}], "order": Order(5, "hunter2"),
    }  # fmt: skip

    kept = excerpt(value, MOST)

    assert "hunter2" not in str(kept)
    assert kept["order"] == {"sum": 5, "password": "***"}


@pytest.mark.parametrize("before", range(440, 520, 3))
def test_no_half_of_a_secret_is_kept(before: int) -> None:
    """A text that is cut loses what the search for secrets could not see whole."""
    text = "x" * before + " https://ada:" + "hunter" * 60 + "@x.test/ " + "y" * 5000

    assert "hunter" not in str(excerpt({"text": text}, MOST))


@pytest.mark.parametrize(
    "value",
    [
        "x" * 100_000, ["x" * 300] * 1000, {f"k{n}": n for n in range(10_000)}, list(range(9000)),
        {"k" * 5000: {"deep": [[[[[[[1]]]]]]]}}, ["ä" * 400, "日本" * 900], {"a": object()},
        [["x"] * 100] * 100,
    ],
    ids=lambda value: str(type(value)),
)  # fmt: skip
def test_an_excerpt_has_a_bound(value: Any) -> None:
    """And is JSON, whatever it is made of."""
    assert len(msgspec.json.encode(excerpt(value, MOST))) <= MOST * 2.2 + 20


def test_an_excerpt_costs_its_own_size() -> None:
    """Of a million inputs only the first are looked at."""
    looked = 0

    class Many(list[str]):
        def __iter__(self) -> Iterator[str]:
            nonlocal looked
            for each in super().__iter__():
                looked += 1
                yield each

    kept = excerpt({"inputs": Many(["word"] * 100_000)}, MOST)

    assert looked < 200
    assert kept["inputs"][-1].endswith("more")


@pytest.mark.parametrize("value", [7, Spilled("n", 9, 1, "d")])
@pytest.mark.parametrize("inputs", [None, {"a": 1}, "text", [1]])
def test_a_record_comes_back_with_its_inputs(value: Any, inputs: Any) -> None:
    """Beside a value of either kind; a record of a release to come is still told as such."""
    record = Record(
        StepKind.TOOL, "s/t", "d", RecordStatus.OK, value, began=1.0, by="w", inputs=inputs
    )

    data = codec.encode_record(record, 1000)

    assert codec.decode_record(data) == record
    with pytest.raises(NewerRecord):
        codec.decode_record(b"[9" + data[2:])


def test_a_record_that_a_message_completes_keeps_its_inputs() -> None:
    """The store puts the value between two parts, which it does not read."""
    record = Record(StepKind.CHILD, "w", "d", RecordStatus.ENDED, inputs={"id": "kid"}, by="w")

    parts = codec.record_parts(record, RecordStatus.WAITING)
    found = codec.decode_record(parts.done + b'["completed",1]' + parts.rest)

    assert found == record._replace(value=["completed", 1])


def test_no_answer_is_refused_for_a_note_about_it() -> None:
    """A value of just the limit is still recorded."""
    record = Record(StepKind.TOOL, "s/t", "d", RecordStatus.OK, "x" * 900, by="w")
    data = codec.encode_record(record, 1000)

    assert codec.encode_record(record._replace(inputs="y" * 500), len(data))
