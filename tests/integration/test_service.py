# SPDX-License-Identifier: Apache-2.0
"""What a service manager meets: stops, sockets that it hands over, its states, logs for the journal, reloads with an answer."""
import json
import os
import re
import signal
import socket
import subprocess
import time

import protocol
import pytest
from conftest import SCALE, SECURDMA, STEP, Server, connect, on_device, run, wait_until


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


# ---- the log ----------------------------------------------------------------------------------------------------------


def serve_args(certs, device, *args):
    return [SECURDMA, "serve", "--port", "0", "--device", device.name, "--cert", certs.cert("server"), "--key", certs.key("server"), "--client-ca",
            certs.cert("ca"), *args]


WRONG = {
    "flag": (["--nonsense", "--log-format", "json"], None, "no option --nonsense"),
    "value": (["--max-clients", "many", "--log-format=json"], None, "--max-clients many: not valid"),
    "no value": (["--log-format", "json", "--max-clients"], None, "--max-clients needs a value"),
    "file": ([], "[log]\nformat = json\n[server]\nmax-clients = many\nnonsense\n", "securdma.conf:4: [server] max-clients = many: not valid"),
    "file, format last": ([], "[server]\nmax-clients = many\n[log]\nformat = json\n", "securdma.conf:2: [server] max-clients = many: not valid"),
    "file, format a flag": (["--log-format", "json"], "[server]\nmax-clients = many\n[log]\nformat = text\n", "securdma.conf:2: "),
    "no file": (["--log-format", "json", "--config", "/nonexistent"], None, "can't read the configuration file /nonexistent"),
    "credentials": (["--log-format", "json", "--key", "/nonexistent"], None, "/nonexistent"),
    "control socket": (["--log-format", "json", "--control", "/nonexistent/control"], None, "control socket /nonexistent/control: "),
    "metrics": (["--log-format", "json", "--metrics", "nonsense"], None, "--metrics nonsense: not valid"),
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
    assert (code, lines) == (2, ["<3>serve: no option --nonsense", "<3>Try 'securdma serve --help'."])


def test_json_has_a_priority_in_the_journal_too(certs, device, journal):
    code, lines = journal.run(*serve_args(certs, device, "--nonsense", "--log-format", "json"))
    assert code == 2 and len(lines) == 1 and lines[0].startswith("<3>{"), lines
    assert json.loads(lines[0][3:])["message"].startswith("serve: no option --nonsense")


def test_other_streams_have_none(certs, device, journal):
    result = run(*serve_args(certs, device, "--nonsense"), env=dict(os.environ, **journal.environment))
    assert result.stderr.startswith("securdma: serve: no option"), result.stderr
