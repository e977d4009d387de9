"""The thread of a device gets the interpreter while the event loop is busy."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import anyio
import pytest

from millstream_worker.inference.interpreter import TURN_S
from millstream_worker.inference.runner import Runner


@pytest.fixture(autouse=True)
def _interval() -> Iterator[None]:
    """Leave the interpreter as it was found."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


async def _compute() -> None:
    runner, done = Runner("device"), anyio.Event()
    runner.submit(lambda: None, lambda _: done.set())
    await done.wait()
    runner.close()


@pytest.mark.anyio
async def test_threads_take_turns_from_the_first_job_of_a_device_on() -> None:
    """Five milliseconds at a time would be most of a batch of a small model."""
    Runner("idle")
    assert sys.getswitchinterval() == pytest.approx(0.005)
    await _compute()
    assert sys.getswitchinterval() == pytest.approx(TURN_S)


@pytest.mark.anyio
async def test_an_interpreter_that_lets_go_sooner_is_left_as_it_is() -> None:
    """Whoever started this process may know better."""
    sys.setswitchinterval(TURN_S / 2)
    await _compute()
    assert sys.getswitchinterval() == pytest.approx(TURN_S / 2)
