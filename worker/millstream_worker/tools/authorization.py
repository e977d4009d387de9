"""Access tokens for a server that wants OAuth, as the MCP authorization specification says.

The SDK's providers know the flow: which metadata is asked for, whose word is believed, what a token
request says. They are written for another HTTP client, and hold a lock while the request that they
authorize is under way. So they are asked for nothing but a token: they are shown the refusal of the
server, and every request that they want made leaves through our client, to checked addresses.

Promise: a token is fetched once, however many calls wait for it; secrets go to the configured
issuer and to nobody else; neither they nor tokens are shown. It knows no JSON-RPC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
import anyio
import httpx2
from mcp.client.auth import OAuthFlowError
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from yarl import URL

from millstream.model.limits import KIB
from millstream_worker.tools.credentials import Redactor
from millstream_worker.tools.egress import check_host
from millstream_worker.tools.exchanges import Response
from millstream_worker.tools.faults import AddressRefused, Malformed, Refused, TooLarge, Unsent
from millstream_worker.tools.messages import read_bounded
from millstream_worker.tools.servers import OAuth
from millstream_worker.tools.sockets import CONNECT_S, reason_of

_LARGEST_ANSWER = 256 * KIB
#: All of a flow: a few short requests.
_FLOW_S = 4 * CONNECT_S
#: A token that is about to run out may have done so when it arrives.
_LEEWAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server answered to a request that it did not let in."""

    status: int
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, response: Response) -> Challenge | None:
        """Return what a response asks for, if that is a token or a wider one."""
        wider = "insufficient_scope" in response.headers.get("WWW-Authenticate", "")
        if response.status == 401 or (response.status == 403 and wider):
            return cls(response.status, tuple(response.headers.items()))
        return None


class Authorization:
    """The token of one server, for all our sessions with it."""

    def __init__(
        self,
        oauth: OAuth,
        redactor: Redactor,
        *,
        allow_private: bool,
        now: Callable[[], float],
    ) -> None:
        self._now = now
        self._oauth = oauth
        self._redactor = redactor
        self._allow_private = allow_private
        self._one_at_a_time = anyio.Lock()
        self._tokens: OAuthToken | None = None
        self._expires = float("inf")

    @property
    def headers(self) -> Mapping[str, str]:
        """What to send with a request; nothing until the server has asked for a token."""
        tokens = self._tokens
        if tokens is None or self._now() >= self._expires:
            return {}
        return {"Authorization": f"Bearer {tokens.access_token}"}

    async def renew(
        self,
        http: aiohttp.ClientSession,
        server: URL,
        challenge: Challenge,
        sent: Mapping[str, str],
    ) -> None:
        """Get another token than the one that was sent, unless somebody has done so meanwhile.

        Raises `Refused` when there is none to be had, `Unsent` when nobody could be asked.
        """
        async with self._one_at_a_time:
            if self.headers and self.headers != sent:
                return
            try:
                with anyio.fail_after(_FLOW_S):
                    await self._fetch(
                        _Flow(http, server, self._oauth, self._allow_private), challenge
                    )
            except AddressRefused:
                raise
            except (aiohttp.ClientError, OSError) as error:
                raise Unsent(f"no access token: {reason_of(error)}") from error
            except (OAuthFlowError, Malformed, TooLarge, ValueError) as error:
                raise Refused(challenge.status, f"no access token: {error}") from error

    # -- below ---------------------------------------------------------------------------------

    async def _fetch(self, flow: _Flow, challenge: Challenge) -> None:
        """Let the SDK's provider find out where a token is to be had, and get it."""
        storage = _Storage(self._tokens)
        began = self._now()
        await flow.drive(self._provider(flow.server, storage), challenge)
        found = storage.fetched
        if found is None:
            raise OAuthFlowError("the flow ended without one")
        for secret in (found.access_token, found.refresh_token):
            self._redactor.hide(secret or "")
        self._tokens = found
        self._expires = float("inf")
        if found.expires_in is not None:
            # A token that lives less than the leeway is used for half its life, and at least once.
            life_s = max(found.expires_in - _LEEWAY_S, found.expires_in / 2, 1.0)
            self._expires = began + life_s

    def _provider(self, server: URL, storage: _Storage) -> ClientCredentialsOAuthProvider:
        """Return who knows the flow. Made anew: a secret that was rotated needs no restart."""
        kind = ClientCredentialsOAuthProvider if self._oauth.refresh_token is None else _Refreshing
        secret = self._oauth.client_secret
        provider = kind(
            str(server),
            storage,
            self._redactor.reveal(self._oauth.client_id),
            "" if secret is None else self._redactor.reveal(secret),
            "client_secret_post" if self._oauth.secret_in_body else "client_secret_basic",
            issuer=self._oauth.issuer,
        )
        if isinstance(provider, _Refreshing):
            provider.refresh_token = self._refresh_token()
        return provider

    def _refresh_token(self) -> str:
        """Return the newest one: a server may give another with each access token."""
        if self._tokens is not None and self._tokens.refresh_token:
            return self._tokens.refresh_token
        assert self._oauth.refresh_token is not None
        return self._redactor.reveal(self._oauth.refresh_token)


