"""The text of a model leaves in pieces of a sensible size, and never faster than they are kept."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.model.journal import StepKind
from millstream.store import codec
from millstream.store.commits import Verdict
from millstream_worker.held import Stop
from millstream_worker.steps import Step
from millstream_worker.streaming import Text
from tests.test_held import Box, held_in

pytestmark = pytest.mark.anyio

STEP = Step(key="poet#0", kind=StepKind.INFER, target="poet", digest="")


def said(box: Box) -> list[dict[str, Any]]:
    """What has left so far, in order."""
    found = [item[-1] for items, _ in box.sent for item in items]
    return [codec.decode(data)[1] for data in found if isinstance(data, bytes)]


async def test_tokens_are_gathered_and_leave_one_after_the_other() -> None:
    """A store that is slow gets larger pieces, not more of them."""
    box = Box()
    text = Text(held_in(box), STEP)
    text.begin(1)
    for _ in range(3000):
        text.add(0, "word ")
    assert len(box.sent) == 1, "no piece leaves before the one before it stands"

    (first,) = said(box)
    assert first == {
        "step": "poet#0", "input": 0, "offset": 0, "text": "word " * 400, "attempt": 1,
        "fence": 1, "tries": 1,
    }  # fmt: skip
    box.answer(Verdict.WRITTEN)
    text.add(0, "end")
    pieces = said(box)
    assert len(box.sent) == 1
    assert [len(piece["text"]) for piece in pieces] == [8000, 5003]
    assert [piece["offset"] for piece in pieces] == [2000, 10_000]
    text.close()


async def test_answers_to_several_inputs_are_not_mixed() -> None:
    box = Box()
    held = held_in(box)
    text = Text(held, STEP)
    text.begin(1)
    for word in ("a", "b", "c"):
        text.add(0, word)
        text.add(1, word.upper())
    text.end()
    held.send()

    assert [(x["input"], x["offset"], x["text"]) for x in said(box)] == [
        (0, 0, "abc"), (1, 0, "ABC"),
    ]  # fmt: skip


async def test_another_try_begins_at_the_beginning() -> None:
    """What the first try left unsaid is of no use to anybody."""
    box = Box()
    held = held_in(box)
    text = Text(held, STEP)
    text.begin(1)
    text.add(0, "x" * 2000)
    box.answer(Verdict.WRITTEN)
    text.add(0, "lost")
    text.begin(2)
    text.add(0, "anew")
    text.end()
    held.send()

    assert [(x["tries"], x["offset"], x["text"]) for x in said(box)] == [(2, 0, "anew")]


async def test_a_run_that_was_stopped_says_no_more() -> None:
    box = Box()
    held = held_in(box)
    text = Text(held, STEP)
    text.begin(1)
    text.add(0, "begun")
    held.stop(Stop.LOST)
    text.add(0, "x" * 5000)
    text.end()

    assert box.sent == []


async def test_half_a_character_is_no_reason_to_fail() -> None:
    """A server may cut a character in two; each half alone cannot be written."""
    box = Box()
    held = held_in(box)
    text = Text(held, STEP)
    text.begin(1)
    for piece in ("a \ud83c", "\udf0a and \ud83c"):
        text.add(0, piece)
    text.end()
    held.send()

    assert [x["text"] for x in said(box)] == ["a \U0001f30a and \ufffd"]
