# SPDX-License-Identifier: Apache-2.0
"""What the tests say to either end over a plain TLS socket, valid or not, with the frames of tests/peer."""
import os
import socket
import ssl
import sys
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
