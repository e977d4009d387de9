"""Texts for a hundred callers: continuous, in static batches of thirty-two, and one by one.

The same random weights and the same calls for all. Beside seconds, which a busy machine spoils,
it counts what the model was asked for: passes, and the rows of them, of which those that wrote a
token that somebody wanted are the useful ones.
"""

from __future__ import annotations

import asyncio
import functools
import math
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.batching.systems import BATCH
from millstream.events import Event
from millstream.model.inference import CallOptions
from millstream_worker.inference.backends.transformers import TransformersBackend
from millstream_worker.inference.declared import Declared, parse_models
from millstream_worker.inference.local import Units
from millstream_worker.inference.service import InferenceService
from millstream_worker.inference.unit import Device

CALLERS = 100
#: Of the single caller's turn: it is slow.
SINGLES = 40
_CONFIG = {
    "vocab_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip

Ask = Callable[["Call"], Awaitable[list[int]]]
Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Call:
    """A prompt, and how many tokens are wanted."""

    prompt: list[int]
    most: int


@dataclass
class Tally:
    """What a model was asked for."""

    passes: int = 0
    rows: int = 0

    def __call__(self, _model: Any, _args: Any, given: dict[str, Any]) -> None:
        """Count a pass that writes; one that reads prompts writes a token of each as well."""
        self.passes += 1
        self.rows += len(given["input_ids"])


@dataclass
class Turn:
    """What came of one system."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    waits: list[float] = field(default_factory=list)
    answers: dict[int, list[int]] = field(default_factory=dict)

    def quantile(self, share: float) -> float:
        """Return a quantile of the waits, in milliseconds."""
        ordered = sorted(self.waits)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Counted(TransformersBackend):
    """Ours, counted."""

    tally = Tally()

    def load(self, device: str) -> None:
        super().load(device)
        self._model.register_forward_pre_hook(type(self).tally, with_kwargs=True)


def calls(count: int, seed: int = 5) -> list[Call]:
    """Return prompts and answers of mixed lengths, neither known from the other."""
    random = Random(seed)

    def drawn(median: float, spread: float, most: int) -> int:
        return min(most, max(4, round(random.lognormvariate(math.log(median), spread))))

    return [
        Call([random.randrange(3, 2000) for _ in range(drawn(32, 0.7, 256))], drawn(32, 0.8, 256))
        for _ in range(count)
    ]


async def measure(device: str, say: Say, *, count: int = 300, rounds: int = 3) -> None:
    """Have the systems write the same texts in turns, and tell what that took."""
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(device)
        model.save_pretrained(folder)
        model.generation_config.eos_token_id = None
        counts = Tally()
        model.to(device).register_forward_pre_hook(counts, with_kwargs=True)
        asked = calls(count)
        systems = {
            "millstream": (functools.partial(ours, Path(folder), device), Counted.tally, asked),
            "static batches": (functools.partial(_static, model, device, BATCH), counts, asked),
            "one by one": (functools.partial(_static, model, device, 1), counts, asked[:SINGLES]),
        }
        turns: dict[str, list[Turn]] = {name: [] for name in systems}
        for turn in range(rounds):
            for name, (opens, tally, wanted) in systems.items():
                tally.passes = tally.rows = 0
                turns[name].append(await _turn(opens, wanted))
                _tell(
                    functools.partial(say, system=name, round=turn), tally, turns[name][-1], wanted
                )
    written, static = turns["millstream"][0].answers, turns["static batches"][0].answers
    say(
        measure="generation",
        of="answers",
        same=sum(written[number] == static[number] for number in written),
        count=count,
    )


def model_of(device: str) -> Any:
    """Return a model of random weights, small enough for a device."""
    import torch  # noqa: PLC0415 - the benchmark says itself when it is missing
    import transformers  # noqa: PLC0415 - the same

    wide = 256 if device == "cpu" else 1024
    torch.manual_seed(0)
    config = transformers.LlamaConfig(hidden_size=wide, intermediate_size=4 * wide, **_CONFIG)
    return transformers.LlamaForCausalLM(config).eval()


async def _turn(opens: Callable[[], AbstractAsyncContextManager[Ask]], asked: list[Call]) -> Turn:
    turn = Turn()
    left = iter(enumerate(asked))

    async def caller(ask: Ask) -> None:
        for number, call in left:
            began = time.perf_counter()
            turn.answers[number] = await ask(call)
            turn.waits.append(time.perf_counter() - began)

    async with opens() as ask:
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(ask) for _ in range(CALLERS)))
        turn.seconds, turn.cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return turn


def _tell(say: Say, tally: Tally, found: Turn, asked: list[Call]) -> None:
    tokens = sum(call.most for call in asked)
    say(
        measure="generation", callers=CALLERS, texts=len(asked),
        tokens=tokens, tokens_per_s=round(tokens / found.seconds, 1),
        cpu_ms_per_token=round(1000 * found.cpu_s / tokens, 3),
        p50_ms=round(found.quantile(0.5), 1), p99_ms=round(found.quantile(0.99), 1),
        passes=tally.passes, rows=tally.rows, useful=round(tokens / tally.rows, 3),
    )  # fmt: skip


@asynccontextmanager
async def ours(
    folder: Path, name: str, *, events: list[Event] | None = None, device: Device | None = None
) -> AsyncIterator[Ask]:
    """Open our service on the model of a directory; ``device`` in place of the one of that name."""
    spec = {
        "backend": f"{__name__}:Counted", "path": str(folder), "task": "generation",
        "device": name.partition(":")[0], "batch_size": BATCH,
    }  # fmt: skip
    # In a thread, where it can be counted; a device of its own would be in a process.
    declared = parse_models({"isolation": "thread", "models": {"m": spec}})
    seen: list[Event] = [] if events is None else events

    def make_units(declared: Declared, group: Any, **options: Any) -> Units:
        found: dict[str, Any] = {}
        if device is not None:
            found["find"] = lambda _spec, _declared: [device]
        return Units(declared, group, **found, **options)

    async with InferenceService(declared, emit=seen.append, make_units=make_units) as service:

        async def ask(call: Call) -> list[int]:
            options = CallOptions(dedupe=False, backend={"max_new_tokens": call.most})
            (answer,) = await service.infer("m", [call.prompt], options, run=str(id(call)))
            tokens: list[int] = answer["tokens"]
            return tokens

        await ask(Call([5] * 8, 4))
        Counted.tally.passes = Counted.tally.rows = 0
        yield ask


@asynccontextmanager
async def _static(model: Any, device: str, size: int) -> AsyncIterator[Ask]:
    """What waits when the device is free, up to ``size``, is written until the last is through."""
    waiting: list[tuple[Call, asyncio.Future[list[int]]]] = []
    came = asyncio.Event()

    async def serve() -> None:
        while True:
            await came.wait()
            batch = waiting[:size]
            del waiting[:size]
            if not waiting:
                came.clear()
            answers = await asyncio.to_thread(_write, model, device, [call for call, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

    async def ask(call: Call) -> list[int]:
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        waiting.append((call, future))
        came.set()
        return await future

    serving = asyncio.ensure_future(serve())
    try:
        yield ask
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def _write(model: Any, device: str, batch: list[Call]) -> list[list[int]]:
    import torch  # noqa: PLC0415 - loaded with the model

    longest = max(len(call.prompt) for call in batch)
    ids = torch.tensor([[0] * (longest - len(call.prompt)) + call.prompt for call in batch])
    mask = torch.tensor(
        [[0] * (longest - len(call.prompt)) + [1] * len(call.prompt) for call in batch]
    )
    with torch.inference_mode():
        written = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), do_sample=False,
            max_new_tokens=max(call.most for call in batch), pad_token_id=0,
        )  # fmt: skip
    rows = written[:, longest:].cpu().tolist()
    return [row[: call.most] for row, call in zip(rows, batch, strict=True)]
