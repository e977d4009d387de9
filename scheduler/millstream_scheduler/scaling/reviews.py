"""Who may ask for what, remembered for a while.

An autoscaler asks every fifteen seconds for each of its metrics, and each question would be a
question to the API server. Verdicts are believed for ten seconds, both kinds, so a right that is
taken away ends soon; those who ask the same thing at once share one answer, also when it is that
there is none. A review that fails is no verdict, and is not remembered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from millstream.errors import KubernetesUnavailable
from millstream_scheduler.scaling.front_proxy import Caller

#: Seconds that a verdict is believed, as in Kubernetes' own servers.
KEEP_S = 10.0
#: Verdicts that are remembered; the oldest go first.
MOST = 1000
#: Allowed whatever a review would say, as in every server of Kubernetes.
ALWAYS = "system:masters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody wants to do."""

    verb: str
    group: str
    version: str
    namespace: str
    resource: str
    subresource: str = ""
    name: str = ""

    def attributes(self) -> dict[str, str]:
        """Return it in the words of a review, without what is empty."""
        named = {field: getattr(self, field) for field in self.__slots__}
        return {field: value for field, value in named.items() if value}


@dataclass(slots=True)
class _Asking:
    """A review that is under way."""

    over: anyio.Event = field(default_factory=anyio.Event)
    #: Why it failed; None also when whoever asked was cut off.
    failure: KubernetesUnavailable | None = None


class Reviews:
    """Asks ``may`` and remembers."""

    def __init__(
        self,
        may: Callable[[Caller, Request], Awaitable[bool]],
        *,
        mono: Callable[[], float],
    ) -> None:
        self._may = may
        self._mono = mono
        self._known: dict[tuple[Caller, Request], tuple[float, bool]] = {}
        self._asking: dict[tuple[Caller, Request], _Asking] = {}

    async def allowed(self, caller: Caller, request: Request) -> bool:
        """Whether a caller may. Raises `KubernetesUnavailable`."""
        if ALWAYS in caller.groups:
            return True

        key = (caller, request)
        while True:
            until, verdict = self._known.get(key, (float("-inf"), False))
            if self._mono() < until:
                return verdict
            if (asking := self._asking.get(key)) is None:
                return await self._ask(key)
            await asking.over.wait()
            if (failure := asking.failure) is not None:
                # To ask again, one after the other, would make each wait for all before it.
                raise KubernetesUnavailable(failure.wanted, failure.reason)

    async def _ask(self, key: tuple[Caller, Request]) -> bool:
        asking = self._asking[key] = _Asking()
        asked = self._mono()
        try:
            verdict = await self._may(*key)
        except KubernetesUnavailable as failure:
            asking.failure = failure
            raise
        finally:
            del self._asking[key]
            asking.over.set()

        self._known.pop(key, None)
        self._known[key] = (asked + KEEP_S, verdict)
        if len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        return verdict
