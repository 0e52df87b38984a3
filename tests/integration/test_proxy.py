# SPDX-License-Identifier: Apache-2.0
"""Behind a balancer: the PROXY header says who a client is, and nobody but a balancer may say so."""
import contextlib
import json
import re
import socket
import ssl
import struct
import threading
import time

import protocol
import pytest
from conftest import SCALE, SECURDMA, STEP, Client, Server, connect, connect_json, left_out_of, run, serve_args, wait_until
from test_observability import MeteredServer, events, wait_event

BALANCER, BALANCER6 = "127.0.0.2", "::1"
FAR = "198.51.100.7"  # a client on another host
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\0\0\0"
UNKNOWN = b"PROXY UNKNOWN\r\n"


def v1(source, port=50000):
    family, target = ("TCP6", "fd00::1") if ":" in source else ("TCP4", "10.0.0.1")
    return f"PROXY {family} {source} {target} {port} 4433\r\n".encode("ascii")


def v2(source, port=50000, more=b""):
    family, code, target = (socket.AF_INET6, 0x21, "fd00::1") if ":" in source else (socket.AF_INET, 0x11, "10.0.0.1")
    body = socket.inet_pton(family, source) + socket.inet_pton(family, target) + struct.pack("!HH", port, 4433) + more
    return SIGNATURE + struct.pack("!BBH", 0x21, code, len(body)) + body


