"""OAuth in front of an MCP server: tokens are got and renewed, and secrets go to one place."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from millstream.errors import ConfigError, ToolError, ToolNotSent, ToolRejected
from millstream_worker.tools.servers import parse_servers
from tests.tools.bench import Bench, benched, in_time, web
from tests.tools.oauth_server import CLIENT, REFRESH, SECRET, Guarded, OAuthServer

pytestmark = pytest.mark.anyio

Opens = Callable[..., Any]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with in_time(30), AsyncExitStack() as stack:
        yield stack


both_eras = pytest.mark.parametrize("door", ["2026", "2025"], indirect=True)


@pytest.fixture
async def door(request: pytest.FixtureRequest, stack: AsyncExitStack) -> Guarded:
    """A server behind a door; of the era that the test asks for, or of today's."""
    authority = await stack.enter_async_context(OAuthServer().serve())
    guarded = Guarded(authority, era=getattr(request, "param", "2026"))
    await stack.enter_async_context(guarded.serve())
    return guarded


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_SECRET", SECRET)
    monkeypatch.setenv("PERSONS_TOKEN", REFRESH)


def entry(door: Guarded, **options: Any) -> dict[str, Any]:
    """The entry of the server behind the door, as an operator would write it."""
    oauth = {
        "issuer": door.authority.issuer,
        "clientId": CLIENT,
        "clientSecret": "${env:WORKER_SECRET}",
        **options,
    }
    return web(door, oauth={key: value for key, value in oauth.items() if value is not None})


async def opened(stack: AsyncExitStack, door: Guarded, **options: Any) -> Bench:
    return await stack.enter_async_context(benched({"door": entry(door, **options)}))


@both_eras
@pytest.mark.parametrize("in_body", [False, True])
async def test_a_token_is_got_when_the_server_asks_for_one(
    door: Guarded, stack: AsyncExitStack, in_body: bool
) -> None:
    """In our own name, from the configured issuer, for this server and with the scope it wants."""
    bench = await opened(stack, door, secretInBody=in_body)

    for _ in range(3):
        assert not (await bench.call("door", "echo")).is_error

    (asked,) = door.authority.asked
    assert asked["grant_type"] == "client_credentials"
    assert asked["resource"] == door.url
    assert asked["scope"] == "tools"
    assert ("client_secret" in asked) == in_body
    assert door.refused == 1


@both_eras
async def test_many_calls_wait_for_one_token(door: Guarded, stack: AsyncExitStack) -> None:
    """A hundred runs that begin together are one client to the authorization server."""
    bench = await opened(stack, door)

    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(functools.partial(bench.call, "door", "echo", run=f"r{number}"))

    assert len(door.authority.asked) == 1


@both_eras
async def test_a_token_that_is_good_no_more_is_replaced(
    door: Guarded, stack: AsyncExitStack
) -> None:
    """The server says so, and has not executed the call: it is sent again, once."""
    bench = await opened(stack, door)
    await bench.call("door", "echo")
    door.authority.good.clear()

    assert not (await bench.call("door", "echo")).is_error

    assert len(door.authority.asked) == 2
    assert set(bench.statuses) == {"ok"}


async def test_a_token_that_has_run_out_is_not_sent(door: Guarded, stack: AsyncExitStack) -> None:
    """What the authorization server said of its life is believed."""
    now = [100.0]
    bench = await stack.enter_async_context(benched({"door": entry(door)}, now=lambda: now[0]))
    await bench.call("door", "echo")
    now[0] += 3500.0
    await bench.call("door", "echo")
    assert (door.refused, len(door.authority.asked)) == (1, 1)

    now[0] += 80.0
    await bench.call("door", "echo")

    assert (door.refused, len(door.authority.asked)) == (2, 2)
    assert door.tokens[-1] == "", "one that had run out was sent"


async def test_a_wider_scope_is_asked_for_when_a_call_needs_it(
    door: Guarded, stack: AsyncExitStack
) -> None:
    """What was granted before is asked for again along with it."""
    bench = await opened(stack, door)
    await bench.call("door", "echo")
    door.scope = "tools:write"

    assert not (await bench.call("door", "echo")).is_error

    assert door.authority.asked[-1]["scope"].split() == ["tools", "tools:write"]


