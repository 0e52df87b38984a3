# SPDX-License-Identifier: Apache-2.0
"""Accepts connections, in a program with threads, or an event loop, of its own."""
from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._binding import ffi, lib
from ._convert import c_string, milliseconds, report
from ._handle import Handle, Owner, Step, deadline_of, freer, made, patiently
from ._types import DEFAULT_PORT, AdmitRequest, RejectReason
from .conn import Conn, connection_options
from .device import Device, default_device
from .errors import check, errors_of, failed
from .log import logger
from .tls import TlsServer

if TYPE_CHECKING:
    from typing import Unpack

    from ._types import ConnOptions

#: Decides about a client before anything is made for it. It returns None to accept the client, bytes to accept it with these as private
#: data, or raises Refuse. It should not block: other clients' set-ups wait for it.
Admit = Callable[[AdmitRequest], "bytes | None"]


class Refuse(Exception):
    """Raised by an admit function: turns the client away. `text` (up to 255 bytes) is for the client."""

    def __init__(self, text: str = "refused", reason: RejectReason = RejectReason.REFUSED, retry_after_ms: int = 0) -> None:
        super().__init__(text)
        self.text, self.reason, self.retry_after_ms = text, reason, retry_after_ms


def put_text(place: Any, room: int, text: str) -> None:
    """Into an array of characters; not a part of a character."""
    encoded = text.encode(errors="replace").replace(b"\0", b"?")[:room - 1].decode(errors="ignore").encode() + b"\0"
    ffi.memmove(place, encoded, len(encoded))


class Admission:
    """The program's function, as the library calls it."""

    def __init__(self, function: Admit) -> None:
        self.function = function

    def admit(self, request: Any, answer: Any) -> int:
        try:
            data = self.function(report(request))
            if data is None:
                return 0
            if len(data) > lib.SRDMA_PRIVATE_DATA_MAX:
                raise ValueError(f"{len(data)} bytes of private data; {lib.SRDMA_PRIVATE_DATA_MAX} is the most")
            ffi.memmove(answer.private_data, data, len(data))
            answer.private_data_size = len(data)
            return 0
        except Refuse as refusal:
            answer.reject.reason = refusal.reason
            answer.reject.retry_after_ms = refusal.retry_after_ms
            put_text(answer.reject.text, ffi.sizeof(answer.reject.text), refusal.text)
        except BaseException:  # there is nobody else to tell
            logger.exception("the function that admits clients failed: the client is turned away")
        return -errno.EACCES


@ffi.def_extern(error=-errno.EACCES)
def securdma_admit_fn(request: Any, answer: Any, arg: Any) -> int:
    return ffi.from_handle(arg).admit(request, answer)


class Accepting(Step):
    """A client that is being accepted, for programs that must not wait. No thread is involved: step() does the work.

    Before the next step(), wait for `events` of fileno(), but no longer than `left` seconds.
    """

    _what = "client being accepted"

    @errors_of("srdma_conn_accept_start")
    def __init__(self, accepted: socket.socket, tls: TlsServer, device: Device | None = None, *, admit: Admit | None = None, **options: Unpack[ConnOptions]) -> None:
        """The socket becomes the library's, also when the call fails."""
        self._device = device or default_device()
        filled = connection_options(options)
        self._timeout_ms = filled.struct.timeout_ms
        # The library refers to it until the end of the set-up.
        self._admission = ffi.new_handle(Admission(admit)) if admit else ffi.NULL
        with tls._using() as context, self._device._using() as opened:
            pointer = made(lib.srdma_conn_accept_start, "accept", accepted.detach(), context, opened, filled.struct,
                           lib.securdma_admit_fn if admit else ffi.NULL, self._admission)
        super().__init__(Owner(pointer, freer(lib.srdma_accept_free, "accept")))

    def fileno(self) -> int:
        with self._using() as pointer:
            return lib.srdma_accept_fd(pointer)

    @property
    def events(self) -> int:
        """select.POLLIN or select.POLLOUT; they change from step to step."""
        with self._using() as pointer:
            return lib.srdma_accept_events(pointer)

    @property
    def left(self) -> float:
        """Seconds after which step() is due even without an event."""
        with self._using() as pointer:
            return lib.srdma_accept_left_ms(pointer) / 1000

    @errors_of("srdma_accept_step")
    def step(self) -> Conn:
        """Goes as far as it can without waiting: the connection, or WouldBlock. After any other result the object is closed."""
        return Conn(self._step(lib.srdma_accept_step, "conn"), self._device, self._timeout_ms)


@errors_of("srdma_conn_accept")
def accept(accepted: socket.socket, tls: TlsServer, device: Device | None = None, *, admit: Admit | None = None, **options: Unpack[ConnOptions]) -> Conn:
    """Takes one accepted TCP socket through TLS and the exchange. It waits up to setup_timeout_ms. The socket becomes the library's,
    also when the call fails."""
    with Accepting(accepted, tls, device, admit=admit, **options) as accepting:
        while True:
            try:
                return accepting.step()
            except BlockingIOError:
                poll = select.poll()
                poll.register(accepting.fileno(), accepting.events)
                poll.poll(max(1, accepting.left * 1000))


class Listener(Handle):
    """A listening TLS port. A Server, which is built on it, needs no threads of the program's.

    address   None: all addresses
    port      "0": any free one
    """

    _what = "listener"

    @errors_of("srdma_listener_listen")
    def __init__(self, address: str | None = None, port: str | int = DEFAULT_PORT) -> None:
        free, where = freer(lib.srdma_listener_free, "listener"), (c_string(address), c_string(str(port)))
        # The look-up of a name waits.
        super().__init__(Owner(patiently(lambda: made(lib.srdma_listener_listen, "listener", *where), free), free))

    @classmethod
    @errors_of("srdma_listener_from_fd")
    def from_fd(cls, fd: int) -> Listener:
        """Makes a listener of a socket that already listens, such as one from systemd. The descriptor stays the caller's."""
        listener = cls.__new__(cls)
        Handle.__init__(listener, Owner(made(lib.srdma_listener_from_fd, "listener", fd), freer(lib.srdma_listener_free, "listener")))
        return listener

    def fileno(self) -> int:
        """Readable while a client waits."""
        with self._using() as pointer:
            return lib.srdma_listener_fd(pointer)

    @property
    def port(self) -> int:
        with self._using() as pointer:
            return lib.srdma_listener_port(pointer)

    @errors_of("srdma_listener_accept")
    def accept_socket(self, timeout: float | None = None) -> socket.socket:
        """Accepts a TCP connection, and no more: for accept() or Accepting. `timeout` in seconds; None: 30. With 0 it raises WouldBlock."""
        timeout_ms = milliseconds(timeout) if timeout is not None else 30000
        deadline = deadline_of(timeout_ms)
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while True:
            with self._using() as pointer:
                code = lib.srdma_listener_accept(pointer, 0)
            if code != -errno.EAGAIN:
                return socket.socket(fileno=check(code))
            left = deadline - time.monotonic()
            if timeout_ms == 0:
                raise failed(code)
            if left <= 0:
                raise failed(-errno.ETIMEDOUT, f"timed out after {timeout_ms} ms waiting for a client")
            poll.poll(max(1, left * 1000))

    def accept(self, tls: TlsServer, device: Device | None = None, *, admit: Admit | None = None, timeout: float | None = None, **options: Unpack[ConnOptions]) -> Conn:
        """Waits for a client and accepts it; see accept(), whose errors are added. `timeout` in seconds is for the wait for a client."""
        return accept(self.accept_socket(timeout), tls, device, admit=admit, **options)
