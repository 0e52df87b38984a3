# SPDX-License-Identifier: Apache-2.0
"""The program's own memory, for many connections: offered to peers as regions with names, and used by requests of several pieces."""
from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ._binding import ffi, lib
from ._handle import Handle, Owner, freer, made
from ._types import RequestKind
from .device import Device, default_device
from .errors import errors_of, failed
from .log import logger

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Bytes


class _Held:
    """Keeps the program's object alive and in place until neither the library, nor a device, nor a peer reaches its memory."""

    def __init__(self, memory: Any, on_release: Callable[[], Any] | None) -> None:
        self.memory, self.on_release = memory, on_release
        self.handle = ffi.new_handle(self)
        _held.add(self)

    def release(self, discard: Callable[[Any], None]) -> None:
        discard(self)
        ffi.release(self.memory)
        if self.on_release is not None:
            try:
                self.on_release()
            except BaseException:  # there is nobody else to tell
                logger.exception("on_release of a memory failed")


# Connections use a memory after the program's last reference to it has gone.
_held: set[_Held] = set()


# At the end of the interpreter, which frees connections, the names of this module may be gone.
@ffi.def_extern(onerror=lambda *_: None)
def securdma_release_fn(arg: Any, held: Callable[[Any], Any] = ffi.from_handle, discard: Callable[[Any], None] = _held.discard) -> None:
    held(arg).release(discard)


class _MemoryOwner(Owner):
    """The release calls the program's function: no lock is held then."""

    def _free(self) -> None:
        with self.guard:
            pointer, self.pointer = self.pointer, None
        if pointer and self.process == os.getpid():
            self.free(pointer)


class Memory(Handle):
    """Memory of the program's, registered in place for the connections of one device. Thread-safe.

    memory       a bytearray, mmap, array, numpy array, bytes, or anything else with the buffer protocol. It cannot be resized or closed
                 until the last connection has let go of it. A file that is mapped must keep its length
    access       the most that anyone may do to it, of ACCESS_LOCAL_WRITE (this end's reads and atomic operations), ACCESS_REMOTE_WRITE,
                 ACCESS_REMOTE_READ and ACCESS_REMOTE_ATOMIC (peers, by conn.offer()). None: this end alone
    on_release   a function without arguments, called once when nothing reaches the memory any more, in any thread that is in a call of
                 this package: it must not use a connection

    Connections that use the memory keep it after close(), until the connection's close or, when no request uses it, its next call: that
    withdraws the regions of the memory. A Memory that the program forgets is closed when no connection offers a region of it.
    """

    _what = "memory"

    @errors_of("srdma_memory_register")
    def __init__(self, memory: Bytes, access: int | None = None, *, device: Device | None = None, on_release: Callable[[], Any] | None = None) -> None:
        data = ffi.from_buffer("char[]", memory, require_writable=False)
        #: Whether the object is read-only in Python.
        self.readonly = memoryview(memory).readonly
        #: Bytes.
        self.size = len(data)
        #: What anyone may do to it.
        self.access = access if access is not None else 0 if self.readonly else lib.IBV_ACCESS_LOCAL_WRITE
        if self.readonly and self.access & ~lib.IBV_ACCESS_REMOTE_READ:
            raise failed(-errno.EACCES, "an object that is read-only in Python can be registered for ACCESS_REMOTE_READ alone")
        self._device = device or default_device()
        with self._device._using() as opened:
            pointer = made(lib.srdma_memory_register, "memory", opened, data, self.size, self.access)
        held = _Held(data, on_release)
        lib.srdma_memory_on_release(pointer, lib.securdma_release_fn, held.handle)
        super().__init__(_MemoryOwner(pointer, freer(lib.srdma_memory_unref, "memory")))

    def __len__(self) -> int:
        return self.size

    @contextmanager
    def _referred(self) -> Iterator[Any]:
        """The pointer, with a reference of its own: several threads use a memory at a time, and one may close it meanwhile."""
        owner, pointer = self._owner, None
        if owner is not None and owner.process == os.getpid():
            with owner.guard:
                pointer = lib.srdma_memory_ref(owner.pointer) if owner.pointer else None
        if pointer is None:
            raise failed(-errno.EBADF, "the memory was closed, or is of the process that has forked this one")
        try:
            yield pointer
        finally:
            lib.srdma_memory_unref(ffi.new("struct srdma_memory **", pointer))

    def close(self) -> None:
        """Gives the program's reference back. The object is free when the last connection has let go of it, which on_release tells."""
        super().close()


def request(kind: RequestKind | str, pieces: Sequence[Any]) -> tuple[Any, Any, list[Memory]]:
    """A request of the library, its pieces, which must live as long, and the memory of each of them."""
    filled, array, memories = ffi.new("struct srdma_request *"), ffi.new("struct srdma_piece[]", len(pieces) or 1), []
    lib.srdma_request_init(filled)
    filled.kind = int(RequestKind[kind.upper()] if isinstance(kind, str) else kind)
    for number, given in enumerate(pieces):
        memory, *place = given if isinstance(given, tuple) else (given,)
        if not isinstance(memory, Memory) or len(place) > 2:
            raise TypeError(f"a piece is a Memory, (memory, offset) or (memory, offset, length), not {given!r}")
        offset = place[0] if place else 0
        lib.srdma_piece_init(array + number)
        array[number].offset = offset
        array[number].length = place[1] if len(place) == 2 else max(0, memory.size - offset)
        memories.append(memory)
    filled.pieces, filled.piece_count = array, len(pieces)
    return filled, array, memories
