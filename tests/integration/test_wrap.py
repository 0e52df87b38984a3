# SPDX-License-Identifier: Apache-2.0
"""`securdma wrap`: programs that connect queue pairs by themselves get PSNs and peers from the agent. Here a stand-in for the agent
(wrap_agent.py) answers from one table."""
import concurrent.futures
import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import pytest
import wrap_agent
from conftest import BUILD, SECURDMA, STEP, UROCE, Process, free_port, left_out_of, wait_until
from wrap_agent import ADDRESS, CONNECT, ENFORCE, OBSERVE, RESTORE, StandIn

# What is wrapped is a stranger's program, and so is the library built: without sanitizers. The kernel's device has runs of its own.
pytestmark = left_out_of("asan", "tsan", "vm")

PAIRS = os.path.join(BUILD, "tests", "integration", "wrap_pairs")
LOOPBACK = "127.0.0.1"
# A machine that many want makes the stand-in late.
TIMEOUT_MS = min(int(STEP * 1000), 60000)  # the most that it may be
os.environ["SECURDMA_WRAP_TIMEOUT_MS"] = str(TIMEOUT_MS)
RTR, RTS, ERR = 2, 3, 6


@pytest.fixture
def agent():
    folder = tempfile.mkdtemp(prefix="wrap.")
    with StandIn(os.path.join(folder, "agent.sock")) as stand_in:
        yield stand_in
    shutil.rmtree(folder)


def wrap(agent, *command, options=(), within=True, uroce=()):
    """The command line that runs a command wrapped, within uroce or around it, or, where `uroce` is None, without it."""
    path = agent if isinstance(agent, str) else agent.path
    wrapper = [SECURDMA, "wrap", "--agent", path, *options, "--"]
    if uroce is None:
        return [*wrapper, *command]
    return [UROCE, *uroce, *wrapper, *command] if within else [*wrapper, UROCE, *uroce, *command]


def finish(command, code=0, **more):
    result = subprocess.run(command, capture_output=True, text=True, timeout=STEP, **more)
    assert code is None or result.returncode == code, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


class Pairs(Process):
    """wrap_pairs.c: each method is one of its commands, and returns the numbers of its answer."""

    def __init__(self, agent, *arguments, timeout_ms=None, device=("uroce0", "0"), prefix=(), **how):
        command = [PAIRS, *arguments, *device]
        uroce = how.get("uroce", ())
        bare = command if uroce is None else [UROCE, *uroce, *command]
        super().__init__(*prefix, *(wrap(agent, *command, **how) if agent else bare), stdin=subprocess.PIPE,
                         env=dict(os.environ, **({"SECURDMA_WRAP_TIMEOUT_MS": str(timeout_ms)} if timeout_ms else {})))
        self.wait_line(lambda line: line == "ready")
        self.said = 1

    def __getattr__(self, name):
        def call(*arguments):
            self.send_line(" ".join(map(str, (name, *arguments))))
            with self.changed:
                assert self.changed.wait_for(lambda: len(self.lines) > self.said, STEP), self.log()
            line = self.lines[self.said]
            assert line is not None, self.log()
            self.said += 1
            numbers = [float(word) if "." in word else int(word) for word in line.split()]
            return numbers[0] if len(numbers) == 1 else numbers
        if name.startswith("_"):
            raise AttributeError(name)
        return call

    def ready(self, at=0, kind="rc"):
        """Makes a queue pair and brings it to INIT; its number."""
        qpn = self.create(at, kind)
        assert qpn and self.init(at) == 0, self.log()
        return qpn

    def psns(self, at=0):
        """sq_psn and rq_psn, as the device has them."""
        return tuple(self.query(at)[1:3])


@pytest.fixture
def start(agent):
    started = []

    def one(*arguments, agent=agent, **how):
        started.append(Pairs(agent, *arguments, **how))
        return started[-1]
    yield one
    for program in started:
        program.close()


def connect(a, b, at=0, psn=0, kind="rc"):
    """Each to the other, as programs do; what both devices then have is the agent's."""
    qpns = a.ready(at, kind), b.ready(at, kind)
    for one, peer in ((a, qpns[1]), (b, qpns[0])):
        assert one.rtr(at, peer, LOOPBACK, psn) == 0, one.log()
        assert one.rts(at, psn) == 0, one.log()
    assert a.psns(at) == b.psns(at)[::-1]
    return qpns