@dataclass(frozen=True, slots=True)
class _Flow:
    """The way of one token: what a provider asks, sent through our own client."""

    http: aiohttp.ClientSession
    server: URL
    oauth: OAuth
    allow_private: bool

    async def drive(self, provider: ClientCredentialsOAuthProvider, challenge: Challenge) -> None:
        """Answer what the provider asks; its own request counts as refused, and then as let in."""
        own = httpx2.Request("POST", str(self.server))
        flow = provider.async_auth_flow(own)
        shown = False
        try:
            request = await anext(flow)
            while True:
                if request is not own:
                    response = await self._send(request)
                elif shown:
                    response = httpx2.Response(200, request=own)
                else:
                    headers = list(challenge.headers)
                    response = httpx2.Response(challenge.status, headers=headers, request=own)
                    shown = True
                request = await flow.asend(response)
        except StopAsyncIteration:
            return
        finally:
            await flow.aclose()

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        url = URL(str(request.url))
        self._check(url, secret=request.method != "GET")
        headers = {k: v for k, v in request.headers.items() if k not in {"host", "content-length"}}
        headers["accept-encoding"] = "identity"
        async with self.http.request(
            request.method, url, data=request.content, headers=headers, allow_redirects=False
        ) as response:
            if response.status == 429 or response.status >= 500:
                raise Unsent(f"no access token: {url.origin()} answers HTTP {response.status}")
            body = await read_bounded(response, _LARGEST_ANSWER)
            heard = list(response.headers.items())
            return httpx2.Response(response.status, headers=heard, content=body, request=request)

    def _check(self, url: URL, *, secret: bool) -> None:
        """Refuse to go wherever somebody's answer points to.

        Metadata is asked of the server and of the configured issuer. A secret goes where the
        metadata of that issuer says, which the provider has checked.
        """
        check_host(url.host or "", allow_private=self.allow_private)
        if url.scheme != "https" and not self.allow_private:
            raise OAuthFlowError(f"{url.origin()} is plain http")
        trusted = {self.server.origin(), URL(self.oauth.issuer).origin()}
        if not secret and url.origin() not in trusted:
            raise OAuthFlowError(
                f"the server leads to {url.origin()}, and the issuer is {self.oauth.issuer}"
            )


class _Refreshing(ClientCredentialsOAuthProvider):
    """The flow of somebody who was given a refresh token by a person, out of band."""

    refresh_token = ""

    async def _perform_authorization(self) -> httpx2.Request:
        # First what the grant of our base checks: that the metadata is that of our issuer.
        await super()._perform_authorization()
        self.context.current_tokens = OAuthToken(access_token="", refresh_token=self.refresh_token)
        return await self._refresh_token()


class _Storage:
    """Where a provider finds the tokens of before, and leaves those that it got."""

    def __init__(self, before: OAuthToken | None) -> None:
        self._before = before
        self.fetched: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """Return what was granted before, so that a wider grant keeps it; not to be refreshed."""
        if self._before is None:
            return None
        return self._before.model_copy(update={"refresh_token": None})

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Take what was fetched."""
        self.fetched = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return nothing: clients are configured, not registered."""
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep nothing."""
