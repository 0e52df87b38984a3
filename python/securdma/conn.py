# SPDX-License-Identifier: Apache-2.0
"""Connections: messages, writes and reads, control messages, what was agreed."""
from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from . import cert
from ._binding import ffi, lib
from ._convert import Options, c_string, milliseconds, report
from ._handle import SLICE_MS, Handle, Owner, Step, deadline_of, freer, is_main, made, sleep_on, timed_out
from ._types import DEFAULT_PORT, ConnInfo, ConnTiming, Notice, PeerCert, PeerRegion, QpState, RequestKind
from .buffer import Buffer
from .device import Device, default_device
from .errors import Error, TooLong, check, errors_of, failed
from .memory import Memory, request
from .tls import TlsClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

    from _typeshed import ReadableBuffer as Bytes
    from _typeshed import WriteableBuffer

    from ._types import ConnOptions

class Region:
    """The region that this end offers to its peer, which may change it at any time. region[a:b] copies out, region[a:b] = data copies in."""

    def __init__(self, conn: BaseConn) -> None:
        self._conn = conn

    @contextmanager
    def _memory(self) -> Iterator[Any]:
        pointer = self._conn._enter()
        try:
            memory = lib.srdma_conn_region(pointer)
            if not memory:
                raise failed(-errno.ENXIO, "this end of the connection offers no region")
            yield ffi.buffer(memory, _info(pointer).region_size)
        finally:
            self._conn._leave()

    def __len__(self) -> int:
        with self._memory() as memory:
            return len(memory)

    def __getitem__(self, place: slice | int) -> bytes:
        with self._memory() as memory:
            return bytes(memory[self._slice(place, len(memory))])

    def __setitem__(self, place: slice | int, data: Bytes) -> None:
        with self._memory() as memory:
            memory[self._slice(place, len(memory))] = data

    @staticmethod
    def _slice(place: slice | int, size: int) -> slice:
        start, stop, step = (place if isinstance(place, slice) else slice(place, place + 1)).indices(size)
        if step != 1:
            raise ValueError("bytes of a region can only be taken one after the other")
        return slice(start, max(start, stop))


def _info(pointer: Any) -> Any:
    info = ffi.new("struct srdma_conn_info *")
    lib.srdma_conn_get_info(pointer, info)
    return info


