"""What goes in and out of the routes that operate: speak to runs, fork them, act on many."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from millstream.model.message import LONGEST_NAME
from millstream.model.run import RunState
from millstream_gateway.rest.shapes import (
    MOST_AT_ONCE,
    AttributePair,
    Cause,
    Cursor,
    Limit,
    Moment,
    Name,
    OfQueue,
    RunId,
    Tenant,
)

#: No control characters: a name is shown, logged and compared.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
SignalName = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME, pattern=_PRINTABLE)]
StepKey = Annotated[
    str, Meta(min_length=1, max_length=1000, description="Key of a step: `runs/{id}/steps`.")
]
Comment = Annotated[str, Meta(max_length=2000)]
LinkToken = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{40}$", description="The token of the event `approval`.")
]


# -- what is asked -----------------------------------------------------------------------------


class Signal(Struct, kw_only=True, forbid_unknown_fields=True):
    """Something to say to a run. One of the same id is taken once, however often it is sent."""

    name: SignalName
    payload: Any = None
    id: SignalName | None = None


class Answer(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is answered to a question of a run. The first answer stands."""

    approved: bool
    #: Key of the step that asks; null: the only open question.
    question: StepKey | None = None
    comment: Comment | None = None


class LinkAnswer(Struct, kw_only=True, forbid_unknown_fields=True):
    """The same from somebody who has the token of the question, and need be nobody else."""

    token: LinkToken
    approved: bool
    comment: Comment | None = None


class Resolution(Struct, kw_only=True, forbid_unknown_fields=True):
    """What became of a tool call whose outcome nobody knows. The first word stands."""

    step: StepKey
    #: Send it again, give it up, or take `result` for its answer.
    verdict: Literal["retry", "fail", "result"]
    result: Any = None


class NewFork(Struct, kw_only=True, forbid_unknown_fields=True):
    """Another run to begin with what a run recorded before a step."""

    step: StepKey
    id: RunId | None = None
    version: Name | None = None


class Chosen(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which runs are meant: these ids, or (`all`) those that match, a page at a time."""

    ids: Annotated[list[RunId], Meta(min_length=1, max_length=MOST_AT_ONCE)] | None = None
    all: bool = False
    state: list[RunState] = []
    workflow: Name | None = None
    cause: Cause | None = None
    tenant: Tenant | None = None
    since: Moment | None = None
    until: Moment | None = None
    attribute: list[AttributePair] = []
    limit: Annotated[int, Meta(ge=1, le=MOST_AT_ONCE)] = MOST_AT_ONCE
    cursor: Cursor | None = None
    #: Say what would be done, and do nothing.
    dry_run: bool = False

    @property
    def filtered(self) -> bool:
        """Whether anything is said that chooses among all."""
        said = (self.workflow, self.cause, self.tenant, self.since, self.until, self.cursor)
        return bool(self.state or self.attribute) or any(each is not None for each in said)


class StepsQuery(OfQueue, kw_only=True, forbid_unknown_fields=True):
    """Which steps of a run to show, in the order in which they began."""

    skip: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    limit: Limit = 50


class QuestionsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which questions to list."""

    limit: Limit = 50
    cursor: Cursor | None = None


class LinkQuery(OfQueue, kw_only=True, forbid_unknown_fields=True):
    """What a link to a question brings."""

    token: LinkToken


# -- what is answered --------------------------------------------------------------------------


class Told(Struct, kw_only=True):
    """It stands with the run, which takes it when it asks for it."""

    id: str
    queue: str


class Done(Struct, kw_only=True):
    """What became of each run that was meant, by id.

    `queued`, `cancelled`, `cancelling`, the state that it is in instead, or `unknown`. In a dry run
    the state of each that would be acted on.
    """

    runs: dict[str, str]
    #: Say it again with this as `cursor`; null: that was all.
    next: str | None = None


class Paused(Struct, kw_only=True):
    """Whether workers take nothing new from a queue, and whether that is news."""

    queue: str
    paused: bool
    changed: bool


class Question(Struct, kw_only=True):
    """What a parked run waits for a person to say."""

    run: str
    queue: str
    workflow: str
    tenant: str | None
    #: `approval`: see `answer`. `doubt`: a tool call that may have run, see `resolve`.
    kind: Literal["approval", "doubt"]
    step: str
    #: What is asked, or which tool was called.
    question: str
    #: What was given with the question, or an excerpt of what the tool was sent.
    data: Any
    #: Epoch seconds by the clock of Redis.
    asked: float
    due: float | None


class QuestionList(Struct, kw_only=True):
    """A page of questions. It may be short and still not be the last."""

    questions: list[Question]
    next: str | None


class StepView(Struct, kw_only=True):
    """What the journal has of a step, without what looks like a secret."""

    key: str
    kind: str
    target: str
    status: str
    attempts: int
    run_attempt: int
    began: float
    took_s: float
    by: str
    value: Any
    #: What it was called with, as far as that was kept.
    inputs: Any
    #: Bytes of a value that is kept beside the journal, and not shown here.
    spilled: int | None


class StepList(Struct, kw_only=True):
    """Steps in the order in which they began, and how many come after them."""

    steps: list[StepView]
    left: int
