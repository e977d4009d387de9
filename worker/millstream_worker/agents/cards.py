"""The card of another agent: fetched, believed for a while, and asked for again by its tag.

Promise: an address in a card is taken only where it is on the host that the configuration names, so
a card can lead nowhere else. Where signatures are demanded, a card without one that can be trusted
is no card, also when the one before it had such a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import anyio
import msgspec
from yarl import URL

from millstream_worker.agents.signatures import KeysAway, Untrusted, Verifier
from millstream_worker.tools.faults import Fault, Malformed, Unfit
from millstream_worker.tools.messages import read_bounded, refusal
from millstream_worker.tools.sockets import Ticket, faults

PATH = "/.well-known/agent-card.json"
VERSION = "1.0"
_BINDING = "JSONRPC"
_LARGEST = 1024 * 1024
#: How long a card is believed without asking again.
_BELIEVED_S = 60.0
_ANSWER_S = 15.0


@dataclass(frozen=True, slots=True)
class Card:
    """What we need of a card."""

    rpc: URL
    skills: frozenset[str]
    tags: frozenset[str]


@dataclass(slots=True)
class _Known:
    document: Mapping[str, Any]
    card: Card
    tag: str | None
    at: float


class Cards:
    """The card of one agent."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: URL,
        headers: Callable[[], Mapping[str, str]],
        mono: Callable[[], float],
        verifier: Verifier | None = None,
    ) -> None:
        self._http = http
        self._url = url
        self._headers = headers
        self._mono = mono
        #: None: a card is believed as it comes.
        self._verifier = verifier
        self._known: _Known | None = None
        self._lock = anyio.Lock()

    async def card(self) -> Card:
        """Return the card. Raises a `Fault`; a card that we know outlives an agent that is away."""
        async with self._lock:
            known = self._known
            if known is not None and self._mono() - known.at < _BELIEVED_S:
                return known.card
            try:
                self._known = await self._believed(await self._fetched(known))
            except (Untrusted, KeysAway):
                self._known = None
                raise
            except Fault:
                if known is None:
                    raise
                # Whether it is away, its own interface says better.
                return known.card
            return self._known.card

    async def _believed(self, known: _Known) -> _Known:
        # Also one that has not changed: who is trusted may have.
        if self._verifier is not None:
            await self._verifier.check(known.document)
        return known

    async def _fetched(self, known: _Known | None) -> _Known:
        headers = {**self._headers(), "accept": "application/json", "accept-encoding": "identity"}
        if known is not None and known.tag:
            headers["if-none-match"] = known.tag
        ticket = Ticket()
        with faults(ticket), anyio.fail_after(_ANSWER_S):
            async with self._http.get(
                self._url.with_path(self._url.path.rstrip("/") + PATH),
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=ticket,
            ) as answer:
                if answer.status == 304 and known is not None:
                    return replace(known, at=self._mono())
                if answer.status != 200:
                    raise await refusal(answer)
                body = await read_bounded(answer, _LARGEST)
                tag = answer.headers.get("etag")
                document = self._decoded(body)
                return _Known(document, self._read(document), tag, self._mono())

    def _decoded(self, body: bytes) -> Mapping[str, Any]:
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Malformed("its card is no JSON object") from error

    def _read(self, document: Mapping[str, Any]) -> Card:
        try:
            interfaces = [dict(each) for each in document["supportedInterfaces"]]
            skills = [dict(each) for each in document.get("skills", [])]
        except (KeyError, TypeError, ValueError) as error:
            raise Malformed("its card is none of A2A 1.0") from error
        tags = {str(tag) for skill in skills for tag in skill.get("tags", [])}
        return Card(
            self._interface(interfaces),
            frozenset(str(skill.get("id")) for skill in skills),
            frozenset(tags),
        )

    def _interface(self, interfaces: list[dict[str, Any]]) -> URL:
        """Return where it speaks JSON-RPC on the host that we know. Raises `Unfit`."""
        for each in interfaces:
            version = str(each.get("protocolVersion", "")).split(".")[:2]
            if each.get("protocolBinding") != _BINDING or version != VERSION.split("."):
                continue
            url = URL(str(each.get("url", "")))
            if url.host == self._url.host and url.scheme in {self._url.scheme, "https"}:
                return url
        raise Unfit(
            f"its card names no {_BINDING} interface of version {VERSION} on {self._url.host};"
            " others are not called"
        )
