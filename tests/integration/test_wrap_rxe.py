# SPDX-License-Identifier: Apache-2.0
"""`securdma wrap` with `securdma agent` on the kernel's rdma_rxe. Two hosts are two addresses of this machine, each with its agent and its rxe device,
on the two ends of a pair of veth devices, since rdma_rxe knows the first network namespace alone (before Linux 7.2). Rules of routing (RULES) lead
its packets through the veth devices all the same. A second pair of hosts is joined by MACsec on the same devices. In the third pair, the far host
is in a network namespace of its own, with uroce."""
import contextlib
import copy
import errno
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass

import pytest
from agent_client import Program, Refused
from conftest import STEP, free_port, left_out_of, wait_until
from test_agent import in_child
from test_encryption import KEYS, Wire, close_ips, far, gid_index, ip, macsec_commands, near, policy, run_pingpong, states
from test_wrap import perftest_options, two_ends
from test_wrap_hosts import Host, attack_in_the_middle, connect, make_certificates

pytestmark = left_out_of("", "asan", "tsan")  # only the virtual machine has rdma_rxe

FAR = "wrap-far"
# The second number of each network: of the veth devices, of MACsec on them, and of those that lead to uroce.
PLAIN, MACSEC, MIXED = 89, 87, 85
NETWORKS = (PLAIN, MACSEC, MIXED)
# The network devices of the near and the far host in each; the hosts' certificates are for all their addresses.
DEVICES = {PLAIN: ("p0", "p1"), MACSEC: ("m0", "m1"), MIXED: ("u0", "u1")}
MACS = ("02:00:00:00:89:01", "02:00:00:00:89:02")
TABLE, NOBODY, INIT = 89, 65534, 1
# The local addresses come last, so that they are left for packets of sockets, which are bound to no device, and for packets that arrive.
RULES = ["rule add pref 100 lookup local", "rule del pref 0"]


def rxe_name(netdev):
    return f"rxe_{netdev}"


def make_rxe(netdev):
    subprocess.run(["rdma", "link", "add", rxe_name(netdev), "type", "rxe", "netdev", netdev], check=True, timeout=STEP)


def lead_through(network):
    """Between two addresses of this host, by way of their devices."""
    for netdev, peer in zip(DEVICES[network], (far(network), near(network))):
        ip([f"route add {peer} dev {netdev} table {TABLE}", f"rule add pref 10 oif {netdev} lookup {TABLE}"])
        for name, value in (("accept_local", "1"), ("rp_filter", "0")):
            with open(f"/proc/sys/net/ipv4/conf/{netdev}/{name}", "w", encoding="ascii") as file:
                file.write(value)


def make_plain():
    ip(["link add {} address {} type veth peer name {} address {}".format(*(word for end in zip(DEVICES[PLAIN], MACS) for word in end)), *RULES])
    for netdev, address in zip(DEVICES[PLAIN], (near(PLAIN), far(PLAIN))):
        ip([f"addr add {address}/32 dev {netdev}", f"link set {netdev} up"])
    lead_through(PLAIN)
    for netdev in DEVICES[PLAIN]:
        make_rxe(netdev)


def make_macsec():
    keys = KEYS["near"], KEYS["far"]
    for i, address in enumerate((near(MACSEC), far(MACSEC))):
        ip(macsec_commands(DEVICES[PLAIN][i], f"{address}/32", keys[i], keys[1 - i], MACS[1 - i], DEVICES[MACSEC][i]))
    lead_through(MACSEC)
    for netdev in DEVICES[MACSEC]:
        make_rxe(netdev)


def make_mixed():
    subprocess.run(["ip", "netns", "add", FAR], check=True, timeout=STEP)
    ip(["link add {} type veth peer name {} netns {}".format(*DEVICES[MIXED], FAR)])
    for namespace, netdev, address in ((None, DEVICES[MIXED][0], near(MIXED)), (FAR, DEVICES[MIXED][1], far(MIXED))):
        ip([f"addr add {address}/24 dev {netdev}", f"link set {netdev} up", *(["link set lo up"] if namespace else [])], namespace)
    make_rxe(DEVICES[MIXED][0])


class RxeHost(Host):
    def __init__(self, *args, netdev):
        super().__init__(*args)
        self.netdev, self.uroce, self.device = netdev, None, (rxe_name(netdev), gid_index(rxe_name(netdev), self.address))


