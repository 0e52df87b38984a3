# SPDX-License-Identifier: Apache-2.0
"""Peers with a valid certificate that never stop sending, or read nothing: no other client may notice, and this end still obeys its
operator. Each of these floods once kept every other client of its worker from any service."""
import collections
import contextlib
import itertools
import os
import resource
import signal
import socket
import threading
import time

import pytest

import protocol
from conftest import BUILD, SCALE, STEP, Client, Process, Server, connect, left_out_of, run, wait_until
from protocol import frames
from test_server import cpu
from test_service import Activated

KEY_UPDATES = os.path.join(BUILD, "tests", "integration", "key_updates")
COUNT, ASKED = 1, 2
# What another client may wait for an echo at most, at a machine that may be busy. The floods cost it 2 s and more, each time or for ever.
NOTICED = 1.5 * SCALE

pytestmark = [left_out_of("vm"), pytest.mark.limit(90)]


def request(number, reason=ASKED):
    return frames.EpochRequest(number, reason).encode()


def begin(number, reason=ASKED, sends=0):
    return frames.EpochBegin(number, reason, 0, sends).encode()


def parameters(number, psn):
    return frames.EpochParameters(number, qpn=0x123456, psn=psn).encode()


def ready(number):
    return frames.EpochReady(number).encode()


def greeting(certs):
    return protocol.hello(gid=protocol.gid(certs.host), features=frames.MESSAGES | frames.EPOCHS)


class Stranger:
    """A client of the exchange alone: its queue pair does not exist, and its TLS channel does what the test wants."""

    def __init__(self, certs, server, receive_buffer=None):
        sock = socket.socket()
        sock.settimeout(STEP)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect((certs.host, server.port))
        self.channel = protocol.client_context(certs).wrap_socket(sock, server_hostname=certs.host)
        self.channel.sendall(greeting(certs))
        kind, _, self.welcome = protocol.read_frame(self.channel)
        assert kind == protocol.WELCOME, self.welcome
        self.channel.sendall(protocol.frame(protocol.READY))
        self.id = self.welcome["client_id"]

    def flood(self, data, seconds):
        """Sends `data` again and again. True: until the server had enough of it."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.channel.sendall(data)
        except OSError:
            return True
        return False

    def close(self):
        with contextlib.suppress(OSError):
            self.channel.close()


class Honest:
    """Another client of the same worker, which measures what it waits for echoes."""

    def __init__(self, certs, server, start):
        self.client = start(Client, certs, server.port)
        self.longest, self.count = 0, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self):
        self.echo()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(STEP)

    def echo(self):
        lines = len(self.client.lines)
        began = time.monotonic()
        self.client.send_line(f"send {self.count}")
        self.client.wait_line(lambda line: f": {self.count}" in line, lines)
        self.longest = max(self.longest, time.monotonic() - began)
        self.count += 1

    def _talk(self):
        while not self.over.wait(0.01):
            self.echo()


@pytest.fixture
def one_worker(certs, device, start):
    return start(Server, certs, device, "--workers", "1", "--log-format", "json", "--max-clients", "20")


# ---- frames that cost nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame, said", [
    (request(1), "REQUEST twice"), (request(0), "REQUEST twice"), (request(99), "another number"), (begin(1), "BEGIN"),
    (frames.Withdraw().encode(), "does not offer"), (frames.Disconnect().encode(), "unexpected"),
    (frames.frame(frames.Type.DISCONNECT, length=512), "malformed")], ids=["same", "old", "new", "begin", "withdraw", "disconnect", "zeros"])
def test_flood_of_frames_ends_its_connection_alone(certs, one_worker, start, frame, said):
    stranger = start(Stranger, certs, one_worker)
    with Honest(certs, one_worker, start) as other:
        assert stranger.flood(frame * 500, 10 * SCALE), "the server takes it all"
        end = one_worker.end_of(stranger.id)
    assert end["cause"] == "protocol" and said in end["error"], end
    assert other.longest < NOTICED, other.longest


def test_dribbled_frame_holds_nobody_up(certs, one_worker, start):
    """Each byte is a record of its own, and each costs the server a read."""
    stranger = start(Stranger, certs, one_worker)
    stranger.channel.setblocking(True)
    frame = protocol.disconnect(protocol.DISCONNECT, text=b"x" * 127)
    with Honest(certs, one_worker, start) as other:
        for byte in frame[:-1]:
            stranger.channel.sendall(bytes([byte]))
        time.sleep(0.2)
        stranger.channel.sendall(frame[-1:])
        assert protocol.read_frame(stranger.channel)[0] == protocol.DISCONNECT_ACK
    assert other.longest < NOTICED, other.longest


# ---- KeyUpdates ---------------------------------------------------------------------------------------------------------


def key_updates(certs, server, seconds, *frames):
    return [KEY_UPDATES, certs.host, str(server.port), certs.cert("ca"), certs.cert("client"), certs.key("client"), str(seconds),
            *(frame.hex() for frame in frames)]


def test_flood_of_key_updates_ends_its_connection_alone(certs, one_worker, start):
    with Honest(certs, one_worker, start) as other:
        flood = start(Process, *key_updates(certs, one_worker, 10 * SCALE, greeting(certs), protocol.frame(protocol.READY)))
        assert flood.wait() == 0, flood.log()
        assert flood.lines[-2].endswith("closed"), flood.lines
        end = one_worker.end_of(2)
    assert end["cause"] == "protocol" and "TLS keys" in end["error"], end
    assert other.longest < NOTICED, other.longest


def test_flood_of_key_updates_before_hello_keeps_nobody_out(certs, device, start):
    server = start(Server, certs, device, "--log-format", "json", "--max-clients", "20")
    floods = [start(Process, *key_updates(certs, server, 10 * SCALE)) for _ in range(8)]
    for flood in floods:
        flood.wait_line(lambda line: line == "ready")
    began = time.monotonic()
    result = connect(certs, server.port, "-e", "send hello")
    took = time.monotonic() - began
    assert result.returncode == 0, result.stderr
    assert took < NOTICED, took
    for flood in floods:
        assert flood.wait() == 0 and flood.lines[-2].endswith("closed"), flood.lines


def test_few_key_updates_are_no_offence(certs, one_worker, start):
    """The server's own library answers what asks for an answer; a peer may change its keys now and then."""
    flood = start(Process, *key_updates(certs, one_worker, 0, greeting(certs), protocol.frame(protocol.READY)))
    assert flood.wait() == 0, flood.log()
    end = one_worker.end_of(1)
    assert end["cause"] == "lost", end


