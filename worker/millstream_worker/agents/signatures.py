"""Whether a card was signed by somebody whom the file of agents trusts.

Promises: whom we trust stands in our file, never in the card, and an address in a signature is not
followed; each key is used with its own algorithm alone; keys are read anew with every card, so a
key that is taken away is believed no more; a source that is away costs nothing but freshness, for
an hour. Credentials of the agent are not sent to where keys are.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import anyio
import msgspec
import rfc8785
from yarl import URL

from millstream.public_keys import (
    ALGORITHMS,
    MOST_BYTES,
    Key,
    KeysUnreadable,
    chosen,
    has_signed,
    parsed,
)
from millstream_worker.agents.declared import Trust
from millstream_worker.tools.egress import check_host
from millstream_worker.tools.faults import Fault, Malformed, Unfit, Unsent
from millstream_worker.tools.messages import read_bounded, refusal
from millstream_worker.tools.sockets import Ticket, faults

#: Keys that could not be read anew are believed for so long.
STALE_S = 3600.0
_FETCH_S = 10.0
_MOST_SIGNATURES = 10
_DEEPEST = 100


class Untrusted(Unfit):
    """A card has no signature of anybody who is trusted with it."""


class KeysAway(Unsent):
    """Nobody can say whom to trust just now."""


class Verifier:
    """Checks the cards of one agent."""

    def __init__(
        self,
        trust: Trust,
        http: aiohttp.ClientSession,
        *,
        allow_private: bool,
        mono: Callable[[], float],
    ) -> None:
        self._trust = trust
        self._http = http
        self._allow_private = allow_private
        self._mono = mono
        #: By source: what it said last, and when.
        self._known: dict[str, tuple[float, list[Key]]] = {}

    async def check(self, card: Mapping[str, Any]) -> None:
        """Return when a trusted key has signed the card; raise `Untrusted`, or `KeysAway`."""
        signatures = card.get("signatures")
        if not isinstance(signatures, list) or not signatures:
            raise Untrusted("its card is not signed, and its entry demands that")
        keys = await self._keys()
        forms = canonical_forms(card)
        reasons = [_reason_against(each, forms, keys) for each in signatures[:_MOST_SIGNATURES]]
        if None not in reasons:
            raise Untrusted(f"no signature of its card is to be trusted: {reasons[0]}")

    async def _keys(self) -> list[Key]:
        wrong: Exception | None = None
        for source in self._trust.keys:
            try:
                self._known[source] = (self._mono(), parsed(await self._load(source)))
            except (Fault, KeysUnreadable) as error:
                wrong = error
        now = self._mono()
        fresh = [key for at, keys in self._known.values() if now - at < STALE_S for key in keys]
        found = [key for key in fresh if key.algorithm in self._trust.algorithms]
        if not found and wrong is not None:
            raise KeysAway(f"the keys for its card cannot be read: {wrong}")
        return found

    async def _load(self, source: str) -> bytes:
        if "://" in source:
            return await self._fetch(URL(source))
        try:
            async with await anyio.open_file(source, "rb") as file:
                return await file.read(MOST_BYTES)
        except OSError as error:
            raise KeysUnreadable(f"cannot read {source}: {error.strerror}") from error

    async def _fetch(self, url: URL) -> bytes:
        check_host(url.host or "", allow_private=self._allow_private)
        ticket = Ticket()
        with faults(ticket), anyio.fail_after(_FETCH_S):
            async with self._http.get(
                url,
                headers={"accept": "application/json", "accept-encoding": "identity"},
                allow_redirects=False,
                trace_request_ctx=ticket,
            ) as answer:
                if answer.status != 200:
                    raise await refusal(answer)
                return await read_bounded(answer, MOST_BYTES)


def canonical_forms(card: Mapping[str, Any]) -> list[bytes]:
    """Return what may have been signed (RFC 8785): the card as it stands, or without what is empty.

    The protocol leaves out fields that have no value, and some agents send them all the same.
    """
    plain = {name: value for name, value in card.items() if name != "signatures"}
    try:
        forms = [rfc8785.dumps(plain), rfc8785.dumps(_pruned(plain) or {})]
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise Malformed("its card has no canonical form") from error
    return list(dict.fromkeys(forms))


def _pruned(value: Any, depth: int = 0) -> Any:
    """Return a value without empty texts, lists and objects in it; None when nothing is left."""
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        fields = {name: _pruned(each, depth + 1) for name, each in value.items()}
        return {name: each for name, each in fields.items() if each is not None} or None
    if isinstance(value, list):
        return [x for x in (_pruned(each, depth + 1) for each in value) if x is not None] or None
    return None if value == "" else value


def _reason_against(signature: Any, forms: Sequence[bytes], keys: Sequence[Key]) -> str | None:
    """Return why a signature is not to be trusted; None when it is."""
    try:
        protected, signed = str(signature["protected"]), str(signature["signature"])
        header = msgspec.json.decode(_opened(protected), type=dict[str, Any])
    except (KeyError, TypeError, ValueError, RecursionError):
        return "it cannot be read"
    kid, algorithm = header.get("kid"), header.get("alg")
    if algorithm not in ALGORITHMS:
        return f"it is made with {str(algorithm)[:20]!r}, and not with {', '.join(ALGORITHMS)}"
    fitting = chosen(keys, kid if isinstance(kid, str) else None, str(algorithm))
    if not fitting:
        return f"no trusted key for {algorithm} is called {str(kid)[:64]!r}"
    if any(has_signed(key, protected, form, signed) for key in fitting for form in forms):
        return None
    return "it is not over this card, or by another key"


def _opened(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
