"""A pipeline: a workflow that is data. What it may say, and the order in which its steps run.

Promise: a pipeline that was read can be run: every reference names an earlier result, nothing
waits for itself, and all of it is bounded. Every problem is named at once, with its place. It
does not know how a step is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from millstream.errors import InvalidPipeline
from millstream.model.actions import (
    Action,
    Block,
    ChildAction,
    ChoiceAction,
    InferAction,
    MapAction,
    PipelineStep,
    ToolAction,
    WaitAction,
)
from millstream.model.expressions import names_in, names_in_condition

MOST_STEPS = 1_000
#: Items of all maps of a pipeline together: what has an effect is recorded, and so has its bound.
MOST_ITEMS = 10_000
_DEEPEST = 8
_LONGEST_WAIT_S = 10 * 366 * 86400
_MOST_AT_A_TIME = 1_000
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_COMMON = {"id", "after", "on_error"}
_RESERVED = {"input"}
#: What the call of a model takes beside the options of its backend.
_NO_OPTIONS = {"key", "timeout", "retry", "model", "inputs", "self"}


def read(steps: Any, result: Any = None) -> Block:
    """Return a pipeline. Raises `InvalidPipeline`, which names everything that is wrong with it."""
    reader = _Reader()
    block, _ = reader.block(steps, result, frozenset(_RESERVED), "steps", 0)
    if reader.problems:
        raise InvalidPipeline(reader.problems)
    return block


@dataclass(slots=True)
class _Reader:
    """Collects problems; what it returns is worth something only when there are none."""

    problems: list[str] = field(default_factory=list)
    _steps: int = 0

    def block(
        self, steps: Any, result: Any, outer: frozenset[str], place: str, depth: int
    ) -> tuple[Block, set[str]]:
        """Return a block, and the results outside of it that it needs."""
        if depth > _DEEPEST:
            self._wrong(place, f"nested deeper than {_DEEPEST} levels")
            return Block(), set()
        raw = self._sound(steps, place)
        ids = [one["id"] for one in raw]
        for twice in sorted({each for each in ids if ids.count(each) > 1 or each in outer}):
            self._wrong(place, f"the id {twice!r} is taken; give each step its own")
        known = outer | set(ids)
        read = {one["id"]: self._step(one, known, place, depth) for one in raw}
        for one in raw:
            here = f"{place}.{one['id']}"
            read[one["id"]][1].update(self._known(self._after(one, here), frozenset(ids), here))
        needs = self._names(result, f"{place}: result", known)
        needs.update(*(each for _, each in read.values()))
        generations = self._ordered(read, set(ids), place)
        return Block(generations=generations, result=result), needs - set(ids)

    def _sound(self, steps: Any, place: str) -> list[Mapping[str, Any]]:
        """Return the steps that have an id, in their order."""
        if not isinstance(steps, list):
            self._wrong(place, "must be a list of steps")
            return []
        self._steps += len(steps)
        if self._steps > MOST_STEPS:
            self._wrong(place, f"more than {MOST_STEPS:,} steps; use map for what repeats")
            return []
        sound = []
        for number, one in enumerate(steps):
            named = isinstance(one, Mapping) and isinstance(one.get("id"), str)
            if named and _ID.fullmatch(one["id"]) and one["id"] not in _RESERVED:
                sound.append(one)
            else:
                self._wrong(f"{place}[{number}]", "needs an id of letters, digits, _ and -")
        return sound

    def _step(
        self, raw: Mapping[str, Any], known: frozenset[str], place: str, depth: int
    ) -> tuple[PipelineStep, set[str]]:
        here = f"{place}.{raw['id']}"
        on_error = raw.get("on_error", "fail")
        if on_error not in ["fail", "continue"]:
            self._wrong(here, f"on_error is 'fail' or 'continue', not {on_error!r}")
        action, needs = self._action(raw, known, here, depth)
        step = PipelineStep(id=raw["id"], action=action, tolerated=on_error == "continue")
        return step, needs

    def _after(self, raw: Mapping[str, Any], here: str) -> list[str]:
        after = raw.get("after", [])
        if not isinstance(after, list) or not all(isinstance(each, str) for each in after):
            self._wrong(here, "after takes a list of ids")
            return []
        return after

    def _action(
        self, raw: Mapping[str, Any], known: frozenset[str], here: str, depth: int
    ) -> tuple[Action, set[str]]:
        kinds = [name for name in _FIELDS if name in raw]
        if len(kinds) != 1:
            self._wrong(here, f"needs exactly one of {', '.join(_FIELDS)}")
            return WaitAction(seconds=0, signal=None, timeout=None), set()
        kind = kinds[0]
        for stray in sorted(set(raw) - _COMMON - _FIELDS[kind] - {kind}, key=str):
            self._wrong(here, f"{kind} takes no {stray!r}")
        if kind == "map":
            return self._map(raw, known, here, depth)
        if kind == "if":
            return self._choice(raw, known, here, depth)
        needs = self._names([raw[name] for name in _FIELDS[kind] if name in raw], here, known)
        action: Action = getattr(self, f"_{kind}")(raw, here)
        if kind == "wait":
            needs |= self._names(raw["wait"], here, known)
        return action, needs

    def _tool(self, raw: Mapping[str, Any], here: str) -> ToolAction:
        server, slash, tool = self._text(raw["tool"], here, "tool").partition("/")
        if not slash or not server or not tool:
            self._wrong(here, "tool is written as server/tool")
        attempts = raw.get("attempts")
        if attempts is not None and not (_whole(attempts) and 1 <= attempts <= 100):
            self._wrong(here, "attempts is a whole number from 1 to 100")
        arguments = raw.get("arguments", {})
        if not isinstance(arguments, Mapping):
            self._wrong(here, "arguments is an object")
        return ToolAction(
            server=server,
            tool=tool,
            arguments=arguments,
            timeout=self._seconds(raw, "timeout", here),
            attempts=attempts,
        )

    def _infer(self, raw: Mapping[str, Any], here: str) -> InferAction:
        if "inputs" not in raw:
            self._wrong(here, "infer needs inputs")
        options = raw.get("options", {})
        try:
            checked_options(options)
        except InvalidPipeline as error:
            self._wrong(here, *error.problems)
        return InferAction(
            model=self._text(raw["infer"], here, "infer"),
            inputs=raw.get("inputs"),
            options=options,
            timeout=self._seconds(raw, "timeout", here),
        )

    def _wait(self, raw: Mapping[str, Any], here: str) -> WaitAction:
        asked = raw["wait"]
        fits = isinstance(asked, Mapping) and (
            set(asked) == {"seconds"} or ("signal" in asked and set(asked) <= {"signal", "timeout"})
        )
        if not fits or None in (asked.get("seconds", 0), asked.get("signal", "")):
            self._wrong(here, "wait is {'seconds': n} or {'signal': name, 'timeout': n}")
            asked = {"seconds": 0}
        if "seconds" in asked and not isinstance(asked["seconds"], Mapping):
            self._seconds(asked, "seconds", here)
        name = asked.get("signal")
        return WaitAction(
            seconds=asked.get("seconds"),
            signal=None if name is None else self._text(name, here, "signal"),
            timeout=self._seconds(asked, "timeout", here),
        )

    def _child(self, raw: Mapping[str, Any], here: str) -> ChildAction:
        queue = raw.get("queue")
        return ChildAction(
            workflow=self._text(raw["child"], here, "child"),
            arguments=raw.get("arguments", {}),
            queue=None if queue is None else self._text(queue, here, "queue"),
        )

    def _choice(
        self, raw: Mapping[str, Any], known: frozenset[str], here: str, depth: int
    ) -> tuple[ChoiceAction, set[str]]:
        needs: set[str] = set()
        try:
            needs = self._known(names_in_condition(raw["if"]), known, here)
        except InvalidPipeline as error:
            self._wrong(here, *error.problems)
        blocks = []
        for way in ("then", "else"):
            block, more = self.block(raw.get(way, []), None, known, f"{here}.{way}", depth + 1)
            blocks.append(block)
            needs |= more
        return ChoiceAction(condition=raw["if"], then=blocks[0], otherwise=blocks[1]), needs

    def _map(
        self, raw: Mapping[str, Any], known: frozenset[str], here: str, depth: int
    ) -> tuple[MapAction, set[str]]:
        name, limit = raw.get("as", "item"), raw.get("limit", 16)
        if not isinstance(name, str) or not _ID.fullmatch(name) or name in known:
            self._wrong(here, "as is a new name for the item")
            name = "item"
        if not (_whole(limit) and 1 <= limit <= _MOST_AT_A_TIME):
            self._wrong(here, f"limit is a whole number from 1 to {_MOST_AT_A_TIME:,}")
            limit = 1
        needs = self._names(raw["map"], here, known)
        inner = known | {name}
        inside = f"{here}.steps"
        body, more = self.block(raw.get("steps"), raw.get("result"), inner, inside, depth + 1)
        action = MapAction(over=raw["map"], name=name, limit=limit, body=body)
        return action, (needs | more) - {name}

    def _ordered(
        self, read: Mapping[str, tuple[PipelineStep, set[str]]], ids: set[str], place: str
    ) -> tuple[tuple[PipelineStep, ...], ...]:
        sorter = TopologicalSorter({name: needs & ids for name, (_, needs) in read.items()})
        try:
            sorter.prepare()
        except CycleError as error:
            self._wrong(place, f"steps wait for each other: {' <- '.join(error.args[1])}")
            return ()
        generations = []
        order = {name: number for number, name in enumerate(read)}
        while sorter.is_active():
            ready = sorter.get_ready()
            sorter.done(*ready)
            # In the order in which they were written, so that a replay finds the same branches.
            generations.append(
                tuple(read[name][0] for name in sorted(ready, key=order.__getitem__))
            )
        return tuple(generations)

    def _names(self, template: Any, here: str, known: frozenset[str]) -> set[str]:
        try:
            return self._known(names_in(template), known, here)
        except InvalidPipeline as error:
            self._wrong(here, *error.problems)
            return set()

    def _known(self, names: Any, known: frozenset[str], here: str) -> set[str]:
        found = set(names)
        for name in sorted(found - known):
            self._wrong(here, f"there is no result {name!r} to refer to")
        return found & known

    def _seconds(self, raw: Mapping[str, Any], name: str, here: str) -> float | None:
        value = raw.get(name)
        if value is None:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < _LONGEST_WAIT_S:
            self._wrong(here, f"{name} is a number of seconds, up to ten years, not {value!r}")
            return None
        return float(value)

    def _text(self, value: Any, here: str, name: str) -> str:
        if not isinstance(value, str) or not value:
            self._wrong(here, f"{name} is a name, not {value!r}")
            return "?/?"
        return value

    def _wrong(self, place: str, *problems: str) -> None:
        self.problems += [f"{place}: {each}" for each in problems]


#: What each kind of step may say beside the name of the kind itself.
_FIELDS: Mapping[str, set[str]] = {
    "tool": {"arguments", "timeout", "attempts"},
    "infer": {"inputs", "options", "timeout"},
    "wait": set(),
    "child": {"arguments", "queue"},
    "if": {"then", "else"},
    "map": {"as", "limit", "steps", "result"},
}


def checked_options(options: Any) -> Mapping[str, Any]:
    """Return the options of a model's call, or raise `InvalidPipeline`."""
    if not isinstance(options, Mapping):
        raise InvalidPipeline(["options is an object"])
    if taken := sorted(_NO_OPTIONS & set(options)):
        raise InvalidPipeline([f"options may not have {', '.join(taken)}"])
    return options


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
