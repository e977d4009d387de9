"""The routes of the API that operate: speak to runs, act on many, pause queues, keep schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from millstream_gateway.auth.principals import Role
from millstream_gateway.rest import operating_shapes, schedule_shapes, shapes
from millstream_gateway.rest.answering import BASE, BODY, answers_of
from millstream_gateway.rest.bulk import Bulk
from millstream_gateway.rest.operating import Operating
from millstream_gateway.rest.questions import Questions
from millstream_gateway.rest.queues import Queues
from millstream_gateway.rest.schedules import Schedules
from millstream_gateway.routes import Answer, Handler, Route

_RUN = f"{BASE}/runs/{{id}}"
_QUEUE = f"{BASE}/queues/{{queue}}"
_SCHEDULE = f"{BASE}/schedules/{{name}}"
_TOLD = Answer("The run is told, and takes it when it asks.", operating_shapes.Told)
_STARTED = {
    "_200": Answer("The same run was here already.", shapes.Accepted),
    "_201": Answer("It was accepted, and will reach an end.", shapes.Accepted),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """What answers them."""

    operating: Operating
    questions: Questions
    bulk: Bulk
    queues: Queues
    schedules: Schedules

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            *_of_runs(self.operating, self.questions),
            *_of_queues(self.questions, self.bulk, self.queues),
            *_of_schedules(self.schedules),
        ]


def _of_runs(operating: Operating, questions: Questions) -> list[Route]:
    return [
        _said("signal", "signalRun", "Say something to a run", operating.signal,
              operating_shapes.Signal),
        _said("answer", "answerRun", "Answer a question of a run", operating.answer,
              operating_shapes.Answer),
        _said("resolve", "resolveStep", "Say what became of a call whose outcome nobody knows",
              operating.resolve, operating_shapes.Resolution),
        Route(
            method="POST",
            path=f"{_RUN}/answer-by-link",
            name="answerByLink",
            summary="Answer a question of a run with nothing but its token",
            handler=questions.answer,
            needs=None,
            query=shapes.OfQueue,
            body=operating_shapes.LinkAnswer,
            answers=answers_of(*BODY, _202=_TOLD),
        ),
        Route(
            method="POST",
            path=f"{_RUN}/fork",
            name="forkRun",
            summary="Begin another run with what a run recorded before a step",
            handler=operating.fork,
            needs=Role.OPERATOR,
            query=shapes.OfQueue,
            body=operating_shapes.NewFork,
            answers=answers_of(409, *BODY, **_STARTED),
        ),
        Route(
            method="GET",
            path=f"{_RUN}/steps",
            name="listSteps",
            summary="Show what a run has recorded",
            handler=operating.steps,
            needs=Role.VIEWER,
            query=operating_shapes.StepsQuery,
            answers=answers_of(_200=Answer("Some of its steps.", operating_shapes.StepList)),
        ),
    ]  # fmt: skip


def _said(verb: str, name: str, summary: str, handler: Handler, body: Any) -> Route:
    return Route(
        method="POST",
        path=f"{_RUN}/{verb}",
        name=name,
        summary=summary,
        handler=handler,
        needs=Role.OPERATOR,
        query=shapes.OfQueue,
        body=body,
        answers=answers_of(409, *BODY, _202=_TOLD),
    )


def _of_queues(questions: Questions, bulk: Bulk, queues: Queues) -> list[Route]:
    return [
        _many("cancel", "Ask many runs to end", bulk.cancel),
        _many("retry", "Start many failed or cancelled runs once more", bulk.retry),
        Route(
            method="GET",
            path=f"{_QUEUE}/questions",
            name="listQuestions",
            summary="List what runs of a queue wait for people to say",
            tag="queues",
            handler=questions.list,
            needs=Role.VIEWER,
            query=operating_shapes.QuestionsQuery,
            answers=answers_of(_200=Answer("A page of questions.", operating_shapes.QuestionList)),
        ),
        _turn("pause", "Have workers take nothing new from a queue", queues.pause),
        _turn("resume", "Let a paused queue go on", queues.resume),
    ]


def _many(verb: str, summary: str, handler: Handler) -> Route:
    return Route(
        method="POST",
        path=f"{_QUEUE}/runs/{verb}",
        name=f"{verb}Runs",
        summary=summary,
        tag="queues",
        handler=handler,
        needs=Role.OPERATOR,
        body=operating_shapes.Chosen,
        answers=answers_of(*BODY, _200=Answer("What became of each.", operating_shapes.Done)),
    )


def _turn(verb: str, summary: str, handler: Handler) -> Route:
    return Route(
        method="POST",
        path=f"{_QUEUE}/{verb}",
        name=f"{verb}Queue",
        summary=summary,
        tag="queues",
        handler=handler,
        needs=Role.OPERATOR,
        answers=answers_of(
            *BODY, _200=Answer("Workers know within a second.", operating_shapes.Paused)
        ),
    )


def _of_schedules(schedules: Schedules) -> list[Route]:
    shown = Answer("What is known of it.", schedule_shapes.ScheduleView)
    operator = Role.OPERATOR
    return [
        _schedule("GET", f"{BASE}/schedules", "listSchedules", "List schedules, a page at a time",
            schedules.list, Role.VIEWER, query=schedule_shapes.SchedulesQuery,
            answers=answers_of(_200=Answer("A page of them.", schedule_shapes.ScheduleList))),
        _schedule("POST", f"{BASE}/schedules", "createSchedule", "Make a schedule",
            schedules.create, operator, body=schedule_shapes.NewSchedule,
            answers=answers_of(409, *BODY, _201=shown)),
        _schedule("GET", _SCHEDULE, "showSchedule", "Show a schedule with its next times",
            schedules.show, Role.VIEWER, answers=answers_of(_200=shown)),
        _schedule("PUT", _SCHEDULE, "changeSchedule", "Have a schedule say something else",
            schedules.change, operator, body=schedule_shapes.ChangedSchedule,
            answers=answers_of(409, *BODY, _200=shown)),
        _schedule("DELETE", _SCHEDULE, "deleteSchedule", "Delete a schedule; its runs go on",
            schedules.delete, operator,
            answers=answers_of(409, *BODY, _200=Answer("It is no more.", schedule_shapes.Deleted))),
        _schedule("POST", f"{_SCHEDULE}/pause", "pauseSchedule",
            "Let a schedule fire no more until it is resumed",
            schedules.pause, operator, answers=answers_of(409, *BODY, _200=shown)),
        _schedule("POST", f"{_SCHEDULE}/resume", "resumeSchedule",
            "Let a paused schedule fire again",
            schedules.resume, operator, answers=answers_of(409, *BODY, _200=shown)),
        _schedule("POST", f"{_SCHEDULE}/trigger", "triggerSchedule",
            "Start a run of a schedule now, paused or not",
            schedules.trigger, operator, body=schedule_shapes.Trigger,
            answers=answers_of(409, *BODY, **_STARTED)),
    ]  # fmt: skip


def _schedule(  # noqa: PLR0917 - what a route is made of
    method: str, path: str, name: str, summary: str, handler: Handler, needs: Role, **more: Any
) -> Route:
    return Route(
        method=method,
        path=path,
        name=name,
        summary=summary,
        tag="schedules",
        handler=handler,
        needs=needs,
        **more,
    )
