# SPDX-License-Identifier: Apache-2.0
"""`securdma agent`: which queue pairs it connects, and what it refuses, from programs and from other agents. It needs no RDMA device."""
import contextlib
import errno
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

import pytest

from agent_client import (ENFORCE, INFINIBAND, OBSERVE, P_ANSWER, P_DENIED, P_OK, P_PING, P_PONG, P_QUERY, P_RELEASE, P_REVOKE, P_TAKEN, P_UNKNOWN, UC, Peer,
                          Program, Refused, context, end, frame, gid, greeting, query)
from conftest import SECURDMA, SCALE, STEP, Certificates, Process, free_port, run, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
A, B, C = "127.0.0.2", "127.0.0.3", "127.0.0.4"
NAMES = {"a": A, "b": B, "c": C}


class Hosts:
    """Certificates of three hosts, and what starts their agents, which share a port at different addresses."""

    def __init__(self, path):
        self.path = path
        self.port = None
        made = [SECURDMA, "cert", "ca", "--out", path / "ca"]
        subprocess.run(made, check=True, capture_output=True)
        for name, address in NAMES.items():
            self.make(name, "--name", address, "--name", f"{name}.example", "--cn", f"{name}.example")

    def make(self, name, *args):
        subprocess.run([SECURDMA, "cert", "peer", "--ca", self.cert("ca"), "--ca-key", self.key("ca"), "--out", self.path / name, "--force", *args],
                       check=True, capture_output=True)

    def cert(self, name):
        return str(self.path / f"{name}.crt")

    def key(self, name):
        return str(self.path / f"{name}.key")


class Agent(Process):
    def __init__(self, hosts, folder, port, name, *args, cert=None, config=None, prefix=(), **more):
        self.host, self.port = NAMES[name], port
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
        os.chmod(self.folder, 0o755)
        self.socket, self.control = self.folder / "sock", self.folder / "control"
        if config:
            (self.folder / "conf").write_text(config, encoding="utf-8")
            args = ("--config", self.folder / "conf", *args)
        super().__init__(*prefix, SECURDMA, "agent", "--cert", hosts.cert(cert or name), "--key", hosts.key(cert or name), "--ca", hosts.cert("ca"), "--listen",
                         self.host, "--port", port, "--socket", self.socket, "--control", self.control, "--json", "--log-format", "json", *args, **more)
        try:
            self.listening = json.loads(self.wait_line(lambda line: '"listening"' in line))
        except BaseException:
            self.close()
            raise

    def status(self):
        done = subprocess.run([SECURDMA, "status", "--agent", "--json", "--control", self.control], capture_output=True, check=True, timeout=STEP)
        return json.loads(done.stdout)

    def refusals(self, reason):
        return [event for event in self.events("agent.refused") if event["reason"] == reason]

    def wait_refusal(self, reason, words=""):
        return wait_until(lambda: next((event for event in self.refusals(reason) if words in event["message"]), None), self.log)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    return Hosts(tmp_path_factory.mktemp("agents"))


@pytest.fixture
def agent(hosts, start):
    """Starts an agent of a host; all of a test share a port. Their sockets are in a folder that every user can reach."""
    port = free_port("0.0.0.0")
    started = []

    def make(name, *args, **more):
        started.append(start(Agent, hosts, folder, port, name, *args, **more))
        return started[-1]

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield make
        # Those that the test has not ended end in order, whatever they went through.
        for one in started:
            if one.process.poll() is None:
                one.terminate()


@pytest.fixture
def program(start):
    """A program at an agent, on a device with the address of its host, or with those given."""
    def make(agent, *addresses, **more):
        made = start(Program, agent.socket, **more)
        made.device(*(addresses or (agent.host,)))
        return made
    return make


# For agents whose answers have to come, on whatever machine.
PATIENT = ("--connect-timeout-ms", int(STEP * 1000))


@pytest.fixture
def pair(agent, program):
    """Two agents, a program at each, and a queue pair of each: 0x11 and 0x22."""
    a, b = (agent(name, *PATIENT) for name in "ab")
    x, y = program(a), program(b)
    return a, b, x, y, x.register(0x11), y.register(0x22)


class refused(contextlib.AbstractContextManager):
    """The block must be refused with this error and these words."""

    def __init__(self, error, words):
        self.error, self.words = error, words

    def __exit__(self, kind, raised, trace):
        assert kind is Refused, f"not refused: {raised!r}"
        assert raised.error == self.error and self.words in raised.why, raised
        return True


# ---- connecting -------------------------------------------------------------------------------------------------------


def test_both_ends_get_the_psn_that_the_other_agent_drew(pair):
    a, b, x, y, psn_x, psn_y = pair
    answer = x.connect(0x11, A, B, 0x22)
    assert (answer.psn, answer.peer) == (psn_y, "b.example")
    # The other end's agent was told it with the question: it asks nobody.
    answer = y.connect(0x22, B, A, 0x11)
    assert (answer.psn, answer.peer) == (psn_x, "a.example")
    assert a.status()["peers"][0]["queries_sent"] == 1 and b.status()["peers"][0]["queries_sent"] == 0
    x.forget(0x11)
    assert psn_x != x.register(0x11) or psn_x != x.register(0x11)  # drawn anew
    for one in a, b:
        one.terminate()


def test_ends_that_ask_at_once_agree_over_either_session(pair):
    a, b, x, y, psn_x, psn_y = pair
    of_x, of_y = x.ask(0x11, A, B, 0x22), y.ask(0x22, B, A, 0x11)
    assert (x.answer(of_x).psn, y.answer(of_y).psn) == (psn_y, psn_x)
    assert all(1 <= one.status()["sessions"] <= 2 for one in (a, b))


def test_ends_on_one_host_need_no_other_agent(agent, program):
    a = agent("a")
    x, y = program(a), program(a)
    psn_x, psn_y = x.register(0x11), y.register(0x22, kind=UC)
    with refused(errno.EACCES, "one queue pair is RC and the other one UC"):
        x.connect(0x11, A, A, 0x22)
    psn_y = y.register(0x22)
    assert x.connect(0x11, A, A, 0x22).psn == psn_y
    assert y.connect(0x22, A, A, 0x11).psn == psn_x
    third = program(a)
    third.register(0x33)
    with refused(errno.EACCES, "it belongs to another connection"):
        third.connect(0x33, A, A, 0x22)
    # A queue pair may be its own peer.
    psn = third.register(0x44)
    assert third.connect(0x44, A, A, 0x44).psn == psn
    assert a.status()["sessions"] == 0


