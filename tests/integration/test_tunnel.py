# SPDX-License-Identifier: Apache-2.0
"""`securdma tunnel`: TCP connections through a server to its targets, what ends them, and who may use which."""
import contextlib
import ctypes
import hashlib
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import pytest

from conftest import ON_UROCE, SECURDMA, STEP, Process, free_port, run, sanitizer_library, wait_until

PROTECTIONS = [[], ["--seal", "required", "--epoch-ms", "200"]]


class Target:
    """A TCP server in this process; `serve` gets each connection in a thread of its own."""

    def __init__(self, serve):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.serve = serve
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                connection.settimeout(STEP)
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def close(self):
        self.listener.close()


def echo(connection):
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def settings(targets, *more):
    lines = [f"{name} = 127.0.0.1:{port}" for name, port in targets.items()]
    return "\n".join(["[connection]", "region-size = 256K", *more, "[tunnel-targets]", *lines, ""])


class Tunnel(Process):
    def __init__(self, certs, server, target, *args, cert="client"):
        super().__init__(SECURDMA, "tunnel", "--ca", certs.cert("ca"), "--cert", certs.cert(cert), "--key", certs.key(cert), "--json",
                         "--log-level", "info", *args, "127.0.0.1:0", f"{certs.host}:{server.port}", target)
        self.port = json.loads(self.wait_line(lambda line: "listening" in line))["port"]

    def close(self):
        """In order, if the test has left it running: the server would count its connections as lost ones."""
        if self.process.poll() is None:
            self.terminate()
        super().close()

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(STEP)
        return connection


@pytest.fixture
def join(certs, device, serve):
    """Starts the client's end of a tunnel; it is gone before the server is looked at."""
    started = []

    def make(server, target, *args, **options):
        started.append(Tunnel(certs, server, target, *args, **options))
        return started[-1]

    yield make
    for one in started:
        print(one.process.args, "the end of its log:", *one.log().splitlines()[-20:], sep="\n  ")
        one.close()


@pytest.fixture
def tunnel(serve, start, join):
    """Both ends, and a target."""
    def make(target="echo", targets=None, allow="*", seal=(), more=()):
        text = settings(targets or {"echo": start(Target, echo).port}, *more, "[tunnel]", f"allow = {allow}")
        server = serve(text, *seal)
        return join(server, target, *seal), server
    return make


def is_broken(connection):
    """Whether the connection ends in an error, and not in the end of its data."""
    try:
        connection.sendall(b"x")
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        raise
    except OSError:
        return True
    return False


def read_all(connection):
    parts = []
    while data := connection.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


@pytest.mark.parametrize("seal", PROTECTIONS, ids=["plain", "sealed, epochs"])
def test_bytes_and_half_close_go_both_ways(tunnel, seal):
    ours, server = tunnel(seal=seal)
    data = random.Random(1).randbytes(3_000_000)
    received = []

    def use(connection):
        reader = threading.Thread(target=lambda: received.append(read_all(connection)))
        reader.start()
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        reader.join(STEP)

    with ours.connect() as first, ours.connect() as second:
        other = threading.Thread(target=use, args=(second,))
        other.start()
        use(first)
        other.join(STEP)
    assert [hashlib.sha256(part).digest() for part in received] == [hashlib.sha256(data).digest()] * 2
    closed = [json.loads(server.wait_log('"event":"tunnel.closed"'))]
    assert closed[0]["bytes_to_target"] == closed[0]["bytes_from_target"] == len(data) and closed[0]["target"] == "echo"
    wait_until(lambda: len(ours.log().splitlines()) >= 4, ours.log)
    ours.terminate()


def test_target_that_does_not_read_holds_the_sender_up(tunnel, start):
    held = []
    ours, _ = tunnel(targets={"echo": start(Target, held.append).port})
    with ours.connect() as connection:
        connection.setblocking(False)
        sent, still = 0, time.monotonic() + 0.5
        while time.monotonic() < still:
            try:
                sent += connection.send(bytes(1 << 16))
                still = time.monotonic() + 0.5
            except BlockingIOError:
                time.sleep(0.01)
        # The ring, the buffers, and what the kernel keeps at both ends.
        assert sent < 40 << 20
        wait_until(lambda: held, lambda: "the target's connection")
        held[0].setblocking(True)
        connection.setblocking(True)
        connection.shutdown(socket.SHUT_WR)
        assert len(read_all(held[0])) == sent
        held[0].close()
        assert connection.recv(1) == b""


