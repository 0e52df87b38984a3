#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Connections from one address that stop half-way hold the places in which clients are set up. Measured: how long newcomers from the same
address need until their first echo, undisturbed and under each flood of 700 connections; for each that the server closes comes another one. An
attack succeeds if a newcomer is not served within 3 s."""
import collections
import contextlib
import socket
import ssl
import statistics
import subprocess
import threading
import time

import lab as rig
from loopback import ADDRESS, Loopback
import channel  # noqa: E402

NAME = "half-open"
HELD, MOST = 700, 3
FORMS = ("silence", "one byte", "half a ClientHello", "a whole ClientHello", "all but the end of the handshake")


class Flood(threading.Thread):
    def __init__(self, port, form):
        super().__init__(daemon=True)
        self.port, self.form, self.socks, self.over, self.opened = port, form, collections.deque(), threading.Event(), 0
        self.start()

    def begin(self, sock):
        if self.form == "silence":
            return
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = CONTEXT.wrap_bio(incoming, outgoing, server_hostname=ADDRESS)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        sock.sendall(hello[:{"one byte": 1, "half a ClientHello": len(hello) // 2}.get(self.form, len(hello))])
        while self.form == FORMS[-1]:
            incoming.write(sock.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                sock.sendall(outgoing.read()[:-20])
                return

    def run(self):
        while not self.over.is_set():
            sock = socket.socket()
            sock.settimeout(0.2)
            self.socks.append(sock)
            with contextlib.suppress(OSError):
                sock.connect((ADDRESS, self.port))
                self.begin(sock)
            self.opened += 1
            if len(self.socks) > HELD:
                self.socks.popleft().close()

    def close(self):
        self.over.set()
        self.join(20)
        for sock in self.socks:
            sock.close()


def newcomer(server):
    """Seconds until it has its echo. One that loses its place comes again, as a client does."""
    command = LAB.connect_words(server, "--busy-retry-ms", "3000", "-e", "send hello")
    began = time.monotonic()
    while True:
        result = subprocess.run(command, env=LAB.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        took = time.monotonic() - began
        if result.returncode == 0 or took > 4 * MOST:
            return took


def told(times):
    return f"p50 {statistics.median(times):.2f} s, p99 {max(times):.2f} s"


def attack(form):
    server = LAB.serve("--log-level", "error")
    began = time.monotonic()
    newcomer(server)
    alone = [newcomer(server) for _ in range(COUNT)]
    flood = Flood(server.port, form)
    while flood.opened < (HELD if form != FORMS[-1] else 100):
        time.sleep(0.05)
    flooded = [newcomer(server) for _ in range(COUNT)]
    flood.close()
    server.stop()
    LAB.report(NAME, "the port", "nothing", "securdma", "an address with more than its share of places has no grace; the oldest of it makes room",
               f"{HELD} connections from one address: {form}", "failed", max(flooded) > MOST, seconds=time.monotonic() - began,
               note=f"{COUNT} newcomers from the same address: {told(flooded)}; undisturbed {told(alone)}")


ARGUMENTS = rig.options(__doc__)
COUNT = 5 if ARGUMENTS.short else 30
LAB = Loopback(ARGUMENTS)
LAB.certificates()
CONTEXT = channel.context("client", f"{LAB.folder}/honest.crt", f"{LAB.folder}/honest.key", f"{LAB.folder}/ca.crt")
for some_form in FORMS:
    attack(some_form)
LAB.end()
