"""The file of servers: what MCP users have is understood, and what is wrong is said at start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import ConfigError
from millstream.model.tool import Effect, OnUnknown
from millstream_worker.tools.servers import ServerSpec, Stdio, Web, load_servers, parse_servers


def spec(**entry: Any) -> ServerSpec:
    return parse_servers({"mcpServers": {"s": entry}})["s"]


def test_what_other_clients_write_is_read(tmp_path: Path) -> None:
    """Unknown keys of an entry belong to somebody else; a disabled server is not there."""
    file = tmp_path / "mcp.json"
    file.write_text(
        json.dumps(
            {
                "mcpServers": {
                    "git": {"command": "mcp-server-git", "args": ["--repository", "/r"]},
                    "web": {
                        "type": "streamableHttp",
                        "url": "https://e.org/mcp",
                        "autoApprove": [],
                    },
                    "old": {"command": "x", "disabled": True},
                },
                "inputs": [],
            }
        )
    )
    servers = load_servers(file)

    assert list(servers) == ["git", "web"]
    assert isinstance(servers["git"].transport, Stdio)
    assert isinstance(servers["web"].transport, Web)
    assert servers["git"].max_connections == 50
    assert servers["git"].timeout_s == 120


def test_our_own_options_are_read() -> None:
    """Everything under `millstream`, in one entry."""
    read = spec(
        command="x",
        millstream={
            "allow": ["get_*"],
            "deny": ["get_all"],
            "trustAnnotations": True,
            "tools": {
                "create": {"keyArgument": "request_id"},
                "delete": {"effect": "idempotent", "onUnknown": "retry"},
            },
            "maxConnections": 4,
            "timeout": 7.5,
            "sharedSession": False,
        },
    )

    assert [read.permits(tool) for tool in ("get_one", "get_all", "create")] == [True, False, False]
    assert read.rule("create").effect is Effect.KEYED
    assert read.rule("create").key_argument == "request_id"
    assert read.rule("delete").effect is Effect.IDEMPOTENT
    assert read.rule("delete").on_unknown is OnUnknown.RETRY
    assert read.rule("other").effect is None
    assert (read.max_connections, read.timeout_s) == (4, 7.5)
    assert (read.trust_annotations, read.shared_session) == (True, False)


WRONG: list[tuple[Any, str]] = [
    ([], 'no object "mcpServers"'),
    ({"servers": {}}, 'no object "mcpServers"'),
    ({"mcpServers": {"s": 1}}, "mcpServers.s must be an object, not a number"),
    ({"mcpServers": {"a/b": {"command": "x"}}}, "server name 'a/b'"),
    ({"mcpServers": {"s": {}}}, "mcpServers.s.url is missing"),
    ({"mcpServers": {"s": {"type": "stdio"}}}, "mcpServers.s.command is missing"),
    ({"mcpServers": {"s": {"type": "sse", "url": "https://e.org"}}}, "is the transport of 2024"),
    ({"mcpServers": {"s": {"type": "ftp", "url": "https://e.org"}}}, "must be stdio or http"),
    ({"mcpServers": {"s": {"url": "http://127.0.0.1/mcp"}}}, "is plain http; use https, or set"),
    ({"mcpServers": {"s": {"url": "file:///etc"}}}, "must begin with https://"),
    ({"mcpServers": {"s": {"command": "x", "args": "y"}}}, "args must be a list of texts"),
    ({"mcpServers": {"s": {"command": "x", "env": {"A": 1}}}}, "env.A must be a text"),
    ({"mcpServers": {"s": {"command": "x", "env": {"A": "${env:NOPE_X}"}}}}, "NOPE_X is not set"),
    ({"mcpServers": {"s": {"command": "x", "env": {"A": "${B}"}}}}, "is not a reference"),
    (
        {"mcpServers": {"s": {"url": "https://e.org", "headers": {"A": "${file:/no/file}"}}}},
        "/no/file cannot be read",
    ),
]

WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"alow": []}, "millstream.alow is not an option; there are allow, deny"),
    ({"maxConnections": 51}, "must be a number from 1 to 50"),
    ({"maxConnections": 1.5}, "must be a number from 1 to 50"),
    ({"maxConnections": True}, "must be a number from 1 to 50"),
    ({"limit": {}}, "millstream.limit limits nothing; give concurrency, rate or both"),
    ({"limit": {"concurrency": 0}}, "limit.concurrency must be a number from 1 to 100000"),
    ({"limit": {"concurrency": 1, "per": 60}}, "limit.per is the period of a rate"),
    ({"limit": {"rates": 1}}, "limit.rates is not an option; there are concurrency, rate, per"),
    ({"timeout": 121}, "must be a number from 0.1 to 120"),
    ({"trustAnnotations": "yes"}, "must be true or false, not a text"),
    ({"tools": {"t": {"effect": "safe"}}}, "must be one of read-only, idempotent, keyed, unsafe"),
    ({"tools": {"t": {"onUnknown": "hope"}}}, "must be one of fail, retry, ask"),
    ({"tools": {"t": {"effect": "unsafe", "keyArgument": "k"}}}, 'needs "effect": "keyed"'),
]


@pytest.mark.parametrize(("document", "message"), WRONG)
def test_what_is_wrong_is_said_in_one_line(document: Any, message: str) -> None:
    """Where it is, and what would be right."""
    with pytest.raises(ConfigError) as raised:
        parse_servers(document)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS)
def test_an_option_that_is_wrong_takes_no_default(options: dict[str, Any], message: str) -> None:
    """A typo in a bound or an effect would otherwise be found out in production."""
    with pytest.raises(ConfigError) as raised:
        spec(command="x", millstream=options)
    assert message in str(raised.value)


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    """Absent, broken, or not text at all."""
    file = tmp_path / "mcp.json"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"mcp\.json"):
        load_servers(file)
