# SPDX-License-Identifier: Apache-2.0
"""The exceptions: one for each kind of error that a program may want to tell from the others."""
from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import TypeVar

from ._binding import ffi, lib
from ._convert import report
from ._types import ERRORS, ErrorCode, LinkLoss, Reject, RejectReason


class Error(OSError):
    """A call of the library failed.

    code   the library's error, negative: an errno such as -ETIMEDOUT, or an ErrorCode
    text   a sentence: what failed, on what, and what to do about it
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(-code, text)
        self.code = ErrorCode(code) if code in ErrorCode._value2member_map_ else code
        self.text = text

    def __str__(self) -> str:
        return f"{self.text} [{self.name}]"

    def __reduce__(self) -> tuple[object, ...]:  # to another process
        return type(self), (int(self.code), self.text), self.__dict__

    @property
    def name(self) -> str:
        """The name of the code, such as "ETIMEDOUT" or "ELOST"."""
        return self.code.name if isinstance(self.code, ErrorCode) else errno.errorcode.get(-self.code, str(self.code))


class Timeout(Error, TimeoutError):
    """-ETIMEDOUT: it was not done in time."""


class WouldBlock(Error, BlockingIOError):
    """-EAGAIN: the timeout is 0, and the call would have to wait."""


class Interrupted(Error, InterruptedError):
    """-EINTR: another thread called wake()."""


class Cancelled(Error):
    """-ECANCELED: the server is stopped, and its drain time is over."""


class InvalidArgument(Error, ValueError):
    """-EINVAL: an argument or an option cannot be."""


class TooLong(Error):
    """-EMSGSIZE: a message is too long, or the buffer for it too small. `needed` is then the size that the message needs."""

    needed: int | None = None


class OutOfRange(Error):
    """-ERANGE: the bytes are outside of the buffer or of the peer's region."""


class NotSupported(Error):
    """-EOPNOTSUPP: the two ends did not agree on it, or the connection is raw."""


class NotFound(Error, FileNotFoundError):
    """-ENOENT: a file does not exist, or the peer showed no certificate."""


class Exists(Error, FileExistsError):
    """-EEXIST: a file exists that must not be replaced."""


class Denied(Error, PermissionError):
    """-EACCES: the process may not do it, or the peer's region does not allow it."""


class Refused(Error, ConnectionRefusedError):
    """-ECONNREFUSED: nothing listens there."""


class BrokenPipe(Error, BrokenPipeError):
    """-EPIPE: this end has said that it writes no more."""


class Reset(Error, ConnectionResetError):
    """-ECONNRESET: the peer aborted the stream. The text has its reason."""


class Aborted(Error, ConnectionAbortedError):
    """-ECONNABORTED: this end aborted the stream, or the server's program ended the client."""


class RandomError(Error):
    """SRDMA_ERANDOM: the random generator failed; nothing was sent."""


class TlsError(Error, ConnectionError):
    """SRDMA_ETLS: the TLS handshake or the TLS channel failed."""


class CertificateError(Error):
    """SRDMA_ECERT: one end did not accept the other's certificate."""


class ProtocolError(Error, ConnectionError):
    """SRDMA_EPROTOCOL: the peer broke the protocol."""


class Rejected(Error):
    """SRDMA_EREJECTED: the server turned this client away. `reject` says why."""

    reject: Reject

    @property
    def reason(self) -> RejectReason:
        return self.reject.reason


class VerbsError(Error):
    """SRDMA_EVERBS: the device failed."""


class Lost(Error, ConnectionError):
    """SRDMA_ELOST: the peer went away without a disconnect."""


class Closed(Error, ConnectionError):
    """SRDMA_ECLOSED: one of the two ends disconnected the connection in order."""


class ConfigError(Error):
    """SRDMA_ECONFIG: certificates, keys or settings do not fit together."""


class SealError(Error, ConnectionError):
    """SRDMA_ESEAL: a sealed record did not authenticate."""


class Reconnected(Error):
    """SRDMA_ERECONNECTED, not a failure: a link lost its connection and has a new one. `loss` says what this means for its messages."""

    loss: LinkLoss


class WrongKind(Error):
    """-ENOMSG: a notice is next where a message was asked for, or a message where a notice was."""


class Gone(Error, ValueError):
    """-EBADF: this program has closed the object, or it is of a client of a server that has gone."""


class Busy(Error):
    """-EBUSY: another thread uses the object, or it is used from within one of its own calls."""


_classes: dict[int, type[Error]] = {
    -errno.ETIMEDOUT: Timeout, -errno.EAGAIN: WouldBlock, -errno.EINTR: Interrupted, -errno.ECANCELED: Cancelled, -errno.EINVAL: InvalidArgument,
    -errno.EMSGSIZE: TooLong, -errno.ERANGE: OutOfRange, -errno.EOPNOTSUPP: NotSupported, -errno.ENOENT: NotFound, -errno.EEXIST: Exists,
    -errno.EACCES: Denied, -errno.ECONNREFUSED: Refused, -errno.EBADF: Gone, -errno.EBUSY: Busy, -errno.EPIPE: BrokenPipe, -errno.ECONNRESET: Reset, -errno.ECONNABORTED: Aborted, -errno.ENOMSG: WrongKind,
    ErrorCode.ERANDOM: RandomError, ErrorCode.ETLS: TlsError, ErrorCode.ECERT: CertificateError, ErrorCode.EPROTOCOL: ProtocolError,
    ErrorCode.EREJECTED: Rejected, ErrorCode.EVERBS: VerbsError, ErrorCode.ELOST: Lost, ErrorCode.ECLOSED: Closed, ErrorCode.ECONFIG: ConfigError,
    ErrorCode.ESEAL: SealError, ErrorCode.ERECONNECTED: Reconnected}


def failed(code: int, text: str | None = None) -> Error:
    """The exception for an error that the library returned to this thread just now."""
    if text is None:
        text = ffi.string(lib.srdma_error_text()).decode(errors="replace") or os.strerror(-code)
    error = _classes.get(code, Error)(code, text)
    if isinstance(error, Rejected):
        reject = ffi.new("struct srdma_reject *")
        lib.srdma_reject_last(reject)
        error.reject = report(reject)
    return error


def check(code: int) -> int:
    """Returns what the library returned, unless that is an error, which becomes an exception."""
    if code < 0:
        raise failed(code)
    return code


_Function = TypeVar("_Function", bound=Callable)


def errors_of(function: str) -> Callable[[_Function], _Function]:
    """Adds to the documentation of a method the errors that the headers list for the function that it calls."""
    def add(method: _Function) -> _Function:
        lines = []
        for line in ERRORS.get(function, ()):
            codes = re.match(r"((?:-E[A-Z0-9]+|SRDMA_E[A-Z]+)(?:, )?)+(?=:)", line)
            names = [_name_of(code) for code in codes[0].split(", ")] if codes else []
            lines.append(f"    {', '.join(names)} {line}" if names else f"    {line}")
        method.__doc__ = "\n\n".join(filter(None, (method.__doc__, "\n".join([f"Errors of {function}(3):", *lines]))))
        return method

    return add


def _name_of(code: str) -> str:
    number = -getattr(errno, code[1:], 0) if code.startswith("-") else getattr(lib, code)
    return _classes.get(number, Error).__name__
