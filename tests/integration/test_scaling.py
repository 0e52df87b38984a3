# SPDX-License-Identifier: Apache-2.0
"""Several servers behind HAProxy, as docs/SCALING.md has it: on loopback, and, as root, each in a network namespace of its own."""
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import ON_UROCE, ROOT, SCALE, SECURDMA, STEP, Client, Process, Server, client_args, run, wait_until

HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
BACKEND = "securdma"

pytestmark = pytest.mark.skipif(not os.access(HAPROXY, os.X_OK), reason="haproxy is not installed")


def documented(servers, bind, socket_path):
    """The haproxy.cfg of docs/SCALING.md, with this test's addresses; what it says of time-outs is made shorter, so that a test
    sees that they do not end what is idle."""
    with open(os.path.join(ROOT, "docs", "SCALING.md"), encoding="utf-8") as file:
        text = re.search(r"<!-- haproxy\.cfg -->\n+```\n(.*?)```", file.read(), re.S)[1]
    lines = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["server"]:
            options = " ".join(words[3:])
            continue
        if words[:2] == ["stats", "socket"]:
            line = f"    stats socket {socket_path} mode 600 level admin"
        elif words[:1] == ["maxconn"]:
            # Two threads that each choose for a new client at the same time may choose the same server.
            line = "    maxconn 100\n    nbthread 1"
        elif words[:1] == ["bind"]:
            line = f"    bind {bind} " + " ".join(words[2:])
        elif words[:1] == ["timeout"] and words[1] in ("client", "server"):
            line = f"    timeout {words[1]} 1s"
        elif words[:2] == ["timeout", "connect"]:
            # Else a check has to be answered within the time to the next, which is short here.
            line += f"\n    timeout check {int(2000 * SCALE)}ms"
        elif words[:1] == ["default-server"]:
            line = re.sub(r"check port \d+", "check", line)
            line = re.sub(r"inter \S+", f"inter {int(100 * SCALE)}ms", line)
            line = re.sub(r"slowstart \S+", "", line)
        lines.append(line)
    for name, address, port, check in servers:
        lines.append(f"    server {name} {address}:{port} {options} port {check}")
    return "\n".join(lines) + "\n"


