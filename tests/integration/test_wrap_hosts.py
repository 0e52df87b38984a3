# SPDX-License-Identifier: Apache-2.0
"""`securdma wrap` with `securdma agent`: two hosts, which are two addresses of the loopback network, each with its agent and its uroce device."""
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest
from conftest import SECURDMA, STEP, UROCE, Process, free_port, left_out_of, wait_until
from test_wrap import ERR, Middle, Pairs, listens, perftest_options, two_ends, wrap

pytestmark = left_out_of("asan", "tsan", "vm")

A, B, C = "127.0.0.2", "127.0.0.3", "127.0.0.4"
ADDRESSES = {"a": A, "b": B, "c": C}


def make_certificates(folder, addresses):
    """Of a CA, and of hosts: `addresses` has those of each name."""
    def cert(*words):
        subprocess.run([SECURDMA, "cert", *words], cwd=folder, check=True, capture_output=True)

    cert("ca")
    for name, own in addresses.items():
        cert("peer", "--cn", f"{name}.example", *(word for address in own for word in ("--name", address)), "--out", name)
    return cert


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    cert = make_certificates(folder, {name: [address] for name, address in ADDRESSES.items()})
    cert("ca", "--out", "other")
    cert("peer", "--cn", "b.example", "--name", B, "--ca", "other.crt", "--ca-key", "other.key", "--out", "stranger")
    return folder


class Host:
    """An agent, and what runs at its host: on uroce, or, where `uroce` is None, on a device of the kernel's. `prefix` begins each command."""

    def __init__(self, certificates, folder, port, name, address=None, prefix=()):
        self.certificates, self.port, self.name, self.address = certificates, port, name, address or ADDRESSES[name]
        self.path = os.path.join(folder, name)
        self.device, self.uroce, self.prefix = ("uroce0", "0"), ["--addr", self.address], prefix
        self.agent, self.ended = None, contextlib.ExitStack()

    def start(self, *options, cert=None):
        pem = os.path.join(self.certificates, cert or self.name)
        self.agent = self.ended.enter_context(contextlib.closing(Process(
            *self.prefix, SECURDMA, "agent", "--cert", pem + ".crt", "--key", pem + ".key", "--ca", os.path.join(self.certificates, "ca.crt"), "--listen", self.address,
            "--port", self.port, "--socket", self.path, "--control", self.path + ".control", "--json", *options)))
        self.agent.wait_line(lambda line: '"listening"' in line)
        return self

    def kill(self):
        self.agent.process.kill()
        self.agent.process.wait()

    def status(self):
        return json.loads(subprocess.run([SECURDMA, "status", "--agent", "--json", "--control", self.path + ".control"], check=True, capture_output=True).stdout)

    def command(self, *words, bare=False, **how):
        uroce = [] if self.uroce is None else [UROCE, *self.uroce]
        return [*self.prefix, *([*uroce, *words] if bare else wrap(self.path, *words, uroce=self.uroce, **how))]

    def pairs(self, *words, bare=False, **how):
        return self.ended.enter_context(contextlib.closing(Pairs(
            None if bare else self.path, *words, device=self.device, uroce=self.uroce, prefix=self.prefix, **how)))


@pytest.fixture
def hosts(certificates):
    port = free_port("127.0.0.1")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wrap."))
        made = [Host(certificates, folder, port, name) for name in "ab"]
        for host in made:
            stack.enter_context(host.ended)
        yield made


def connect(a, b, at=0, addresses=(A, B), kind="rc"):
    qpns = a.ready(at, kind), b.ready(at, kind)
    # One end is ready before the other knows its number, as with NCCL.
    assert a.rtr(at, qpns[1], addresses[1], 0) == 0 and a.rts(at, 0) == 0, a.log()
    assert b.rtr(at, qpns[0], addresses[0], 0) == 0 and b.rts(at, 0) == 0, b.log()
    assert a.psns(at) == b.psns(at)[::-1] and 0 not in a.psns(at)
    return qpns


def test_programs_of_two_hosts(hosts):
    a, b = (host.start() for host in hosts)
    port = free_port("127.0.0.1")
    command = ["ib_write_bw", "-q", "4", "-b", "-n", "100", "-s", "4096", *perftest_options(port)]
    for text, name in zip(two_ends(b.command(*command, options=["--report=json"]), a.command(*command, B, options=["--report=json"]), port), ("a", "b")):
        report = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
        assert report["queue_pairs"]["with_agents_psns"] == 4 and [peer["name"] for peer in report["peers"]] == [f"{name}.example"]


