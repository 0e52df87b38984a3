# SPDX-License-Identifier: Apache-2.0
"""What the tests of the agent speak: a program's part (agent/local.h) over the Unix socket, and another agent's part over TLS."""
import os
import socket
import ssl
import struct

from conftest import STEP

MAGIC, VERSION = 0x53574150, 1
HELLO, DEVICE, REGISTER, CONNECT, FORGET, ADDRESS, EVENT, RESTORE, WELCOME, ANSWER, REVOKE = 1, 2, 3, 4, 5, 6, 7, 8, 64, 65, 66
ENFORCE, OBSERVE = 1, 2
RC, UC = 2, 3
ETHERNET, INFINIBAND = 2, 1
HEADER = struct.Struct("=IHHII")
NAME = 64


def gid(address):
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, address)


def text(raw):
    return raw.partition(b"\0")[0].decode()


def packet(kind, request, form, *values, version=VERSION, length=None):
    body = struct.pack("=" + form, *values)
    return HEADER.pack(MAGIC, version, kind, HEADER.size + len(body) if length is None else length, request) + body


class Refused(Exception):
    def __init__(self, error, why):
        super().__init__(f"{os.strerror(error)}: {why}")
        self.error, self.why = error, why


class Answer:
    def __init__(self, body):
        self.status, self.observed, self.vouched, self.psn, peer, encryption, why = struct.unpack("=IIII64s64s512s", body)
        self.peer, self.encryption, self.text = text(peer), text(encryption), text(why)


class Program:
    """A program's library at the agent's socket."""

    def __init__(self, path, mode=ENFORCE, require_encryption=0, name="test", greet=True):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(STEP)
        self.socket.connect(str(path))
        self.request, self.answers, self.revoked = 0, {}, []
        if greet:
            self.send(HELLO, "II64s", mode, require_encryption, name.encode())
            status, body = self._next(WELCOME)
            self.mode, self.require_encryption, status, agent, why = struct.unpack("=III64s512s", body)
            self.agent = text(agent)
            if status:
                raise Refused(status, text(why))

    def send(self, kind, form, *values, **more):
        self.request += 1
        self.socket.send(packet(kind, self.request, form, *values, **more))
        return self.request

    def _next(self, wanted=None):
        data = self.socket.recv(4096)
        if not data:
            raise EOFError("the agent closed the socket")
        magic, version, kind, length, request = HEADER.unpack_from(data)
        assert (magic, version, length) == (MAGIC, VERSION, len(data))
        assert wanted in (None, kind), (wanted, kind)
        return kind if wanted is None else request, data[HEADER.size:] if wanted is not None else data

    def receive(self):
        """Takes one packet: an answer, or a revocation."""
        kind, data = self._next()
        body = data[HEADER.size:]
        if kind == REVOKE:
            device, qpn, psn, why = struct.unpack("=64sII512s", body)
            self.revoked.append((text(device), qpn, psn, text(why)))
        else:
            assert kind == ANSWER, kind
            self.answers[HEADER.unpack_from(data)[4]] = Answer(body)

    def answer(self, request):
        while request not in self.answers:
            self.receive()
        found = self.answers.pop(request)
        if found.status:
            raise Refused(found.status, found.text)
        return found

    def wait_revoked(self):
        while not self.revoked:
            self.receive()
        return self.revoked.pop(0)

    def device(self, *addresses, name="uroce0", port=1, kernel=0, link=ETHERNET, lid=0, gids=None):
        gids = [gid(address) for address in addresses] if gids is None else gids
        return self.answer(self.send(DEVICE, "64s6I1024s", name.encode(), port, link, lid, kernel, 0, len(gids), b"".join(gids)))

    def register(self, qpn, name="uroce0", port=1, kind=RC, wait=True):
        request = self.send(REGISTER, "64s8I16s16s", name.encode(), port, qpn, kind, 0, 0, 0, 0, 0, b"", b"")
        return self.answer(request).psn if wait else request

    def restore(self, qpn, psn, peer=None, name="uroce0", port=1, kind=RC, lid=0):
        """peer: (own address, the peer's address, its QPN, its PSN) of a queue pair that was connected."""
        own, other, peer_qpn, peer_psn = peer or ("::", "::", 0, 0)
        return self.answer(self.send(RESTORE, "64s8I16s16s", name.encode(), port, qpn, kind, psn, int(bool(peer)), peer_qpn, peer_psn, lid, gid(own), gid(other)))

    def forget(self, qpn, name="uroce0", port=1):
        self.send(FORGET, "64s8I16s16s", name.encode(), port, qpn, RC, 0, 0, 0, 0, 0, b"", b"")

    def ask(self, qpn, own, peer, peer_qpn, name="uroce0", port=1, lid=0, would_be=0):
        """Asks for a connection; answer() has the result."""
        peer_gid = peer if isinstance(peer, bytes) else gid(peer)
        own_gid = own if isinstance(own, bytes) else gid(own)
        return self.send(CONNECT, "64s6I16s16s", name.encode(), port, qpn, 0, peer_qpn, lid, would_be, own_gid, peer_gid)

    def connect(self, *args, **more):
        return self.answer(self.ask(*args, **more))

    def address(self, own, peer, name="uroce0", port=1):
        return self.answer(self.send(ADDRESS, "64sII16s16s", name.encode(), port, 0, gid(own), gid(peer)))

    def event(self, refused, what, why):
        self.send(EVENT, "I64s512s", refused, what.encode(), why.encode())

    def close(self):
        self.socket.close()


