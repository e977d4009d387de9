"""What monitors read: containers, drivers old and new, and what is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from millstream_worker.inference import devices
from millstream_worker.inference.budget import Reading
from millstream_worker.inference.declared import BUILT_IN, ModelSpec
from millstream_worker.inference.monitors import cuda, nvml
from millstream_worker.inference.monitors.host import HostMonitor
from millstream_worker.inference.monitors.nvml import NoDriver, NvmlMonitor

GIB = 1 << 30


def machine(root: Path, *, available: int, resident: int, groups: str) -> Path:
    for name, text in {
        "proc/meminfo": f"MemTotal: 999 kB\nMemAvailable: {available // 1024} kB\n",
        "proc/self/status": f"Name:\tx\nVmRSS:\t{resident // 1024} kB\n",
        "proc/self/cgroup": groups,
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "ascii")
    return root


def group(root: Path, place: str, **values: object) -> None:
    folder = root / "sys/fs/cgroup" / place
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(str(value), "ascii")


def test_a_machine_without_limits_gives_what_is_available(tmp_path: Path) -> None:
    root = machine(tmp_path, available=8 * GIB, resident=GIB, groups="0::/\n")
    assert HostMonitor(root).read() == Reading(usable=9 * GIB, used=GIB)


def test_what_a_process_of_ours_holds_is_ours(tmp_path: Path) -> None:
    """Else a model that lies there would be taken for a smaller machine, and never leave."""
    root = machine(tmp_path, available=8 * GIB, resident=GIB, groups="0::/\n")
    (root / "proc/77").mkdir()
    (root / "proc/77/status").write_text(f"VmRSS:\t{2 * GIB // 1024} kB\n", "ascii")
    monitor = HostMonitor(root, children=lambda: [77, 78])
    assert monitor.read() == Reading(usable=11 * GIB, used=3 * GIB)


def test_a_container_gives_what_its_limit_leaves(tmp_path: Path) -> None:
    """What the kernel keeps of files can be had back."""
    root = machine(tmp_path, available=64 * GIB, resident=GIB, groups="0::/pod\n")
    stat = f"anon 1\ninactive_file {GIB}\n"
    group(root, "pod", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=stat)
    assert HostMonitor(root).read() == Reading(usable=3 * GIB, used=GIB)


def test_a_limit_of_a_group_above_holds_too(tmp_path: Path) -> None:
    root = machine(tmp_path, available=64 * GIB, resident=0, groups="0::/slice/pod\n")
    group(root, "slice", memory__max=2 * GIB, memory__current=GIB)
    group(root, "slice/pod", memory__max="max", memory__current=GIB)
    assert HostMonitor(root).read().usable == GIB


def test_the_older_groups_are_read(tmp_path: Path) -> None:
    root = machine(
        tmp_path, available=64 * GIB, resident=0, groups="4:cpu,memory:/pod\n3:pids:/pod\n"
    )
    group(
        root, "memory/pod",
        memory__limit_in_bytes=4 * GIB, memory__usage_in_bytes=GIB,
        memory__stat="total_inactive_file 0\n",
    )  # fmt: skip
    assert HostMonitor(root).read().usable == 3 * GIB


def test_no_limit_in_the_older_groups_is_a_large_number(tmp_path: Path) -> None:
    root = machine(tmp_path, available=8 * GIB, resident=0, groups="4:memory:/pod\n")
    group(
        root, "memory/pod",
        memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=GIB,
    )  # fmt: skip
    assert HostMonitor(root).read().usable == 8 * GIB


def test_this_machine_can_be_read() -> None:
    reading = HostMonitor().read()
    assert 0 < reading.used < reading.usable


class NVMLError(Exception):
    """As in the driver's library."""


class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801 - as in the driver's library
    """An older driver."""


class Driver:
    """The driver's library, as far as it is used, with devices by script."""

    NVMLError = NVMLError
    nvmlMemory_v2 = 2  # noqa: N815 - as in the driver's library

    def __init__(self, cards: dict[str, list[str]], *, older: bool = False) -> None:
        #: UUID -> UUIDs of its MIG instances.
        self.cards = cards
        self.older = older
        self.broken = False
        self.newer_calls = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return list(self.cards)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return "Card"

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:  # noqa: N802
        return (1, 1) if self.cards.get(handle) else (0, 0)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        try:
            return self.cards[handle][index]
        except IndexError:
            raise NVMLError("not found") from None

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int = 1) -> Any:  # noqa: N802
        if self.broken:
            raise NVMLError("GPU is lost")
        if version == 2:
            self.newer_calls += 1
            if self.older:
                raise NVMLError_FunctionNotFound("older driver")
            return SimpleNamespace(total=80 * GIB, reserved=GIB, used=10 * GIB, free=69 * GIB)
        return SimpleNamespace(total=80 * GIB, used=11 * GIB, free=69 * GIB)


def test_what_the_driver_keeps_is_neither_usable_nor_used() -> None:
    monitor = NvmlMonitor("GPU-1", nvml=Driver({"GPU-1": []}))
    assert monitor.read() == Reading(usable=79 * GIB, used=10 * GIB)


