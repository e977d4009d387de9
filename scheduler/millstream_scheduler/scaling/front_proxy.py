"""Who asks, by the word of the API server's front proxy.

The proxy has asked for the caller's credentials and tells us the outcome in headers. Its word
counts only over a connection that it opened with a certificate of the front-proxy authority, under
one of the allowed names. From anybody else the same headers are a lie and are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from millstream.errors import ConfigError

#: Where a cluster says whose word counts.
CONFIG_MAP = ("kube-system", "extension-apiserver-authentication")
_PREFIX = "requestheader-"


class Headers(Protocol):
    """The headers of a request; names are compared without regard to case."""

    def getall(self, key: str, default: Any) -> Any:
        """Return all values of a name."""

    def items(self) -> Any:
        """Return all names and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, as a review wants to know it."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontProxy:
    """Whose word counts, and in which headers it stands."""

    #: Certificates in PEM.
    authority: str
    #: Common names of the proxy's certificate; none means any that the authority has signed.
    names: tuple[str, ...] = ()
    user_headers: tuple[str, ...] = ("X-Remote-User",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    extra_prefixes: tuple[str, ...] = field(default=("X-Remote-Extra-",))

    @classmethod
    def of_config_map(cls, data: Mapping[str, str]) -> FrontProxy:
        """Read what a cluster says. Raises `ConfigError` when it says nothing of use."""
        authority = data.get(f"{_PREFIX}client-ca-file", "")
        users = _listed(data, "username-headers")
        if not authority or not users:
            raise ConfigError(
                f"ConfigMap {'/'.join(CONFIG_MAP)} names no front proxy: the API server runs"
                " without an aggregation layer; start it with the --requestheader flags"
            )
        return cls(
            authority=authority,
            names=_listed(data, "allowed-names"),
            user_headers=users,
            group_headers=_listed(data, "group-headers"),
            uid_headers=_listed(data, "uid-headers"),
            extra_prefixes=_listed(data, "extra-headers-prefix"),
        )

    @classmethod
    def of_file(cls, path: Path, names: Sequence[str]) -> FrontProxy:
        """Read the authority from a file. Raises `ConfigError`."""
        try:
            return cls(authority=path.read_text("ascii"), names=tuple(names))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read --requestheader-ca {path}: {error}") from error

    def caller(self, certificate: Mapping[str, Any] | None, headers: Headers) -> Caller | None:
        """Return who asks; None when nobody whose word counts says so.

        ``certificate`` is what TLS has verified against the authority.
        """
        if not certificate or not self._allowed(certificate):
            return None

        name = next((value for value in _values(headers, self.user_headers) if value), "")
        if not name:
            return None

        return Caller(
            name=name,
            groups=tuple(_values(headers, self.group_headers)),
            uid=next(iter(_values(headers, self.uid_headers)), ""),
            extra=self._extra(headers),
        )

    def _allowed(self, certificate: Mapping[str, Any]) -> bool:
        return not self.names or not set(self.names).isdisjoint(common_names(certificate))

    def _extra(self, headers: Headers) -> tuple[tuple[str, tuple[str, ...]], ...]:
        found: dict[str, list[str]] = {}
        for name, value in headers.items():
            for prefix in self.extra_prefixes:
                if name.lower().startswith(prefix.lower()):
                    found.setdefault(unquote(name[len(prefix) :]).lower(), []).append(value)
        return tuple((key, tuple(values)) for key, values in sorted(found.items()))


def common_names(certificate: Mapping[str, Any]) -> Sequence[str]:
    """Return the common names of a certificate, as the `ssl` module tells them."""
    return [
        value
        for part in certificate.get("subject", ())
        for key, value in part
        if key == "commonName"
    ]


def _values(headers: Headers, names: Sequence[str]) -> list[str]:
    return [str(value) for name in names for value in headers.getall(name, [])]


def _listed(data: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = data.get(_PREFIX + name, "") or "[]"
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ConfigError(f"ConfigMap {'/'.join(CONFIG_MAP)}: {_PREFIX}{name} is no JSON list")
    return tuple(found)
