"""Lets the faults of a history happen: to its processes, to its network, to its clock.

Some wait for the moment in which they hurt. A *zombie* is a worker that stops in the middle of
its work, or right after it has sent something that is held up on its way; it goes on, or what it
sent arrives, when somebody else has taken what it held.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.faults import Fault, Flakiness
from tests.simulation.network import Fate, Link, Request
from tests.simulation.processes import Process

if TYPE_CHECKING:
    from tests.simulation.history import History


class Director:
    """Breaks things, and mends them in the end."""

    def __init__(self, history: History, faults: Sequence[Fault], random: Random) -> None:
        self.faults = faults
        #: When everything was mended; until then, as if that were always just now.
        self.healed = float("inf")
        self._history = history
        self._network = history.network
        self._loop = history.loop
        self._random = random
        self._flakiness = Flakiness(random)
        #: Workers that will stop at the next effect they begin, or after the next commit they send.
        self._stopping: dict[str, Fault] = {}
        #: Workers that have stopped so, and what they held when they did.
        self._stopped: dict[str, set[str]] = {}

    @property
    def kinds(self) -> set[str]:
        """What kinds of fault this history has."""
        return {fault.kind for fault in self.faults}

    def begin(self) -> None:
        """Have every fault happen at its time."""
        for fault in self.faults:
            self._loop.outside(fault.at, self._break, fault)

    def heal(self) -> None:
        """Mend everything: from here on nothing breaks."""
        self._history.note("fault", "no more of them")
        self.healed = self._loop.time()
        self._back()
        self._quick()
        self._flakiness.odds.clear()
        self._network.stalled_until = 0.0
        self._stopping.clear()
        for name in list(self._stopped):
            self._go_on(name)
        for process in self._history.processes.values():
            process.host.after(0, lambda: None)
            process.thaw()
            process.heal()
        for place in range(len(self._history.places)):
            self._replace(place)

    def fate(self, link: Link, request: Request) -> tuple[Fate, float]:
        """Decide what becomes of a request."""
        process = self._history.processes.get(link.host.name)
        fault = self._stopping.get(link.host.name)
        if (
            fault is not None
            and process is not None
            and fault.style == "hang"
            and self._history.shadow.writes(request)
        ):
            self._stop(process)
            return Fate.HELD_UP, 0.0

        return self._flakiness.fate()

    def began(self, process: Process) -> None:
        """A worker begins an effect."""
        fault = self._stopping.get(process.name)
        if fault is not None and fault.style == "refuse":
            process.host.after(int(fault.amount) // 4, lambda: self._stop(process))

    def executed(self) -> None:
        """Redis has executed something: perhaps it gave what a zombie held to somebody else."""
        for name, held in self._stopped.items():
            token = self._history.processes[name].token
            if any(self._taken(run_id, token) for run_id in held):
                held.clear()
                pause_s = 0.4 * self._random.random() ** 2
                self._loop.outside(self._loop.time() + pause_s, self._go_on, name)

    def _taken(self, run_id: str, token: str) -> bool:
        run = self._history.view.run(run_id)
        return run.get(b"state") == b"running" and run.get(b"owner") != token.encode()

    # -- one fault -----------------------------------------------------------------------------

    def _break(self, fault: Fault) -> None:
        if self._history.over:
            return
        self._history.note("fault", str(fault))
        end = self._loop.time() + fault.lasts
        place = fault.target % len(self._history.places)
        process = self._history.places[place]
        match fault.kind:
            case "crash":
                process.host.after(int(fault.amount), lambda: self._crash(place, process, fault))
            case "freeze" | "block":
                process.host.after(
                    int(fault.amount), lambda: process.freeze(whole=fault.kind == "freeze")
                )
                self._loop.outside(end, process.thaw)
            case "zombie":
                if process.worker is not None:
                    self._stopping[process.name] = fault
            case "cut" | "lapse":
                process.cut(fault.style, renewer_only=fault.kind == "lapse")
                self._loop.outside(end, process.heal)
            case "outage" | "restart":
                self._network.away = fault.style
                if fault.kind == "restart":
                    self._network.restart()
                elif fault.style == "refuse":
                    self._network.break_all()
                self._loop.outside(end, self._back)
            case "stall":
                self._network.stalled_until = end
            case "clock":
                self._loop.redis_offset += fault.amount
            case "flaky":
                self._flakiness.draw_odds()
                self._loop.outside(end, self._flakiness.odds.clear)
            case "slow":
                self._network.latency_s = 0.3 * fault.amount / 40
                self._loop.outside(end, self._quick)
            case "client":
                self._restart_client()
            case "deploy":
                process.drain()
                self._history.places[place] = self._history.start(place)

    def _crash(self, place: int, process: Process, fault: Fault) -> None:
        if not process.alive or self._history.places[place] is not process:
            return
        self._history.note(process.name, "crashes")
        process.crash(power_loss=fault.style == "hang")
        self._loop.outside(self._loop.time() + fault.lasts, self._replace, place)

    def _replace(self, place: int) -> None:
        history = self._history
        if not (history.over or history.places[place].alive):
            history.places[place] = history.start(place)

    def _stop(self, process: Process) -> None:
        fault = self._stopping.pop(process.name, None)
        if fault is None or not process.alive or process.host.frozen:
            return
        held = self._history.view.held_by(process.token)
        self._history.note(process.name, f"stops, holding {sorted(held)}")
        process.freeze(whole=True)
        self._stopped[process.name] = held
        # In the end it goes on even if nobody missed it.
        late = self._loop.time() + 3 * self._history.config.lease
        self._loop.outside(late, self._go_on, process.name)

    def _go_on(self, name: str) -> None:
        if self._stopped.pop(name, None) is None or self._history.over:
            return
        self._history.note(name, "goes on")
        process = self._history.processes[name]
        self._network.let_through(process.link)
        self._loop.outside(self._loop.time() + 0.1 * self._random.random(), process.thaw)

    def _back(self) -> None:
        self._network.away = ""

    def _quick(self) -> None:
        self._network.latency_s = 0.002

    def _restart_client(self) -> None:
        client = self._history.client
        assert client is not None
        client.crash(power_loss=False)
        self._history.client = self._history.start_client()
