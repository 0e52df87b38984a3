# SPDX-License-Identifier: Apache-2.0
"""A server with many clients, which threads of the library serve."""
from __future__ import annotations

import atexit
import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ._binding import ffi, lib
from ._convert import Options, c_string, report, string
from ._handle import patiently
from ._types import AdmitRequest, Check, ConnInfo, Notice, ServerMetrics, ServerStatus
from .cert import checked
from .conn import BaseConn
from .device import Device, default_device
from .errors import Error, check, errors_of, failed
from .listener import Admission, Admit, put_text
from .log import logger
from .tls import TlsServer

if TYPE_CHECKING:
    from typing import Unpack

    from ._types import ConnOptions, ServerLimits, ServerOptions

REASON_SIZE = 128
# Those for which -EAGAIN means: again, when there is room to send.
REPEATED = ("on_message", "on_control", "on_notice", "on_wake", "on_complete")
# The library tells by itself when a call on a stream is worth repeating.
DONE = ("on_stream",)


class Disconnect(Exception):
    """Raised by a handler: disconnects the client. `reason` (up to 127 bytes) is for the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Handlers:
    """The functions with which a program answers the clients of a server. A subclass has those that it needs.

    The calls for one client come one after the other, from one thread; those for different clients may come at the same time. A handler
    that blocks holds up the other clients of its worker (option `workers`), and all handlers share Python's lock.

    Whatever a handler raises ends its client: Disconnect with its reason; any other exception is logged with its traceback (logger
    "securdma"), and the client is told the name of its class. But WouldBlock, such as from send(..., timeout=0), has a meaning in
    on_message, on_control, on_notice, on_wake and on_complete: the same call comes again when there is room to send.
    """

    if TYPE_CHECKING:
        def on_connect(self, conn: ServerConn) -> None:
            """A client has connected. It may send and post; for more than there is room for, it calls conn.wake()."""

        def on_message(self, conn: ServerConn, data: bytes) -> None:
            """A message came. Not to take it now, raise WouldBlock: it comes again, and must be taken within timeout_ms."""

        def on_disconnect(self, conn: ServerConn, error: Error | None) -> None:
            """The client is gone, in order (None) or not. `conn` is of no use after this."""

        def on_admit(self, request: AdmitRequest) -> bytes | None:
            """A client asks for a connection: returns None to accept it, bytes to accept it with these as private data, or raises Refuse."""

        def on_control(self, conn: ServerConn, data: bytes) -> None:
            """A control message came. Needed if the clients' options have control_messages. Not to take it now, raise WouldBlock: it comes
            again."""

        def on_notice(self, conn: ServerConn, notice: Notice) -> None:
            """A notice came, in its order with messages; see BaseConn.recv_notice(). Not to take it now, raise WouldBlock: it comes again.
            Without this handler a client that sends one is disconnected."""

        def on_regions(self, conn: ServerConn) -> None:
            """The client has offered or withdrawn regions: conn.regions(), or conn.find_region(name, timeout=0)."""

        def on_wake(self, conn: ServerConn) -> None:
            """Some thread has called conn.wake()."""

        def on_complete(self, conn: ServerConn, cookie: Any) -> None:
            """A write or read that was posted with this cookie has completed. Without this handler, call conn.complete()."""

        def on_stream(self, conn: ServerConn, stream: Any) -> bool | None:
            """Something has happened on the stream that on_connect has made of the connection: use it with timeout 0. WouldBlock ends the
            call; True asks for another one after other clients' turns. A library without streams does not call it."""


