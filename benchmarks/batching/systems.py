"""The systems beside each other: ours and its peers, each on the same forward pass.

A peer that is not installed is left out and said so. Each is opened as a context and gives a
coroutine that answers one input.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import types
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.batching.model import Forward
from benchmarks.batching.workload import Call
from millstream.events import Event
from millstream.model.inference import CallOptions
from millstream_worker.inference.backends import Backend, BackendOptions, Prepared
from millstream_worker.inference.budget import Own
from millstream_worker.inference.declared import Declared, ModelSpec
from millstream_worker.inference.engine import Engine, Memory, NoMemory
from millstream_worker.inference.footprint import Bytes
from millstream_worker.inference.local import Units
from millstream_worker.inference.monitors.host import HostMonitor
from millstream_worker.inference.process import ProcessEngine
from millstream_worker.inference.service import InferenceService
from millstream_worker.inference.unit import Device

BATCH = 32
Opens = Callable[[Forward, int], AbstractAsyncContextManager[Call]]


class ForwardBackend(Backend):
    """Our backend around the forward pass of everybody."""

    max_length = 512
    quick_chars = 1 << 30

    def __init__(self, forward: Forward) -> None:
        super().__init__(BackendOptions(model="m", path=None, options={}))
        self._forward = forward

    @property
    def guess(self) -> Bytes:
        hidden = self._forward.model.config.hidden_size
        return Bytes(fixed=8 << 20, per_token=28.0 * hidden)

    def prepare(self, item: Any, options: Any) -> Prepared:
        return Prepared(item, len(item))

    def sample(self, length: int) -> Any:
        return [5] * length

    def run(self, payloads: Sequence[Any], options: Any) -> Sequence[Any]:
        return self._forward(payloads)


class ChildForward(Backend):
    """The same forward pass, made in the process that the device has of its own."""

    max_length = 512
    quick_chars = 1 << 30

    @property
    def weights(self) -> int:
        return int(self.given.options["weights"])

    @property
    def guess(self) -> Bytes:
        return Bytes(fixed=8 << 20, per_token=28.0 * int(self.given.options["hidden"]))

    def prepare(self, item: Any, options: Any) -> Prepared:
        return Prepared(item, len(item))

    def sample(self, length: int) -> Any:
        return [5] * length

    def load(self, device: str) -> None:
        self._forward = Forward(device, self.given.options["size"])
        self._forward.warm()  # as everybody else's is

    def run(self, payloads: Sequence[Any], options: Any) -> Sequence[Any]:
        return self._forward(payloads)


def device_of(
    forward: Forward,
    fraction: float = 0.8,
    *,
    isolated: bool = False,
    memory: Callable[[], Memory] = NoMemory,
) -> Device:
    """Return the device that the forward pass runs on, with its real monitor."""
    if forward.device == "cpu":
        return Device(
            name="cpu",
            uuid="cpu",
            monitor=HostMonitor(),
            start=lambda backend, spec: (
                ProcessEngine(spec, hang_s=60) if isolated else Engine("cpu", backend, memory)
            ),
        )
    from millstream_worker.inference.cuda import Cuda  # noqa: PLC0415 - only there
    from millstream_worker.inference.monitors import cuda, nvml  # noqa: PLC0415 - only there

    uuid = cuda.uuid_of(forward.device)
    fallback = cuda.TorchMonitor(forward.device)
    if isolated:
        child = Cuda(uuid, in_thread=False, hang_s=60)
        return Device(
            name="cuda:0",
            uuid=uuid,
            monitor=nvml.NvmlMonitor(uuid, fallback=fallback.read),
            start=child.start,
            fraction=fraction,
            live=child.live,
        )
    account = cuda.TorchMemory(forward.device) if memory is NoMemory else memory()

    def live() -> Own:
        return account.own()

    return Device(
        name="cuda:0",
        uuid=uuid,
        monitor=nvml.NvmlMonitor(uuid, fallback=fallback.read),
        start=lambda backend, _spec: Engine(forward.device, backend, lambda: account),
        fraction=fraction,
        live=live,
    )


@asynccontextmanager
async def service_of(
    forward: Forward,
    events: list[Event],
    *,
    wait_s: float = 0.005,
    fraction: float = 0.8,
    isolated: bool = False,
    memory: Callable[[], Memory] = NoMemory,
) -> AsyncIterator[InferenceService]:
    """Open our service on the forward pass."""
    spec = ModelSpec(
        name="m",
        backend=f"{__name__}:ChildForward",
        batch_size=BATCH,
        max_wait_s=wait_s,
        options={
            "weights": forward.weights,
            "hidden": forward.model.config.hidden_size,
            "size": forward.size,
        },
    )
    device = device_of(forward, fraction, isolated=isolated, memory=memory)
    catalogue = importlib.import_module("millstream_worker.inference.catalogue")
    made = catalogue.make

    def make_units(declared: Declared, group: Any, **options: Any) -> Units:
        return Units(declared, group, find=lambda _spec, _declared: [device], **options)

    catalogue.make = lambda _spec: ForwardBackend(forward)  # type: ignore[attr-defined]
    try:
        async with InferenceService(
            Declared(models={"m": spec}), emit=events.append, make_units=make_units
        ) as service:
            yield service
    finally:
        catalogue.make = made  # type: ignore[attr-defined]


def ours(*, isolated: bool) -> Opens:
    """Ours, with its defaults; the device in a process of its own, or in a thread."""

    @asynccontextmanager
    async def open_it(forward: Forward, callers: int) -> AsyncIterator[Call]:
        async with service_of(forward, list[Event](), isolated=isolated) as service:
            service.attend(lambda: callers)
            options = CallOptions()

            async def call(text: list[int], caller: int) -> float:
                (answer,) = await service.infer("m", [text], options, run=str(caller))
                return float(answer)

            await call([5] * 8, 0)
            yield call

    return open_it


def millstream(forward: Forward, callers: int) -> AbstractAsyncContextManager[Call]:
    """Ours, as ``isolation = "auto"`` has it where torch computes: in a process of its own."""
    return ours(isolated=True)(forward, callers)


def batched_peer(wait_ms: float, max_length: int | None = None) -> Opens:
    """``batched``, by Mixedbread."""
    module = importlib.import_module("batched.aio.batch_processor")

    @asynccontextmanager
    async def open_it(forward: Forward, callers: int) -> AsyncIterator[Call]:
        processor = module.AsyncBatchProcessor(
            forward, batch_size=BATCH, timeout_ms=wait_ms, max_batch_length=max_length
        )

        async def call(text: list[int], caller: int) -> float:
            (answer,) = await processor._schedule([text])  # noqa: SLF001 - what its call does
            return float(answer)

        try:
            yield call
        finally:
            if processor._task is not None:  # noqa: SLF001 - it has no way to end it
                processor._task.cancel()  # noqa: SLF001
                await asyncio.gather(processor._task, return_exceptions=True)  # noqa: SLF001

    return open_it


def bentoml_peer() -> Opens:
    """The dispatcher of BentoML. Its limit of latency drops requests: it is set out of the way."""
    module = _bentoml()

    @asynccontextmanager
    async def open_it(forward: Forward, callers: int) -> AsyncIterator[Call]:
        dispatcher = module.CorkDispatcher(
            60_000, BATCH, fallback=lambda: None, get_batch_size=lambda _: 1
        )

        def compute(batch: Any) -> list[float]:
            return forward(batch)

        ask = dispatcher(compute)

        async def call(text: list[int], caller: int) -> float:
            answer = await ask(text)
            if answer is None:
                raise TimeoutError("dropped")
            return float(answer)

        try:
            # What it trains itself with is not part of what is measured.
            await asyncio.gather(*(call([5] * 64, 0) for _ in range(100)))
            yield call
        finally:
            dispatcher.shutdown()

    return open_it


def infinity_peer(wait_ms: float, *, tokenize: bool) -> Opens:
    """The batch handler of Infinity, with or without its lengths by tokenizer."""
    module = importlib.import_module("infinity_emb.inference.batch_handler")

    @asynccontextmanager
    async def open_it(forward: Forward, callers: int) -> AsyncIterator[Call]:
        model = _InfinityModel(forward)
        handler = module.BatchHandler(
            [model], BATCH, batch_delay=max(1e-4, wait_ms / 1000), lengths_via_tokenize=tokenize
        )
        await handler.spawn()

        async def call(text: list[int], caller: int) -> float:
            (answer,), _ = await handler.embed([model.named(text)])
            return float(answer[0])

        try:
            yield call
        finally:
            await handler.shutdown()

    return open_it


class _InfinityModel:
    """What Infinity wants of a model. Its inputs are texts: each is named by one of its length."""

    capabilities = frozenset({"embed"})

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._texts: dict[str, list[int]] = {}
        self._names: dict[int, str] = {}

    def named(self, text: list[int]) -> str:
        found = self._names.get(id(text))
        if found is None:
            found = f"{len(self._names)}".ljust(len(text), "x")
            self._names[id(text)] = found
            self._texts[found] = text
        return found

    def tokenize_lengths(self, sentences: list[str]) -> list[int]:
        return [len(self._texts[x]) for x in sentences]

    def encode_pre(self, sentences: list[str]) -> list[list[int]]:
        return [self._texts[x] for x in sentences]

    def encode_core(self, features: list[list[int]]) -> list[float]:
        return self._forward(features)

    def encode_post(self, embedding: list[float], *_: Any, **__: Any) -> Any:
        import numpy as np  # noqa: PLC0415 - comes with the model

        return np.array(embedding).reshape(-1, 1)

    def warmup(self, *_: Any, **__: Any) -> tuple[float, float, str]:
        return 0.0, 0.0, "none"


def _bentoml() -> Any:
    """Import the dispatcher; alone where the rest of BentoML is not installed."""
    try:
        return importlib.import_module("bentoml._internal.marshal.dispatcher")
    except ImportError:
        root = next((Path(x) / "bentoml" for x in sys.path if (Path(x) / "bentoml").is_dir()), None)
        if root is None:
            raise
    for name in [x for x in sys.modules if x.partition(".")[0] == "bentoml"]:
        del sys.modules[name]
    _hollow("bentoml", root)
    _hollow("bentoml._internal", root / "_internal")
    _hollow("bentoml._internal.marshal", root / "_internal/marshal")
    utils = _hollow("bentoml._internal.utils", root / "_internal/utils")
    utils.is_async_callable = inspect.iscoroutinefunction  # type: ignore[attr-defined]
    if "starlette.concurrency" not in sys.modules:
        try:
            importlib.import_module("starlette.concurrency")
        except ImportError:
            import anyio.to_thread  # noqa: PLC0415 - what starlette itself calls

            sys.modules["starlette"] = types.ModuleType("starlette")
            threads = types.ModuleType("starlette.concurrency")
            threads.run_in_threadpool = anyio.to_thread.run_sync  # type: ignore[attr-defined]
            sys.modules["starlette.concurrency"] = threads
    return importlib.import_module("bentoml._internal.marshal.dispatcher")


def _hollow(name: str, path: Path) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    sys.modules[name] = module
    return module
