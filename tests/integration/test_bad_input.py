# SPDX-License-Identifier: Apache-2.0
"""What must not work: each case has a clear message, frees what it had, and leaves the client beside it unharmed."""
import contextlib
import re
import socket
import ssl
import threading
import time
import warnings

import protocol
import pytest
from conftest import (SCALE, SECURDMA, STEP, Client, Process, Server, client_args, connect, connect_json, expect_idle, resources, run,
                      server_with_neighbour, wait_until)

SETUP_MS = int(1500 * SCALE)
MAX_PENDING = 8


# ---- one server for all, with a neighbour ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(certs, device):
    """A server and, on it, a client that must not notice anything."""
    with server_with_neighbour(certs, device, "--setup-timeout-ms", SETUP_MS, "--max-pending", MAX_PENDING) as server:
        yield server


@pytest.fixture
def served(shared, device):
    """The shared server; each test must leave it idle."""
    shared.mark = len(shared.log())
    yield shared
    expect_idle(shared, device)


def tells(server, text):
    """The server's log since the test began has a line with this."""
    return server.wait_log(text, server.mark)


def until_closed(sock):
    """Reads until the peer ends the connection, and returns what came."""
    data = b""
    try:
        while part := sock.recv(4096):
            data += part
    except (ConnectionResetError, ssl.SSLError) as error:
        # A socket's time-out would be a TimeoutError: then the peer did not end it.
        assert not isinstance(error, TimeoutError)
    return data


# ---- on the TLS port ---------------------------------------------------------------------------------------------------


def old_tls(certs, version):
    context = protocol.client_context(certs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version
        context.maximum_version = version
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    return context


def test_tls12_is_served_when_both_allow_it(certs, device, start):
    server = start(Server, certs, device, "--allow-tls12")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        protocol.open_tls(certs, server.port, STEP, old_tls(certs, ssl.TLSVersion.TLSv1_1)).close()
    with protocol.open_tls(certs, server.port, STEP, old_tls(certs, ssl.TLSVersion.TLSv1_2)) as channel:
        assert channel.version() == "TLSv1.2"
        channel.sendall(protocol.hello(gid=protocol.gid(certs.host)))
        assert protocol.read_frame(channel)[0] == protocol.WELCOME
    # Two that could do with 1.2 still take 1.3.
    answer = connect_json(certs, server.port, "--allow-tls12", "-e", "send x")
    assert (answer["code"], answer["tls_version"]) == (0, "TLSv1.3")
    server.stop()


def welcome(certs, **fields):
    return protocol.hello(protocol.WELCOME, **dict({"gid": protocol.gid(certs.host), "client_id": 1}, **fields))


@pytest.mark.parametrize("allow", [False, True])
def test_client_takes_tls12_only_when_told_to(certs, start, allow):
    def behave(channel):
        channel.sendall(protocol.reject(protocol.REASONS["refused"], text=b"12"))
        until_closed(channel)

    server = start(protocol.FakeServer, certs, behave, maximum=ssl.TLSVersion.TLSv1_2)
    result = connect(certs, server.port, *(["--allow-tls12"] if allow else []), "-e", "stat")
    assert result.returncode == (5 if allow else 4), result.stderr
    assert ("(refused): 12" if allow else "protocol version") in result.stderr


@pytest.mark.parametrize("alpn", [(), ("h2",)], ids=str)
def test_server_that_is_not_securdma_is_refused(certs, start, alpn):
    server = start(protocol.FakeServer, certs, until_closed, alpn=alpn)
    result = connect(certs, server.port, "-e", "stat")
    assert result.returncode == 4
    assert "does not speak securdma/1" in result.stderr


@pytest.mark.parametrize("groups, shares, padding, words", [
    (12, 1, 0, None), (63, 1, 7000, None), (64, 1, 0, "more than 64 groups"), (1800, 800, 0, "more than 64 groups"), (12, 1, 60000, "8192 bytes"),
    # To OpenSSL each share is one more search in the list of groups: 57 ms for 65 KB.
    (16000, 6500, 0, "8192 bytes")])
def test_client_hello_is_answered_up_to_its_limits(served, certs, groups, shares, padding, words):
    with socket.create_connection((certs.host, served.port), STEP) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(protocol.client_hello(protocol.UNKNOWN if shares > 1 else protocol.X25519, protocol.some_groups(groups), shares, padding))
        if words is None:
            assert protocol.read_exactly(sock, 1) == b"\x16"  # ServerHello
            return
        until_closed(sock)
    tells(served, words)


# ---- certificates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cert, text", [
    ("other-client", "certificate is not acceptable: "),
    ("expired-client", "certificate is not acceptable: certificate has expired"),
    ("server", "certificate is not acceptable: unsuitable certificate purpose"),
    (None, "showed no certificate"),
])
def test_bad_client_certificate_is_refused(served, certs, cert, text):
    """By the server; what securdma connect can tell by itself it does not even try."""
    if cert in ("expired-client", "server"):
        assert connect(certs, served.port, "-e", "stat", cert=cert).returncode == 2
        try:
            with protocol.open_tls(certs, served.port, STEP, protocol.client_context(certs, cert)) as channel:
                assert until_closed(channel) == b""
        except (ssl.SSLError, ConnectionError):
            pass
    else:
        result = connect(certs, served.port, "-e", "stat", cert=cert)
        assert result.returncode == 4, result.stderr
        assert "does not accept our certificate" in result.stderr
    tells(served, text)