def test_question_may_come_a_moment_before_the_registration(hosts, agent, program, start):
    b = agent("b")
    y, peer = program(b), start(Peer.dial, hosts, "c", B, b.port)
    peer.greet(C)

    def answered():
        # The agent takes frames in order: what answers the PING has seen the question.
        peer.send(query(1, (C, 5), (B, 0x22), 5) + frame(P_PING, bytes(8)))
        assert peer.next()[0] == P_PONG
        psn = y.register(0x22)
        status, told, _ = peer.answer(1)
        return (status, told) == (P_OK, psn)  # else more than 200 ms had passed
    wait_until(answered, b.log)


def test_queue_pair_that_nobody_registered_is_refused_within_the_deadline(agent, program):
    a, b = agent("a", *PATIENT), agent("b")
    x = program(a)
    x.register(0x11)
    began = time.monotonic()
    with refused(errno.EACCES, "no such queue pair is registered there"):
        x.connect(0x11, A, B, 0x99)
    assert time.monotonic() - began < STEP / 2
    assert b.wait_refusal("unknown", "securdma wrap")["peer"] == "a.example"


def at_once(program, numbers, send):
    """The PSNs that a program is told for queue pairs, after as many questions at once as the socket holds."""
    psns = {}
    for first in range(0, len(numbers), 50):
        requests = {number: send(number) for number in numbers[first:first + 50]}
        psns.update({number: program.answer(request).psn for number, request in requests.items()})
    return psns


def test_many_queue_pairs_connect_over_one_session(agent, program):
    a, b = agent("a"), agent("b")
    x, y = program(a), program(b)
    numbers = range(0x100, 0x100 + 500)
    psns = {}
    for which, one in (("x", x), ("y", y)):
        psns[which] = at_once(one, numbers, lambda number, one=one: one.register(number, wait=False))
    for one, own, peer, theirs in ((x, A, B, psns["y"]), (y, B, A, psns["x"])):
        assert at_once(one, numbers, lambda number, one=one, own=own, peer=peer: one.ask(number, own, peer, number)) == theirs
    assert len(set(psns["x"].values())) > 490  # of 16 million
    assert (a.status()["sessions"], b.status()["queue_pairs"]) == (1, 500)
    x.close()
    wait_until(lambda: a.status()["queue_pairs"] == 0, a.log)


# ---- expectations -----------------------------------------------------------------------------------------------------


def test_ends_that_name_different_peers_are_both_refused(pair, program):
    """What a man in the middle of the programs' own exchange achieves."""
    a, b, x, y, psn_x, _ = pair
    x.connect(0x11, A, B, 0x22)
    with refused(errno.EACCES, "somebody may have changed what the programs told each other"):
        y.connect(0x22, B, A, 0x77)
    device, qpn, psn, why = x.wait_revoked()
    assert (device, qpn, psn) == ("uroce0", 0x11, psn_x) and "asked for queue pair 34" in why
    # Its PSN was told to somebody: only a reset helps.
    with refused(errno.EACCES, "reset it first"):
        y.connect(0x22, B, A, 0x11)
    assert b.wait_refusal("mismatch")["security"] and a.wait_refusal("mismatch")["qpn"] == 0x11
    x.forget(0x11)
    y.forget(0x22)
    psn_x, psn_y = x.register(0x11), y.register(0x22)
    assert (x.connect(0x11, A, B, 0x22).psn, y.connect(0x22, B, A, 0x11).psn) == (psn_y, psn_x)


def test_second_queue_pair_that_asks_for_one_is_refused(pair):
    a, b, x, y, psn_x, psn_y = pair
    x.connect(0x11, A, B, 0x22)
    x.register(0x12)
    with refused(errno.EACCES, "another queue pair has asked for it before"):
        x.connect(0x12, A, B, 0x22)
    assert b.wait_refusal("taken")["security"]
    # The first one is not disturbed, and may ask again.
    assert x.connect(0x11, A, B, 0x22).psn == psn_y and y.connect(0x22, B, A, 0x11).psn == psn_x


def test_queue_pair_that_goes_releases_its_peer_for_the_same_host_alone(hosts, agent, program, start):
    a, b = agent("a"), agent("b")
    x, y = program(a), program(b)
    x.register(0x11)
    psn_y = y.register(0x22)
    x.connect(0x11, A, B, 0x22)
    x.close()
    other = program(a)
    other.register(0x12)
    assert other.connect(0x12, A, B, 0x22).psn == psn_y
    other.close()
    third = start(Peer.dial, hosts, "c", B, b.port)
    third.greet(C)
    wait_until(lambda: third.ask(1, (C, 5), (B, 0x22))[2].startswith("its PSN was told to another host"), b.log)


@pytest.fixture(params=["hosts", "host"])
def connected(agent, program, request):
    """Two programs of two hosts, or of one, whose queue pairs are connected; a function that connects one end again, and one that another end tries."""
    a = agent("a")
    b = agent("b") if request.param == "hosts" else a
    ends = {0x11: (program(a), A, b.host, 0x22), 0x22: (program(b), b.host, A, 0x11)}
    for qpn, (one, *_) in ends.items():
        one.register(qpn)
    for qpn, (one, *names) in ends.items():
        one.connect(qpn, *names)
    return ends


def restart(ends, qpn, *others):
    """From RESET to INIT and RTR; its PSN, and its peer's as it is told."""
    one, own, peer, peer_qpn = ends[qpn]
    one.forget(qpn)
    return one.register(qpn), one.connect(qpn, own, peer, *others or (peer_qpn,)).psn


def test_ends_are_reset_one_after_the_other(connected):
    """The first one is connected again before the other one leaves what was."""
    before = restart(connected, 0x11)
    # Once more, before the other one follows.
    psn, promised = restart(connected, 0x11)
    assert psn != before[0]
    assert restart(connected, 0x22) == (promised, psn)
    # The first one goes back while the other one is between its reset and INIT: nothing is promised any more.
    psn, promised = restart(connected, 0x11)
    x, y = connected[0x11][0], connected[0x22][0]
    y.forget(0x22)
    x.forget(0x11)
    psn = x.register(0x11)
    x.register(0x12)
    with refused(errno.EACCES, "registered"):  # an answer that comes after the word of the reset
        x.connect(0x12, *connected[0x11][1:3], 0x99)
    other = y.register(0x22)
    assert other != promised and y.connect(0x22, *connected[0x22][1:]).psn == psn
    assert x.connect(0x11, *connected[0x11][1:]).psn == other
    # The other way around, and nothing is left of the first time.
    psn, again = restart(connected, 0x22)
    assert again != promised and restart(connected, 0x11) == (again, psn)


