# SPDX-License-Identifier: Apache-2.0
"""Operating a running server: its control socket, kick, drain."""
import fcntl
import json
import os
import pty
import re
import signal
import socket
import stat
import struct
import subprocess
import termios
import time

import pytest

from conftest import SCALE, SECURDMA, Client, Process, Server, client_args, connect, resources, run, serve_args, wait_for_resources, wait_until


def ask(path, *args):
    return run(SECURDMA, *args, "--control", path)


def status(path):
    result = ask(path, "status", "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def control(tmp_path):
    return str(tmp_path / "control")


@pytest.fixture
def served(certs, device, start, control):
    before = resources(device)
    server = start(Server, certs, device, "--control", control)
    yield server
    if server.process.poll() is None:
        server.stop()
    assert not os.path.exists(control)
    wait_for_resources(device, before)


# ---- status -----------------------------------------------------------------------------------------------------------


def test_status_says_what_the_clients_did(served, certs, start, control):
    one = start(Client, certs, served.port)
    two = start(Client, certs, served.port, cert="client2")
    one.ask("send abc", f"client {one.id}: abc")
    seen = status(control)
    clients = {client["client_id"]: client for client in seen["clients"]}
    assert (seen["connected"], seen["accepted"], seen["draining"]) == (2, 2, False)
    assert set(clients) == {one.id, two.id}
    first, second = clients[one.id], clients[two.id]
    assert (first["name"], second["name"]) == ("client one", "client two")
    assert (first["messages_received"], first["messages_sent"], first["bytes_received"], first["bytes_sent"]) == (1, 1, 3, 11)
    assert second["messages_received"] == second["bytes_sent"] == 0
    assert abs(first["connected_at"] - time.time()) < 60 and first["worker"] != second["worker"]
    text = ask(control, "status").stdout
    assert "clients 2/10" in text and "client one" in text and first["address"] in text
    one.leave()
    two.leave()


def test_no_server_is_exit_3(control):
    for command in (["status"], ["kick", "1"], ["drain"]):
        result = ask(control, *command)
        assert result.returncode == 3 and "no server listens there" in result.stderr


# ---- kick -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["per-client", "1"])
def test_kick_ends_exactly_that_client_with_its_reason(certs, device, start, control, workers):
    server = start(Server, certs, device, "--control", control, "--workers", workers)
    clients = [start(Client, certs, server.port) for _ in range(3)]
    assert ask(control, "kick", str(clients[1].id), "--reason", "too loud").returncode == 0
    assert clients[1].wait() == 7
    assert "too loud" in clients[1].log()
    for client in (clients[0], clients[2]):
        client.check()
    seen = status(control)
    assert seen["connected"] == 2 and seen["lost"] == 0
    for client in (clients[0], clients[2]):
        client.leave()
    server.stop()


def test_kick_of_a_busy_client(served, certs, start, control):
    busy = start(Process, *client_args(certs, served.port, "--pattern", "xyz", "--count", "100000000"))
    wait_until(lambda: any(client["messages_received"] > 20 for client in status(control)["clients"]), "traffic")
    assert ask(control, "kick", str(status(control)["clients"][0]["client_id"])).returncode == 0
    assert busy.wait() == 7 and "disconnected by the operator" in busy.log()



def test_kick_of_an_unknown_id_is_refused(served, certs, start, control):
    client = start(Client, certs, served.port)
    result = ask(control, "kick", "4711")
    assert result.returncode == 1 and "4711" in result.stderr
    assert ask(control, "kick", "x").returncode == ask(control, "kick").returncode == 2
    client.check()
    client.leave()


# ---- drain ------------------------------------------------------------------------------------------------------------


def test_drain_lets_clients_finish_refuses_newcomers_and_ends(served, certs, start, control):
    clients = [start(Client, certs, served.port) for _ in range(2)]
    assert ask(control, "drain").returncode == 0
    assert status(control)["draining"]
    late = connect(certs, served.port, "-e", "send x")
    assert late.returncode == 5 and "draining" in late.stderr
    for client in clients:
        client.check()
        client.leave()
    assert served.wait() == 0


def test_drain_ends_at_its_deadline(served, certs, start, control):
    client = start(Client, certs, served.port)
    begin = time.monotonic()
    assert ask(control, "drain", "--timeout-ms", "700", "--wait").returncode == 0
    assert 0.6 < time.monotonic() - begin < 5 * SCALE
    assert served.wait() == 0
    assert client.wait() == 7 and "shutting down" in client.log()


def test_drain_of_an_idle_server_ends_it_at_once(served, control):
    begin = time.monotonic()
    assert ask(control, "drain").returncode == 0
    assert served.wait() == 0 and time.monotonic() - begin < 5 * SCALE


# ---- the socket -------------------------------------------------------------------------------------------------------


def dial(path):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(15 * SCALE)
    peer.connect(path)
    return peer


def test_socket_is_its_owners_alone(served, control):
    assert stat.S_IMODE(os.stat(control).st_mode) == 0o600
    if os.geteuid() == 0:
        os.chmod(control, 0o666)
        folder = os.path.dirname(control)
        while folder != "/":
            os.chmod(folder, os.stat(folder).st_mode | 0o011)
            folder = os.path.dirname(folder)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                peer = dial(control)
                peer.sendall(b'{"request":"status"}\n')
                os._exit(1 if peer.recv(10) else 0)
            except (ConnectionError, BrokenPipeError):
                os._exit(0)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("garbage", [b"\n", b"\0\xff\n", b"[" * 1500 + b"\n", b"[]\n", b"{}\n", b'{"request":5}\n', b'"kick"\n',
                                     b'{"request":"kick","id":"x"}\n', b'{"request":"kick","id":-1}\n',
                                     b'{"request":"drain","timeout_ms":-1}\n', b'{"request":"drain"}\n'])
def test_garbage_is_refused(served, control, garbage):
    with dial(control) as peer:
        peer.sendall(garbage)
        answer = json.loads(peer.recv(4096))
        assert answer["ok"] is False and answer["error"]
    assert status(control)["connected"] == 0


def test_endless_request_is_cut_off(served, control):
    with dial(control) as peer:
        with pytest.raises((ConnectionError, BrokenPipeError)):
            for _ in range(1000):
                peer.sendall(b"x" * 4096)
                time.sleep(0.001)
    assert status(control)["connected"] == 0


def test_silence_holds_nobody_up_and_ends(served, certs, control):
    silent = [dial(control) for _ in range(100)]
    begin = time.monotonic()
    assert status(control)["connected"] == 0
    assert time.monotonic() - begin < 2 * SCALE
    for peer in silent:
        with peer:
            assert peer.recv(1) == b""
    assert connect(certs, served.port, "-e", "send x").returncode == 0


def test_a_thousand_connections_leave_nothing(served, control):
    fds = served.fds()
    for _ in range(1000):
        with dial(control) as peer:
            peer.sendall(b'{"request":"status"}\n')
            assert json.loads(peer.recv(65536))["ok"]
    wait_until(lambda: served.fds() == fds, "descriptors as before")


def test_stale_socket_is_replaced_and_a_live_one_refused(certs, device, start, control):
    dead = start(Server, certs, device, "--control", control)
    dead.process.kill()
    dead.process.wait()
    assert os.path.exists(control)
    server = start(Server, certs, device, "--control", control)
    result = run(*serve_args(certs, device, "--control", control))
    assert result.returncode == 1 and "another server uses it" in result.stderr
    assert status(control)["connected"] == 0
    server.stop()
    assert not os.path.exists(control)


def test_nobody_else_can_lock_a_server_out(certs, device, start, control):
    """Whoever may read the folder may lock it: that must not matter."""
    folder = os.open(os.path.dirname(control), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        server = start(Server, certs, device, "--control", control)
        assert status(control)["connected"] == 0
        assert os.listdir(os.path.dirname(control)) == [os.path.basename(control)]
        server.stop()
    finally:
        os.close(folder)


def test_lock_that_others_could_open_is_refused(certs, device, control):
    with open(f"{control}.lock", "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o666)
    result = run(*serve_args(certs, device, "--control", control))
    assert result.returncode == 1 and f"cannot lock {control}.lock" in result.stderr, result
    assert os.path.exists(f"{control}.lock") and not os.path.exists(control)


def test_file_that_is_no_socket_is_left_alone(certs, device, control):
    with open(control, "w", encoding="ascii") as file:
        file.write("mine")
    result = run(*serve_args(certs, device, "--control", control))
    assert result.returncode == 2 and "not a socket" in result.stderr
    with open(control, encoding="ascii") as file:
        assert file.read() == "mine"


# ---- top --------------------------------------------------------------------------------------------------------------


def test_top_shows_rates(served, certs, start, control):
    start(Process, *client_args(certs, served.port, "--pattern", "xyz", "--count", "100000000"))
    idle = start(Client, certs, served.port, cert="client2")
    wait_until(lambda: any(client["messages_received"] > 20 for client in status(control)["clients"]), "traffic")
    result = ask(control, "top", "--once", "--interval-ms", "300")
    assert result.returncode == 0 and "\033" not in result.stdout
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert "clients 2/10" in result.stdout and "clients on worker: 0:1 1:1" in result.stdout
    assert [float(value) for value in rows[str(idle.id)][-4:]] == [0, 0, 0, 0]
    assert all(float(value) > 0 for value in rows["total"][1:])
    assert ask(control, "top", "-n", "2", "--interval-ms", "100").stdout.count("total") == 2
    idle.leave()


def test_top_ends_on_sigint(served, start, control):
    top = start(Process, SECURDMA, "top", "--control", control, "--interval-ms", "100")
    top.wait_line(lambda line: "total" in line)
    top.signal(2)
    assert top.wait() == 0


def test_top_on_a_terminal(served, certs, start, control):
    """Each screen replaces the one before; a key that is not q does nothing; the terminal is as before at the end."""
    start(Client, certs, served.port)
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    top = subprocess.Popen([SECURDMA, "top", "--control", control, "--interval-ms", "100"], stdin=slave, stdout=slave, stderr=slave)
    shown = b""
    try:
        while shown.count(b"\033[H") < 3:
            shown += os.read(master, 4096)
        assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO)
        os.write(master, b"x")
        while shown.count(b"\033[H") < 5:
            shown += os.read(master, 4096)
        assert top.poll() is None
        os.write(master, b"q")
        assert top.wait(15 * SCALE) == 0
        assert termios.tcgetattr(slave) == before
    finally:
        top.kill()
        top.wait()
        os.close(master)
        os.close(slave)
    text = shown.decode()
    assert "clients 1/10" in text and "client one" in text and "x\r" not in text, text


class Screen:
    """What a terminal of this size shows of the bytes that come from a program: enough of one for `securdma top`."""

    def __init__(self, columns, rows):
        self.resize(columns, rows)
        self.scrolled = self.wrapped = False

    def resize(self, columns, rows):
        self.columns, self.rows, self.lines, self.row, self.column = columns, rows, [""] * rows, 0, 0

    def text(self):
        return "\n".join(self.lines)

    def feed(self, data):
        for control, text in re.findall(r"(\x1b\[[0-9;]*[A-Za-z]|\r|\n)|([^\x1b\r\n]+)", data):
            if control == "\x1b[H":
                self.row = self.column = 0
            elif control == "\x1b[2J":
                self.lines = [""] * self.rows
            elif control == "\x1b[J":
                self.lines[self.row:] = [self.lines[self.row][:self.column]] + [""] * (self.rows - self.row - 1)
            elif control == "\x1b[K":
                self.lines[self.row] = self.lines[self.row][:self.column]
            elif control == "\r":
                self.column = 0
            elif control == "\n":
                self.row += 1
                if self.row == self.rows:
                    self.scrolled, self.row, self.lines = True, self.row - 1, self.lines[1:] + [""]
            else:
                assert not control, control
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[:self.column] + text + line[self.column + len(text):]
                self.column += len(text)
                self.wrapped |= self.column > self.columns


class Top:
    """`securdma top` on a pseudo terminal."""

    def __init__(self, control, columns, rows):
        self.master, self.slave = pty.openpty()
        self.screen = Screen(columns, rows)
        self.set_size(columns, rows)
        self.process = subprocess.Popen([SECURDMA, "top", "--control", control, "--interval-ms", "100"], stdin=self.slave,
                                        stdout=self.slave, stderr=self.slave, preexec_fn=os.setsid)

    def set_size(self, columns, rows):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns, rows):
        self.set_size(columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def painted(self, count=3):
        """The screen after some more paintings, the last one whole; whoever resizes begins a new one."""
        data, end = "", b"\033[J"
        while data.count("\033[J") < count:
            data += os.read(self.master, 65536).decode()
        whole, rest = data.rsplit("\033[J", 1)
        self.screen.feed(whole + "\033[J")
        text = self.screen.text()
        self.screen.feed(rest)
        return text

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


HEADS = {60: "client name in/s out/s B in/s B out/s",
         80: "client name address worker in/s out/s B in/s B out/s",
         100: "client name address worker in/s out/s B in/s B out/s",
         140: "client name address worker in/s out/s bytes in/s bytes out/s"}


@pytest.mark.parametrize("columns", [1, 20, 60, 80, 100, 140])
def test_top_fits_the_terminal(served, certs, start, control, columns):
    for _ in range(6):
        start(Client, certs, served.port)
    top = Top(control, columns, 8)
    try:
        text = top.painted()
        assert not top.screen.wrapped and not top.screen.scrolled, text
        lines = text.split("\n")
        if columns < 60:
            return
        assert lines[0].startswith("clients 6/10") and lines[1].startswith("clients on worker:"), text
        assert lines[2].split() == HEADS[columns].split(), text
        # Three clients, and a line that tells of the others; then the sum.
        assert [line.split()[0].isdigit() for line in lines[3:6]] == [True] * 3, text
        assert lines[6] == "... 3 more clients, less busy" and lines[7].split()[0] == "total", text
        assert "client one"[:9] in lines[3], text
    finally:
        top.close()


def test_top_follows_the_size_of_the_terminal(served, certs, start, control):
    clients = [start(Client, certs, served.port) for _ in range(3)]
    top = Top(control, 140, 12)
    try:
        assert "bytes in/s" in top.painted()
        for columns, rows, there, gone in ((60, 12, "B in/s", "address"), (140, 5, "bytes in/s", None), (80, 24, "worker", "bytes in/s")):
            top.resize(columns, rows)
            # What was under way to the terminal when it changed its size.
            top.painted()
            top.screen.resize(columns, rows)
            top.screen.wrapped = top.screen.scrolled = False
            text = top.painted()
            assert there in text and (gone is None or gone not in text) and "total" in text, text
            assert not top.screen.wrapped and not top.screen.scrolled, text
        assert all(f"{client.id} " in text for client in clients), text
    finally:
        top.close()
