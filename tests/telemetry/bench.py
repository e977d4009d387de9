"""A subscriber with a registry and a clock of its own, and the events that tests tell it."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.exposition import generate_latest

from millstream.events import QueueSampled, RunSettled, RunTaken
from millstream.telemetry.metrics import MetricsSubscriber, Registry


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A subscriber with a registry and a clock of its own."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.clock = Clock()
        self.emit = MetricsSubscriber(
            self.registry, service="millstream-worker", version="1.2", mono=self.clock
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def series(self, name: str) -> set[tuple[str, ...]]:
        return {
            tuple(sample.labels.values())
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name
        }

    def state(self) -> bytes:
        return generate_latest(self.registry)


def taken(run_id: str = "r1", *, fence: int = 1, workflow: str = "w") -> RunTaken:
    return RunTaken(
        run_id=run_id,
        workflow=workflow,
        queue="q",
        attempt=1,
        fence=fence,
        records=0,
        waited_s=0.2,
    )


def settled(
    state: str = "completed", *, run_id: str = "r1", workflow: str = "w", error: str | None = None
) -> RunSettled:
    return RunSettled(
        run_id=run_id, workflow=workflow, queue="q", state=state, attempt=1, took_s=2.0, error=error
    )


def sampled(queue: str = "q", waiting: int = 7) -> QueueSampled:
    return QueueSampled(
        queue=queue,
        waiting=waiting,
        running=3,
        scheduled=2,
        parked=1,
        dead=4,
        oldest_s=12.5,
        workers=5,
    )
