"""Schedulers in this process: started, crashed, told to leave, and watched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from millstream.events import Event
from millstream.store.connection import Connection
from millstream.telemetry.health import Health
from millstream_scheduler.compose import Parts, compose
from millstream_scheduler.config import SchedulerConfig
from millstream_scheduler.serve import Scheduler

E = TypeVar("E")


class Transcript(list[Event]):
    """What happened, in order; and a way to wait for what has not happened yet."""

    def __init__(self) -> None:
        super().__init__()
        self._more = anyio.Event()

    def __call__(self, event: Event) -> None:
        """Take down an event."""
        self.append(event)
        self.stir()

    def stir(self) -> None:
        """Have everybody who waits look again."""
        self._more.set()
        self._more = anyio.Event()

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return [event for event in self if isinstance(event, kind)]

    async def until(self, condition: Callable[[], Any], seconds: float = 10) -> Any:
        """Return what the condition returns, once an event made it true."""
        with anyio.fail_after(seconds):
            while not (found := condition()):
                await self._more.wait()
        return found


class Turns(Health):
    """Counts the turns of the election."""

    def __init__(self, transcript: Transcript) -> None:
        super().__init__()
        self.count = 0
        self._transcript = transcript

    def claim_turned(self) -> None:
        """The election turned."""
        super().claim_turned()
        self.count += 1
        self._transcript.stir()


@dataclass(slots=True)
class Replica:
    """One scheduler, on a connection of its own."""

    scheduler: Scheduler
    transcript: Transcript
    health: Turns
    connection: Connection
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)

    @property
    def leading(self) -> bool:
        """Whether it believes that it leads."""
        return self.scheduler.leading

    def crash(self) -> None:
        """End it without giving it time for anything."""
        self.gone.set()
        self.scope.cancel()

    async def run(self) -> None:
        """Serve until told to leave, or crashed."""
        try:
            with self.scope:
                await self.scheduler.serve()
        finally:
            self.gone.set()
            self.transcript.stir()
            with anyio.move_on_after(1, shield=True):
                await self.connection.aclose()


class Replicas(list[Replica]):
    """Schedulers side by side. What they tell goes into one transcript."""

    def __init__(self, url: str, group: TaskGroup, settings: dict[str, Any]) -> None:
        super().__init__()
        self.transcript = Transcript()
        #: The most that believed at one moment that they lead.
        self.most = 0
        self._url = url
        self._group = group
        self._settings = settings

    def start(
        self, count: int = 1, parts: dict[str, Any] | None = None, **settings: Any
    ) -> Replica:
        """Start some; return the last."""
        for _ in range(count):
            connection = Connection(self._url)
            health = Turns(self.transcript)
            config = SchedulerConfig(redis=self._url, **{**self._settings, **settings})
            given: dict[str, Any] = {
                "connection": connection, "emit": self._told, "health": health, **(parts or {})
            }  # fmt: skip
            scheduler = compose(config, Parts(**given))
            self.append(Replica(scheduler, self.transcript, health, connection))
            self._group.start_soon(self[-1].run)
        return self[-1]

    async def until_led(self, seconds: float = 10) -> Replica:
        """Return the replica that leads, once there is one."""
        found: Replica = await self.transcript.until(
            lambda: next((x for x in self if x.leading and not x.gone.is_set()), None), seconds
        )
        return found

    async def until_turned(self, times: int, seconds: float = 10) -> None:
        """Return once every replica that runs has asked so many times more."""
        goals = [(x, x.health.count + times) for x in self if not x.gone.is_set()]
        await self.transcript.until(lambda: all(x.health.count >= n for x, n in goals), seconds)

    def _told(self, event: Event) -> None:
        self.most = max(self.most, sum(x.leading for x in self if not x.gone.is_set()))
        self.transcript(event)


@asynccontextmanager
async def replicas(url: str, **settings: Any) -> AsyncIterator[Replicas]:
    """Give room for schedulers, and end them with the block."""
    async with anyio.create_task_group() as group:
        yield Replicas(url, group, settings)
        group.cancel_scope.cancel()
