"""The workflows that the worker processes of these tests run."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time

import anyio

from millstream import Context, RetryPolicy, Workflows
from tests.processes.effects import BEGUN, DONE, KEYED, Effects

app = Workflows()
effects = Effects.of_environment()


async def act(run: str, step: int, pause: float, key: str = "") -> int:
    """Have an effect, keyed if there is a key, and take a while."""
    effects.write(BEGUN, run, step)
    if key:
        effects.write(KEYED, run, step, key)
    await anyio.sleep(pause)
    effects.write(DONE, run, step)
    return step


def act_in_thread(run: str, step: int, pause: float) -> int:
    """Do the same in a thread."""
    effects.write(BEGUN, run, step)
    time.sleep(pause)
    effects.write(DONE, run, step)
    return step


async def block(run: str, step: int, pause: float) -> int:
    """Block the event loop, as careless code does."""
    effects.write(BEGUN, run, step)
    time.sleep(pause)  # noqa: ASYNC251 - that is the point
    effects.write(DONE, run, step)
    return step


async def hold_interpreter(run: str, step: int, pause: float) -> int:
    """Hold the interpreter's lock as careless C code does: the first time only."""
    first = step not in {effect.step for effect in effects.all(BEGUN, run)}
    effects.write(BEGUN, run, step)
    if first:
        # Unlike CDLL, PyDLL does not give up the lock while it calls.
        ctypes.PyDLL(None).usleep(int(pause * 1e6))
    effects.write(DONE, run, step)
    return step


@app.workflow()
async def chain(ctx: Context, steps: int = 10, pause: float = 0.1) -> list[int]:
    """Steps that follow one another, each under an idempotency key that the run drew."""
    done = []
    for step in range(steps):
        key = str(ctx.uuid())
        done.append(await ctx.step(act, ctx.run_id, step, pause, key))
    return done


@app.workflow()
async def infer_chain(ctx: Context, steps: int = 6) -> list[str]:
    """Inferences that follow one another; runs of it share their batches."""
    return [await ctx.infer("m", f"{ctx.run_id}:{step}") for step in range(steps)]


@app.workflow()
async def hold(ctx: Context) -> str:
    """A call of a server that lasts until the test lets it end."""
    answer = await ctx.tool("faults", "hold", {"name": ctx.run_id})
    return answer.text


@app.workflow()
async def threaded(ctx: Context, steps: int = 3, pause: float = 0.1) -> list[int]:
    """Plain functions, one after the other."""
    return [await ctx.step(act_in_thread, ctx.run_id, step, pause) for step in range(steps)]


@app.workflow()
async def blocking(ctx: Context, pause: float) -> list[int]:
    """The step in the middle blocks the event loop."""
    return [
        await ctx.step(act, ctx.run_id, 0, 0.01),
        await ctx.step(block, ctx.run_id, 1, pause),
        await ctx.step(act, ctx.run_id, 2, 0.01),
    ]


@app.workflow()
async def holding(ctx: Context, pause: float) -> list[int]:
    """The step in the middle holds the interpreter's lock."""
    return [
        await ctx.step(act, ctx.run_id, 0, 0.01),
        await ctx.step(hold_interpreter, ctx.run_id, 1, pause),
        await ctx.step(act, ctx.run_id, 2, 0.01),
    ]


async def die(run: str, step: int, how: str) -> int:
    """Take the worker down."""
    effects.write(BEGUN, run, step)
    if how == "exit":
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)
    return step


@app.workflow()
async def poison(ctx: Context, how: str = "exit") -> None:
    """Kill whoever runs it."""
    await ctx.step(act, ctx.run_id, 0, 0.05)
    await ctx.step(die, ctx.run_id, 1, how)


async def refuse_at_first(run: str, step: int) -> int:
    """Fail the first time that it is tried."""
    first = not effects.all(BEGUN, run)
    effects.write(BEGUN, run, step)
    if first:
        raise ValueError("not yet")
    return step


@app.workflow(retry=RetryPolicy(max_attempts=2, initial=0.05))
async def stubborn(ctx: Context) -> int:
    """Succeed at the second attempt."""
    return await ctx.step(refuse_at_first, ctx.run_id, 0, retry=RetryPolicy(max_attempts=1))


@app.workflow()
async def hopeless(ctx: Context) -> int:
    """Succeed when an operator starts it once more."""
    return await ctx.step(refuse_at_first, ctx.run_id, 0, retry=RetryPolicy(max_attempts=1))


@app.workflow()
async def clings(ctx: Context) -> None:
    """Swallow every cancellation."""
    effects.write(BEGUN, ctx.run_id, 0)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@app.workflow()
async def asleep(ctx: Context, seconds: float) -> str:
    """Be parked for a while."""
    await ctx.sleep(seconds)
    return "awake"


@app.workflow()
async def patient(ctx: Context) -> object:
    """Wait for a signal, for as long as it takes."""
    return await ctx.wait_signal("go")


@app.workflow()
async def kid(ctx: Context, number: int) -> int:
    """One effect, of a run of its own."""
    return await ctx.step(act, ctx.run_id, number, 0.0)


@app.workflow()
async def family(ctx: Context, count: int) -> list[int]:
    """Many children at the same time."""
    return await ctx.gather(*(ctx.child("kid", {"number": n}) for n in range(count)))


async def whisper(word: str, number: int) -> str:
    """Say a word again."""
    await anyio.sleep(0.005)
    return f"{word} {number}"


@app.workflow()
async def confides(ctx: Context, word: str) -> list[str]:
    """Steps that work on a secret, a child that is told it, and a wait for more of it."""
    found = [await ctx.step(whisper, word, number) for number in range(5)]
    found += await ctx.child("listens", {"word": f"{word} child"}, queue="default")
    found.append(await ctx.wait_signal("go"))
    return found


@app.workflow()
async def listens(ctx: Context, word: str) -> list[str]:
    """Is told a secret."""
    return [await ctx.step(whisper, word, number) for number in range(3)]
