# SPDX-License-Identifier: Apache-2.0
"""Certificates: makes them, reads them, checks them before a peer comes."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._binding import ffi, lib
from ._convert import Options, c_string, report
from ._types import CertInfo, CertKind, Check, PeerCert
from .errors import check, errors_of

if TYPE_CHECKING:
    from typing import Unpack

    from ._types import CertRequest, TlsClientOptions, TlsServerOptions

    Path = str | os.PathLike[str]


@errors_of("srdma_cert_make")
def make_certificate(kind: CertKind | str, **request: Unpack[CertRequest]) -> None:
    """Makes a private key and a certificate: kind "ca", "server", "client", "self_signed" or "peer". Either both files are written whole
    or neither is. Needed are common_name or names, days (or not_after), cert_file, key_file, and ca_cert_file and ca_key_file of the
    issuer; see CertRequest. Thread-safe."""
    check(lib.srdma_cert_make(Options("cert_request", {"kind": kind, **request}).struct))


@errors_of("srdma_cert_read")
def read_certificate(cert_file: Path) -> CertInfo:
    """Reads the first certificate of a PEM file. Its `pin` is what a client gives as pin. Thread-safe."""
    info = ffi.new("struct srdma_cert_info *")
    check(lib.srdma_cert_read(c_string(cert_file), info))
    return report(info)


def checked(function: Any, *arguments: Any) -> list[Check]:
    """Calls a function that takes a srdma_check_fn; its result is that of the worst finding."""
    found: list[Check] = []
    handle = ffi.new_handle(found)
    function(*arguments, lib.securdma_check_fn, handle)
    return found


@ffi.def_extern()
def securdma_check_fn(finding: Any, arg: Any) -> None:
    ffi.from_handle(arg).append(report(finding))


def check_certificate(kind: CertKind | str, cert_file: Path, key_file: Path, ca_file: Path | None = None) -> list[Check]:
    """Checks a certificate and its key for a server ("server") or a client ("client"); with `ca_file` also that a peer that trusts this
    file accepts it. Returns what it found out about each thing: a Check with `result` CheckResult.FAIL is a failure, and `error` is what
    its use would raise. Thread-safe."""
    number = CertKind[kind.upper()] if isinstance(kind, str) else kind
    return checked(lib.srdma_cert_check, number, c_string(cert_file), c_string(key_file), c_string(ca_file))


def check_tls_client(**options: Unpack[TlsClientOptions]) -> list[Check]:
    """Checks the credentials of a client before it connects, dates and purposes included. Returns one finding for each thing."""
    return checked(lib.srdma_tls_client_check, Options("tls_client_options", options).struct)


def check_tls_server(**options: Unpack[TlsServerOptions]) -> list[Check]:
    """Checks the credentials of a server before a client comes, dates and purposes included. Returns one finding for each thing."""
    return checked(lib.srdma_tls_server_check, Options("tls_server_options", options).struct)


def peer_cert(conn: Any) -> PeerCert:
    """The certificate that the peer of a connection, given by its pointer, has shown."""
    out = ffi.new("struct srdma_peer_cert **")
    check(lib.srdma_conn_peer_cert(conn, out))
    try:
        return report(out[0])
    finally:
        lib.srdma_peer_cert_free(out)