# ---- programs that nobody changed -----------------------------------------------------------------------------------------


def two_ends(server, client, port, seconds=STEP):
    """Runs both ends of a benchmark; what they wrote."""
    with subprocess.Popen(server, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_until(lambda: listens(port) or process.poll() is not None, "the server's port")
            out = subprocess.run(client, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False)
            other = process.communicate(timeout=seconds)[0]
        finally:
            process.kill()
    assert out.returncode == 0 and process.returncode == 0, f"{client}: {out.returncode}, {process.returncode}\n{out.stdout}\n{other}"
    return other, out.stdout


def listens(port):
    with open("/proc/net/tcp", encoding="ascii") as table, open("/proc/net/tcp6", encoding="ascii") as table6:
        return any(re.search(rf": [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ", line) for line in [*table, *table6])


# By events where it can: an end that polls takes the processor from others.
PERFTEST = {
    "send_rc": ["ib_send_bw", "-e", "-n", "100", "-s", "4096"],
    "send_uc": ["ib_send_bw", "-e", "-c", "UC", "-n", "100", "-s", "1024"],
    "write_pairs_both": ["ib_write_bw", "-q", "4", "-b", "-n", "100", "-s", "4096"],
    "write_uc": ["ib_write_bw", "-c", "UC", "-n", "100", "-s", "4096"],
    "read_lat": ["ib_read_lat", "-n", "100"],
    "atomic": ["ib_atomic_bw", "-n", "100"],
    "send_ud": ["ib_send_lat", "-e", "-c", "UD", "-n", "100"],
}


def perftest_options(port, device="uroce0", index="0"):
    # The local ACK timeout leaves room for a machine that many want.
    return ["-u", "17", "-d", device, "-x", index, "-F", "-p", str(port)]


def test_benchmarks_run_as_they_are(agent):
    def one(name):
        port = free_port(LOOPBACK)
        command = [*PERFTEST[name], *perftest_options(port)]
        server, client = two_ends(wrap(agent, *command, options=["--report=json"]), wrap(agent, *command, LOOPBACK, options=["--report=json"]), port)
        return name, [json.loads(next(line for line in text.splitlines() if line.startswith("{"))) for text in (server, client)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, reports in pool.map(one, PERFTEST):
            for report in reports:
                pairs, count = report["queue_pairs"], 0 if name == "send_ud" else 8 if "pairs" in name else 1
                assert pairs["refused"] == 0 and pairs["connected"] == pairs["with_agents_psns"], (name, report)
                assert pairs["connected"] in (count, count // 2) and (name != "send_ud" or report["peers"][0]["addresses"] > 0), (name, report)


@pytest.mark.parametrize("program", ["ibv_rc_pingpong", "ibv_uc_pingpong"])
@pytest.mark.parametrize("within", [True, False])
def test_pingpong_in_both_nestings(agent, program, within):
    port = free_port(LOOPBACK)
    # A shell between, as in scripts.
    command = ["sh", "-c", f"exec {program} -d uroce0 -g 0 -n 100 -p {port} $0", ""]
    server, client = two_ends(wrap(agent, *command, within=within), wrap(agent, *command[:3], LOOPBACK, within=within), port)
    assert "bytes in" in server and "bytes in" in client
    assert sum(request[0] == CONNECT for request in agent.requests) == 2


def test_ucx_over_verbs(agent):
    port = free_port(LOOPBACK)
    # One that was built with MPI thinks that MPI has started it.
    usage = subprocess.run(["ucx_perftest", "-h"], capture_output=True, text=True, check=False, timeout=STEP)
    without_mpi = ["-P", "0"] if " -P <0|1>" in usage.stdout + usage.stderr else []
    command = ["env", "UCX_TLS=rc_verbs,ud_verbs:aux", "UCX_NET_DEVICES=uroce0:1", "ucx_perftest", *without_mpi, "-p", str(port), "-t", "tag_lat",
               "-n", "100", "-w", "10"]
    two_ends(wrap(agent, *command), wrap(agent, *command[:3], *command[3:], LOOPBACK), port)
    assert sum(request[0] == CONNECT for request in agent.requests) >= 2


# ---- ways of connecting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["linked", "--lookup"])
@pytest.mark.parametrize("within", [True, False])
def test_one_end_is_ready_before_the_other_knows_it(start, way, within):
    """NCCL's way: PSN 0, and the functions looked up in a handle."""
    arguments = [way] if way != "linked" else []
    a, b = start(*arguments, within=within), start(*arguments, within=within)
    mine, peer = a.ready(), b.ready()
    assert a.rtr(0, peer, LOOPBACK, 0) == 0 and a.rts(0, 0) == 0
    assert b.receive(0) == 0
    assert b.rtr(0, mine, LOOPBACK, 0) == 0 and b.rts(0, 0) == 0
    assert a.send(0) == 0 and a.poll(20000) == 0 and b.poll(20000) == 0
    assert a.psns() == b.psns()[::-1] and a.psns() != (0, 0)
    assert a.query(0)[0] == RTS


def test_psns_are_the_agents_whatever_the_program_passes(start, agent):
    a, b = start(), start()
    for at, (psn, kind) in enumerate(((0, "rc"), (1804289383 & 0xffffff, "rc"), (0xffffff, "uc"))):  # gloo's first rand(), unseeded
        qpns = connect(a, b, at, psn, kind)
        assert a.psns(at) == tuple(agent.table["uroce0", qpn].psn for qpn in qpns)
        assert psn not in a.psns(at)


def test_reset_draws_anew(start):
    a, b = start(), start()
    qpns = connect(a, b)
    before = {*a.psns()}
    for one in (a, b):
        assert one.reset(0) == 0
        assert one.init(0) == 0
    for one, peer in ((a, qpns[1]), (b, qpns[0])):
        assert one.rtr(0, peer, LOOPBACK, 7) == 0 and one.rts(0, 7) == 0
    assert a.psns() == b.psns()[::-1] and not before & {*a.psns()}
    assert b.receive(0) == 0 and a.send(0) == 0 and a.poll(20000) == 0 and b.poll(20000) == 0


def test_states_in_odd_orders(start, agent):
    """A program may try what the device refuses; the next right order connects all the same."""
    a, b = start(), start()
    a.create(0, "rc")
    peer = b.ready()
    assert a.rtr(0, peer, LOOPBACK, 0) == errno.EACCES and a.rts(0, 0) == errno.EACCES
    assert a.init(0) == a.init(0) == 0  # the second one changes attributes alone
    qpn = agent.requests[-1][2]
    psn = agent.table["uroce0", qpn].psn
    assert a.rts(0, 0) == errno.EACCES and "did not come to RTR" in a.log()
    assert a.rtr(0, peer, LOOPBACK, 0) == 0
    assert a.rtr(0, peer, LOOPBACK, 0) == errno.EACCES and "it is connected; reset it first" in a.log()
    assert a.rts(0, 0) == 0 and a.rts(0, 0) == errno.EINVAL  # as the device says
    assert b.rtr(0, qpn, LOOPBACK, 0) == 0 and b.rts(0, 0) == 0
    assert a.psns() == b.psns()[::-1] and a.psns()[0] == psn
    # Without RESET between: the device refuses it, so the connection stays.
    assert a.init(0) != 0 and a.psns() == b.psns()[::-1]


def test_attempt_that_fails_at_the_device_may_be_repeated_with_any_peer(start, agent):
    a, b, c = start(), start(), start()
    qpns = [one.ready() for one in (a, b, c)]
    psn = agent.table["uroce0", qpns[0]].psn
    assert a.badrtr(0, qpns[1], LOOPBACK) not in (0, errno.EACCES)
    assert agent.table["uroce0", qpns[1]].expected
    # The same peer knows this PSN; another one gets another.
    assert a.rtr(0, qpns[1], LOOPBACK, 0) == 0 and agent.table["uroce0", qpns[0]].psn == psn
    assert a.reset(0) == 0 and a.init(0) == 0
    psn = agent.table["uroce0", qpns[0]].psn
    assert a.badrtr(0, qpns[1], LOOPBACK) not in (0, errno.EACCES)
    assert a.rtr(0, qpns[2], LOOPBACK, 0) == 0 and a.rts(0, 0) == 0, a.log()
    assert agent.table["uroce0", qpns[0]].psn != psn
    assert c.rtr(0, qpns[0], LOOPBACK, 0) == 0 and c.rts(0, 0) == 0
    assert a.psns() == c.psns()[::-1]


def test_queue_pair_that_another_thread_destroys_while_it_is_asked_for(start, agent):
    a, b = start(), start()
    peer = b.ready()
    # The answer comes when the queue pair is gone.
    agent.answers = lambda type_, qpn: time.sleep(2) if type_ == CONNECT else None
    a.ready()
    assert a.abandon(0, peer, LOOPBACK, 100) == [0, errno.EINVAL], a.log()
    agent.answers = lambda type_, qpn: None
    connect(a, b, 1)


def test_a_thousand_queue_pairs_and_two_threads(start):
    a = start(options=["--report=json"])
    for threads in (1, 2):
        error, took, slowest, wrong = a.many(1000, threads)
        assert (error, wrong) == (0, 0), a.log()
    a.process.stdin.close()
    assert a.wait() == 0
    report = json.loads(a.log().splitlines()[-1])
    assert report["queue_pairs"] == {"connected": 2000, "with_agents_psns": 2000, "refused": 0, "observed": 0, "stopped": 0}
    assert report["program_psns"]["zero"] == 2000 and report["program_psns"]["distinct"] == 1


def test_child_has_a_socket_of_its_own_and_not_the_parents_queue_pairs(start, agent):
    a, b = start(), start()
    qpn, peer = a.ready(), b.ready()
    assert a.child(0, LOOPBACK) == [0, errno.EACCES]
    assert len(agent.greetings) == 3
    assert "did not come to INIT in this process" in a.log()
    assert a.rtr(0, peer, LOOPBACK, 0) == 0 and agent.table["uroce0", qpn].peer


def test_forks_while_another_thread_connects(start):
    assert start().forks(30) == [0, 0]


def test_capture_shows_the_agents_psns_on_the_wire(start, agent, tmp_path):
    a, b = (start(uroce=["--capture", str(tmp_path / f"{name}.pcap")]) for name in "ab")
    qpns = connect(a, b)
    assert b.receive(0) == 0 and a.send(0) == 0 and b.poll(20000) == 0 and a.poll(20000) == 0
    for one in (a, b):
        one.process.stdin.close()
        assert one.wait() == 0
    raw = (tmp_path / "a.pcap").read_bytes()
    # The base transport header: opcode SEND_ONLY of RC, and then the destination queue pair and the PSN.
    seen = {struct.unpack(">I", raw[at + 8:at + 12])[0] & 0xffffff for at in range(len(raw) - 12)
            if raw[at] == 4 and int.from_bytes(raw[at + 5:at + 8], "big") == qpns[1]}
    assert agent.drawn["uroce0", qpns[0]] in seen


# ---- attacks, first on the bare program -------------------------------------------------------------------------------


KEYS = re.compile(rb"[0-9a-f]{4}:[0-9a-f]{4}:([0-9a-f]{6}):([0-9a-f]{6}):[0-9a-f]{8}:[0-9a-f]{16}:")


class Middle:
    """Between perftest's two ends on TCP: `change(QPN, PSN, from_client)` returns what is told instead."""

    def __init__(self, to_port, change):
        self.listener = socket.create_server((LOOPBACK, 0))
        self.port, self.to_port, self.change = self.listener.getsockname()[1], to_port, change
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        client = self.listener.accept()[0]
        server = socket.create_connection((LOOPBACK, self.to_port))
        threading.Thread(target=self.relay, args=(client, server, True), daemon=True).start()
        self.relay(server, client, False)

    def relay(self, source, target, from_client):
        def instead(match):
            qpn, psn = self.change(int(match[1], 16), int(match[2], 16), from_client)
            text, at = bytearray(match[0]), match.start()
            for group, value in ((1, qpn), (2, psn)):
                text[match.start(group) - at:match.end(group) - at] = b"%06x" % value
            return bytes(text)

        try:
            while data := source.recv(4096):
                target.sendall(KEYS.sub(instead, data))
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # an end is gone


@contextlib.contextmanager
def attacked(agent, change):
    """Both ends of a benchmark with a man in the middle, the server first."""
    port = free_port(LOOPBACK)
    middle = Middle(port, change)
    command = ["ib_send_bw", "-n", "5", "-s", "64", "-u", "10", "-d", "uroce0", "-x", "0", "-F"]
    ends = []

    def begin(*more):
        ends.append(Process(*(wrap(agent, *command, *more) if agent else [UROCE, *command, *more])))
        return ends[-1]

    try:
        server = begin("-p", str(port))
        wait_until(lambda: listens(port) or server.process.poll() is not None, "the server's port")
        yield server, begin("-p", str(middle.port), LOOPBACK)
    finally:
        for end in ends:
            end.close()


@pytest.mark.parametrize("bare", [True, False])
def test_man_in_the_middle_with_a_queue_pair_of_its_own(start, agent, bare):
    """The attacker's process is on the same host, since uroce's loopback is all that there is; its queue pair is none that the agent knows."""
    attacker = start(agent=None)
    mine = attacker.ready()
    assert attacker.receive(0) == 0
    told = {}

    def change(qpn, psn, from_client):
        if from_client and not told:
            told["connected"] = attacker.rtr(0, qpn, LOOPBACK, psn), attacker.rts(0, 0)
        return (qpn if from_client else mine), psn

    with attacked(None if bare else agent, change) as (_, client):
        if bare:
            wait_until(lambda: told, "the client's keys")
            assert attacker.poll(20000) == 0  # the client's first message
        else:
            assert client.wait() != 0
            assert re.search(r"securdma wrap: refused to connect queue pair \d+ \(0x[0-9a-f]+\) of uroce0 with queue pair \d+ \(0x[0-9a-f]+\) at 127.0.0.1: no agent has such",
                             client.log())
            assert attacker.poll(0) == -1
    assert told["connected"] == (0, 0)


@pytest.mark.parametrize("bare", [True, False])
def test_swapped_psn(agent, bare):
    def change(qpn, psn, from_client):
        return qpn, psn ^ 0x5a5a5a if from_client else psn

    with attacked(None if bare else agent, change) as (server, client):
        code = client.wait()
        if bare:
            assert code != 0  # what arrives is not what is expected
        else:
            assert (code, server.wait()) == (0, 0), client.log()


def test_second_asker_and_another_destination_are_refused(start):
    a, b, c = start(), start(), start()
    qpns = [one.ready() for one in (a, b, c)]
    assert a.rtr(0, qpns[1], LOOPBACK, 0) == 0
    assert c.rtr(0, qpns[1], LOOPBACK, 0) == errno.EACCES and "another queue pair is connected with that one" in c.log()
    # b's program was told of c: a is stopped, too.
    assert b.rtr(0, qpns[2], LOOPBACK, 0) == errno.EACCES
    a.wait_log(f"stopped queue pair {qpns[0]} ({qpns[0]:#x}) of uroce0")
    wait_until(lambda: a.query(0)[0] == ERR, "the error state")
    assert a.rts(0, 0) == errno.EACCES
    assert a.rtr(0, qpns[1], LOOPBACK, 0) == errno.EACCES and "the agent had it stopped; reset it first" in a.log()
    # After a reset it is another queue pair to the agent.
    assert a.reset(0) == 0 and a.init(0) == 0
    assert c.rtr(0, qpns[0], LOOPBACK, 0) == 0


# ---- agents that fail ---------------------------------------------------------------------------------------------------


def test_without_an_agent_nothing_connects(start, agent):
    agent.stop()
    a = start(timeout_ms=500)
    a.create(0, "rc")
    before = time.monotonic()
    assert a.init(0) == errno.EACCES
    assert time.monotonic() - before >= 0.4
    assert re.search(r"refused to register queue pair \d+ \(0x[0-9a-f]+\) of uroce0: no agent at \S+ \(No such file or directory\); start securdma agent", a.log())
    # The program was refused before it got that far.
    assert a.rtr(0, 5, LOOPBACK, 0) == errno.EACCES
    agent.start()
    assert a.init(0) == 0


def test_observe_goes_on_without_an_agent_and_says_so(start, agent):
    agent.stop()
    a, b = start(options=["--observe"]), start(options=["--observe"])
    qpns = a.ready(), b.ready()
    for one, peer in ((a, qpns[1]), (b, qpns[0])):
        assert one.rtr(0, peer, LOOPBACK, 77) == 0 and one.rts(0, 77) == 0
    assert a.psns() == b.psns() == (77, 77)
    assert "would refuse to connect queue pair" in a.log()


def test_observing_agent_lets_pass_what_it_can_not_vouch_for(start, agent):
    agent.mode = OBSERVE
    a, b = start(options=["--observe"]), start(agent=None)
    qpns = a.ready(), b.ready()  # the agent does not know b
    assert a.rtr(0, qpns[1], LOOPBACK, 3) == 0 and a.rts(0, 4) == 0
    assert a.psns() == (4, 3)
    assert "would refuse to connect" in a.log() and "no agent has such a queue pair" in a.log()


def test_psn_of_the_peer_may_be_the_one_that_the_program_passes(start, agent):
    """An observing agent says whose a PSN is: that they are equal says nothing."""
    agent.mode = OBSERVE
    a, b = start(options=["--observe"]), start(options=["--observe"])
    qpns = a.ready(), b.ready()
    psns = [agent.table["uroce0", qpn].psn for qpn in qpns]
    agent.answers = lambda type_, qpn: "observed" if type_ == CONNECT else None
    assert a.rtr(0, qpns[1], LOOPBACK, psns[1]) == 0 and a.rts(0, 4) == 0
    assert a.psns() == (*psns,)


@pytest.mark.parametrize("fault, said", [
    ((errno.EACCES, "the policy of this host: not with that peer"), "the policy of this host: not with that peer"),
    ("late", "did not answer within 900 ms"),
    ("garbage", None),
    ("close", None),
])
def test_faults_of_an_answer(start, agent, fault, said):
    # The default is 2 s; shorter, and long enough for two tries.
    a, b = start(timeout_ms=900 if fault == "late" else None), start()
    qpns = a.ready(), b.ready()
    times = []

    def once(type_, qpn):
        if type_ != CONNECT or (times and said is None):
            return None
        times.append(type_)
        return fault
    agent.answers = once
    result = a.rtr(0, qpns[1], LOOPBACK, 0)
    if said:
        assert result == errno.EACCES
        assert re.search(rf"refused to connect queue pair {qpns[0]} \(.*\) of uroce0 with queue pair {qpns[1]} \(.*\) at 127.0.0.1: .*{re.escape(said)}", a.log())
    else:
        assert result == 0, a.log()  # by a new connection, after the agent was told again
    agent.answers = lambda type_, qpn: None
    # It is not connected, or it is: the next try says the same either way.
    assert said is None or a.rtr(0, qpns[1], LOOPBACK, 0) == 0


def test_agent_comes_back(start, agent):
    a, b = start(), start()
    qpns = connect(a, b)
    psns = a.psns()  # before it sends: what comes next is counted from here
    a.ready(1)
    agent.stop()
    a.wait_log("the connection to the agent")
    assert b.receive(0) == 0 and a.send(0) == 0 and b.poll(20000) == 0 and a.poll(20000) == 0  # what is connected goes on
    agent.start()
    wait_until(lambda: {qpn for type_, _, qpn in agent.requests if type_ == RESTORE} >= {*qpns}, "all queue pairs")
    wait_until(lambda: ("uroce0", qpns[0]) in agent.table and ("uroce0", qpns[1]) in agent.table, "both")
    assert agent.table["uroce0", qpns[0]].psn == psns[0]
    assert agent.table["uroce0", qpns[0]].restored == (qpns[1], psns[1])
    connect(a, b, 2)


def test_program_that_closes_descriptors_that_it_did_not_open(start):
    a, b = start(), start()
    connect(a, b)
    assert a.closefds() == 0
    connect(a, b, 1)


def test_agent_refuses_a_program_as_a_whole(start, agent):
    agent.refuse_program = "user 1234 may not connect to any peer"
    a = start()
    a.create(0, "rc")
    assert a.init(0) == errno.EACCES and "user 1234 may not connect to any peer" in a.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="runs an agent as another user")
@pytest.mark.parametrize("owner, mode, trusted", [(0, 0o1777, False), (65534, 0o777, False), (65534, 0o755, True)])
def test_another_users_agent_is_trusted_in_its_own_folder_alone(start, owner, mode, trusted):
    # All folders above must be root's.
    with tempfile.TemporaryDirectory(dir="/run", prefix="wrap.") as folder:
        os.chmod(folder, 0o755)
        code, below = shutil.copy(wrap_agent.__file__, folder), os.path.join(folder, "agents")
        os.mkdir(below)
        os.chown(below, owner, owner)
        os.chmod(below, mode)
        path = os.path.join(below, "sock")
        with contextlib.closing(Process(sys.executable, "-B", code, path, user=65534, group=65534, extra_groups=[])) as other:
            other.wait_line(lambda line: line == "ready")
            a = start(agent=path, timeout_ms=None if trusted else 500)
            a.create(0, "rc")
            assert a.init(0) == (0 if trusted else errno.EACCES), a.log()
            assert trusted or "another user listens" in a.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a program as another user")
def test_agent_that_this_user_may_not_reach_is_named(agent):
    os.chmod(os.path.dirname(agent.path), 0o755)
    os.chmod(agent.path, 0o600)
    refused = finish(wrap(agent, "ibv_rc_pingpong", "-d", "uroce0", "-g", "0"), None, user=65534, group=65534, extra_groups=[])
    assert refused.returncode != 0 and f"may not connect to the agent at {agent.path}" in refused.stderr


# ---- what else connects -------------------------------------------------------------------------------------------------


def test_datagrams_go_to_vouched_addresses_alone(start, agent):
    a = start()
    a.ready(0, "ud")
    assert a.address(LOOPBACK) == 0
    agent.answers = lambda type_, qpn: (errno.EACCES, "no agent at that address") if type_ == ADDRESS else None
    assert a.address("192.0.2.9") == errno.EACCES
    assert "refused to send datagrams from uroce0 to 192.0.2.9: no agent at that address" in a.log()


def test_connections_past_verbs_are_refused_and_told_to_the_agent(agent):
    refused = finish(wrap(agent, "ib_send_bw", "-R", *perftest_options(free_port(LOOPBACK)), LOOPBACK), code=None)
    assert refused.returncode not in (0, 124) and "refused to open a connection of rdma_cm (rdma_create_id)" in refused.stderr
    # CREATE_QP is a command that makes one, QUERY_HCA_CAP is not; here no library has the function, which is another error.
    script = ("import ctypes\nc = ctypes.CDLL(None, use_errno=True).mlx5dv_devx_obj_create\nc.restype = ctypes.c_void_p\n"
              "for code in b'\\x05\\x00', b'\\x01\\x00':\n    print(c(None, code + bytes(14), ctypes.c_size_t(16), None, ctypes.c_size_t(0)), ctypes.get_errno())")
    said = finish(wrap(agent, "/usr/bin/python3", "-c", script))
    assert said.stdout.split() == ["None", str(errno.EACCES), "None", str(errno.ENOSYS)]
    assert "by a command of the adapter (mlx5dv_devx_obj_create)" in said.stderr
    # librdmacm itself makes an ID first, to see what the device has.
    assert {(refusal, what) for refusal, what, _ in agent.events} == {(1, "rdma_cm"), (1, "devx")}


@pytest.mark.parametrize("observes, mode, advice", [(False, ENFORCE, "or wrap it with --observe"), (True, ENFORCE, "or let the agent observe"), (True, OBSERVE, "")])
def test_way_out_for_rdma_cm_is_one_that_helps(agent, observes, mode, advice):
    agent.mode = mode
    said = finish(wrap(agent, "rping", "-c", "-a", LOOPBACK, "-p", str(free_port(LOOPBACK)), options=["--observe"] if observes else []), None).stderr
    line = next(line for line in said.splitlines() if "rdma_create_id" in line)
    assert "(its option for rdma_cm off)" + (f", {advice}" if advice else "") in line and ("or " in line.split("rdma_cm off)")[1]) == bool(advice), line


def test_library_stands_before_no_function_of_the_data_path():
    """Those are called through the device's context, which it does not touch, and none has the name of one that it exports."""
    out = subprocess.run(["nm", "-D", "--defined-only", os.path.join(BUILD, "wrap", "libsecurdma-wrap.so")], check=True, capture_output=True, text=True).stdout
    names = {line.split()[2].partition("@")[0] for line in out.splitlines()} - {"IBVERBS_1.1"}
    connecting = {"ibv_modify_qp", "ibv_destroy_qp", "ibv_close_device", "ibv_create_ah", "ibv_create_ah_from_wc", "rdma_create_id", "rdma_create_ep", "rsocket"}
    assert {name for name in names if not name.startswith("mlx5dv_devx_")} == connecting


# ---- the command ----------------------------------------------------------------------------------------------------------


def test_exit_codes_and_usage(agent):
    assert finish(wrap(agent, "sh", "-c", "exit 7"), 7).stderr == ""
    assert finish(wrap(agent, "sh", "-c", "exit 7", options=["--report"]), 7).stderr.startswith("securdma wrap: report of sh:")
    assert finish(wrap(agent, "sh", "-c", "kill -9 $$", options=["--report"]), 137)
    assert "No such file" in finish(wrap(agent, "no-such-command"), 127).stderr
    assert finish(wrap(agent, "/"), 126)
    for words in ([], ["--nonsense", "true"], ["--report=xml", "true"], ["--agent"], ["--agent", "", "true"], ["--agent", "x" * 200, "true"]):
        assert "Try 'securdma wrap --help'" in finish([SECURDMA, "wrap", *words], 2).stderr
    # A write to a pipe that nobody reads ends the command, as it would without.
    assert finish(wrap(agent, "sh", "-c", "kill -PIPE $$; echo alive"), -13).stdout == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a program as another user")
def test_report_says_what_it_lacks(agent):
    """A command that gives up its rights."""
    os.chmod(os.path.dirname(agent.path), 0o755)
    os.chmod(agent.path, 0o666)
    said = finish(wrap(agent, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "rping", "-c", "-a", LOOPBACK, options=["--report"]), None).stderr
    assert "the report lacks what process" in said, said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes programs with the rights of others")
def test_command_with_rights_of_its_own_is_not_run_unwrapped(agent, tmp_path):
    command = tmp_path / "su"
    shutil.copy(shutil.which("true"), command)
    os.chown(command, 65534, 65534)
    command.chmod(0o4755)
    assert "it would run unwrapped" in finish(wrap(agent, str(command)), 125).stderr


def test_static_program_is_said_to_run_unwrapped(agent, tmp_path):
    command, program = tmp_path / "static", bytearray(pathlib.Path(shutil.which("true")).read_bytes())
    headers, size, count = struct.unpack_from("=Q", program, 32)[0], *struct.unpack_from("=HH", program, 54)
    for at in range(headers, headers + count * size, size):
        if struct.unpack_from("=I", program, at)[0] == 3:  # PT_INTERP
            struct.pack_into("=I", program, at, 0)
    command.write_bytes(program)
    command.chmod(0o755)
    # It can't start without its dynamic linker; what matters is said before.
    assert f"{command} is linked statically" in finish(wrap(agent, str(command)), None).stderr
    assert finish(wrap(agent, shutil.which("true"))).stderr == ""


@pytest.mark.parametrize("preload", [True, False])
def test_next_library_is_called_without_a_device_in_user_space(tmp_path, preload):
    """A program that looks functions up in a handle, where nothing else stands before libibverbs."""
    (tmp_path / "libibverbs-next.so.1").symlink_to(os.path.join(BUILD, "tests", "integration", "wrap_next.so"))
    script = "import ctypes; library = ctypes.CDLL('libibverbs.so.1'); print(library.ibv_close_device(7), library.ibv_modify_qp)"
    environment = dict(os.environ, LD_LIBRARY_PATH=f"{BUILD}/wrap/dropin:{tmp_path}", **({"LD_PRELOAD": f"{BUILD}/wrap/libsecurdma-wrap.so"} if preload else {}))
    assert finish(["/usr/bin/python3", "-c", script], env=environment).stdout.startswith("42 ")


def test_wrapped_twice_is_wrapped_once_and_inherits(agent):
    said = finish(wrap(agent, SECURDMA, "wrap", "--observe", "--", "env")).stdout
    variables = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert variables["LD_PRELOAD"].count("libsecurdma-wrap.so") == 1 and variables["LD_LIBRARY_PATH"].count("wrap/dropin") == 1
    assert variables["SECURDMA_WRAP_MODE"] == "enforce" and variables["SECURDMA_AGENT"] == agent.path