def test_other_ca_of_the_client_refuses_the_server(served, certs):
    result = connect(certs, served.port, "-e", "stat", ca="other-ca")
    assert result.returncode == 4
    assert "certificate is not acceptable" in result.stderr
    tells(served, "does not accept our certificate")


def test_server_name_is_checked_instead_of_the_address(served, certs):
    assert connect(certs, served.port, "-e", "send x", "--server-name", "localhost").returncode == 0
    result = connect(certs, served.port, "-e", "stat", "--server-name", "elsewhere.invalid")
    assert result.returncode == 4
    assert "certificate is not for this name" in result.stderr


def test_self_signed_server_needs_its_pin(certs, device, start):
    server = start(Server, certs, device, cert="self")
    assert connect(certs, server.port, "--pin", certs.pin("self"), "-e", "send x", ca=None).returncode == 0
    result = connect(certs, server.port, "--pin", certs.pin("self2"), "-e", "stat", ca=None)
    assert result.returncode == 4
    assert "does not match the pin" in result.stderr
    # The right pin beside a CA that does not know the certificate: both must hold.
    assert connect(certs, server.port, "--pin", certs.pin("self"), "-e", "stat").returncode == 4
    server.stop()


# ---- HELLO -------------------------------------------------------------------------------------------------------------


def good(certs, **fields):
    return protocol.hello(**dict({"gid": protocol.gid(certs.host)}, **fields))


def test_gid_of_an_allowed_network_is_served(certs, device, start):
    server = start(Server, certs, device, "--gid-networks", "192.0.2.0/28,2001:db8::/32")
    for address, reason in (("192.0.2.15", None), ("2001:db8::7", "feature-or-resources"), ("192.0.2.16", "address"),
                            ("198.51.100.1", "address")):
        with protocol.open_tls(certs, server.port, STEP) as channel:
            channel.sendall(good(certs, gid=protocol.gid(address)))
            kind, _, body = protocol.read_frame(channel)
            if reason == "address":
                assert kind == protocol.REJECT and body["reason"] == protocol.REASONS["address"], (address, body)
            elif reason is None:
                # There may be no route to it, which only the device knows.
                assert kind == protocol.WELCOME or body["reason"] == protocol.REASONS["resources"], (address, body)
            else:
                assert kind == protocol.WELCOME or body["reason"] != protocol.REASONS["address"], (address, body)
    server.stop()


# ---- after HELLO -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_order, said", [(True, "closed the connection instead of saying READY"), (False, "closed the connection without giving a reason")])
def test_client_that_leaves_before_ready_is_freed(served, certs, in_order, said):
    with protocol.welcomed(certs, served, STEP) as channel:
        if in_order:
            channel.unwrap()
    tells(served, said)


def test_silent_clients_are_freed_at_the_deadline(served, certs):
    """Silent from the start, in the middle of the TLS handshake, after it, in the middle of HELLO, and before READY."""
    tcp = [socket.create_connection((certs.host, served.port), STEP) for _ in range(2)]
    tls = [protocol.open_tls(certs, served.port, STEP) for _ in range(3)]
    try:
        tcp[1].sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        tls[1].sendall(good(certs)[:50])
        tls[2].sendall(good(certs))
        assert protocol.read_frame(tls[2])[0] == protocol.WELCOME
        begin = time.monotonic()
        for sock in tcp + tls:
            until_closed(sock)
        assert time.monotonic() - begin < SETUP_MS / 1000 + STEP / 2
    finally:
        for sock in tcp + tls:
            sock.close()
    said = lambda: [served.log()[served.mark:].count(f"waiting for the client's {step}") for step in ("TLS handshake", "HELLO", "READY")]
    wait_until(lambda: said() == [2, 2, 1], lambda: served.log()[served.mark:])  # a connection is closed before its line is written