class HAProxy(Process):
    def __init__(self, folder, servers, bind=None, more=lambda text: text, **options):
        self.control = str(folder / "haproxy.sock")
        listener = None
        if not bind:
            # A port that is held from the start cannot be taken by others.
            listener = socket.create_server(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            os.set_inheritable(listener.fileno(), True)
            bind, options = f"fd@{listener.fileno()}", dict(options, pass_fds=[listener.fileno()])
        config = folder / "haproxy.cfg"
        config.write_text(more(documented(servers, bind, self.control)))
        super().__init__(HAPROXY, "-db", "-f", config, **options)
        if listener:
            listener.close()
        try:
            wait_until(lambda: set(self.states().values()) == {"UP"} or self.process.poll() is not None,
                       lambda: f"servers that are up; they are {self.states()}\n{self.log()}")
            assert self.process.poll() is None, self.log()
        except BaseException:
            self.close()
            raise

    def ask(self, command):
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(STEP)
                sock.connect(self.control)
                sock.sendall(command.encode("ascii") + b"\n")
                return b"".join(iter(lambda: sock.recv(65536), b"")).decode("ascii")
        except (FileNotFoundError, ConnectionError):
            return ""

    def states(self):
        """{server: "UP", "DOWN", "DRAIN"}; of one that is about to change, what it still is."""
        rows = [line.split(",") for line in self.ask("show stat").splitlines() if line.startswith(BACKEND + ",")]
        return {row[1]: row[17].split()[0] for row in rows if row[1] not in ("BACKEND", "FRONTEND")}

    def wait_state(self, **expected):
        wait_until(lambda: all(self.states().get(name) == state for name, state in expected.items()),
                   lambda: f"{expected}; the states are {self.states()}\n{self.log()}")


class Scaled:
    """Servers that HAProxy may send clients to, and where the clients find it."""

    def __init__(self, certs, balancer, servers, host, options=lambda space: {}):
        self.certs, self.balancer, self.servers, self.host, self.options = certs, balancer, servers, host, options
        self.port = balancer.port

    def command(self, *args):
        return client_args(self.certs, self.port, "--server-name", "localhost", *args, host=self.host)

    def wait_clients(self, *counts):
        """Waits until the servers have so many clients; None: one that is not asked."""
        wait_until(lambda: [None if count is None else len(server.status()["clients"])
                            for server, count in zip(self.servers, counts)] == list(counts),
                   lambda: f"{counts} clients; there are {[server.status()['connected'] for server in self.servers]}, and to the "
                           f"balancer the servers are {self.balancer.states()}")


def work(scaled, count=200, tries=1, args=(), space=None):
    """A client that does its work, `count` messages that it verifies, to the end: it is started again when it loses its server, or
    is turned away. Returns its last answer, with the exit code of each try as "codes"."""
    codes = []
    for _ in range(tries):
        result = run(*scaled.command("--json", "--pattern", "abc", "--count", str(count), *args), **scaled.options(space))
        codes.append(result.returncode)
        if result.returncode == 0:
            break
        time.sleep(0.1)
    answer = json.loads(result.stdout) if result.stdout.strip() else {}
    return dict(answer, codes=codes, stderr=result.stderr)


class Holder(Process):
    """A client that has verified its messages, and stays until it is told to go."""

    def __init__(self, scaled, folder, space=None):
        self.go = folder / f"go-{next(Holder.numbers)}"
        super().__init__(*scaled.command("--json", "--pattern", "xyz", "--count", "50", "--hold-file", self.go),
                         **scaled.options(space))

    numbers = itertools.count()

    def finish(self):
        self.go.touch()
        assert self.wait() == 0, self.log()
        return json.loads(self.lines[0])


class BackendServer(Server):
    def __init__(self, certs, device, folder, name, networks, metrics="127.0.0.1:0", **more):
        self.control = str(folder / name)
        super().__init__(certs, device, "--control", self.control, "--metrics", metrics, "--proxy-networks", networks, **more)
        self.metrics_port = json.loads(self.lines[0])["metrics_port"]

    def drain(self, *args):
        result = run(SECURDMA, "drain", "--control", self.control, *args)
        assert result.returncode == 0, result.stderr


@pytest.fixture
def scaled(certs, device, start, tmp_path):
    return on_loopback(certs, device, start, tmp_path)


def on_loopback(certs, device, start, tmp_path, more=lambda text: text):
    """Two servers behind HAProxy."""
    servers = [start(BackendServer, certs, device, tmp_path, name, "127.0.0.0/8") for name in ("s1", "s2")]
    balancer = start(HAProxy, tmp_path, [(f"s{i + 1}", "127.0.0.1", server.port, server.metrics_port)
                                         for i, server in enumerate(servers)], more=more)
    return Scaled(certs, balancer, servers, "127.0.0.1")


def test_clients_spread_over_the_servers(scaled, start, tmp_path):
    clients = [start(Holder, scaled, tmp_path) for _ in range(6)]
    scaled.wait_clients(3, 3)
    for client in clients:
        answer = client.finish()
        assert answer["ok"] and answer["messages_verified"] == 50 and answer["bytes_read_back"] == 65536
    for server in scaled.servers:
        server.wait_status(connected=0, accepted=3, failed=0, lost=0)
        # Nothing of health checks either.
        assert " warning: " not in server.log(), server.log()
        assert server.stop()["lost"] == 0


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_checks_of_the_tls_port_leave_nothing_in_the_log(certs, device, start, tmp_path, version):
    def without_ready(text):
        lines = [line for line in text.splitlines() if "httpchk" not in line and "http-check" not in line]
        return re.sub(r" port \d+$", "", "\n".join(lines), flags=re.M).replace("send-proxy-v2", version) + "\n"

    scaled = on_loopback(certs, device, start, tmp_path, without_ready)
    time.sleep(1 * SCALE)
    assert work(scaled)["codes"] == [0]
    for server in scaled.servers:
        server.wait_status(pending=0, connected=0, failed=0, rejected=0, lost=0)
        assert " warning: " not in server.log(), server.log()


def test_idle_clients_outlive_the_balancers_time_outs(scaled, start, tmp_path):
    clients = [start(Client, scaled.certs, scaled.port, "--server-name", "localhost", host=scaled.host) for _ in range(2)]
    time.sleep(2.5)  # those of the test's configuration are a second
    for client in clients:
        client.check()
        client.leave()


def test_drained_server_gets_no_new_clients_and_keeps_its_own(scaled, start, tmp_path):
    stay = [start(Holder, scaled, tmp_path) for _ in range(2)]
    scaled.wait_clients(1, 1)
    drained, other = scaled.servers
    drained.drain("--timeout-ms", str(int(60000 * SCALE)))
    scaled.balancer.wait_state(s1="DOWN", s2="UP")
    for _ in range(4):
        assert work(scaled)["codes"] == [0]
    assert other.status()["accepted"] == 5 and drained.status()["rejected"] == 0
    for client in stay:
        assert client.finish()["ok"]
    # Its last client has gone, and so does it.
    assert drained.wait() == 0
    assert work(scaled)["codes"] == [0]


def test_client_that_comes_before_the_balancer_knows_of_a_drain_is_told(scaled, start):
    drained = scaled.servers[0]
    scaled.balancer.ask(f"disable health {BACKEND}/s1")
    scaled.balancer.ask(f"set server {BACKEND}/s2 state maint")
    keeper = start(Client, scaled.certs, scaled.port, "--server-name", "localhost", host=scaled.host)
    drained.drain("--timeout-ms", str(int(60000 * SCALE)))
    answer = work(scaled)
    assert answer["codes"] == [5] and answer["reject"]["reason"] == 7, answer
    scaled.balancer.ask(f"set server {BACKEND}/s2 state ready")
    scaled.balancer.ask(f"enable health {BACKEND}/s1")
    assert work(scaled, tries=100)["codes"][-1] == 0
    keeper.leave()


def test_operator_can_take_a_server_out_at_the_balancer(scaled, start, tmp_path):
    client = start(Holder, scaled, tmp_path)
    scaled.wait_clients(1, 0)
    scaled.balancer.ask(f"set server {BACKEND}/s1 state drain")
    scaled.balancer.wait_state(s1="DRAIN")
    for _ in range(3):
        assert work(scaled)["codes"] == [0]
    assert client.finish()["ok"] and scaled.servers[0].status()["accepted"] == 1
    scaled.balancer.ask(f"set server {BACKEND}/s1 state ready")
    scaled.balancer.wait_state(s1="UP")


def test_clients_of_a_killed_server_find_the_other(scaled, start, tmp_path):
    busy = [start(Process, *scaled.command("--pattern", "xyz", "--count", "100000000")) for _ in range(4)]
    scaled.wait_clients(2, 2)
    killed, other = scaled.servers
    begin = time.monotonic()
    killed.signal(signal.SIGKILL)
    killed.wait()
    wait_until(lambda: sum(client.process.poll() is not None for client in busy) == 2, "two clients that know")
    assert time.monotonic() - begin < 10 * SCALE
    assert all(client.wait() == 7 for client in busy if client.process.poll() is not None)
    # At once: also while HAProxy does not know yet, it tries the other.
    for _ in range(3):
        answer = work(scaled, tries=3)
        assert answer["codes"] == [0] and answer["messages_verified"] == 200, answer
    assert other.status()["connected"] == 2 and other.status()["accepted"] == 5


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_clients_that_reconnect_finish_their_work_at_the_other(scaled, start, end):
    """One server is drained, which keeps its clients, and then ends."""
    busy = [start(Process, *scaled.command("--json", "--reconnect-ms", str(int(60000 * SCALE)), "--pattern", "xyz", "--count", "6000",
                                           "--hold-ms", str(int(3000 * SCALE)))) for _ in range(4)]
    scaled.wait_clients(2, 2)
    drained, other = scaled.servers
    drained.drain("--timeout-ms", str(int(60000 * SCALE)))
    scaled.balancer.wait_state(s1="DOWN", s2="UP")
    assert len(drained.status()["clients"]) == 2
    drained.signal(end)
    answers = [json.loads(next(line for line in client.lines if line)) for client in busy if client.wait(60) == 0]
    assert len(answers) == 4, [client.log() for client in busy]
    assert sorted(answer["reconnects"] for answer in answers) == [0, 0, 1, 1]
    assert all(answer["messages_verified"] == 6000 and answer["bytes_read_back"] == 65536 for answer in answers)
    assert other.stop()["accepted"] == 4


def test_server_that_comes_back_gets_clients_again(scaled, certs, device, start, tmp_path):
    killed = scaled.servers[0]
    killed.signal(signal.SIGKILL)
    killed.wait()
    scaled.balancer.wait_state(s1="DOWN")
    assert work(scaled)["codes"] == [0]
    back = start(Server, certs, device, "--proxy-networks", "127.0.0.0/8", "--port", str(killed.port), "--metrics",
                 f"127.0.0.1:{killed.metrics_port}")
    scaled.balancer.wait_state(s1="UP")
    holders = [start(Holder, scaled, tmp_path) for _ in range(2)]
    wait_until(lambda: back.status()["connected"] == 1, "a client of the server that is back")
    for holder in holders:
        holder.finish()


def test_balancer_that_dies_ends_the_connections_through_it(scaled, start):
    clients = [start(Client, scaled.certs, scaled.port, "--server-name", "localhost", host=scaled.host) for _ in range(2)]
    scaled.wait_clients(1, 1)
    scaled.balancer.process.kill()
    for client in clients:
        assert client.wait() == 7
    for server in scaled.servers:
        server.wait_status(connected=0, lost=1)


# ---- true addresses ------------------------------------------------------------------------------------------------------


def may_make_namespaces():
    if os.geteuid() != 0 or not shutil.which("ip") or not ON_UROCE:
        return False
    name = f"sdma-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    bridged = made and subprocess.run(["ip", "-n", name, "link", "add", "name", "bridge", "type", "bridge"], capture_output=True,
                                      check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return bridged


class Network:
    """A network namespace for each host, on a bridge in one more."""

    HOSTS = {"lb": "10.77.0.10", "s1": "10.77.0.1", "s2": "10.77.0.2", "c1": "10.77.0.21", "c2": "10.77.0.22"}

    def __init__(self):
        self.prefix = f"sdma{os.getpid()}-"
        self.spaces = []
        self.libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._add("sw")
            self._ip("sw", "link", "add", "name", "bridge", "type", "bridge")
            self._ip("sw", "link", "set", "bridge", "up")
            for host, address in self.HOSTS.items():
                self._add(host)
                self._ip("sw", "link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth", "netns", self.prefix + host)
                self._ip("sw", "link", "set", f"to-{host}", "master", "bridge", "up")
                self._ip(host, "addr", "add", f"{address}/24", "dev", "eth")
                self._ip(host, "link", "set", "eth", "up")
                self._ip(host, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def _add(self, host):
        subprocess.run(["ip", "netns", "add", self.prefix + host], check=True)
        self.spaces.append(self.prefix + host)

    def _ip(self, host, *args):
        subprocess.run(["ip", "-n", self.prefix + host, *args], check=True)

    def options(self, host):
        """The options of Popen with which a program runs on that host."""
        path = f"/run/netns/{self.prefix}{host}"

        def enter():
            with open(path, "rb") as space:
                if self.libc.setns(space.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
                    os._exit(126)

        return {"preexec_fn": enter, "env": dict(os.environ, UROCE_ADDR=self.HOSTS[host])}

    def cut(self, host):
        """The host's cable is pulled: nobody hears of its end."""
        self._ip("sw", "link", "set", f"to-{host}", "down")

    def close(self):
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)


@pytest.fixture
def network(start):
    if not may_make_namespaces():
        pytest.skip("network namespaces need root, and uroce as the device")
    return start(Network)


def spread(network, certs, device, start, tmp_path, networks, more=lambda text: text):
    hosts = Network.HOSTS
    servers = [start(BackendServer, certs, device, tmp_path, name, networks, metrics=f"{hosts[name]}:9143", **network.options(name))
               for name in ("s1", "s2")]
    balancer = start(HAProxy, tmp_path, [(f"s{i + 1}", hosts[f"s{i + 1}"], server.port, server.metrics_port)
                                         for i, server in enumerate(servers)],
                     bind=f"{hosts['lb']}:4433", more=more, **network.options("lb"))
    balancer.port = 4433
    return Scaled(certs, balancer, servers, hosts["lb"], network.options)


def test_hosts_are_known_by_their_own_addresses_and_rdma_goes_past_the_balancer(network, certs, device, start, tmp_path):
    scaled = spread(network, certs, device, start, tmp_path, Network.HOSTS["lb"])
    for space in ("c1", "c2"):
        answer = work(scaled, space=space)
        assert answer["codes"] == [0] and answer["messages_verified"] == 200, answer
    log = "".join(server.log() for server in scaled.servers)
    for space in ("c1", "c2"):
        assert re.search(rf"connected from {Network.HOSTS[space]}:\d+ through {Network.HOSTS['lb']}:\d+ as", log), log
    assert " warning: " not in log
    # A client that is told which GIDs its server may have.
    assert work(scaled, args=["--gid-networks", "10.77.0.0/29"], space="c1")["codes"] == [0]
    refused = work(scaled, args=["--gid-networks", "10.99.0.0/16"], space="c1")
    assert refused["codes"] == [4] and "name the networks of its servers" in refused["stderr"], refused


def test_without_the_header_a_host_can_not_name_its_gid(network, certs, device, start, tmp_path):
    scaled = spread(network, certs, device, start, tmp_path, "192.0.2.0/24", more=lambda text: text.replace("send-proxy-v2", ""))
    answer = work(scaled, space="c1")
    assert answer["codes"] == [5] and answer["reject"]["reason"] == 4, answer


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_hosts_whose_server_drains_or_dies_finish_their_work_at_the_other(network, certs, device, start, tmp_path, version):
    scaled = spread(network, certs, device, start, tmp_path, Network.HOSTS["lb"],
                    more=lambda text: text.replace("send-proxy-v2", version))
    holders = [start(Holder, scaled, tmp_path, space) for space in ("c1", "c2")]
    scaled.wait_clients(1, 1)
    drained, other = scaled.servers
    drained.drain("--timeout-ms", str(int(60000 * SCALE)))
    scaled.balancer.wait_state(s1="DOWN", s2="UP")
    assert work(scaled, space="c1")["codes"] == work(scaled, space="c2")["codes"] == [0]
    assert (drained.status()["accepted"], other.status()["accepted"]) == (1, 3)
    drained.signal(signal.SIGKILL)
    drained.wait()
    lost = wait_until(lambda: next((holder for holder in holders if holder.process.poll() is not None), None), "a client that knows")
    assert lost.wait() == 7
    answer = work(scaled, tries=3, space="c1")
    assert answer["codes"] == [0] and answer["messages_verified"] == 200, answer
    next(holder for holder in holders if holder is not lost).finish()


def test_hosts_that_vanish_are_noticed_through_the_balancer(network, certs, device, start, tmp_path):
    scaled = spread(network, certs, device, start, tmp_path, Network.HOSTS["lb"])
    # Clients that do nothing: nothing but the TLS channel can tell.
    first, second = (start(Process, *scaled.command(), stdin=subprocess.PIPE, **scaled.options(space)) for space in ("c1", "c2"))
    scaled.wait_clients(1, 1)
    served_by = {space: next(i for i, server in enumerate(scaled.servers)
                             if server.status()["clients"][0]["address"].startswith(Network.HOSTS[space] + ":"))
                 for space in ("c1", "c2")}
    server = scaled.servers[served_by["c1"]]
    network.cut("c1")
    network.cut(f"s{served_by['c2'] + 1}")
    begin = time.monotonic()
    assert second.wait() == 7 and "went away" in second.log()
    server.wait_log("peer lost")
    # HAProxy's keepalive: 5 s and three times 2.
    assert time.monotonic() - begin < 20 * SCALE
    first.process.kill()
