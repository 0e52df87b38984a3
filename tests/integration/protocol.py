# SPDX-License-Identifier: Apache-2.0
"""What the tests say to either end over a plain TLS socket, valid or not, with the frames of tests/peer."""
import os
import socket
import ssl
import sys
import struct
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))
import channel  # noqa: E402
import frames  # noqa: E402
import session  # noqa: E402, F401

ALPN, VERSION, ETHERNET = channel.ALPN, frames.VERSION, frames.ETHERNET
frame, gid = frames.frame, frames.gid_of

HELLO, WELCOME, REJECT, READY, DISCONNECT, DISCONNECT_ACK, FINISH = list(frames.Type)[:7]
REASONS = {reason.name.lower(): int(reason) for reason in frames.Reason}


def hello(kind=HELLO, version=VERSION, **fields):
    default = {"gid": bytes(16), "qpn": 0x123456, "psn": 0x2807D5, "features": frames.MESSAGES, "client_id": 0}
    return frames.CLASSES[kind](**{**default, **fields}).encode(version=version)


def reject(reason, retry_after_ms=0, text=b""):
    return frames.Reject(reason, retry_after_ms, text).encode()


def disconnect(kind, messages=0, text=b""):
    return frames.CLASSES[kind](messages, text).encode()


# ---- TLS by hand ----

X25519, P384, FFDHE2048, FFDHE8192, UNKNOWN = 29, 24, 256, 260, 0xFAFA
# The generators, which are points, and anything of the right size.
SHARES = {X25519: bytes([9]) + bytes(31),
          P384: bytes.fromhex("04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7"
                              "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f"),
          FFDHE2048: b"\1" + bytes(range(255)), FFDHE8192: b"\1" + bytes(range(255)) * 4 + b"\1\2\3", UNKNOWN: b"x"}


def some_groups(count):
    return [0x4000 + i % 0x3000 for i in range(count)]


def client_hello(group, groups=(), count=1, padding=0):
    """A ClientHello of TLS 1.3, in records, with `count` shares of a group, and the groups that it names besides."""
    def extension(kind, body):
        return struct.pack("!HH", kind, len(body)) + body

    names = [*groups, group]
    shares = (struct.pack("!HH", group, len(SHARES[group])) + SHARES[group]) * count
    body = (extension(10, struct.pack(f"!H{len(names)}H", 2 * len(names), *names)) + extension(13, struct.pack("!HHH", 4, 0x0403, 0x0804)) +
            extension(51, struct.pack("!H", len(shares)) + shares) + extension(43, b"\2\3\4") +
            extension(16, b"\0\x0b\x0a" + ALPN.encode()) + (extension(21, bytes(padding)) if padding else b""))
    body = b"\3\3" + os.urandom(32) + b"\0" + b"\0\2\x13\2" + b"\1\0" + struct.pack("!H", len(body)) + body
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"".join(b"\x16\3\1" + struct.pack("!H", len(part)) + part for part in (message[i:i + 16384] for i in range(0, len(message), 16384)))


# ---- frames over TLS ----


def read_exactly(sock, length):
    data = b""
    while len(data) < length:
        part = sock.recv(length - len(data))
        if not part:
            raise EOFError(f"end of the channel after {len(data)} of {length} bytes")
        data += part
    return data


def read_frame(sock):
    """(type, version, decoded body): a dict for the messages with fields, bytes for what is unknown."""
    length, version, kind = frames.HEADER.unpack(read_exactly(sock, frames.HEADER.size))
    body = read_exactly(sock, length)
    if kind not in (HELLO, WELCOME, REJECT, DISCONNECT, DISCONNECT_ACK):
        return kind, version, body
    fields = vars(frames.decode(kind, body))
    return kind, version, {name: value.decode() if name == "text" else value for name, value in fields.items()}


def client_context(certs, cert="client", ca="ca", alpn=(ALPN,)):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certs.cert(ca))
    if cert:
        context.load_cert_chain(certs.cert(cert), certs.key(cert))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def open_tls(certs, port, timeout, context=None, host=None):
    """A TLS channel to the server. Nothing is said on it yet."""
    host = host or certs.host
    sock = socket.create_connection((host, port), timeout)
    try:
        return (context or client_context(certs)).wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def welcomed(certs, server, timeout, **fields):
    """A TLS channel after WELCOME. Its queue pair does not exist, which the server cannot know."""
    tls = open_tls(certs, server.port, timeout)
    tls.sendall(hello(gid=gid(certs.host), **fields))
    kind, _, body = read_frame(tls)
    assert kind == WELCOME, body
    return tls


def connected(certs, server, timeout):
    """The same after READY."""
    tls = welcomed(certs, server, timeout)
    tls.sendall(frame(READY))
    return tls


class FakeServer:
    """A TLS server whose `behave(channel)` answers each client; for clients that must not be fooled by it."""

    def __init__(self, certs, behave, cert="server", timeout=30, alpn=(ALPN,), maximum=None):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certs.cert(cert), certs.key(cert))
        if alpn:
            self.context.set_alpn_protocols(list(alpn))
        if maximum:
            self.context.maximum_version = maximum
        self.behave, self.timeout = behave, timeout
        self.listener = socket.create_server((certs.host, 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(self.timeout)
            try:
                with self.context.wrap_socket(sock, server_side=True) as channel:
                    self.behave(channel)
            except (OSError, EOFError, ssl.SSLError):
                # The client does not like what it gets: that is what the test is about, and asserts on the client.
                sock.close()

    def close(self):
        # Only shutdown wakes a thread that is in accept.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