def from_balancer(port, balancer=BALANCER):
    """A TCP connection of a balancer's. Nothing is said on it yet."""
    target = "::1" if ":" in balancer else "127.0.0.1"
    sock = socket.create_connection((target, port), STEP, source_address=(balancer, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def tls_through(certs, port, header, balancer=BALANCER, cert="client"):
    sock = from_balancer(port, balancer)
    try:
        sock.sendall(header)
        return protocol.client_context(certs, cert).wrap_socket(sock, server_hostname=certs.host)
    except BaseException:
        sock.close()
        raise


def answer_to_hello(channel, gid):
    channel.sendall(protocol.hello(gid=protocol.gid(gid)))
    kind, _, body = protocol.read_frame(channel)
    return kind, body


def connected(certs, port, header, gid, **more):
    """A TLS channel of a client that is connected, as far as the server can see."""
    channel = tls_through(certs, port, header, **more)
    kind, body = answer_to_hello(channel, gid)
    assert kind == protocol.WELCOME, body
    channel.sendall(protocol.frame(protocol.READY))
    return channel


def is_closed(sock):
    """Waits for the server to end the connection; True when it said nothing before."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def reset(sock):
    """Closes as HAProxy's checks do: RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Balancer:
    """Passes TCP connections on, each behind `header(address, port)` of its client."""

    def __init__(self, port, header):
        self.target, self.header = port, header
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets, self.threads = [], []
        self.clients = []
        self._spawn(self._accept)

    def _spawn(self, function, *args):
        self.threads.append(threading.Thread(target=function, args=args, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, address = self.listener.accept()
                self.clients.append("%s:%d" % address)
                server = from_balancer(self.target)
                server.settimeout(None)
                self.sockets += [client, server]
                server.sendall(self.header(*address))
                self._spawn(self._relay, client, server)
                self._spawn(self._relay, server, client)

    @staticmethod
    def _relay(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self):
        for sock in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self.threads:
            thread.join(STEP)


@pytest.fixture
def behind(certs, device, start):
    """A server behind a balancer; every line that it logs must have the form."""
    server = start(Server, certs, device, "--log-format", "json", "--proxy-networks", f"{BALANCER}/32, {BALANCER6}",
                   "--setup-timeout-ms", str(int(3000 * SCALE)))
    yield server
    server.stop()
    events(server)


# ---- who the client is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [v1, v2], ids=["v1", "v2"])
def test_client_works_through_a_balancer_and_is_known_by_its_own_address(behind, certs, start, header):
    balancer = start(Balancer, behind.port, header)
    answer = connect_json(certs, balancer.port, "--pattern", "abc", "--count", "20", host="127.0.0.1")
    assert answer["code"] == 0 and answer["messages_verified"] == 20, answer
    came = wait_event(behind, "client.connected")
    assert came["address"] == balancer.clients[0] and re.fullmatch(re.escape(BALANCER) + r":\d+", came["proxy"])
    assert f"from {came['address']} through {came['proxy']} as" in came["message"]
    assert wait_event(behind, "client.disconnected")["address"] == balancer.clients[0]
    client = start(Client, certs, balancer.port, host="127.0.0.1")
    wait_event(behind, "client.connected", client_id=client.id)
    assert [client["address"] for client in behind.status()["clients"]] == [balancer.clients[1]]
    client.check()
    client.leave()


def test_client_of_another_host_may_name_its_own_gid_and_no_other(behind, certs):
    # The device has certs.host's GID, but the client does not say that it is on this host.
    for other in (certs.host, BALANCER, "127.0.0.1", "198.51.100.8"):
        with tls_through(certs, behind.port, v2(FAR)) as channel:
            kind, body = answer_to_hello(channel, other)
        assert (kind, body["reason"]) == (protocol.REJECT, protocol.REASONS["address"])
    event = wait_event(behind, "client.not_connected")
    assert (event["address"], event["reason"], event["security"]) == (f"{FAR}:50000", "address", True)
    assert event["proxy"].startswith(BALANCER + ":") and event["phase"] == "hello"


@pytest.mark.parametrize("header", [v1, v2], ids=["v1", "v2"])
@pytest.mark.parametrize("balancer", [BALANCER, BALANCER6])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_both_families_of_client_and_balancer(behind, certs, device, header, balancer, family):
    address = getattr(device, family)
    if not address:
        pytest.skip("the device has no such GID")
    # The GID of the server is of the client's family, however its balancer comes.
    with tls_through(certs, behind.port, header(address), balancer) as channel:
        kind, welcome = answer_to_hello(channel, address)
        assert kind == protocol.WELCOME, welcome
        assert (welcome["gid"][:12] == bytes(10) + b"\xff\xff") == (family == "ipv4")
        channel.sendall(protocol.frame(protocol.READY))
        shown = f"[{address}]:50000" if family == "ipv6" else f"{address}:50000"
        assert wait_event(behind, "client.connected")["address"] == shown
    behind.wait_status(connected=0)


@pytest.mark.parametrize("header", [v1(FAR), v2(FAR), v2(FAR, more=b"\x04\0\x0b" + bytes(11))], ids=["v1", "v2", "v2-more"])
def test_header_may_come_in_single_bytes(behind, certs, header):
    with from_balancer(behind.port) as sock:
        for byte in header:
            sock.sendall(bytes([byte]))
            time.sleep(0.002)
        with protocol.client_context(certs).wrap_socket(sock, server_hostname=certs.host) as channel:
            assert answer_to_hello(channel, "198.51.100.8")[1]["reason"] == protocol.REASONS["address"]
    assert wait_event(behind, "client.not_connected")["address"] == f"{FAR}:50000"


@pytest.mark.parametrize("header", [v1(FAR), v2(FAR), LOCAL, UNKNOWN], ids=["v1", "v2", "local", "unknown"])
def test_no_byte_behind_the_header_is_lost(behind, certs, header):
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = protocol.client_context(certs).wrap_bio(to_client, to_server, server_hostname=certs.host)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with from_balancer(behind.port) as sock:
        sock.sendall(header + to_server.read())
        assert sock.recv(3) == b"\x16\x03\x03"  # ServerHello


def test_limit_for_one_address_is_for_the_clients_own(certs, device, start):
    server = start(Server, certs, device, "--log-format", "json", "--proxy-networks", BALANCER, "--max-clients-per-address", "1")
    # Loopback addresses through a loopback balancer: clients of this host, whose GID is the device's.
    first = connected(certs, server.port, v2("127.0.0.5"), certs.host)
    wait_event(server, "client.connected", address="127.0.0.5:50000")
    with tls_through(certs, server.port, v2("127.0.0.5", 50001)) as channel:
        kind, body = answer_to_hello(channel, certs.host)
        assert (kind, body["reason"]) == (protocol.REJECT, protocol.REASONS["full"])
    event = wait_event(server, "client.not_connected")
    assert (event["address"], event["limit"], event["security"]) == ("127.0.0.5:50001", "address", True)
    second = connected(certs, server.port, v1("127.0.0.6"), certs.host)
    wait_event(server, "client.connected", address="127.0.0.6:50000")
    first.close()
    second.close()
    server.wait_status(connected=0)
    server.stop()


# ---- who may say so ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [v1("127.0.0.5"), v2("127.0.0.5"), LOCAL, UNKNOWN], ids=["v1", "v2", "local", "unknown"])
def test_header_from_anywhere_else_is_refused(behind, header):
    with socket.create_connection(("127.0.0.1", behind.port), STEP, source_address=("127.0.0.3", 0)) as sock:
        sock.sendall(header)
        # What TLS makes of it: an alert, or nothing.
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) in (b"", b"\x15")
        event = wait_event(behind, "client.not_connected")
    assert (event["phase"], event["result"], event["reason"]) == ("tls", "failed", "tls")
    assert event["address"].startswith("127.0.0.3:") and "proxy" not in event


def test_clients_from_anywhere_else_need_no_header(behind, certs):
    assert connect(certs, behind.port, "-e", "send x", host="127.0.0.1").returncode == 0
    assert "proxy" not in wait_event(behind, "client.connected")


def test_balancer_that_sends_no_header_is_refused(behind, certs):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_through(certs, behind.port, b"")
    event = wait_event(behind, "client.not_connected")
    assert (event["phase"], event["reason"], event["security"]) == ("proxy", "protocol", True)
    assert "no PROXY header" in event["error"] and "send-proxy-v2" in event["error"]


def test_no_header_is_taken_unless_asked_for(server):
    with from_balancer(server.port) as sock:
        sock.sendall(v2("127.0.0.5"))
        server.wait_log("not connected: TLS failed (handshake)")


# tests/unit/net/test_proxy.c has every other malformed header.
@pytest.mark.parametrize("said", [b"\0\xff\x13\x37" * 64, v1("198.51.100.300"), v2("224.0.0.1"), SIGNATURE + b"\x21\x11\xff\xff"],
                         ids=["garbage", "line", "multicast", "longest"])
def test_malformed_header_is_a_security_event(behind, said):
    with from_balancer(behind.port) as sock:
        sock.sendall(said)
        assert is_closed(sock)
    event = wait_event(behind, "client.not_connected")
    assert (event["phase"], event["result"], event["reason"]) == ("proxy", "failed", "protocol")
    assert event["security"] is True and event["level"] == "warning" and event["address"].startswith(BALANCER + ":")
    assert "PROXY header" in event["error"] and behind.wait_status(failed=1)


# ---- balancers that say nothing ------------------------------------------------------------------------------------------


@left_out_of("asan")
@pytest.mark.parametrize("said, phase, who", [
    (b"", "proxy", BALANCER), (v2(FAR)[:20], "proxy", BALANCER), (v1(FAR)[:-1], "proxy", BALANCER),
    (v2(FAR), "tls", f"{FAR}:50000"), (LOCAL, "tls", BALANCER),
], ids=["nothing", "half", "all-but-one", "header", "local"])
def test_silence_ends_at_the_deadline(behind, said, phase, who):
    begin = time.monotonic()
    with from_balancer(behind.port) as sock:
        sock.sendall(said)
        assert is_closed(sock)
    assert 2 * SCALE < time.monotonic() - begin < 10 * SCALE
    event = wait_event(behind, "client.not_connected")
    assert (event["phase"], event["reason"]) == (phase, "timeout") and event["address"].startswith(who)
    behind.wait_status(failed=1)


@pytest.mark.parametrize("said", [b"", v1(FAR)[:20], v2(FAR)], ids=["nothing", "half", "header"])
def test_silent_ones_make_room(certs, device, start, said):
    server = start(Server, certs, device, "--max-pending", "1", "--proxy-networks", BALANCER)
    silent = [from_balancer(server.port) for _ in range(5)]
    for sock in silent:
        sock.sendall(said)
    assert connect(certs, server.port, "-e", "send x", host="127.0.0.1").returncode == 0
    assert "it had not authenticated" in server.wait_log("evicted because others wait")
    for sock in silent:
        sock.close()
    server.stop()


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
def test_health_checks_are_no_failures(certs, device, start, end):
    server = start(Server, certs, device, "--log-level", "debug", "--proxy-networks", BALANCER)
    said = [b"", LOCAL, UNKNOWN, v1(BALANCER), v2(BALANCER)]
    for index in range(25):
        sock = from_balancer(server.port)
        sock.sendall(said[index % 5])
        # As soon as it is connected, or once the server has read what it said.
        time.sleep(0 if index < 10 else 0.02)
        end(sock)
    wait_until(lambda: server.log().count("a balancer's health check") == 25, lambda: server.log())
    status = server.wait_status(pending=0)
    assert (status["failed"], status["rejected"], status["accepted"]) == (0, 0, 0)
    assert not re.search(" (warning|info): ", server.log())
    assert connect(certs, server.port, "-e", "send x", host="127.0.0.1").returncode == 0
    server.stop()


@pytest.mark.parametrize("said, phase", [(v2(FAR), "tls"), (v1(FAR)[:9], "proxy"), (LOCAL + b"\x16\x03\x01", "tls")],
                         ids=["client", "half", "began"])
def test_what_is_no_health_check_is_a_failure(behind, said, phase):
    with from_balancer(behind.port) as sock:
        sock.sendall(said)
        time.sleep(0.1)
    event = wait_event(behind, "client.not_connected")
    assert (event["phase"], event["reason"], event["level"]) == (phase, "lost", "warning")
    behind.wait_status(failed=1)


def test_balancers_own_connection_is_served_under_its_address(behind, certs):
    for header in (LOCAL, UNKNOWN):
        channel = connected(certs, behind.port, header, certs.host)
        event = wait_event(behind, "client.connected", address="%s:%d" % channel.getsockname())
        assert "proxy" not in event
        channel.close()
    behind.wait_status(connected=0)


# ---- whether to send clients here ----------------------------------------------------------------------------------------


def test_readiness_is_told_until_the_server_drains(certs, device, start, tmp_path):
    control = tmp_path / "control"
    server = start(MeteredServer, certs, device, "--control", control)

    def ask(method="GET"):
        status, _, body = server.ask(method, "/ready")
        return status, body

    assert ask() == (200, b"ready\n") and ask("HEAD") == (200, b"") and ask("POST")[0] == 405
    client = start(Client, certs, server.port)
    assert run(SECURDMA, "drain", "--control", control).returncode == 0
    assert ask() == (503, b"draining\n") and ask("HEAD") == (503, b"")
    client.leave()
    assert server.wait() == 0


# ---- settings ------------------------------------------------------------------------------------------------------------


def test_proxy_networks_can_stand_in_the_configuration_file(certs, device, start, tmp_path):
    config = tmp_path / "securdma.conf"
    config.write_text(f"[server]\nproxy-networks = {BALANCER}, fd00::/8\n")
    server = start(Server, certs, device, "--config", config)
    with from_balancer(server.port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert is_closed(sock)
    server.wait_log("no PROXY header")
    server.stop()


def test_client_says_what_to_do_about_a_servers_gid(certs, start):
    def behave(channel):
        protocol.read_frame(channel)
        channel.sendall(protocol.hello(protocol.WELCOME, gid=protocol.gid(FAR), client_id=1))
        channel.recv(1)

    server = start(protocol.FakeServer, certs, behave)
    result = connect(certs, server.port, "--gid-networks", "192.0.2.0/24", "-e", "send x")
    assert result.returncode == 4, result.stderr
    assert f"the server's GID {FAR} is neither" in result.stderr and "behind a balancer" in result.stderr
