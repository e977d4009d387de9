"""The workflows of the simulation, the steps they take, and the world these act upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from millstream import Context, Limit, RetryPolicy, Workflows
from millstream.errors import SignalTimeout, StepFailed, ToolInterrupted
from millstream.model.tool import Effect, OnUnknown, ToolInfo, ToolResult
from tests.simulation.plans import Plan
from tests.simulation.processes import current

#: The workflow that tells of its steps.
TELLS = "stubborn"
_STEP_RETRY = RetryPolicy(max_attempts=3, initial=0.1)


class Boom(Exception):
    """What effects and workflows of the simulation raise when they are meant to fail."""


@dataclass(slots=True)
class Deed:
    """One time that an effect happened."""

    label: str
    by: str
    began: float
    #: ok, raised, or cut: nobody heard of its end.
    verdict: str = "cut"


@dataclass(slots=True)
class World:
    """Everything that the effects of all runs have done, and who is told of it."""

    clock: Callable[[], float]
    #: Called before an effect happens: it must not, when its record stands.
    about_to: Callable[[str, str], None]
    deeds: dict[str, list[Deed]] = field(default_factory=dict)
    #: Idempotency keys that tools were called with, by label.
    sent_keys: dict[str, set[str]] = field(default_factory=dict)

    async def act(self, label: str, took_s: float, fails: int) -> str:
        """Do something that counts, and raise the first ``fails`` times."""
        deed = self._begin(label)
        await anyio.sleep(took_s)
        return self._end(deed, fails)

    def act_at_once(self, label: str) -> str:
        """Do something that counts and takes no time."""
        return self._end(self._begin(label), 0)

    def _begin(self, label: str) -> Deed:
        by = current().name
        self.about_to(label, by)
        deed = Deed(label, by, self.clock())
        self.deeds.setdefault(label, []).append(deed)
        return deed

    def _end(self, deed: Deed, fails: int) -> str:
        if len([x for x in self.deeds[deed.label] if x.verdict == "raised"]) < fails:
            deed.verdict = "raised"
            raise Boom(deed.label)

        deed.verdict = "ok"
        return f"did {deed.label}"


@dataclass(frozen=True, slots=True)
class _Prepared:
    effect: Effect
    needs_intent: bool
    on_unknown: OnUnknown = OnUnknown.FAIL
    catalogue: str = ""
    room: None = None


class SimulatedTools:
    """The tools of a worker: one server, whose tools are called by what they do to the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def prepare(
        self, server: str, tool: str, arguments: Mapping[str, Any], *, run_id: str
    ) -> _Prepared:
        """Look the tool up."""
        await anyio.sleep(0.001)
        effect = Effect(tool)
        return _Prepared(effect, needs_intent=effect in {Effect.KEYED, Effect.UNSAFE})

    async def call(self, prepared: Any, arguments: Mapping[str, Any], **options: Any) -> ToolResult:
        """Do what the tool does."""
        label = arguments["label"]
        self._world.sent_keys.setdefault(label, set()).add(options["idempotency_key"])
        try:
            value = await self._world.act(label, arguments["took"], arguments["interrupted"])
        except Boom as error:
            raise ToolInterrupted(str(error), cause="Boom") from error

        return ToolResult(data=value)

    async def offered(self, server: str, *, run_id: str) -> tuple[list[ToolInfo], str]:
        """Offer nothing."""
        return [], ""

    def release_run(self, run_id: str) -> None:
        """There is nothing to release."""


def workflows(world: World, *, versions: tuple[str, ...], rare: bool) -> Workflows:
    """Return the workflows that one worker knows."""
    app = Workflows()

    async def effect(label: str, took: float, fails: int) -> str:
        return await world.act(label, took, fails)

    def plain(label: str) -> str:
        return world.act_at_once(label)

    async def caught(label: str) -> str:
        return await world.act(label, 0.0, 99)

    for function in (effect, plain, caught):
        function.__qualname__ = function.__name__

    async def one(ctx: Context, op: list[Any]) -> Any:  # noqa: PLR0911 - one for each operation
        match op:
            case ["effect", label, took, fails]:
                return await ctx.step(effect, label, took, fails, key=label, retry=_STEP_RETRY)
            case ["plain", label]:
                return await ctx.step(plain, label, key=label)
            case ["tool", kind, label, took, interrupted]:
                arguments = {"label": label, "took": took, "interrupted": interrupted}
                found = await ctx.tool("sim", kind, arguments, key=label, retry=_STEP_RETRY)
                return found.data
            case ["caught", label]:
                try:
                    await ctx.step(caught, label, key=label, retry=RetryPolicy(max_attempts=1))
                except StepFailed:
                    return f"caught {label}"
            case ["sleep", seconds]:
                await ctx.sleep(seconds)
            case ["signal", name, seconds]:
                try:
                    return await ctx.wait_signal(name, timeout=seconds)
                except SignalTimeout:
                    return "late"
            case ["child", child_id, plan]:
                return await ctx.child("flow", {"plan": plan}, id=child_id)
            case ["values"]:
                return [ctx.now(), ctx.random(), str(ctx.uuid())]
            case ["emit", label]:
                ctx.emit(label, {"label": label})
            case ["gather", branches]:
                return await ctx.gather(*(perform(ctx, branch) for branch in branches))
            case ["raise", until] if ctx.attempt < until:
                raise Boom(f"attempt {ctx.attempt}")
        return None

    async def perform(ctx: Context, plan: Plan) -> list[Any]:
        return [await one(ctx, op) for op in plan]

    async def flow(ctx: Context, plan: list[Any]) -> list[Any]:
        return await perform(ctx, plan)

    for version in versions:
        app.workflow(name="flow", version=version)(flow)
    stubborn = RetryPolicy(max_attempts=3, initial=0.3)
    limits = [Limit(key="tenant", concurrency=1), Limit(rate=20, per=2.0)]
    app.workflow(name=TELLS, retry=stubborn, events="steps", limits=limits)(flow)
    app.workflow(name="hasty", timeout=1.5)(flow)
    if rare:
        app.workflow(name="rare")(flow)
    return app
