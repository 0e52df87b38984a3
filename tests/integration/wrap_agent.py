# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the host's agent, for the tests of `securdma wrap`: it speaks agent/local.h with several programs, answers from one table,
as the real one does for queue pairs of one host, and can be told to answer late, to refuse, to answer garbage, or to go away."""
import contextlib
import errno
import os
import secrets
import selectors
import socket
import struct
import threading
import time

MAGIC, VERSION = 0x53574150, 1
HELLO, DEVICE, REGISTER, CONNECT, FORGET, ADDRESS, EVENT, RESTORE, WELCOME, ANSWER, REVOKE = *range(1, 9), 64, 65, 66
ENFORCE, OBSERVE = 1, 2
HEADER = struct.Struct("=IHHII")
QUEUE_PAIR = struct.Struct("=64sIIIIIIII16s16s")
CONNECTION = struct.Struct("=64sIIIIII16s16s")
GREETING = struct.Struct("=II64s")
PORT = struct.Struct("=64sIIIIII")
HAPPENING = struct.Struct("=I64s512s")


def text_of(raw):
    return raw.split(b"\0", 1)[0].decode()


class Program:
    def __init__(self, connection):
        self.socket, self.name, self.mode, self.devices = connection, "", 0, {}

    def send(self, type_, request, body):
        with contextlib.suppress(OSError):
            self.socket.send(HEADER.pack(MAGIC, VERSION, type_, HEADER.size + len(body), request) + body)


class QueuePair:
    def __init__(self, program, device, qpn, type_, psn):
        self.program, self.device, self.qpn, self.type, self.psn = program, device, qpn, type_, psn
        self.peer = self.peer_gid = self.expected = None


class StandIn:
    """`answers(type, qpn)` may return a status and a text that are answered instead of what the table says, "observed" (as the table says, though
    it would be refused), "late", "garbage", or "close"."""

    def __init__(self, path, mode=ENFORCE):
        self.path, self.mode, self.answers = str(path), mode, lambda type_, qpn: None
        self.table, self.events, self.requests, self.greetings = {}, [], [], []
        self.drawn = {}  # the last PSN of each queue pair, also of those that are gone
        self.refuse_program = None
        self.thread = None
        self.start()

    # ---- start and stop, as often as a test likes ----

    def start(self, keep_table=False):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        if not keep_table:
            self.table = {}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.wake, self.stopping = socket.socketpair()
        self.selector.register(self.stopping, selectors.EVENT_READ)
        self.programs = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def stop(self):
        """As if it was killed: nobody hears a word."""
        if self.thread:
            self.wake.send(b"x")
            self.thread.join(10)
            self.thread = None
            os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.stopping:
                    for program in self.programs:
                        program.socket.close()
                    for one in (self.listener, self.stopping, self.wake):
                        one.close()
                    self.selector.close()
                    return
                if key.fileobj is self.listener:
                    program = Program(self.listener.accept()[0])
                    self.programs.append(program)
                    self.selector.register(program.socket, selectors.EVENT_READ, program)
                else:
                    self.receive(key.data)

    def drop(self, program):
        self.selector.unregister(program.socket)
        program.socket.close()
        self.programs.remove(program)
        self.table = {key: pair for key, pair in self.table.items() if pair.program is not program}

    def receive(self, program):
        try:
            packet = program.socket.recv(65536)
        except OSError:
            packet = b""
        if not packet:
            self.drop(program)
            return
        magic, version, type_, length, request = HEADER.unpack_from(packet)
        assert (magic, version, length) == (MAGIC, VERSION, len(packet)), packet[:16]
        self.take(program, type_, request, packet[HEADER.size:])

    # ---- what it answers ----

    def answer(self, program, request, status=0, psn=0, peer="", text="", observed=0, encryption="", would_be=0):
        vouched = int(not status)
        if status and self.mode == OBSERVE:
            status, observed, psn = 0, 1, would_be  # as the program passed it
        program.send(ANSWER, request, struct.pack("=IIII64s64s512s", status, observed, vouched, psn, peer.encode(), encryption.encode(), text.encode()))

    def take(self, program, type_, request, body):
        if type_ == HELLO:
            mode, encrypted, name = GREETING.unpack(body)
            program.name, program.mode = text_of(name), mode
            self.greetings.append((program.name, mode, encrypted))
            status = errno.EACCES if self.refuse_program else 0
            program.send(WELCOME, 0, struct.pack("=III64s512s", self.mode, 0, status, b"stand-in.test", (self.refuse_program or "").encode()))
        elif type_ == DEVICE:
            device, port, layer, lid, kernel, first, count = PORT.unpack_from(body)
            gids = program.devices.setdefault((text_of(device), port), {})
            gids.update({first + i: body[PORT.size + 16 * i:][:16] for i in range(count)})
        elif type_ == EVENT:
            refused, what, text = HAPPENING.unpack(body)
            self.events.append((refused, text_of(what), text_of(text)))
        else:
            self.take_request(program, type_, request, body)

    def take_request(self, program, type_, request, body):
        device, port, number = struct.unpack_from("=64sII", body)
        device = text_of(device)
        self.requests.append((type_, device, number))
        other = self.answers(type_, number) if type_ not in (FORGET, RESTORE) else None
        if other == "late":
            return
        if other == "observed":
            self.connect(program, device, request, body, observed=1)
            return
        if other == "garbage":
            with contextlib.suppress(OSError):
                program.socket.send(os.urandom(100))
        elif other == "close":
            self.drop(program)
        elif other:
            self.answer(program, request, status=other[0], text=other[1])
        elif type_ == CONNECT:
            self.connect(program, device, request, body, observed=0)
        elif type_ == ADDRESS:
            self.answer(program, request, peer="stand-in.test")
        else:
            self.account(program, type_, device, request, body)

    def account(self, program, type_, device, request, body):
        _, port, qpn, kind, psn, connected, peer_qpn, peer_psn, _, gid, peer_gid = QUEUE_PAIR.unpack(body)
        if type_ == FORGET:
            pair = self.table.pop((device, qpn), None)
            if pair and pair.peer and pair.peer.expected is pair:
                pair.peer.expected = None
            return
        if type_ == REGISTER:
            psn = secrets.randbelow(1 << 24)
        assert (device, port) in program.devices, "a queue pair of a device that nobody told of"
        self.drawn[device, qpn] = psn
        pair = self.table[device, qpn] = QueuePair(program, device, qpn, kind, psn)
        if type_ == RESTORE and connected:
            pair.peer_gid, pair.restored = peer_gid, (peer_qpn, peer_psn)
        self.answer(program, request, psn=psn)

    def connect(self, program, device, request, body, observed):
        _, port, qpn, index, peer_qpn, lid, would_be, gid, peer_gid = CONNECTION.unpack(body)
        pair, peer = self.table.get((device, qpn)), self.table.get((device, peer_qpn))
        assert program.devices[device, port][index] == gid and pair and pair.program is program
        own = any(peer_gid in gids.values() for one in self.programs for gids in one.devices.values())
        if not own or not peer:
            self.answer(program, request, errno.EACCES, text="no agent has such a queue pair at that address", would_be=would_be)
        elif pair.expected not in (None, peer):
            self.revoke(pair.expected, f"its peer, queue pair {qpn:#x}, is connected with another one by its program")
            self.answer(program, request, errno.EACCES, text=f"queue pair {pair.expected.qpn:#x} has been connected with it, and its program names another")
        elif peer.expected not in (None, pair):
            self.answer(program, request, errno.EACCES, text="another queue pair is connected with that one")
        else:
            pair.peer, pair.peer_gid, peer.expected = peer, peer_gid, pair
            self.answer(program, request, psn=peer.psn, peer="stand-in.test", observed=observed, text="observed" if observed else "")

    def revoke(self, pair, text):
        pair.program.send(REVOKE, 0, struct.pack("=64sII512s", pair.device.encode(), pair.qpn, pair.psn, text.encode()))


if __name__ == "__main__":
    import sys
    with StandIn(sys.argv[1]) as agent:
        print("ready", flush=True)
        while agent.thread.is_alive():
            time.sleep(1)
