# SPDX-License-Identifier: Apache-2.0
"""The exchange of docs/PROTOCOL.md once more, in Python: what the tests say to either end, valid or not."""
import socket
import ssl
import struct
import threading

ALPN = "securdma/1"
VERSION = 1
HELLO, WELCOME, REJECT, READY, DISCONNECT, DISCONNECT_ACK, FINISH = range(1, 8)
REASONS = {"version": 1, "malformed": 2, "full": 3, "address": 4, "feature": 5, "resources": 6, "draining": 7, "refused": 8}
ETHERNET = 2

LAYOUT = (  # name, struct code, default
    ("link_layer", "B", ETHERNET),
    ("path_mtu", "B", 3),
    ("lid", "H", 0),
    ("gid", "16s", bytes(16)),
    ("qpn", "I", 0x123456),
    ("psn", "I", 0x2807D5),
    ("features", "I", 1),
    ("message_size", "I", 4096),
    ("depth", "H", 16),
    ("rd_initiator", "B", 16),
    ("rd_responder", "B", 16),
    ("region_address", "Q", 0),
    ("region_size", "Q", 0),
    ("region_rkey", "I", 0),
    ("region_access", "I", 0),
    ("client_id", "Q", 0),
    ("reserved", "Q", 0),
)
BODY = struct.Struct("!" + "".join(code for _, code, _ in LAYOUT))
assert BODY.size == 80


def gid(address):
    """The GID of an address; IPv4 is mapped."""
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, address)


def frame(kind, body=b"", version=VERSION, length=None):
    return struct.pack("!HBB", len(body) if length is None else length, version, kind) + body


def hello(kind=HELLO, version=VERSION, **fields):
    unknown = set(fields) - {name for name, _, _ in LAYOUT}
    assert not unknown, unknown
    return frame(kind, BODY.pack(*(fields.get(name, default) for name, _, default in LAYOUT)), version)


def reject(reason, retry_after_ms=0, text=b""):
    return frame(REJECT, struct.pack("!HHIB", reason, 0, retry_after_ms, len(text)) + text)


def disconnect(kind, messages=0, text=b""):
    return frame(kind, struct.pack("!QB", messages, len(text)) + text)


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
    length, version, kind = struct.unpack("!HBB", read_exactly(sock, 4))
    body = read_exactly(sock, length)
    if kind in (HELLO, WELCOME):
        return kind, version, dict(zip((name for name, _, _ in LAYOUT), BODY.unpack(body)))
    if kind == REJECT:
        reason, _, retry, size = struct.unpack("!HHIB", body[:9])
        assert len(body) == 9 + size
        return kind, version, {"reason": reason, "retry_after_ms": retry, "text": body[9:].decode()}
    if kind in (DISCONNECT, DISCONNECT_ACK):
        messages, size = struct.unpack("!QB", body[:9])
        assert len(body) == 9 + size
        return kind, version, {"messages": messages, "text": body[9:].decode()}
    return kind, version, body


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
