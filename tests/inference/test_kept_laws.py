"""What was learned of a model on a device survives the worker that learned it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.errors import StoreUnavailable
from millstream.store import boards
from millstream.store.connection import Connection
from millstream_worker.inference import notices
from millstream_worker.inference.footprint import Bytes
from millstream_worker.inference.monitors.simulated import SimulatedDevice
from millstream_worker.inference.notices import Notices
from tests.inference.simulated import MIB, World, all_of, bench

pytestmark = pytest.mark.anyio

INPUTS = [(64 + (n * 37) % 400, str(n)) for n in range(96)]
PROBE = "probe"


class Kept:
    """Notes in a dictionary."""

    def __init__(self) -> None:
        self.notes: dict[tuple[str, str], bytes] = {}

    async def recall(self, device: str, model: str) -> bytes | None:
        return self.notes.get((device, model))

    async def keep(self, device: str, model: str, note: bytes) -> None:
        self.notes[device, model] = note


def world(**facts: Any) -> World:
    """A device on which a guess is wrong threefold, and which is measured at first."""
    return World(SimulatedDevice(64 * MIB), wrong=3.0, probe=PROBE, **facts)


def probes(w: World) -> int:
    """Return how many batches were computed only to measure."""
    return sum(all(x[1] == PROBE for x in batch) for batch in w.computed)


async def served(w: World, kept: Any, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> list[Any]:
    """Serve all inputs by a worker of their own; return its batches."""
    async with bench(w, held=lambda: 96, keeper=kept, monkeypatch=monkeypatch) as b:
        for _ in range(times):
            answers = await all_of(*(b.ask(x, run=x[1]) for x in INPUTS))
            assert not [x for x in answers if isinstance(x, Exception)]
        (report,) = b.service.report()
        w.loads += [x["law"] for x in report["devices"]]
        return b.batches


def sources(w: World) -> list[str]:
    """Return what the laws went by, as people see it in the end."""
    return [x for x in w.loads if x != "m"]


async def test_the_next_worker_need_not_measure_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its very first batches are predicted well, by a law that another one learned."""
    kept = Kept()
    first, second = world(), world()
    await served(first, kept, monkeypatch)
    batches = await served(second, kept, monkeypatch)
    assert probes(first) > 4
    assert (sources(first), sources(second)) == (["measured"], ["kept"])
    # One makes the libraries ready; it measures nothing.
    assert probes(second) == 1
    assert second.device.ran_out == 0
    assert all(0.6 <= x.observed / x.predicted <= 1.0 for x in batches)


async def test_a_law_that_is_out_of_date_is_corrected_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The device takes twice as much as it did: no input fails, and soon no batch does."""
    kept = Kept()
    await served(world(), kept, monkeypatch)
    late = world(truth=Bytes(fixed=2 * MIB, per_token=8192.0))
    batches = await served(late, kept, monkeypatch, times=2)
    assert not [x for x in batches[20:] if x.fault]
    assert late.device.highest <= 0.8 * late.device.total


@pytest.mark.parametrize(
    "note",
    [
        b"no json",
        b'{"form":99,"bytes":[],"seconds":[[1,8,0.1]]}',
        b'{"form":1,"bytes":[[1,8,-5]],"seconds":[[1,8,0.1]]}',
        b'{"form":1,"bytes":[],"seconds":[[1,8,1e999]]}',
        msgspec.json.encode({"form": 1, "bytes": [], "seconds": [[1, 8, 0.1]] * 1000}),
    ],
)  # fmt: skip
async def test_a_note_that_makes_no_sense_is_none(
    monkeypatch: pytest.MonkeyPatch, note: bytes
) -> None:
    """Of another release, or of somebody who writes what he likes into Redis."""
    kept, first, second = Kept(), world(), world()
    await served(first, kept, monkeypatch)
    ((place, _),) = kept.notes.items()
    kept.notes[place] = note
    await served(second, kept, monkeypatch)
    assert probes(second) == probes(first)


async def test_notes_are_kept_by_device_and_model_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "_MOST_LAWS", 3)
    connection = Connection("memory://kept-laws")
    try:
        ledger = Notices(connection, "w1")
        for n in range(5):
            await ledger.keep("GPU-1", f"model {n}", b"%d" % n)
        await ledger.keep("GPU-2", "model 0", b"elsewhere")
        await ledger.keep("GPU-1", "model 1", b"newer")
        assert await Notices(connection, "w2").recall("GPU-1", "model 1") == b"newer"
        assert await ledger.recall("GPU-1", "model 4") is None
        assert await ledger.recall("GPU-2", "model 0") == b"elsewhere"
        assert len(await boards.read(connection, boards.laws("GPU-1"))) == 3
    finally:
        await connection.aclose()


async def test_redis_that_is_away_means_measuring_and_nothing_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: Any) -> Any:
        raise StoreUnavailable("redis://away", reason="away")

    monkeypatch.setattr(boards, "pin", away)
    ledger = Notices(Connection("memory://away"), "w1")
    w = world()
    await served(w, ledger, monkeypatch)
    assert probes(w) > 4