def test_end_that_was_promised_has_no_other_peer(connected):
    restart(connected, 0x11)
    x, own, peer, _ = connected[0x11]
    x.register(0x12)
    with refused(errno.EACCES, "another"):
        x.connect(0x12, own, peer, 0x22)
    with refused(errno.EACCES, "somebody may have changed what the programs told each other"):
        restart(connected, 0x22, 0x12)
    assert x.wait_revoked()[1] == 0x11
    # Who is gone waits for nobody.
    for qpn in connected:
        connected[qpn][0].forget(qpn)
        connected[qpn][0].register(qpn)
    for qpn in connected:
        one, own, peer, peer_qpn = connected[qpn]
        one.connect(qpn, own, peer, peer_qpn)
    promised = restart(connected, 0x11)[1]
    x.close()
    y, own, peer, _ = connected[0x22]

    def released():
        y.forget(0x22)
        return y.register(0x22) != promised
    wait_until(released, "another PSN")


def test_unencrypted_path_is_refused_where_encryption_is_required(agent, program):
    """For queue pairs and address handles, before anybody is asked; not for what stays on the host."""
    elsewhere = "192.0.2.1"
    a, b = agent("a"), agent("b", "--require-encryption")
    x, strict, y = program(a), program(a, require_encryption=1), program(b)
    for one, number in (x, 0x11), (strict, 0x12), (strict, 0x13), (y, 0x22):
        one.register(number)
    assert (x.require_encryption, strict.require_encryption, y.require_encryption) == (0, 1, 1)
    for one, own, number in (strict, A, 0x12), (y, B, 0x22):
        with refused(errno.EACCES, "nothing is seen that encrypts the path"):
            one.connect(number, own, elsewhere, 5)
        with refused(errno.EACCES, "nothing is seen that encrypts the path"):
            one.address(own, elsewhere)
    assert strict.connect(0x12, A, A, 0x13).encryption == "the packets do not leave this host"
    assert len(a.refusals("encryption")) == len(b.refusals("encryption")) == 2
    assert not a.events("agent.session_failed")


# ---- other hosts ------------------------------------------------------------------------------------------------------


def test_host_that_claims_another_hosts_address_is_refused(hosts, pair, start):
    """A third host with a good certificate, that asks as if it were A."""
    a, b, x, y, psn_x, psn_y = pair
    thief = start(Peer.dial, hosts, "c", B, b.port)
    thief.greet(C)
    status, psn, why = thief.ask(1, (A, 0x11), (B, 0x22))
    assert (status, psn) == (P_DENIED, 0) and "certificate" in why
    event = b.wait_refusal("gid", "queue pair 17 at 127.0.0.2")
    assert event["security"] and event["peer"] == "c.example"
    # It may not say so in its HELLO, nor end what is A's.
    liar = start(Peer.dial, hosts, "c", B, b.port)
    liar.send(greeting(C, A))
    assert liar.is_closed()
    x.connect(0x11, A, B, 0x22)
    # With the right PSNs, which it cannot know.
    thief.send(frame(P_REVOKE, end(B, 0x22) + end(A, 0x11) + struct.pack(">I", psn_y) + b"mine"))
    thief.send(frame(P_RELEASE, end(A, 0x11) + end(B, 0x22) + struct.pack(">I", psn_x) + b"mine"))
    assert thief.ask(2, (C, 9), (B, 0x22))[0] == P_TAKEN
    assert y.connect(0x22, B, A, 0x11).psn == psn_x and not y.revoked
    assert all(peer["queries_sent"] == 0 for peer in b.status()["peers"])  # A's question still counts


@pytest.mark.parametrize("cert, words", [("c", "the agent's certificate is not for this name or address; make one with it for that host (securdma cert peer --name)"),
                                         ("stranger", "no CA in the CA file (--ca, --client-ca) has issued it"), (None, "the agent there")],
                         ids=["another host's", "another CA's", "none"])
def test_agent_with_a_wrong_certificate_is_refused(hosts, agent, program, tmp_path, cert, words):
    """It listens at B's address."""
    b = agent("b")
    x = program(b)
    if cert == "stranger":
        other = Hosts.__new__(Hosts)
        other.path = tmp_path / "other"
        other.path.mkdir()
        subprocess.run([SECURDMA, "cert", "ca", "--out", other.path / "ca"], check=True, capture_output=True)
        other.make("a", "--name", A)
        made = context(other, "a", server=True)
        made.load_verify_locations(hosts.cert("ca"))
    elif cert is None:
        made = None
    else:
        made = context(hosts, cert, server=True)
    x.register(0x11)
    with socket.create_server((A, b.port)) as listener:
        asked = x.ask(0x11, B, A, 0x22)
        listener.settimeout(STEP)
        raw = listener.accept()[0]
        raw.settimeout(STEP)
        with raw, contextlib.suppress(OSError):
            if made:
                made.wrap_socket(raw, server_side=True).recv(1)
        with refused(errno.EACCES, words):
            x.answer(asked)
    if cert:
        b.wait_refusal("certificate")
    assert b.status()["sessions"] == 0


def test_peer_without_an_agent_is_refused_at_once_and_tried_again_later(agent, program):
    a = agent("a")
    x = program(a)
    for number in range(0x10, 0x30):
        x.register(number)
    asked = [x.ask(number, A, B, 5) for number in range(0x10, 0x30)]
    for request in asked:
        with refused(errno.EACCES, "Connection refused"):
            x.answer(request)
    assert len(a.events("agent.session_failed")) == 1  # one attempt for all
    b = agent("b")
    y = program(b)
    psn = y.register(5)

    def works():
        with contextlib.suppress(Refused):
            return x.connect(0x10, A, B, 5)
        return None
    assert wait_until(works, a.log).psn == psn


def test_recorded_session_is_of_no_use(hosts, pair, start):
    """Everything that A sent to B is sent again: TLS's keys are those of one session."""
    a, b, x, y, _, _ = pair
    recorded = []

    with socket.create_server((C, a.port)) as relay:
        hosts.make("relayed", "--name", C, "--name", B, "--cn", "b.example")
        x2 = Program(a.socket)
        with contextlib.closing(x2):
            x2.device(A)
            x2.register(0x55)
            asked = x2.ask(0x55, A, C, 0x22)
            relay.settimeout(STEP)
            ours, theirs = relay.accept()[0], socket.create_connection((B, b.port))
            with ours, theirs:
                for one in ours, theirs:
                    one.settimeout(STEP)
                hello = ours.recv(65536)
                recorded.append(hello)
                theirs.sendall(hello)
                ours.sendall(theirs.recv(65536))
                with contextlib.suppress(OSError):
                    recorded.append(ours.recv(65536))
            # B's certificate does not have C's address.
            with refused(errno.EACCES, "the agent there"):
                x2.answer(asked)
    failed = len(b.events("agent.session_failed"))
    with socket.create_connection((B, b.port)) as again:
        again.settimeout(STEP)
        for part in recorded:
            again.sendall(part)
        with contextlib.suppress(ConnectionError):
            while again.recv(65536):
                pass
    wait_until(lambda: len(b.events("agent.session_failed")) > failed, b.log)
    status = b.status()
    assert (status["sessions"], status["connected"]) == (0, 0)


