"""The part of an agent that is asked for push notifications."""

from __future__ import annotations

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types.a2a_pb2 import (
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import TaskNotFoundError

from millstream.client import Client, Run
from millstream.model.run import RunStatus
from millstream.store.conversations import Subject
from millstream_gateway.a2a.callers import Caller, caller_of
from millstream_gateway.a2a.faults import translated
from millstream_gateway.a2a.pushes import Pushes, config_of
from millstream_gateway.a2a.seeing import visible
from millstream_gateway.a2a.tasks import Tasks
from millstream_gateway.auth.principals import Role


class Wishing(RequestHandler):
    """Keeps, shows and forgets where an agent wants to be told."""

    def __init__(self, client: Client, tasks: Tasks, pushes: Pushes) -> None:
        self._client = client
        self._tasks = tasks
        self._pushes = pushes

    @validate_request_params
    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Keep where somebody wants to be told."""
        caller = caller_of(context)
        with translated():
            run, status = await self._own(caller, params.task_id)
            talk = await self._tasks.talk(run)
            _, seen = await self._tasks.snapshot(status, caller.served, talk)
            wish = await self._pushes.put(Subject(run.queue, run.id), status, seen, params)
        return config_of(wish, params.task_id)

    @validate_request_params
    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Return one of them."""
        with translated():
            run, _ = await self._own(caller_of(context), params.task_id)
            for wish in await self._pushes.every(Subject(run.queue, run.id)):
                if wish.id == params.id:
                    return config_of(wish, params.task_id)
        raise TaskNotFoundError(f"the task has no push notification config {params.id[:100]!r}")

    @validate_request_params
    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """Return all of them: there are never more than fit into one page."""
        with translated():
            run, _ = await self._own(caller_of(context), params.task_id)
            wishes = await self._pushes.every(Subject(run.queue, run.id))
        configs = [config_of(wish, params.task_id) for wish in wishes]
        return ListTaskPushNotificationConfigsResponse(configs=configs)

    @validate_request_params
    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Forget one of them; twice is the same as once."""
        with translated():
            run, _ = await self._own(caller_of(context), params.task_id)
            await self._pushes.drop(Subject(run.queue, run.id), params.id)

    async def _own(self, caller: Caller, task_id: str) -> tuple[Run, RunStatus]:
        """Return the run of a task that a caller could have begun."""
        return await visible(self._client, caller, task_id, Role.SUBMITTER)