def test_an_older_driver_is_asked_the_older_way_and_the_newer_way_only_once() -> None:
    driver = Driver({"GPU-1": []}, older=True)
    monitor = NvmlMonitor("GPU-1", nvml=driver)
    for _ in range(3):
        assert monitor.read() == Reading(usable=80 * GIB, used=11 * GIB)
    assert driver.newer_calls == 1


def test_a_driver_that_does_not_answer_is_stood_in_for() -> None:
    driver = Driver({"GPU-1": []})
    driver.broken = True
    other = Reading(usable=5, used=1)
    assert NvmlMonitor("GPU-1", nvml=driver, fallback=lambda: other).read() == other
    with pytest.raises(NoDriver, match="does not answer for GPU-1"):
        NvmlMonitor("GPU-1", nvml=driver).read()


def test_a_divided_card_is_its_instances() -> None:
    found = nvml.devices(Driver({"GPU-1": [], "GPU-2": ["MIG-a", "MIG-b"]}))
    assert [(x.uuid, x.mig) for x in found] == [("GPU-1", False), ("MIG-a", True), ("MIG-b", True)]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, ["GPU-1", "GPU-2"]),
        ("", []),
        ("1", ["GPU-2"]),
        ("GPU-2,GPU-1", ["GPU-2", "GPU-1"]),
        ("-1", []),
    ],
)
def test_only_visible_devices_are_used(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: list[str]
) -> None:
    found = nvml.devices(Driver({"GPU-1": [], "GPU-2": []}))
    monkeypatch.setattr(nvml, "devices", lambda: found)
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert [x.uuid for x in devices.visible()] == expected


def test_without_a_driver_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """And everything runs on the host."""

    def none() -> Callable[[], Any]:
        raise NoDriver("none here")

    monkeypatch.setattr(nvml, "devices", none)
    assert devices.visible() == []


def test_hosts_are_no_neighbours_of_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker on another machine plans takes nothing of the memory of this one."""
    names = iter(["one", "other"])
    monkeypatch.setattr("socket.gethostname", names.__next__)
    spec = ModelSpec(name="m", backend="hashing")
    (one,), (other,) = (devices.devices_for(spec, BUILT_IN) for _ in range(2))
    assert one.uuid != other.uuid
    # But what was learned on the one holds on the other, where the processor is the same.
    assert one.kept_as == other.kept_as != ""


class Card:
    """As much of ``torch.cuda`` as an allocator's account is made of."""

    def __init__(self, total: int, context: int) -> None:
        self.total_memory = total
        self._context = context
        self.reserved = 0
        self.stats: dict[str, Any] = {}
        self.fractions: list[float] = []

    def is_initialized(self) -> bool:
        return True

    def get_device_properties(self, device: str) -> Any:
        return self

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return self.total_memory - self._context - self.reserved, self.total_memory

    def memory_reserved(self, device: str) -> int:
        return self.reserved

    def memory_stats_as_nested_dict(self, device: str) -> dict[str, Any]:
        return self.stats

    def reset_peak_memory_stats(self, device: str) -> None:
        for name in ("allocated_bytes", "reserved_bytes"):
            self.stats[name]["all"]["peak"] = self.stats[name]["all"]["current"]

    def synchronize(self, device: str) -> None:
        pass

    def set_per_process_memory_fraction(self, fraction: float, device: str) -> None:
        self.fractions.append(fraction)


class Torch:
    def __init__(self, card: Card) -> None:
        self.cuda = card

    def zeros(self, shape: tuple[int, int], device: str) -> Any:
        return self

    def __matmul__(self, other: Any) -> Any:
        return self

    def sum(self) -> Any:
        return self

    def item(self) -> float:
        return 0.0


def test_the_hard_stop_is_a_share_of_the_whole_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set when it changes, off while a model loads, and never beyond what there is."""
    card = Card(total=1000, context=0)
    monkeypatch.setattr(cuda, "_torch", lambda: Torch(card))
    memory = cuda.TorchMemory("cuda:0")
    for size in (None, 250, 250, 5000, -3, None):
        memory.limit(size)
    assert card.fractions == [0.25, 1.0, 0.0, 1.0]


def test_the_allocator_is_read_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(total=1000, context=0)
    monkeypatch.setattr(cuda, "_torch", lambda: Torch(card))
    memory = cuda.TorchMemory("cuda:0")
    assert (memory.held(), memory.own().cached) == (0, 0)
    card.stats = {
        "allocated_bytes": {"all": {"current": 100, "peak": 400}},
        "reserved_bytes": {"all": {"current": 200, "peak": 500}},
        "num_alloc_retries": 0,
    }
    memory.begin()
    card.stats["allocated_bytes"]["all"]["peak"] = 170
    card.stats["num_alloc_retries"] = 1
    assert memory.peak() == 70
    assert memory.fragmented()
    assert not memory.fragmented()
    card.stats["reserved_bytes"]["all"]["peak"] = 300
    assert memory.peak() == 100
    assert memory.own().cached == 100
    # As another thread may see it for a moment: it is no number below zero.
    card.stats["reserved_bytes"]["all"]["current"] = 90
    assert memory.own().cached == 0
