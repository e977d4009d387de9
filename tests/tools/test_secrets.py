"""A secret is used, and shown nowhere: not in a repr, an error, a log or an event."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path

import pytest

from millstream.errors import ToolError
from millstream_worker.tools.credentials import Redactor, Sealed
from millstream_worker.tools.servers import parse_servers
from tests.tools.bench import Bench, benched, in_time, web
from tests.tools.fault_http import FaultHttp

KINDS = ("reset", "bad_json", "wrong_id", "html", "redirect", "429")
SECRET = "s3cr3t/t0k3n+value"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TICKETS_TOKEN", SECRET)
    return "${env:TICKETS_TOKEN}"


def test_a_repr_shows_references_and_no_values(token: str) -> None:
    """A spec is printed when something is wrong, which is when everybody looks."""
    document = {
        "mcpServers": {
            "a": {
                "url": f"https://e.org/{token}",
                "headers": {"Authorization": f"Bearer {token}", "X-Plain": "Basic pl41n-h3ad3r"},
            },
            "b": {"command": "x", "args": ["--key", token], "env": {"API_KEY": "l1t3r4l-k3y"}},
        }
    }
    shown = repr(parse_servers(document))

    for secret in (SECRET, "pl41n-h3ad3r", "l1t3r4l-k3y"):
        assert secret not in shown
    assert token in shown


async def test_a_secret_is_sent_and_fresh_every_time(tmp_path: Path) -> None:
    """A token that is rotated in its file needs no restart."""
    file = tmp_path / "token"
    file.write_text("first-token\n")
    async with FaultHttp().serve() as server:
        entry = web(server) | {"headers": {"Authorization": f"Bearer ${{file:{file}}}"}}
        async with benched({"faults": entry}) as bench:
            await bench.call("faults", "echo")
            assert server.headers[-1]["authorization"] == "Bearer first-token"
            file.write_text("second-token")
            await bench.call("faults", "echo")

    assert server.headers[-1]["authorization"] == "Bearer second-token"


async def test_no_error_event_or_log_shows_a_secret(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server throws it back at us in every way it can."""
    caplog.set_level(logging.DEBUG)
    async with FaultHttp().serve() as server:
        entry = web(server) | {
            "url": f"{server.url}?key={token}",
            "headers": {"Authorization": f"Bearer {token}"},
        }
        async with in_time(), benched({"faults": entry}) as bench:
            shown = [
                await failure(bench, "rpc_error_with", {"words": SECRET}),
                *[await failure(bench, "fault", {"kind": kind}) for kind in KINDS],
            ]

    assert "***" in shown[0]
    for text in (*shown, repr(bench.events), caplog.text, repr(bench.caller)):
        assert SECRET not in text
        assert "s3cr3t%2Ft0k3n%2Bvalue" not in text


async def test_what_a_program_says_last_is_redacted_too(token: str) -> None:
    """Programs like to print their environment when they fail."""
    program = "import os, sys; sys.exit(os.environ['API_TOKEN'])"
    entry = {"command": sys.executable, "args": ["-c", program], "env": {"API_TOKEN": token}}
    async with benched({"faults": entry}) as bench:
        assert "its last words: ***" in await failure(bench, "echo", {})


async def failure(bench: Bench, tool: str, arguments: dict[str, object]) -> str:
    """All that a program could print of a failed call."""
    with pytest.raises(ToolError) as raised:
        await bench.call("faults", tool, arguments)
    return "".join(traceback.format_exception(raised.value)) + repr(raised.value.__dict__)


def test_a_redactor_knows_the_spellings_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a URL and in a repr it looks different, and is as secret."""
    monkeypatch.setenv("T", "a/b'c\nd")
    redact = Redactor([Sealed("${env:T}")])
    for shown in ("x a/b'c\nd y", "?k=a%2Fb%27c%0Ad&", repr(["a/b'c\nd"])):
        assert "b" not in redact(shown)


def test_short_values_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking every `1` out of a message protects nobody."""
    monkeypatch.setenv("T", "1")
    assert Redactor([Sealed("${env:T}")])("HTTP 401") == "HTTP 401"
