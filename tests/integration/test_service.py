# SPDX-License-Identifier: Apache-2.0
"""What a service manager meets: stops, sockets that it hands over, its states, logs for the journal, reloads with an answer."""
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import protocol
import pytest
from conftest import BUILD, ON_UROCE, SCALE, SECURDMA, STEP, Client, Listening, Process, Server, connect, on_device, run, sanitizer_library, serve_args, wait_until

LATE_DEVICE = os.path.join(BUILD, "tests", "integration", "late_device.so")


class Manager:
    """The end of NOTIFY_SOCKET that a service manager has."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self.heard, self.taken = [], 0
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        """Reads each notification at once: the sender waits for room."""
        while told := self.socket.recv(4096):
            self.heard.append(told.decode())

    def wait(self, part):
        """The next notification that contains `part`."""
        def found():
            while self.taken < len(self.heard):
                self.taken += 1
                if part in self.heard[self.taken - 1]:
                    return self.heard[self.taken - 1]
            return None

        return wait_until(found, lambda: f"a notification with {part!r} among {self.heard}")

    def close(self):
        self.socket.shutdown(socket.SHUT_RD)
        self.reader.join(STEP)
        self.socket.close()


@pytest.fixture
def manager(start, tmp_path):
    return start(Manager, tmp_path / "notify")


def managed(start, certs, device, manager, *args, **more):
    return start(Server, certs, device, *args, env=dict(os.environ, **manager.environment), **more)


# ---- stops ------------------------------------------------------------------------------------------------------------


def test_nobody_in_set_up_holds_a_stop_up(certs, device, start, manager):
    """Silent, in the middle of the handshake, and never READY: the last one has half of the time."""
    server = managed(start, certs, device, manager, "--drain-timeout-ms", "4000")
    socks = [socket.create_connection((certs.host, server.port), STEP) for _ in range(2)]
    socks[1].sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    socks.append(protocol.open_tls(certs, server.port, STEP))
    socks[2].sendall(protocol.hello(gid=protocol.gid(certs.host)))
    assert protocol.read_frame(socks[2])[0] == protocol.WELCOME
    begin = time.monotonic()
    server.signal(signal.SIGTERM)
    manager.wait("STOPPING=1")
    assert server.wait() == 0 and time.monotonic() - begin > 1
    assert server.log().count("gave up: the server is shutting down") == 3
    for sock in socks:
        sock.close()


# ---- the log ----------------------------------------------------------------------------------------------------------


WRONG = {
    "flag": (["--nonsense", "--log-format", "json"], None, "there is no option --nonsense"),
    "value": (["--max-clients", "many", "--log-format=json"], None, "--max-clients: 'many' is not valid"),
    "no value": (["--log-format", "json", "--max-clients"], None, "--max-clients needs a value"),
    "file": ([], "[log]\nformat = json\n[server]\nmax-clients = many\nnonsense\n", "securdma.conf:4: [server] max-clients: 'many' is not valid"),
    "file, format last": ([], "[server]\nmax-clients = many\n[log]\nformat = json\n", "securdma.conf:2: [server] max-clients: 'many' is not valid"),
    "file, format a flag": (["--log-format", "json"], "[server]\nmax-clients = many\n[log]\nformat = text\n", "securdma.conf:2: "),
    "no file": (["--log-format", "json", "--config", "/nonexistent"], None, "cannot read the configuration file /nonexistent"),
    "credentials": (["--log-format", "json", "--key", "/nonexistent"], None, "/nonexistent"),
    "control socket": (["--log-format", "json", "--control", "/nonexistent/control"], None, "control socket /nonexistent/control: "),
    "metrics": (["--log-format", "json", "--metrics", "nonsense"], None, "--metrics: 'nonsense' is not valid"),
}


@pytest.mark.parametrize("what", WRONG)
def test_every_line_is_json_when_the_log_is(certs, device, tmp_path, what):
    args, file, words = WRONG[what]
    if file:
        (tmp_path / "securdma.conf").write_text(file, encoding="ascii")
        args = [*args, "--config", tmp_path / "securdma.conf"]
    result = run(*serve_args(certs, device, *args))
    assert result.returncode in (1, 2)
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert any(words in line["message"] for line in lines), lines
    assert {line["level"] for line in lines} <= {"error", "info"} and all(re.fullmatch(r"[a-z._]+", line["event"]) for line in lines)


class Journal:
    """A file that a program takes for the journal's stream."""

    def __init__(self, path):
        self.file = open(path, "w+b")
        status = os.fstat(self.file.fileno())
        self.environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    def run(self, *args):
        """The exit code, and the lines."""
        more = on_device(args, {})
        env = dict(more.get("env") or os.environ, **self.environment)
        code = subprocess.run([str(arg) for arg in args], stdin=subprocess.DEVNULL, stdout=self.file, stderr=self.file, timeout=30 * SCALE,
                              env=env).returncode
        return code, self.lines()

    def lines(self):
        return os.pread(self.file.fileno(), 1 << 20, 0).decode().splitlines()

    def close(self):
        self.file.close()


