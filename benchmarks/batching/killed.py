"""A device's process that is killed under real runs: what is lost, and how long it takes."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from millstream import Context, Workflows
from millstream.events import BatchRan, DeviceFailed, Event, StepEnded
from millstream.testing import Harness
from millstream_worker.inference.backends import Backend, Prepared
from millstream_worker.inference.declared import parse_models
from millstream_worker.inference.service import InferenceService

RUNS, STEPS = 32, 5

app = Workflows()


class Dying(Backend):
    """Answers after a while; kills its process in the middle of a batch, while a file says so."""

    padding = False
    step = 1
    settings: Mapping[str, Any] | None = {"mark": "", "log": ""}

    def prepare(self, item: Any, options: Mapping[str, Any]) -> Prepared:
        return Prepared(item, 1)

    def run(self, payloads: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
        with Path(self.given.options["log"]).open("a", encoding="utf-8") as log:
            log.writelines(f"{payload}\n" for payload in payloads)
        mark = Path(self.given.options["mark"])
        if mark.exists():
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return [f"{payload} done" for payload in payloads]


@app.workflow()
async def chain(ctx: Context) -> list[str]:
    """Ask for answers that follow one another."""
    return [await ctx.infer("m", f"{ctx.run_id}:{step}") for step in range(STEPS)]


async def killed() -> dict[str, Any]:
    """Kill it when a third of the steps is recorded; every step is recorded once all the same."""
    with tempfile.TemporaryDirectory() as folder:
        mark, log = Path(folder) / "mark", Path(folder) / "log"
        model = {"backend": f"{Dying.__module__}:Dying", "mark": str(mark), "log": str(log)}
        declared = parse_models({"isolation": "process", "models": {"m": model}})
        times: list[tuple[float, Event]] = []

        def hear(event: Event) -> None:
            times.append((time.perf_counter(), event))

        async with (
            InferenceService(declared, emit=hear) as service,
            Harness(app, models=service) as harness,
        ):
            runs = [await harness.client.enqueue("chain") for _ in range(RUNS)]
            while len(_steps(harness)) < RUNS * STEPS // 3:
                await anyio.sleep(0.001)
            mark.touch()
            answers = [await run.result(timeout=60) for run in runs]
            recorded = Counter((x.run_id, x.key) for x in _steps(harness))
        computed = Counter(log.read_text("utf-8").splitlines())
    died = next(at for at, x in times if isinstance(x, DeviceFailed))
    again = next(at for at, x in times if isinstance(x, BatchRan) and at > died)
    return {
        "measure": "killed device process",
        "runs": RUNS,
        "answered": sum(
            x == [f"{run.id}:{n} done" for n in range(STEPS)]
            for run, x in zip(runs, answers, strict=True)
        ),
        "steps": RUNS * STEPS,
        "recorded_once": sum(n == 1 for n in recorded.values()),
        "begun_again": sum(n - 1 for n in computed.values()),
        "deaths": sum(isinstance(x, DeviceFailed) for _, x in times),
        "computing_again_after_s": round(again - died, 3),
    }


def _steps(harness: Harness) -> list[StepEnded]:
    return [x for x in harness.events if isinstance(x, StepEnded) and x.kind == "infer"]