def test_bad_frames_end_the_session_and_nothing_else(hosts, pair, start):
    a, b, x, y, psn_x, psn_y = pair
    bad = [b"\x08\0\0\0", b"\x02\0\0\x01x", b"\x02\x01\0\0", b"\x02\0\xff\xff", frame(P_QUERY, bytes(53)), greeting(C), frame(P_ANSWER, bytes(9) + b"x" * 400),
           query(1, (C, 1), (B, 0x22), 5), query(1, (C, 0x1000000), (B, 0x22), 5), query(1, (C, 5), (B, 0x22), 1 << 24), query(1, (C, 5), (B, 0x22), 5, kind=4)]
    for data in bad:
        peer = start(Peer.dial, hosts, "c", B, b.port)
        peer.greet(C)
        peer.send(data)
        assert peer.is_closed(), data
    # HELLO must come first, with the version.
    for data in query(1, (C, 5), (B, 0x22), 5), greeting(C, version=2):
        peer = start(Peer.dial, hosts, "c", B, b.port)
        peer.send(data)
        assert peer.is_closed()
    assert x.connect(0x11, A, B, 0x22).psn == psn_y


def test_silent_peer_is_asked_and_then_given_up(hosts, agent, start):
    b = agent("b", "--keepalive-ms", "100")
    peer = start(Peer.dial, hosts, "c", B, b.port)
    peer.greet(C)
    peer.send(frame(P_PONG, peer.wait(P_PING)))
    assert b.status()["sessions"] == 1
    wait_until(lambda: any("silent" in event["message"] for event in b.events("agent.session_closed")), b.log)
    assert peer.is_closed()


def test_agent_that_comes_back_takes_the_old_sessions_place(hosts, agent, start):
    b = agent("b")
    old, new = (start(Peer.dial, hosts, "c", B, b.port) for _ in range(2))
    old.greet(C)
    old.send(frame(P_PING, bytes(8)))
    old.wait(P_PONG)  # it is open
    new.greet(C)
    assert old.is_closed()
    assert b.status()["sessions"] == 1


# ---- floods -----------------------------------------------------------------------------------------------------------


def test_strangers_make_room_for_a_peer(hosts, agent, program):
    """More connections than the agent holds, that never say a word."""
    a, b = agent("a"), agent("b", "--max-handshakes", "8")
    with contextlib.ExitStack() as open_ones:
        for _ in range(64):
            one = open_ones.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((B, b.port))
        x, y = program(a), program(b)
        x.register(0x11)
        psn = y.register(0x22)
        began = time.monotonic()
        assert x.connect(0x11, A, B, 0x22).psn == psn
        assert time.monotonic() - began < 2 * SCALE
    assert b.status()["handshakes"] <= 8


def test_peer_that_asks_too_fast_waits_and_holds_up_nobody_else(hosts, agent, program, start):
    a, b = agent("a"), agent("b", "--queries-per-second", "200")
    x, y = program(a), program(b)
    x.register(0x11)
    psn = y.register(0x22)
    y.register(0x23)
    greedy = start(Peer.dial, hosts, "c", B, b.port)
    began = time.monotonic()
    greedy.greet(C)
    greedy.channel.setblocking(False)
    with contextlib.suppress(OSError):
        greedy.send(b"".join(query(number, (C, 5), (B, 0x23), 5) for number in range(3000)))
    asked = time.monotonic()
    assert x.connect(0x11, A, B, 0x22).psn == psn
    assert time.monotonic() - asked < 2 * SCALE
    received = next(peer["queries_received"] for peer in b.status()["peers"] if peer["peer"] == "c.example")
    assert 0 < received <= 200 * (1 + time.monotonic() - began)


# ---- programs ---------------------------------------------------------------------------------------------------------