def test_flood_of_half_open_connections_keeps_nobody_out(served, certs):
    """More than there are places for, and a new one for each that is closed: a client gets in all the same."""
    socks, over = [], threading.Event()

    def flood():
        while not over.is_set():
            socks.append(socket.create_connection((certs.host, served.port), STEP))
            time.sleep(0.005)

    flooder = threading.Thread(target=flood)
    flooder.start()
    try:
        tells(served, "evicted because others wait: it had not authenticated")
        assert served.status()["pending"] <= 2 * MAX_PENDING
        for _ in range(3):
            assert connect(certs, served.port, "-e", "send x").returncode == 0
        served.neighbour.check()
    finally:
        over.set()
        flooder.join()
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("places, clients", [(1, "1 client,"), (2, "2 clients,")])
def test_busy_server_says_when_to_come_again(certs, device, start, places, clients):
    """Clients that are in the middle of their set-up hold all places."""
    server = start(Server, certs, device, "--max-pending", str(places), "--setup-timeout-ms", str(int(30000 * SCALE)))
    holders = [protocol.open_tls(certs, server.port, STEP) for _ in range(places)]
    try:
        answer = connect(certs, server.port, "--busy-retry-ms", "0", "-e", "send x")
        assert answer.returncode == 5, answer
        assert "(busy)" in answer.stderr and f"the server is setting up {clients} which is the maximum" in answer.stderr
        patient = start(Process, *client_args(certs, server.port, "--log-level", "info", "--busy-retry-ms",
                                              str(int(20000 * SCALE)), "-e", "send x"))
        patient.wait_log("is busy; trying again in")
    finally:
        for sock in holders:
            sock.close()
    assert patient.wait() == 0, patient.log()
    server.stop()


def test_rejected_clients_that_stay_hold_no_places(certs, device, start):
    """Each reads why, and keeps its connection open. There are more of them than places, of either kind."""
    server = start(Server, certs, device, "--max-pending", "2", "--max-clients", "1")
    neighbour = start(Client, certs, server.port)
    neighbour.check()
    held = []
    try:
        for _ in range(12):
            held.append(protocol.open_tls(certs, server.port, STEP))
            held[-1].sendall(good(certs))
            kind, _, body = protocol.read_frame(held[-1])
            assert kind == protocol.REJECT and "max-clients" in body["text"], (kind, body)
    finally:
        for channel in held:
            channel.close()
    server.stop()


# ---- what a server might say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [0, 40])
def test_silent_server_is_given_up_at_the_deadline(certs, start, said):
    def behave(channel):
        protocol.read_frame(channel)
        channel.sendall(welcome(certs)[:said])
        until_closed(channel)

    server = start(protocol.FakeServer, certs, behave)
    result = connect(certs, server.port, "-e", "stat", "--setup-timeout-ms", str(SETUP_MS))
    assert result.returncode == 3
    assert "timed out waiting for the peer" in result.stderr


