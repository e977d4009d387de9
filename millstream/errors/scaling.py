"""What keeps an autoscaler from getting its number."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.errors.root import MillstreamError


class ScalingError(MillstreamError):
    """An autoscaler does not get its number. It changes nothing and asks again."""


class StaleReading(ScalingError):
    """How much a queue holds is not known well enough to be told. Ask again."""

    def __init__(self, queue: str, age_s: float | None, stale_s: float) -> None:
        found = (
            "there is no reading of it yet"
            if age_s is None
            else f"the last reading is {age_s:.0f} s old, and believed for {stale_s:.0f} s"
        )
        super().__init__(
            f"what queue {queue!r} holds is not known: {found};"
            " does a scheduler lead, and does Redis answer?"
        )
        self.queue = queue
        self.age_s = age_s
        self.stale_s = stale_s


class NoSuchQueue(ScalingError):
    """A selector means none of the queues that this scheduler looks after."""

    def __init__(self, selector: str, queues: Sequence[str]) -> None:
        super().__init__(
            f"selector {selector!r} means no queue of this scheduler, which looks after"
            f" {', '.join(queues)}; correct it, or start the scheduler with --queue"
        )
        self.selector = selector
        self.queues = tuple(queues)


class BadSelector(ScalingError):
    """A label selector cannot be read."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"label selector {text[:200]!r} cannot be read: {reason[:200]}")
        self.text = text
        self.reason = reason


class KubernetesUnavailable(ScalingError):
    """The API server of the cluster did not answer, or answered no. Ask again."""

    def __init__(self, wanted: str, reason: str) -> None:
        super().__init__(f"the Kubernetes API did not answer for {wanted}: {reason}")
        self.wanted = wanted
        self.reason = reason
