# SPDX-License-Identifier: Apache-2.0
"""Credentials and rules of TLS clients and servers."""
from __future__ import annotations

from typing import TYPE_CHECKING

from ._binding import lib
from ._convert import Options
from ._handle import Handle, Owner, freer, made
from .errors import errors_of

if TYPE_CHECKING:
    from typing import Unpack

    from ._types import TlsClientOptions, TlsServerOptions


class _Context(Handle):
    _what = "TLS context"


class TlsClient(_Context):
    """What a client checks its server against, and what it identifies itself with. Many connections use one. Thread-safe.

    Options: ca_file or pin, server_name, cert_file, key_file, crl_file, crl_require_all, allow_tls12; see TlsClientOptions.
    The files are read now. There is no way to turn the check of the server off.
    """

    @errors_of("srdma_tls_client_new")
    def __init__(self, **options: Unpack[TlsClientOptions]) -> None:
        pointer = made(lib.srdma_tls_client_new, "tls_context", Options("tls_client_options", options).struct)
        super().__init__(Owner(pointer, freer(lib.srdma_tls_context_unref, "tls_context")))


class TlsServer(_Context):
    """What a server identifies itself with, and which clients it accepts. Many connections use one. Thread-safe.

    Options: cert_file, key_file, client_ca_file, client_crl_file, crl_require_all, identity_from, insecure_anonymous_clients,
    allow_tls12; see TlsServerOptions. The files are read now.
    """

    @errors_of("srdma_tls_server_new")
    def __init__(self, **options: Unpack[TlsServerOptions]) -> None:
        pointer = made(lib.srdma_tls_server_new, "tls_context", Options("tls_server_options", options).struct)
        super().__init__(Owner(pointer, freer(lib.srdma_tls_context_unref, "tls_context")))