def has_open_mpi():
    """Its compiler comes with its programs, and its header with another package."""
    if not (shutil.which("mpiexec.openmpi") and shutil.which("mpicc.openmpi")):
        return False
    return subprocess.run(["mpicc.openmpi", "-E", "-include", "mpi.h", "-x", "c", os.devnull], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_open_mpi(), reason="Open MPI is not installed, or not its header")
def test_open_mpi_over_ucx(hosts, tmp_path):
    """A process at each host; both begin with PSN 0."""
    a, b = (host.start() for host in hosts)
    program = tmp_path / "mpi_check"
    subprocess.run(["mpicc.openmpi", "-o", program, os.path.join(os.path.dirname(__file__), "../../uroce/tests/programs/mpi_check.c")], check=True)
    ranks = [["-np", "1", *host.command(program, options=["--report=json"])] for host in (a, b)]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_pml="ucx", OMPI_MCA_osc="ucx",
                       OMPI_MCA_rmaps_base_oversubscribe="1", UCX_TLS="rc_verbs,ud_verbs:aux,self", UCX_NET_DEVICES="uroce0:1", HOME=str(tmp_path))
    text = subprocess.run(["mpiexec.openmpi", *ranks[0], ":", *ranks[1]], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=2 * STEP, check=True).stdout
    assert "2 processes: all numbers are right" in text
    reports = [json.loads(line) for line in text.splitlines() if line.startswith('{"command"')]
    assert len(reports) == 2, text
    for report in reports:
        pairs = report["queue_pairs"]
        assert pairs["connected"] == pairs["with_agents_psns"] == report["program_psns"]["zero"] > 0
        assert {peer["name"] for peer in report["peers"] if peer["queue_pairs"]} == {"a.example", "b.example"}


def test_psns_cross_and_agents_come_back(hosts):
    a, b = (host.start() for host in hosts)
    x, y = a.pairs("--lookup"), b.pairs(within=False)
    connect(x, y)
    b.kill()
    assert y.receive(0) == 0 and x.send(0) == 0 and x.poll(20000) == 0 and y.poll(20000) == 0
    b.start()
    connect(x, y, 1)
    # Between INIT and RTR: each new agent is told of the queue pairs of its host.
    qpns = x.ready(2), y.ready(2)
    for host in (a, b):
        host.kill()
        host.start()
    # An agent waits for a moment after its start; on a machine that many want that may be too short.
    wait_until(lambda: x.rtr(2, qpns[1], B, 0) == 0, x.log)
    assert x.rts(2, 0) == 0
    assert y.rtr(2, qpns[0], A, 0) == 0 and y.rts(2, 0) == 0, y.log()
    assert x.psns(2) == y.psns(2)[::-1]
    error, _, _, wrong = x.many(1000, 2)  # with each other, by the one agent
    assert (error, wrong) == (0, 0)


def test_ends_are_reset_one_after_the_other(hosts):
    """Each as far as RTS, as programs do that keep their queue pairs after an error."""
    a, b = (host.start() for host in hosts)
    x, y = a.pairs(), b.pairs()
    qpns = connect(x, y)
    before = {*x.psns()}
    for one, peer, address in ((x, qpns[1], B), (y, qpns[0], A)):
        assert one.reset(0) == one.init(0) == one.rtr(0, peer, address, 0) == one.rts(0, 0) == 0, one.log()
    assert x.psns() == y.psns()[::-1] and not before & {*x.psns()}
    assert y.receive(0) == 0 and x.send(0) == 0 and x.poll(20000) == 0 and y.poll(20000) == 0


def test_agent_that_is_stopped_holds_up_a_program_once(hosts):
    """Not each call that tells it something: its socket takes a few hundred packets while nobody reads. It then knows what is true."""
    count, waits_ms = 500, 3000
    agent = hosts[0].start()
    x = agent.pairs(timeout_ms=waits_ms)
    for at in range(count + 1):
        x.ready(at)
    agent.agent.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert not any(x.destroy(at) for at in range(count))
    assert x.rtr(count, 77, B, 0) == errno.EACCES and f"did not answer within {waits_ms} ms" in x.log(), x.log()
    took = time.monotonic() - began
    agent.agent.process.send_signal(signal.SIGCONT)
    assert took < STEP, f"{took:.0f} s for {count} queue pairs"
    wait_until(lambda: agent.status()["queue_pairs"] == 1, x.log)
    assert x.ready(0)