@pytest.fixture
def journal(start, tmp_path):
    return start(Journal, tmp_path / "journal")


def test_errors_have_a_priority_in_the_journal(certs, device, journal, tmp_path):
    (tmp_path / "securdma.conf").write_text("[server]\nmax-clients = many\nworkers = none\n", encoding="ascii")
    code, lines = journal.run(*serve_args(certs, device, "--config", tmp_path / "securdma.conf"))
    assert code == 2 and len(lines) == 2 and all(line.startswith(f"<3>{tmp_path}/securdma.conf:") for line in lines), lines


def test_every_line_of_an_error_has_its_priority(certs, device, journal):
    code, lines = journal.run(*serve_args(certs, device, "--nonsense"))
    assert (code, lines) == (2, ["<3>serve: there is no option --nonsense", "<3>Try 'securdma serve --help'."])


def test_json_has_a_priority_in_the_journal_too(certs, device, journal):
    code, lines = journal.run(*serve_args(certs, device, "--nonsense", "--log-format", "json"))
    assert code == 2 and len(lines) == 1 and lines[0].startswith("<3>{"), lines
    assert json.loads(lines[0][3:])["message"].startswith("serve: there is no option --nonsense")


def test_other_streams_have_none(certs, device, journal):
    result = run(*serve_args(certs, device, "--nonsense"), env=dict(os.environ, **journal.environment))
    assert result.stderr.startswith("securdma: serve: there is no option"), result.stderr


def test_server_speaks_to_the_journal_by_its_log_alone(certs, device, journal, start):
    args = serve_args(certs, device)
    env = dict(on_device(args, {}).get("env") or os.environ, **journal.environment)
    for more, is_event in (([], lambda line, text: line.startswith(f"<6>{text}")),
                           (["--log-format", "json"], lambda line, text: json.loads(line[3:])["message"].startswith(text))):
        before = len(journal.lines())
        server = subprocess.Popen([*args, *more], stdin=subprocess.DEVNULL, stdout=journal.file, stderr=journal.file, env=env)
        try:
            wait_until(lambda: any("listening on *:" in line for line in journal.lines()[before:]), lambda: journal.lines())
            server.send_signal(signal.SIGTERM)
            assert server.wait(STEP) == 0
        finally:
            server.kill()
            server.wait()
        lines = journal.lines()[before:]
        assert is_event(lines[0], "listening on *:") and is_event(lines[-1], "stopped: disconnected 0 clients"), lines
        assert not any(time.strftime("%Y-") in line for line in lines) or more, lines


# ---- states -----------------------------------------------------------------------------------------------------------


