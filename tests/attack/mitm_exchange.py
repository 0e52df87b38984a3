#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A man in the middle of the exchange: between `securdma connect` and `securdma serve`, and, to show what that is worth elsewhere, between
two ibv_rc_pingpong, which exchange QPN, PSN and GID in the clear. Everything runs on uroce and the loopback interface."""
import argparse
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.realpath(os.environ.get("SECURDMA_BUILD", os.path.join(HERE, "..", "..", "build")))
SECURDMA = os.path.join(BUILD, "cli", "securdma")
UROCE = dict(os.environ, LD_PRELOAD=os.path.join(BUILD, "uroce", "src", "liburoce.so"))
ALPN = "securdma/1"
HOST = "127.0.0.1"
failures = 0


def report(attack, victim, defence, tried, expected, succeeded, began, note=None):
    global failures
    outcome = "succeeded" if succeeded else "failed"
    line = {"attack": attack, "position": "on-path of the exchange", "knowledge": "all that is public", "victim": victim, "defence": defence,
            "tried": tried, "packets": None, "seconds": round(time.monotonic() - began, 3), "outcome": outcome, "expected": expected}
    if note:
        line["note"] = note
    failures += outcome != expected
    print(json.dumps(line), flush=True)


# ---- the ends ------------------------------------------------------------------------------------------------------------


class Ends:
    """Certificates, a server, and clients that are sent to the man in the middle."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        signed = ("--ca", self.file("ca.crt"), "--ca-key", self.file("ca.key"))
        foreign = ("--ca", self.file("rogue-ca.crt"), "--ca-key", self.file("rogue-ca.key"))
        self.cert("ca", "ca", "--cn", "good CA")
        self.cert("ca", "rogue-ca", "--cn", "rogue CA")
        self.cert("server", "server", "--name", HOST, *signed)
        self.cert("client", "client", "--cn", "honest", *signed)
        self.cert("server", "other-name", "--name", "elsewhere.invalid", *signed)
        self.cert("server", "other-ca", "--name", HOST, *foreign)
        self.cert("self-signed", "own", "--name", HOST)
        self.servers = []

    def file(self, name):
        return os.path.join(self.folder.name, name)

    def cert(self, kind, name, *words):
        subprocess.run([SECURDMA, "cert", kind, "--out", self.file(name), *words], check=True, stdout=subprocess.DEVNULL)

    def pin(self, name):
        return subprocess.run([SECURDMA, "cert", "pin", self.file(name + ".crt")], check=True, capture_output=True, text=True).stdout.strip()

    def serve(self, *words):
        log = tempfile.TemporaryFile()
        server = subprocess.Popen([SECURDMA, "serve", "--json", "--listen", HOST, "--port", "0", "--cert", self.file("server.crt"), "--key",
                                   self.file("server.key"), "--client-ca", self.file("ca.crt"), "--setup-timeout-ms", "2000", *words],
                                  stdout=subprocess.PIPE, stderr=log, env=UROCE, text=True)
        server.port, server.file = json.loads(server.stdout.readline())["port"], log
        self.servers.append(server)
        return server

    def connect(self, port, *words, check=("--ca", "ca.crt")):
        words = [self.file(word) if word.endswith((".crt", ".key")) else word for word in
                 ("--cert", "client.crt", "--key", "client.key", *check, *words)]
        return subprocess.run([SECURDMA, "connect", "--setup-timeout-ms", "2000", "--timeout-ms", "2000", "--busy-retry-ms", "0", *words,
                               "-e", "send hello", f"{HOST}:{port}"], env=UROCE, capture_output=True, text=True, timeout=30, check=False)

    def close(self):
        for server in self.servers:
            server.terminate()
            server.wait()


def said(server):
    server.file.seek(0)
    return server.file.read().decode()


def connections(server):
    return said(server).count(": connected from")


# ---- the man in the middle ----------------------------------------------------------------------------------------------