def test_changed_exchange_is_refused_at_both_ends(hosts):
    """A man in the middle has told b's program of another queue pair of a's host."""
    a, b = (host.start() for host in hosts)
    x, y = a.pairs(), b.pairs()
    qpn, other, peer = x.ready(0), x.ready(1), y.ready(0)
    assert x.rtr(0, peer, B, 0) == 0
    assert y.rtr(0, other, A, 0) == errno.EACCES and "somebody may have changed what the programs told each other" in y.log()
    x.wait_log(f"stopped queue pair {qpn} ")
    wait_until(lambda: x.query(0)[0] == ERR, "the error state")


def attack_in_the_middle(a, b, bare):
    """A man in the middle puts its own queue pair, which has b's address and is not registered there, into perftest's exchange."""
    attacker = b.pairs(bare=True)
    mine, told, port = attacker.ready(), {}, free_port("127.0.0.1")
    assert attacker.receive(0) == 0

    def change(qpn, psn, from_client):
        if from_client and not told:
            told["connected"] = attacker.rtr(0, qpn, a.address, psn), attacker.rts(0, 0)
        return (qpn if from_client else mine), psn

    def begin(host, *more):
        command = ["ib_send_bw", "-n", "5", "-s", "64", "-u", "10", "-d", host.device[0], "-x", host.device[1], "-F", *more]
        return host.ended.enter_context(contextlib.closing(Process(*host.command(*command, bare=bare))))

    middle = Middle(port, change)
    begin(b, "-p", str(port))
    wait_until(lambda: listens(port), "the server's port")
    client = begin(a, "-p", str(middle.port), "127.0.0.1")
    if bare:
        wait_until(lambda: told, "the client's keys")
        assert attacker.poll(20000) == 0
    else:
        said = rf"refused to connect queue pair .* at {re.escape(b.address)}: .*(no such queue pair is registered|somebody may have changed)"
        assert client.wait() != 0 and re.search(said, client.log()), client.log()
        assert attacker.poll(0) == -1


@pytest.mark.parametrize("bare", [True, False])
def test_man_in_the_middle_of_two_hosts(hosts, bare):
    attack_in_the_middle(*(host.start() for host in hosts), bare)


@pytest.mark.parametrize("cert, said", [("stranger", "certificate"), ("c", "127.0.0.3"), (None, "Connection refused")])
def test_host_that_can_not_be_verified(hosts, cert, said):
    """Of another CA; with the certificate of another host; without an agent."""
    a, b = hosts
    a.start()
    if cert:
        b.start(cert=cert)
    x = a.pairs()
    x.ready()
    assert x.rtr(0, 77, B, 0) == errno.EACCES
    assert re.search(f"refused to connect queue pair .* with queue pair 77 .* at 127.0.0.3: .*{said}", x.log()), x.log()
    assert x.address(B) == errno.EACCES


def test_observing_agents_let_pass_and_enforcing_ones_do_not_be_talked_into_it(hosts):
    a, b = hosts[0].start("--mode", "observe"), hosts[1].start()
    x, y = a.pairs(options=["--observe"]), b.pairs(options=["--observe"])
    x.ready()
    assert x.rtr(0, 99, C, 5) == 0 and x.rts(0, 6) == 0 and x.psns() == (6, 5)
    assert "would refuse to connect queue pair" in x.log()
    y.ready()
    assert y.rtr(0, 99, C, 5) == errno.EACCES


def test_packets_that_do_not_leave_the_host_need_no_encryption(hosts):
    """Both of these hosts are this one. test_agent.py has a path that is refused, test_encryption.py all kinds of them."""
    a, b = (host.start() for host in hosts)
    x, y = a.pairs(options=["--require-encryption", "--report"]), b.pairs()
    x.ready()
    assert x.rtr(0, y.ready(), B, 0) == 0 and "refused" not in x.log(), x.log()
    x.process.stdin.close()
    assert x.wait() == 0 and "1 queue pair; not encrypted, but the packets do not leave this host" in x.log(), x.log()


def test_encryption_is_required_and_not_there(hosts):
    """What stays on this machine counts as encrypted, so the peer is elsewhere."""
    x = hosts[0].start().pairs(options=["--require-encryption"])
    x.ready()
    assert x.rtr(0, 77, "192.0.2.1", 0) == errno.EACCES and re.search("refused to connect .*encrypt", x.log()), x.log()
