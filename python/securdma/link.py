# SPDX-License-Identifier: Apache-2.0
"""A client that connects again after a loss."""
from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ._binding import ffi, lib
from ._convert import Options, c_string, milliseconds, report
from ._handle import Handle, Owner, deadline_of, freer, is_main, made, sleep_on
from ._types import LinkInfo, LinkLoss
from .conn import BaseConn
from .device import Device, default_device
from .errors import Reconnected, TooLong, check, errors_of, failed
from .tls import TlsClient

if TYPE_CHECKING:
    from typing import Unpack

    from _typeshed import ReadableBuffer as Bytes
    from _typeshed import WriteableBuffer

    from ._types import ConnOptions, LinkOptions


class LinkConn(BaseConn):
    """The connection that a link has at the moment of the call: for info, for poll, for writes and reads. After a loss it is another
    one, whose region is new and zeroed; buffers of the old one can only be closed."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._connections = 0

    def _enter(self, timeout_ms: int = -1) -> Any:
        link = self._link._enter(timeout_ms)
        conn = lib.srdma_link_conn(link)
        if not conn:
            self._link._leave()
            raise failed(-errno.ENOTCONN, "the link has no connection at the moment: reconnect() makes one")
        connections = _info(link).connections
        if connections != self._connections:  # what was under way ends without a completion
            self._connections, self._room = connections, None
            self._posted.clear()
        return conn

    def _leave(self) -> None:
        self._link._leave()


def _info(link: Any) -> Any:
    info = ffi.new("struct srdma_link_info *")
    lib.srdma_link_get_info(link, info)
    return info


class Link(Handle):
    """A connecting end that outlives its connections. One thread at a time uses it; wake() any thread.

    endpoints   servers, tried one after the other: (host, port) or a host
    conn        options of each connection, a dict; see ConnOptions
    options     connect_ms, reconnect_ms, pause_min_ms, pause_max_ms; see LinkOptions

    After a loss a call raises Reconnected, once: a new connection is there, and `loss` of the exception says which messages are in doubt.

    Link(...) waits for the first connection. A program that must not wait begins with Link.start(...), gives each call a timeout of 0, and
    repeats what has raised WouldBlock when fileno() is readable.
    """

    _what = "link"

    @errors_of("srdma_link_connect")
    def __init__(self, endpoints: Iterable[tuple[str, str | int] | str], *, tls: TlsClient, device: Device | None = None,
                 conn: ConnOptions | None = None, **options: Unpack[LinkOptions]) -> None:
        if not is_main():
            self._begin(lib.srdma_link_connect, endpoints, tls, device, conn, options)
            return
        self._begin(lib.srdma_link_connect_start, endpoints, tls, device, conn, options)
        try:
            with self._using() as pointer:
                self._repeat(pointer, lambda: lib.srdma_link_step(pointer), None)
        except BaseException:
            self.close()
            raise

    @classmethod
    @errors_of("srdma_link_connect_start")
    def start(cls, endpoints: Iterable[tuple[str, str | int] | str], *, tls: TlsClient, device: Device | None = None,
              conn: ConnOptions | None = None, **options: Unpack[LinkOptions]) -> Link:
        """Makes a link that has no connection yet, and returns at once. Any call on the link then makes the connection, as far as it can
        without waiting when its timeout is 0: step(), for a program that has nothing to send or to receive now."""
        link = cls.__new__(cls)
        link._begin(lib.srdma_link_connect_start, endpoints, tls, device, conn, options)
        return link

    def _begin(self, constructor: Any, endpoints: Iterable[tuple[str, str | int] | str], tls: TlsClient, device: Device | None, conn: Any, options: Any) -> None:
        self._device = device or default_device()
        pairs = [(one, None) if isinstance(one, str) else one for one in endpoints]
        given: Any = {**options, "endpoints": [{"host": host, "port": None if port is None else str(port)} for host, port in pairs]}
        filled = Options("link_options", {**given, **({} if conn is None else {"conn": conn})})
        with tls._using() as context, self._device._using() as opened:
            pointer = made(constructor, "link", filled.struct, context, opened)
        self._default_ms = filled.struct.conn.timeout_ms if conn is not None else BaseConn._default_ms
        Handle.__init__(self, Owner(pointer, freer(lib.srdma_link_free, "link")))
        self._room: Any = None
        #: The present connection; see LinkConn.
        self.conn = LinkConn(self)

    def _call(self, timeout: float | None, function: Any, *arguments: Any) -> None:
        timeout_ms = milliseconds(timeout)
        pointer = self._enter(timeout_ms)
        try:
            if timeout_ms == 0 or not is_main():
                check(function(pointer, *arguments, timeout_ms))
            else:
                self._repeat(pointer, lambda: function(pointer, *arguments, 0), timeout_ms)
        except Reconnected as error:
            error.loss = report(self._loss(pointer))
            raise
        finally:
            self._leave()

    def _repeat(self, pointer: Any, call: Callable[[], int], timeout_ms: int | None) -> None:
        """Repeats what does not wait, so that the main thread handles signals. The time is that of the call alone (None: there is no limit):
        that of a new connection is the policy's."""
        whole_ms = timeout_ms if timeout_ms is None or timeout_ms >= 0 else self._default_ms
        deadline = None if whole_ms is None else deadline_of(whole_ms)
        while (code := call()) == -errno.EAGAIN:
            connected = bool(lib.srdma_link_conn(pointer))
            if connected and deadline is not None and time.monotonic() >= deadline:
                raise failed(-errno.ETIMEDOUT, f"timed out after {whole_ms} ms waiting for the peer")
            sleep_on([lib.srdma_link_fd(pointer)], deadline if connected else None)
        check(code)

    @staticmethod
    def _loss(pointer: Any) -> Any:
        loss = ffi.new("struct srdma_link_loss *")
        lib.srdma_link_get_loss(pointer, loss)
        return loss

    @errors_of("srdma_link_send")
    def send(self, data: Bytes, timeout: float | None = None) -> int:
        """Sends a message and returns its number: 1 for the link's first one. After Reconnected it was not sent."""
        number = ffi.new("uint64_t *")
        with ffi.from_buffer(data) as memory:
            self._call(timeout, lambda link, ms: lib.srdma_link_send(link, memory, len(memory), ms, number))
        return number[0]

    @errors_of("srdma_link_recv")
    def recv(self, timeout: float | None = None) -> bytes:
        """Receives one message. Those that had come over a connection that was lost come first."""
        if self._room is None:
            self._room = bytearray(4096)
        while True:
            try:
                return bytes(self._room[:self.recv_into(self._room, timeout)])
            except TooLong as error:
                self._room = bytearray(error.needed or 1 << 20)

    @errors_of("srdma_link_recv")
    def recv_into(self, buffer: WriteableBuffer, timeout: float | None = None) -> int:
        """Receives one message into writable memory, and returns its length. If it does not fit, it stays, and TooLong.needed is its length."""
        length = ffi.new("size_t *")
        with ffi.from_buffer("char[]", buffer, require_writable=True) as memory:
            try:
                self._call(timeout, lambda link, ms: lib.srdma_link_recv(link, memory, len(memory), length, ms))
            except TooLong as error:
                error.needed = length[0]
                raise
        return length[0]

    @errors_of("srdma_link_wait")
    def wait(self, timeout: float | None = None) -> None:
        """Waits as Conn.wait() does."""
        self._call(timeout, lib.srdma_link_wait)

    def wake(self) -> None:
        """Ends the wait() of another thread, or a pause between two tries to connect: Interrupted. Thread-safe."""
        self._wake(lib.srdma_link_wake)

    def fileno(self) -> int:
        """A descriptor for selectors and asyncio, the same one for the link's life. Once a call has raised WouldBlock, it becomes readable
        when that call is worth repeating, and so it is at first. Pauses between two tries end by it, too: no timer is needed."""
        with self._using() as pointer:
            return lib.srdma_link_fd(pointer)

    @errors_of("srdma_link_step")
    def step(self) -> None:
        """Connects, and after a loss connects again, as far as it goes without waiting. It returns when the connection is up; WouldBlock
        while it is on its way; Reconnected, once, when there is a new one."""
        self._call(0, lambda link, _: lib.srdma_link_step(link))

    @errors_of("srdma_link_reconnect")
    def reconnect(self) -> bool:
        """Makes a new connection when a call on `conn` has ended the old one. Returns whether there is a new one; `loss` tells of it."""
        with self._using() as pointer:
            try:
                if is_main():
                    self._repeat(pointer, lambda: lib.srdma_link_step(pointer), None)
                else:
                    check(lib.srdma_link_reconnect(pointer))
            except Reconnected:
                return True
            return False

    @property
    def loss(self) -> LinkLoss:
        """The last loss; all zeros when there was none."""
        with self._using() as pointer:
            return report(self._loss(pointer))

    @property
    def info(self) -> LinkInfo:
        """What the link has done so far."""
        with self._using() as pointer:
            return report(_info(pointer))

    @errors_of("srdma_link_disconnect")
    def disconnect(self, reason: str | None = None, timeout: float | None = None) -> None:
        """Ends the connection in order. After this, only close() is useful."""
        text = c_string(reason)
        if milliseconds(timeout) == 0 or not is_main():
            self._call(timeout, lambda link, ms: lib.srdma_link_disconnect(link, text, ms))
            return
        with self._using() as pointer:
            check(lib.srdma_link_disconnect_start(pointer, text, milliseconds(timeout)))
            self._repeat(pointer, lambda: lib.srdma_link_disconnect_step(pointer), None)

    @errors_of("srdma_link_disconnect_start")
    def disconnect_start(self, reason: str | None = None, timeout: float | None = None) -> None:
        """Begins what disconnect() does, within `timeout`, and returns at once; it ends a try to connect, too."""
        with self._using() as pointer:
            check(lib.srdma_link_disconnect_start(pointer, c_string(reason), milliseconds(timeout)))

    @errors_of("srdma_link_disconnect_step")
    def disconnect_step(self) -> None:
        """Goes as far as it can without waiting, and returns when the connection has ended in order. After WouldBlock call it again when
        fileno() is readable."""
        self._call(0, lambda link, _: lib.srdma_link_disconnect_step(link))

    def close(self) -> None:
        """Frees the link and its connection. If it was not disconnected, the peer is not told."""
        super().close()
        self.conn._posted.clear()

    def __exit__(self, kind: type[BaseException] | None, *exception: Any) -> None:
        try:
            if kind is None and not self.closed:
                self.disconnect()
        finally:
            self.close()
