"""What an inference costs beside its device, counted: calls of the interpreter, not seconds."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.batching import budget

#: A few per cent above what was counted last, on every Python that is tested.
MOST_CALLS = 125


def test_an_inference_costs_few_calls_of_the_interpreter() -> None:
    """They compete with the Python of the model for one lock, or for the core that it runs on."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        played = budget.play(20.0, 1.0, seed=1)
    finally:
        sys.setprofile(before)
    assert played.answered > 1000
    assert calls / played.answered <= MOST_CALLS
