"""Workers are killed and frozen, Redis is restarted and killed: every run ends, and ends well.

What is held: no run is lost; a step whose record stands never happens again; what happens twice
was under way when its worker was lost, no more; a server that knows idempotency keys sees each
effect once; whoever lost a run writes nothing to it; and nothing is left in Redis.

Redis keeps an append-only file and syncs it before it answers (``appendfsync always``), so that
what it acknowledged is there after a kill. With ``everysec`` a power cut may cost a second.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from millstream import Enqueue, SyncClient
from tests.processes.effects import BEGUN
from tests.processes.fleet import Fleet, WorkerProcess, wait_until
from tests.processes.ledger import Ledger, leftovers
from tests.servers import RedisServer

LEASE_S = 1.0
RETENTION_S = 4.0
STEPS = 10


class Chaos:
    """Faults, and an account of what each of them may have cost."""

    def __init__(self, fleet: Fleet, server: RedisServer, ledger: Ledger, random: Random) -> None:
        self.fleet = fleet
        self.server = server
        self.ledger = ledger
        self.random = random
        #: How many steps may happen twice.
        self.bound = 0
        self.frozen: set[int] = set()
        self.done: list[str] = []

    def run(self, faults: list[str]) -> None:
        """Do one fault after another, each while there is work under way."""
        for fault in faults:
            self.let_work()
            if not self.ledger.waiting:
                return
            before = self.bound
            getattr(self, fault)()
            self.done.append(f"{fault} ({self.bound - before} in flight)")

    def let_work(self) -> None:
        """Wait until something has happened since the last fault."""
        seen = len(self.fleet.effects.all(BEGUN))
        wait_until(
            lambda: self.ledger.look() or len(self.fleet.effects.all(BEGUN)) > seen + 20,
            30,
            "the runs go on",
        )

    # -- faults --------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        """A worker dies; another one comes."""
        worker = self._victim()
        worker.kill()
        self.bound += self._in_flight(worker)
        self.fleet.launch()

    def freeze_worker(self) -> None:
        """A worker stops for more than two leases, others take its runs, and it wakes."""
        worker = self._victim()
        self._freeze(worker)
        self._pass_time(self.random.uniform(2.0, 2.6) * LEASE_S)
        worker.thaw()

    def freeze_and_kill(self) -> None:
        """A worker stops and never wakes."""
        worker = self._victim()
        self._freeze(worker)
        self._pass_time(self.random.uniform(0.1, 2.0) * LEASE_S)
        worker.kill()
        self.fleet.launch()

    def hiccup(self) -> None:
        """A worker stops for less than its lease."""
        worker = self._victim()
        worker.freeze()
        self._pass_time(0.3 * LEASE_S)
        worker.thaw()

    def restart_redis(self) -> None:
        """Redis leaves in good order and comes back."""
        with self.server.client() as client:
            client.shutdown()
        wait_until(lambda: not self.server.alive, 10, "Redis has left")
        self._pass_time(self.random.uniform(0, 0.5))
        self.server.restart()

    def kill_redis(self) -> None:
        """Redis dies and comes back."""
        self.server.kill()
        self._pass_time(self.random.uniform(0, 0.5))
        self.server.restart()

    def kill_both(self) -> None:
        """A worker dies while Redis is away."""
        self.server.kill()
        self.kill_worker()
        self.server.restart()

    # -- below ---------------------------------------------------------------------------------

    def _freeze(self, worker: WorkerProcess) -> None:
        worker.freeze()
        self.bound += self._in_flight(worker)
        self.frozen.add(worker.pid)

    def _victim(self) -> WorkerProcess:
        """Return one of the two workers that have most to lose."""
        newest = {effect.run: effect.pid for effect in self.fleet.effects.all(BEGUN)}
        counts = Counter(newest[run] for run in self.ledger.waiting if run in newest)
        alive = [worker for worker in self.fleet.workers if worker.alive]
        return self.random.choice(sorted(alive, key=lambda x: -counts[x.pid])[:2])

    def _in_flight(self, worker: WorkerProcess) -> int:
        # What ended since the last look counts as in flight: the bound is a little wide.
        return self.fleet.effects.in_flight(worker.pid, self.ledger.ended)

    def _pass_time(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.ledger.look()
            time.sleep(0.05)


def chaos(
    tmp_path: Path, server: RedisServer, *, runs: int, pause: float, faults: list[str], seed: int
) -> None:
    """Let runs live through faults, then hold every promise against what happened."""
    settings = {"lease": LEASE_S, "retention": RETENTION_S, "poison": 50, "concurrency": 20}
    with Fleet(tmp_path, server.url, **settings) as fleet, SyncClient(server.url) as client:
        fleet.start(3)
        began = time.monotonic()
        handles = client.enqueue_many(
            [Enqueue("chain", {"steps": STEPS, "pause": pause}) for _ in range(runs)]
        )
        ledger = Ledger(server, [handle.id for handle in handles])
        chaos = Chaos(fleet, server, ledger, Random(seed))
        chaos.run(faults)
        wait_until(ledger.look, 60, f"all runs end, after {chaos.done}", every=0.1)
        took = time.monotonic() - began

        effects = fleet.effects
        late = effects.after_their_record()
        print(
            f"\nseed {seed}: {runs} runs of {STEPS} steps ended in {took:.1f} s after"
            f" {', '.join(chaos.done)}; {len(effects.all(BEGUN))} effects,"
            f" {effects.repeated()} repeated, at most {chaos.bound} may be;"
            f" {effects.repeated_keys()} keyed ones repeated; {len(late)} after their record"
        )
        assert ledger.states() == {"completed"}
        assert len({(x.run, x.step) for x in effects.all(BEGUN)}) == runs * STEPS
        assert chaos.bound > 0
        assert effects.repeated() <= chaos.bound
        assert effects.repeated_keys() == 0
        # A loop can be frozen between the last look at its lease and the first line of the step.
        assert {x.pid for x in late} <= chaos.frozen
        assert len(late) <= sum(fault.startswith("freeze") for fault in chaos.done)
        assert ledger.written_by_others(fleet) == []
        assert {ended.attempt for ended in ledger.ended.values()} == {1}

        living = {worker.until_started().token for worker in fleet.workers if worker.alive}
        deadline = time.monotonic() + RETENTION_S + 5
        while (left := leftovers(server, living)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left == []


def test_runs_live_through_faults(tmp_path: Path, server: RedisServer) -> None:
    """Every kind of fault once."""
    faults = ["kill_worker", "freeze_worker", "kill_redis", "hiccup", "restart_redis"]
    faults += ["freeze_and_kill", "kill_both"]
    chaos(tmp_path, server, runs=100, pause=0.2, faults=faults, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_runs_live_through_many_faults(tmp_path: Path, server: RedisServer, seed: int) -> None:
    """The same with more runs and more faults, in an order that the seed decides."""
    random = Random(seed)
    kinds = ["kill_worker", "freeze_worker", "kill_redis", "hiccup", "restart_redis"]
    kinds += ["freeze_and_kill", "kill_both"]
    faults = random.sample(kinds * 3, 3 * len(kinds))
    chaos(tmp_path, server, runs=200, pause=0.4, faults=faults, seed=seed)
