"""Label selectors, as Kubernetes writes them: ``queue=default``, ``queue in (a, b)``, ``!queue``.

All of the grammar but ``>`` and ``<``, which no label of ours has an order for. What cannot be read
is refused: a selector that was ignored would select everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from millstream.errors import BadSelector

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]{0,315}[A-Za-z0-9])?"
#: Names of queues may be what values of labels may not: they are compared, not checked.
_VALUE = r"[^\s,()=!<>]*"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s+\(([^()]*)\)\Z")
_EQUAL = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})\Z")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})\Z")
#: A comma ends a requirement unless it stands between parentheses.
_COMMA = re.compile(r",(?![^()]*\))")
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class _Requirement:
    key: str
    #: None: any value will do.
    values: frozenset[str] | None
    wanted: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        found = value is not None and (self.values is None or value in self.values)
        return found is self.wanted


@dataclass(frozen=True, slots=True)
class Selector:
    """What all of a label selector's requirements hold for. An empty one selects everything."""

    text: str
    requirements: tuple[_Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether something with these labels is meant."""
        return all(each.holds(labels) for each in self.requirements)


def parse(text: str) -> Selector:
    """Read a selector. Raises `BadSelector`."""
    if len(text) > _LONGEST:
        raise BadSelector(text, f"it is longer than {_LONGEST:,} characters")
    if not text.strip():
        return Selector("", ())

    parts = [part.strip() for part in _COMMA.split(text)]
    return Selector(text, tuple(_requirement(text, part) for part in parts))


def _requirement(text: str, part: str) -> _Requirement:
    if found := _SET.match(part):
        values = frozenset(value.strip() for value in found[3].split(","))
        return _Requirement(found[1], values, wanted=found[2] == "in")
    if found := _EQUAL.match(part):
        return _Requirement(found[1], frozenset({found[3]}), wanted=found[2] != "!=")
    if found := _EXISTS.match(part):
        return _Requirement(found[2], None, wanted=not found[1])

    raise BadSelector(text, f"{part!r} is no requirement")