def test_manager_is_told(certs, device, start, manager, tmp_path):
    server = start(Server, certs, device, env=dict(os.environ, WATCHDOG_USEC="200000", RUNTIME_DIRECTORY=str(tmp_path), **manager.environment))
    assert manager.wait("READY=1") == f"READY=1\nSTATUS=listening on *:{server.port}, 0 of 10 clients"
    begin = time.monotonic()
    for _ in range(5):
        manager.wait("WATCHDOG=1")
    assert time.monotonic() - begin < 5 * SCALE
    client = start(Client, certs, server.port)
    manager.wait("1 of 10 clients")
    # The server's socket is where its runtime directory is.
    control = str(tmp_path / "control")
    assert json.loads(run(SECURDMA, "status", "--json", "--control", control).stdout)["connected"] == 1
    assert run(SECURDMA, "status", env=dict(os.environ, RUNTIME_DIRECTORY=str(tmp_path))).returncode == 0
    assert run(SECURDMA, "drain", "--control", control).returncode == 0
    manager.wait("STATUS=draining: 1 client left, rejecting new clients")
    client.leave()
    stopping = manager.wait("STOPPING=1")
    # As long as all clients may take, and some more.
    assert int(re.search(r"EXTEND_TIMEOUT_USEC=(\d+)", stopping)[1]) > 5000 * 1000
    assert server.wait() == 0


# ---- sockets ----------------------------------------------------------------------------------------------------------


class Activated(Process):
    """A server with sockets from a service manager, which are closed here."""

    def __init__(self, certs, device, sockets, *args, **environment):
        # The pid has to be the server's own, which is known only just before the exec.
        code = ("import os, sys\nn = int(sys.argv[1])\nfor i in range(n): os.dup2(int(sys.argv[2 + i]), 3 + i)\n"
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(n))\nos.execv(sys.argv[2 + n], sys.argv[2 + n:])")
        # Numbers that are out of the way of 3 and those after it.
        high = [fcntl.fcntl(sock, fcntl.F_DUPFD, 100) for sock in sockets]
        command = [SECURDMA, "serve", "--json", "--cert", certs.cert("server"), "--key", certs.key("server"), "--client-ca", certs.cert("ca"),
                   "--device", device.name, *args]
        env = dict(on_device([SECURDMA], {}).get("env") or os.environ, **environment)
        super().__init__("/usr/bin/python3", "-c", code, len(high), *high, *command, env=env, pass_fds=high)
        for fd in high:
            os.close(fd)
        for sock in sockets:
            sock.close()

    def listening(self):
        return json.loads(self.wait_line(lambda line: '"listening"' in line))


def test_all_sockets_are_served_and_told_as_they_are(certs, device, start):
    sockets = [socket.create_server((certs.host, 0)), socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True),
               socket.create_server(("::1", 0), family=socket.AF_INET6)]
    ports = [sock.getsockname()[1] for sock in sockets]
    server = start(Activated, certs, device, sockets)
    said = server.listening()
    assert said["sockets"] == [f"{certs.host}:{ports[0]}", f"*:{ports[1]}", f"[::1]:{ports[2]}"]
    assert (said["address"], said["port"]) == (certs.host, ports[0])
    for port in (ports[0], ports[1], ports[0]):
        assert connect(certs, port, "-e", "send x").returncode == 0
    if ON_UROCE:
        assert connect(certs, ports[2], "--server-name", certs.host, "-e", "send x", host="::1").returncode == 0
    server.terminate()


def test_settings_that_contradict_a_socket_are_refused(certs, device, start):
    for args, words in ((["--listen", "127.0.0.77"], "but the settings say address 127.0.0.77"), (["--port", "1"], "but the settings say port 1")):
        good, other = socket.create_server((certs.host, 0)), socket.create_server((certs.host, 0))
        where = "{}:{}".format(*good.getsockname())
        server = start(Activated, certs, device, [good, other], *args)
        assert server.wait() == 2
        assert f"a socket that listens on {where}, {words}" in server.log()


