"""The calls of the context that wait: for a time, for a signal, for another run."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from millstream.client.asking import new_run
from millstream.client.handles import Enqueue
from millstream.errors import Continued, Suspended, UsageError
from millstream.model.approval import Approval, hash_of
from millstream.model.journal import StepKind
from millstream.model.message import check_name
from millstream.store import codec
from millstream_worker import approvals, childsteps, waitsteps
from millstream_worker.basis import Basis
from millstream_worker.calls import Call


class Waiting(Basis):
    """The part of a context that waits."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        if not 0 <= seconds < 10 * 366 * 86400:
            raise UsageError(f"ctx.sleep takes seconds from 0 to ten years, not {seconds!r}")
        return self._sleep("sleep", waitsteps.Due(seconds=seconds))

    def sleep_until(self, when: float | datetime) -> Awaitable[None]:
        return self._sleep("sleep_until", waitsteps.Due(at=waitsteps.moment(when)))

    def wait_signal(self, name: str, timeout: float | None = None) -> Awaitable[Any]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        check_name(name)
        limit_s = waitsteps.checked_timeout(timeout)
        # Neither the patience nor who sends it makes it another wait.
        step = self._step(StepKind.SIGNAL, name, "", f"signal {name}", None)

        async def act() -> Any:
            return await waitsteps.wait_signal(self._waits, step, self._visit(step), name, limit_s)

        return Call(act, step.key, self._unawaited)

    def approve(
        self,
        question: str,
        *,
        data: Any = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> Awaitable[Approval]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        limit_s = waitsteps.checked_timeout(timeout)
        asked = codec.digest([question, data])
        step = self._step(StepKind.APPROVAL, "approval", asked, "approve", key)
        token = self._value("token", lambda: f"{self._environment.random.getrandbits(160):040x}")
        # Only who watches the run, or whom the workflow tells, learns the token.
        self.emit("approval", {"key": step.key, "question": question, "data": data, "token": token})
        about = approvals.Question(question, data, hash_of(token))

        async def act() -> Approval:
            return await approvals.ask(self._waits, step, self._visit(step), about, limit_s)

        return Call(act, step.key, self._unawaited)

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
        if self._held.stopped is not None:
            return Call(self._too_late)
        digest = codec.digest([arguments, id, queue])
        step = self._step(StepKind.CHILD, workflow, digest, f"child {workflow}", key)
        chosen = childsteps.id_of(self._delivery, step.key) if id is None else id
        # Its arguments stand with the child itself.
        step = msgspec.structs.replace(step, given={"id": chosen, "queue": queue or self._queue})
        asked = Enqueue(
            workflow, arguments, chosen, queue or self._queue, priority, None,
            tenant or self.tenant, timeout, version, self._recorder.trace_for(step),
        )  # fmt: skip
        new = new_run(asked, self._environment.limits, self._environment.random)
        child = childsteps.child_of(self._delivery, new, asked.queue)

        async def act() -> Any:
            if chosen in self._children:
                raise UsageError(f"child {chosen!r} is waited for already; give it another id")
            self._children.add(chosen)
            record = await childsteps.ended(self._waits, step, self._visit(step), child)
            self._children.discard(chosen)
            return childsteps.result(step, record, child)

        return Call(act, step.key, self._unawaited)

    def continue_as(self, arguments: Any = None) -> NoReturn:
        if self._held.stopped is not None:
            raise Suspended
        self.check_awaited()
        self._replay.check_complete()
        if self._children:
            raise UsageError(
                f"child {min(self._children)!r} has not ended; a run begins anew when it has waited"
                " for its children"
            )
        raise Continued(arguments)

    def _sleep(self, name: str, due: waitsteps.Due) -> Awaitable[None]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        digest = codec.digest(due.seconds if due.at is None else due.at)
        step = self._step(StepKind.SLEEP, name, digest, name, None)

        async def act() -> None:
            await waitsteps.sleep(self._recorder, self._parking, step, self._visit(step), due)

        return Call(act, step.key, self._unawaited)
