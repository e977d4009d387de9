"""Certificates of a server and of its callers, as files that change as a mounted Secret does."""

from __future__ import annotations

import functools
import ssl
from datetime import UTC, datetime
from pathlib import Path

import trustme

LOOPBACK = "127.0.0.1"
_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@functools.cache
def authority(_number: int) -> trustme.CA:
    """One of several authorities."""
    return trustme.CA()


class Papers:
    """What a server shows, and whom it believes. All files change at once, by one symbolic link."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written = 0
        self.serving, self.callers, self.stranger = map(authority, range(3))
        mounted = directory / "mounted"
        self.certificate, self.key = mounted / "tls.crt", mounted / "tls.key"
        self.authority = mounted / "ca.crt"
        self.exchange()

    def exchange(self, *believed: trustme.CA, authority: bytes | None = None) -> bytes:
        """Show a new certificate, and believe these authorities; return what is shown."""
        made = self.serving.issue_cert(LOOPBACK, "localhost")
        believed = believed or (self.callers,)
        files = {
            "tls.crt": b"".join(blob.bytes() for blob in made.cert_chain_pems),
            "tls.key": made.private_key_pem.bytes(),
            "ca.crt": authority or b"".join(each.cert_pem.bytes() for each in believed),
        }
        self.put(files)
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

    def put(self, files: dict[str, bytes]) -> None:
        """Exchange the files for others."""
        self._written += 1
        fresh = self._directory / f"data-{self._written}"
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        link = self._directory / "next"
        link.symlink_to(fresh)
        link.replace(self._directory / "mounted")

    def plain(self) -> ssl.SSLContext:
        """What somebody connects with who has no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without all that the system trusts
        self.serving.configure_trust(context)
        return context

    def caller(
        self, authority: trustme.CA | None = None, *, expired: bool = False
    ) -> ssl.SSLContext:
        """What somebody connects with who has one."""
        context = self.plain()
        self.issued(authority, expired=expired).configure_cert(context)
        return context

    def issued(
        self, authority: trustme.CA | None = None, *, expired: bool = False
    ) -> trustme.LeafCert:
        """A certificate of a caller."""
        signs = authority or self.callers
        if not expired:
            return signs.issue_cert("caller.test")
        return signs.issue_cert(
            "caller.test", not_before=_LONG_AGO, not_after=_LONG_AGO.replace(year=2002)
        )
