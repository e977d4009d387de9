"""What becomes of a recommendation: the ``behavior`` of a HorizontalPodAutoscaler.

A window remembers recommendations, and the least daring of them is followed. Policies bound how
much may change in a period; what has changed within it already counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True)
class Policy:
    """How much may change in a period: so many pods, or so many percent."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one direction."""

    window_s: int
    policies: tuple[Policy, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """Read what stands in a manifest."""
        return cls(
            window_s=document["stabilizationWindowSeconds"],
            select=document.get("selectPolicy", "Max"),
            policies=tuple(
                Policy(each["type"], each["value"], each["periodSeconds"])
                for each in document["policies"]
            ),
        )

    def document(self) -> dict[str, Any]:
        """Return what stands in a manifest."""
        return {
            "stabilizationWindowSeconds": self.window_s,
            "selectPolicy": self.select,
            "policies": [
                {"type": each.kind, "value": each.value, "periodSeconds": each.period_s}
                for each in self.policies
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """The rules of both. Those that Kubernetes has where none are given are the default."""

    up: Rules = field(
        default=Rules(window_s=0, policies=(Policy("Percent", 100, 15), Policy("Pods", 4, 15)))
    )
    down: Rules = field(default=Rules(window_s=300, policies=(Policy("Percent", 100, 15),)))

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """Read what stands in a manifest."""
        return cls(up=Rules.of(document["scaleUp"]), down=Rules.of(document["scaleDown"]))

    def document(self) -> dict[str, Any]:
        """Return what stands in a manifest."""
        return {"scaleUp": self.up.document(), "scaleDown": self.down.document()}


@dataclass(slots=True)
class History:
    """What was recommended and what was changed; the memory of one autoscaler."""

    recommended: list[tuple[float, int]] = field(default_factory=list)
    added: list[tuple[float, int]] = field(default_factory=list)
    removed: list[tuple[float, int]] = field(default_factory=list)

    def forget(self, before: float) -> None:
        """Drop what is older than any window."""
        for kept in (self.recommended, self.added, self.removed):
            kept[:] = [each for each in kept if each[0] >= before]


def normalized(  # noqa: PLR0917 - the steps of one rule
    now: float, current: int, desired: int, bounds: tuple[int, int], rules: Behavior, past: History
) -> int:
    """Return how many replicas there will be, and remember the recommendation."""
    lowest, highest = bounds
    steady = _stabilized(now, current, desired, rules, past.recommended)
    past.recommended.append((now, desired))
    if steady > current:
        limit = max(current, limit_up(now, current, rules.up, past))
        return min(steady, limit, highest)
    if steady < current:
        limit = min(current, limit_down(now, current, rules.down, past))
        return max(steady, limit, lowest)

    return min(max(current, lowest), highest)


def limit_up(now: float, current: int, rules: Rules, past: History) -> int:
    """Return how many replicas the policies allow on the way up."""

    def allowed(policy: Policy) -> int:
        began = current - _since(now, policy, past.added) + _since(now, policy, past.removed)
        if policy.kind == "Pods":
            return began + policy.value
        # Rounded up, or a small fleet would never grow.
        return math.ceil(began * (1 + policy.value / 100))

    return _selected(current, rules, allowed, most=max, least=min)


def limit_down(now: float, current: int, rules: Rules, past: History) -> int:
    """Return how few replicas the policies allow on the way down."""

    def allowed(policy: Policy) -> int:
        began = current + _since(now, policy, past.removed) - _since(now, policy, past.added)
        if policy.kind == "Pods":
            return began - policy.value
        return int(began * (1 - policy.value / 100))

    return _selected(current, rules, allowed, most=min, least=max)


def _stabilized(
    now: float, current: int, desired: int, rules: Behavior, past: Iterable[tuple[float, int]]
) -> int:
    up = down = desired
    for at, replicas in past:
        if at > now - rules.up.window_s:
            up = min(up, replicas)
        if at > now - rules.down.window_s:
            down = max(down, replicas)
    return min(max(current, up), down)


def _since(now: float, policy: Policy, changes: Sequence[tuple[float, int]]) -> int:
    return sum(count for at, count in changes if at > now - policy.period_s)


def _selected(
    current: int,
    rules: Rules,
    allowed: Callable[[Policy], int],
    *,
    most: Callable[[Iterable[int]], int],
    least: Callable[[Iterable[int]], int],
) -> int:
    if rules.select == "Disabled":
        return current
    choose = most if rules.select == "Max" else least
    return choose(allowed(policy) for policy in rules.policies)