def in_child(uid, work):
    """Runs `work` as another user in a child process; its exit code."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@as_root
def test_user_who_registers_anothers_queue_pair_is_refused(agent, program):
    a = agent("a")
    x = program(a)
    psn = x.register(0x11)

    def work():
        thief = Program(a.socket, name="thief")
        thief.device(A)
        try:
            thief.register(0x11)
        except Refused as raised:
            return 0 if raised.error == errno.EBUSY and "still runs" in raised.why else 2
        return 1

    assert in_child(65534, work) == 0
    event = a.wait_refusal("owner")
    assert (event["uid"], event["program"], event["security"]) == (65534, "thief", True)
    assert x.connect(0x11, A, A, 0x11).psn == psn


def test_registrations_end_with_their_process_though_another_has_its_socket(agent, program):
    """Such as a child that was made past libc. The number of the process may be given to a third one."""
    a = agent("a")
    end, its_end = os.pipe()
    shared = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            one = Program.__new__(Program)
            one.socket, one.request, one.answers, one.revoked = shared, 0, {}, []
            shared.settimeout(STEP)
            shared.connect(str(a.socket))
            one.send(1, "II64s", ENFORCE, 0, b"parent")
            one._next(64)
            one.device(A)
            one.register(0x11)
            one.event(1, "rdma_cm", "the last word of a process")
        finally:
            os._exit(0)
    os.close(its_end)
    os.waitpid(child, 0)
    os.close(end)
    # It was read all the same, and the number is free.
    assert a.wait_refusal("program", "the last word of a process")["pid"] == child
    wait_until(lambda: a.status()["programs"] == 0, a.log)
    with pytest.raises((BrokenPipeError, ConnectionError)):
        shared.send(b"x")
    shared.close()
    assert program(a).register(0x11) >= 0


@pytest.mark.parametrize("name, kernel", [("other0", 0), ("other0", 1), ("uroce0", 1)])
def test_number_of_another_program_is_refused_whatever_its_device_is_called(pair, program, name, kernel):
    a, _, x, y, psn, _ = pair
    thief = Program(a.socket, name="thief")
    thief.device(A, name=name, kernel=kernel)
    with refused(errno.EBUSY, "still runs"):
        thief.register(0x11, name=name)
    assert a.wait_refusal("owner")["security"]
    assert y.connect(0x22, B, A, 0x11).psn == psn
    thief.close()


def test_address_that_a_program_claims_later_does_not_make_a_number_its_own(pair):
    a, _, x, y, psn, other = pair
    thief = Program(a.socket, name="thief")
    thief.device("127.0.0.99", name="other0")
    thief.register(0x11, name="other0")
    thief.device(A, name="other0")
    with refused(errno.EBUSY, "another program claims"):
        thief.connect(0x11, A, B, 0x22, name="other0")
    # Nobody can tell whose it is, so nobody's PSN is told.
    with refused(errno.EACCES, "two programs"):
        y.connect(0x22, B, A, 0x11)
    thief.close()
    y.forget(0x22)
    other = y.register(0x22)
    assert (x.connect(0x11, A, B, 0x22).psn, y.connect(0x22, B, A, 0x11).psn) == (other, psn)


def test_claimed_number_is_not_connected_within_its_host_either(agent, program):
    a = agent("a")
    x, y, thief = program(a), program(a), Program(a.socket, name="thief")
    x.register(0x11)
    y.register(0x22)
    thief.device("127.0.0.99", name="other0")
    thief.register(0x11, name="other0")
    thief.device(A, name="other0")
    with refused(errno.EACCES, "two programs of this host claim this number"):
        y.connect(0x22, A, A, 0x11)
    thief.close()
    wait_until(lambda: a.status()["programs"] == 2, a.log)
    assert y.connect(0x22, A, A, 0x11).psn


def test_user_has_a_number_on_few_devices_alone(agent):
    a = agent("a")
    x = Program(a.socket)
    for number in range(64):
        x.device(A, name=f"device{number % 32}", port=1 + number // 32)
        x.register(0x11, name=f"device{number % 32}", port=1 + number // 32)
    y = Program(a.socket)
    y.device("127.0.0.99", name="other0")
    with refused(errno.EDQUOT, "with this number"):
        y.register(0x11, name="other0")
    y.register(0x12, name="other0")
    y.close()
    x.close()


def test_question_that_its_program_gives_up_is_answered_at_once(agent, program):
    """Another thread has reset or destroyed the queue pair."""
    a = agent("a", "--connect-timeout-ms", int(STEP * 1000))
    x = program(a)
    with socket.create_server((B, a.port)):  # which never says a word
        for give_up in x.forget, x.register:
            x.register(0x11)
            asked = x.ask(0x11, A, B, 0x22)
            give_up(0x11)
            with refused(errno.ECANCELED, "has reset or destroyed the queue pair"):
                x.answer(asked)


@as_root
def test_policy_decides_which_user_connects_to_which_host(agent, program):
    a = agent("a", config="[agent]\nusers = 0\n[peer b.example]\nusers = 1234, @65534\n[peer c.example]\ndeny = yes\n")
    b = agent("b")
    x, y = program(a), program(b)
    x.register(0x11)
    psn = y.register(0x22)
    with refused(errno.EACCES, "the policy of this host for b.example: the program's user may not connect with that host"):
        x.connect(0x11, A, B, 0x22)

    def work():
        other = Program(a.socket)
        other.device(A)
        other.register(0x12)
        return 0 if other.connect(0x12, A, B, 0x22).psn == psn else 1

    assert in_child(65534, work) == 0
    # The other way, too: B's program asks for a queue pair of a user who may not.
    wait_until(lambda: a.status()["queue_pairs"] == 1, a.log)
    y.register(0x23)
    with refused(errno.EACCES, "the policy of that host for b.example: the program's user may not connect with that host"):
        y.connect(0x23, B, A, 0x11)
    with refused(errno.EACCES, "Connection refused"):
        x.connect(0x11, A, C, 0x22)
    agent("c")

    def denied():
        try:
            x.connect(0x11, A, C, 0x22)
        except Refused as raised:
            return "denies" in raised.why
    wait_until(denied, a.log)
    assert {event["reason"] for event in a.events("agent.refused")} >= {"policy", "no_agent"}


def test_observe_lets_go_on_and_tells_what_it_would_refuse(agent, program):
    a = agent("a", "--mode", "observe")
    x, strict = program(a, mode=OBSERVE), program(a, mode=ENFORCE)
    assert (x.mode, strict.mode) == (OBSERVE, ENFORCE)
    for one in x, strict:
        one.register(0x11 if one is x else 0x12)
    answer = x.connect(0x11, A, B, 0x22, would_be=0x1234)
    assert (answer.status, answer.observed, answer.vouched, answer.psn) == (0, 1, 0, 0x1234) and "refused" in answer.text.lower()
    with refused(errno.EACCES, "Connection refused"):
        strict.connect(0x12, A, B, 0x22)
    assert a.events("agent.observed")[0]["reason"] == "no_agent"
    # So it is for what another host asks of such a program.
    c = agent("c", "--mode", "observe", "--users", "1234")
    program(c, mode=OBSERVE).register(0x31)
    program(c).register(0x32)
    assert strict.connect(0x12, A, C, 0x31).peer == "c.example"
    strict.forget(0x12)
    strict.register(0x12)
    with refused(errno.EACCES, "user may not"):
        strict.connect(0x12, A, C, 0x32)
    assert [event["reason"] for event in c.events("agent.observed")] == ["policy"]
    # Where the agent enforces, a program cannot ask for less.
    assert program(agent("b"), mode=OBSERVE).mode == ENFORCE


def test_observing_end_has_the_psns_that_the_other_end_is_told(agent, program):
    """Else the device of one end would begin with another PSN than the other one expects, and nothing would pass."""
    a, b = agent("a", "--mode", "observe", "--users", "1234"), agent("b")
    x, y = program(a, mode=OBSERVE), program(b)
    psns = x.register(0x11), y.register(0x22)
    answer = x.connect(0x11, A, B, 0x22, would_be=0x1234)
    assert (answer.observed, answer.vouched, answer.psn) == (1, 1, psns[1]) and "user may not connect" in answer.text
    assert y.connect(0x22, B, A, 0x11).psn == psns[0]
    # The peer has asked before.
    psns = x.register(0x12), y.register(0x23)
    assert y.connect(0x23, B, A, 0x12).psn == psns[0]
    assert x.connect(0x12, A, B, 0x23, would_be=0x1234).psn == psns[1]
    # On one host.
    z = program(a, mode=OBSERVE)
    psns = x.register(0x13), z.register(0x33)
    assert [one.connect(*end, would_be=0x1234).psn for one, end in ((x, (0x13, A, A, 0x33)), (z, (0x33, A, A, 0x13)))] == [*psns[::-1]]
    # One that goes on with its program's own PSN: nobody is told the agent's.
    x.register(0x14)
    assert x.connect(0x14, A, B, 0x24, would_be=0x1234).psn == 0x1234
    y.register(0x24)
    with refused(errno.EACCES, "its program must reset it first"):
        y.connect(0x24, B, A, 0x14)


@pytest.mark.parametrize("way", ["forget", "close"])
def test_number_passes_from_one_process_to_another_in_any_order(agent, program, way):
    """Their words come over different sockets."""
    a = agent("a")
    x, y = program(a), program(a)
    psn = x.register(0x11)
    request = y.register(0x11, wait=False)
    if way == "forget":
        x.forget(0x11)
    else:
        x.close()
    assert y.answer(request).psn != psn
    # One that gives up has no part in it.
    z = program(a)
    z.register(0x11, wait=False)
    z.forget(0x11)
    y.forget(0x11)
    assert program(a).register(0x11) != psn


def test_gids_of_other_hosts_are_refused(agent, program):
    a = agent("a")
    x = program(a, A, "192.0.2.1", "127.0.0.9", "::1")
    x.register(0x11)
    with refused(errno.EACCES, "is not an address of this host"):
        x.connect(0x11, "192.0.2.1", B, 0x22)
    # An address of this host that the agent's certificate does not have.
    with refused(errno.EACCES, "securdma cert peer --name 127.0.0.9"):
        x.connect(0x11, "127.0.0.9", B, 0x22)
    assert [event["security"] for event in a.refusals("gid") + a.refusals("certificate")] == [True, True]


def test_what_a_program_may_get_wrong_has_an_answer(agent, program):
    """Such as a number that no queue pair has, or a multicast address for datagrams."""
    a = agent("a")
    x = program(a)
    x.register(0x11)
    for peer, number, lid, words in ((B, 0, 0, "no queue pair has that number"), (B, 1 << 24, 0, "no queue pair has that number"), ("::", 5, 0, "tell the program the index"),
                                     ("ff02::1", 5, 0, "an address that no host has"), ("::", 5, 0xc000, "an address that no host has")):
        with refused(errno.EINVAL, words):
            x.connect(0x11, A, peer, number, lid=lid, would_be=0xffffffff)
    with refused(errno.EACCES, "multicast"):
        x.address(A, "ff0e::ffff:e000:1")
    with refused(errno.EACCES, "tell the program the index"):
        x.address(A, "::")
    assert x.address(A, A).peer == "a.example"


def test_limits_of_a_user(agent, program, start):
    a = agent("a", "--queue-pairs-per-user", "3", "--programs-per-user", "2")
    x = program(a)
    for number in 2, 3, 4:
        x.register(number)
    with refused(errno.EDQUOT, "queue-pairs-per-user"):
        x.register(5)
    x.forget(2)
    x.register(5)
    program(a)
    with refused(errno.EDQUOT, "programs-per-user"):
        start(Program, a.socket)


def test_bad_packets_end_the_program_and_nothing_else(agent, program, start):
    a = agent("a")
    x = program(a)
    name = b"uroce0"
    bad = [("II64s", (3, 0, b"x")), ("II64s", (1, 2, b"x")), ("II64s", (1, 0, b"x" * 64))]
    for form, values in bad:
        one = start(Program, a.socket, greet=False)
        one.send(1, form, *values)
        with pytest.raises((EOFError, ConnectionError)):
            one.receive()
    later = [(2, "64s6I1024s", (name, 1, 2, 0, 0, 0, 65, b"")), (2, "64s6I1024s", (b"../x", 1, 2, 0, 0, 0, 1, b"")), (3, "64s8I16s16s", (name, 1, 1, 2, 0, 0, 0, 0, 0, b"", b"")),
             (3, "64s8I16s16s", (name, 1, 9, 4, 0, 0, 0, 0, 0, b"", b"")), (4, "64s6I16s16s", (name, 1, 0x11, 0, 0x22, 0, 0, bytes(16), gid(A))), (64, "I", (0,)), (99, "", ()),
             (7, "I64s512s", (2, b"", b"")), (3, "I", (1,)), (1, "II64s", (1, 0, b"again"))]
    for kind, form, values in later:
        one = start(Program, a.socket)
        one.send(kind, form, *values)
        with pytest.raises((EOFError, ConnectionError)):
            one.receive()
    raw = start(Program, a.socket, greet=False)
    raw.socket.send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises((EOFError, ConnectionError)):
        raw.receive()
    old = start(Program, a.socket, greet=False)
    old.send(1, "II64s", 1, 0, b"x", version=7)
    kind, data = old._next()
    assert kind == 64 and b"install the same version" in data
    assert x.register(0x11) >= 0
    assert len(a.refusals("invalid")) >= len(bad) + len(later)


def test_program_that_does_not_read_holds_up_nobody(agent, program, start):
    a = agent("a")
    greedy = start(Program, a.socket)
    greedy.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(100000):
            greedy.device_request = greedy.send(3, "64s8I16s16s", b"none", 1, 9, 2, 0, 0, 0, 0, 0, b"", b"")
    x = program(a)
    assert x.register(0x11) >= 0


def test_what_a_programs_library_refuses_is_logged_as_text(agent, program):
    a = agent("a")
    x = program(a)
    x.event(1, "rdma_cm", "rdma_create_id\n\x1b[31m is refused")
    event = a.wait_refusal("program")
    assert "rdma_cm: rdma_create_id??[31m is refused" in event["message"]
    assert a.status()["refusals"]["program"] == 1


# ---- agents that go and come back -------------------------------------------------------------------------------------


def test_agent_killed_at_each_step_leaves_the_others_in_order(hosts, agent, program):
    """B's agent dies before the question, between the two ends, and after both; it comes back each time, with what programs restore."""
    a, b = agent("a"), agent("b")
    x, y = program(a), program(b)
    psn_x, psn_y = x.register(0x11), y.register(0x22)
    x.address(A, B)  # a session is there
    b.process.kill()
    b.process.wait()
    with refused(errno.EACCES, "the agent there"):
        x.connect(0x11, A, B, 0x22)

    b = agent("b")
    y = program(b)
    y.restore(0x22, psn_y)

    def connects():
        with contextlib.suppress(Refused):
            return x.connect(0x11, A, B, 0x22)
    assert wait_until(connects, a.log).psn == psn_y
    b.process.kill()  # it has noted what Y is to expect
    b.process.wait()
    b = agent("b")
    y = program(b)
    y.restore(0x22, psn_y)
    assert wait_until(lambda: y.connect(0x22, B, A, 0x11), b.log).psn == psn_x

    b.process.kill()
    b.process.wait()
    b = agent("b")
    y = program(b)
    y.restore(0x22, psn_y, (B, A, 0x11, psn_x))
    assert x.connect(0x11, A, B, 0x22).psn == psn_y  # asked once more, by the end that was there all the time
    assert y.connect(0x22, B, A, 0x11).psn == psn_x


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_question_waits_for_an_agent_that_starts_again(agent, program, end):
    a, b = agent("a", "--connect-timeout-ms", int(STEP * 1000)), agent("b")
    x = program(a)
    x.register(0x11)
    x.address(A, B)  # a session is there
    b.process.send_signal(end)
    b.process.wait()
    asked = x.ask(0x11, A, B, 0x22)
    wait_until(lambda: a.events("agent.session_failed"), a.log)
    b = agent("b")
    y = program(b)
    psn = y.register(0x22)
    assert x.answer(asked).psn == psn