class Middle:
    """A TCP relay that sees TLS records: change(direction, number, record) returns the records that go on instead, or None to cut."""

    def __init__(self, port, change):
        self.port_of_server, self.change = port, change
        self.types = {} # of the records seen, by direction and number
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self.port_of_server))
            for direction, source, to in (("to server", client, server), ("to client", server, client)):
                threading.Thread(target=self._relay, args=(direction, source, to), daemon=True).start()

    def _relay(self, direction, source, to):
        number = 0
        try:
            while True:
                header = self._exactly(source, 5)
                record = header + self._exactly(source, struct.unpack("!H", header[3:])[0])
                self.types[direction, number] = record[0]
                instead = self.change(direction, number, record)
                number += 1
                if instead is None:
                    break
                for part in instead:
                    to.sendall(part)
        except (OSError, EOFError):
            pass
        for end in (source, to):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def skipped(self, number, direction):
        """There was no such record, or it was a change of cipher suites."""
        return self.types.get((direction, number), 20) == 20

    @staticmethod
    def _exactly(source, length):
        data = b""
        while len(data) < length:
            part = source.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def close(self):
        self.listener.close()


class Impostor:
    """Terminates TLS with a certificate of its own, and would read everything. `spoken`: what a client said to it."""

    def __init__(self, ends, name, maximum=None):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(ends.file(name + ".crt"), ends.file(name + ".key"))
        self.context.set_alpn_protocols([ALPN])
        if maximum:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self.context.minimum_version, self.context.maximum_version = ssl.TLSVersion.TLSv1, maximum
            self.context.set_ciphers("DEFAULT:@SECLEVEL=0")
        self.listener, self.spoken = socket.create_server((HOST, 0)), b""
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(sock, server_side=True) as channel:
                    channel.settimeout(1)
                    self.spoken += channel.recv(4096)
            except (OSError, ssl.SSLError):
                sock.close()

    def close(self):
        self.listener.close()


def impersonate(ends):
    for name, what, check in (("other-ca", "certificate of another CA", ("--ca", "ca.crt")),
                              ("other-name", "certificate of the same CA for another name", ("--ca", "ca.crt")),
                              ("own", "self-signed certificate, to a client that pins the server's key", None)):
        began, middle = time.monotonic(), Impostor(ends, name)
        result = ends.connect(middle.port, check=check or ("--pin", ends.pin("server")))
        report("Impersonation", "securdma connect", "certificate, name or pin verified", f"an intercepting proxy with a {what}", "failed",
               middle.spoken != b"" or result.returncode == 0, began, result.stderr.strip()[-140:])
        middle.close()


def old_versions(ends):
    for version, allowed in ((ssl.TLSVersion.TLSv1_1, ()), (ssl.TLSVersion.TLSv1_1, ("--allow-tls12",)), (ssl.TLSVersion.TLSv1_2, ())):
        began, middle = time.monotonic(), Impostor(ends, "server", maximum=version)
        result = ends.connect(middle.port, *allowed)
        report("Downgrade", "securdma connect" + (" --allow-tls12" if allowed else ""), "minimum version",
               f"a server, with the right key even, that speaks no more than {version.name}", "failed",
               middle.spoken != b"" or result.returncode == 0, began)
        middle.close()


def without_extension(record, wanted):
    """A ClientHello without one of its extensions."""
    body = record[9:]
    at = 2 + 32
    at += 1 + body[at]
    at += 2 + struct.unpack("!H", body[at:at + 2])[0]
    at += 1 + body[at]
    start, at, kept = at, at + 2, b""
    while at < len(body):
        kind, length = struct.unpack("!HH", body[at:at + 4])
        if kind != wanted:
            kept += body[at:at + 4 + length]
        at += 4 + length
    body = body[:start] + struct.pack("!H", len(kept)) + kept
    hello = record[5:6] + len(body).to_bytes(3, "big") + body
    return record[:3] + struct.pack("!H", len(hello)) + hello


def strip_versions(ends):
    for allowed in ((), ("--allow-tls12",)):
        began, server = time.monotonic(), ends.serve(*allowed)
        middle = Middle(server.port, lambda direction, number, record: [without_extension(record, 43)] if direction == "to server" and
                        number == 0 else [record])
        result = ends.connect(middle.port, *allowed)
        report("Downgrade", "securdma, both ends" + (" --allow-tls12" if allowed else ""),
               "TLS 1.3 alone" if not allowed else "TLS 1.3's mark in the server's random number",
               "supported_versions cut out of the ClientHello, so that the server offers TLS 1.2", "failed",
               result.returncode == 0 or connections(server) > 0, began)
        middle.close()


