"""TLS that follows its files: a certificate that was exchanged is shown without a restart.

What is listened with never changes; it hands every new connection to the context of the moment.
Half of a pair that is being exchanged, or a file that cannot be read, changes nothing: what was
shown before is shown on, and an event tells of it once. A client that was verified against an
authority which is gone is no longer believed. A client that takes up a session of before, which is
not verified again, can do so until the next look at the files, and not behind a change.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from millstream.errors import ConfigError
from millstream.events import CertificateRead, Emit

#: How soon exchanged files are noticed. They are exchanged weeks before they run out.
FILES_S = 10.0
#: Files that are missing so many times in a row are told of: once, they are being exchanged.
_NEWS = 2
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What stands in the files, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    #: Whom clients are verified against; None: nobody is believed.
    authority: bytes | None = None


class _Context(ssl.SSLContext):
    """Knows against which authority it verifies clients."""

    authority: bytes | None = None


class Certificates:
    """What is shown to clients, and which authority theirs are verified against."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        emit: Emit,
        *,
        authority: Path | None = None,
        clients: ssl.VerifyMode = ssl.CERT_OPTIONAL,
    ) -> None:
        """Read the files. Raises `ConfigError`.

        ``authority``: a file with those that sign for clients; without one, `trust` says who does.
        """
        self._certificate = certificate
        self._key = key
        self._authority = authority
        self._clients = clients
        self._emit = emit
        self._said: str | None = None
        #: How often in a row files were missing.
        self._missed = 0
        self._trusted: bytes | None = None
        #: What is shown at the moment.
        self.shown = self._found()
        self._current = self._context(self.shown)
        #: What to listen with.
        self.listening: ssl.SSLContext = _Listening(lambda: self._current)

    def trust(self, authority: str) -> None:
        """Verify clients against these certificates, in PEM. Raises `ConfigError`."""
        trusted = authority.encode()
        if trusted != self._trusted:
            shown = Shown(certificate=self.shown.certificate, key=self.shown.key, authority=trusted)
            self._current, self.shown = self._context(shown), shown
            self._trusted = trusted

    def outlived(self, connection: ssl.SSLObject, wall: float) -> bool:
        """Whether a connection has outlived the certificate that its client has shown, if any.

        That has run out at this time, in epoch seconds, or rests on an authority that is believed
        no more. One that came beside it, as one does before it takes its place, ends nothing.
        """
        certificate = connection.getpeercert()
        if not certificate:
            return False
        before, now = getattr(connection.context, "authority", None), self.shown.authority
        believed = before == now or (bool(_each(before)) and _each(before) <= _each(now))
        return not believed or ssl.cert_time_to_seconds(str(certificate["notAfter"])) <= wall

    def refresh(self) -> None:
        """Look whether the files have changed, and show what is in them."""
        try:
            found = self._found()
            context = self._context(found)
            if self._found() != found:
                return  # it was exchanged while it was read: the next look finds the whole
        except ConfigError as error:
            missing = isinstance(error.__cause__, FileNotFoundError)
            self._missed = self._missed + 1 if missing else _NEWS
            # Once is no news: the old file is removed before the new one is made.
            if self._missed >= _NEWS:
                self._tell(str(error))
            return

        back, self._said, self._missed = self._said is not None, None, 0
        # Also where nothing has changed: it remembers sessions, which so are forgotten.
        self._current = context
        if found != self.shown or back:
            self.shown = found
            self._emit(CertificateRead())

    async def follow_forever(self, every_s: float = FILES_S) -> None:
        """Look again and again."""
        while True:
            await anyio.sleep(every_s)
            self.refresh()

    def _tell(self, error: str) -> None:
        """Say it once, not at every look."""
        if self._said != error:
            self._said = error
            self._emit(CertificateRead(error=error))

    def _context(self, shown: Shown) -> _Context:
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        context.authority = shown.authority
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = self._clients
        # Sessions are kept here alone, and not by clients.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_cert_chain(self._certificate, self._key, _no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(
                f"cannot use the certificate {self._certificate} with the key {self._key}:"
                f" {_reason(error)}; both must be PEM, and belong together"
            ) from error
        if shown.authority is not None:
            self._believe(context, shown.authority)
        return context

    def _believe(self, context: ssl.SSLContext, authority: bytes) -> None:
        try:
            context.load_verify_locations(cadata=authority.decode("ascii"))
        except (OSError, ValueError) as error:
            where = "" if self._authority is None else f" in {self._authority}"
            raise ConfigError(
                f"cannot use the authority of clients{where}: {_reason(error)}; it must be one or"
                " more certificates in PEM"
            ) from error

    def _found(self) -> Shown:
        try:
            return Shown(
                certificate=self._certificate.read_bytes(),
                key=self._key.read_bytes(),
                authority=(
                    self._trusted if self._authority is None else self._authority.read_bytes()
                ),
            )
        except OSError as error:
            raise ConfigError(
                f"cannot read {error.filename}: {error.strerror}; correct --tls-cert, --tls-key or,"
                " of a gateway, --tls-client-ca"
            ) from error


class _Listening(ssl.SSLContext):
    """Makes connections in the context of the moment: all that asyncio asks of a server's."""

    _of_the_moment: Callable[[], ssl.SSLContext]

    def __new__(cls, of_the_moment: Callable[[], ssl.SSLContext]) -> _Listening:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._of_the_moment = of_the_moment
        return made

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection."""
        return self._of_the_moment().wrap_bio(*args, **options)


def _each(authority: bytes | None) -> frozenset[bytes]:
    return frozenset(_CERTIFICATE.findall(authority or b""))


def _reason(error: Exception) -> object:
    return getattr(error, "reason", None) or error


def _no_password() -> str:
    # Without this a key with a password would ask for it on the terminal.
    raise ValueError("the key has a password")