def test_both_agents_are_started_again_and_their_programs_meet(agent, program):
    """Neither knows that there was the other one: each waits for what programs register again."""
    more = "--connect-timeout-ms", int(STEP * 1000)
    a, b = agent("a", *more), agent("b", *more)
    psn_x, psn_y = program(a).register(0x11), program(b).register(0x22)
    for one in a, b:
        one.process.kill()
        one.process.wait()
    a = agent("a", *more)
    x = program(a)
    x.restore(0x11, psn_x)
    asked = x.ask(0x11, A, B, 0x22)
    wait_until(lambda: a.events("agent.session_failed"), a.log)  # B's agent is not back
    b = agent("b", *more)
    wait_until(lambda: b.events("agent.session_opened"), b.log)  # its program is not, but the question is there, or nearly
    y = program(b)
    y.restore(0x22, psn_y)
    assert x.answer(asked).psn == psn_y and y.connect(0x22, B, A, 0x11).psn == psn_x
    # A program that is new has no peer that may be on its way back.
    z = program(a)
    z.register(0x12)
    with refused(errno.EACCES, "check that the agent runs there"):
        z.connect(0x12, A, C, 0x22)


def test_sessions_that_end_with_each_question_are_given_up(hosts, agent, program):
    a = agent("a", "--connect-timeout-ms", int(STEP * 1000))
    x = program(a)
    x.register(0x11)
    with socket.create_server((B, a.port)) as listener:
        listener.settimeout(STEP)
        asked = x.ask(0x11, A, B, 0x22)
        for _ in range(3):
            peer = Peer(context(hosts, "b", server=True).wrap_socket(listener.accept()[0], server_side=True))
            peer.greet(B)
            peer.wait(P_QUERY)
            peer.close()
        with refused(errno.EACCES, "the sessions with the peer's agent end while it is asked"):
            x.answer(asked)


