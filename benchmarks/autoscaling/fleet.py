"""A fleet and its queue: pods that take time to start and to drain, runs that hold slots.

What a worker does is as this project's does it: it takes a run as soon as a slot is free, a pod
that is told to stop takes nothing more and finishes what it can within its grace, and what is left
then goes back to the front of the queue and goes on elsewhere after its last recorded step.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a pod is like. Seconds are seconds."""

    concurrency: int = 20
    #: A pod is scheduled, its image is there, the process starts and is found ready.
    starts_s: tuple[float, float] = (20.0, 40.0)
    grace_s: float = 30.0
    #: What of a step is done again when its run is taken elsewhere.
    repeated_s: float = 2.0


@dataclass(slots=True)
class Run:
    """A run that waits or is held."""

    arrived: float
    left_s: float
    #: How long it waited before it was taken for the first time.
    waited_s: float | None = None
    #: Grows each time it is taken: the end of an earlier hold means nothing any more.
    holds: int = 0


@dataclass(slots=True)
class Pod:
    """A pod: starting, ready or draining."""

    number: int
    made: float
    ready: bool = False
    draining: bool = False
    holds: dict[int, tuple[Run, float]] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What has happened so far."""

    added: int = 0
    gone: int = 0
    interrupted: int = 0
    pod_s: float = 0.0
    waits: list[float] = field(default_factory=list)


class Fleet:
    """Pods and a queue on simulated time. ``advance`` lets time pass."""

    def __init__(self, shape: Shape, rng: Random, replicas: int) -> None:
        self.shape = shape
        self.now = 0.0
        self.counts = Counts()
        self.pods: dict[int, Pod] = {}
        self.waiting: deque[Run] = deque()
        self._rng = rng
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        for _ in range(replicas):
            self._ready(self._make())

    # -- what is seen ----------------------------------------------------------------------------

    @property
    def replicas(self) -> list[Pod]:
        """Pods that are meant to be there."""
        return [pod for pod in self.pods.values() if not pod.draining]

    @property
    def running(self) -> int:
        """Runs that are held."""
        return sum(len(pod.holds) for pod in self.pods.values())

    # -- what is done ----------------------------------------------------------------------------

    def advance(self, until: float) -> None:
        """Let everything happen that does until then."""
        while self._events and self._events[0][0] <= until:
            at, _, act = heapq.heappop(self._events)
            self._pass(at)
            act()
        self._pass(until)

    def arrive(self, service_s: float) -> None:
        """A run comes, at this moment."""
        self._queue(Run(self.now, service_s))
        self._take()

    def scale(self, wanted: int) -> None:
        """Be given another number of replicas."""
        there = self.replicas
        for _ in range(wanted - len(there)):
            pod = self._make()
            self._at(self.now + self._rng.uniform(*self.shape.starts_s), self._ready, pod)
        # As a ReplicaSet chooses: what is not ready first, then what has been ready least long.
        there.sort(key=lambda pod: (pod.ready, -pod.made))
        for pod in there[: max(0, len(there) - wanted)]:
            self._drain(pod)

    # -- pods ------------------------------------------------------------------------------------

    def _make(self) -> Pod:
        pod = Pod(next(self._numbers), self.now)
        self.pods[pod.number] = pod
        return pod

    def _ready(self, pod: Pod) -> None:
        if pod.number in self.pods and not pod.draining:
            pod.ready = True
            self._take()

    def _drain(self, pod: Pod) -> None:
        pod.draining = True
        if pod.holds:
            self._at(self.now + self.shape.grace_s, self._kill, pod)
        else:
            del self.pods[pod.number]

    def _kill(self, pod: Pod) -> None:
        """The grace is over: what is left goes back, in the order in which it was taken."""
        if self.pods.pop(pod.number, None) is None:
            return

        for run, ends in reversed(pod.holds.values()):
            run.left_s = max(0.0, ends - self.now) + self.shape.repeated_s
            run.holds += 1
            self.counts.gone += 1
            self.counts.interrupted += 1
            self._queue(run, front=True)
        self._take()

    # -- runs ------------------------------------------------------------------------------------

    def _queue(self, run: Run, *, front: bool = False) -> None:
        self.counts.added += 1
        (self.waiting.appendleft if front else self.waiting.append)(run)

    def _take(self) -> None:
        while self.waiting:
            free = [pod for pod in self.pods.values() if self._free(pod)]
            if not free:
                return
            self._hold(self._rng.choice(free), self.waiting.popleft())

    def _free(self, pod: Pod) -> bool:
        return pod.ready and not pod.draining and len(pod.holds) < self.shape.concurrency

    def _hold(self, pod: Pod, run: Run) -> None:
        if run.waited_s is None:
            run.waited_s = self.now - run.arrived
            self.counts.waits.append(run.waited_s)
        ends = self.now + run.left_s
        pod.holds[id(run)] = (run, ends)
        self._at(ends, self._end, pod, run, run.holds)

    def _end(self, pod: Pod, run: Run, holds: int) -> None:
        if run.holds != holds:
            return

        del pod.holds[id(run)]
        self.counts.gone += 1
        if pod.draining and not pod.holds:
            self.pods.pop(pod.number, None)
        self._take()

    # -- time ------------------------------------------------------------------------------------

    def _at(self, when: float, act: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._events, (when, next(self._order), lambda: act(*args)))

    def _pass(self, until: float) -> None:
        self.counts.pod_s += (until - self.now) * len(self.pods)
        self.now = until