# ---- what this end is told meanwhile ------------------------------------------------------------------------------------


def frames_without_end(certs, server):
    with contextlib.closing(Stranger(certs, server)) as stranger:
        stranger.flood(request(1) * 500, 1)


def key_updates_without_end(certs, server):
    run(*key_updates(certs, server, 10, greeting(certs), protocol.frame(protocol.READY)))


def epochs_without_end(certs, server):
    with contextlib.closing(Stranger(certs, server)) as stranger:
        renew_blindly(stranger.channel, 0.02)


class Flooder(threading.Thread):
    """Comes again each time that the server ends its connection."""

    def __init__(self, certs, server, flood):
        super().__init__(daemon=True)
        self.certs, self.server, self.flood, self.over = certs, server, flood, threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            with contextlib.suppress(OSError, EOFError, AssertionError):
                self.flood(self.certs, self.server)
            self.over.wait(0.01)

    def close(self):
        self.over.set()
        self.join(STEP)


@pytest.mark.parametrize("flood", [frames_without_end, key_updates_without_end, epochs_without_end])
def test_server_stops_in_time_under_a_flood_and_logs_little(certs, one_worker, start, flood):
    with Honest(certs, one_worker, start) as other:
        flooder = start(Flooder, certs, one_worker, flood)
        wait_until(lambda: len(one_worker.status()["clients"]) > 1 or one_worker.status()["lost"] > 0, "a flood")
        began, size = time.monotonic(), len(one_worker.log())
        time.sleep(3)
        assert len(one_worker.log()) - size < (100 << 10) * (time.monotonic() - began)
    assert other.longest < NOTICED, other.longest
    began = time.monotonic()
    one_worker.signal(signal.SIGTERM)
    assert one_worker.wait() in (0, 8)  # 8: a client was lost while the server stopped
    assert time.monotonic() - began < 10 * SCALE
    flooder.close()


def test_client_keeps_its_deadline_when_the_server_floods(certs, device, start):
    """The server welcomes the client, and sends frames that this one need not act on."""
    def behave(channel):
        protocol.read_frame(channel)
        channel.sendall(protocol.hello(protocol.WELCOME, gid=protocol.gid(certs.host), features=frames.MESSAGES | frames.EPOCHS, client_id=1))
        protocol.read_frame(channel)
        while True:
            channel.sendall(request(1) * 500)

    server = start(protocol.FakeServer, certs, behave)
    began = time.monotonic()
    result = connect(certs, server.port, "--timeout-ms", "2000", "-e", "send hello", "-e", "send hello")
    assert result.returncode != 0 and "REQUEST twice" in result.stderr, result
    assert time.monotonic() - began < 8 * SCALE


def test_client_in_set_up_keeps_its_deadline_when_the_server_dribbles(certs, device, start):
    def behave(channel):
        protocol.read_frame(channel)
        while True:
            channel.sendall(b"\0")
            time.sleep(0.001)

    server = start(protocol.FakeServer, certs, behave)
    began = time.monotonic()
    result = connect(certs, server.port, "--setup-timeout-ms", "1000", "-e", "send hello")
    assert result.returncode in (3, 4), result
    assert time.monotonic() - began < 8 * SCALE


