"""A run that kills its workers is given up; the blameless beside it are not.

It goes to the dead letters with the cause ``worker_lost``, apart from ordinary retries, from where
an operator may start it again.
"""

from __future__ import annotations

import pytest

from millstream import Enqueue, RunFailed, SyncClient
from millstream.model.run import RunState
from tests.processes.effects import BEGUN
from tests.processes.fleet import Fleet, wait_until

POISON = 3


def keep_alive(fleet: Fleet, count: int) -> int:
    """Replace the dead; return how many there have been in all."""
    for _ in range(count - sum(worker.alive for worker in fleet.workers)):
        fleet.launch(poison=POISON)
    return sum(not worker.alive for worker in fleet.workers)


@pytest.mark.parametrize(("steps", "pause", "count"), [(30, 0.15, 4), (1, 3.0, 3)])
@pytest.mark.parametrize("how", ["kill", pytest.param("exit", marks=pytest.mark.slow)])
def test_a_poisonous_run_is_given_up_and_the_blameless_end(
    fleet: Fleet, client: SyncClient, how: str, steps: int, pause: float, count: int
) -> None:
    """Long runs that stood beside it in every dead worker still come to their end.

    Some get on between two deaths, and are blameless for it. Some are in one long step all the
    time: they are suspected with the other, and wait apart from it.
    """
    fleet.start(2, poison=POISON)
    blameless = client.enqueue_many(
        [Enqueue("chain", {"steps": steps, "pause": pause}) for _ in range(count)]
    )
    poison = client.enqueue("poison", {"how": how})

    def over() -> bool:
        keep_alive(fleet, 2)
        return poison.status().state.final

    wait_until(over, 40, "the poisonous run is given up", every=0.05)
    deaths = keep_alive(fleet, 2)
    status = poison.status()
    with pytest.raises(RunFailed, match="worker_lost") as caught:
        poison.result(timeout=1)

    assert caught.value.cause == "worker_lost"
    assert (status.state, status.crashes, status.attempt) == (RunState.FAILED, POISON, 1)
    assert [letter.id for letter in client.dead()] == [poison.id]
    assert deaths == POISON
    for run in blameless:
        assert run.result(timeout=40) == list(range(steps))
    print(f"\ncrashes of the blameless: {sorted(run.status().crashes for run in blameless)}")


def test_a_run_that_gets_on_is_not_given_up(fleet: Fleet, client: SyncClient) -> None:
    """Whoever recorded something since the last death is not what kills: bad luck is no poison."""
    run = client.enqueue("chain", {"steps": 12, "pause": 0.1})
    for death in range(1, 4):
        (worker,) = fleet.start(poison=2)
        wait_until(
            lambda: {x.step for x in fleet.effects.all(BEGUN)} >= set(range(3 * death)),  # noqa: B023
            20,
            "it got on",
        )
        worker.kill()

    fleet.start(poison=2)
    assert run.result(timeout=20) == list(range(12))
    assert run.status().crashes == 1
