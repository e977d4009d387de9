"""Who may ask for what, remembered for a while.

An autoscaler asks every fifteen seconds for each of its metrics, and each question would be a
question to the API server. Verdicts are believed for ten seconds, both kinds, so a right that is
taken away ends soon; those who ask the same thing at once share one answer. A review that fails is
no verdict, and is not remembered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

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
        self._asking: dict[tuple[Caller, Request], anyio.Event] = {}

    async def allowed(self, caller: Caller, request: Request) -> bool:
        """Whether a caller may. Raises `KubernetesUnavailable`."""
        if ALWAYS in caller.groups:
            return True

        key = (caller, request)
        while True:
            until, verdict = self._known.get(key, (float("-inf"), False))
            if self._mono() < until:
                return verdict
            if key not in self._asking:
                return await self._ask(key)
            # Whether that one fails or not: then this one asks.
            await self._asking[key].wait()

    async def _ask(self, key: tuple[Caller, Request]) -> bool:
        answered = self._asking[key] = anyio.Event()
        asked = self._mono()
        try:
            verdict = await self._may(*key)
        finally:
            del self._asking[key]
            answered.set()

        self._known.pop(key, None)
        self._known[key] = (asked + KEEP_S, verdict)
        if len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        return verdict
