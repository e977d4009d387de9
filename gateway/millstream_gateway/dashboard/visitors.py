"""People with browsers: signed in by the same keys and tokens as programs, kept by a cookie.

Promises: the cookie is no key and is out of reach of scripts; a form is taken from our own pages
only, and brings the token of its session; a key that was revoked ends the sessions it began.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import quote, urlsplit

from aiohttp import web

from millstream.store import sessions
from millstream.store.connection import Connection
from millstream.store.sessions import Session
from millstream_gateway.auth.guard import LOOPBACK, OpenGuard
from millstream_gateway.auth.keyring import Keyring
from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.refusals import Forbidden, Unauthenticated

COOKIE = "millstream"
LASTS_S = 8 * 3600.0
#: The field of every form that changes something.
FIELD = "token"

Form = Mapping[str, Sequence[str]]


class Knows(Protocol):
    """Knows whose token or key something is."""

    async def known(self, shown: str) -> Principal:
        """Return whose it is. Raises `Unauthenticated`."""


class Visitors:
    """Knows the person behind a request for a page."""

    def __init__(self, guard: Knows, keyring: Keyring, connection: Connection) -> None:
        self._guard = guard
        self._keyring = keyring
        self._connection = connection
        #: In open mode nobody signs in, and still no other page may send our forms.
        self._open_token = secrets.token_urlsafe(16)

    async def admit(self, request: web.BaseRequest) -> Principal:
        """Return who is signed in. Raises `Unauthenticated`."""
        if isinstance(self._guard, OpenGuard):
            found = await self._guard.admit(request)
            return _with_token(found, self._open_token)
        session = await sessions.find(self._connection, request.cookies.get(COOKIE, ""))
        if session is None or not await self._holds(session):
            raise Unauthenticated("sign in first")
        grants = {queue: Role(role) for queue, role in session.grants.items()}
        found = Principal(name=session.name, tenant=session.tenant, grants=grants)
        return _with_token(found, session.form_token)

    def check_form(self, request: web.BaseRequest, principal: Principal, form: Form) -> None:
        """Raise `Forbidden` for a form that did not come from one of our pages."""
        origin = request.headers.get("Origin")
        if origin is None or urlsplit(origin).netloc != request.headers.get("Host"):
            raise Forbidden("a form is sent from the page that it stands on")
        brought = (form.get(FIELD) or [""])[0]
        expected = principal.form_token
        if expected is not None and not hmac.compare_digest(brought.encode(), expected.encode()):
            raise Forbidden("the page was too old; load it again")

    async def sign_in(self, request: web.BaseRequest, shown: str) -> web.Response:
        """Begin a session for whoever shows a key or token. Raises `Unauthenticated`."""
        who = await self._guard.known(shown)
        session = Session(
            name=who.name,
            tenant=who.tenant,
            grants={queue: int(role) for queue, role in who.grants.items()},
            form_token=secrets.token_urlsafe(16),
        )
        answer = to("/")
        answer.set_cookie(
            COOKIE,
            await sessions.begin(self._connection, session, LASTS_S),
            max_age=int(LASTS_S),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=(urlsplit(f"//{request.host}").hostname or "") not in LOOPBACK,
        )
        return answer

    async def sign_out(self, request: web.BaseRequest) -> web.Response:
        """End the session."""
        await sessions.end(self._connection, request.cookies.get(COOKIE, ""))
        answer = to("/login")
        answer.del_cookie(COOKIE, path="/")
        return answer

    async def _holds(self, session: Session) -> bool:
        kind, _, key_id = session.name.partition(":")
        return kind != "key" or await self._keyring.holds(key_id)


def to(path: str) -> web.Response:
    """Send a browser on to another page."""
    return web.Response(status=303, headers={"Location": path})


def page_of_run(run_id: str, queue: str) -> str:
    """Return the path of a run's page."""
    return f"/runs/{quoted(run_id)}?queue={quoted(queue)}"


def quoted(value: object) -> str:
    """Return a value as it stands in an address."""
    return quote(str(value), safe="")


def _with_token(principal: Principal, token: str) -> Principal:
    return Principal(
        name=principal.name, tenant=principal.tenant, grants=principal.grants, form_token=token
    )
