"""What an address of the store means: which kind of Redis, where, and with which credentials.

``redis://user:password@host:6379/0``, ``rediss://...`` (TLS), ``redis+sentinel://h1:26379,h2:26379/
mymaster/0``, ``redis+cluster://h1:6379,h2:6379``, ``memory://name``. Add ``?ssl_ca_certs=FILE`` and
its kin for TLS with a private authority.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qs, unquote, urlsplit

from millstream.errors import ConfigError


class StoreKind(StrEnum):
    """How the servers behind an address are arranged."""

    SINGLE = "redis"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"
    MEMORY = "memory"


_SCHEMES = {
    "redis": (StoreKind.SINGLE, False),
    "rediss": (StoreKind.SINGLE, True),
    "redis+sentinel": (StoreKind.SENTINEL, False),
    "rediss+sentinel": (StoreKind.SENTINEL, True),
    "redis+cluster": (StoreKind.CLUSTER, False),
    "rediss+cluster": (StoreKind.CLUSTER, True),
    "memory": (StoreKind.MEMORY, False),
}
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A parsed address. Its ``str`` shows no password."""

    kind: StoreKind
    hosts: tuple[tuple[str, int], ...] = ()
    #: Name of the sentinel's master, or of the in-memory server.
    name: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.kind is StoreKind.MEMORY:
            return f"memory://{self.name}"

        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{hosts}/{self.name}" if self.name else hosts


def parse_address(url: str) -> Address:
    """Return what the URL says, or raise `ConfigError`. The error never shows the password."""
    match = re.match(r"([a-z+]+)://", url)
    if not match or match[1] not in _SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ConfigError(f"the address of Redis must begin with one of {schemes}")

    kind, tls = _SCHEMES[match[1]]
    # Several hosts are no valid netloc for the standard parser's port: it only splits here.
    parts = urlsplit("//" + url[match.end() :])
    if kind is StoreKind.MEMORY:
        return Address(kind=kind, name=parts.netloc or "default")

    userinfo, _, netloc = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    path = [part for part in parts.path.split("/") if part]
    if kind is StoreKind.SENTINEL and not path:
        raise ConfigError(
            "a sentinel address names its master: redis+sentinel://host:26379/mymaster"
        )

    name = path.pop(0) if kind is StoreKind.SENTINEL else ""
    return Address(
        kind=kind,
        hosts=_hosts(netloc, 26379 if kind is StoreKind.SENTINEL else 6379),
        name=name,
        db=_db(path, kind),
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=tls,
        tls_options=_tls_options(parts.query, tls=tls),
    )


def _hosts(netloc: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for part in netloc.split(","):
        match = re.fullmatch(r"(\[[^\]]+\]|[^:]*)(?::(\d+))?", part)
        if not match:
            raise ConfigError(f"{part!r} is not host:port in the address of Redis")

        hosts.append((match[1].strip("[]") or "localhost", int(match[2] or default_port)))

    return tuple(hosts)


def _db(path: list[str], kind: StoreKind) -> int:
    if not path:
        return 0
    if kind is StoreKind.CLUSTER or len(path) > 1 or not path[0].isdigit():
        raise ConfigError(f"{'/'.join(path)!r} is not a database number in the address of Redis")

    return int(path[0])


def _tls_options(query: str, *, tls: bool) -> dict[str, str]:
    options = {key: values[-1] for key, values in parse_qs(query).items()}
    unknown = set(options) - _TLS_OPTIONS
    if unknown or (options and not tls):
        raise ConfigError(
            f"option {min(unknown or options)!r} is not known here in the address of Redis;"
            f" rediss:// takes {', '.join(sorted(_TLS_OPTIONS))}"
        )

    return options