@dataclass
class Rig:
    """Networks and their hosts are made when a test asks for them, and stay."""
    certificates: str
    folder: str
    made: dict
    stack: contextlib.ExitStack

    def hosts(self, network):
        if network == MACSEC:
            self.hosts(PLAIN)
        if network not in self.made:
            {PLAIN: make_plain, MACSEC: make_macsec, MIXED: make_mixed}[network]()
            self.made[network] = self.start(network)
        return self.made[network]

    def start(self, network):
        port = free_port("0.0.0.0")
        made = []
        for name, netdev, address in zip("ab", DEVICES[network], (near(network), far(network))):
            folder = os.path.join(self.folder, str(network))
            os.makedirs(folder, exist_ok=True)
            if (network, name) == (MIXED, "b"):
                made.append(Host(self.certificates, folder, port, name, address, ("ip", "netns", "exec", FAR)))
            else:
                made.append(RxeHost(self.certificates, folder, port, name, address, netdev=netdev))
            self.stack.enter_context(made[-1].ended)
            made[-1].start("--connect-timeout-ms", int(STEP * 500))
        return made


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    certificates = tmp_path_factory.mktemp("hosts")
    make_certificates(certificates, {"a": [near(network) for network in NETWORKS], "b": [far(network) for network in NETWORKS]})
    with tempfile.TemporaryDirectory(prefix="wrap.") as folder, contextlib.ExitStack() as stack:
        os.chmod(folder, 0o755)
        rig = Rig(certificates, folder, {}, stack)
        yield rig
        if PLAIN in rig.made:
            ip(["rule add pref 0 lookup local"])
    close_ips()


@pytest.fixture
def at(rig):
    """The two hosts of a network; their programs end with the test."""
    with contextlib.ExitStack() as stack:
        def hosts(network):
            made = [copy.copy(host) for host in rig.hosts(network)]
            for host in made:
                host.ended = stack.enter_context(contextlib.ExitStack())
            return made
        yield hosts


@pytest.fixture
def ipsec(at):
    """Encrypts between the hosts of the veth devices, until it is called with False."""
    at(PLAIN)
    policies = [command for direction in ("out", "in") for command in policy(direction, "proto udp", network=PLAIN)]

    def use(wanted):
        ip(["xfrm policy flush", "xfrm state flush", *(states(network=PLAIN) + policies if wanted else [])])
    use(True)
    yield use
    use(False)


# ---- what is seen of it -------------------------------------------------------------------------------------------------


def wires_of(*hosts):
    """What the hosts put on the veth devices."""
    return [Wire(None, DEVICES[PLAIN]["ab".index(host.name)]) for host in hosts]


def packets(wire):
    """(destination queue pair, PSN) of each RoCEv2 packet: frames of Ethernet, IPv4 without options, UDP."""
    frames = [frame for frame in wire.frames() if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == (4791).to_bytes(2, "big")]
    return [(int.from_bytes(frame[47:50], "big"), int.from_bytes(frame[51:54], "big")) for frame in frames]


def resource(device, qpn):
    """What the kernel tells of a queue pair."""
    told = subprocess.run(["rdma", "-j", "-d", "resource", "show", "qp", "link", f"{device}/1", "lqpn", str(qpn)], check=True, capture_output=True, text=True,
                          timeout=STEP).stdout
    return json.loads(told)[0]


def run_both(server, client, command, options=()):
    """Both ends of a benchmark, wrapped; their reports."""
    port = free_port("127.0.0.1")
    options = ["--report=json", *options]
    ends = [host.command(*command, *perftest_options(port, *host.device), *more, options=options)
            for host, more in ((server, []), (client, [server.address]))]
    return [json.loads(next(line for line in text.splitlines() if line.startswith("{"))) for text in two_ends(*ends, port)]


@pytest.mark.parametrize("kind", ["rc", "uc"])
def test_psns_are_the_agents_in_the_kernel_and_on_the_wire(at, kind):
    """The programs pass PSN 0, as NCCL does."""
    hosts = at(PLAIN)
    x, y = hosts[0].pairs(), hosts[1].pairs("--lookup")
    wires = wires_of(*hosts)
    qpns = connect(x, y, addresses=[host.address for host in hosts], kind=kind)
    psns = x.psns()
    for host, qpn, peer, own, other in zip(hosts, qpns, qpns[::-1], psns, psns[::-1]):
        told = resource(host.device[0], qpn)
        assert (told["rqpn"], told["sq-psn"], told["rq-psn"], told["state"]) == (peer, own, other, "RTS"), told
    for one, other in ((x, y), (y, x)):
        assert other.receive(0) == 0 and one.send(0) == 0 and one.poll(20000) == 0 and other.poll(20000) == 0
    for wire, peer, psn in zip(wires, qpns[::-1], psns):
        assert (peer, psn) in packets(wire)


