# SPDX-License-Identifier: Apache-2.0
"""The library's log in Python's.

The library writes its log to standard error, from warnings up, until log_to() is called. Records cross a socket, since the thread that
logs may hold a lock of the library, and must never wait for Python.
"""
from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
from contextlib import suppress

from ._binding import lib
from ._types import LogLevel

#: The package's own logger: exceptions in handlers of a server go there, whether log_to() was called or not.
logger = logging.getLogger("securdma")

_levels: dict[int, int] = {LogLevel.ERROR: logging.ERROR, LogLevel.WARN: logging.WARNING, LogLevel.INFO: logging.INFO, LogLevel.DEBUG: logging.DEBUG}
_is_set = False


def log_to(target: logging.Logger = logger, level: LogLevel | str = LogLevel.INFO) -> None:
    """Sends the library's records up to `level` ("error", "warn", "info", "debug") to a logger of Python's. Call it once, before other
    threads use the library.

    Each record has the attributes event (a stable name such as "client.connected"), security (someone tried something that is not
    allowed) and fields (a dict of facts, all as strings). securdma-serve(1) lists the events of a server. Records that come faster than
    the logger takes them are lost.
    """
    global _is_set
    if _is_set:
        raise RuntimeError("log_to() was called before")
    number = LogLevel[level.upper()] if isinstance(level, str) else level
    from_library, records = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=_pass_on, args=(records, target), name="securdma log", daemon=True)
    thread.start()
    descriptor = from_library.detach()  # the library's until the process ends
    lib.securdma_log_to_socket(number, descriptor)
    _is_set = True
    atexit.register(_finish, descriptor, thread)


def _pass_on(records: socket.socket, target: logging.Logger) -> None:
    with records:
        while True:
            level, _, rest = records.recv(1 << 16).partition(b"\0")
            if level == b"end":
                return
            security, event, text, *facts = (word.decode(errors="replace") for word in rest.split(b"\0")[:-1])
            fields = dict(zip(facts[::2], facts[1::2]))
            target.log(_levels.get(int(level), logging.INFO), "%s", text,
                       extra={"event": event, "security": security == "1", "fields": fields})


def _finish(descriptor: int, thread: threading.Thread) -> None:
    """What has been logged until the program's end is passed on."""
    os.set_blocking(descriptor, False)
    with suppress(OSError):
        os.write(descriptor, b"end\0")
        thread.join(1)
