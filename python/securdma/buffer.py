# SPDX-License-Identifier: Apache-2.0
"""Registered memory, from and into which the device works without a copy."""
from __future__ import annotations

from typing import Any

from ._binding import ffi, lib
from ._handle import Handle, Owner, freer, made


class Buffer(Handle):
    """Memory that posted writes and reads of one connection use; conn.buffer() makes it.

    It is either the library's (zeroed, wiped in the end), or the program's own: a bytearray, mmap, array, numpy array, or anything
    else with the buffer protocol, registered in place. Such an object cannot be resized or closed while the buffer exists.

    Closing a buffer while a write or a read is under way in it is a mistake, and ends the connection (-EINVAL). A buffer that the
    program merely forgets stays until they are done.
    """

    _what = "buffer"

    def __init__(self, conn: Any, memory: Any) -> None:
        """conn: the connection's pointer; memory: a size in bytes, or an object with the buffer protocol."""
        if isinstance(memory, int):
            self._memory, self.readonly, data, size = None, False, None, memory
        else:
            self._memory = memoryview(memory)
            self.readonly = self._memory.readonly
            data = ffi.from_buffer("char[]", memory, require_writable=False)
            size = len(data)
        pointer = made(lib.srdma_buffer_new, "buffer", conn, ffi.NULL if data is None else data, size)
        self.size = size
        super().__init__(Owner(pointer, freer(lib.srdma_buffer_free, "buffer"), *([] if data is None else [data])))

    def __len__(self) -> int:
        return self.size

    @property
    def data(self) -> memoryview:
        """The memory, without a copy. Do not change it while a write is under way in it, nor use it while a read is."""
        with self._using() as pointer:
            if self._memory is not None:
                return memoryview(self._memory).cast("B")
            assert self._owner is not None
            return self._owner.view(lib.srdma_buffer_data(pointer), self.size)

    def close(self) -> None:
        """Deregisters the memory: the device no longer reads or writes it. Views of the library's own memory keep that until they go."""
        super().close()
        self._memory = None
