"""What a run is executed with: handed down from `compose`, so that a simulation can replace it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from millstream.events import Emit
from millstream.model.elicitation import InputNeeded, Inputs
from millstream.model.inference import CallOptions
from millstream.model.limits import LIMITS, Limits
from millstream.model.run import Delivery
from millstream.model.tool import Effect, OnUnknown, ToolInfo, ToolResult
from millstream.model.trace import Place
from millstream.store.sealing import Sealer
from millstream.workflow import Log
from millstream_worker.agents.asked import Agents, NoAgents
from millstream_worker.functions import Shapes
from millstream_worker.lease import Lease
from millstream_worker.spilling import Spills

#: Returns a block for a call out of this queue, entered when there is room.
MakesRoom = Callable[[str], AbstractAsyncContextManager[None]]


class Prepared(Protocol):
    """A tool call that was checked and can be sent."""

    @property
    def effect(self) -> Effect:
        """What a repetition would do, as far as it can be relied on."""

    @property
    def needs_intent(self) -> bool:
        """Whether the call is recorded before it is sent."""

    @property
    def catalogue(self) -> str:
        """Hash of what the server says of its tools."""

    @property
    def on_unknown(self) -> OnUnknown:
        """What to do when its outcome is not known."""

    @property
    def room(self) -> MakesRoom | None:
        """Where the call has to find room first; None: it may be sent at once."""


class Tools(Protocol):
    """The tools of a worker."""

    async def prepare(
        self, server: str, tool: str, arguments: Mapping[str, Any], *, run_id: str
    ) -> Prepared:
        """Find the tool and check the arguments. Raises `ToolRejected` or `ToolNotSent`.

        ``run_id`` names the run in the hands that hold it: whose sessions may be used.
        """

    async def call(
        self,
        prepared: Any,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float,
        idempotency_key: str,
        run_id: str,
        place: Place | None,
        inputs: Inputs | None,
    ) -> ToolResult | InputNeeded:
        """Send the call once. Raises `ToolNotSent`, `ToolInterrupted` or `ToolRejected`.

        The server is told in which trace it is called, and what was answered to what it asked.
        """

    async def offered(self, server: str, *, run_id: str) -> tuple[Sequence[ToolInfo], str]:
        """Return the tools of a server that may be called, and the hash of its catalogue.

        Raises `ToolRejected` or `ToolNotSent`.
        """

    def release_run(self, run_id: str) -> None:
        """End the sessions that belong to a run."""


class Inference(Protocol):
    """The models of a worker."""

    def attend(self, held: Callable[[], int]) -> None:
        """Hear how many runs this process holds: when all of them wait here, nobody can join."""

    async def infer(
        self, model: str, inputs: Sequence[Any], options: CallOptions, *, run: str
    ) -> list[Any]:
        """Return one answer for each input. Raises `InferenceError`."""


class RunsInThread(Protocol):
    """Runs a plain function where it does not block the event loop."""

    def __call__(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Return what the function returns."""


class MakesLog(Protocol):
    """Makes the logger that a workflow sees."""

    def __call__(
        self,
        delivery: Delivery,
        queue: str,
        replaying: Callable[[], bool],
        branch: Callable[[], str],
    ) -> Log:
        """Return a logger bound to a run, silent while ``replaying()`` holds."""


class Traces(Protocol):
    """Gives deliveries their place in a trace."""

    def place_of(self, queue: str, delivery: Delivery) -> Place:
        """Return where a delivery stands, and under what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What every run of this process shares."""

    token: str
    lease: Lease
    random: Random
    emit: Emit
    tools: Tools
    inference: Inference
    in_thread: RunsInThread
    make_log: MakesLog
    spills: Spills
    #: None: what runs write stands in clear.
    sealer: Sealer | None = None
    agents: Agents = field(default_factory=NoAgents)
    #: None: nothing is traced here.
    traces: Traces | None = None
    #: A sleep longer than this parks the run.
    park_after_s: float = 5.0
    #: Bytes of what a tool or a model is called with that its record has.
    inputs_most: int = 0
    limits: Limits = LIMITS
    shapes: Shapes = field(default_factory=Shapes)
