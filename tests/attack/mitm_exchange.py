#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A proxy between the two ends of the exchange, which reads, changes, cuts, repeats and forges what goes through it.

First where it must work: ibv_rc_pingpong's exchange in the clear, and securdma's with both ends' keys stolen. Then securdma's as it is.
An attack on it succeeds if the proxy reads a frame, gets one accepted, or leaves one end with a connection that the other has not.
"""
import contextlib
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import lab as rig
from loopback import ADDRESS, Loopback, free_port, wait_for

NAME = "exchange"
HELLO, WELCOME = 1, 2
CHANGE_CIPHER = 20  # the record without meaning that TLS 1.3 sends for old middleboxes; none of its bytes is used
# The example of docs/PROTOCOL.md, from 127.0.0.1.
A_HELLO = bytes.fromhex("00500101 02030000 00000000000000000000ffff7f000001 00000011 002807d5 00000001 00001000 00101008 0000000000000000 "
                        "0000000000000000 00000000 00000000 0000000000000000 0000000000000000")
# Deadlines short enough to wait for.
HURRY = ("--setup-timeout-ms", "1000", "--timeout-ms", "2000", "--busy-retry-ms", "0")


# ---- the proxy ----


def read_record(stream):
    """One TLS record; b"": the end."""
    head = stream.read(5)
    if len(head) < 5:
        return b""
    return head + stream.read(int.from_bytes(head[3:5], "big"))


class Proxy:
    """For one connection. `change(direction, number, record)` says what is sent instead: a list of records. "c": from the client.

    After cut() both ends see the end of the stream; after silence() nothing goes through any more, but both TCP connections stay.
    """

    def __init__(self, port, change=lambda direction, number, record: [record]):
        self.listener = socket.create_server((ADDRESS, 0))
        self.port, self.upstream, self.change = self.listener.getsockname()[1], port, change
        self.records, self.closed, self.quiet, self.address = [], False, False, None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            client, _ = self.listener.accept()
            server = socket.create_connection((ADDRESS, self.upstream))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.address = "%s:%d" % server.getsockname()
            self.sockets = {"c": client, "s": server}
            pumps = [threading.Thread(target=self._pump, args=words, daemon=True) for words in (("c", client, server), ("s", server, client))]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()
            client.close()
            server.close()

    def _pump(self, direction, source, sink):
        stream, number = source.makefile("rb"), 0
        with contextlib.suppress(OSError):
            while record := read_record(stream):
                self.records.append((direction, record))
                if not self.closed and not self.quiet:
                    for out in self.change(direction, number, record):
                        sink.sendall(out)
                number += 1
        if not self.quiet:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def cut(self):
        self.closed = True
        for one in self.sockets.values():
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_WR)

    def silence(self):
        self.quiet = True

    def end(self):
        self.listener.close()
        for one in getattr(self, "sockets", {}).values():
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def connect(port, *words):
    """A client's exit status, its last line, and its log."""
    command = LAB.connect_words(port, "--show-psn", *words)
    result = subprocess.run(command, env=LAB.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=25, check=False)
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return result.returncode, lines[-1] if lines else {}, result.stderr


def report(knowledge, tried, defence, expected, succeeded, victim="securdma", note=None, began=None):
    LAB.report(NAME, "on-path, relays", knowledge, victim, defence, tried, expected, succeeded, note=note,
               seconds=None if began is None else time.monotonic() - began)


# ---- where it must work: an exchange in the clear ----