class ServerConn(BaseConn):
    """The connection of a server's client. Only its handlers may use it, while they run; but wake() any thread, at any time.

    data   the program's: what it wants to keep for this client; None at first
    """

    def __init__(self, pointer: Any, timeout_ms: int) -> None:
        super().__init__()
        self._conn, self._default_ms, self._guard = pointer, timeout_ms, threading.RLock()
        self._thread = 0  # that of the handler that runs
        self.data: Any = None

    def _enter(self, timeout_ms: int = -1) -> Any:
        if self._conn is None:
            raise failed(-errno.EBADF, "the client has gone")
        if self._thread != threading.get_ident():
            raise failed(-errno.EBUSY, "the connection of a server's client is for its handlers, while they run; wake() it instead")
        return self._conn

    def _leave(self) -> None:
        pass

    def wake(self) -> None:
        """Has the client's worker call on_wake. Thread-safe. It does nothing when the client has gone."""
        with self._guard:
            if self._conn is not None:
                lib.srdma_conn_wake(self._conn)

    @contextmanager
    def _handled(self) -> Iterator[None]:
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = 0

    def _end(self) -> None:
        with self._guard:
            self._conn = None
        self._posted.clear()
        self._offered.clear()
        self._stream = None

    def __repr__(self) -> str:
        return f"<securdma.ServerConn{', gone' if self._conn is None else ''}>"


class _State:
    """What the library's threads need. The server itself is not among it, so that one that the program forgets can be stopped."""

    def __init__(self, handlers: dict[str, Callable[..., Any]], timeout_ms: int) -> None:
        self.handlers, self.timeout_ms = handlers, timeout_ms
        self.clients: dict[ServerConn, Any] = {}
        self.admit = Admission(handlers["on_admit"]).admit if "on_admit" in handlers else None

    def connect(self, pointer: Any) -> Any:
        client = ServerConn(pointer, self.timeout_ms)
        handle = self.clients[client] = ffi.new_handle(client)
        return handle

    def call(self, name: str, handle: Any, reason: Any, *arguments: Any) -> int:
        handler = self.handlers.get(name)
        if not handler or not handle:
            return 0
        client = ffi.from_handle(handle)
        _inside.states = [*getattr(_inside, "states", []), self]
        try:
            with client._handled():
                more = handler(client, *arguments)
            return -errno.EAGAIN if name in DONE and more else 0
        except BlockingIOError as error:
            if name in REPEATED:
                return -errno.EAGAIN
            if name in DONE:
                return 0
            text = self._failed(name, error)
        except Disconnect as end:
            text = end.reason
        except BaseException as error:  # there is nobody else to tell
            text = self._failed(name, error)
        finally:
            _inside.states = _inside.states[:-1]
        if reason:
            put_text(reason, REASON_SIZE, text)
        return -errno.ECONNABORTED

    @staticmethod
    def _failed(name: str, error: BaseException) -> str:
        logger.error("%s failed: the client is disconnected", name, exc_info=error)
        return f"the server's program failed: {type(error).__name__}"


# The states whose handlers run in this thread.
_inside = threading.local()


@ffi.def_extern(error=-errno.ECONNABORTED)
def securdma_on_connect(conn: Any, client_arg: Any, arg: Any) -> int:
    state = ffi.from_handle(arg)
    client_arg[0] = state.connect(conn)
    return state.call("on_connect", client_arg[0], None)


@ffi.def_extern(error=-errno.ECONNABORTED)
def securdma_on_message(conn: Any, data: Any, length: int, reason: Any, client_arg: Any, arg: Any) -> int:
    return ffi.from_handle(arg).call("on_message", client_arg, reason, bytes(ffi.buffer(data, length)))


@ffi.def_extern(error=-errno.ECONNABORTED)
def securdma_on_control(conn: Any, data: Any, length: int, reason: Any, client_arg: Any, arg: Any) -> int:
    return ffi.from_handle(arg).call("on_control", client_arg, reason, bytes(ffi.buffer(data, length)))


@ffi.def_extern(error=-errno.ECONNABORTED)
def securdma_on_notice(conn: Any, notice: Any, reason: Any, client_arg: Any, arg: Any) -> int:
    return ffi.from_handle(arg).call("on_notice", client_arg, reason, report(notice))


@ffi.def_extern(error=-errno.ECONNABORTED)
def securdma_on_regions(conn: Any, reason: Any, client_arg: Any, arg: Any) -> int:
    return ffi.from_handle(arg).call("on_regions", client_arg, reason)