def strip_tls(ends):
    began, server = time.monotonic(), ends.serve()
    with socket.create_connection((HOST, server.port)) as sock:
        sock.settimeout(5)
        sock.sendall(struct.pack("!HBB", 80, 1, 1) + bytes(80))
        try:
            answer = sock.recv(4096)
        except OSError:
            answer = b""
    report("Stripping", "securdma serve", "nothing is said before TLS", "HELLO without TLS", "failed",
           answer[3:4] == b"\x02" or connections(server) > 0, began)
    began = time.monotonic()

    def answer_plainly():
        sock, _ = listener.accept()
        sock.recv(4096)
        sock.sendall(struct.pack("!HBB", 80, 1, 2) + bytes(80))
        time.sleep(0.2)
        sock.close()

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=answer_plainly, daemon=True).start()
        result = ends.connect(listener.getsockname()[1])
    report("Stripping", "securdma connect", "nothing is believed before TLS", "WELCOME without TLS", "failed", result.returncode == 0, began)


def cut(ends, short):
    """After each record in turn: an end that believes in a connection has had all of the other's part of the exchange."""
    began, wrong, tried = time.monotonic(), [], 0
    server = ends.serve()
    # To the server: ClientHello, change of ciphers, certificate and finished, HELLO, READY. To the client: about eight.
    for direction, most in (("to server", 5), ("to client", 4 if short else 9)):
        for last in range(most):
            middle = Middle(server.port, lambda d, number, record, direction=direction, last=last:
                            None if d == direction and number >= last else [record])
            before, result = connections(server), ends.connect(middle.port)
            tried += 1
            if result.returncode == 0:
                wrong.append(f"{direction} after {last}: the client succeeded")
            # The server may only have a client whose READY has come: the last record of the exchange.
            if connections(server) > before and direction == "to server" and last < 4:
                wrong.append(f"{direction} after {last}: the server has a client")
            middle.close()
    report("Truncation", "securdma, both ends", "each step is waited for", f"the stream cut after each TLS record, {tried} places", "failed",
           bool(wrong), began, "; ".join(wrong) or None)


def meddle(ends, short):
    """With each record behind the ClientHello in turn; the later ones carry HELLO, WELCOME, READY and what follows."""
    def flip(record):
        return [record[:-3] + bytes([record[-3] ^ 1]) + record[-2:]]

    for direction, most in (("to server", 6), ("to client", 4 if short else 8)):
        for what, change in (("one bit turned over", flip), ("sent twice", lambda record: [record, record]), ("left out", lambda record: [])):
            began, server, wrong = time.monotonic(), ends.serve(), []
            for which in range(1, most):
                # The change of cipher suites is of no meaning in TLS 1.3.
                middle = Middle(server.port, lambda d, number, record, which=which, direction=direction, change=change:
                                change(record) if d == direction and number == which and record[0] != 20 else [record])
                result = ends.connect(middle.port)
                if result.returncode == 0 and not middle.skipped(which, direction):
                    wrong.append(which)
                middle.close()
            report("Changed records", "securdma, both ends", "TLS", f"each of the records 1 to {most - 1} {direction} {what}, one at a time",
                   "failed", bool(wrong), began, f"accepted: {wrong}" if wrong else None)


def replay(ends):
    began, server, recorded = time.monotonic(), ends.serve(), []
    middle = Middle(server.port, lambda direction, number, record: recorded.append(record) or [record] if direction == "to server"
                    else [record])
    result = ends.connect(middle.port)
    assert result.returncode == 0, result.stderr
    before = connections(server)
    with socket.create_connection((HOST, server.port)) as sock:
        sock.settimeout(5)
        try:
            for record in recorded:
                sock.sendall(record)
                time.sleep(0.02)
            while sock.recv(4096):
                pass
        except OSError:
            pass
    report("Replay of a session", "securdma serve", "fresh keys for each session", f"all {len(recorded)} records of a client's session again",
           "failed", connections(server) > before, began)
    middle.close()