PERFTEST = {
    "pairs both ways": (["ib_write_bw", "-q", "4", "-b", "-n", "50", "-s", "4096"], 4),
    "write UC": (["ib_write_bw", "-c", "UC", "-n", "50", "-s", "4096"], 1),
    "send RC": (["ib_send_lat", "-n", "50", "-s", "2000"], 1),
    "send UC": (["ib_send_lat", "-c", "UC", "-n", "50", "-s", "2000"], 1),
    "read": (["ib_read_bw", "-n", "50", "-s", "4096"], 1),
    "atomic": (["ib_atomic_bw", "-n", "50"], 1),
    "events": (["ib_send_bw", "-e", "-n", "50", "-s", "4096"], 1),
}


@pytest.mark.parametrize("case", PERFTEST)
def test_benchmarks_run_as_they_are(at, case):
    hosts, (command, count) = at(PLAIN), PERFTEST[case]
    wires = wires_of(*hosts)
    reports = run_both(*hosts[::-1], command)
    for report, peer in zip(reports, hosts):
        assert report["queue_pairs"]["refused"] == 0 and report["queue_pairs"]["connected"] >= count, report
        assert report["queue_pairs"]["with_agents_psns"] == report["queue_pairs"]["connected"], report
        assert [one["name"] for one in report["peers"]] == [f"{peer.name}.example"], report
    assert sum(len(packets(wire)) for wire in wires) >= 50


def run_wrapped_pingpong(server, client, wires, program="ibv_rc_pingpong", **how):
    """Whether what they send was readable on the wires."""
    ends = [host.command(program, "-d", host.device[0], "-g", host.device[1], **how) for host in (server, client)]
    return run_pingpong(wires, *ends, server.address)


@pytest.mark.parametrize("program", ["ibv_rc_pingpong", "ibv_uc_pingpong"])
def test_pingpong_runs_as_it_is(at, program):
    a, b = at(PLAIN)
    assert run_wrapped_pingpong(b, a, wires_of(a, b), program)


# ---- whose a queue pair is -----------------------------------------------------------------------------------------------


def steal(host, qpn, device):
    """Another user registers it: error and words of the refusal, or None."""
    def work():
        os.close(ends[0])
        thief = Program(host.path, name="thief")
        thief.device(host.address, name=device, kernel=1)
        said = None
        try:
            thief.register(qpn, name=device)
        except Refused as refused:
            said = refused.error, refused.why
        os.write(ends[1], json.dumps(said).encode())
        return 0

    ends = os.pipe()
    assert in_child(NOBODY, work) == 0
    os.close(ends[1])
    with os.fdopen(ends[0], encoding="utf-8") as file:
        return json.load(file)


def test_another_users_queue_pair_is_refused(at):
    a, b = at(PLAIN)
    x, y, bare = a.pairs(), b.pairs(), a.pairs(bare=True)
    mine, unwrapped = x.ready(), bare.ready()
    for qpn in (mine, unwrapped, 0xfffff0):  # the last one is nobody's
        error, why = steal(a, qpn, a.device[0])
        assert error == errno.EACCES and "it is not this process's, as the kernel says" in why
    # By a device that it makes up, of the same address.
    error, why = steal(a, mine, "other0")
    assert error == errno.EBUSY and "still runs" in why
    # The owner is not disturbed.
    peer = y.ready()
    assert x.rtr(0, peer, b.address, 0) == 0 and y.rtr(0, mine, a.address, 0) == 0, x.log() + y.log()


def test_queue_pairs_of_threads_are_their_process_s(at):
    """The kernel names the thread that made one, as long as it lives."""
    a, b = at(PLAIN)
    x, y, bare = a.pairs(), b.pairs(), a.pairs(bare=True)
    error, *_, wrong = x.many(20, 2)
    assert (error, wrong) == (0, 0), x.log()
    unwrapped = bare.thread(0, "rc")
    assert bare.init(0) == 0
    error, why = steal(a, unwrapped, a.device[0])
    assert error == errno.EACCES and "it is not this process's, as the kernel says" in why
    mine, peer = x.thread(0, "rc"), y.ready()
    assert x.init(0) == 0 and x.rtr(0, peer, b.address, 0) == 0, x.log()
    assert mine


def test_queue_pair_that_another_process_has_registered_first_is_its_makers(at):
    """Before INIT the kernel tells the maker only when it is asked for all queue pairs."""
    a, _ = at(PLAIN)
    x = a.pairs()
    qpn = x.create(0, "rc")
    with contextlib.closing(Program(a.path, name="thief")) as thief:
        thief.device(a.address, name=a.device[0], kernel=1)
        with contextlib.suppress(Refused):
            thief.register(qpn, name=a.device[0])
        assert x.init(0) == 0, x.log()
        with pytest.raises(Refused, match="not this process's|still runs"):
            thief.register(qpn, name=a.device[0])


