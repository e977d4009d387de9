"""What a run costs, counted and not timed: a guard against the cost that creeps in.

A thousand no-op runs, and some hundred steps and calls of tools, go through a real worker on a real
Redis. What is counted hardly depends on the machine: how many commits the runs leave in does a
little, so every bound has some air. When a change makes something dearer for a reason, the bound is
raised with the reason; when it makes it cheaper, the bound comes down with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import pytest

from benchmarks.bench import Bench
from benchmarks.catalogue import SYSTEMS, System
from benchmarks.measures.tools import null_server, server_file
from tests.benchmarks.counted import EACH

# One process takes the count for all of them.
pytestmark = pytest.mark.xdist_group("cost")

RUNS = 1000
#: Per run, start and leave of the worker included.
BOUNDS = {
    "commands": 5.6,
    # Twenty commits take them all; the rest is sweeps, more of them on a busy machine.
    "scripts": 0.045,
    # 40 of them are the texts of scripts, which a server is sent once, and not for every run.
    # A commit more, as on a busy machine, is another half a byte.
    "bytes in": 216.0,
    "bytes out": 152.0,
    "python calls": 72.0,
    "builtin calls": 69.0,
}

UNITS = 400
#: Calls of Python and of builtins per recorded step of a function, and per call of a tool, with a
#: part of what is counted for the run around them. How many of the latter are answered in one turn
#: is up to the machine: eight times they took from 282 to 299.
PARTS = {"chain": (49.0, 38.0), "calls": (310.0, 195.0)}


@pytest.fixture(scope="module")
def cost(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, float]:
    """What one run took, of everything that is counted."""
    report = tmp_path_factory.mktemp("cost") / "calls"
    environment = {"COUNTED_UNITS": str(RUNS), "COUNTED_REPORT": str(report)}
    with Bench(_counted(), environment=environment) as bench:
        bench.fill("noop", RUNS)
        before = bench.server.counters()
        (worker,) = bench.start()
        assert bench.until_done(RUNS, 60).done == RUNS
        # What it wrote last is counted too: it leaves in good order.
        worker.stop()
        after = bench.server.counters()

    _, python, builtin = report.read_text("utf-8").split()
    was, now = asdict(before), asdict(after)
    found = {
        "commands": now["commands"] - was["commands"],
        "scripts": now["scripts"] - was["scripts"],
        "bytes in": now["bytes_in"] - was["bytes_in"],
        "bytes out": now["bytes_out"] - was["bytes_out"],
        "python calls": int(python),
        "builtin calls": int(builtin),
    }
    each = {name: count / RUNS for name, count in found.items()}
    print("\na run:", {name: round(value, 3) for name, value in each.items()})
    return each


@pytest.mark.parametrize("name", BOUNDS)
def test_a_run_costs_no_more_than_it_did(cost: Mapping[str, float], name: str) -> None:
    """Speed is lost one command and one call at a time."""
    assert cost[name] <= BOUNDS[name]


def test_the_count_counts(cost: Mapping[str, float]) -> None:
    """A bound holds nothing when what is counted is missing."""
    # Every run is at least read, ended and acknowledged, with its id and its end on the wire.
    assert cost["commands"] >= 3
    assert cost["bytes in"] >= 30
    assert cost["python calls"] >= 5


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[float, float]]:
    """Calls of Python and of builtins that a step takes, and a call of a tool."""
    report = tmp_path_factory.mktemp("parts") / "calls"
    environment = {"COUNTED_UNITS": str(UNITS), "COUNTED_REPORT": str(report)}
    with Bench(_counted(), environment=environment) as bench, bench.caller() as caller:
        _, url = null_server(bench)
        for number, workflow in enumerate(PARTS, 1):
            # One after the other: what the runs of one cost must not count for the other.
            caller.ask(op="bulk", job=workflow, count=UNITS // EACH)
            if number == 1:
                bench.start(flags=["--mcp", str(server_file(bench.directory, url))])
            assert bench.until_done(number * UNITS, 60).done == number * UNITS

    lines = [line.split() for line in report.read_text("utf-8").splitlines()]
    found = {name: (int(python) / UNITS, int(builtin) / UNITS) for name, python, builtin in lines}
    print("\na part:", found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workflow", PARTS)
def test_a_part_costs_no_more_than_it_did(
    parts: Mapping[str, tuple[float, float]], workflow: str
) -> None:
    """Agents make many steps and calls in a run: that is where their worker's time goes."""
    python, builtin = parts[workflow]
    assert python <= PARTS[workflow][0]
    assert builtin <= PARTS[workflow][1]
    # A bound holds nothing when what is counted is missing.
    assert python >= 10


def _counted() -> System:
    """Our worker as it is measured, with the application that counts calls."""
    ours = SYSTEMS["millstream"]
    app = "tests.benchmarks.counted:app"
    return replace(ours, worker=[app if x.endswith(":app") else x for x in ours.worker])
