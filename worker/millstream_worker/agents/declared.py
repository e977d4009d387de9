"""The agents that workflows may call, as values: where each is, and how we show who we are.

Promise: what is wrong with the file is said in one line at start. An agent that is not in it is not
called, whatever a workflow, or another agent, says; no repr of a value made here shows a secret.

    {"agents": {"researcher": {
        "url": "https://agents.example.com",
        "headers": {"Authorization": "Bearer ${env:RESEARCHER_TOKEN}"},
        "skills": ["research"], "allowPrivate": false, "resend": false, "maxAnswerBytes": 8388608,
        "verify": {"keys": ["researcher.pem", "https://agents.example.com/jwks.json"],
                   "algorithms": ["EdDSA"]}}}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from millstream import public_keys
from millstream.errors import ConfigError
from millstream.model.limits import MIB
from millstream_worker.tools.credentials import Sealed
from millstream_worker.tools.entries import Entry

LARGEST_ANSWER = 8 * MIB
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose signatures a card is believed by: any of them will do."""

    #: Files, and addresses of key sets.
    keys: tuple[str, ...]
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One agent."""

    name: str
    #: Where its card is, under ``/.well-known``; what the card says of its interfaces is taken
    #: only where they are on the same host.
    url: Sealed
    headers: Mapping[str, Sealed] = field(default_factory=dict)
    #: Skills that it is found by, without asking for its card.
    skills: tuple[str, ...] = ()
    #: Private and loopback addresses, and plain http, are let through.
    allow_private: bool = False
    #: Whether it drops a message that it has had before: then one whose fate nobody knows is sent
    #: again.
    resend: bool = False
    max_answer: int = LARGEST_ANSWER
    #: None: its card is believed as it comes from its address.
    trust: Trust | None = None

    @property
    def sealed(self) -> list[Sealed]:
        """Everything that may hold a secret."""
        return [self.url, *self.headers.values()]


def load_agents(path: Path) -> dict[str, AgentSpec]:
    """Read the agents from a file, or raise `ConfigError` with one line that says what to do."""
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read the agents from {path}: {error.strerror}; correct --agents"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}; correct it") from error
    try:
        return parse_agents(document, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_agents(document: Any, directory: Path = Path()) -> dict[str, AgentSpec]:
    """Return the agents of a decoded file; the files that it names are beside it."""
    if not isinstance(document, dict) or not isinstance(document.get("agents"), dict):
        raise ConfigError('no object "agents"; write {"agents": {"NAME": {"url": ...}}}')
    return {
        name: _spec(name, Entry(f"agents.{name}", value), directory)
        for name, value in document["agents"].items()
    }


def _spec(name: str, entry: Entry, directory: Path) -> AgentSpec:
    # The name is a label of metrics and stands in journals.
    if not _NAME.fullmatch(name):
        raise ConfigError(f"agent name {name!r}: use 1 to 64 letters, digits and . _ -")
    entry.only("url headers skills allowPrivate resend maxAnswerBytes verify")
    allow_private = entry.flag("allowPrivate", default=False)
    url = entry.sealed("url", entry.text("url"))
    scheme = url.reveal().partition("://")[0].lower()
    if scheme != "https" and not (allow_private and scheme == "http"):
        raise entry.wrong(
            "url", 'must begin with https://, or set "allowPrivate": true for http://'
        )
    return AgentSpec(
        name=name,
        url=url,
        # Any header may carry a credential, under whatever name the agent wants it.
        headers=entry.sealed_map("headers", literal_is_secret=True),
        skills=entry.texts("skills"),
        allow_private=allow_private,
        resend=entry.flag("resend", default=False),
        max_answer=int(entry.number("maxAnswerBytes", LARGEST_ANSWER, 1024, 64 * MIB, whole=True)),
        trust=_trust(entry.child("verify"), directory, allow_private)
        if "verify" in entry
        else None,
    )


def _trust(entry: Entry, directory: Path, allow_private: bool) -> Trust:
    entry.only("keys algorithms")
    if not entry.texts("keys"):
        raise entry.wrong("keys", "must name a file of public keys, or the address of a key set")
    schemes = {"https", "http"} if allow_private else {"https"}
    keys = []
    for source in entry.texts("keys"):
        scheme, separator, _ = source.partition("://")
        if separator and scheme.lower() not in schemes:
            raise entry.wrong("keys", "are read from files, or over https")
        keys.append(source if separator else _file(entry, directory / source))
    algorithms = entry.texts("algorithms") or public_keys.ALGORITHMS
    for each in algorithms:
        if each not in public_keys.ALGORITHMS:
            known = ", ".join(public_keys.ALGORITHMS)
            raise entry.wrong("algorithms", f"must be among {known}; {each} is not")
    return Trust(keys=tuple(keys), algorithms=algorithms)


def _file(entry: Entry, path: Path) -> str:
    """Return the name of a file with keys in it."""
    try:
        public_keys.parsed(path.read_bytes())
    except OSError as error:
        raise entry.wrong("keys", f": cannot read {path}: {error.strerror}") from error
    except public_keys.KeysUnreadable as error:
        raise entry.wrong("keys", f": {path}: {error}") from error
    return str(path)