# ---- one that reads nothing ---------------------------------------------------------------------------------------------


def cramped_server(certs, device):
    """A server whose socket has as little room for what is to be sent as the kernel allows: a few frames instead of hundreds."""
    listening = socket.create_server((certs.host, 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    port = listening.getsockname()[1]
    server = Activated(certs, device, [listening], "--workers", "1", "--log-format", "json")
    server.port = port
    server.listening()
    return server


def renew_blindly(channel, pause):
    """One epoch after the other, without a look at the answers, until the server has enough. Its own steps take time that only the
    answers would tell."""
    with contextlib.suppress(OSError):
        for number in itertools.count(1):
            channel.sendall(request(number))
            time.sleep(4 * pause)
            for step in (begin(number), parameters(number, number), ready(number)):
                channel.sendall(step)
                time.sleep(pause)


def test_client_that_reads_nothing_holds_nobody_up(certs, device, start):
    server = start(cramped_server, certs, device)
    with Honest(certs, server, start) as other:
        for pause in (0.008, 0.02, 0.05, 0.1):
            stranger = start(Stranger, certs, server, receive_buffer=2304)
            renew_blindly(stranger.channel, pause)
            end = server.end_of(stranger.id)
            if end["cause"] != "protocol":  # else the machine is busy, and a frame came too early
                break
    assert other.longest < NOTICED, other.longest
    # On a busy machine the kernel may find out first.
    assert end["cause"] in ("timeout", "lost"), end


# ---- renewals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [COUNT, ASKED])
def test_renewals_are_not_faster_than_their_reason(certs, one_worker, start, reason):
    """Nobody has used up PSNs of a queue pair that does not exist."""
    stranger = start(Stranger, certs, one_worker)
    began, number = time.monotonic(), 0
    stranger.channel.settimeout(STEP)
    while time.monotonic() - began < 3:
        number += 1
        stranger.channel.sendall(request(number, reason))
        assert protocol.read_frame(stranger.channel)[0] == frames.Type.EPOCH_BEGIN
        stranger.channel.sendall(begin(number, reason) + parameters(number, number))
        assert protocol.read_frame(stranger.channel)[0] == frames.Type.EPOCH_PARAMETERS
        stranger.channel.sendall(ready(number))
        assert protocol.read_frame(stranger.channel)[0] == frames.Type.EPOCH_READY
    took = time.monotonic() - began
    assert number <= took / 0.005 + 2, (number, took)
    # 100 at once and 10 a second; and what was left out is told.
    def lines():
        return [event for event in one_worker.events("log") if "because" in event["message"]]

    assert 0 < len(lines()) <= 100 + 10 * (took + 1), len(lines())
    stranger.close()
    one_worker.end_of(stranger.id)
    one_worker.stop()
    left_out = sum(event["lines"] for event in one_worker.events("log.left_out"))
    assert left_out + len(lines()) == number, (left_out, len(lines()), number)


# ---- before anybody is known --------------------------------------------------------------------------------------------


class FromEverywhere(threading.Thread):
    """Silent connections from a hundred addresses of this host, more than the server has places for."""

    HELD = 6000

    def __init__(self, certs, port):
        super().__init__(daemon=True)
        self.address = (certs.host, port)
        self.socks, self.over, self.opened = collections.deque(), threading.Event(), 0
        self.start()

    def run(self):
        while not self.over.is_set():
            sock = socket.socket()
            sock.setblocking(False)
            self.socks.append(sock)
            with contextlib.suppress(OSError):
                sock.bind((f"127.0.1.{1 + self.opened % 100}", 0))
                sock.connect_ex(self.address)
            self.opened += 1
            if len(self.socks) > self.HELD:
                self.socks.popleft().close()
            if self.opened % 200 == 0:
                self.over.wait(0.02)

    def close(self):
        self.over.set()
        self.join(STEP)
        for sock in self.socks:
            sock.close()


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@left_out_of("asan", "tsan", "vm")
def test_flood_from_many_addresses_costs_no_more_than_one_from_one(certs, device, start, many_descriptors):
    """The work to choose which connection makes room must not grow with the square of the places: with 4,096 it took about 50 ms each."""
    server = start(Server, certs, device, "--max-pending", "2048")
    flood = start(FromEverywhere, certs, server.port)
    wait_until(lambda: server.status()["pending"] == 4096, "a server that is full")
    failed, used = server.status()["failed"], cpu(server)
    wait_until(lambda: cpu(server) - used > 1, "work", 30)
    made_room = server.status()["failed"] - failed
    flood.close()
    assert made_room > 1000 * (cpu(server) - used), (made_room, cpu(server) - used)