def test_settings_that_agree_with_a_socket_are_not(certs, device, start):
    sock = socket.create_server((certs.host, 0))
    port = sock.getsockname()[1]
    server = start(Activated, certs, device, [sock], "--listen", certs.host, "--port", port)
    assert server.listening()["sockets"] == [f"{certs.host}:{port}"]
    server.terminate()


def test_sockets_that_no_client_could_use_are_refused(certs, device, start, tmp_path):
    udp, silent, unix = socket.socket(type=socket.SOCK_DGRAM), socket.socket(), socket.socket(socket.AF_UNIX)
    for sock in (udp, silent):
        sock.bind((certs.host, 0))
    unix.bind(str(tmp_path / "unix"))
    unix.listen()
    for sock in (udp, silent, unix):
        server = start(Activated, certs, device, [socket.create_server((certs.host, 0)), sock])
        assert server.wait() == 2
        assert "descriptor 4, which is not a listening TCP socket" in server.log()


def test_drained_server_whose_port_is_held_stays_and_turns_newcomers_away(certs, device, start, manager, tmp_path):
    """It would be started again by the next one."""
    sock, control = socket.create_server((certs.host, 0)), tmp_path / "control"
    port = sock.getsockname()[1]
    server = start(Activated, certs, device, [sock], "--control", control, **manager.environment)
    server.listening()
    stays, leaves = (start(Client, certs, port) for _ in range(2))
    assert run(SECURDMA, "drain", "--control", control, "--timeout-ms", "3600000").returncode == 0
    leaves.check()
    leaves.leave()
    # Another deadline, which one client does not keep.
    drain = run(SECURDMA, "drain", "--control", control, "--timeout-ms", "300", "--wait")
    assert drain.returncode == 0 and "systemctl stop securdma.socket securdma.service" in drain.stderr, drain
    assert stays.wait() == 7 and "the server is draining, and its deadline has passed" in stays.log()
    manager.wait("STATUS=drained: no client is left, rejecting new clients")
    late = connect(certs, port, "-e", "send x")
    assert late.returncode == 5 and "draining" in late.stderr
    status = json.loads(run(SECURDMA, "status", "--json", "--control", control).stdout)
    assert (status["connected"], status["draining"], status["drained"]) == (0, True, True)
    server.terminate()


# ---- reload -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(certs, tmp_path):
    """A configuration, and files that it names."""
    os.chmod(tmp_path, 0o755)
    for name in ("crt", "key"):
        shutil.copy(f"{certs.folder}/server.{name}", tmp_path)

    def configure(more=""):
        (tmp_path / "securdma.conf").write_text(f"[tls]\ncert = {tmp_path}/server.crt\nkey = {tmp_path}/server.key\nclient-ca = {certs.cert('ca')}\n"
                                                f"[server]\ncontrol = {tmp_path}/control\n{more}", encoding="ascii")

    configure()
    return configure


@pytest.fixture
def reloaded(certs, device, start, own, tmp_path):
    """A server with that configuration, and how it is told to read it again."""
    server = start(Listening, certs, device, "--config", tmp_path / "securdma.conf")
    server.reload = lambda *args: run(SECURDMA, "reload", "--control", tmp_path / "control", *args)
    yield server
    server.terminate()


def served_certificate(certs, port):
    with protocol.open_tls(certs, port, STEP) as channel:
        return channel.getpeercert()["serialNumber"]


def test_reload_is_over_when_it_returns(certs, reloaded, tmp_path):
    before = served_certificate(certs, reloaded.port)
    made = run(SECURDMA, "cert", "server", "--name", certs.host, "--ca", certs.cert("ca"), "--ca-key", certs.key("ca"), "--cert", tmp_path / "server.crt",
               "--key", tmp_path / "server.key", "--force")
    assert made.returncode == 0, made.stderr
    result = reloaded.reload()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert served_certificate(certs, reloaded.port) != before