def test_question_on_its_way_goes_on_over_the_next_session(hosts, agent, program):
    """The peer's agent ends the session after the question, and answers it in the next one."""
    a = agent("a")
    x = program(a)
    psn_x = x.register(0x11)
    with socket.create_server((B, a.port)) as listener:
        listener.settimeout(STEP)
        asked = x.ask(0x11, A, B, 0x22)
        for last in False, True:
            peer = Peer(context(hosts, "b", server=True).wrap_socket(listener.accept()[0], server_side=True))
            peer.greet(B)
            body = peer.wait(P_QUERY)
            number, psn = struct.unpack(">I", body[:4])[0], struct.unpack(">I", body[48:52])[0]
            assert psn == psn_x
            if last:
                peer.send(frame(P_ANSWER, struct.pack(">IBI", number, P_OK, 0xabcdef)))
                assert x.answer(asked).psn == 0xabcdef
            peer.close()


def test_answer_to_anothers_question_is_not_taken(hosts, agent, program, start):
    a = agent("a", "--connect-timeout-ms", "500")
    x = program(a)
    x.register(0x11)
    third = start(Peer.dial, hosts, "c", A, a.port)
    third.greet(C)
    with socket.create_server((B, a.port)) as listener:
        listener.settimeout(STEP)
        asked = x.ask(0x11, A, B, 0x22)
        peer = Peer(context(hosts, "b", server=True).wrap_socket(listener.accept()[0], server_side=True))
        peer.greet(B)
        number = struct.unpack(">I", peer.wait(P_QUERY)[:4])[0]
        third.send(frame(P_ANSWER, struct.pack(">IBI", number, P_OK, 0x666)))
        with refused(errno.EACCES, "did not answer within 500 ms"):
            x.answer(asked)
        peer.close()


def test_reload_puts_other_rules_into_force_or_changes_nothing(agent, program):
    a, b = agent("a", config="[peer b.example]\ndeny = no\n"), agent("b")
    x, y = program(a), program(b)
    x.register(0x11)
    psn = y.register(0x22)
    assert x.connect(0x11, A, B, 0x22).psn == psn
    (a.folder / "conf").write_text("[peer b.example]\ndeny = perhaps\n", encoding="utf-8")
    done = run(SECURDMA, "reload", "--agent", "--control", a.control)
    assert done.returncode == 1 and "not valid" in done.stderr
    assert a.status()["sessions"] == 1  # nothing has changed
    (a.folder / "conf").write_text("[peer b.example]\ndeny = yes\n", encoding="utf-8")
    a.signal(signal.SIGHUP)
    a.wait_log("agent.reloaded")
    x.register(0x12)
    with refused(errno.EACCES, "denies"):
        x.connect(0x12, A, B, 0x22)


def test_reload_takes_a_revocation_list(hosts, agent, program, pki):
    """The session with a host whose certificate is revoked ends at the reload, and there is no other."""
    a, b = agent("a", config="\n"), agent("b")
    x, y = program(a), program(b)
    x.register(0x11)
    psn = y.register(0x22)
    assert x.connect(0x11, A, B, 0x22).psn == psn
    for name in "ca", "b":
        for kind in "crt", "key":
            (pki.path / f"{name}.{kind}").write_bytes((hosts.path / f"{name}.{kind}").read_bytes())
    lists = pki.lists("revoked", pki.list("ca", "b"))
    (a.folder / "conf").write_text(f"[tls]\ncrl = {lists}\n", encoding="utf-8")
    assert run(SECURDMA, "reload", "--agent", "--control", a.control).returncode == 0
    x.register(0x12)
    with refused(errno.EACCES, "revoked"):
        x.connect(0x12, A, B, 0x22)
    assert a.events("agent.session_failed")[0]["security"]


