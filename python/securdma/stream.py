# SPDX-License-Identifier: Apache-2.0
"""A stream of bytes in each direction over a connection."""
from __future__ import annotations

import errno
import select
import time
from typing import TYPE_CHECKING, Any

from ._binding import ffi, lib
from ._convert import Options, c_string, milliseconds, report
from ._handle import SLICE_MS, Handle, Owner, deadline_of, freer, is_main, made, timed_out
from .conn import BaseConn
from .errors import Error, check, errors_of, failed

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Bytes
    from _typeshed import WriteableBuffer


def stream_conn_options(**options: Any) -> dict[str, Any]:
    """Options for a connection that carries a stream, with these changes: connect(..., **stream_conn_options()), or conn= of a server."""
    filled = Options("conn_options", {}, "srdma_stream_conn_options_init").struct
    names = ("region_size", "region_access", "depth", "message_size", "rdma_depth")
    return {**{name: getattr(filled, name) for name in names}, **options}


class Stream(Handle):
    """A stream over a connection, which is the stream's from then on, but for control messages and the disconnect.

    conn          a connection whose options are those of stream_conn_options(); in a server's on_connect, the client's
    buffer_size   bytes of the buffer for what this end writes

    One thread at a time uses a stream and its connection. As a context manager it ends what this end writes, waits until the peer has
    it, and is closed; the connection stays.
    """

    _what = "stream"

    @errors_of("srdma_stream_new")
    def __init__(self, conn: BaseConn, buffer_size: int | None = None) -> None:
        filled = Options("stream_options", {} if buffer_size is None else {"buffer_size": buffer_size})
        self.conn = conn
        pointer = conn._enter()
        try:
            owner = Owner(made(lib.srdma_stream_new, "stream", pointer, filled.struct), freer(lib.srdma_stream_free, "stream"))
        finally:
            conn._leave()
        super().__init__(owner)
        conn._stream = self

    def _enter(self, timeout_ms: int = -1) -> Any:
        self.conn._enter(timeout_ms)
        if self._owner is None:
            self.conn._leave()
            raise failed(-errno.EBADF, "the stream was closed")
        return self._owner.pointer

    def _leave(self) -> None:
        self.conn._leave()

    def close(self) -> None:
        """Frees the stream, before its connection or after it. What was not flushed may be lost."""
        try:
            self._enter()
        except Error as error:
            if error.code != -errno.EBADF:
                raise
            self._free()
            return
        try:
            self._free()
        finally:
            self._leave()

    def _free(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()

    def _call(self, function: Any, timeout: float | None, *arguments: Any) -> int:
        def call(conn: Any, ms: int) -> int:
            if self._owner is None:
                raise failed(-errno.EBADF, "the stream was closed")
            return function(self._owner.pointer, *arguments, ms)

        return self.conn._wait(timeout, call)

    @errors_of("srdma_stream_write")
    def write(self, data: Bytes, timeout: float | None = None) -> int:
        """Writes bytes, and returns how many it took: fewer when the time was over. With a timeout of 0 it takes what there is room for."""
        timeout_ms = milliseconds(timeout)
        whole_ms = timeout_ms if timeout_ms >= 0 else self.conn._default_ms
        with ffi.from_buffer(data) as memory:
            if not is_main() or whole_ms <= SLICE_MS:
                return self._call(lib.srdma_stream_write, timeout, memory, len(memory))
            return self._write_in_slices(memory, whole_ms)

    def _write_in_slices(self, memory: Any, timeout_ms: int) -> int:
        deadline, done = deadline_of(timeout_ms), 0
        with self._using() as stream:
            while True:
                left = max(1, -int(-(deadline - time.monotonic()) * 1000 // 1))
                code = lib.srdma_stream_write(stream, memory + done, len(memory) - done, min(left, SLICE_MS))
                done += max(code, 0)
                if code < 0 and code != -errno.ETIMEDOUT:
                    check(code)
                if done == len(memory) or (left <= SLICE_MS and done > 0):
                    return done
                if left <= SLICE_MS:
                    raise timed_out(-errno.ETIMEDOUT, timeout_ms)

    @errors_of("srdma_stream_reserve")
    def reserve(self, timeout: float | None = None) -> memoryview:
        """Lends a part of the buffer for what this end writes, without a copy: fill it from the start, and call commit(). It waits until
        there are bytes free. Use the view, and all that is made of it, no more after commit(), and before the stream is closed."""
        data = ffi.new("void **")
        length = self._call(lambda stream, ms: lib.srdma_stream_reserve(stream, data, ms), timeout)
        return memoryview(ffi.buffer(data[0], length)).cast("B")

    @errors_of("srdma_stream_commit")
    def commit(self, length: int) -> None:
        """Writes the first `length` bytes of what reserve() has lent. It does not wait."""
        with self._using() as stream:
            check(lib.srdma_stream_commit(stream, length))

    @errors_of("srdma_stream_peek")
    def peek(self, timeout: float | None = None) -> memoryview:
        """The next bytes to read where they are, read-only, without a copy; there may be more behind them. An empty view is the end of what
        the peer writes. The peer of a plain connection may change them at any time: copy before you check. Use the view, and all that is
        made of it, no more after consume(), and before the connection is closed."""
        data = ffi.new("const void **")
        length = self._call(lambda stream, ms: lib.srdma_stream_peek(stream, data, ms), timeout)
        return memoryview(ffi.buffer(data[0], length)).cast("B").toreadonly() if length > 0 else memoryview(b"")

    @errors_of("srdma_stream_consume")
    def consume(self, length: int) -> None:
        """Takes the first `length` bytes of what peek() found: the peer may write to their place now. It does not wait."""
        with self._using() as stream:
            check(lib.srdma_stream_consume(stream, length))

    @errors_of("srdma_stream_write")
    def write_all(self, data: Bytes, timeout: float | None = None) -> None:
        """Writes all bytes, or raises Timeout."""
        timeout_ms = milliseconds(timeout)
        deadline = deadline_of(timeout_ms if timeout_ms >= 0 else self.conn._default_ms)
        with memoryview(data) as whole, whole.cast("B") as view:
            done = 0
            while done < len(view):
                with view[done:] as rest:
                    done += self.write(rest, max(0.001, deadline - time.monotonic()))

    @errors_of("srdma_stream_read")
    def read(self, size: int = 65536, timeout: float | None = None) -> bytes:
        """Reads up to `size` bytes: those that are there, or the first that come. b"" is the end of what the peer writes."""
        memory = bytearray(size)
        return bytes(memory[:self.read_into(memory, timeout)])

    @errors_of("srdma_stream_read")
    def read_into(self, buffer: WriteableBuffer, timeout: float | None = None) -> int:
        """Reads bytes into writable memory, and returns how many. 0 is the end of what the peer writes."""
        with ffi.from_buffer("char[]", buffer, require_writable=True) as memory:
            return self._call(lib.srdma_stream_read, timeout, memory, len(memory))

    @errors_of("srdma_stream_shutdown")
    def shutdown(self) -> None:
        """Says that this end writes no more. Reading goes on. It does not wait."""
        with self._using() as stream:
            check(lib.srdma_stream_shutdown(stream))

    @errors_of("srdma_stream_flush")
    def flush(self, timeout: float | None = None) -> None:
        """Waits until everything that was written is in the peer's memory. Call it before the connection's disconnect()."""
        self._call(lib.srdma_stream_flush, timeout)

    @errors_of("srdma_stream_abort")
    def abort(self, reason: str | None = None) -> None:
        """Ends the stream in both directions at once. `reason` (up to 127 bytes) is for the peer."""
        with self._using() as stream:
            check(lib.srdma_stream_abort(stream, c_string(reason)))

    @errors_of("srdma_stream_wait")
    def wait(self, events: int = select.POLLIN, timeout: float | None = None) -> int:
        """Waits until one of select.POLLIN (there are bytes to read) and select.POLLOUT (there is room to write) holds; returns those."""
        return self._call(lib.srdma_stream_wait, timeout, events)

    def fileno(self) -> int:
        """The connection's descriptor. Wait for it to be readable, whatever you want to do."""
        with self._using() as stream:
            return lib.srdma_stream_fd(stream)

    @property
    def info(self) -> Any:
        """What has happened on the stream so far, a StreamInfo."""
        info = ffi.new("struct srdma_stream_info *")
        with self._using() as stream:
            lib.srdma_stream_get_info(stream, info)
        return report(info)

    def __exit__(self, kind: type[BaseException] | None, *exception: Any) -> None:
        try:
            if kind is None and not self.closed:
                self.shutdown()
                self.flush()
        finally:
            self.close()