def test_target_that_refuses_or_breaks_is_told_as_an_error(tunnel, start, join):
    def reset(connection):
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    ours, server = tunnel("nobody", {"nobody": free_port("127.0.0.1"), "reset": start(Target, reset).port})
    with ours.connect() as connection:
        assert is_broken(connection)
    assert "Connection refused" in server.wait_log('"event":"tunnel.closed"')
    assert "cannot connect to the target: Connection refused" in ours.wait_log("closed")
    with join(server, "reset").connect() as connection:
        assert is_broken(connection)


def test_each_identity_has_its_targets(tunnel, join):
    ours, server = tunnel(allow="other", more=("[identity client one]", "tunnel-allow = other, echo"))
    with ours.connect() as connection:
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
    for target, cert in (("echo", "client2"), ("no-such", "client")):
        other = join(server, target, cert=cert)
        with other.connect() as connection:
            assert is_broken(connection)
        assert "may not use such a target" in other.wait_log("tunnel", 0)
    # A reload takes the right away, and leaves what is open.
    with ours.connect() as before:
        before.sendall(b"x")
        assert before.recv(1) == b"x"
        server.reload(server.path.read_text(encoding="utf-8").replace("other, echo", "other"))
        with ours.connect() as connection:
            assert is_broken(connection)
        before.sendall(b"y")
        assert before.recv(1) == b"y"


@pytest.mark.parametrize("killed", ["server", "client"])
def test_end_that_is_killed_breaks_the_connections(tunnel, start, killed):
    ends = []

    def note(connection):
        connection.sendall(b"!")
        ends.append(is_broken(connection))

    ours, server = tunnel(targets={"echo": start(Target, note).port})
    with ours.connect() as connection:
        assert connection.recv(1) == b"!"
        if killed == "server":
            server.kill()
        else:
            os.kill(ours.pid, signal.SIGKILL)
        assert is_broken(connection) or killed == "client"
    wait_until(lambda: ends, lambda: "the target's end")
    assert ends == [True]
    if killed == "client":
        server.wait_status(connected=0)


def test_more_connections_wait_for_their_turn(serve, start, join):
    server = serve(settings({"echo": start(Target, echo).port}, "[tunnel]", "allow = echo"))
    ours = join(server, "echo", "--max-connections", "1")
    with ours.connect() as first, ours.connect() as second:
        first.sendall(b"1")
        assert first.recv(1) == b"1"
        second.sendall(b"2")
        second.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.recv(1)
        second.settimeout(STEP)
        first.close()
        assert second.recv(1) == b"2"
        ours.signal(signal.SIGTERM)
        assert is_broken(second)
    assert ours.wait() == 0


def use_echo(connection, number):
    word = b"%d" % number
    connection.sendall(word)
    assert connection.recv(len(word)) == word


def test_connections_that_find_the_server_full_wait_for_room(serve, start, join):
    server = serve(settings({"echo": start(Target, echo).port}, "[server]", "max-clients = 2", "[tunnel]", "allow = echo"))
    ours = join(server, "echo", "--busy-retry-ms", str(int(STEP * 1000)))
    waiting = [ours.connect() for _ in range(6)]
    with contextlib.ExitStack() as stack:
        for connection in waiting:
            stack.enter_context(connection)
        ours.wait_log("waits up to")
        # Whichever two have room; when they go, others get it.
        left = set(waiting)
        for connection in waiting:
            connection.sendall(b"x")
        while left:
            ready = select.select(list(left), [], [], STEP)[0]
            assert ready
            for connection in ready:
                assert connection.recv(1) == b"x"
                connection.close()
                left.remove(connection)


def test_connection_that_finds_no_room_in_time_is_reset(serve, start, join):
    server = serve(settings({"echo": start(Target, echo).port}, "[server]", "max-clients = 1", "[tunnel]", "allow = echo"))
    ours = join(server, "echo", "--busy-retry-ms", "300")
    with ours.connect() as first:
        use_echo(first, 1)
        with ours.connect() as second:
            assert is_broken(second)
        assert "which is the maximum" in ours.wait_log("cannot carry a connection") and "waits up to" in ours.log()
        use_echo(first, 2)
        # One whose program goes away waits no longer.
        third = ours.connect()
        third.close()
        use_echo(first, 3)


