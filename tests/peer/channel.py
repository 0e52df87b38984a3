# SPDX-License-Identifier: Apache-2.0
"""The TLS channel of docs/PROTOCOL.md: frames that are sent, frames that come, and how the channel ends."""
import socket
import ssl
import time

import frames

ALPN = "securdma/1"
READ_SIZE = 1 << 14


class Ended(Exception):
    """The channel ended where a frame was awaited. `how`: "close_notify", "eof", "reset", or "alert NAME"."""

    def __init__(self, how):
        super().__init__(f"the channel ended: {how}")
        self.how = how


def context(role, certificate=None, key=None, ca=None, alpn=ALPN, tls12=False):
    """A TLS context as the document wants it; `role` is "client" or "server"."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER)
    ctx.minimum_version = ssl.TLSVersion.TLSv1_2 if tls12 else ssl.TLSVersion.TLSv1_3
    ctx.maximum_version = ssl.TLSVersion.TLSv1_2 if tls12 else ssl.TLSVersion.TLSv1_3
    ctx.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if role == "server":
        ctx.num_tickets = 0
        ctx.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    if certificate:
        ctx.load_cert_chain(certificate, key)
    if ca:
        ctx.load_verify_locations(ca)
    if alpn:
        ctx.set_alpn_protocols([alpn])
    return ctx


class Channel:
    """Frames over one TLS connection. Every call has a deadline of `timeout` seconds."""

    def __init__(self, tls, timeout):
        self.tls, self.timeout = tls, timeout
        self.waiting = b""
        self.tls.settimeout(timeout)
        self.tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    def connect(cls, host, port, ctx, name=None, timeout=30):
        plain = socket.create_connection((host, port), timeout=timeout)
        return cls._wrap(ctx, plain, timeout, server_hostname=name or host)

    @classmethod
    def accept(cls, listener, ctx, timeout=30):
        listener.settimeout(timeout)
        plain, _ = listener.accept()
        plain.settimeout(timeout)
        return cls._wrap(ctx, plain, timeout, server_side=True)

    @classmethod
    def _wrap(cls, ctx, plain, timeout, **more):
        try:
            tls = ctx.wrap_socket(plain, suppress_ragged_eofs=False, **more)
        except BaseException:
            plain.close()
            raise
        channel = cls(tls, timeout)
        if tls.selected_alpn_protocol() != ALPN:
            channel.abort()
            raise frames.Breach(f"the other end did not agree to the protocol {ALPN}")
        return channel

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.abort()

    # ---- sending ----

    def send_bytes(self, data):
        """Sends bytes as they are, in one TLS record if they are short."""
        self.tls.sendall(data)

    def send_frame(self, frame, body=None, **header):
        """Sends a frame object, or a frame of this type and body; `version` and `length` replace what its header says."""
        self.send_bytes(frames.frame(frame, body or b"", **header) if isinstance(frame, int) else frame.encode(**header))

    def send_slowly(self, frame):
        """Sends a frame with each byte in a TLS record of its own."""
        for byte in frame.encode():
            self.send_bytes(bytes([byte]))

    # ---- receiving ----

    def _read(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no frame within the deadline")
        self.tls.settimeout(left)
        try:
            data = self.tls.recv(READ_SIZE)
        except ssl.SSLZeroReturnError:
            data = b""
        except ssl.SSLEOFError:
            raise Ended("eof") from None
        except ssl.SSLError as error:
            raise Ended("alert " + (error.reason or str(error)).lower()) from None
        except (ConnectionResetError, BrokenPipeError):
            raise Ended("reset") from None
        finally:
            self.tls.settimeout(self.timeout)
        if not data:
            raise Ended("close_notify" if not self.waiting else "close_notify within a frame")
        self.waiting += data

    def receive_raw(self, timeout=None):
        """The next frame as (version, type, body), whatever it is. Raises Ended or TimeoutError."""
        deadline = time.monotonic() + (timeout or self.timeout)
        size = frames.HEADER.size
        while len(self.waiting) < size:
            self._read(deadline)
        length, version, kind = frames.HEADER.unpack_from(self.waiting)
        frames.demand(length <= frames.BODY_MAX, f"a frame with a body of {length} bytes")
        while len(self.waiting) < size + length:
            self._read(deadline)
        body, self.waiting = self.waiting[size:size + length], self.waiting[size + length:]
        return version, kind, body

    def receive_frame(self, *expected, timeout=None):
        """The next frame as an object. With `expected` classes: any other one is a breach."""
        version, kind, body = self.receive_raw(timeout)
        # A REJECT has the same layout in all versions, and bears the server's own.
        frames.demand(version == frames.VERSION or kind == frames.Type.REJECT, f"a frame of version {version}")
        frame = frames.decode(kind, body)
        if expected and not isinstance(frame, expected):
            raise frames.Breach(f"{frame} instead of {' or '.join(cls.__name__ for cls in expected)}")
        return frame

    def wait_end(self, timeout=None):
        """Waits until the other end has ended the channel, which sends no more frames. Returns how it ended."""
        try:
            frame = self.receive_frame(timeout=timeout)
        except Ended as ended:
            return ended.how
        raise frames.Breach(f"{frame} where the channel should end")

    # ---- ending ----

    def end(self):
        """Sends close_notify, and goes on receiving."""
        self.tls.settimeout(0)
        try:
            self.tls.unwrap()
        except (ssl.SSLError, OSError, ValueError):
            pass  # it was sent, and the other end's has not come yet
        finally:
            self.tls.settimeout(self.timeout)

    def cut(self):
        """Ends the own direction of the TCP connection without close_notify, and goes on receiving."""
        socket.socket.shutdown(self.tls, socket.SHUT_WR)

    def close(self):
        """Ends the channel in order: sends close_notify, and waits for the other end's."""
        try:
            self.tls.unwrap()
        except (OSError, ValueError):
            pass
        self.abort()

    def abort(self):
        """Ends the TCP connection without a word over TLS."""
        self.tls.close()
