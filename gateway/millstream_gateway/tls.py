"""TLS of the gateway's ports: which files it shows, and whether callers show a certificate too.

A certificate opens the connection and names nobody: who calls is said by a key or token, over TLS
as without it.
"""

from __future__ import annotations

import ssl

from millstream.certificates import Certificates
from millstream.errors import ConfigError
from millstream.events import Emit
from millstream_gateway.config import GatewayConfig


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
