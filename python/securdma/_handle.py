# SPDX-License-Identifier: Apache-2.0
"""Who frees an object of the library, and when: exactly once, never while it is in use, in whatever order Python drops its own objects."""
from __future__ import annotations

import errno
import os
import re
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ._binding import ffi
from .errors import Error, failed


class Owner:
    """Frees an object of the library: when it is closed, and at the latest when nothing refers to it any more.

    What the object needs until then, such as the memory of the program's that a device knows, is in `keep`. A view of the object's
    memory refers to the owner, so that the memory stays as long as anyone can see it: close() then leaves the rest to the view's end.
    """

    def __init__(self, pointer: Any, free: Callable[[Any], Any], *keep: Any) -> None:
        self.pointer, self.free, self.keep = pointer, free, keep
        self.process = os.getpid()
        self.guard = threading.RLock()  # a handler of a signal may close what the same thread is about to wake
        self._view: Any = None

    def close(self) -> None:
        if self._view is None or self._view() is None:
            self._free()

    def _free(self) -> None:
        with self.guard:
            pointer, self.pointer = self.pointer, None
            if pointer and self.process == os.getpid():  # else it is the parent's, to which a free would tell its peer
                self.free(pointer)
                for memory in self.keep:
                    ffi.release(memory)
                self.keep = ()

    def __del__(self) -> None:
        self._free()

    def view(self, memory: Any, size: int) -> memoryview:
        """A view of `size` bytes of the object's memory, whose owner lives as long as the view and all that is made of it."""
        seen = self._view() if self._view is not None else None
        if seen is None:
            # The function refers to the owner; cffi calls it when the last view has gone.
            seen = ffi.gc(ffi.cast("uint8_t *", memory), lambda _, owner=self: None)
            self._view = weakref.ref(seen)
        return memoryview(ffi.buffer(seen, size))


class Handle:
    """An object of the library that one thread at a time may use. Others wait for their turn, as long as their call may wait."""

    #: What messages call it.
    _what = "object"

    def __init__(self, owner: Owner) -> None:
        self._owner: Owner | None = owner
        self._turn = threading.Lock()
        self._user = 0

    def _enter(self, timeout_ms: int = -1) -> Any:
        """Takes the object for the calling thread, and returns its pointer. _leave() gives it back."""
        if self._owner is not None and self._owner.process != os.getpid():
            raise failed(-errno.EBADF, f"the {self._what} is of the process that has forked this one")
        if not self._turn.acquire(blocking=False):
            if self._user == threading.get_ident():
                raise failed(-errno.EBUSY, f"the {self._what} is used from within one of its own calls, such as by a handler of a signal")
            if timeout_ms == 0:
                raise failed(-errno.EAGAIN, f"another thread uses the {self._what}")
            if not self._turn.acquire(timeout=timeout_ms / 1000 if timeout_ms > 0 else -1):
                raise failed(-errno.ETIMEDOUT, f"another thread used the {self._what} for {timeout_ms} ms")
        self._user = threading.get_ident()
        if self._owner is None or not self._owner.pointer:
            self._leave()
            raise failed(-errno.EBADF, f"the {self._what} was closed")
        return self._owner.pointer

    def _leave(self) -> None:
        self._user = 0
        self._turn.release()

    @contextmanager
    def _using(self, timeout_ms: int = -1) -> Iterator[Any]:
        pointer = self._enter(timeout_ms)
        try:
            yield pointer
        finally:
            self._leave()

    def _wake(self, function: Callable[[Any], None]) -> None:
        """Calls a thread-safe function of the library, while another thread uses the object. It is not freed meanwhile."""
        owner = self._owner
        if owner is None:
            raise failed(-errno.EBADF, f"the {self._what} was closed")
        with owner.guard:
            if owner.pointer:
                function(owner.pointer)

    @property
    def closed(self) -> bool:
        """Whether this program has closed the object."""
        return self._owner is None

    def close(self) -> None:
        """Frees the object. A call of another thread ends first. Views of its memory keep that memory until they go."""
        if self._owner is None:
            return
        try:
            self._enter()
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return
        try:
            owner, self._owner = self._owner, None
            assert owner is not None
            owner.close()
        finally:
            self._leave()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__module__.partition('.')[0]}.{type(self).__name__}{', closed' if self.closed else ''}>"


def made(constructor: Callable[..., int], tag: str, *arguments: Any) -> Any:
    """Calls a constructor of the library, and returns what it made."""
    out = ffi.new(f"struct srdma_{tag} **")
    code = constructor(*arguments, out)
    if code < 0:
        raise failed(code)
    return out[0]


def freer(function: Callable[[Any], Any], tag: str) -> Callable[[Any], Any]:
    """A function of the library that frees takes the address of the pointer."""
    kind, new = f"struct srdma_{tag} **", ffi.new
    return lambda pointer: function(new(kind, pointer))


class Step(Handle):
    """An object that step() brings to a result, after which it is of no use any more: it is closed then."""

    def _step(self, function: Callable[..., int], tag: str) -> Any:
        out = ffi.new(f"struct srdma_{tag} **")
        try:
            with self._using() as pointer:
                code = function(pointer, out)
                if code < 0:
                    raise failed(code)
        except BlockingIOError:
            raise
        except BaseException:
            self.close()
            raise
        self.close()
        return out[0]


def deadline_of(timeout_ms: int) -> float:
    return time.monotonic() + timeout_ms / 1000


# Python runs the handlers of signals between calls, in the main thread alone: a call of the main thread returns to it this often.
SLICE_MS = 250


def is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def timed_out(code: int, timeout_ms: int) -> Error:
    """The exception for the last slice of a call, with the time of the whole call in its text."""
    error = failed(code)
    return failed(code, re.sub(r"after \d+ ms", f"after {timeout_ms} ms", error.text, count=1))


def sleep_on(descriptors: Iterable[int], deadline: float | None) -> None:
    """Waits until one of them is readable, but not beyond the deadline; a signal is handled at once."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = 10.0 if deadline is None else min(10.0, deadline - time.monotonic())
    poll.poll(max(1, left * 1000))


def patiently(call: Callable[[], Any], undo: Callable[[Any], Any] | None = None) -> Any:
    """A call that has no slices: the main thread leaves it to another thread, and handles signals meanwhile. When a handler raises an
    exception, the other thread goes on to the end of the call, and undoes it."""
    if not is_main():
        return call()
    results: list[Any] = []
    errors: list[BaseException] = []
    left = threading.Event()

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)
        if left.is_set() and results and undo is not None:
            undo(results[0])

    thread = threading.Thread(target=run, name="securdma wait")
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending
        return call()
    try:
        thread.join()
    except BaseException:
        left.set()
        raise
    if errors:
        raise errors[0]
    return results[0]
