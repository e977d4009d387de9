"""Values of labels: which are told apart, and how long they may be.

Promise: a label whose values do not end collapses into ``other``, each time it does is counted, and
none is in the way of the others. It does not know what a label is about.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

OTHER = "other"
#: Distinct values a label may have before the next one becomes ``other``.
LIMITS: Mapping[str, int] = {
    "workflow_type": 200,
    "queue": 200,
    "server": 50,
    "tool": 200,
    "error_type": 50,
    "model": 50,
    "device": 64,
    "endpoint": 100,
    "recipient": 50,
    "sender": 50,
    "capability": 50,
    "version": 100,
    # Of the overflows themselves: one that did not fit would be counted as one that did not fit.
    "label": 100,
}
#: The same for labels that stand for closed sets.
CLOSED_LIMIT = 20
_LONGEST = 120


class Bounds:
    """Which values of a label are told apart."""

    def __init__(self, overflowed: Callable[[str], None]) -> None:
        self._known: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self.overflowed = overflowed

    def keep(self, label: str, value: str) -> str:
        """Return the value, or ``other`` when the label has too many already."""
        value = as_text(value)
        with self._lock:
            known = self._known.setdefault(label, {OTHER})
            if value in known:
                return value
            # `other` is one of the known and does not count.
            if len(known) <= LIMITS.get(label, CLOSED_LIMIT):
                known.add(value)
                return value

        self.overflowed(label)
        return OTHER


def as_text(value: str) -> str:
    """Return a value of bounded length that can be encoded.

    What is no text would be in the way of all series whenever somebody asks for them.
    """
    return value[:_LONGEST].encode("utf-8", "replace").decode()
