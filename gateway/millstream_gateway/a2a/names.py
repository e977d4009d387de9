"""Names of tasks and conversations: a task is a run, and its name says which.

The id of a run that a message began is made from the conversation and the message: its id, what it
is for and what it says. So the same message again is the same run, whichever gateway takes it, and
another message is another run, also where somebody has given it an id of an earlier one. The runs
of a conversation are known by their ids alone.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from a2a.utils.errors import InvalidParamsError, TaskNotFoundError

#: Between a queue and a run, in the names of tasks of other queues than the first. No id of a run
#: has it in it, and a path need not escape it.
_BETWEEN = "~"
_PREFIX = "a2a-"
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation of a tenant."""

    tenant: str
    context_id: str

    @property
    def prefix(self) -> str:
        """With this the ids of all its runs begin."""
        return f"{_PREFIX}{_digest(8, self.tenant, self.context_id)}-"

    def run_id(self, *message: str) -> str:
        """Return the id of the run that a message begins, from all that makes it that message."""
        return self.prefix + _digest(16, self.tenant, self.context_id, *message)


def thread_of(tenant: str | None, context_id: str, message_id: str) -> Thread:
    """Return the conversation of a message; one that names none begins one, always the same."""
    for what, name in (("messageId", message_id), ("contextId", context_id or "-")):
        if not name.isprintable() or not 0 < len(name) <= _LONGEST:
            raise InvalidParamsError(f"a {what} has 1 to {_LONGEST} printable characters")
    made = uuid.UUID(hex=_digest(16, tenant or "", message_id))
    return Thread(tenant or "", context_id or str(made))


def task_id_of(queue: str, run_id: str, served: Sequence[str]) -> str:
    """Return the name of a run as a task."""
    return run_id if queue == served[0] else f"{queue}{_BETWEEN}{run_id}"


def run_of(task_id: str, served: Sequence[str]) -> tuple[str, str]:
    """Return the queue and the id of the run that a task is. Raises `TaskNotFoundError`."""
    queue, between, run_id = task_id.rpartition(_BETWEEN)
    if not between:
        queue = served[0]
    if queue not in served or not run_id:
        raise TaskNotFoundError(f"there is no task {task_id[:_LONGEST]!r}")
    return queue, run_id


def _digest(size: int, *parts: str) -> str:
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()