def early_data(ends):
    began, server = time.monotonic(), ends.serve()
    session, data = ends.file("session"), ends.file("early")
    with open(data, "wb") as file:
        file.write(struct.pack("!HBB", 80, 1, 1) + bytes(80))
    common = ["openssl", "s_client", "-connect", f"{HOST}:{server.port}", "-CAfile", ends.file("ca.crt"), "-cert", ends.file("client.crt"),
              "-key", ends.file("client.key"), "-alpn", ALPN, "-tls1_3"]
    subprocess.run([*common, "-sess_out", session], input=b"", capture_output=True, timeout=20, check=False)
    ticket = os.path.exists(session)
    accepted = False
    if ticket:
        second = subprocess.run([*common, "-sess_in", session, "-early_data", data], input=b"", capture_output=True, timeout=20, check=False)
        accepted = b"Early data was accepted" in second.stdout
    report("0-RTT", "securdma serve", "no tickets, no early data", "HELLO as early data of a resumed session", "failed",
           accepted or connections(server) > 0, began, "the server gives no session ticket" if not ticket else "early data was not accepted")


def seal_off(ends):
    for at_server, at_client in (("required", "off"), ("off", "required")):
        began, server = time.monotonic(), ends.serve("--seal", at_server)
        result = ends.connect(server.port, "--seal", at_client)
        report("Downgrade of sealing", "securdma, both ends", "required is required",
               f"sealing {at_server} at the server, {at_client} at the client", "failed", result.returncode == 0 or connections(server) > 0,
               began, result.stderr.strip()[-140:])


# ---- where nobody checks ------------------------------------------------------------------------------------------------


def pingpong():
    """ibv_rc_pingpong says "LID:QPN:PSN:GID" in hexadecimal digits, both ways, and believes it."""
    began = time.monotonic()
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    server = subprocess.Popen(["stdbuf", "-oL", "ibv_rc_pingpong", "-g", "0", "-p", str(port)], stdout=subprocess.PIPE, text=True, env=UROCE,
                              stderr=subprocess.DEVNULL)
    server.stdout.readline()
    listener = socket.create_server((HOST, 0))

    def relay():
        client, _ = listener.accept()
        for _ in range(50):
            try:
                to = socket.create_connection((HOST, port))
                break
            except OSError:
                time.sleep(0.1)
        said_by_client = client.recv(4096)
        to.sendall(re.sub(rb"^(....:......):......:", rb"\1:c0ffee:", said_by_client))
        client.sendall(re.sub(rb"^(....:......):......:", rb"\1:badbad:", to.recv(4096)))
        to.sendall(client.recv(4096)) # "done"
        time.sleep(1)
        client.close()
        to.close()

    threading.Thread(target=relay, daemon=True).start()
    client = subprocess.Popen(["stdbuf", "-oL", "ibv_rc_pingpong", "-g", "0", "-p", str(listener.getsockname()[1]), HOST],
                              stdout=subprocess.PIPE, text=True, env=UROCE, stderr=subprocess.DEVNULL)
    believed = []
    for process, psn in ((server, "0xc0ffee"), (client, "0xbadbad")):
        lines = []
        reader = threading.Thread(target=lambda process=process, lines=lines: lines.extend(iter(process.stdout.readline, "")), daemon=True)
        reader.start()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not any("remote address" in line for line in lines):
            time.sleep(0.05)
        believed.append(any("remote address" in line and psn in line for line in lines))
    for process in (server, client):
        process.kill()
        process.wait()
    listener.close()
    report("Changed exchange", "ibv_rc_pingpong", "none: plain TCP", "the PSN of either end replaced on its way", "succeeded", all(believed),
           began, "both ends connect their queue pairs with the attacker's numbers")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="fewer places to cut at")
    arguments = parser.parse_args()
    pingpong()
    ends = Ends()
    try:
        impersonate(ends)
        old_versions(ends)
        strip_versions(ends)
        strip_tls(ends)
        cut(ends, arguments.short)
        meddle(ends, arguments.short)
        replay(ends)
        early_data(ends)
        seal_off(ends)
    finally:
        ends.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
