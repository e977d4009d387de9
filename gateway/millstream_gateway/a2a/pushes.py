"""Where agents want to be told how their tasks go on: keep it, show it, forget it.

What a caller gave us to show there (a token, credentials) is kept for that, and shown to nobody.
"""

from __future__ import annotations

import hashlib
import re
import uuid

from a2a.types.a2a_pb2 import (
    AuthenticationInfo,
    SendMessageRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import InvalidParamsError

from millstream.model.run import RunStatus
from millstream.store import pushes
from millstream.store.connection import Connection
from millstream.store.conversations import Subject
from millstream.store.pushes import Errand, Progress, Wish
from millstream_gateway.a2a.destinations import Destinations
from millstream_gateway.a2a.tasks import state_of

_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,49}")
_LONGEST = 8_000


class Pushes:
    """The wishes about tasks."""

    def __init__(self, connection: Connection, destinations: Destinations) -> None:
        self._connection = connection
        self._destinations = destinations

    async def wish(self, subject: Subject, request: SendMessageRequest) -> None:
        """Keep the wish that comes with a message, if one does. The same message, the same wish."""
        if not request.configuration.HasField("task_push_notification_config"):
            return
        config = request.configuration.task_push_notification_config
        digest = hashlib.blake2b(request.message.message_id.encode(), digest_size=8).hexdigest()
        wish = self._checked(config, config.id or f"of-{digest}")
        await pushes.put(self._connection, subject, wish, Progress())

    async def put(
        self, subject: Subject, status: RunStatus, seen: str, config: TaskPushNotificationConfig
    ) -> Wish:
        """Keep a wish: what becomes of a task from now on is told."""
        wish = self._checked(config, config.id or str(uuid.uuid4()))
        # What its creator sees of the task just now need not be told.
        progress = Progress(after=seen, state=int(state_of(status)), asks=tuple(status.awaits))
        await pushes.put(self._connection, subject, wish, progress)
        return wish

    async def every(self, subject: Subject) -> list[Wish]:
        """Return all wishes about a task."""
        return await pushes.every(self._connection, subject)

    async def drop(self, subject: Subject, wish_id: str) -> None:
        """Forget a wish, whether it is there or not."""
        await pushes.drop(self._connection, Errand(subject, wish_id))

    def _checked(self, config: TaskPushNotificationConfig, wish_id: str) -> Wish:
        self._destinations.check(config.url)
        scheme, credentials = config.authentication.scheme, config.authentication.credentials
        if not _ID.fullmatch(wish_id):
            raise InvalidParamsError("the id of a config has 1 to 100 of A-Z a-z 0-9 . _ : -")
        if scheme and not _SCHEME.fullmatch(scheme):
            raise InvalidParamsError("authentication.scheme is one word, such as Bearer")
        for secret in (config.token, credentials):
            # They become headers of a request: nothing in them may begin another one.
            if len(secret) > _LONGEST or not (secret.isascii() and secret.isprintable()):
                raise InvalidParamsError("a token or credential is printable ASCII")
        return Wish(
            id=wish_id, url=config.url, token=config.token, scheme=scheme, credentials=credentials
        )


def config_of(wish: Wish, task_id: str) -> TaskPushNotificationConfig:
    """Return a wish as the protocol has it, without its secrets."""
    config = TaskPushNotificationConfig(id=wish.id, task_id=task_id, url=wish.url)
    if wish.scheme:
        config.authentication.CopyFrom(AuthenticationInfo(scheme=wish.scheme))
    return config
