"""TLS that follows its files: a certificate that was exchanged is shown without a restart.

What is listened with never changes; it hands every new connection to the context of the moment.
Half of a pair that is being exchanged, or a file that cannot be read, changes nothing: what was
shown before is shown on, and an event tells of it once. A client that was verified before the
authority was exchanged has to come again.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from millstream.errors import ConfigError
from millstream.events import CertificateRead, Emit

#: Files that could not be read so many times in a row are told of.
_NEWS = 2


class _Context(ssl.SSLContext):
    """Knows against which authority it verifies clients."""

    authority: str | None = None


class Certificates:
    """What is shown to clients, and which authority theirs are verified against."""

    def __init__(self, certificate: Path, key: Path, emit: Emit) -> None:
        self._certificate = certificate
        self._key = key
        self._emit = emit
        self._authority: str | None = None
        #: How often in a row the files could not be read.
        self._missed = 0
        self._read = self._bytes()
        self._current = self._context()
        #: What to listen with.
        self.listening = self._context()
        # Also called for a client that names no server.
        self.listening.sni_callback = self._hand_over

    def trust(self, authority: str) -> None:
        """Verify clients against these certificates, in PEM. Raises `ConfigError`."""
        if authority != self._authority:
            before, self._authority = self._authority, authority
            try:
                self._current = self._context()
            except ConfigError:
                self._authority = before
                raise

    def believes(self, connection: ssl.SSLObject) -> bool:
        """Whether what a client showed was verified against the authority of the moment."""
        return getattr(connection.context, "authority", None) == self._authority

    def refresh(self) -> None:
        """Look whether the files have changed, and show what is in them."""
        try:
            found = self._bytes()
        except ConfigError as error:
            self._missed += 1
            # Once is no news: the old file is removed before the new one is made.
            if self._missed == _NEWS:
                self._emit(CertificateRead(error=str(error)))
            return

        back, self._missed = self._missed >= _NEWS, 0
        if found != self._read or back:
            self._follow(found)

    def _follow(self, found: tuple[bytes, bytes]) -> None:
        self._read = found
        try:
            self._current = self._context()
        except ConfigError as error:
            self._emit(CertificateRead(error=str(error)))
        else:
            self._emit(CertificateRead())

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._current

    def _context(self) -> _Context:
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        context.authority = self._authority
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Probes and people come without one, and are told apart by what they ask.
        context.verify_mode = ssl.CERT_OPTIONAL
        # A session that is taken up again is not verified again, whoever is trusted meanwhile.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_cert_chain(self._certificate, self._key, _no_password)
            if self._authority is not None:
                context.load_verify_locations(cadata=self._authority)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(
                f"cannot use the certificate {self._certificate} with the key {self._key}:"
                f" {getattr(error, 'reason', None) or error}; both must be PEM, and belong together"
            ) from error
        return context

    def _bytes(self) -> tuple[bytes, bytes]:
        try:
            return self._certificate.read_bytes(), self._key.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cannot read {error.filename}: {error.strerror};"
                " --tls-cert and --tls-key name the files of the metrics API"
            ) from error


def _no_password() -> str:
    # Without this a key with a password would ask for it on the terminal.
    raise ValueError("the key has a password")
