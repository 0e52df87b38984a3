# SPDX-License-Identifier: Apache-2.0
"""What a service manager meets: stops, sockets that it hands over, its states, logs for the journal, reloads with an answer."""
import os
import signal
import socket
import time

import protocol
import pytest
from conftest import STEP, Server


class Manager:
    """The end of NOTIFY_SOCKET that a service manager has."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path)}

    def wait(self, part):
        """The next that it is told with `part` in it."""
        deadline = time.monotonic() + STEP
        heard = []
        while time.monotonic() < deadline:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                heard.append(self.socket.recv(4096).decode())
            except TimeoutError:
                break
            if part in heard[-1]:
                return heard[-1]
        pytest.fail(f"{part!r} was not told, but {heard}")

    def close(self):
        self.socket.close()


@pytest.fixture
def manager(start, tmp_path):
    return start(Manager, tmp_path / "notify")


def managed(start, certs, device, manager, *args, **more):
    return start(Server, certs, device, *args, env=dict(os.environ, **manager.environment), **more)


# ---- stops ------------------------------------------------------------------------------------------------------------


def begin_stop(server, manager):
    server.signal(signal.SIGTERM)
    manager.wait("STOPPING=1")


def expect_silence(channel):
    channel.settimeout(0.5)
    with pytest.raises(TimeoutError):
        channel.recv(1)
    channel.settimeout(STEP)


def hello(certs):
    return protocol.hello(gid=protocol.gid(certs.host))


def test_client_between_welcome_and_ready_hears_of_the_stop(certs, device, start, manager):
    server = managed(start, certs, device, manager, "--drain-timeout-ms", "60000")
    with protocol.open_tls(certs, server.port, STEP) as channel:
        channel.sendall(hello(certs))
        assert protocol.read_frame(channel)[0] == protocol.WELCOME
        begin_stop(server, manager)
        expect_silence(channel)
        channel.sendall(protocol.frame(protocol.READY))
        kind, _, body = protocol.read_frame(channel)
        assert (kind, body["text"]) == (protocol.DISCONNECT, "the server is shutting down")
        channel.sendall(protocol.disconnect(protocol.DISCONNECT_ACK))
        assert protocol.read_frame(channel)[0] == protocol.FINISH
    assert server.wait() == 0


def test_client_before_hello_hears_of_the_stop(certs, device, start, manager):
    server = managed(start, certs, device, manager, "--drain-timeout-ms", "60000")
    with protocol.open_tls(certs, server.port, STEP) as channel:
        # Its handshake is over at the server, too.
        server.wait_status(pending=1)
        begin_stop(server, manager)
        expect_silence(channel)
        channel.sendall(hello(certs))
        kind, _, body = protocol.read_frame(channel)
        assert (kind, body["reason"]) == (protocol.REJECT, protocol.REASONS["draining"])
        assert body["text"] == "the server is shutting down"
    assert server.wait() == 0


def test_nobody_in_set_up_holds_a_stop_up(certs, device, start, manager):
    """Silent, in the middle of the handshake, and never READY: the last one has half of the time."""
    server = managed(start, certs, device, manager, "--drain-timeout-ms", "4000")
    socks = [socket.create_connection((certs.host, server.port), STEP) for _ in range(2)]
    socks[1].sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    socks.append(protocol.open_tls(certs, server.port, STEP))
    socks[2].sendall(hello(certs))
    assert protocol.read_frame(socks[2])[0] == protocol.WELCOME
    begin = time.monotonic()
    begin_stop(server, manager)
    assert server.wait() == 0 and time.monotonic() - begin > 1
    assert server.log().count("given up: shutting down") == 3
    for sock in socks:
        sock.close()
