"""The state machine stands twice, in `MOVES` and in the scripts: this keeps the two the same.

Every verb of the store is tried on a run in every state. What it does to the state must be a move
of the table, and every move of the table must be made by some verb.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from millstream.model.outcome import Cancelled, Completed, Failed, Parked, Refused, Released, Retry
from millstream.model.run import MOVES, Delivery, RunState
from millstream.store import commits, deliveries, results, runs
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from tests.store.bench import LONG_S, RETENTION_S, Bench
from tests.store.states import put

#: A delivery that is named where the run has none.
NOBODY = Delivery(
    run_id="r1", fence=1, level="normal", entry="1-1", workflow="flow", version=None,
    arguments=b"", attempt=1, base=0, crashes=0, ran_s=0, timeout_s=None, tenant=None,
    enqueued=0, records=0,
)  # fmt: skip

Mover = Callable[[Bench, Delivery], Awaitable[object]]


async def after_lapse(bench: Bench, poison: int) -> None:
    await bench.renew("w1")
    await bench.lapse("w1")
    await bench.sweep(poison=poison)


async def after_due(bench: Bench) -> None:
    await bench.fall_due("r1")
    await bench.sweep()


MOVERS: dict[str, Mover] = {
    "enqueue": lambda b, _: b.accept("r1"),
    "enqueue another": lambda b, _: b.accept("r1", workflow="else", delay_s=LONG_S),
    "take": lambda b, _: b.take("w2", 5),
    "read": lambda b, _: b.read("w2"),
    "adopt": lambda b, d: b.adopt("w1", d.level, d.entry),
    "adopt another's": lambda b, d: b.adopt("w2", d.level, d.entry),
    "hand back": lambda b, d: b.verdict("w1", commits.hand_back(d.level, d.entry, RETENTION_S)),
    "journal": lambda b, d: b.verdict("w1", commits.journal(d, [("a", b"1")], "1")),
    "emit": lambda b, d: b.verdict("w1", commits.emit(d, "e", b"1", b'["n",1]', "1")),
    "complete": lambda b, d: b.end(d, Completed(b"1")),
    "fail": lambda b, d: b.end(d, Failed("E", "m")),
    "end cancelled": lambda b, d: b.end(d, Cancelled()),
    "retry": lambda b, d: b.end(d, Retry(LONG_S, "E", "m")),
    "park": lambda b, d: b.end(d, Parked(4e9, 0)),
    "release": lambda b, d: b.end(d, Released()),
    "refuse": lambda b, d: b.end(d, Refused(LONG_S)),
    "complete as another": lambda b, d: b.end(d, Completed(b"1"), "w2"),
    "complete under another fence": lambda b, d: b.end(d._replace(fence=9), Completed(b"1")),
    "cancel": lambda b, _: b.cancel("r1"),
    "revive": lambda b, _: b.revive("r1"),
    "sweep": lambda b, _: b.sweep(),
    "sweep when due": lambda b, _: after_due(b),
    "sweep when the worker is lost": lambda b, _: after_lapse(b, 3),
    "sweep when it is poison": lambda b, _: after_lapse(b, 1),
    "watch": lambda b, _: results.watch(b.store, b.lane, "c1", ["r1"]),
    "holdings": lambda b, d: deliveries.holdings(b.store, b.lane, "w1", [d]),
    "depth": lambda b, _: runs.depth(b.store, b.lane),
}


async def test_the_scripts_make_exactly_the_moves_of_the_model(store: Connection) -> None:
    """A move that only one of the two knows is a run that is lost, or one that runs twice."""
    made: dict[tuple[RunState, RunState], list[str]] = {}
    for state in RunState:
        for name, move in MOVERS.items():
            bench = Bench(store, Lane(f"{state}.{name.replace(' ', '-').replace(chr(39), '')}"))
            await bench.prepare()
            held = await put(bench, state)
            await move(bench, held or NOBODY)
            after = await bench.state("r1")
            assert after is not None
            if after is not state:
                made.setdefault((state, after), []).append(name)

    allowed = {(src, dst) for src, targets in MOVES.items() for dst in targets}
    assert {move: names for move, names in made.items() if move not in allowed} == {}
    assert allowed - set(made) == set()


async def test_only_the_expected_verbs_end_a_running_run(store: Connection) -> None:
    """The holder under its fence, or the sweep when the holder is gone: nobody else."""
    movers = set()
    for name, move in MOVERS.items():
        bench = Bench(store, Lane(name.replace(" ", "-").replace("'", "")))
        await bench.prepare()
        held = await put(bench, RunState.RUNNING)
        assert held is not None
        await move(bench, held)
        if await bench.state("r1") is not RunState.RUNNING:
            movers.add(name)

    assert movers == {
        "hand back", "complete", "fail", "end cancelled", "retry", "park", "release", "refuse",
        "sweep when the worker is lost", "sweep when it is poison",
    }  # fmt: skip
