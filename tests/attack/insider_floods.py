#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A client with a valid certificate keeps the thread that serves it busy: with frames without end, TLS KeyUpdates, epochs, or by reading
nothing. Measured: how long another client of the same worker waits for an echo at most, how long the server takes to stop at SIGTERM under the
flood, and how much it logs. An attack succeeds if the other client waits more than 1.5 s, the server takes more than 10 s to stop, or it
logs more than 100 KiB a second."""
import contextlib
import itertools
import os
import pathlib
import signal
import socket
import sys
import threading
import time

import lab as rig
from loopback import ADDRESS, Loopback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "peer"))
import channel  # noqa: E402
import frames  # noqa: E402
import session  # noqa: E402

NAME = "insider"
# Against a build from before it was written: that of another build.
KEY_UPDATES = os.environ.get("SECURDMA_KEY_UPDATES", os.path.join(rig.BUILD, "tests", "integration", "key_updates"))
MOST_WAIT, MOST_STOP, MOST_LOG = 1.5, 10, 100 << 10
# As little room for what is to be sent as the kernel allows: a few frames, where there would be hundreds.
CRAMPED = ("import os, socket, sys; s = socket.create_server((sys.argv[1], 0)); s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1); "
           "os.dup2(s.fileno(), 3); os.set_inheritable(3, True); "
           "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])")


class Honest:
    """Another client of the worker."""

    def __init__(self, server):
        self.client = LAB.start(*(word for word in LAB.connect_words(server) if word != "--json"), events=False)
        self.longest, self.count, self.pending = 0, 0, None
        self.over = threading.Event()
        if not self.echo(20):
            raise SystemExit(f"attack: the honest client gets no echo\n{self.client.log()}")
        self.thread = threading.Thread(target=self._talk, daemon=True)
        self.thread.start()

    def echo(self, timeout):
        self.pending = time.monotonic()
        self.client.say(f"send {self.count}")
        answered = self.client.next(lambda line: f": {self.count}" in line, timeout) is not None
        self.longest = max(self.longest, time.monotonic() - self.pending)
        self.pending = None
        self.count += 1
        return answered

    def _talk(self):
        with contextlib.suppress(OSError):
            while not self.over.wait(0.01) and self.echo(60):
                pass

    def waited(self):
        """At most, up to now."""
        pending = self.pending
        return max(self.longest, time.monotonic() - pending if pending else 0)


class Flooder(threading.Thread):
    """Comes again each time that it is turned out."""

    def __init__(self, server, flood):
        super().__init__(daemon=True)
        self.server, self.flood, self.over, self.rounds = server, flood, threading.Event(), 0
        self.start()

    def run(self):
        while not self.over.is_set():
            try:
                with stranger(self.server) as client:
                    self.flood(client, self.over)
            except (OSError, ValueError, channel.Ended, session.Rejected, frames.Breach):
                self.over.wait(0.02)
            self.rounds += 1


def stranger(server, receive_buffer=None):
    """Has no queue pair; its TLS channel is what floods."""
    client = session.Client(ADDRESS, server.port, CONTEXT, timeout=30)
    if receive_buffer:
        client.channel.tls.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.establish(features=frames.MESSAGES | frames.EPOCHS, message_size=4096, depth=16)
    return client


# ---- floods ------------------------------------------------------------------------------------------------------------


def same_request(client, over):
    data = frames.EpochRequest(1, frames.Renewal.PROGRAM).encode() * 500
    while not over.is_set():
        client.send_bytes(data)


def old_request(client, over):
    data = frames.EpochRequest(0, frames.Renewal.PROGRAM).encode() * 500
    while not over.is_set():
        client.send_bytes(data)


def renew_by_count(client, over):
    while not over.is_set():
        client.request_epoch(frames.Renewal.PSNS)


def read_nothing(client, over):
    """One epoch after the other, without a look at the answers."""
    for number in itertools.count(1):
        if over.is_set():
            return
        client.send_frame(frames.EpochRequest(number, frames.Renewal.PROGRAM))
        over.wait(0.08)
        for step in (frames.EpochBegin(number, frames.Renewal.PROGRAM, 0, 0), frames.EpochParameters(number, 0, 0, 0, 0x123456, number),
                     frames.EpochReady(number, 0)):
            client.send_frame(step)
            over.wait(0.02)


class KeyUpdates:
    """That flood is a program of its own: Python's ssl has no such call."""

    def __init__(self, server):
        self.server, self.over = server, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        greeting = frames.Hello(gid=frames.gid_of(ADDRESS), qpn=0x123456, psn=7, features=frames.MESSAGES, message_size=4096, depth=16).encode()
        words = [KEY_UPDATES, ADDRESS, self.server.port, *(f"{LAB.folder}/{name}" for name in ("ca.crt", "honest.crt", "honest.key")), 2,
                 greeting.hex(), frames.Ready(None).encode().hex()]
        while not self.over.is_set():
            rig.Program(words, events=False).status(30)


# ---- measuring -----------------------------------------------------------------------------------------------------------


def serve(cramped):
    words = ["--workers", "1"]
    if not cramped:
        return LAB.serve(*words)
    folder = LAB.certificates()
    server = LAB.start(sys.executable, "-c", CRAMPED, ADDRESS, rig.SECURDMA, "serve", "--json", "--log-format", "json", "--device", "uroce0",
                       "--max-clients", "64", "--cert", f"{folder}/server.crt", "--key", f"{folder}/server.key", "--client-ca",
                       f"{folder}/ca.crt", *words)
    server.port = server.must("listening")["port"]
    return server


def attack(tried, defence, flood, cramped=False):
    server = serve(cramped)
    other = Honest(server)
    began = time.monotonic()
    flooder = flood(server) if flood is KeyUpdates else Flooder(server, flood)
    time.sleep(SECONDS)
    waited = other.waited()
    size = len(server.log())
    signalled = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    stopped = server.status(30) is not None
    took = time.monotonic() - signalled
    flooder.over.set()
    other.over.set()
    server.stop()
    other.client.stop()
    with contextlib.suppress(RuntimeError):
        (flooder.thread if flood is KeyUpdates else flooder).join(5)
    LAB.report(NAME, "a client", "a valid certificate", "securdma", defence, tried, "failed",
               waited > MOST_WAIT or took > MOST_STOP or size > MOST_LOG * SECONDS, seconds=time.monotonic() - began,
               note=f"another client waited {waited:.2f} s at most in {SECONDS} s; {'stopped' if stopped else 'not stopped'} after {took:.1f} s; "
               f"{size >> 10} KiB logged")


ARGUMENTS = rig.options(__doc__)
SECONDS = 3 if ARGUMENTS.short else 10
LAB = Loopback(ARGUMENTS)
LAB.certificates()
CONTEXT = channel.context("client", f"{LAB.folder}/honest.crt", f"{LAB.folder}/honest.key", f"{LAB.folder}/ca.crt")
attack("EPOCH_REQUEST without end, with the number of an epoch that has been", "a second request with one number is a breach; 64 records a turn", old_request)
attack("the same EPOCH_REQUEST without end", "a second request with one number is a breach; 64 records a turn", same_request)
attack("TLS KeyUpdates without end", "8 in a minute", KeyUpdates)
attack("epochs without end, for used-up PSNs", "COUNT is believed as far as the own queue pair saw PSNs; log lines of one kind are limited", renew_by_count)
attack("epochs without end, and not a byte of the answers is read", "frames to a client wait in a buffer of its own, 2 s at most", read_nothing, cramped=True)
LAB.end()