@pytest.mark.parametrize("rotates", [False, True])
async def test_what_a_person_was_granted_is_refreshed(
    door: Guarded, stack: AsyncExitStack, rotates: bool
) -> None:
    """Also where each answer brings the refresh token of the next time."""
    door.authority.rotates = rotates
    bench = await opened(stack, door, refreshToken="${env:PERSONS_TOKEN}")
    for _ in range(3):
        await bench.call("door", "echo")
        door.authority.good.clear()

    kinds = {asked["grant_type"] for asked in door.authority.asked}
    assert kinds == {"refresh_token"}
    first, *later = [asked["refresh_token"] for asked in door.authority.asked]
    assert first == REFRESH
    assert (REFRESH in later) is not rotates


async def test_a_rotated_secret_needs_no_restart(
    door: Guarded, stack: AsyncExitStack, tmp_path: Path
) -> None:
    """References are read when they are needed."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    bench = await opened(stack, door, clientSecret=f"${{file:{file}}}", secretInBody=True)
    await bench.call("door", "echo")
    door.authority.secret = "an0ther-secret"
    door.authority.good.clear()
    with pytest.raises(ToolRejected, match="no access token"):
        await bench.call("door", "echo")

    file.write_text("an0ther-secret")

    assert not (await bench.call("door", "echo")).is_error


async def test_a_secret_goes_to_nobody_but_the_configured_issuer(
    door: Guarded, stack: AsyncExitStack
) -> None:
    """Where tokens are to be had is said by the server, which may have been taken over."""
    thief = await stack.enter_async_context(OAuthServer().serve())
    door.leads_to = thief.issuer
    bench = await opened(stack, door)
    with pytest.raises(ToolRejected, match="leads to"):
        await bench.call("door", "echo")

    # On the issuer's own machine, in the name of somebody else.
    door.leads_to = None
    door.authority.issuer_says = thief.issuer
    with pytest.raises(ToolRejected, match="no access token"):
        await bench.call("door", "echo")

    assert thief.asked == door.authority.asked == []


async def test_an_authorization_server_that_is_away_is_no_outcome_unknown(
    door: Guarded, stack: AsyncExitStack
) -> None:
    """Nothing was executed: the call may be tried again."""
    bench = await opened(stack, door)
    door.authority.status = 503
    with pytest.raises(ToolNotSent, match=r"no access token: .* answers HTTP 503"):
        await bench.call("door", "echo")
    door.authority.status = 200
    assert not (await bench.call("door", "echo")).is_error

    nowhere = "http://127.0.0.1:1/tenant"
    door.leads_to = nowhere
    door.authority.good.clear()
    other = await opened(stack, door, issuer=nowhere)
    with pytest.raises(ToolNotSent, match="no access token: ClientConnectorError"):
        await other.call("door", "echo")


async def test_neither_secrets_nor_tokens_are_shown(
    door: Guarded, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """Not when it goes well, and not when it does not."""
    caplog.set_level(logging.DEBUG, logger="millstream")
    bench = await opened(stack, door)
    await bench.call("door", "echo")
    (token,) = door.authority.good
    shown = []
    for words in (token, SECRET):
        try:
            await bench.call("door", "rpc_error_with", {"words": words})
        except ToolError as error:
            shown.append(str(error))
    assert len(shown) == 2

    for text in (*shown, repr(bench.events), caplog.text, repr(bench.caller)):
        assert token not in text
        assert SECRET not in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clientSecret": None}, "clientSecret is missing"),
        ({"issuer": None}, "issuer must be a text"),
        ({"issuer": "ftp://example.com"}, "issuer must be the https:// URL"),
        ({"clientId": None}, "clientId must be a text"),
        ({"scopes": "a"}, "scopes is not an option"),
        ({"clientSecret": "${env:NOT_SET_ANYWHERE}"}, "NOT_SET_ANYWHERE is not set"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_at_start(options: dict[str, Any], says: str) -> None:
    wanted = {"issuer": "http://127.0.0.1:1", "clientId": "a", "clientSecret": "b", **options}
    oauth = {key: value for key, value in wanted.items() if value is not None}
    document = {"url": "http://127.0.0.1:2", "millstream": {"allowPrivate": True, "oauth": oauth}}

    with pytest.raises(ConfigError, match=says.replace("$", r"\$")):
        parse_servers({"mcpServers": {"a": document}})


def test_two_ways_to_authorize_exclude_each_other() -> None:
    oauth = {"issuer": "https://i.example", "clientId": "a", "clientSecret": "b"}
    headers = {"authorization": "Bearer x"}
    document = {"url": "https://e.org", "headers": headers, "millstream": {"oauth": oauth}}
    with pytest.raises(ConfigError, match="exclude each other"):
        parse_servers({"mcpServers": {"a": document}})
    with pytest.raises(ConfigError, match="behind a url"):
        parse_servers({"mcpServers": {"a": {"command": "x", "millstream": {"oauth": oauth}}}})
