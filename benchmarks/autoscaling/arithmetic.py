"""How many replicas a metric asks for: the arithmetic of the HorizontalPodAutoscaler.

Written from the documentation and the tests of Kubernetes, and held to both by ours. Numbers are
whole where Kubernetes has them whole: a utilization in percent is cut off, and a ratio is taken of
what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

#: A ratio this near to one changes nothing.
TOLERANCE = 0.1


class NoMetric(Exception):
    """There is nothing to compute with; the autoscaler leaves things as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as the arithmetic sees it."""

    #: None: the metrics know nothing of it.
    value: float | None
    #: What it asked for of a resource; a plain metric has no requests.
    request: float = 1.0
    #: It has not started yet, or, for CPU, is not ready: what it shows says nothing.
    ignored: bool = False


def utilization(
    current: int, pods: Sequence[Pod], target: float, tolerance: float = TOLERANCE
) -> int:
    """Return the replicas for a share of a resource, in percent of what the pods ask for."""

    def ratio(counted: Sequence[Pod]) -> float:
        used = sum(pod.value or 0 for pod in counted)
        return int(used * 100 / sum(pod.request for pod in counted)) / target

    # On the way down a pod that nothing is known of counts as if it used all it asked for.
    return _of_pods(current, pods, ratio, lambda pod: pod.request, tolerance)


def average(current: int, pods: Sequence[Pod], target: float, tolerance: float = TOLERANCE) -> int:
    """Return the replicas for a metric of pods, such as how many runs each holds."""

    def ratio(counted: Sequence[Pod]) -> float:
        return int(sum(pod.value or 0 for pod in counted) / len(counted)) / target

    return _of_pods(current, pods, ratio, lambda _: target, tolerance)


def average_value(
    replicas: int, total: float | None, target: float, tolerance: float = TOLERANCE
) -> int:
    """Return the replicas for a total that is divided by them: type ``AverageValue``."""
    if total is None:
        raise NoMetric
    if replicas and abs(1 - total / (target * replicas)) <= tolerance:
        return replicas

    return math.ceil(total / target)


def value(
    replicas: int, total: float | None, target: float, ready: int, tolerance: float = TOLERANCE
) -> int:
    """Return the replicas for a number compared as it is: type ``Value``.

    What it exceeds the target by is what the *ready* replicas are multiplied with. For the length
    of a queue that is an amplifier: more replicas do not make it shorter at once.
    """
    if total is None:
        raise NoMetric
    ratio = total / target
    if replicas == 0:
        return math.ceil(ratio)
    if abs(1 - ratio) <= tolerance:
        return replicas

    return math.ceil(ratio * ready)


# -- metrics of single pods --------------------------------------------------------------------

_Ratio = Callable[[Sequence[Pod]], float]
_Full = Callable[[Pod], float]


def _of_pods(
    current: int,
    pods: Sequence[Pod],
    ratio: _Ratio,
    full: _Full,
    tolerance: float,
) -> int:
    ignored = [pod for pod in pods if pod.ignored]
    missing = [pod for pod in pods if not pod.ignored and pod.value is None]
    known = [pod for pod in pods if not pod.ignored and pod.value is not None]
    if not known:
        raise NoMetric

    first = ratio(known)
    if first == 1:
        return current  # nothing to speak against
    rebalanced = bool(ignored) and first > 1
    if not rebalanced and not missing:
        return current if abs(1 - first) <= tolerance else math.ceil(first * len(known))

    # What is not known speaks against the change, whichever way it goes.
    guessed = [replace(pod, value=full(pod) if first < 1 else 0.0) for pod in missing]
    if rebalanced:
        guessed += [replace(pod, value=0.0) for pod in ignored]
    return _rechecked(
        current, first, ratio([*known, *guessed]), len(known) + len(guessed), tolerance
    )


def _rechecked(current: int, first: float, second: float, counted: int, tolerance: float) -> int:
    """Return what the second look says, unless it would turn the first one round."""
    turned = (first < 1 < second) or (first > 1 > second)
    if abs(1 - second) <= tolerance or turned:
        return current

    replicas = math.ceil(second * counted)
    against = (second < 1 and replicas > current) or (second > 1 and replicas < current)
    return current if against else replicas