# ---- another host's agent ---------------------------------------------------------------------------------------------

P_HELLO, P_QUERY, P_ANSWER, P_REVOKE, P_RELEASE, P_PING, P_PONG = range(1, 8)
P_OK, P_UNKNOWN, P_TAKEN, P_DENIED, P_BUSY = range(5)
ALPN = "securdma-agent/1"


def frame(kind, body):
    return struct.pack(">BBH", kind, 0, len(body)) + body


def end(address, qpn, lid=0):
    return struct.pack(">16sHI", gid(address), lid, qpn)


def query(number, asker, asked, psn, kind=RC):
    return frame(P_QUERY, struct.pack(">I", number) + end(*asker) + end(*asked) + struct.pack(">IB", psn, kind))


def greeting(*addresses, version=1, instance=None):
    return frame(P_HELLO, struct.pack(">HH16s", version, len(addresses), instance or os.urandom(16)) + b"".join(map(gid, addresses)))


def context(certs, name, server=False, ca="ca"):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.load_verify_locations(certs.cert(ca))
    made.verify_mode = ssl.CERT_REQUIRED
    if name:
        made.load_cert_chain(certs.cert(name), certs.key(name))
    made.set_alpn_protocols([ALPN])
    return made


class Peer:
    """Another host's agent, that says what it is told to say."""

    def __init__(self, channel):
        self.channel = channel
        self.channel.settimeout(STEP)
        self.data = b""

    @classmethod
    def dial(cls, certs, name, address, port, **more):
        raw = socket.create_connection((address, port), timeout=STEP)
        return cls(context(certs, name, **more).wrap_socket(raw, server_hostname=address))

    def send(self, data):
        self.channel.sendall(data)

    def next(self):
        """The next frame: its type and its body; None: the other end has closed."""
        while len(self.data) < 4 or len(self.data) < 4 + struct.unpack(">H", self.data[2:4])[0]:
            more = self.channel.recv(65536)
            if not more:
                return None
            self.data += more
        length = struct.unpack(">H", self.data[2:4])[0]
        kind, body, self.data = self.data[0], self.data[4:4 + length], self.data[4 + length:]
        return kind, body

    def wait(self, kind):
        while True:
            found = self.next()
            assert found, "the session was closed"
            if found[0] == kind:
                return found[1]

    def greet(self, *addresses, **more):
        self.send(greeting(*addresses, **more))
        return self.wait(P_HELLO)

    def ask(self, number, asker, asked, psn=7, kind=RC):
        self.send(query(number, asker, asked, psn, kind))
        return self.answer(number)

    def answer(self, number):
        """(status, PSN, text) of an answer."""
        body = self.wait(P_ANSWER)
        found, status, psn = struct.unpack_from(">IBI", body)
        assert found == number
        return status, psn, body[9:].decode()

    def is_closed(self):
        """Waits for the end of the session."""
        try:
            while self.next():
                pass
        except ssl.SSLError:
            pass
        except ConnectionError:
            pass
        return True

    def close(self):
        self.channel.close()
