"""Random histories of a lane against a plain model: no run lost, one holder, no zombie write.

Ids collide, replies are lost, commits are sent late and twice, leases run out, records expire.
After every step the store must equal the model; at the end of every history a new worker must be
able to end every run.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from millstream.store.connection import Connection
from tests.servers import RedisServer
from tests.store.histories import History


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [25, pytest.param(70, marks=pytest.mark.slow)])
def test_the_store_in_memory_follows_the_model(count: int) -> None:
    """Enough histories to meet what nobody thought of; the more of them with the proofs."""
    run_state_machine_as_test(History, settings=histories(count))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("program", ["redis-server", "valkey-server"])
def test_a_real_server_follows_the_model(program: str) -> None:
    """The in-memory store is an imitation: the real ones have to agree, for much longer."""
    if not RedisServer.available(program):
        pytest.skip(f"{program} is not on PATH")

    with RedisServer(program) as server:

        class OnServer(History):
            def connect(self) -> Connection:
                server.flush()
                return Connection(server.url)

        run_state_machine_as_test(OnServer, settings=histories(500))


def histories(count: int) -> settings:
    """Return the settings for so many histories, the same in every run.

    One that fails is not made shorter: that may take longer than a test may last. Add
    ``Phase.shrink`` to look into one.
    """
    return settings(
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        max_examples=count,
        stateful_step_count=60,
        derandomize=True,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