class BaseConn:
    """What a program can do with a connection, whoever it belongs to.

    One thread at a time uses a connection: a call waits for the call of another thread, up to its own timeout, and raises Timeout, or
    WouldBlock with a timeout of 0. Only wake() of a Conn ends a wait() from another thread. Different threads may use different connections.
    In the main thread a signal is handled within a quarter of a second, whatever call waits; an exception of its handler, such as
    KeyboardInterrupt, ends the call.

    Data is anything with the buffer protocol: bytes, bytearray, memoryview, mmap, array, a contiguous numpy array; nothing is copied
    on its way to the library. Timeouts are seconds, for the whole call; None stands for timeout_ms of the connection's options. With a
    timeout of 0 a call never waits: it raises WouldBlock, and fileno() is readable when it is worth repeating.
    """

    _default_ms = 30000  # timeout_ms of its options

    def __init__(self) -> None:
        self._numbers = 0
        self._posted: dict[int, tuple[Any, Any]] = {}  # by the number that the library has as cookie: who owns the buffer, the program's cookie
        self._offered: dict[int, Memory] = {}  # by the number of the region: the library withdraws those of a memory that has gone
        self._done: list[Any] = []  # cookies of the program's that came while a write or a read waited
        self._room: Any = None
        self._stream: Any = None  # the stream that was made of it

    def _enter(self, timeout_ms: int = -1) -> Any:
        raise NotImplementedError

    def _leave(self) -> None:
        raise NotImplementedError

    @contextmanager
    def _pointer(self) -> Iterator[Any]:
        pointer = self._enter()
        try:
            yield pointer
        finally:
            self._leave()

    def _wait(self, timeout: float | None, call: Callable[[Any, int], int]) -> int:
        """Calls the library with the time that the call may take. In the main thread it returns from time to time, for signals: a time-out
        must have no effect."""
        timeout_ms = milliseconds(timeout)
        pointer = self._enter(timeout_ms)
        try:
            if timeout_ms < 0:
                timeout_ms = self._default_ms
            if timeout_ms <= SLICE_MS or not is_main():
                return check(call(pointer, timeout_ms))
            deadline = deadline_of(timeout_ms)
            while True:
                left = max(1, -int(-(deadline - time.monotonic()) * 1000 // 1))
                code = call(pointer, min(left, SLICE_MS))
                if code != -errno.ETIMEDOUT:
                    return check(code)
                if left <= SLICE_MS:
                    raise timed_out(code, timeout_ms)
        finally:
            self._leave()

    def _transfer(self, write: bool, memory: Any, offset: int, timeout: float | None) -> None:
        """A write or a read that waits. Its time-out ends the connection, so the main thread posts it, and waits for it in slices."""
        timeout_ms = milliseconds(timeout)
        pointer = self._enter(timeout_ms)
        try:
            whole_ms = timeout_ms if timeout_ms >= 0 else self._default_ms
            buffer = ffi.new("struct srdma_buffer **")
            # Memory that the device can only read cannot be a buffer.
            if whole_ms <= SLICE_MS or not is_main() or len(memory) == 0 or lib.srdma_buffer_new(pointer, memory, len(memory), buffer) < 0:
                function = lib.srdma_conn_write if write else lib.srdma_conn_read
                check(function(pointer, memory, len(memory), offset, whole_ms))
                return
            try:
                self._transfer_in_slices(write, pointer, buffer[0], len(memory), offset, whole_ms)
            finally:
                lib.srdma_buffer_free(buffer)  # while the request is under way, this ends the connection
        finally:
            self._leave()

    def _transfer_in_slices(self, write: bool, pointer: Any, buffer: Any, length: int, offset: int, timeout_ms: int) -> None:
        post = lib.srdma_conn_post_write if write else lib.srdma_conn_post_read
        deadline, most, done = deadline_of(timeout_ms), length, 0
        while done < length:
            number = self._numbers = self._numbers + 1
            part = min(most, length - done)
            code = post(pointer, buffer, done, part, offset + done, number)
            if code == -errno.EMSGSIZE and part > 1:
                most = part // 2
            elif code == -errno.EAGAIN:  # there is no room before one of those under way has completed, or the renewal is over
                self._collect(pointer, None, deadline, timeout_ms)
            else:
                check(code)
                while not self._collect(pointer, number, deadline, timeout_ms):
                    pass
                done += part

    def _collect(self, pointer: Any, wanted: int | None, deadline: float, timeout_ms: int) -> bool:
        """Waits for completions, and keeps those of the program. Returns whether `wanted` is among them."""
        numbers = ffi.new("uint64_t[]", 16)
        left = max(1, -int(-(deadline - time.monotonic()) * 1000 // 1))
        count = lib.srdma_conn_complete(pointer, numbers, 1 if wanted is None else 16, min(left, SLICE_MS))
        if count == -errno.ETIMEDOUT and left > SLICE_MS:
            return False
        if count == -errno.ETIMEDOUT:
            raise timed_out(count, timeout_ms)
        check(count)
        self._done += [self._completed(numbers[i]) for i in range(count) if numbers[i] != wanted]
        return wanted in numbers[0:count]

    # ---- messages ----

    @errors_of("srdma_conn_send")
    def send(self, data: Bytes, timeout: float | None = None) -> None:
        """Sends a message of 0 to info.message_size bytes. It waits for a credit of the peer, up to `timeout` seconds."""
        with ffi.from_buffer(data) as memory:
            self._wait(timeout, lambda conn, ms: lib.srdma_conn_send(conn, memory, len(memory), ms))

    @errors_of("srdma_conn_recv")
    def recv(self, timeout: float | None = None) -> bytes:
        """Receives one message. Messages that the peer sent before it disconnected come first, then Closed."""
        length = ffi.new("size_t *")

        def call(conn: Any, ms: int) -> int:
            if self._room is None:
                self._room = ffi.new("uint8_t[]", _info(conn).message_size or 1)
            code = lib.srdma_conn_recv(conn, self._room, len(self._room), length, ms)
            return code if code < 0 else self._take(message, length[0])

        message: list[bytes] = []
        self._wait(timeout, call)
        return message[0]

    def _take(self, message: list[bytes], length: int) -> int:
        """Before another thread has its turn."""
        message.append(bytes(ffi.buffer(self._room, length)))
        return 0

    @errors_of("srdma_conn_recv")
    def recv_into(self, buffer: WriteableBuffer, timeout: float | None = None) -> int:
        """Receives one message into writable memory, and returns its length. If it does not fit, it stays, and TooLong.needed is its length."""
        return self._receive(lib.srdma_conn_recv, buffer, timeout)

    def _receive(self, function: Any, buffer: WriteableBuffer, timeout: float | None) -> int:
        length = ffi.new("size_t *")
        with ffi.from_buffer("char[]", buffer, require_writable=True) as memory:
            try:
                self._wait(timeout, lambda conn, ms: function(conn, memory, len(memory), length, ms))
            except TooLong as error:
                error.needed = length[0]
                raise
        return length[0]

    @errors_of("srdma_conn_control_send")
    def control_send(self, data: Bytes, timeout: float | None = None) -> None:
        """Sends a control message of 0 to CONTROL_MESSAGE_MAX bytes over the TLS channel. Both ends need the option control_messages."""
        with ffi.from_buffer(data) as memory:
            self._wait(timeout, lambda conn, ms: lib.srdma_conn_control_send(conn, memory, len(memory), ms))

    @errors_of("srdma_conn_control_recv")
    def control_recv(self, timeout: float | None = None) -> bytes:
        """Receives one control message."""
        memory = bytearray(lib.SRDMA_CONTROL_MESSAGE_MAX)
        return bytes(memory[:self._receive(lib.srdma_conn_control_recv, memory, timeout)])

    # ---- waiting ----

    def fileno(self) -> int:
        """A descriptor for selectors and asyncio, the connection's own. Once a call with timeout 0 has raised WouldBlock, it becomes
        readable when that call is worth repeating. -1 in a server's handlers."""
        with self._pointer() as conn:
            return lib.srdma_conn_fd(conn)

    @errors_of("srdma_conn_wait")
    def wait(self, timeout: float | None = None) -> None:
        """Waits until there is something for recv(), control_recv() or complete(), the peer has gone, or another thread calls wake()
        (Interrupted)."""
        self._wait(timeout, lib.srdma_conn_wait)

    # ---- the peer's region ----

    @errors_of("srdma_conn_write")
    def write(self, data: Bytes, offset: int = 0, timeout: float | None = None) -> None:
        """Writes the bytes to `offset` of the peer's region by RDMA. It returns when the peer has them. A Timeout ends the connection."""
        with ffi.from_buffer(data) as memory:
            self._transfer(True, memory, offset, timeout)

    @errors_of("srdma_conn_read")
    def read(self, length: int, offset: int = 0, timeout: float | None = None) -> bytes:
        """Reads `length` bytes at `offset` of the peer's region by RDMA. A Timeout ends the connection."""
        memory = bytearray(length)
        self.read_into(memory, offset, timeout)
        return bytes(memory)

    @errors_of("srdma_conn_read")
    def read_into(self, buffer: WriteableBuffer, offset: int = 0, timeout: float | None = None) -> None:
        """Fills writable memory with the bytes at `offset` of the peer's region, by RDMA. A Timeout ends the connection."""
        with ffi.from_buffer("char[]", buffer, require_writable=True) as memory:
            self._transfer(False, memory, offset, timeout)

    @errors_of("srdma_buffer_new")
    def buffer(self, memory: int | Bytes) -> Buffer:
        """Makes a buffer for posted writes and reads: of so many bytes, or of the program's own memory, in place."""
        with self._pointer() as conn:
            return Buffer(conn, memory)

    @errors_of("srdma_conn_post_write")
    def post_write(self, buffer: Buffer, length: int | None = None, offset: int = 0, *, buffer_offset: int = 0, cookie: Any = None) -> None:
        """Posts a write of `length` bytes (None: the rest) from the buffer to `offset` of the peer's region. It returns at once;
        complete() returns `cookie`, any object, when it is done. Do not change the buffer before that."""
        self._post(lib.srdma_conn_post_write, buffer, length, offset, buffer_offset, cookie)

    @errors_of("srdma_conn_post_read")
    def post_read(self, buffer: Buffer, length: int | None = None, offset: int = 0, *, buffer_offset: int = 0, cookie: Any = None) -> None:
        """Posts a read of `length` bytes (None: the rest) at `offset` of the peer's region into the buffer. Do not use the buffer before
        complete() has returned `cookie`."""
        if buffer.readonly:
            raise failed(-errno.EACCES, "a read cannot go into a buffer of memory that is read-only in Python")
        self._post(lib.srdma_conn_post_read, buffer, length, offset, buffer_offset, cookie)

    def _post(self, function: Any, buffer: Buffer, length: int | None, offset: int, buffer_offset: int, cookie: Any) -> None:
        if length is None:
            length = max(0, buffer.size - buffer_offset)
        with self._pointer() as conn, buffer._using() as memory:
            # A buffer that the program forgets must not go before the device is done with it.
            number = self._numbers = self._numbers + 1
            self._posted[number] = buffer._owner, cookie
            try:
                check(function(conn, memory, buffer_offset, length, offset, number))
            except BaseException:
                del self._posted[number]
                raise

    @errors_of("srdma_conn_complete")
    def complete(self, most: int = 64, timeout: float | None = None) -> list[Any]:
        """Waits for the first of the posted writes and reads, and returns the cookies of up to `most` that have completed, in the order
        of posting. [] when none is under way."""
        if self._done and most > 0:
            done, self._done = self._done[:most], self._done[most:]
            return done
        numbers = ffi.new("uint64_t[]", max(most, 1))
        done = []

        def call(conn: Any, ms: int) -> int:
            count = lib.srdma_conn_complete(conn, numbers, most, ms)
            done.extend(self._completed(numbers[i]) for i in range(count))
            return count

        self._wait(timeout, call)
        return done

    def _completed(self, number: int) -> Any:
        """The program's cookie; the buffer may go now."""
        return self._posted.pop(number, (None, None))[1]

    # ---- regions with names, in memory of the program's; the option named_regions ----

    @errors_of("srdma_conn_offer")
    def offer(self, memory: Memory, name: str | None = None, *, offset: int = 0, length: int | None = None, access: int | None = None) -> int:
        """Offers `length` bytes (None: the rest) at `offset` of the memory to the peer, and returns the number of the region. `access`
        None: all that the memory was registered for. The region lasts until withdraw(), or until the memory or the connection is closed. The
        peer may change what it may write at any time: copy before you check."""
        if length is None:
            length = max(0, memory.size - offset)
        if access is None:
            access = memory.access & (lib.IBV_ACCESS_REMOTE_WRITE | lib.IBV_ACCESS_REMOTE_READ | lib.IBV_ACCESS_REMOTE_ATOMIC)
        number = ffi.new("uint32_t *")
        with self._pointer() as conn, memory._referred() as pointer:
            check(lib.srdma_conn_offer(conn, pointer, offset, length, access, c_string(name), number))
            self._offered[number[0]] = memory
        return number[0]

    @errors_of("srdma_conn_withdraw")
    def withdraw(self, region: int) -> None:
        """Takes one region back from the peer, at once and for good. `region` is what offer() has returned."""
        with self._pointer() as conn:
            check(lib.srdma_conn_withdraw(conn, region))
            self._offered.pop(region, None)

    @errors_of("srdma_conn_forget")
    def forget(self, memory: Memory) -> None:
        """Withdraws all regions of the memory, and deregisters it: after this, neither end reaches it over this connection."""
        with self._pointer() as conn, memory._referred() as pointer:
            check(lib.srdma_conn_forget(conn, pointer))
            self._offered = {region: offered for region, offered in self._offered.items() if offered is not memory}

    @errors_of("srdma_conn_local_memory")
    def local_memory(self, memory: Memory) -> tuple[int, int]:
        """How work requests of the program's own reach the memory over a raw connection: its address and the lkey, for another binding of
        libibverbs. Valid until forget() or the connection's close."""
        address, lkey = ffi.new("uint64_t *"), ffi.new("uint32_t *")
        with self._pointer() as conn, memory._referred() as pointer:
            check(lib.srdma_conn_local_memory(conn, pointer, address, lkey))
        return address[0], lkey[0]

    @errors_of("srdma_conn_find_region")
    def find_region(self, name: str, timeout: float | None = None) -> PeerRegion:
        """Finds a region of the peer's by its name. It waits until the peer offers one."""
        found, text = ffi.new("struct srdma_peer_region *"), c_string(name)
        self._wait(timeout, lambda conn, ms: lib.srdma_conn_find_region(conn, text, ms, found))
        return report(found)

    @errors_of("srdma_conn_get_region")
    def get_region(self, region: int) -> PeerRegion:
        """The facts of the peer's region of this id. It never waits."""
        found = ffi.new("struct srdma_peer_region *")
        with self._pointer() as conn:
            check(lib.srdma_conn_get_region(conn, region, found))
        return report(found)

    def regions(self) -> list[PeerRegion]:
        """The regions that the peer offers, in the order of its offers. It never waits."""
        found = ffi.new("struct srdma_peer_region *")
        regions: list[PeerRegion] = []
        with self._pointer() as conn:
            while (code := lib.srdma_conn_region_at(conn, len(regions), found)) == 0:
                regions.append(report(found))
            if code != -errno.ENOENT:
                check(code)
        return regions

    @errors_of("srdma_conn_wait_regions")
    def wait_regions(self, changes: int = 0, timeout: float | None = None) -> int:
        """Waits until the peer has offered or withdrawn regions more than `changes` times, and returns how often so far: `changes` of the
        next call."""
        number = ffi.new("uint64_t *", changes)
        self._wait(timeout, lambda conn, ms: lib.srdma_conn_wait_regions(conn, number, ms))
        return number[0]

    @errors_of("srdma_conn_post")
    def post(self, kind: RequestKind | str, *pieces: Memory | tuple[Memory, int] | tuple[Memory, int, int], region: PeerRegion | int = 0,
             offset: int = 0, notice: int = 0, operand: int = 0, compare: int = 0, cookie: Any = None) -> None:
        """Posts a request, and returns at once; complete() returns `cookie`, any object, when it is done. Until then do not change (write)
        or use (others) the bytes.

        kind     "write", "read", "write_notify" (the peer's recv_notice() returns `notice`), "fetch_add" (adds `operand` to 8 bytes),
                 "compare_swap" (replaces 8 bytes by `operand` if they equal `compare`); these two put what was there into the piece
        pieces   memory of this end, one after the other: a Memory, (memory, offset) or (memory, offset, length)
        region   of the peer's, from find_region(), or its id; 0: the one without a name
        offset   in the region
        """
        filled, array, memories = request(kind, pieces)
        filled.region = region.id if isinstance(region, PeerRegion) else region
        filled.offset, filled.notice, filled.operand, filled.compare = offset, notice, operand, compare
        with self._pointer() as conn, ExitStack() as references:
            for piece, memory in enumerate(memories):
                array[piece].memory = references.enter_context(memory._referred())
            filled.cookie = number = self._numbers = self._numbers + 1
            self._posted[number] = None, cookie
            try:
                check(lib.srdma_conn_post(conn, filled))
            except BaseException:
                del self._posted[number]
                raise

    @errors_of("srdma_conn_recv_notice")
    def recv_notice(self, timeout: float | None = None) -> Notice:
        """Takes one notice of the peer's "write_notify". The bytes of its write, and of all before it, are in place. WrongKind: a message is
        next, for recv(), which raises the same while a notice is."""
        notice = ffi.new("struct srdma_notice *")
        self._wait(timeout, lambda conn, ms: lib.srdma_conn_recv_notice(conn, notice, ms))
        return report(notice)

    # ---- the own region ----

    @property
    def region(self) -> Region:
        """The region that this end offers, to be copied from and to: region[a:b]."""
        return Region(self)

    @errors_of("srdma_conn_withdraw_region")
    def withdraw_region(self) -> None:
        """Takes the own region back from the peer, at once and for good."""
        with self._pointer() as conn:
            check(lib.srdma_conn_withdraw_region(conn))

    # ---- what was agreed ----

    @property
    def info(self) -> ConnInfo:
        """What the two ends agreed on, and what has happened so far. It does not show the PSNs in its repr: they are secrets."""
        with self._pointer() as conn:
            return report(_info(conn))

    @property
    def timing(self) -> ConnTiming:
        """Duration of each phase of the set-up, microseconds."""
        timing = ffi.new("struct srdma_conn_timing *")
        with self._pointer() as conn:
            lib.srdma_conn_get_timing(conn, timing)
        return report(timing)

    @property
    def peer_private_data(self) -> bytes | None:
        """The private data of the peer's options; None: it sent none."""
        size = ffi.new("size_t *")
        with self._pointer() as conn:
            data = lib.srdma_conn_peer_private_data(conn, size)
            return bytes(ffi.buffer(data, size[0])) if data else None

    @errors_of("srdma_conn_peer_cert")
    def peer_cert(self) -> PeerCert:
        """The certificate that the peer has proved to own. NotFound: it showed none."""
        with self._pointer() as conn:
            return cert.peer_cert(conn)

    def seal_bytes(self) -> list[int]:
        """With seal_threads: bytes of records by thread; the first number is for the connections' own threads. []: no other threads."""
        numbers = ffi.new("uint64_t[]", 65)
        with self._pointer() as conn:
            return list(numbers[0:min(65, lib.srdma_conn_seal_bytes(conn, numbers, 65))])

    # ---- epochs, verbs ----

    @errors_of("srdma_conn_renew")
    def renew(self) -> None:
        """Asks for new PSNs and a fresh queue pair. It returns at once; the renewal loses nothing."""
        with self._pointer() as conn:
            check(lib.srdma_conn_renew(conn))

    @errors_of("srdma_conn_query_qp")
    def query_qp(self) -> tuple[QpState, int, int]:
        """Asks the device: the state of the queue pair, the PSN that it expects next, the PSN that it uses next."""
        state, rq_psn, sq_psn = ffi.new("enum ibv_qp_state *"), ffi.new("uint32_t *"), ffi.new("uint32_t *")
        with self._pointer() as conn:
            check(lib.srdma_conn_query_qp(conn, state, rq_psn, sq_psn))
        return QpState(int(ffi.cast("int", state[0]))), rq_psn[0], sq_psn[0]

    @errors_of("srdma_conn_peer_region")
    def peer_region(self) -> tuple[int, int, int]:
        """Where the peer's region is, for work requests of the program's own: address, rkey, size in bytes. A renewal changes the rkey."""
        address, rkey, size = ffi.new("uint64_t *"), ffi.new("uint32_t *"), ffi.new("size_t *")
        with self._pointer() as conn:
            check(lib.srdma_conn_peer_region(conn, address, rkey, size))
        return address[0], rkey[0], size[0]

    def verbs(self) -> dict[str, int]:
        """The addresses of the connection's verbs objects, for another binding of libibverbs: qp, pd, send_cq, recv_cq, comp_channel.
        They are valid as long as the connection is."""
        with self._pointer() as conn:
            found = {"qp": lib.srdma_conn_qp, "pd": lib.srdma_conn_pd, "send_cq": lib.srdma_conn_send_cq, "recv_cq": lib.srdma_conn_recv_cq,
                     "comp_channel": lib.srdma_conn_comp_channel}
            return {name: int(ffi.cast("uintptr_t", function(conn))) for name, function in found.items()}


class Conn(Handle, BaseConn):
    """A connection of the program's own, from connect(), Listener.accept() or accept(). One thread at a time uses it.

    As a context manager it disconnects in order at the end of the block, and is closed.
    """

    _what = "connection"

    def __init__(self, pointer: Any, device: Device, timeout_ms: int) -> None:
        """For functions of this package."""
        Handle.__init__(self, Owner(pointer, freer(lib.srdma_conn_free, "conn")))
        BaseConn.__init__(self)
        self._device, self._default_ms = device, timeout_ms

    def _enter(self, timeout_ms: int = -1) -> Any:
        return Handle._enter(self, timeout_ms)

    def _leave(self) -> None:
        Handle._leave(self)

    def wake(self) -> None:
        """Ends the wait() of another thread, the present one or the next. Thread-safe."""
        self._wake(lib.srdma_conn_wake)

    def region_view(self) -> memoryview:
        """The own region without a copy, writable. The peer may change it at any time: copy before you check. The connection's memory
        stays as long as the view, or anything that is made of it, does."""
        with self._using() as pointer:
            memory = lib.srdma_conn_region(pointer)
            if not memory:
                raise failed(-errno.ENXIO, "this end of the connection offers no region")
            assert self._owner is not None
            return self._owner.view(memory, _info(pointer).region_size)

    @errors_of("srdma_conn_disconnect")
    def disconnect(self, reason: str | None = None, timeout: float | None = None) -> None:
        """Ends the connection in order: the peer has every message, and all work of this end is done. `reason` (up to 127 bytes) is for
        the peer's log. Messages that had come before can still be received."""
        text = c_string(reason)
        if milliseconds(timeout) == 0:
            self._wait(0, lambda conn, ms: lib.srdma_conn_disconnect(conn, text, ms))
            return
        if not is_main():
            self._wait(timeout, lambda conn, ms: lib.srdma_conn_disconnect(conn, text, ms))
            return
        with self._using(milliseconds(timeout)) as pointer:
            check(lib.srdma_conn_disconnect_start(pointer, text, milliseconds(timeout)))
            while (code := lib.srdma_conn_disconnect_step(pointer)) == -errno.EAGAIN:
                sleep_on([lib.srdma_conn_fd(pointer)], None)
            check(code)

    @errors_of("srdma_conn_disconnect_start")
    def disconnect_start(self, reason: str | None = None, timeout: float | None = None) -> None:
        """Begins what disconnect() does, within `timeout`, and returns at once; disconnect_step() does the work. Several connections can
        go on side by side."""
        with self._using() as pointer:
            check(lib.srdma_conn_disconnect_start(pointer, c_string(reason), milliseconds(timeout)))

    @errors_of("srdma_conn_disconnect_step")
    def disconnect_step(self) -> None:
        """Goes as far as it can without waiting, and returns when the connection has ended in order. After WouldBlock call it again when
        fileno() is readable, which it is at first, too."""
        self._wait(0, lambda conn, _: lib.srdma_conn_disconnect_step(conn))

    def close(self) -> None:
        """Frees the connection. If it was not disconnected, the peer is not told. Buffers can be closed before or after it."""
        super().close()
        self._posted.clear()
        self._offered.clear()

    def __exit__(self, kind: type[BaseException] | None, *exception: Any) -> None:
        try:
            if not self.closed and kind is None:
                self.disconnect()
            elif not self.closed:
                with suppress(Error):  # what has failed already is more important
                    self.disconnect(f"the program failed: {kind.__name__ if kind else ''}", 0)
        finally:
            self.close()


def connection_options(options: Any, init: str | None = None) -> Options:
    return options if isinstance(options, Options) else Options("conn_options", options, init)


class Connecting(Step):
    """A connection that is coming up, for programs that must not wait. fileno() is readable once step() has a result."""

    _what = "connection attempt"

    @errors_of("srdma_conn_connect_start")
    def __init__(self, host: str, port: str | int = DEFAULT_PORT, *, tls: TlsClient, device: Device | None = None, **options: Unpack[ConnOptions]) -> None:
        self._device = device or default_device()
        filled = connection_options(options)
        self._timeout_ms = filled.struct.timeout_ms
        with tls._using() as context, self._device._using() as opened:
            pointer = made(lib.srdma_conn_connect_start, "connect", c_string(host), c_string(str(port)), context, opened, filled.struct)
        super().__init__(Owner(pointer, freer(lib.srdma_connect_free, "connect")))

    def fileno(self) -> int:
        with self._using() as pointer:
            return lib.srdma_connect_fd(pointer)

    @errors_of("srdma_connect_step")
    def step(self) -> Conn:
        """The connection; WouldBlock while there is no result. Never waits. After any other result the object is closed."""
        return Conn(self._step(lib.srdma_connect_step, "conn"), self._device, self._timeout_ms)


@errors_of("srdma_conn_connect")
def connect(host: str, port: str | int = DEFAULT_PORT, *, tls: TlsClient, device: Device | None = None, **options: Unpack[ConnOptions]) -> Conn:
    """Connects to a server. `device` None: the first one with an active port. The options are those of ConnOptions, such as
    seal="required" or region_size=65536. It waits up to setup_timeout_ms, and, while the server is busy, up to busy_retry_ms more."""
    with Connecting(host, port, tls=tls, device=device, **options) as connecting:
        poll = select.poll()
        poll.register(connecting.fileno(), select.POLLIN)
        while True:
            try:
                return connecting.step()
            except BlockingIOError:
                poll.poll(10000)


@errors_of("srdma_psn_generate")
def psn() -> int:
    """Draws a packet sequence number: 24 uniform bits from OpenSSL's generator."""
    drawn = ffi.new("uint32_t *")
    check(lib.srdma_psn_generate(drawn))
    return drawn[0]


@errors_of("srdma_conn_disconnect_all")
def disconnect_all(conns: list[Conn], reason: str | None = None, timeout: float | None = None) -> None:
    """Ends several connections at once, side by side: programs that are each other's peers need it to leave together."""
    entered: list[Conn] = []
    try:
        pointers = []
        for conn in conns:
            pointers.append(conn._enter())
            entered.append(conn)
        array, text, timeout_ms = ffi.new("struct srdma_conn *[]", pointers), c_string(reason), milliseconds(timeout)
        if not is_main() or timeout_ms == 0:
            check(lib.srdma_conn_disconnect_all(array, len(pointers), text, timeout_ms))
            return
        deadline = deadline_of(timeout_ms if timeout_ms > 0 else conns[0]._default_ms if conns else 0)
        while (code := lib.srdma_conn_disconnect_all(array, len(pointers), text, 0)) == -errno.EAGAIN and time.monotonic() < deadline:
            sleep_on([lib.srdma_conn_fd(pointer) for pointer in pointers], deadline)
        if code == -errno.EAGAIN:  # the time is over
            code = lib.srdma_conn_disconnect_all(array, len(pointers), text, 1)
        check(code)
    finally:
        for conn in entered:
            conn._leave()
