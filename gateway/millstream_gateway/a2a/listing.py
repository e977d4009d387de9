"""List the runs that somebody may see as tasks, those first that changed last.

The store has no order of all runs by time, since the fast path would pay for it. So a bounded
number of them is looked at, and put in order here; a cursor names the last task of a page, and
holds whatever becomes of that task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, TaskState
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import (
    ListTasksCursor,
    apply_history_length,
    decode_list_tasks_cursor,
    encode_list_tasks_cursor,
    validate_history_length,
    validate_page_size,
)

from millstream.client import Client
from millstream.model.run import FINAL, RunState, RunStatus
from millstream.store import conversations
from millstream.store.connection import Connection
from millstream.store.conversations import Subject
from millstream_gateway.a2a.callers import Caller
from millstream_gateway.a2a.names import Thread, run_of
from millstream_gateway.a2a.tasks import Tasks, changed_at, state_of
from millstream_gateway.auth.principals import Role

#: Runs of a queue that are looked at, and pages that this may take.
MOST_LOOKED_AT = 2_000
_PAGE = 200
_MOST_PAGES = 50
_LIVE = tuple(state for state in RunState if state not in FINAL)
_PLACES: dict[int, tuple[RunState, ...]] = {
    TaskState.TASK_STATE_UNSPECIFIED: tuple(RunState),
    TaskState.TASK_STATE_SUBMITTED: (RunState.SCHEDULED, RunState.QUEUED),
    TaskState.TASK_STATE_WORKING: _LIVE,
    TaskState.TASK_STATE_INPUT_REQUIRED: (RunState.PARKED,),
    TaskState.TASK_STATE_COMPLETED: (RunState.COMPLETED,),
    TaskState.TASK_STATE_FAILED: (RunState.FAILED,),
    TaskState.TASK_STATE_CANCELED: (RunState.CANCELLED,),
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which runs are asked for."""

    caller: Caller
    request: ListTasksRequest

    def matches(self, status: RunStatus) -> bool:
        """Whether a run is one of them."""
        request, principal = self.request, self.caller.principal
        after = request.status_timestamp_after.ToNanoseconds()
        return (
            principal.sees(status.tenant)
            and request.status in {TaskState.TASK_STATE_UNSPECIFIED, state_of(status)}
            and (not request.HasField("status_timestamp_after") or _at(status) > after)
            and (not request.context_id or self._in_context(status))
        )

    def _in_context(self, status: RunStatus) -> bool:
        thread = Thread(status.tenant or "", self.request.context_id)
        return status.id.startswith(thread.prefix)


class Listing:
    """Lists tasks."""

    def __init__(self, client: Client, connection: Connection, tasks: Tasks) -> None:
        self._client = client
        self._connection = connection
        self._tasks = tasks

    async def page(self, caller: Caller, request: ListTasksRequest) -> ListTasksResponse:
        """Return a page of tasks. Raises `InvalidParamsError`, `StoreError`."""
        validate_history_length(request)
        size = _size(request)
        wanted = _Wanted(caller, request)
        found = [
            status
            for queue in caller.served
            if caller.principal.may(Role.VIEWER, queue)
            for status in await self._looked_at(queue, wanted)
        ]
        found.sort(key=_order, reverse=True)
        rest = _behind(found, request.page_token, caller.served)
        here, more = rest[:size], len(rest) > size
        answer = ListTasksResponse(
            page_size=size,
            total_size=len(found),
            next_page_token=_cursor(here[-1]) if here and more else "",
        )
        answer.tasks.extend(await self._read(here, caller, request))
        return answer

    async def _looked_at(self, queue: str, wanted: _Wanted) -> list[RunStatus]:
        states = _PLACES.get(wanted.request.status, ())
        found: dict[str, RunStatus] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES if states else 0):
            page = await self._client.page(
                queue, states=states, matches=wanted.matches, limit=_PAGE, cursor=cursor
            )
            found.update((status.id, status) for status in page.runs)
            cursor = page.cursor
            if cursor is None or len(found) >= MOST_LOOKED_AT:
                break
        return list(found.values())

    async def _read(
        self, found: Sequence[RunStatus], caller: Caller, request: ListTasksRequest
    ) -> list[object]:
        talks = await conversations.read_many(
            self._connection, [Subject(status.queue, status.id) for status in found]
        )
        tasks: list[object] = []
        for status, talk in zip(found, talks, strict=True):
            task = await self._tasks.task(
                status, caller.served, talk, artifacts=request.include_artifacts
            )
            tasks.append(apply_history_length(task, request))
        return tasks


def _size(request: ListTasksRequest) -> int:
    if not request.HasField("page_size"):
        return DEFAULT_LIST_TASKS_PAGE_SIZE
    validate_page_size(request.page_size)
    return request.page_size


def _at(status: RunStatus) -> int:
    return round(changed_at(status) * 1000) * 1_000_000


def _order(status: RunStatus) -> tuple[bool, int, str]:
    return True, _at(status), f"{status.queue}~{status.id}"


def _cursor(status: RunStatus) -> str:
    return encode_list_tasks_cursor(
        ListTasksCursor(timestamp_ns=_at(status), task_id=f"{status.queue}~{status.id}")
    )


def _behind(found: Sequence[RunStatus], token: str, served: Sequence[str]) -> Sequence[RunStatus]:
    """Return what comes after the place that a token names."""
    if not token:
        return found
    cursor = decode_list_tasks_cursor(token)
    if cursor is None or cursor.timestamp_ns is None:
        raise InvalidParamsError("the page token is none that was given out")
    run_of(cursor.task_id, served)
    return [status for status in found if _order(status) < cursor.sort_key()]