@ffi.def_extern(error=-errno.ECONNABORTED)
def securdma_on_wake(conn: Any, reason: Any, client_arg: Any, arg: Any) -> int:
    return ffi.from_handle(arg).call("on_wake", client_arg, reason)


@ffi.def_extern(error=-errno.ECONNABORTED)
def securdma_on_complete(conn: Any, cookie: int, reason: Any, client_arg: Any, arg: Any) -> int:
    client = ffi.from_handle(client_arg)
    # It comes again with the same number after -EAGAIN: the buffer may go only when it is taken.
    taken = client._posted.get(cookie, (None, None))
    result = ffi.from_handle(arg).call("on_complete", client_arg, reason, taken[1])
    if result != -errno.EAGAIN:
        client._completed(cookie)
    return result


if hasattr(lib, "securdma_on_stream"):
    @ffi.def_extern(error=-errno.ECONNABORTED)
    def securdma_on_stream(conn: Any, stream: Any, reason: Any, client_arg: Any, arg: Any) -> int:
        return ffi.from_handle(arg).call("on_stream", client_arg, reason, ffi.from_handle(client_arg)._stream)


@ffi.def_extern()
def securdma_on_disconnect(conn: Any, status: int, client_arg: Any, arg: Any) -> None:
    state = ffi.from_handle(arg)
    if not client_arg:  # it was lost before its worker had it
        return
    error = failed(status) if status else None
    state.call("on_disconnect", client_arg, None, error)
    client = ffi.from_handle(client_arg)
    client._end()
    state.clients.pop(client, None)


class _Running:
    """A server of the library, its users, and its end."""

    def __init__(self, pointer: Any, state: _State, handle: Any, device: Device) -> None:
        self.pointer, self.state, self.handle, self.device = pointer, state, handle, device
        self.users, self.changed = 0, threading.Condition()

    @contextmanager
    def using(self) -> Iterator[Any]:
        with self.changed:
            if self.pointer is None:
                raise failed(-errno.EBADF, "the server was stopped")
            self.users += 1
        try:
            yield self.pointer
        finally:
            with self.changed:
                self.users -= 1
                self.changed.notify_all()

    def stop(self) -> int:
        if self.state in getattr(_inside, "states", []):
            raise failed(-errno.EBUSY, "a handler cannot stop its own server: let another thread do it")
        with self.changed:
            while self.users:
                self.changed.wait()
            pointer, self.pointer = self.pointer, None
        if pointer is None:
            return 0
        _servers.discard(self)
        return patiently(lambda: lib.srdma_server_stop(ffi.new("struct srdma_server **", pointer)))


# They must have stopped before the interpreter ends, because their threads run Python.
_servers: set[_Running] = set()


def _forked() -> None:
    """A process that was forked has no server, because it has none of the threads."""
    for running in _servers:
        running.pointer = None
        running.changed = threading.Condition()
    _servers.clear()


os.register_at_fork(after_in_child=_forked)


@atexit.register
def _stop_all() -> None:
    for running in list(_servers):
        running.stop()


def _stop_forgotten(running: _Running) -> None:
    """The garbage collector calls it in any thread, at any moment, also in a handler of this server: another thread has to wait."""
    if running.pointer is not None:
        with suppress(RuntimeError):  # the interpreter is ending: it stops all servers
            threading.Thread(target=running.stop, name="securdma stop").start()


def _options(functions: dict[str, Any], given: Any, conn: Any, limits: Any) -> tuple[Options, _State, Any]:
    """The library's options, what its threads need, and what holds that."""
    clients = Options("conn_options", conn or {}, "srdma_server_conn_options_init")
    state = _State(functions, clients.struct.timeout_ms)
    handle = ffi.new_handle(state)
    called: dict[str, Any] = {"arg": handle}
    if set(functions) - {"on_admit"}:  # else the built-in echo service answers
        called |= {"on_connect": lib.securdma_on_connect, "on_disconnect": lib.securdma_on_disconnect}
        called |= {name: getattr(lib, f"securdma_{name}") for name in functions if name != "on_admit" and hasattr(lib, f"securdma_{name}")}
    if "on_admit" in functions:
        called["on_admit"] = lib.securdma_admit_fn
    options = Options("server_options", {**given, **called, "conn": clients, **({"limits": limits} if limits is not None else {})})
    return options, state, handle


