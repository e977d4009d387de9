"""What a run says and draws stands, or the run hears that it does not, before it acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.lowlevel
import pytest

from millstream.errors import JournalFull, KeyOccupied
from millstream.model.run import Delivery
from millstream.store.commits import Item, Verdict
from millstream.store.keys import Lane
from millstream_worker.held import Held, Stop

pytestmark = pytest.mark.anyio

DELIVERY = Delivery(
    "r1", 1, "normal", "1-0", "flow", None, b"{}", 1, 0, 0, 0.0, None, None, 0.0, 0
)  # fmt: skip
#: More than leaves without being waited for.
MANY = 250


class Box:
    """Takes items, and answers when it is told to."""

    def __init__(self) -> None:
        self.lane = Lane("default")
        self.sent: list[tuple[Sequence[Item], Callable[[Verdict], None]]] = []

    def submit(self, items: Sequence[Item], size: int, answered: Callable[[Verdict], None]) -> None:
        self.sent.append((items, answered))

    def answer(self, *verdicts: Verdict) -> None:
        """Answer what was sent, the first first."""
        for verdict in verdicts:
            self.sent.pop(0)[1](verdict)


def held_in(box: Box) -> Held:
    return Held(DELIVERY, box, 60.0)


@pytest.mark.parametrize(
    ("verdict", "error"), [(Verdict.FULL, JournalFull), (Verdict.OCCUPIED, KeyOccupied)]
)
async def test_values_that_left_unwritten_stop_what_would_act_on_them(
    verdict: Verdict, error: type[Exception]
) -> None:
    """A crash after the effect would draw them anew, and act under another key."""
    box = Box()
    held = held_in(box)
    for number in range(MANY):
        held.write_later(f"uuid#{number}", b"[1]")
    box.answer(verdict)
    assert not _clear(held)

    async with anyio.create_task_group() as group:

        async def act() -> None:
            with pytest.raises(error):
                await held.drawn()

        group.start_soon(act)
        await anyio.lowlevel.checkpoint()
        # There was room for what came last: it is smaller.
        box.answer(Verdict.WRITTEN)
    assert not _clear(held)
    with pytest.raises(error):
        await held.drawn()


async def test_a_verdict_is_heard_although_who_waited_for_it_has_left() -> None:
    """The branch that sent a value may be cancelled; the others act on it all the same."""
    box = Box()
    held = held_in(box)
    held.write_later("uuid#0", b"[1]")
    with anyio.move_on_after(0) as scope:
        await held.drawn()
    assert scope.cancelled_caught

    box.answer(Verdict.FULL)

    with pytest.raises(JournalFull):
        await held.drawn()


async def test_what_was_said_in_vain_is_heard_of() -> None:
    """Nothing waits for an event; the next step does not pass over it."""
    box = Box()
    held = held_in(box)
    held.emit_later("emit#0", b"[1]", b"[2]")
    held.tell()
    assert _clear(held)
    box.answer(Verdict.FULL)

    assert not _clear(held)
    with pytest.raises(JournalFull):
        await held.drawn()


async def test_a_record_that_is_too_large_may_be_followed_by_a_smaller_one() -> None:
    """The workflow was told, and may have an answer to that."""
    box = Box()
    held = held_in(box)

    async def write(error: type[Exception] | None, verdict: Verdict) -> None:
        async with anyio.create_task_group() as group:

            async def one() -> None:
                if error is None:
                    await held.write("step#0", b"[1]")
                else:
                    with pytest.raises(error):
                        await held.write("step#0", b"[1]")

            group.start_soon(one)
            await anyio.lowlevel.checkpoint()
            box.answer(verdict)

    await write(JournalFull, Verdict.FULL)
    assert _clear(held)
    await write(None, Verdict.WRITTEN)


async def test_a_run_that_is_given_up_is_handed_back_and_says_nothing_more() -> None:
    """Its workflow goes on, unheard."""
    box = Box()
    held = held_in(box)
    held.stop(Stop.RELEASED)

    held.give_up()
    held.give_up()

    (items, _) = box.sent[0]
    assert [item[0] for item in items] == ["L"]
    assert len(box.sent) == 1
    assert held.stopped is Stop.LOST


async def test_what_was_lost_is_not_handed_back() -> None:
    """It is somebody else's."""
    box = Box()
    held = held_in(box)
    held.stop(Stop.LOST)

    held.give_up()

    assert box.sent == []


def _clear(held: Held) -> bool:
    # Asked through a function: the type checker takes a property to be the same every time.
    return held.clear