def test_refused_reload_has_the_reason_and_a_code(certs, reloaded, own, tmp_path):
    before = served_certificate(certs, reloaded.port)
    (tmp_path / "server.key").write_text("no key", encoding="ascii")
    result = reloaded.reload()
    assert result.returncode == 1 and f"{tmp_path}/server.key" in result.stderr and "keeps all old values" in result.stderr, result
    own("max-clients = many\nworkers = none\n")
    result = reloaded.reload()
    assert result.returncode == 1 and "max-clients: 'many' is not valid" in result.stderr and "workers: 'none' is not valid" in result.stderr, result
    result = reloaded.reload("--quiet")
    assert (result.returncode, result.stderr) == (1, "")
    assert reloaded.log().count("not reloaded: ") == 3
    assert served_certificate(certs, reloaded.port) == before


def test_reload_names_what_waits_for_the_next_start(certs, reloaded, own):
    own("workers = 3\nmax-clients = 5\n")
    result = reloaded.reload()
    assert result.returncode == 0 and "the new value of --workers takes effect at the next start" in result.stderr, result
    assert json.loads(reloaded.reload("--json").stdout)["later"] == []


def test_reload_without_a_server_is_exit_3(tmp_path):
    for args in ([], ["--quiet"]):
        result = run(SECURDMA, "reload", "--control", tmp_path / "control", *args)
        assert result.returncode == 3 and "control socket" in result.stderr


def test_failed_reload_shows_in_the_state(certs, device, start, manager, own, tmp_path):
    server = start(Process, SECURDMA, "serve", "--json", "--port", "0", "--device", device.name, "--config", tmp_path / "securdma.conf",
                   env=dict(os.environ, **manager.environment))
    manager.wait("READY=1")
    own("max-clients = many\n")
    server.signal(signal.SIGHUP)
    manager.wait("the last reload failed")
    own("max-clients = 1\n")
    server.signal(signal.SIGHUP)
    assert manager.wait("of 1 client").endswith("0 of 1 client")
    server.terminate()


# ---- a device that comes late -----------------------------------------------------------------------------------------


def test_wait_for_a_device_ends(certs, device):
    begin = time.monotonic()
    result = run(*serve_args(certs, device, "--device-wait-ms", "1200", "--device", "nonsense"))
    assert result.returncode == 6 and time.monotonic() - begin > 1.2
    assert result.stderr.count("nonsense") == 2 and "waiting 1200 ms for it" in result.stderr, result.stderr


def test_wait_for_a_device_can_be_stopped(certs, device, start, manager):
    server = start(Process, *serve_args(certs, device, "--device-wait-ms", "3600000", "--device", "nonsense"), env=dict(os.environ, **manager.environment))
    said = manager.wait("STATUS=waiting for an RDMA device")
    assert int(re.search(r"EXTEND_TIMEOUT_USEC=(\d+)", said)[1]) > 3600000 * 1000
    server.signal(signal.SIGHUP)
    server.terminate()


def test_device_that_comes_late_is_served_on(certs, device, start, manager, tmp_path):
    args = serve_args(certs, device, "--json", "--device-wait-ms", "3600000")
    env = on_device(args, {}).get("env") or dict(os.environ)
    # Before the device's library, and behind a sanitizer's.
    preload = env.get("LD_PRELOAD", "").split()
    preload.insert(1 if sanitizer_library() else 0, LATE_DEVICE)
    launcher = ["/usr/bin/env", "LD_PRELOAD=" + " ".join(preload), f"LATE_DEVICE={tmp_path}/device"]
    server = start(Process, *launcher, *args, env=dict(os.environ, **manager.environment))
    manager.wait("STATUS=waiting for an RDMA device")
    # Certificates that change meanwhile are read before anybody is served.
    server.signal(signal.SIGHUP)
    (tmp_path / "device").touch()
    port = json.loads(server.wait_line(lambda line: '"listening"' in line))["port"]
    server.wait_log("reloaded: ")
    assert connect(certs, port, "-e", "send x").returncode == 0
    server.terminate()
