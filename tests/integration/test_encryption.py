# SPDX-License-Identifier: Apache-2.0
"""Whether the check of agent/encryption.h agrees with the wire. Two network namespaces are joined by a pair of veth devices. rdma_rxe sends
from the first one, because it knows no other, and uroce from the second one. What passes between them is captured beneath MACsec, IPsec and
WireGuard. Each case sets up both ends, lets each send a text that nothing else has, and asks for a verdict."""
import contextlib
import ctypes
import glob
import ipaddress
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

import pytest
from conftest import BUILD, SECURDMA, STEP, UROCE, free_port, left_out_of

pytestmark = left_out_of("", "asan", "tsan")  # only the virtual machine has all the kernel's modules

PROBE = os.path.join(BUILD, "tests", "integration", "wire_probe")
FAR, OTHER = "far", "other"
NEAR_DEV, FAR_DEV = "v0", "v1"
MACS = {NEAR_DEV: "02:00:00:00:99:01", FAR_DEV: "02:00:00:00:99:02"}
# The second number of each network: of the veth devices, MACsec, WireGuard, and a VLAN on MACsec. IPv6 is on the veth devices.
PLAIN, MACSEC, WIREGUARD, VLAN, IPV6 = 99, 97, 98, 96, 6
KEYS = {"near": "11" * 16, "far": "22" * 16}


def near(network):
    return "fd99::1" if network == IPV6 else f"10.{network}.0.1"


def far(network):
    return "fd99::2" if network == IPV6 else f"10.{network}.0.2"