# Options of a client, and why it fails. {}: a folder with certificates; the port is one that nobody listens on.
FAILURES = {
    "nobody listens": (["-e", "stat"], {}, 3, "Connection refused.*check that the server runs there"),
    "host that cannot be reached": (["-e", "stat", "--setup-timeout-ms", str(SETUP_MS)], {"host": "192.0.2.1"}, 3, "cannot connect to 192.0.2.1"),
    "name that does not resolve": (["-e", "stat"], {"host": "nosuch.invalid"}, 3, "cannot (find a host named|look up the host name).*nosuch.invalid|nosuch.invalid: "),
    "nothing to verify with": (["-e", "stat"], {"ca": None}, 2, "--ca or --pin"),
    **{f"pin {pin!r}": (["--pin", pin, "-e", "stat"], {"ca": None}, 2, "pin")
       for pin in ("", "sha256:", "sha256:" + "0" * 63, "sha256:" + "g" * 64, "md5:" + "0" * 64)},
    "no certificate": (["--cert", "/nonexistent", "--key", "{}/client.key", "-e", "stat"], {"cert": None}, 2, "/nonexistent.*No such file"),
    "no key": (["--cert", "{}/client.crt", "--key", "/nonexistent", "-e", "stat"], {"cert": None}, 2, "/nonexistent.*No such file"),
    "no CA": (["--ca", "/nonexistent", "-e", "stat"], {"ca": None}, 2, "/nonexistent.*No such file"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_work_is_told_to_the_client(certs, device, name):
    args, more, code, words = FAILURES[name]
    with socket.create_server((certs.host, 0)) as sock:
        port = sock.getsockname()[1]
    result = connect(certs, port, *(arg.format(certs.folder) for arg in args), **more)
    assert result.returncode == code and re.search(words, result.stderr), result


@pytest.mark.parametrize("args, words", [
    (["--pattern", "abc", "--count", "1", "--size", "4089"], "4089 bytes can't be echoed"),
    (["-e", "write 65535 ab"], "cannot write 2 bytes at offset 65535: the peer's region has 65536 bytes"),
])
def test_limit_of_the_connection_is_told_to_the_client(served, certs, args, words):
    result = connect(certs, served.port, *args)
    assert result.returncode == 1 and words in result.stderr


def test_client_makes_its_queue_pair_while_the_server_answers(certs, device, start):
    """This server answers nothing, not even the ClientHello; the client's queue pair is there all the same, and goes with the client."""
    before = resources(device)["qp"]
    with socket.create_server((certs.host, 0)) as silent:
        client = start(Process, *client_args(certs, silent.getsockname()[1], "-e", "stat", "--setup-timeout-ms", str(2 * SETUP_MS)))
        wait_until(lambda: resources(device)["qp"] == before + 1, "the client has made its queue pair")
        assert client.wait(STEP) == 3, client.log()
    assert "timed out waiting for the peer (TLS handshake)" in client.log(), client.log()
    assert resources(device)["qp"] == before


# ---- the surroundings --------------------------------------------------------------------------------------------------


def test_port_in_use_is_told(served, certs, device):
    result = run(SECURDMA, "serve", "--port", str(served.port), "--cert", certs.cert("server"), "--key", certs.key("server"),
                 "--client-ca", certs.cert("ca"))
    assert result.returncode == 1
    assert f"port {served.port}: Address already in use" in result.stderr and "another port" in result.stderr


@pytest.mark.parametrize("command", ["serve", "connect"])
def test_unknown_device_is_told(certs, device, command):
    args = ["--client-ca", certs.cert("ca"), "--port", "0"] if command == "serve" else ["--ca", certs.cert("ca"), certs.host]
    cert = "server" if command == "serve" else "client"
    result = run(SECURDMA, command, "--device", "nosuch", "--cert", certs.cert(cert), "--key", certs.key(cert), *args)
    assert result.returncode == 6
    assert "nosuch" in result.stderr


@pytest.mark.parametrize("port", ["banana", "70000", "-1", "0x50", "4433/tcp"])
def test_port_that_is_none_is_told(certs, device, port):
    own = ["--cert", certs.cert("server"), "--key", certs.key("server"), "--device", device.name]
    for command in (["connect", "--ca", certs.cert("ca"), "-e", "stat", "--", f"{certs.host}:{port}"],
                    ["serve", *own, "--client-ca", certs.cert("ca"), f"--port={port}"]):
        result = run(SECURDMA, *command)
        assert result.returncode == 2, result
        assert f"'{port}' is not a port; give a number from " in result.stderr


def test_region_without_end_does_not_make_the_client_read_into_no_memory(certs, device, start):
    """The length and one more is none at all: all that the server sends would be written there."""
    features = dict(features=5, region_size=2**64 - 1, region_access=4)

    def behave(channel):
        protocol.read_frame(channel)
        channel.sendall(protocol.hello(protocol.WELCOME, gid=protocol.gid(certs.host), client_id=1, **features))
        until_closed(channel)

    server = start(protocol.FakeServer, certs, behave)
    result = connect(certs, server.port, "--seal", "required", "--epoch-psns", "0", "--timeout-ms", "2000", "-e", "read 0 0xffffffffffffffff")
    assert result.returncode == 1 and "read: out of memory for" in result.stderr, result.stderr