def _check_handlers(handlers: Any, known: Any) -> None:
    """A handler with a misspelled name would be silent, and a server without any is an echo server."""
    names = [name for name in dir(handlers) if name.startswith("on_")] if handlers is not None else []
    for name in names:
        if name not in known:
            raise TypeError(f"{type(handlers).__name__}.{name} is no handler of a server; handlers are {', '.join(sorted(known))}")
    if handlers is not None and not names:
        raise TypeError(f"{type(handlers).__name__} has no handler of a server: {', '.join(sorted(known))}")


class Server:
    """A running server. Thread-safe.

    tls        its credentials, and which clients it accepts
    device     None: the first one with an active port
    handlers   an object with some of the methods of Handlers; on_message=function and the like do as well. Without any but on_admit, the
               built-in echo service answers
    conn       options of each client's connection, a dict; see ConnOptions. The default region has 65536 bytes
    limits     which clients may come, a dict; see ServerLimits
    options    address, port ("0": any free one), workers, drain_timeout_ms and the others of ServerOptions

    As a context manager it stops at the end of the block. A server that the program forgets is stopped, too, at the latest at its end.
    """

    @errors_of("srdma_server_start")
    def __init__(self, tls: TlsServer, device: Device | None = None, handlers: Any = None, *, conn: ConnOptions | None = None,
                 limits: ServerLimits | None = None, on_connect: Callable[[ServerConn], Any] | None = None,
                 on_message: Callable[[ServerConn, bytes], Any] | None = None, on_disconnect: Callable[[ServerConn, Error | None], Any] | None = None,
                 on_admit: Admit | None = None, on_control: Callable[[ServerConn, bytes], Any] | None = None,
                 on_wake: Callable[[ServerConn], Any] | None = None, on_complete: Callable[[ServerConn, Any], Any] | None = None,
                 on_stream: Callable[[ServerConn, Any], Any] | None = None, on_notice: Callable[[ServerConn, Notice], Any] | None = None,
                 on_regions: Callable[[ServerConn], Any] | None = None,
                 **options: Unpack[ServerOptions]) -> None:
        device = device or default_device()
        functions = {"on_connect": on_connect, "on_message": on_message, "on_disconnect": on_disconnect, "on_admit": on_admit,
                     "on_control": on_control, "on_wake": on_wake, "on_complete": on_complete, "on_stream": on_stream,
                     "on_notice": on_notice, "on_regions": on_regions}
        _check_handlers(handlers, functions)
        functions = {name: function or getattr(handlers, name, None) for name, function in functions.items()}
        filled, state, handle = _options({name: function for name, function in functions.items() if function}, options, conn, limits)
        out = ffi.new("struct srdma_server **")
        with tls._using() as context, device._using() as opened:
            def stop(_: Any, kept: Any = (handle, tls, device)) -> None:
                lib.srdma_server_stop(out)

            # The look-up of a name waits.
            patiently(lambda: check(lib.srdma_server_start(filled.struct, context, opened, out)), stop)
        self._running = _Running(out[0], state, handle, device)
        _servers.add(self._running)
        weakref.finalize(self, _stop_forgotten, self._running).atexit = False

    def stop(self) -> int:
        """Disconnects every client in order, within drain_timeout_ms, and ends the server's threads.

        Returns the number of clients that did not end in order. Another call does nothing and returns 0. Busy: a handler of this server
        calls it.
        """
        return self._running.stop()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port that the server listens on; with several sockets, the first one's."""
        with self._running.using() as server:
            return lib.srdma_server_port(server)

    @property
    def addresses(self) -> list[str]:
        """The addresses of the listening sockets, "10.0.0.1:4433"; "*:4433" for all addresses."""
        found: list[str] = []
        text = ffi.new("char[80]")
        with self._running.using() as server:
            while lib.srdma_server_address(server, len(found), text, len(text)) == 0:
                found.append(string(text) or "")
        return found

    @property
    def status(self) -> ServerStatus:
        status = ffi.new("struct srdma_server_status *")
        with self._running.using() as server:
            lib.srdma_server_get_status(server, status)
        return report(status)

    @errors_of("srdma_server_get_metrics")
    def metrics(self) -> ServerMetrics:
        """A snapshot of what the server has done since its start."""
        out = ffi.new("struct srdma_server_metrics **")
        with self._running.using() as server:
            check(lib.srdma_server_get_metrics(server, out))
        try:
            return report(out[0])
        finally:
            lib.srdma_server_metrics_free(out)

    @errors_of("srdma_server_each")
    def clients(self) -> list[ConnInfo]:
        """What is known of each connected client."""
        infos, count = ffi.new("struct srdma_conn_info **"), ffi.new("size_t *")
        with self._running.using() as server:
            check(lib.securdma_server_clients(server, infos, count))
        try:
            return [report(infos[0] + i) for i in range(count[0])]
        finally:
            lib.securdma_release(infos[0])

    def fileno(self) -> int:
        """Readable when status has changed in a way that needs the program: device_failed or drained."""
        with self._running.using() as server:
            return lib.srdma_server_event_fd(server)

    @errors_of("srdma_server_set_tls")
    def set_tls(self, tls: TlsServer) -> None:
        """Gives the server other certificates, for clients that come from now on."""
        with self._running.using() as server, tls._using() as context:
            check(lib.srdma_server_set_tls(server, context))

    @errors_of("srdma_server_set_limits")
    def set_limits(self, **limits: Unpack[ServerLimits]) -> None:
        """Replaces all limits, or, when it fails, none: what is not given gets its default."""
        filled = Options("server_limits", limits)
        with self._running.using() as server:
            check(lib.srdma_server_set_limits(server, filled.struct))

    @errors_of("srdma_server_kick")
    def kick(self, client_id: int, reason: str | None = None) -> None:
        """Disconnects one client, by info.client_id, in order. It returns at once."""
        with self._running.using() as server:
            check(lib.srdma_server_kick(server, client_id, c_string(reason)))

    @errors_of("srdma_server_drain")
    def drain(self, timeout: float = 0) -> None:
        """Takes no new clients from now on. When the last one has gone, or after `timeout` seconds, status.drained is set and fileno()
        is readable. It returns at once."""
        with self._running.using() as server:
            check(lib.srdma_server_drain(server, int(timeout * 1000)))

    def __repr__(self) -> str:
        return f"<securdma.Server{', stopped' if self._running.pointer is None else ''}>"


def check_identity_name(name: str) -> None:
    """Checks whether an identity, in the limits of a server, can have this name: InvalidArgument, whose text says why not."""
    check(lib.srdma_identity_check_name(c_string(name)))


def histogram_bound(bucket: int) -> int:
    """The bound of a bucket of the histograms in Server.metrics(), microseconds; 2**64 - 1 for the last bucket and beyond."""
    return lib.srdma_histogram_bound(bucket)


def check_server(device: Device | None = None, *, conn: ConnOptions | None = None, limits: ServerLimits | None = None,
                 **options: Unpack[ServerOptions]) -> list[Check]:
    """Checks what the start of a server checks, but for the port. Without a device it leaves out what depends on it. Returns one finding
    for each thing."""
    filled, _, _ = _options({}, options, conn, limits)
    if device is None:
        return checked(lib.srdma_server_check, filled.struct, ffi.NULL)
    with device._using() as opened:
        return checked(lib.srdma_server_check, filled.struct, opened)