@pytest.fixture
def hidden_processes():
    """/proc shows a user its own processes alone."""
    subprocess.run(["mount", "-o", "remount,hidepid=2", "/proc"], check=True, timeout=STEP)
    yield
    subprocess.run(["mount", "-o", "remount,hidepid=0", "/proc"], check=True, timeout=STEP)


def test_agent_that_sees_no_other_process_knows_their_threads(at, hidden_processes):
    """In its system-call filter, as an ordinary user."""
    a, b = (copy.copy(host) for host in at(PLAIN))
    # Whose folder it is, is the one whose agent a program trusts.
    with tempfile.TemporaryDirectory(prefix="wrap.", dir="/run") as folder, contextlib.ExitStack() as a.ended:
        os.chmod(folder, 0o755)
        os.chown(folder, NOBODY, NOBODY)
        a.port, a.path = free_port("0.0.0.0"), os.path.join(folder, "a")
        a.start("--user", "nobody")
        x = a.pairs()
        error, *_, wrong = x.many(20, 2)
        assert (error, wrong) == (0, 0), x.log()
        bare = b.pairs(bare=True)
        unwrapped = bare.thread(0, "rc")
        assert bare.init(0) == 0
        error, why = steal(a, unwrapped, b.device[0])
        assert error == errno.EACCES and "as the kernel says" in why


# ---- a man in the middle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", [True, False])
def test_man_in_the_middle(at, bare):
    attack_in_the_middle(*at(PLAIN), bare)


# ---- encryption ---------------------------------------------------------------------------------------------------------

REQUIRED = {"options": ["--require-encryption"]}


def test_path_that_does_not_encrypt_is_refused(at):
    a, b = at(PLAIN)
    x, y = a.pairs(**REQUIRED), b.pairs()
    qpn, peer = x.ready(), y.ready()
    assert x.rtr(0, peer, b.address, 0) == errno.EACCES
    said = rf"refused to connect queue pair {qpn} .* with queue pair {peer} .* at {b.address}: .*{a.netdev} \(veth\) does not encrypt"
    assert re.search(said, x.log()), x.log()
    assert x.query(0)[0] == INIT


@pytest.mark.parametrize("network, said", [(PLAIN, "IPsec, rfc4106"), (MACSEC, "MACsec, m")])
def test_path_that_encrypts_carries_nothing_in_clear(at, ipsec, network, said):
    """A policy for the two hosts and all of UDP; MACsec beneath the rxe devices."""
    ipsec(network == PLAIN)
    a, b = at(network)
    assert not run_wrapped_pingpong(b, a, wires_of(a, b), options=["--require-encryption"])
    for report in run_both(b, a, ["ib_write_bw", "-n", "20", "-s", "4096"], REQUIRED["options"]):
        assert said in report["peers"][0]["encryption"], report


def test_policy_that_goes_later_protects_no_more_and_is_missed_by_the_next_connection(at, ipsec):
    a, b = at(PLAIN)
    x, y = a.pairs(**REQUIRED), b.pairs(**REQUIRED)
    connect(x, y, addresses=(a.address, b.address))
    wire, = wires_of(a)

    def send():
        assert y.receive(0) == 0 and x.send(0) == 0 and x.poll(20000) == 0 and y.poll(20000) == 0
        return packets(wire)

    assert not send()
    ipsec(False)
    assert send()
    slots = iter(range(1, 1000))

    def refused():
        """An answer of the check is kept for a second."""
        slot = next(slots)
        x.ready(slot)
        return x.rtr(slot, y.ready(slot), b.address, 0) == errno.EACCES

    wait_until(refused, x.log)
    assert "does not encrypt" in x.log()


# ---- the other end on uroce ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("served_by", ["rdma_rxe", "uroce"])
def test_one_end_is_on_uroce(at, served_by):
    a, b = at(MIXED)
    wires = [Wire(None, a.netdev), Wire(FAR, DEVICES[MIXED][1])]
    assert run_wrapped_pingpong(*((a, b) if served_by == "rdma_rxe" else (b, a)), wires)


def test_psns_cross_between_rxe_and_uroce(at):
    hosts = at(MIXED)
    x, y = (host.pairs() for host in hosts)
    wire = Wire(None, hosts[0].netdev)
    for slot, kind in enumerate(("rc", "uc")):
        qpns = connect(x, y, slot, [host.address for host in hosts], kind)
        psns = x.psns(slot)
        for one, other in ((x, y), (y, x)):
            assert other.receive(slot) == 0 and one.send(slot) == 0 and one.poll(20000) == 0 and other.poll(20000) == 0
        assert (qpns[1], psns[0]) in packets(wire)
    reports = run_both(*hosts, ["ib_write_bw", "-q", "4", "-b", "-n", "50", "-s", "4096"])
    assert [report["queue_pairs"]["with_agents_psns"] for report in reports] == [4, 4]
