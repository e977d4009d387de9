"""Through this a workflow acts on the world, and waits for it: what is promised to an author.

The worker has the implementation, and so has `millstream.testing` by way of it.
"""

from __future__ import annotations

import uuid as uuids
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NoReturn, Protocol, TypeVar, overload

from millstream.model.agent import AgentReply
from millstream.model.approval import Approval
from millstream.model.backoff import RetryPolicy
from millstream.model.tool import ToolInfo, ToolResult

T = TypeVar("T")
U = TypeVar("U")


class Log(Protocol):
    """A logger that is silent while a run is replayed."""

    def debug(self, message: str, /, **fields: Any) -> None:
        """Log for whoever looks closely."""

    def info(self, message: str, /, **fields: Any) -> None:
        """Log what happened."""

    def warning(self, message: str, /, **fields: Any) -> None:
        """Log what somebody should look at."""

    def error(self, message: str, /, **fields: Any) -> None:
        """Log what went wrong."""


class Context(ABC):
    """Through this a workflow acts on the world. Every act is journaled under a step key.

    A key is taken when a step is *called*, not when it is awaited. By default it is the branch's
    path, the name, and a count within the branch; give ``key`` where that order is not the same
    every time.
    """

    @property
    @abstractmethod
    def run_id(self) -> str:
        """The id of the run: also a good idempotency key for the world outside."""

    @property
    @abstractmethod
    def attempt(self) -> int:
        """Number of this attempt, from 1. A crash of a worker is not an attempt."""

    @property
    @abstractmethod
    def tenant(self) -> str | None:
        """On whose behalf the run was enqueued."""

    @property
    @abstractmethod
    def log(self) -> Log:
        """A logger bound to the run."""

    @overload
    def step(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Awaitable[T]: ...

    @overload
    def step(
        self,
        fn: Callable[..., T],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Awaitable[T]: ...

    @abstractmethod
    def step(
        self,
        fn: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Awaitable[Any]:
        """Call a function once and record what it returned.

        A plain function runs in a thread; after a timeout the thread goes on, unheard. The value
        comes back as JSON would bring it, by the function's return annotation. Raises
        `StepFailed` or `StepTimeout` when the retries are used up.
        """

    @abstractmethod
    def tool(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Awaitable[ToolResult]:
        """Call a tool of an MCP server and record its answer, ``is_error`` included.

        Raises `ToolRejected`, `ToolNotSent`, `ToolInterrupted` or `OutcomeUnknown`.
        """

    @abstractmethod
    def tools(self, server: str, *, key: str | None = None) -> Awaitable[list[ToolInfo]]:
        """Return the tools of an MCP server that may be called, and record them.

        A replay sees what the run saw, whatever the server offers by then. Raises `ToolRejected`
        or `ToolNotSent`.
        """

    @abstractmethod
    def infer(
        self,
        model: str,
        inputs: Any,
        *,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        priority: str = "normal",
        dedupe: bool = True,
        stream: bool = False,
        **options: Any,
    ) -> Awaitable[Any]:
        """Ask a model and record its answers; those of many runs are computed together.

        A list of inputs gives a list of answers, one input (or one conversation: a list of
        messages) gives one. ``priority`` is high, normal or low; an identical input that is under
        way is computed once unless ``dedupe`` is false. With ``stream`` whoever watches the run is
        told the text as it comes, where the model can say it in pieces; the answer is the same.
        ``options`` are the model's own. Raises
        `InferenceRejected`, `ItemTooLarge`, `InferenceFailed`, `InferenceOverloaded`,
        `InferenceUnavailable` or `DeadlineExceeded`.
        """

    @abstractmethod
    def agent(
        self,
        agent: str,
        message: Any,
        *,
        skill: str | None = None,
        reply_to: AgentReply | None = None,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Awaitable[AgentReply]:
        """Have another agent do something (A2A), wait for its task, and record what came of it.

        ``agent`` is the name of a declared agent, its address, or a skill that one of them has.
        The message is a text, any JSON value, or a list of such parts. The wait parks the run.
        A task that wants to know something comes back too: answer it with ``reply_to``. Raises
        `AgentRejected`, `AgentNotReached`, `AgentTimeout` or `AgentOutcomeUnknown`.
        """

    @abstractmethod
    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait. A long wait parks the run: no slot, no memory of a worker."""

    @abstractmethod
    def sleep_until(self, when: float | datetime) -> Awaitable[None]:
        """Wait until a time: epoch seconds by the clock of Redis, or a datetime with a zone."""

    @abstractmethod
    def wait_signal(self, name: str, timeout: float | None = None) -> Awaitable[Any]:
        """Wait until somebody sends the run a signal of this name; return its payload.

        A signal that came before is kept, and each is taken once, in the order in which they came.
        The wait parks the run. Raises `SignalTimeout` after ``timeout`` seconds.
        """

    @abstractmethod
    def approve(
        self,
        question: str,
        *,
        data: Any = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> Awaitable[Approval]:
        """Ask a person, and wait for the answer: parked, like for a signal.

        The question is listed by `Client.approvals` and said to whoever watches the run, as the
        event ``approval`` with a token that nobody can guess: a link with the token in it lets its
        reader answer. Raises `SignalTimeout` after ``timeout`` seconds.
        """

    @abstractmethod
    def child(
        self,
        workflow: str,
        arguments: Any = None,
        *,
        id: str | None = None,
        queue: str | None = None,
        key: str | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        tenant: str | None = None,
        version: str | None = None,
    ) -> Awaitable[Any]:
        """Run another workflow as a child, and return what it returns, as plain JSON values.

        It is a run like any other, in this queue or another one, with an id made from this run and
        the step unless it is given one. It is started once, whatever dies, and cancelled when this
        run is. Waiting for it parks the run. Raises `ChildFailed`.
        """

    @abstractmethod
    def map(
        self, fn: Callable[[T], Awaitable[U]], items: Iterable[T], *, limit: int = 100
    ) -> Awaitable[list[U]]:
        """Call ``fn`` for each item, each in a branch of its own; return the values in order.

        At most ``limit`` are under way at the same time. All run to their end, as with `gather`.
        """

    @abstractmethod
    def continue_as(self, arguments: Any = None) -> NoReturn:
        """End this run's journal, and begin the run anew with these arguments under the same id.

        For a run that goes on for ever, since a journal is bounded. Signals that it has not taken
        are kept. Call it when all children have ended, and outside of branches.
        """

    @abstractmethod
    def gather(self, *awaitables: Awaitable[Any]) -> Awaitable[list[Any]]:
        """Run branches at the same time; return their values in order.

        All branches run to their end, also when one of them fails; then the first failure, by
        position, is raised. So a replay visits what the run visited.
        """

    @abstractmethod
    def now(self) -> float:
        """Return the time in epoch seconds, the same on every replay."""

    @abstractmethod
    def random(self) -> float:
        """Return a number from 0 to below 1, the same on every replay."""

    @abstractmethod
    def uuid(self) -> uuids.UUID:
        """Return a new UUID, the same on every replay."""

    @abstractmethod
    def patched(self, name: str) -> bool:
        """Return whether a change of the code holds for this run: new runs yes, old ones no.

        True in a run that had not been beyond this point when the code was changed, and recorded
        there; False in one that had. The first answer for a name holds for the whole run.
        """

    @abstractmethod
    def emit(self, name: str, data: Any = None) -> None:
        """Tell whoever watches the run about its progress; said once, however often replayed."""
