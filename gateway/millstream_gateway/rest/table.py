"""The routes of the API. What is not here cannot be asked."""

from __future__ import annotations

from millstream_gateway import outgoing
from millstream_gateway.auth.principals import Role
from millstream_gateway.rest import operating_shapes, shapes
from millstream_gateway.rest.answering import BASE, BODY, answers_of
from millstream_gateway.rest.bulk import Bulk
from millstream_gateway.rest.queues import Queues
from millstream_gateway.rest.runs import Runs
from millstream_gateway.rest.stream import Streams
from millstream_gateway.routes import Answer, Route

_KEY = {"Idempotency-Key": "Stands for an id: the same key of the same tenant is the same run."}
_LAST = {"Last-Event-ID": "The id of the last event that was seen; what came after it is told."}
_SAYS = "Messages `emit`, `step`, `text` and `left_out`, and then `end`."


def routes(runs: Runs, queues: Queues, bulk: Bulk, streams: Streams) -> list[Route]:
    """Return the routes of the API."""
    return [*_of_runs(runs, streams), *_of_one(runs), *_of_queues(queues, bulk)]


def _of_runs(runs: Runs, streams: Streams) -> list[Route]:
    return [
        Route(
            method="POST",
            path=f"{BASE}/runs",
            name="enqueue",
            summary="Enqueue a run",
            handler=runs.enqueue,
            needs=Role.SUBMITTER,
            body=shapes.NewRun,
            headers=_KEY,
            answers=answers_of(
                409,
                *BODY,
                _200=Answer("The same run was here already.", shapes.Accepted),
                _201=Answer("It was accepted, and will reach an end.", shapes.Accepted),
            ),
        ),
        Route(
            method="POST",
            path=f"{BASE}/runs/batch",
            name="enqueueMany",
            summary="Enqueue up to 500 runs",
            handler=runs.enqueue_many,
            needs=Role.SUBMITTER,
            body=shapes.NewRuns,
            headers=_KEY,
            answers=answers_of(
                *BODY, _200=Answer("Each was accepted, or says why not.", shapes.AcceptedMany)
            ),
        ),
        Route(
            method="GET",
            path=f"{BASE}/runs",
            name="listRuns",
            summary="List runs, a page at a time",
            handler=runs.list,
            needs=Role.VIEWER,
            query=shapes.RunsQuery,
            answers=answers_of(_200=Answer("A page of runs.", shapes.RunList)),
        ),
        Route(
            method="GET",
            path=f"{BASE}/runs/{{id}}/events",
            name="followRun",
            summary="Follow what a run says, as server-sent events",
            handler=streams.events,
            needs=Role.VIEWER,
            query=shapes.EventsQuery,
            headers=_LAST,
            streams=True,
            answers=answers_of(
                _200=Answer(_SAYS, None, outgoing.MEDIA_TYPE),
                _204=Answer("The end was told already, and there is no more.", None),
            ),
        ),
    ]


def _of_one(runs: Runs) -> list[Route]:
    moved = Answer("It was asked for.", shapes.Moved)
    return [
        Route(
            method="GET",
            path=f"{BASE}/runs/{{id}}",
            name="showRun",
            summary="Show what is known of a run",
            handler=runs.show,
            needs=Role.VIEWER,
            query=shapes.OfQueue,
            answers=answers_of(_200=Answer("What is known of it.", shapes.RunView)),
        ),
        Route(
            method="GET",
            path=f"{BASE}/runs/{{id}}/result",
            name="awaitRun",
            summary="Get the result of a run, waiting for it up to a minute",
            handler=runs.result,
            needs=Role.VIEWER,
            query=shapes.ResultQuery,
            answers=answers_of(
                409,
                _200=Answer("How it ended.", shapes.RunEnd),
                _202=Answer("It goes on; ask again.", shapes.RunEnd),
            ),
        ),
        Route(
            method="POST",
            path=f"{BASE}/runs/{{id}}/cancel",
            name="cancelRun",
            summary="Ask a run to end",
            handler=runs.cancel,
            needs=Role.OPERATOR,
            query=shapes.OfQueue,
            answers=answers_of(_202=moved),
        ),
        Route(
            method="POST",
            path=f"{BASE}/runs/{{id}}/retry",
            name="retryRun",
            summary="Start a run that failed or was cancelled once more",
            handler=runs.retry,
            needs=Role.OPERATOR,
            query=shapes.OfQueue,
            answers=answers_of(409, _202=moved),
        ),
    ]


def _of_queues(queues: Queues, bulk: Bulk) -> list[Route]:
    return [
        Route(
            method="GET",
            path=f"{BASE}/queues",
            name="listQueues",
            summary="Show what the queues hold",
            tag="queues",
            handler=queues.list,
            needs=Role.VIEWER,
            answers=answers_of(_200=Answer("The queues that you may see.", shapes.QueueList)),
        ),
        Route(
            method="GET",
            path=f"{BASE}/queues/{{queue}}",
            name="showQueue",
            summary="Show what a queue holds",
            tag="queues",
            handler=queues.show,
            needs=Role.VIEWER,
            answers=answers_of(_200=Answer("What it holds.", shapes.QueueView)),
        ),
        Route(
            method="GET",
            path=f"{BASE}/queues/{{queue}}/dead",
            name="listDead",
            summary="List the dead letters of a queue, a page at a time",
            tag="queues",
            handler=queues.dead,
            needs=Role.VIEWER,
            query=shapes.DeadQuery,
            answers=answers_of(_200=Answer("A page of dead letters.", shapes.RunList)),
        ),
        Route(
            method="POST",
            path=f"{BASE}/queues/{{queue}}/dead/replay",
            name="replayDead",
            summary="Start dead letters once more",
            tag="queues",
            handler=bulk.replay,
            needs=Role.OPERATOR,
            body=operating_shapes.Chosen,
            answers=answers_of(*BODY, _200=Answer("What became of each.", operating_shapes.Done)),
        ),
        Route(
            method="GET",
            path=f"{BASE}/workflows",
            name="listWorkflows",
            summary="Show what the workers of a queue can run",
            tag="queues",
            handler=queues.workflows,
            needs=Role.VIEWER,
            query=shapes.OfQueue,
            answers=answers_of(_200=Answer("What can be run.", shapes.WorkflowList)),
        ),
    ]
