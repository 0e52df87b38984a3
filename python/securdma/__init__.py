# SPDX-License-Identifier: Apache-2.0
"""Secure RDMA: connects queue pairs over an authenticated TLS channel.

    import securdma

    tls = securdma.TlsClient(ca_file="ca.crt", cert_file="client.crt", key_file="client.key")
    with securdma.connect("localhost", tls=tls) as conn:
        conn.send(b"hello")
        print(conn.recv()[securdma.ECHO_OVERHEAD:])
        conn.write(b"world", offset=0)
        print(conn.read(5, offset=0))

Everything follows the C library, whose manual is securdma(3): options and reports have the names and meanings of its headers. Timeouts
are seconds here, as always in Python; options whose name ends in _ms are milliseconds. Errors are exceptions, subclasses of Error, which
is an OSError; Timeout is a TimeoutError, WouldBlock a BlockingIOError, and so on. Python's lock is released during every call.
"""
from . import _types
from ._binding import ffi as _ffi
from ._binding import lib as _lib
from ._types import *  # noqa: F401,F403
from ._types import DEFAULT_PORT
from .buffer import Buffer
from .cert import check_certificate, check_tls_client, check_tls_server, make_certificate, read_certificate
from .conn import Conn, Connecting, connect, disconnect_all, psn
from .device import Device, default_device, devices
from .errors import (Aborted, BrokenPipe, Busy, Cancelled, CertificateError, Closed, ConfigError, Denied, Error, Exists, Gone, Interrupted, InvalidArgument, Lost,
                     NotFound, NotSupported, OutOfRange, ProtocolError, RandomError, Reconnected, Refused, Rejected, Reset, SealError, Timeout, TlsError, TooLong,
                     VerbsError, WouldBlock, WrongKind)
from .link import Link, LinkConn
from .listener import Accepting, Listener, Refuse, accept
from .log import log_to
from .memory import Memory
from .server import Disconnect, Handlers, Server, ServerConn, check_identity_name, check_server, histogram_bound
from .tls import TlsClient, TlsServer

if hasattr(_lib, "srdma_stream_new"):  # of a library that has streams
    from .stream import Stream, stream_conn_options
    _types.__all__ += ["Stream", "stream_conn_options"]

#: What an option region_access, and the access of a Memory, is made of. Local write and remote atomic are for a Memory alone.
ACCESS_REMOTE_WRITE: int = _lib.IBV_ACCESS_REMOTE_WRITE
ACCESS_REMOTE_READ: int = _lib.IBV_ACCESS_REMOTE_READ
ACCESS_REMOTE_ATOMIC: int = _lib.IBV_ACCESS_REMOTE_ATOMIC
ACCESS_LOCAL_WRITE: int = _lib.IBV_ACCESS_LOCAL_WRITE
#: Bytes that the echo service adds in front of a message: the client's id, big-endian.
ECHO_OVERHEAD: int = _lib.SRDMA_ECHO_OVERHEAD
PRIVATE_DATA_MAX: int = _lib.SRDMA_PRIVATE_DATA_MAX
CONTROL_MESSAGE_MAX: int = _lib.SRDMA_CONTROL_MESSAGE_MAX
CONTROL_DEPTH: int = _lib.SRDMA_CONTROL_DEPTH
WORKERS_AUTO: int = _lib.SRDMA_WORKERS_AUTO
WORKERS_PER_CLIENT: int = _lib.SRDMA_WORKERS_PER_CLIENT

#: That of the C library that is running.
__version__: str = _ffi.string(_lib.srdma_version()).decode()

__all__ = [
    "Aborted", "Accepting", "BrokenPipe", "Buffer", "Busy", "Cancelled", "CertificateError", "Closed", "ConfigError", "Conn", "Connecting", "DEFAULT_PORT", "Denied",
    "Device", "Disconnect", "Error", "Exists", "Gone", "Handlers", "Interrupted", "InvalidArgument", "Link", "LinkConn", "Listener", "Lost", "Memory", "NotFound",
    "NotSupported", "OutOfRange", "ProtocolError", "RandomError", "Reconnected", "Refuse", "Refused", "Rejected", "Reset", "SealError", "Server", "ServerConn",
    "Timeout", "TlsClient", "TlsError", "TlsServer", "TooLong", "VerbsError", "WouldBlock", "WrongKind", "accept", "check_certificate", "check_identity_name", "check_server", "check_tls_client",
    "check_tls_server", "connect", "default_device", "devices", "disconnect_all", "histogram_bound", "log_to", "make_certificate", "psn", "read_certificate",
    *_types.__all__,
]