@as_root
def test_agent_gives_up_roots_rights_and_filters_its_system_calls(agent, program):
    a = agent("a", "--user", "nobody")
    with open(f"/proc/{a.pid}/status", encoding="ascii") as file:
        status = dict(line.rstrip().split(":\t", 1) for line in file if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4 and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    x = program(a)
    psn = x.register(0x11)
    assert x.connect(0x11, A, A, 0x11).psn == psn
    x.register(0x12)
    with refused(errno.EACCES, "Connection refused"):
        x.connect(0x12, A, B, 5)


def test_status_and_metrics_show_what_the_agent_did(agent, program):
    a = agent("a", "--metrics", "127.0.0.1:0")
    x = program(a)
    x.register(0x11)
    assert x.connect(0x11, A, A, 0x11)
    with refused(errno.EACCES, "Connection refused"):
        x.register(0x12)
        x.connect(0x12, A, B, 0x22)
    with urllib.request.urlopen(f"http://127.0.0.1:{a.listening['metrics_port']}/metrics", timeout=STEP) as answer:
        metrics = answer.read().decode()
    for line in ("securdma_agent_queue_pairs 2", "securdma_agent_connected_total 1", 'securdma_agent_refused_total{reason="no_agent"} 1',
                 "securdma_agent_programs 1"):
        assert line in metrics.splitlines(), metrics
    shown = run(SECURDMA, "status", "--agent", "--control", a.control).stdout
    assert "agent a.example, mode enforce: programs 1, queue pairs 2" in shown and "refused (no_agent): 1" in shown
    a.terminate()
    assert not a.socket.exists() and not a.control.exists()


# ---- IPv6 and InfiniBand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["6", "4"])
def test_agents_meet_over_ipv6(hosts, agent, program, asker):
    """One host has an IPv6 address alone: this machine's loopback interface has no second one."""
    hosts.make("six", "--name", "::1", "--cn", "six.example")
    a = agent("a", "--listen", "::1", cert="six")
    b = agent("b")
    x, y = program(a, "::1"), program(b)
    psns = x.register(0x11), y.register(0x22)
    ends = [(x, 0x11, "::1", B, 0x22), (y, 0x22, B, "::1", 0x11)]
    for one, number, own, peer, peers in ends if asker == "6" else ends[::-1]:
        answer = one.connect(number, own, peer, peers)
        assert (answer.psn, answer.peer) == ((psns[1], "b.example") if one is x else (psns[0], "six.example"))
    assert y.address(B, "::1").peer == "six.example"
    assert a.status()["sessions"] == 1


def test_map_file_says_which_host_has_a_lid_or_a_gid(hosts, agent, program, start, tmp_path):
    lines = tmp_path / "map"
    lines.write_text(f"# a subnet\nlid 1 {A} a.example\nlid 2-3 {B} b.example\nfe80:0:0:1::/64 {A} a.example\nfe80:0:0:2::/64 {B} b.example\n", encoding="ascii")
    a, b = agent("a", "--map", lines), agent("b", "--map", lines)
    x, y = start(Program, a.socket), start(Program, b.socket)
    of_x, of_y = gid("fe80:0:0:1::7"), gid("fe80:0:0:2::7")
    x.device(name="mlx5_0", link=INFINIBAND, lid=1, gids=[of_x])
    y.device(name="mlx5_0", link=INFINIBAND, lid=2, gids=[of_y])
    psns = [one.register(number, name="mlx5_0") for one in (x, y) for number in (0x11, 0x12)]
    # By GID, with a GRH, and by LID without.
    assert x.connect(0x11, of_x, of_y, 0x11, name="mlx5_0").psn == psns[2]
    assert y.connect(0x11, of_y, of_x, 0x11, name="mlx5_0").psn == psns[0]
    assert x.connect(0x12, of_x, bytes(16), 0x12, name="mlx5_0", lid=2).psn == psns[3]
    assert y.connect(0x12, of_y, bytes(16), 0x12, name="mlx5_0", lid=1).psn == psns[1]
    # An agent that starts again knows of a connection without GIDs what it knew before.
    b.process.kill()
    b.process.wait()
    b = agent("b", "--map", lines)
    y = start(Program, b.socket)
    y.device(name="mlx5_0", link=INFINIBAND, lid=2, gids=[of_y])
    y.restore(0x12, psns[3], ("fe80:0:0:2::7", "::", 0x12, psns[1]), name="mlx5_0", lid=1)
    x.forget(0x11, name="mlx5_0")
    x.register(0x11, name="mlx5_0")
    with refused(errno.EACCES, "it is connected with another queue pair"):
        x.connect(0x11, of_x, bytes(16), 0x12, name="mlx5_0", lid=2)
    assert x.connect(0x12, of_x, bytes(16), 0x12, name="mlx5_0", lid=2).psn == psns[3]
    assert y.connect(0x12, of_y, bytes(16), 0x12, name="mlx5_0", lid=1).psn == psns[1]
    x.register(0x13, name="mlx5_0")
    with refused(errno.EACCES, "add 'lid 9 HOST' to it"):
        x.connect(0x13, of_x, bytes(16), 0x12, name="mlx5_0", lid=9)
    # Without the lines for itself an agent would let programs claim any GID.
    third = agent("c")
    z = start(Program, third.socket)
    z.device(name="mlx5_0", link=INFINIBAND, lid=4, gids=[of_x])
    z.register(0x11, name="mlx5_0")
    with refused(errno.EACCES, "nor in the map file"):
        z.connect(0x11, of_x, of_y, 0x11, name="mlx5_0")


# ---- what is wrong from the beginning ----------------------------------------------------------------------------------


def test_faults_of_the_start_say_what_to_do(hosts, tmp_path):
    (tmp_path / "file").write_text("", encoding="ascii")
    (tmp_path / "map").write_text("lid 0 x\n", encoding="ascii")
    credentials = "--cert", hosts.cert("a"), "--key", hosts.key("a"), "--ca", hosts.cert("ca"), "--listen", A, "--port", "0"
    for code, words, options in (
            (1, f"agent socket {tmp_path}/none/sock: there is no folder {tmp_path}/none; make it, or give another path", ("--socket", tmp_path / "none/sock")),
            (1, f"{tmp_path}/file is not a folder; give another path", ("--socket", tmp_path / "file/sock")),
            (1, f"control socket {tmp_path}/none/c: there is no folder {tmp_path}/none", ("--socket", tmp_path / "sock", "--control", tmp_path / "none/c")),
            (2, "exists there; remove it, or give another path", ("--socket", tmp_path / "file")),
            (2, "cannot read the map file", ("--socket", tmp_path / "sock", "--map", tmp_path / "none")),
            (2, "map:1: there are no such LIDs: 0; give PREFIX/BITS HOST", ("--socket", tmp_path / "sock", "--map", tmp_path / "map")),
            (2, "there is no user 'nobody-here' on this host", ("--socket", tmp_path / "sock", "--users", "nobody-here"))):
        done = run(SECURDMA, "agent", *credentials, *options)
        assert done.returncode == code and words in done.stderr, done
    assert "give --cert, --key and --ca" in run(SECURDMA, "agent").stderr
    for command in "status", "reload":
        done = run(SECURDMA, command, "--agent", "--control", tmp_path / "none")
        assert done.returncode == 3 and "no agent listens there; start it, or give the same --control PATH as the agent" in done.stderr, done


# ---- size -------------------------------------------------------------------------------------------------------------


def memory(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024


def test_queue_pair_takes_less_than_200_bytes(agent, program):
    a = agent("a", "--no-sandbox")
    x = program(a)
    count = 10000

    def register(numbers):
        at_once(x, numbers, lambda number: x.register(number, wait=False))
    register(range(10, 500))
    before = memory(a.pid)
    register(range(500, 500 + count))
    grown = memory(a.pid) - before
    assert a.status()["queue_pairs"] == count + 490
    if "asan" not in os.environ.get("SECURDMA_TEST_RUN", "") and "tsan" not in os.environ.get("SECURDMA_TEST_RUN", ""):
        assert grown / count < 200, f"{grown / count:.0f} bytes for each"
