"""Makes happen what the seed has drawn, and makes everything whole again in the end."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from tests.simulation.faults import Fault, Flakiness
from tests.simulation.processes import Process

if TYPE_CHECKING:
    from tests.simulation.history import History


class Director:
    """Breaks one history."""

    def __init__(self, history: History, flakiness: Flakiness) -> None:
        self._history = history
        self._network = history.network
        self._loop = history.loop
        self._flakiness = flakiness
        self._over = False

    def begin(self) -> None:
        """Have every fault happen at its time."""
        for fault in self._history.faults:
            self._loop.outside(fault.at, self._break, fault)

    def heal(self) -> None:
        """Nothing is broken from now on."""
        self._history.note("fault", "no more of them")
        self._over = True
        self._quicken()
        self._flakiness.odds.clear()
        self._network.stalled_until = 0.0
        for process in self._history.processes:
            process.host.after(0, lambda: None)
            process.thaw()
            process.heal()
        self._return()
        for slot in range(len(self._history.serving)):
            self._replace(slot)

    # -- one fault -----------------------------------------------------------------------------

    def _break(self, fault: Fault) -> None:
        if self._over:
            return
        self._history.note("fault", str(fault))
        slot = fault.target % len(self._history.serving)
        match fault.kind:
            case "crash" | "freeze" | "block" | "cut" | "lapse" | "deploy":
                self._hit(fault, slot, self._history.serving[slot])
            case "clock":
                self._history.clock_jumped = True
                self._loop.redis_offset += fault.amount
            case "client":
                self._history.restart_client()
            case "flaky":
                self._flakiness.draw_odds()
                self._later(fault.lasts, self._flakiness.odds.clear)
            case "slow":
                self._network.latency_s = 0.3 * fault.amount / 40
                self._later(fault.lasts, self._quicken)
            case _:
                self._hit_redis(fault)

    def _hit(self, fault: Fault, slot: int, process: Process) -> None:
        match fault.kind:
            case "crash":
                process.host.after(int(fault.amount), lambda: self._crash(slot, process, fault))
            case "freeze" | "block":
                whole = fault.kind == "freeze"
                process.host.after(int(fault.amount), lambda: process.freeze(whole=whole))
                self._later(fault.lasts, process.thaw)
            case "cut" | "lapse":
                process.cut(fault.style, renewer_only=fault.kind == "lapse")
                self._later(fault.lasts, process.heal)
            case _:
                process.drain()
                self._history.start(slot)

    def _hit_redis(self, fault: Fault) -> None:
        match fault.kind:
            case "stall":
                self._network.stalled_until = self._loop.time() + fault.lasts
            case "flush":
                self._network.server.dbs[0].clear()
                self._history.shadow.forget()
            case "failover":
                # What the old master did from now on, the new one has never heard of.
                kept = copy.deepcopy(self._network.server.dbs[0]._dict)
                self._later(fault.amount, self._fail_over, kept, fault)
            case _:
                self._leave(fault)

    def _leave(self, fault: Fault) -> None:
        self._network.away = fault.style
        if fault.kind == "restart":
            self._network.restart()
        elif fault.style == "refuse":
            self._network.break_all()
        self._later(fault.lasts, self._return)

    def _fail_over(self, kept: dict[bytes, Any], fault: Fault) -> None:
        if self._over:
            return
        self._history.note("fault", "the replica takes over")
        self._network.restart()
        self._network.server.dbs[0]._dict = kept
        self._history.shadow.forget()
        self._leave(fault)

    # -- and its end ---------------------------------------------------------------------------

    def _later(self, after_s: float, action: Any, *args: Any) -> None:
        self._loop.outside(self._loop.time() + after_s, action, *args)

    def _crash(self, slot: int, process: Process, fault: Fault) -> None:
        if self._over or not process.alive or self._history.serving[slot] is not process:
            return
        self._history.note(process.name, "crashes")
        process.crash(power_loss=fault.style == "hang")
        self._later(fault.lasts, self._replace, slot)

    def _replace(self, slot: int) -> None:
        if not (self._history.over or self._history.serving[slot].alive):
            self._history.start(slot)

    def _return(self) -> None:
        self._network.away = ""
        for process in self._history.processes:
            if process.alive:
                for link in process.links:
                    if not link.cut:
                        self._network.heal(link)

    def _quicken(self) -> None:
        self._network.latency_s = 0.002
