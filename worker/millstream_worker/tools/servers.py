"""The servers of a worker, as values: the `mcpServers` JSON that MCP users have, and our options.

Promise: what is wrong with the file is said in one line at start, not found out by a call. No
repr of a value made here shows a secret. Nothing is connected to, and the SDK is not imported.

    {"mcpServers": {"tickets": {
        "type": "http", "url": "https://mcp.example.com/mcp",
        "headers": {"Authorization": "Bearer ${env:TICKETS_TOKEN}"},
        "millstream": {
            "allow": ["create", "get_*"], "deny": [], "trustAnnotations": false,
            "tools": {"create": {"effect": "keyed", "keyArgument": "request_id"}},
            "maxConnections": 50, "timeout": 120, "allowPrivate": false,
            "limit": {"concurrency": 5, "rate": 100, "per": 60},
            "sharedSession": false, "maxAnswerBytes": 8388608}}}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from millstream.errors import ConfigError
from millstream.model.limit import Quota
from millstream.model.limits import MIB
from millstream.model.tool import Effect, OnUnknown
from millstream_worker.tools.credentials import Sealed
from millstream_worker.tools.entries import Entry

MOST_CONNECTIONS = 50
LONGEST_S = 120.0
LARGEST_ANSWER = 8 * MIB

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WEB_TYPES = {"http", "streamable-http", "streamableHttp", "streamable_http"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRule:
    """What the operator says of one tool."""

    effect: Effect | None = None
    on_unknown: OnUnknown = OnUnknown.FAIL
    #: The tool's own argument that takes the idempotency key.
    key_argument: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stdio:
    """A server that is a program, spoken to through its standard input and output."""

    command: str
    args: tuple[Sealed, ...] = ()
    env: Mapping[str, Sealed] = field(default_factory=dict)
    cwd: str | None = None

    @property
    def sealed(self) -> list[Sealed]:
        """Everything that may hold a secret."""
        return [*self.args, *self.env.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """Who we are to the authorization server of an MCP server."""

    #: The only one that is ever told a secret.
    issuer: str
    client_id: Sealed
    client_secret: Sealed | None = None
    #: What a person was granted, out of band. None: we come in our own name.
    refresh_token: Sealed | None = None
    #: Where the token endpoint wants the secret: in the body, or in a header.
    secret_in_body: bool = False

    @property
    def sealed(self) -> list[Sealed]:
        """Everything that may hold a secret."""
        found = (self.client_id, self.client_secret, self.refresh_token)
        return [sealed for sealed in found if sealed is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A server behind a URL."""

    url: Sealed
    headers: Mapping[str, Sealed] = field(default_factory=dict)
    oauth: OAuth | None = None
    #: Private and loopback addresses, and plain http, are let through.
    allow_private: bool = False

    @property
    def sealed(self) -> list[Sealed]:
        """Everything that may hold a secret."""
        oauth = self.oauth.sealed if self.oauth is not None else []
        return [self.url, *self.headers.values(), *oauth]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One server: how it is reached, what may be called there, and within which bounds."""

    name: str
    transport: Stdio | Web
    rules: Mapping[str, ToolRule] = field(default_factory=dict)
    #: Patterns such as ``get_*``. None: every tool that is not denied.
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    trust_annotations: bool = False
    max_connections: int = MOST_CONNECTIONS
    timeout_s: float = LONGEST_S
    max_answer: int = LARGEST_ANSWER
    #: Whether runs share one session that has a state. None: a web session is never shared, the
    #: process behind a stdio server is.
    shared_session: bool | None = None
    #: What all workers of a queue together may call at once, and in a period.
    limit: Quota | None = None

    def permits(self, tool: str) -> bool:
        """Whether the configuration lets this tool be called."""
        if any(fnmatchcase(tool, pattern) for pattern in self.deny):
            return False
        return self.allow is None or any(fnmatchcase(tool, pattern) for pattern in self.allow)

    @property
    def permitted(self) -> str:
        """What may be called, in words."""
        allowed = "every tool" if self.allow is None else ", ".join(self.allow) or "none"
        return f"{allowed} except {', '.join(self.deny)}" if self.deny else allowed

    def rule(self, tool: str) -> ToolRule:
        """Return what the operator says of a tool; nothing, where nothing is said."""
        return self.rules.get(tool, _NO_RULE)


_NO_RULE = ToolRule()


def load_servers(path: Path) -> dict[str, ServerSpec]:
    """Read the servers from a file, or raise `ConfigError` with one line that says what to do."""
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read the MCP servers from {path}: {error.strerror}; correct --mcp"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}; correct it") from error

    try:
        return parse_servers(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_servers(document: Any) -> dict[str, ServerSpec]:
    """Return the servers of a decoded file. Entries with ``"disabled": true`` are left out."""
    if not isinstance(document, dict) or not isinstance(document.get("mcpServers"), dict):
        raise ConfigError('no object "mcpServers"; write {"mcpServers": {"NAME": {...}}}')

    specs = {}
    for name, value in document["mcpServers"].items():
        entry = Entry(f"mcpServers.{name}", value)
        if not entry.flag("disabled", default=False):
            specs[name] = _spec(name, entry)

    return specs


def _spec(name: str, entry: Entry) -> ServerSpec:
    # The name is a label of metrics and stands in journals as `server/tool`.
    if not _NAME.fullmatch(name):
        raise ConfigError(f"server name {name!r}: use 1 to 64 letters, digits and . _ -")

    ours = entry.child("millstream")
    ours.only(
        "allow deny tools trustAnnotations maxConnections timeout allowPrivate sharedSession"
        " maxAnswerBytes oauth limit"
    )
    allow = ours.texts("allow") if "allow" in ours else None
    return ServerSpec(
        name=name,
        transport=_transport(entry, ours),
        rules=_rules(ours.child("tools")),
        allow=allow,
        deny=ours.texts("deny"),
        trust_annotations=ours.flag("trustAnnotations", default=False),
        max_connections=int(
            ours.number("maxConnections", MOST_CONNECTIONS, 1, MOST_CONNECTIONS, whole=True)
        ),
        timeout_s=ours.number("timeout", LONGEST_S, 0.1, LONGEST_S),
        max_answer=int(ours.number("maxAnswerBytes", LARGEST_ANSWER, 1024, 64 * MIB, whole=True)),
        shared_session=ours.flag("sharedSession") if "sharedSession" in ours else None,
        limit=_limit(ours, ours.child("limit")) if "limit" in ours else None,
    )


def _limit(ours: Entry, entry: Entry) -> Quota:
    entry.only("concurrency rate per")
    if "concurrency" not in entry and "rate" not in entry:
        raise ours.wrong("limit", "limits nothing; give concurrency, rate or both")
    if "per" in entry and "rate" not in entry:
        raise entry.wrong("per", "is the period of a rate, which is missing")
    counts = {
        key: int(entry.number(key, 1, 1, 100_000, whole=True))
        for key in ("concurrency", "rate")
        if key in entry
    }
    return Quota(**counts, per=entry.number("per", 1.0, 0.001, 31 * 86400))


def _transport(entry: Entry, ours: Entry) -> Stdio | Web:
    kind = entry.text("type", "stdio" if "command" in entry else "http")
    if kind == "stdio":
        if "oauth" in ours:
            raise ours.wrong("oauth", "is for servers behind a url")
        return _stdio(entry)
    if kind in _WEB_TYPES:
        return _web(entry, ours)
    if kind == "sse":
        raise entry.wrong("type", "is the transport of 2024, which is gone; use the http endpoint")
    raise entry.wrong("type", "must be stdio or http")


def _stdio(entry: Entry) -> Stdio:
    if not entry.text("command", ""):
        raise entry.wrong("command", "is missing; name the program that is the server")
    return Stdio(
        command=entry.text("command"),
        args=tuple(entry.sealed("args", text) for text in entry.texts("args")),
        env=entry.sealed_map("env"),
        cwd=entry.text("cwd", "") or None,
    )


def _web(entry: Entry, ours: Entry) -> Web:
    allow_private = ours.flag("allowPrivate", default=False)
    if not entry.text("url", ""):
        raise entry.wrong("url", "is missing; give url, or command for a stdio server")

    url = entry.sealed("url", entry.text("url"))
    scheme = url.reveal().partition("://")[0].lower()
    if scheme not in {"http", "https"}:
        raise entry.wrong("url", "must begin with https://")
    if scheme == "http" and not allow_private:
        raise entry.wrong(
            "url", 'is plain http; use https, or set "millstream": {"allowPrivate": true}'
        )
    # Any header may carry a credential, under whatever name the server wants it.
    headers = entry.sealed_map("headers", literal_is_secret=True)
    oauth = _oauth(ours.child("oauth"), allow_private=allow_private) if "oauth" in ours else None
    if oauth is not None and "authorization" in map(str.lower, headers):
        raise ours.wrong("oauth", "and a header Authorization exclude each other")
    return Web(url=url, headers=headers, oauth=oauth, allow_private=allow_private)


def _oauth(entry: Entry, *, allow_private: bool) -> OAuth:
    entry.only("issuer clientId clientSecret refreshToken secretInBody")
    issuer = entry.text("issuer")
    if not issuer.startswith(("https://", "http://") if allow_private else "https://"):
        raise entry.wrong("issuer", "must be the https:// URL of the authorization server")
    secrets = {
        key: entry.sealed(key, entry.text(key), literal_is_secret=True)
        for key in ("clientSecret", "refreshToken")
        if key in entry
    }
    if not secrets:
        raise entry.wrong("clientSecret", "is missing; give it, or a refreshToken")
    return OAuth(
        issuer=issuer,
        client_id=entry.sealed("clientId", entry.text("clientId")),
        client_secret=secrets.get("clientSecret"),
        refresh_token=secrets.get("refreshToken"),
        secret_in_body=entry.flag("secretInBody", default=False),
    )


def _rules(tools: Entry) -> dict[str, ToolRule]:
    rules = {}
    for name in tools:
        rule = tools.child(name)
        rule.only("effect onUnknown keyArgument")
        effect = Effect(rule.choice("effect", Effect)) if "effect" in rule else None
        key_argument = rule.text("keyArgument", "") or None
        if key_argument and effect not in {None, Effect.KEYED}:
            raise rule.wrong("keyArgument", 'needs "effect": "keyed"')
        rules[name] = ToolRule(
            # Whoever names the argument that takes the key says that the server honours it.
            effect=Effect.KEYED if key_argument else effect,
            on_unknown=OnUnknown(rule.choice("onUnknown", OnUnknown, OnUnknown.FAIL)),
            key_argument=key_argument,
        )

    return rules
