"""How a run comes into each state, by the moves that lead there."""

from __future__ import annotations

from millstream.model.outcome import Cancelled, Completed, Failed, Parked, Retry
from millstream.model.run import Delivery, RunState
from tests.store.bench import LONG_S, Bench


async def put(bench: Bench, state: RunState, run_id: str = "r1") -> Delivery | None:
    """Bring a new run into a state; return the delivery where a worker ``w1`` had one."""
    if state is RunState.QUEUED:
        await bench.accept(run_id)
        return None

    held = await bench.held(run_id)
    match state:
        case RunState.SCHEDULED:
            await bench.end(held, Retry(LONG_S, "E", "m"))
        case RunState.PARKED:
            await bench.end(held, Parked(await bench.now_ms() / 1000 + LONG_S, 0.5))
        case RunState.COMPLETED:
            await bench.end(held, Completed(b"1"))
        case RunState.FAILED:
            await bench.end(held, Failed("E", "m"))
        case RunState.CANCELLED:
            await bench.end(held, Cancelled())

    assert await bench.state(run_id) is state
    return held