def pingpong(port, *words):
    return subprocess.Popen(["stdbuf", "-oL", "ibv_rc_pingpong", "-d", "uroce0", "-g", "0", "-p", str(port), "-n", "4", *words],
                            env=LAB.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def remote_line(program, seconds):
    """What it was told; the run itself fails, or hangs, after a change."""
    try:
        text = program.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        program.kill()
        text = program.communicate()[0]
    return next((line for line in text.splitlines() if "remote address" in line), "")


def relay_text(listener, port, change):
    client, _ = listener.accept()
    server = socket.create_connection((ADDRESS, port))
    size = len("0000:000000:000000:") + 33
    with client, server, contextlib.suppress(OSError):
        server.sendall(change(client.recv(size, socket.MSG_WAITALL)))
        client.sendall(change(server.recv(size, socket.MSG_WAITALL)))
        client.settimeout(3)
        while data := client.recv(100):
            server.sendall(data)


def plain_exchange():
    def with_psn(text):
        return text[:12] + b"000042" + text[18:]

    def with_gid(text):
        return text[:19] + b"00000000000000000000ffff7f000009" + text[51:]

    for what, change, wanted in (("PSN", with_psn, "PSN 0x000042"), ("GID", with_gid, "GID ::ffff:127.0.0.9")):
        if subprocess.run(["which", "ibv_rc_pingpong", "stdbuf"], stdout=subprocess.DEVNULL, check=False).returncode != 0:
            report("nothing", f"another {what}, both ways", "none: an exchange in the clear", "succeeded", None, "ibv_rc_pingpong")
            continue
        port = free_port()
        server = pingpong(port)
        wait_for(lambda at=f":{port:04X} ": at in "".join(open(name, encoding="ascii").read() for name in ("/proc/net/tcp", "/proc/net/tcp6")), 5)
        with socket.create_server((ADDRESS, 0)) as listener:
            threading.Thread(target=relay_text, args=(listener, port, change), daemon=True).start()
            client = pingpong(listener.getsockname()[1], ADDRESS)
            seen = [remote_line(client, 1.5), remote_line(server, 0.2)]
        report("nothing", f"another {what}, both ways", "none: an exchange in the clear", "succeeded", all(wanted in line for line in seen),
               "ibv_rc_pingpong", note=f"the client has: {seen[0].strip()}; the server: {seen[1].strip()}")


# ---- with stolen keys ----


def tls(server_side, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if server_side:
        context.load_verify_locations(f"{LAB.folder}/ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(f"{LAB.folder}/{name}.crt", f"{LAB.folder}/{name}.key")
    context.set_alpn_protocols(["securdma/1"])
    return context


def exactly(stream, size):
    data = b""
    while len(data) < size and (more := stream.recv(size - len(data))):
        data += more
    return data


def stolen_keys():
    """With both ends' keys the proxy reads everything."""
    server, seen = LAB.serve(), {}
    with socket.create_server((ADDRESS, 0)) as listener:
        def relay():
            with contextlib.suppress(OSError):
                raw, _ = listener.accept()
                to_server = tls(False, "honest").wrap_socket(socket.create_connection((ADDRESS, server.port)))
                client = tls(True, "server").wrap_socket(raw, server_side=True)
                for source, sink, kind in ((client, to_server, HELLO), (to_server, client, WELCOME)):
                    frame = exactly(source, 84)
                    seen[kind] = struct.unpack_from(">I", frame, 28)[0]
                    sink.sendall(frame)
                client.settimeout(3)
                to_server.settimeout(3)
                back = threading.Thread(target=pump, args=(to_server, client), daemon=True)
                back.start()
                pump(client, to_server)
                back.join(3)

        def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := source.recv(1000):
                    sink.sendall(data)

        threading.Thread(target=relay, daemon=True).start()
        status, line, _ = connect(listener.getsockname()[1], "-e", "send hello")
    server.stop()
    right = status == 0 and seen == {HELLO: line.get("psn"), WELCOME: line.get("peer_psn")}
    report("both ends' certificates and keys", "to end TLS on both sides and relay the frames: both PSNs are read, neither end notices", "none: stolen keys",
           "succeeded", right)


# ---- downgrade ----


def older(version):
    """Takes TLS 1.3 out of the ClientHello's supported_versions."""
    def change(direction, number, record):
        if direction == "c" and number == 0:
            at = record.index(b"\x00\x2b", 43)  # the extension; the random bytes end before
            while record[at + 4] + 1 != int.from_bytes(record[at + 2:at + 4], "big"):
                at = record.index(b"\x00\x2b", at + 1)
            end = at + 5 + record[at + 4]
            record = record[:at + 5] + record[at + 5:end].replace(b"\x03\x04", version) + record[end:]
        return [record]
    return change


def downgrade(server):
    both = LAB.serve("--allow-tls12")
    for what, target, words, version, defence in (
            ("TLS 1.2", server, (), b"\x03\x03", "TLS 1.3 alone"), ("TLS 1.1", server, (), b"\x03\x02", "TLS 1.3 alone"),
            ("TLS 1.2, which both ends allow", both, ("--allow-tls12",), b"\x03\x03", "TLS's own: the transcript, and the mark in the server's random")):
        proxy = Proxy(target.port, older(version))
        status, line, _ = connect(proxy.port, *HURRY, *words, "-e", "stat")
        report("nothing", f"ClientHello changed to {what}", defence, "failed", status == 0 or bool(list(target.records(event="client.connected", address=proxy.address))),
               note=f"the client: {line.get('text', '')}")
        proxy.end()
    both.stop()


def without_tls():
    with socket.create_server((ADDRESS, 0)) as listener:
        def serve():
            with contextlib.suppress(OSError):
                raw, _ = listener.accept()
                raw.recv(4096)
                raw.sendall(A_HELLO[:3] + bytes([WELCOME]) + A_HELLO[4:])
                raw.settimeout(2)
                raw.recv(4096)

        threading.Thread(target=serve, daemon=True).start()
        status, line, _ = connect(listener.getsockname()[1], *HURRY, "-e", "stat")
    report("the protocol", "a WELCOME without TLS to the client", "TLS before all else", "failed", status == 0, note=f"the client: {line.get('text', '')}")


# ---- records cut, repeated, swapped ----


def whole_session(server):
    """What an undisturbed one looks like: its records."""
    proxy = Proxy(server.port)
    status, _, errors = connect(proxy.port, *HURRY, "-e", "send hello")
    if status != 0:
        raise SystemExit(f"attack: the proxy disturbs: {errors}")
    proxy.thread.join(3)
    proxy.end()
    return proxy.records


def numbers(records):
    """(direction, number) of each record that means something."""
    count = {"c": 0, "s": 0}
    for direction, record in records:
        if record[0] != CHANGE_CIPHER:
            yield direction, count[direction]
        count[direction] += 1


def has_it(server, address):
    """Whether the server has the connection now."""
    return len(list(server.records(event="client.connected", address=address))) > sum(len(list(server.records(event=event, address=address))) for event in ("client.disconnected", "client.lost"))


def disturbed(server, make, words):
    """A connection through a proxy: what each end had of it, and whether the server still has it when the client has ended."""
    proxy = Proxy(server.port)
    proxy.change = make(proxy)
    status, _, _ = connect(proxy.port, *HURRY, *words)
    over = proxy.quiet or wait_for(lambda: not has_it(server, proxy.address), 3)
    served = bool(list(server.records(event="client.connected", address=proxy.address)))
    proxy.end()
    return {"served": served, "over": over, "ok": status == 0}


def at_record(at, replace):
    """What a proxy does that sends replace(proxy, record) instead of one record."""
    return lambda proxy: lambda direction, number, record: replace(proxy, record) if (direction, number) == at else [record]


def cut_at(at, how):
    def replace(proxy, record):
        proxy.sockets["s" if at[0] == "c" else "c"].sendall(record)
        getattr(proxy, how)()
        return []
    return at_record(at, replace)


def cuts(server, records):
    """The client sends a message and waits for the echo: it may not be content unless the server had a connection."""
    found = list(numbers(records))
    for how, what, defence in (("cut", "the stream cut after each TLS record in turn: is an end left with a connection that the other has not?",
                                "READY; the end of the channel ends the connection"),
                               ("silence", "all held back after each TLS record in turn, TCP left open: is a client content without a server?",
                                "READY; deadlines")):
        began = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            ends = list(pool.map(lambda at: disturbed(server, cut_at(at, how), ("-e", "send hello")), found))
        wrong = [at for at, end in zip(found, ends) if (end["ok"] and not end["served"]) or not end["over"]]
        report("nothing", what, defence, "failed", bool(wrong), began=began,
               note=f"{len(found)} records; the server had a connection in {sum(end['served'] for end in ends)}, the client was content in "
                    f"{sum(end['ok'] for end in ends)} of these{'; wrong: ' + str(wrong) if wrong else ''}")


def ready_number(records):
    """The last records of a client are READY, DISCONNECT, FINISH and close_notify."""
    return sum(direction == "c" for direction, _ in records) - 4


def doubled(at):
    return at_record(at, lambda _, record: [record, record])


def left_out(at):
    return at_record(at, lambda _, record: [])


def flipped(at, where):
    """One bit flipped: of the first byte of the record's content, of the middle, of the tag."""
    def replace(_, record):
        place = {"first": 5, "middle": (5 + len(record)) // 2, "last": len(record) - 1}[where]
        return [record[:place] + bytes([record[place] ^ 1]) + record[place + 1:]]
    return at_record(at, replace)


def swapped(at):
    def make(_):
        held = []

        def change(direction, number, record):
            if (direction, number) == at:
                held.append(record)
                return []
            if direction == at[0] and held:
                return [record, held.pop()]
            return [record]
        return change
    return make


def until_ready(records):
    last = ready_number(records)
    return [(direction, number) for direction, number in numbers(records)
            if direction == "c" and number <= last or direction == "s" and number < sum(one == "s" for one, _ in records) - 2]


def try_all(server, what, tries, *words, parallel=12):
    """Pairs of a change and its name; no connection may survive."""
    began = time.monotonic()
    with ThreadPoolExecutor(parallel) as pool:
        ends = list(pool.map(lambda one: disturbed(server, one[0], words), tries))
    wrong = [name for (_, name), end in zip(tries, ends) if end["ok"] or not end["over"]]
    report("nothing", what, "TLS: each record is authenticated, and has its number", "failed", bool(wrong), began=began,
           note=f"{len(tries)} tries{'; accepted: ' + str(wrong) if wrong else ''}")


def shuffled(server, records):
    for make, what in ((doubled, "each TLS record up to READY sent twice"), (swapped, "each TLS record up to READY swapped with the next")):
        try_all(server, what, [(make(at), at) for at in until_ready(records)], "-e", "send hello", "--hold-ms", "200")


def changed(server, records):
    """HELLO, WELCOME and READY among them: nobody can change a parameter or a feature bit, such as that of sealing."""
    try_all(server, "one bit of each TLS record up to READY flipped: in its first byte, in the middle, in the last",
            [(flipped(at, where), (*at, where)) for at in until_ready(records) for where in ("first", "middle", "last")], "-e", "send hello")
    try_all(server, "each TLS record up to READY left out", [(left_out(at), at) for at in until_ready(records)], "-e", "send hello")


def epoch_frames(records):
    """The frames of epochs, on an established channel: BEGIN, PARAMETERS with the new PSNs, READY."""
    server = LAB.serve(*HURRY[:4])
    ready = ready_number(records)
    behind = sum(one == "s" for one, _ in records) - 2
    tries = [(make((direction, first + number)), (direction, first + number))
             for make in (doubled, swapped, left_out, lambda at: flipped(at, "middle"))
             for direction, first in (("c", ready + 1), ("s", behind)) for number in range(3)]
    words = ("--epoch-ms", "100", "-e", "stat", "--hold-ms", "1500")
    # Undisturbed, such a client succeeds.
    if not disturbed(server, lambda proxy: proxy.change, words)["ok"]:
        raise SystemExit("attack: an undisturbed client with epochs fails")
    try_all(server, "the TLS records of an epoch sent twice, swapped, left out, with one bit flipped", tries, *words, parallel=8)
    server.stop()


def hold_back(number):
    """The client's record of that number and all after it, of both ends."""
    return at_record(("c", number), lambda proxy, _: proxy.silence() or [])


def idle_client(server, ready, words):
    """Whether the client still has its connection when the server has given up, and how it ends."""
    proxy = Proxy(server.port)
    proxy.change = hold_back(ready)(proxy)
    client = LAB.start(*LAB.connect_words(proxy.port, *HURRY, *words, "-e", "stat", "--hold-ms", "4000"))
    gone = wait_for(lambda: bool(list(server.records(event="client.not_connected", address=proxy.address))), 3)
    time.sleep(0.7)
    fooled = gone and client.alive()
    client.process.wait(20)
    proxy.end()
    return fooled, f"the server gave up at its deadline of 1 s; the client ended with {client.process.returncode} when it disconnected"


def idle_server(server, ready, words):
    """Whether the server still has the connection some time after the client has ended."""
    proxy = Proxy(server.port)
    proxy.change = hold_back(ready + 1)(proxy)
    status, _, _ = connect(proxy.port, *HURRY, *words, "-e", "send hello")
    began = time.monotonic()
    left = not wait_for(lambda: not has_it(server, proxy.address), 3 if SHORT else 40)
    proxy.end()
    return left, (f"the client gave up with {status}; the server {'still had the connection' if left else 'noticed'} after "
                  f"{time.monotonic() - began:.0f} s")


def half_open(records):
    """The proxy holds TCP open: nothing tells an end that has nothing to send. Epochs do not: a request may wait for its answer."""
    ready, epochs = ready_number(records), ("--epoch-ms", "300")
    cases = [(idle_client, ()), (idle_client, epochs), (idle_server, ()), (idle_server, epochs)]
    servers = [LAB.serve(*HURRY[:4], *words) for _, words in cases]
    with ThreadPoolExecutor(len(cases)) as pool:
        found = list(pool.map(lambda case, server: case[0](server, ready, case[1]), cases, servers))
    for (case, words), (left, note), server in zip(cases, found, servers):
        tried = ("READY held back, TCP left open; the client sends nothing for 4 s" if case == idle_client else
                 "all after READY held back, TCP left open; the server has nothing to send") + (", epoch-ms 300" if words else "")
        report("nothing", tried, "none before that end sends or disconnects", "succeeded", left, note=note)
        server.stop()


# ---- replay, early data ----


def replay(server, records):
    before = server.log().count('"client.connected"')
    answers = b""
    with socket.create_connection((ADDRESS, server.port), 3) as raw, contextlib.suppress(OSError):
        raw.settimeout(1)
        for direction, record in records:
            if direction == "c":
                raw.sendall(record)
            else:
                with contextlib.suppress(TimeoutError):
                    answers += raw.recv(8192)
        while more := raw.recv(8192):
            answers += more
    time.sleep(0.1)
    more = server.log().count('"client.connected"') - before
    report("a whole recorded session", f"all {sum(direction == 'c' for direction, _ in records)} records of the client sent to the server again",
           "TLS: the server's share of the keys is new", "failed", more > 0, note=f"{more} connections")


def s_client(port, *words):
    result = subprocess.run(["openssl", "s_client", "-connect", f"{ADDRESS}:{port}", "-cert", f"{LAB.folder}/honest.crt", "-key", f"{LAB.folder}/honest.key",
                             "-alpn", "securdma/1", "-tls1_3", "-noservername", *words], input=b"", capture_output=True, timeout=30, check=False)
    return result.stdout.decode(errors="replace")


def early_data(server):
    """Against openssl s_server, which takes it; its session is then shown to securdma, whose own server gives none away."""
    port, session, own, hello = free_port(), f"{LAB.folder}/session", f"{LAB.folder}/own-session", f"{LAB.folder}/hello"
    with open(hello, "wb") as file:
        file.write(A_HELLO)
    other = subprocess.Popen(["openssl", "s_server", "-accept", f"{ADDRESS}:{port}", "-cert", f"{LAB.folder}/server.crt", "-key", f"{LAB.folder}/server.key",
                              "-alpn", "securdma/1", "-early_data", "-no_anti_replay", "-naccept", "2"], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    LAB.programs.append(other)
    wait_for(lambda: f":{port:04X} " in open("/proc/net/tcp", encoding="ascii").read(), 20)
    # It waits for tickets as long as its input is open.
    first = subprocess.Popen(["openssl", "s_client", "-connect", f"{ADDRESS}:{port}", "-alpn", "securdma/1", "-noservername", "-sess_out", session],
                             stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(session) and os.path.getsize(session) > 0, 20)
    time.sleep(0.2)
    first.kill()
    first.communicate()
    taken = "Early data was accepted" in s_client(port, "-sess_in", session, "-early_data", hello)
    report("a session of it", "a HELLO as early data", "none: openssl s_server -early_data", "succeeded", taken, "another TLS server")
    before = server.log().count('"client.connected"')
    foreign = s_client(server.port, "-sess_in", session, "-early_data", hello)
    with open(f"{LAB.folder}/said", "w+b") as said:
        mine = subprocess.Popen(["openssl", "s_client", "-connect", f"{ADDRESS}:{server.port}", "-cert", f"{LAB.folder}/honest.crt", "-key",
                                 f"{LAB.folder}/honest.key", "-alpn", "securdma/1", "-noservername", "-sess_out", own],
                                stdin=subprocess.PIPE, stdout=said, stderr=subprocess.DEVNULL)
        shaken = wait_for(lambda: b"Cipher is TLS_" in os.pread(said.fileno(), 1 << 20, 0), 20)
        time.sleep(0.2)  # a session would come after the handshake
        mine.kill()
        mine.communicate()
    tickets = os.path.exists(own) and os.path.getsize(own) > 0
    more = server.log().count('"client.connected"') - before
    report("a client's key, a session of another server", "a HELLO as early data; and to be given a session", "no tickets, no early data", "failed",
           "Early data was accepted" in foreign or tickets or more > 0 or not shaken,
           note=f"early data {'refused' if 'Early data was rejected' in foreign else 'not accepted'}; {'a session' if tickets else 'no session'} given")


ARGUMENTS = rig.options(__doc__)
LAB = Loopback(ARGUMENTS)
SHORT = ARGUMENTS.short
plain_exchange()
SERVER = LAB.serve(*HURRY[:4])
stolen_keys()
downgrade(SERVER)
without_tls()
RECORDS = whole_session(SERVER)
for _ in range(1 if SHORT else 10):
    cuts(SERVER, RECORDS)
    shuffled(SERVER, RECORDS)
    changed(SERVER, RECORDS)
epoch_frames(RECORDS)
half_open(RECORDS)
replay(SERVER, RECORDS)
early_data(SERVER)
LAB.end()
