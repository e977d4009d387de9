"""TLS of the gRPC port, from the files of HTTP's: gRPC brings an implementation of its own.

Promise: every new connection is shown what is shown at the moment, and verified against the
authority of the moment; nobody gets in without a certificate where one is asked for.
"""

from __future__ import annotations

import grpc

from millstream.certificates import Certificates, Shown


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return what a port is opened with."""
    handed = certificates.shown

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # Called by gRPC's own threads, before each handshake; None: as before.
        nonlocal handed
        shown = certificates.shown
        if shown is handed:
            return None
        handed = shown
        return _configuration(shown)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(handed), fetch, require_client_authentication=handed.authority is not None
    )


def _configuration(shown: Shown) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(shown.key, shown.certificate)], root_certificates=shown.authority
    )