def landlock_limits_ports():
    """As the server finds it: not where a sanitizer is in it."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1) >= 4 and not sanitizer_library()


def test_reload_tells_of_targets_that_the_sandbox_forbids(serve, start, join):
    first, other = start(Target, echo), start(Target, echo)
    server = serve(settings({"echo": first.port}, "[tunnel]", "allow = *"))
    server.reload(settings({"echo": first.port, "new": other.port, "again": first.port}, "[tunnel]", "allow = *"))
    warned = f"port {other.port} yet: the target 'new' takes effect at the next start" in server.log()
    assert warned == landlock_limits_ports(), server.log()
    assert "'again'" not in server.log()
    with join(server, "new").connect() as connection:
        if warned:
            assert is_broken(connection)
        else:
            use_echo(connection, 1)
    with join(server, "again").connect() as connection:
        use_echo(connection, 2)
    # A target that moves to a forbidden port stays where it was.
    server.reload(settings({"echo": other.port}, "[tunnel]", "allow = *"))
    assert (f"port {other.port} yet: the target 'echo'" in server.log()) == warned
    with join(server, "echo").connect() as connection:
        use_echo(connection, 3)


def test_metrics_and_status_tell_of_each_target(serve, start, join, tmp_path):
    text = settings({"echo": start(Target, echo).port, "nobody": free_port("127.0.0.1")}, "[tunnel]", "allow = *",
                    "[identity client two]", "tunnel-allow = nobody")
    server = serve(text, "--metrics", "127.0.0.1:0", "--control", str(tmp_path / "control"))

    def metrics():
        port = json.loads(server.lines[0])["metrics_port"]
        lines = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=STEP).read().decode().splitlines()
        return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines if line.startswith("securdma_tunnel_")}

    assert metrics()['securdma_tunnel_connections_total{target="echo"}'] == 0
    with join(server, "echo").connect() as connection:
        connection.sendall(bytes(1000))
        received = 0
        while received < 1000:
            received += len(connection.recv(1000))
        found = metrics()
        assert found['securdma_tunnel_connections{target="echo"}'] == 1, found
    for target, cert in (("echo", "client2"), ("no-such", "client"), ("nobody", "client")):
        with join(server, target, cert=cert).connect() as connection:
            assert is_broken(connection)
    wait_until(lambda: metrics()['securdma_tunnel_connections{target="echo"}'] == 0, metrics)
    assert metrics() == {
        'securdma_tunnel_connections{target="echo"}': 0, 'securdma_tunnel_connections{target="nobody"}': 0,
        'securdma_tunnel_connections_total{target="echo"}': 1, 'securdma_tunnel_connections_total{target="nobody"}': 0,
        'securdma_tunnel_refused_total{target="echo"}': 1, 'securdma_tunnel_refused_total{target="nobody"}': 0,
        'securdma_tunnel_failed_total{target="echo"}': 0, 'securdma_tunnel_failed_total{target="nobody"}': 1,
        'securdma_tunnel_bytes_total{target="echo",direction="to"}': 1000,
        'securdma_tunnel_bytes_total{target="echo",direction="from"}': 1000,
        'securdma_tunnel_bytes_total{target="nobody",direction="to"}': 0,
        'securdma_tunnel_bytes_total{target="nobody",direction="from"}': 0, "securdma_tunnel_unknown_targets_total": 1}
    status = json.loads(run(SECURDMA, "status", "--json", "--control", tmp_path / "control").stdout)
    assert status["tunnels"][0] == {"target": "echo", "open": 0, "total": 1, "refused": 1, "failed": 0, "bytes_to_target": 1000,
                                    "bytes_from_target": 1000}, status
    shown = run(SECURDMA, "status", "--control", tmp_path / "control").stdout
    assert "tunnel target" in shown and "nobody" in shown


# ---- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgres_programs():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found and shutil.which("psql") and shutil.which("pgbench") else None


@pytest.fixture
def postgres():
    """The port of a PostgreSQL server of its own."""
    programs = postgres_programs()
    if not programs:
        pytest.fail("PostgreSQL's server, psql and pgbench are not here: scripts/setup test installs them", pytrace=False)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="securdma-postgres."))
    port = free_port("127.0.0.1")
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    data = folder / "data"

    def run(*command):
        subprocess.run([*as_user, *command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60, cwd="/")

    run(programs / "initdb", "-D", data, "-A", "trust", "-N", "-U", "test", "--no-instructions")
    run(programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o",
        f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off", "start")
    yield port
    run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.skipif(not ON_UROCE, reason="the tunnel's other tests are for every device; this one is about a program")
def test_psql_and_pgbench_work_through_a_sealed_tunnel(tunnel, postgres):
    seal = PROTECTIONS[1]
    ours, _ = tunnel(targets={"echo": postgres}, seal=seal)

    def run(*command):
        return subprocess.run([*command, "-h", "127.0.0.1", "-p", str(ours.port), "-U", "test", "postgres"], check=True, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=60).stdout

    text = ",".join(str(i) for i in range(1, 200_001))
    query = "select string_agg(i::text, ',') from generate_series(1, 200000) i"
    assert run("psql", "-A", "-t", "-c", query).strip() == text
    run("pgbench", "-i", "-q", "-s", "1")
    assert "number of failed transactions: 0 " in run("pgbench", "-n", "-c", "3", "-t", "40")