class Ip:
    """ip(8) in a namespace, which reads commands for as long as the tests run: in emulation each process takes a good part of a second."""

    def __init__(self, namespace):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(["ip", *(["-n", namespace] if namespace else []), "-force", "-batch", "-"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True)

    def begin(self, commands):
        """What `link show` prints comes when all commands before it are done."""
        self.process.stdin.write("\n".join([*commands, "link show lo"]) + "\n")
        self.process.stdin.flush()

    def end(self):
        while (line := self.process.stdout.readline()) and "LOOPBACK" not in line:
            pass
        self.errors.seek(0)
        assert (errors := self.errors.read()) == "" and line, errors

    def close(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


IPS = {}


def run_ip(commands):
    """Commands for each namespace. After one that failed the next ones start anew."""
    for namespace in commands:
        if namespace not in IPS:
            IPS[namespace] = Ip(namespace)
        IPS[namespace].begin(commands[namespace])
    try:
        for namespace in commands:
            IPS[namespace].end()
    except AssertionError:
        close_ips()
        raise


def ip(commands, namespace=None):
    run_ip({namespace: commands})


def close_ips():
    while IPS:
        IPS.popitem()[1].close()


def both(near_commands, far_commands):
    run_ip({None: near_commands, FAR: far_commands})


class Probe:
    """wire_probe in one of the namespaces, on rdma_rxe's device or on uroce."""

    def __init__(self, command, **environment):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        self.wait("ready")

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait(self, expect=None):
        line = self.process.stdout.readline().strip()
        assert line and (expect is None or line == expect), f"{self.process.args}: {line!r}, exit code {self.process.poll()}"
        return line

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Wire:
    """What one end puts on the pair of veth devices. What it takes from there would be more than that: the kernel shows packets once more when
    it has taken them out of an IPsec tunnel."""

    def __init__(self, namespace, device):
        with inside(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            self.socket.bind((device, 0))
        self.socket.setblocking(False)

    def frames(self):
        frames = []
        while True:
            try:
                frame, address = self.socket.recvfrom(65536)
            except BlockingIOError:
                return frames
            if address[2] == 4:  # PACKET_OUTGOING
                frames.append(frame)


@contextlib.contextmanager
def inside(namespace):
    """Sockets that this thread makes belong to the namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path):
        with open(path, "rb") as file:
            assert libc.setns(file.fileno(), 0x40000000) == 0, os.strerror(ctypes.get_errno())  # CLONE_NEWNET

    if namespace:
        enter(f"/run/netns/{namespace}")
    try:
        yield
    finally:
        enter("/proc/1/ns/net")


def wireguard(namespace, own, peer, endpoint, allowed, device="wg0", port="51820"):
    """Configures a WireGuard device; `own` and `peer` are keys."""
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    subprocess.run([*prefix, "wg", "set", device, "private-key", "/dev/stdin", "listen-port", port, "peer", peer, "allowed-ips", allowed,
                    "endpoint", f"{endpoint}:{port}"], input=own, check=True, text=True, timeout=STEP)


def wireguard_keys():
    keys = []
    for _ in range(2):
        private = subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True, timeout=STEP).stdout
        public = subprocess.run(["wg", "pubkey"], input=private, check=True, capture_output=True, text=True, timeout=STEP).stdout
        keys.append((private, public.strip()))
    return keys


def macsec_commands(device, own, own_key, peer_key, peer_mac, name="macsec0"):
    """`own`: its address, with the length of the prefix."""
    return [f"link add link {device} {name} type macsec encrypt on",
            f"macsec add {name} tx sa 0 pn 1 on key 01 {own_key}",
            f"macsec add {name} rx port 1 address {peer_mac}",
            f"macsec add {name} rx port 1 address {peer_mac} sa 0 pn 1 on key 02 {peer_key}",
            f"addr add {own} dev {name}", f"link set {name} up"]


def make_devices():
    """All devices that the cases take; what is on them, they change."""
    subprocess.run(["ip", "netns", "add", FAR], check=True, timeout=STEP)
    ip([f"link add {NEAR_DEV} address {MACS[NEAR_DEV]} type veth peer name {FAR_DEV} address {MACS[FAR_DEV]} netns {FAR}"])
    for namespace, device, address, key, peer_key, peer in ((None, NEAR_DEV, near, "near", "far", FAR_DEV), (FAR, FAR_DEV, far, "far", "near", NEAR_DEV)):
        ip([f"addr add {address(PLAIN)}/24 dev {device}", f"addr add {address(IPV6)}/64 dev {device} nodad", f"link set {device} up", "link set lo up",
            *macsec_commands(device, f"{address(MACSEC)}/24", KEYS[key], KEYS[peer_key], MACS[peer]),
            "link add link macsec0 name macsec0.5 type vlan id 5", f"addr add {address(VLAN)}/24 dev macsec0.5", "link set macsec0.5 up",
            "link add wg0 type wireguard", f"addr add {address(WIREGUARD)}/24 dev wg0", "link set wg0 up"], namespace)
    # Another address of the far host, which the near one can also reach by another way.
    ip(["addr add 10.99.0.3/24 dev v1"], FAR)
    for name, device in (("rxe_plain", NEAR_DEV), ("rxe_macsec", "macsec0"), ("rxe_wg", "wg0")):
        subprocess.run(["rdma", "link", "add", name, "type", "rxe", "netdev", device], check=True, timeout=STEP)


@dataclass
class Rig:
    wires: dict
    rxe: dict
    uroce: Probe
    keys: list = field(default_factory=wireguard_keys)


@pytest.fixture(scope="module")
def rig():
    make_devices()
    addresses = ",".join(far(network) for network in (PLAIN, MACSEC, WIREGUARD, VLAN, IPV6))
    rxe = {network: Probe([PROBE, name]) for network, name in ((PLAIN, "rxe_plain"), (MACSEC, "rxe_macsec"), (WIREGUARD, "rxe_wg"))}
    rxe[IPV6] = rxe[PLAIN]
    uroce = Probe(["ip", "netns", "exec", FAR, UROCE, PROBE, "uroce0"], UROCE_ADDR=addresses, UROCE_WIRE="1")
    yield Rig({"rxe": Wire(None, NEAR_DEV), "uroce": Wire(FAR, FAR_DEV)}, rxe, uroce)
    for process in (*rxe.values(), uroce):
        process.close()
    close_ips()


# ---- what the two ends do --------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """Of one end: what became of its text on the wire, and what the check said."""
    wire: str = "nothing"  # or "encrypted", or "clear"
    verdict: str = ""


def take_frames(rig, name, seen):
    """Only a packet with the text has its length."""
    for frame in rig.wires[name].frames():
        if f"the-text-of-{name}".encode() in frame:
            seen.wire = "clear"
        elif len(frame) > 256 and seen.wire == "nothing":
            seen.wire = "encrypted"


def look(rig, network, rxe=None, uroce=None, rxe_peer=None):
    """Both ends send their text to each other and are asked about the path. `rxe` and `uroce` are what is expected of each: what becomes of
    the text, and words of the verdict. A text that does not come is sent again, because a busy machine may need long."""
    expected = {name: one for name, one in (("rxe", rxe), ("uroce", uroce)) if one}
    ends = {"rxe": (rig.rxe.get(network), "rxe", near(network), rxe_peer or far(network)), "uroce": (rig.uroce, "sockets", far(network), near(network))}
    seen = {name: Seen() for name in expected}
    for wire in rig.wires.values():
        wire.frames()
    deadline = time.monotonic() + STEP
    waiting = list(expected)
    while waiting and time.monotonic() < deadline:
        for name in waiting:
            probe, _, own, peer = ends[name]
            probe.say(f"send {own} {peer} the-text-of-{name}")
        for name in waiting:
            ends[name][0].wait("sent")
            take_frames(rig, name, seen[name])
        waiting = [name for name in waiting if seen[name].wire == "nothing" != expected[name][0]]
    for name, one in seen.items():
        probe, kind, own, peer = ends[name]
        probe.say(f"check {kind} {own} {peer}")
        one.verdict = probe.wait()
        take_frames(rig, name, one)
    for name, (wire, *words) in expected.items():
        assert seen[name].wire == wire, seen
        assert all(word in seen[name].verdict for word in words), seen
        assert seen[name].wire == "encrypted" or not seen[name].verdict.startswith("0 "), seen


# ---- IPsec -----------------------------------------------------------------------------------------------------------

GCM = f"aead rfc4106(gcm(aes)) 0x{'33' * 20} 128"
GMAC = f"aead rfc4543(gcm(aes)) 0x{'33' * 20} 128"
NULL = f"enc ecb(cipher_null) '' auth hmac(sha256) 0x{'44' * 32}"


def states(algorithm=GCM, mode="transport", network=PLAIN):
    """Of both directions: both ends have the same."""
    return [f"xfrm state add src {a} dst {b} proto esp spi {spi} reqid 1 mode {mode} {algorithm}"
            for a, b, spi in ((near(network), far(network), "0x1001"), (far(network), near(network), "0x1002"))]


def policy(direction, selector, mode="transport", level="required", priority=10, network=PLAIN):
    """The command for each of both ends."""
    pairs = [(near(network), far(network)), (far(network), near(network))]
    if direction == "in":
        pairs.reverse()
    return [f"xfrm policy add src {a} dst {b} {selector} dir {direction} priority {priority} "
            f"tmpl src {a} dst {b} proto esp reqid 1 mode {mode} level {level}" for a, b in pairs]


def allow(direction, selector, priority, action="allow"):
    pairs = [(near(PLAIN), far(PLAIN)), (far(PLAIN), near(PLAIN))]
    if direction == "in":
        pairs.reverse()
    return [f"xfrm policy add src {a}/32 dst {b}/32 {selector} dir {direction} priority {priority} action {action}" for a, b in pairs]


def use_ipsec(state_commands, *policy_pairs):
    """Puts these in place of what was there. A pair has commands for the near and for the far end."""
    flush = ["xfrm policy flush", "xfrm state flush"]
    near_policies, far_policies = ([list(end) for end in zip(*policy_pairs)] if policy_pairs else ([], []))
    both(flush + state_commands + near_policies, flush + state_commands + far_policies)


OUT, IN = policy("out", "proto udp"), policy("in", "proto udp")

# States, policies; then of rdma_rxe and of uroce: what becomes of its text, and words of the verdict.
CASES = {
    "nothing": ([], [], ("clear", "EACCES", "no IPsec policy (dir out)"), ("clear", "EACCES", "no IPsec policy (dir out)")),
    "host to host": (states(), [policy("out", ""), policy("in", "")], ("encrypted", "0 IPsec, rfc4106"), ("encrypted", "0 IPsec, rfc4106")),
    "all of UDP": (states(), [OUT, IN], ("encrypted", "0 IPsec"), ("encrypted", "0 IPsec")),
    "tunnel between the hosts": (states(mode="tunnel"), [policy("out", "proto udp", mode="tunnel"), policy("in", "proto udp", mode="tunnel")],
                                 ("encrypted", "0 IPsec"), ("encrypted", "0 IPsec")),
    # rdma_rxe asks for the policy before it knows ports.
    "port 4791 alone": (states(), [policy("out", "proto udp dport 4791"), policy("in", "proto udp dport 4791")],
                        ("clear", "EACCES", "must name no port"), ("encrypted", "0 IPsec")),
    "another port": (states(), [policy("out", "proto udp dport 4792"), policy("in", "proto udp dport 4792")], ("clear", "EACCES"), ("clear", "EACCES")),
    "level use without a state": ([], [policy("out", "proto udp", level="use"), IN], ("clear", "EACCES", "level use"), ("clear", "EACCES", "level use")),
    "level use with a state": (states(), [policy("out", "proto udp", level="use"), IN], ("encrypted", "EACCES", "level use"), ("encrypted", "EACCES", "level use")),
    "no policy for what arrives": (states(), [OUT], ("encrypted", "EACCES", "no IPsec policy (dir in)"), ("encrypted", "EACCES", "no IPsec policy (dir in)")),
    "null cipher": (states(NULL), [OUT, IN], ("clear", "EACCES", "has the null cipher"), ("clear", "EACCES", "has the null cipher")),
    "GMAC": (states(GMAC), [OUT, IN], ("clear", "EACCES", "does not count as encryption"), ("clear", "EACCES", "does not count as encryption")),
    "state gone": ([], [OUT, IN], ("nothing", "EACCES", "no state that fits"), ("nothing", "EACCES", "no state that fits")),
    "a stronger policy lets port 4791 pass": (states(), [OUT, IN, allow("out", "proto udp dport 4791", 5)],
                                              ("encrypted", "EACCES", "lets packets go in clear"), ("clear", "EACCES", "lets packets go in clear")),
    "blocked": (states(), [IN, allow("out", "", 5, "block")], ("nothing", "EACCES", "blocks"), ("nothing", "EACCES", "blocks")),
}


def test_ipsec_verdict_agrees_with_the_wire_over_ipv6(rig):
    use_ipsec([])
    look(rig, IPV6, ("clear", "EACCES"), ("clear", "EACCES"))
    port = [policy(direction, "proto udp dport 4791", network=IPV6) for direction in ("out", "in")]
    use_ipsec(states(network=IPV6), *port)
    look(rig, IPV6, ("clear", "EACCES", "must name no port"), ("encrypted", "0 IPsec"))
    use_ipsec(states(network=IPV6), policy("out", "", network=IPV6), policy("in", "", network=IPV6))
    look(rig, IPV6, ("encrypted", "0 IPsec"), ("encrypted", "0 IPsec"))


@pytest.mark.parametrize("case", CASES)
def test_ipsec_verdict_agrees_with_the_wire(rig, case):
    state_commands, policy_pairs, rxe, uroce = CASES[case]
    use_ipsec(state_commands, *policy_pairs)
    look(rig, PLAIN, rxe, uroce)


def test_ipsec_switched_off_for_a_device(rig):
    use_ipsec(states(), OUT, IN)
    switches = [(None, NEAR_DEV), (FAR, FAR_DEV)]
    for namespace, device in switches:
        set_switch(namespace, device, "disable_xfrm", 1)
    try:
        look(rig, PLAIN, ("clear", "EACCES", "disable_xfrm"), ("clear", "EACCES", "disable_xfrm"))
    finally:
        for namespace, device in switches:
            set_switch(namespace, device, "disable_xfrm", 0)


def set_switch(namespace, device, name, value):
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    subprocess.run([*prefix, "sh", "-c", f"echo {value} >/proc/sys/net/ipv4/conf/{device}/{name}"], check=True, timeout=STEP)


# ---- MACsec ----------------------------------------------------------------------------------------------------------

# What is done to both ends' device and undone again; what becomes of the texts, and words of the verdict.
MACSEC_CASES = {
    "encrypts": ([], [], ("encrypted", "0 MACsec, macsec0")),
    "integrity alone": (["link set macsec0 type macsec encrypt off"], ["link set macsec0 type macsec encrypt on"],
                        ("clear", "EACCES", "only protects integrity")),
    "accepts frames in clear": (["link set macsec0 type macsec validate check"], ["link set macsec0 type macsec validate strict"],
                                ("encrypted", "EACCES", "accepts frames in clear")),
    "no key of the peer": (["macsec set macsec0 rx port 1 address {mac} off"], ["macsec set macsec0 rx port 1 address {mac} on"],
                           ("encrypted", "EACCES", "no active receive channel")),
    "no key of its own": (["macsec set macsec0 tx sa 0 off"], ["macsec set macsec0 tx sa 0 on"], ("nothing", "EACCES", "no active key")),
}


@pytest.mark.parametrize("case", MACSEC_CASES)
def test_macsec_verdict_agrees_with_the_wire(rig, case):
    do, undo, expected = MACSEC_CASES[case]
    macs = {"near": MACS[FAR_DEV], "far": MACS[NEAR_DEV]}
    both(*([command.format(mac=macs[end]) for command in do] for end in ("near", "far")))
    try:
        look(rig, MACSEC, expected, expected)
    finally:
        both(*([command.format(mac=macs[end]) for command in undo] for end in ("near", "far")))


def test_hardware_address_of_the_peer_is_found_out(rig):
    """Its name is part of the channel's."""
    ip(["neigh flush dev macsec0"], FAR)
    deadline = time.monotonic() + STEP
    verdicts = []
    while time.monotonic() < deadline and not (verdicts and verdicts[-1].startswith("0 ")):
        rig.uroce.say(f"check sockets {far(MACSEC)} {near(MACSEC)}")
        verdicts.append(rig.uroce.wait())
    assert verdicts[0].startswith("EAGAIN") and "not known yet" in verdicts[0] and verdicts[-1] == "0 MACsec, macsec0", verdicts


def test_vlan_on_macsec_is_encrypted(rig):
    look(rig, VLAN, uroce=("encrypted", "0 MACsec, macsec0"))


def test_macsec_ends_at_a_router(rig):
    """The peer behind it gets the packets by a way that this host does not see."""
    ip([f"route add 10.95.0.0/24 via {near(MACSEC)}"], FAR)
    rig.uroce.say(f"check sockets {far(MACSEC)} 10.95.0.1")
    assert "only the way to the router" in rig.uroce.wait()


# ---- WireGuard -------------------------------------------------------------------------------------------------------


def test_wireguard_verdict_agrees_with_the_wire(rig):
    use_ipsec([])
    (near_key, near_public), (far_key, far_public) = rig.keys
    wireguard(None, near_key, far_public, far(PLAIN), f"{far(WIREGUARD)}/32,10.99.0.3/32")
    wireguard(FAR, far_key, near_public, near(PLAIN), f"{near(WIREGUARD)}/32")
    look(rig, WIREGUARD, ("nothing", "EACCES", "never leave wg0"), ("encrypted", "0 WireGuard, wg0"))
    # A wider network may lie behind the peer.
    wireguard(FAR, far_key, near_public, near(PLAIN), f"10.{WIREGUARD}.0.0/24")
    rig.uroce.say(f"check sockets {far(WIREGUARD)} {near(WIREGUARD)}")
    assert "may pass packets on in clear" in rig.uroce.wait()


def test_rxe_sends_past_the_route_of_a_host(rig):
    """It goes through its own network device, in clear, where the routes send everybody else through WireGuard."""
    use_ipsec([])
    ip(["route add 10.99.0.3/32 dev wg0"])
    look(rig, PLAIN, ("clear", "EACCES", "v0 (veth) does not encrypt"), rxe_peer="10.99.0.3")
    rig.rxe[PLAIN].say(f"check sockets {near(WIREGUARD)} 10.99.0.3")
    assert rig.rxe[PLAIN].wait() == "0 WireGuard, wg0"


# ---- the recipes of docs/ENCRYPTION.md: what a program sends arrives, and nobody else can read it ------------------------


def gid_index(device, address):
    for path in glob.glob(f"/sys/class/infiniband/{device}/ports/1/gids/*"):
        with open(path, encoding="ascii") as file:
            if ipaddress.ip_address(file.read().strip()) == ipaddress.ip_address("::ffff:" + address):
                return os.path.basename(path)
    raise AssertionError(f"{device} has no GID for {address}")


def run_pingpong(wires, server, client, host):
    """ibv_rc_pingpong fills its messages with one byte and checks what arrives. Returns whether that was on the wire."""
    options = ["-n", "10", "-s", "1024", "-c", "-p", str(free_port("127.0.0.1"))]
    for wire in wires:
        wire.frames()
    with subprocess.Popen([*server, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as serving:
        try:
            result = run_until_connected([*client, *options, host], serving)
            assert result.returncode == 0, result.stdout + result.stderr
            assert serving.wait(STEP) == 0, serving.stdout.read()
        finally:
            serving.kill()
    frames = [frame for wire in wires for frame in wire.frames()]
    assert len(frames) >= 20
    return any(b"{" * 64 in frame for frame in frames)


def run_until_connected(command, serving):
    """A client that comes before the server listens ends at once."""
    deadline = time.monotonic() + STEP
    while True:
        result = subprocess.run(command, capture_output=True, text=True, timeout=STEP)
        if "connect to" not in result.stderr or serving.poll() is not None or time.monotonic() > deadline:
            return result
        time.sleep(0.1)


def on_rxe(device, address):
    return ["ibv_rc_pingpong", "-d", device, "-g", gid_index(device, address)]


def on_uroce(namespace, address):
    return ["ip", "netns", "exec", namespace, "env", f"UROCE_ADDR={address}", "UROCE_WIRE=1", UROCE, "ibv_rc_pingpong", "-d", "uroce0", "-g", "0"]


@pytest.mark.parametrize("recipe", ["none", "IPsec", "MACsec"])
def test_recipe_protects_rxe_and_uroce(rig, recipe):
    use_ipsec(*([states(), policy("out", ""), policy("in", "")] if recipe == "IPsec" else [[]]))
    network, device = (MACSEC, "rxe_macsec") if recipe == "MACsec" else (PLAIN, "rxe_plain")
    seen = run_pingpong(rig.wires.values(), on_rxe(device, near(network)), on_uroce(FAR, far(network)), near(network))
    assert seen == (recipe == "none")


def test_recipe_protects_uroce_over_wireguard(rig):
    """rdma_rxe has no part in it, so the other end is in a third namespace."""
    subprocess.run(["ip", "netns", "add", OTHER], check=True, timeout=STEP)
    ip([f"link add w0 netns {FAR} type veth peer name w1 netns {OTHER}"])
    pairs = list(zip((FAR, OTHER), ("w0", "w1"), rig.keys, rig.keys[::-1], ("1", "2"), ("2", "1")))
    for namespace, device, *_, own, _ in pairs:
        ip([f"addr add 10.94.0.{own}/24 dev {device}", f"link set {device} up", "link add wg1 type wireguard", f"addr add 10.93.0.{own}/24 dev wg1",
            "link set wg1 up", "link set lo up"], namespace)
    for namespace, _, (key, _), (_, public), _, peer in pairs:
        wireguard(namespace, key, public, f"10.94.0.{peer}", f"10.93.0.{peer}/32", "wg1", "51821")
    wires = [Wire(FAR, "w0"), Wire(OTHER, "w1")]
    assert not run_pingpong(wires, on_uroce(OTHER, "10.93.0.2"), on_uroce(FAR, "10.93.0.1"), "10.93.0.2")


# ---- what the check needs --------------------------------------------------------------------------------------------


def test_doctor_tells_what_the_check_says(rig):
    use_ipsec([])
    for network, device, code, words in ((MACSEC, "rxe_macsec", 0, "by rxe_macsec (rdma_rxe): MACsec, macsec0"),
                                         (PLAIN, "rxe_plain", 1, "by rxe_plain (rdma_rxe): v0 (veth) does not encrypt")):
        result = subprocess.run([SECURDMA, "doctor", "--encryption", far(network), "--device", device], capture_output=True, text=True, timeout=STEP)
        assert result.returncode == code and f"{near(network)} to {far(network)} {words}" in result.stdout, result.stdout + result.stderr


def test_rights_and_namespaces_are_told(rig):
    use_ipsec(states(), OUT, IN)
    unprivileged = Probe(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", PROBE, "rxe_plain"])
    try:
        unprivileged.say(f"check rxe {near(PLAIN)} {far(PLAIN)}")
        assert "EPERM" in (verdict := unprivileged.wait()) and "CAP_NET_ADMIN" in verdict
        # Anyone may look at MACsec.
        unprivileged.say(f"check rxe {near(MACSEC)} {far(MACSEC)}")
        assert unprivileged.wait() == "0 MACsec, macsec0"
    finally:
        unprivileged.close()
    rig.uroce.say(f"check rxe {far(PLAIN)} {near(PLAIN)}")
    assert "first network namespace" in rig.uroce.wait()
    rig.uroce.say(f"check hardware {far(PLAIN)} {near(PLAIN)}")
    assert "not offloaded to the adapter" in rig.uroce.wait()
    rig.uroce.say(f"check sockets {far(PLAIN)} {far(PLAIN)}")
    assert rig.uroce.wait() == "0 the packets do not leave this host"


