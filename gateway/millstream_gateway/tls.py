"""TLS of the gateway's ports: which files it shows, and whether callers show a certificate too.

A certificate opens the connection and names nobody: who calls is said by a key or token, over TLS
as without it. Where callers show one, a connection ends with what it was opened with.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from aiohttp.web import BaseRequest

from millstream.certificates import Certificates
from millstream.errors import ConfigError
from millstream.events import Emit
from millstream_gateway.config import GatewayConfig
from millstream_gateway.refusals import Outlived


class StillBelieved:
    """Raises for a request over a connection that would not be opened any more."""

    def __init__(self, certificates: Certificates, wall: Callable[[], float]) -> None:
        self._certificates = certificates
        self._wall = wall

    def __call__(self, request: BaseRequest) -> None:
        """Raise `Outlived`: its client was verified once, and may have lost its trust since."""
        transport = request.transport
        shown: ssl.SSLObject | None = transport.get_extra_info("ssl_object") if transport else None
        # Where there is none the client is gone: nobody hears the answer.
        if shown is not None and self._certificates.outlived(shown, self._wall()):
            raise Outlived


def tls_of(config: GatewayConfig, emit: Emit) -> Certificates | None:
    """Return what HTTP and gRPC are listened with; None: without TLS. Raises `ConfigError`."""
    if config.tls_cert is None or config.tls_key is None:
        if config.tls_cert or config.tls_key or config.tls_client_ca:
            raise ConfigError(
                "TLS needs a certificate and its key; give --tls-cert and --tls-key, with"
                " --tls-client-ca where callers have to show a certificate too"
            )
        return None

    return Certificates(
        config.tls_cert,
        config.tls_key,
        emit,
        authority=config.tls_client_ca,
        clients=ssl.CERT_NONE if config.tls_client_ca is None else ssl.CERT_REQUIRED,
    )
