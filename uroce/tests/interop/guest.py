#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""In the VM: rdma_rxe on one end of a veth pair, uroce in a network namespace on the other, each as server and as
client, over IPv4 and IPv6. Data is verified, and both must take the other's ICRC: uroce counts none as wrong, and rxe,
which drops those silently, answers. Programs that call verbs which uroce does not have yet are named and not run.

usage: guest.py [--everything] [--only WORD] [--keep-going-after N] [--capture FOLDER] [--rmem BYTES]

rxe sends without regard to what the receiver can take in, and when packets are lost it may never ask again: so the
sockets are allowed large buffers (--rmem, the system's net.core.rmem_max in the guest).
"""
import argparse
import glob
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "programs"))
import rig  # noqa: E402
import status_table  # noqa: E402
from public import for_everyone  # noqa: E402

BUILD = for_everyone(os.environ["UROCE_BUILD"], "cli/uroce", "src/liburoce.so", "tests/programs/verify", "tests/programs/place",
                     "tests/programs/status")
UROCE = f"{BUILD}/cli/uroce"
VERIFY = f"{BUILD}/tests/programs/verify"
PLACE = f"{BUILD}/tests/programs/place"
STATUS = f"{BUILD}/tests/programs/status"
FIRST = os.environ.get("UROCE_PRELOAD_FIRST", "")
SPACE, RXE, NEAR, FAR = "far", "rxe0", "v0", "v1"
ADDRESS = {"v4": {"rxe": "10.99.0.1", "uroce": "10.99.0.2"}, "v6": {"rxe": "fd99::1", "uroce": "fd99::2"}}
UROCE_ADDR = f"{ADDRESS['v4']['uroce']},{ADDRESS['v6']['uroce']}"
TCP_SPACE, UDP_SPACE = 0x106, 0x111  # rdma_cm's ports
LIMIT = 60  # emulation is slow
PORT = iter(range(19000, 30000))
ASIDE = tempfile.mkdtemp(prefix="interop.")


def do(*command):
    subprocess.run(command, check=True)


def set_up():
    do("ip", "netns", "add", SPACE)
    do("ip", "link", "add", NEAR, "mtu", "5000", "type", "veth", "peer", "name", FAR, "mtu", "5000", "netns", SPACE)
    for family, mask in (("v4", "24"), ("v6", "64")):
        nodad = ["nodad"] if family == "v6" else []
        do("ip", "addr", "add", f"{ADDRESS[family]['rxe']}/{mask}", "dev", NEAR, *nodad)
        do("ip", "-n", SPACE, "addr", "add", f"{ADDRESS[family]['uroce']}/{mask}", "dev", FAR, *nodad)
    do("ip", "link", "set", NEAR, "up")
    do("ip", "-n", SPACE, "link", "set", FAR, "up")
    do("ip", "-n", SPACE, "link", "set", "lo", "up")
    do("rdma", "link", "add", RXE, "type", "rxe", "netdev", NEAR)


def rxe_gid_index(family):
    import ipaddress
    address = ipaddress.ip_address(ADDRESS[family]["rxe"])
    wanted = ipaddress.ip_address("::ffff:" + str(address)) if family == "v4" else address
    for path in glob.glob(f"/sys/class/infiniband/{RXE}/ports/1/gids/*"):
        with open(path, encoding="ascii") as file:
            if ipaddress.ip_address(file.read().strip()) == wanted:
                return path.split("/")[-1]
    raise SystemExit(f"interop: {RXE} has no GID for {address}")


def uroce_gid_index(family):
    return "0" if family == "v4" else "1"


class Program:
    """One end's program; its standard output and error in files."""

    def __init__(self, end, command, name):
        self.end, self.name = end, name
        environment = dict(os.environ)
        if end == "uroce":
            environment["UROCE_ADDR"] = UROCE_ADDR
            if CAPTURE:
                environment["UROCE_CAPTURE"] = f"{CAPTURE}/{name}.pcap"
            command = ["ip", "netns", "exec", SPACE, "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
                       *(["env", f"LD_PRELOAD={FIRST}:{BUILD}/src/liburoce.so"] if FIRST else [UROCE, "--stats-json"]), *command]
        self.out = open(f"{ASIDE}/{name}.{end}.out", "w+", encoding="utf-8", errors="replace")
        self.err = open(f"{ASIDE}/{name}.{end}.err", "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err,
                                        start_new_session=True, env=environment)

    def text(self):
        parts = []
        for file in (self.out, self.err):
            file.seek(0)
            parts.append(file.read())
        return "".join(parts)

    def counters(self):
        self.err.seek(0)
        for line in reversed(self.err.read().splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        return {}

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def rxe_counters():
    values = {}
    for path in glob.glob(f"/sys/class/infiniband/{RXE}/ports/1/hw_counters/*"):
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
        if text.isdigit():
            values[path.split("/")[-1]] = int(text)
    return values


def listening(port, pid):
    """In the network namespace of the process. No program is run for it: in emulation each takes a good part of a second."""
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
            if any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in map(str.split, file)):
                return True
    return False


def cm_listening(end, space, port, pid):
    """Of rdma_cm: uroce's sockets have names, and the kernel lists its own."""
    if end == "uroce":
        with open(f"/proc/{pid}/net/unix", encoding="ascii", errors="replace") as table:
            return any(f"@uroce-service-{space << 16 | port:016x}-" in line for line in table)
    return "LISTEN" in subprocess.run(["rdma", "resource", "show", "cm_id"], capture_output=True, text=True, check=True).stdout


class Failed(Exception):
    pass


def run_pair(name, server_end, command_of):
    """`command_of(end, port, host)`; host None for the server. Its attribute `space` is rdma_cm's port space, if it connects by that.
    Returns uroce's counters."""
    client_end = "uroce" if server_end == "rxe" else "rxe"
    port = next(PORT)
    server = Program(server_end, command_of(server_end, port, None), name)
    client = None
    try:
        end = time.monotonic() + LIMIT
        space = getattr(command_of, "space", None)
        number = getattr(command_of, "port", port)
        while server.process.poll() is not None or not (cm_listening(server_end, space, number, server.process.pid) if space else
                                                        listening(port, server.process.pid)):
            if server.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"the server ({server_end}) does not listen:\n{server.text()}")
            time.sleep(0.05)
        client = Program(client_end, command_of(client_end, port, server_end), name)
        for program, what in ((client, f"client ({client_end})"), (server, f"server ({server_end})")):
            try:
                status = program.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                raise Failed(f"the {what} hangs\nclient:\n{client.text()}\nserver:\n{server.text()}") from None
            # rping's main thread closes the channel without regard to the one that fetches events, and may be first.
            if status != 0 and "rdma_get_cm_event: Bad file descriptor" not in program.text():
                raise Failed(f"{what}: status {status}\nclient:\n{client.text()}\nserver:\n{server.text()}")
        return (server if server_end == "uroce" else client).counters()
    finally:
        server.stop()
        if client:
            client.stop()


def device_options(end, family, device, gid):
    return [device, "uroce0", gid, uroce_gid_index(family)] if end == "uroce" else [device, RXE, gid, rxe_gid_index(family)]


def verify_command(family, server_end, options):
    def command(end, port, host):
        base = [VERIFY, *device_options(end, family, "--device", "--gid"), "--port", str(port), "--deadline", "40"]
        # What ibv_wr_set_inline_data_list and ibv_wr_set_sge_list give rdma_rxe has a wrong length: findings/rxe-builder-lists.sh.
        if end != "uroce":
            base.append("--structs")
        # A second: rxe that repeats itself because the emulation is slow may end up waiting for ever.
        return base if host is None else [*base, *options, "--timeout", "18", ADDRESS["v4"][server_end]]
    return command


def place_command(family, server_end, _options):
    def command(end, port, host):
        base = [PLACE, *device_options(end, family, "--device", "--gid"), "--port", str(port), "--deadline", "40"]
        return base if host is None else [*base, ADDRESS["v4"][server_end]]
    return command


def perftest_command(family, server_end, program, options):
    def command(end, port, host):
        base = [program, "-F", *rig.PATIENT, *device_options(end, family, "-d", "-x"), "-p", str(port), *options]
        return base if host is None else [*base, ADDRESS["v4"][server_end]]
    return command


def pingpong_command(family, server_end, program, options):
    def command(end, port, host):
        base = [program, *device_options(end, family, "-d", "-g"), "-p", str(port), *options]
        return base if host is None else [*base, ADDRESS["v4"][server_end]]
    return command


def cm_command(family, server_end, program, options):
    """With an address for both ends; `port`: the one that a program always has."""
    def command(end, port, host):
        own = [] if program == "udaddy" else ["-p", str(port)]
        address = ADDRESS[family][server_end]
        if program == "rping":
            return [program, "-s" if host is None else "-c", "-a", address, *own, *options]
        return [program, *(["-b", address] if host is None else ["-s", address]), *own, *options]
    command.space = UDP_SPACE if program == "udaddy" else TCP_SPACE
    if program == "udaddy":
        command.port = 7174
    return command


def cm_perftest_command(family, server_end, program, options):
    def command(_end, port, host):
        base = [program, "-R", "-F", *rig.PATIENT, "-p", str(port), *options]
        return base if host is None else [*base, ADDRESS[family][server_end]]
    command.space = TCP_SPACE
    return command


VERIFIED = {
    "verify-mtu1024": ["--iterations", "10", "--depth", "4", "--sizes", "0,1,2,3,255,1024,1025,4097,65539"],
    "verify-mtu4096": ["--mtu", "4096", "--iterations", "10", "--depth", "4", "--sizes", "0,7,4095,4096,4097,65539,300001"],
    "verify-mtu256": ["--mtu", "256", "--iterations", "5", "--depth", "4", "--sizes", "0,1,255,256,257,10001"],
    "verify-uc": ["--type", "uc", "--iterations", "5", "--depth", "2", "--sizes", "0,1,1023,1025,8193"],
    "verify-qps": ["--qps", "16", "--depth", "2", "--iterations", "3", "--sizes", "0,100,5000"],
}
# rdma_rxe has FLUSH and ATOMIC WRITE since Linux 6.2.
PLACED = {"place": []} if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 2) else {}
# perftest takes the number of outstanding READs that the peer can, even when the own device can fewer.
OUTSTANDING = ["-o", "4"]
PERFTEST = {
    "send_bw": ("ib_send_bw", ["-n", "200"]), "write_bw": ("ib_write_bw", ["-n", "200"]), "read_bw": ("ib_read_bw", ["-n", "200", *OUTSTANDING]),
    "atomic_bw": ("ib_atomic_bw", ["-n", "200", *OUTSTANDING]), "send_lat": ("ib_send_lat", ["-n", "200"]),
    "write_lat": ("ib_write_lat", ["-n", "200"]), "read_lat": ("ib_read_lat", ["-n", "200", *OUTSTANDING]),
    "atomic_lat": ("ib_atomic_lat", ["-n", "200", "-A", "CMP_AND_SWAP", *OUTSTANDING]), "send_bw-mtu4096": ("ib_send_bw", ["-n", "200", "-m", "4096"]),
    "send_lat-events": ("ib_send_lat", ["-n", "200", "-e"]), "send_bw-bidirectional": ("ib_send_bw", ["-n", "200", "-b"]),
    "send_lat-ud": ("ib_send_lat", ["-n", "200", "-c", "UD"]),
}
# They connect by rdma_cm: to the kernel's, and from it.
CM = {"cm-rping": ("rping", ["-C", "3", "-V", "-v"]), "cm-ucmatose": ("ucmatose", ["-c", "3"]), "cm-udaddy": ("udaddy", []),
      "cm-rstream": ("rstream", ["-T", "v", "-S", "4096", "-C", "10", "-I", "2"])}
# It connects twice: to the kernel in emulation the second time may come before the server listens again.
CM_PERFTEST = {"cm-write_bw": ("ib_write_bw", ["-n", "100"]), "cm-send_bw": ("ib_send_bw", ["-n", "100"]),
               "cm-read_lat": ("ib_read_lat", ["-n", "100", *OUTSTANDING])}
# By --everything alone: rping has the same messages, but for those of datagrams.
NEITHER_WAY = ("cm-ucmatose", "cm-udaddy", "cm-rstream", *CM_PERFTEST)
IN_V6 = ("verify-mtu1024", "verify-mtu4096", "pingpong-ud", "cm-ucmatose")
# What the others show too: left out unless everything is asked for.
SLOWLY_NEW = ("atomic_bw", "write_lat", "read_lat", "atomic_lat", "send_bw-mtu4096", "send_lat-events", "send_lat-ud", "pingpong-checked",
              "pingpong-uc", "cm-ucmatose")
PINGPONG = {"pingpong-checked": ("ibv_rc_pingpong", ["-c", "-n", "200"]), "pingpong-ud": ("ibv_ud_pingpong", ["-c", "-n", "200"]),
            "pingpong-uc": ("ibv_uc_pingpong", ["-c", "-n", "200"]), "pingpong-srq": ("ibv_srq_pingpong", ["-n", "50"])}


def cases(everything):
    kinds = ((VERIFIED, verify_command), (PLACED, place_command), (PERFTEST, perftest_command), (PINGPONG, pingpong_command),
             (CM, cm_command), (CM_PERFTEST, cm_perftest_command))
    for family in ("v4", "v6"):
        for server_end in ("rxe", "uroce"):
            for programs, command in kinds:
                for name, words in programs.items():
                    # perftest takes IPv4 addresses alone, unless it is told.
                    if (not everything and name in NEITHER_WAY) or (family == "v6" and name in CM_PERFTEST):
                        continue
                    if everything or (name in IN_V6 if family == "v6" else name not in SLOWLY_NEW):
                        words = (words,) if isinstance(words, list) else words
                        what = command(family, server_end, *words)
                        yield f"{family}-{name}-{server_end}-serves", server_end, what


def kernel_complaints():
    text = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout
    return [line for line in text.splitlines() if re.search(r"rxe|bad ICRC|BUG|WARNING", line) and "loaded" not in line and
            "set active" not in line and "added" not in line]


def check_counters(counters, before, receives=True):
    """What must be zero on an undisturbed wire; the rest of interest as text."""
    after = rxe_counters()
    moved = {name: after[name] - before.get(name, 0) for name in after
             if after[name] != before.get(name, 0) and not name.startswith(("sent_", "rcvd_pkts", "rdma_", "ack_def"))}
    bad = [name for name in ("drop_icrc", "drop_malformed", "fault_corrupt") if counters.get(name)]
    moves = "rx_packets" if receives else "tx_packets"
    if not FIRST and not counters.get(moves):
        bad.append(f"{moves} == 0")
    shown = {name: counters[name] for name in ("retransmits", "timeouts", "naks_sent", "naks_received", "rnr_sent", "drop_icrc",
                                               "drop_malformed") if counters.get(name)}
    if bad:
        raise Failed(f"uroce's counters: {bad} {counters}")
    return f"{'uroce ' + str(shown) if shown else ''} {'rxe ' + str(moved) if moved else ''}"


GROUP = "239.99.0.7"
MESSAGES = 10


def member_of(group, pid):
    """Whether the kernel of that process's network namespace has joined the group: for rdma_rxe, or for uroce's socket."""
    import ipaddress
    with open(f"/proc/{pid}/net/igmp", encoding="ascii") as table:
        return ipaddress.ip_address(group).packed[::-1].hex().upper() in table.read()


def check_multicast(name, receiver_end):
    """mckey at both ends: one joins, the other's datagrams arrive. They are sent until they have, for the program does not tell when its
    queue pair is attached, and what is sent before that is lost. IPv4 alone: the kernel's rdma_cm joins no group of IPv6 for RoCEv2."""
    sender_end = "uroce" if receiver_end == "rxe" else "rxe"

    def command(end, *more):
        return ["mckey", "-m", GROUP, "-b", ADDRESS["v4"][end], "-C", str(MESSAGES), "-S", "512", *more]

    receiver = Program(receiver_end, command(receiver_end), name)
    counters = {}
    try:
        end = time.monotonic() + LIMIT
        while not member_of(GROUP, receiver.process.pid):
            if receiver.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"the receiver ({receiver_end}) does not join:\n{receiver.text()}")
            time.sleep(0.05)
        while receiver.process.poll() is None:
            if time.monotonic() > end:
                raise Failed(f"no datagrams for the receiver ({receiver_end}):\n{receiver.text()}")
            sender = Program(sender_end, command(sender_end, "-s"), name + "-sender")
            if sender.process.wait(LIMIT) != 0:
                raise Failed(f"the sender ({sender_end}):\n{sender.text()}")
            counters = counters or sender.counters()
        if receiver.process.wait() != 0:
            raise Failed(f"the receiver ({receiver_end}):\n{receiver.text()}")
        return receiver.counters() or counters
    finally:
        receiver.stop()


def check_statuses(everything):
    """What rdma_rxe by itself makes of everything that is wrong, compared with the record for this kernel. On a dummy, since a
    device on veth would be another one to what cannot be routed."""
    do("ip", "link", "add", "d0", "type", "dummy")
    do("ip", "addr", "add", "10.77.0.1/24", "dev", "d0")
    do("ip", "link", "set", "d0", "up")
    do("rdma", "link", "add", "rxe1", "type", "rxe", "netdev", "d0")
    # Not patient: what rdma_rxe leaves out never comes, and what it repeats it repeats four times.
    command = [STATUS, "--device", "rxe1", "--gid", "1", "--patience", "3000", "--timeout", "14"]
    done = subprocess.run(command + ([] if everything else ["--brief"]), capture_output=True, text=True, timeout=LIMIT * 4, check=False)
    if done.returncode != 0:
        raise Failed(f"status {done.returncode}\n{done.stdout}{done.stderr}")
    kind = status_table.kind_of_kernel(os.uname().release)
    lines = status_table.differences(kind, done.stdout, complete=False)
    if lines:
        raise Failed("\n".join([f"other statuses than on record ({kind}.txt):", *lines]))
    return f"{len(done.stdout.splitlines())} statuses"


def main():
    global CAPTURE
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--everything", action="store_true", help="also the cases that others cover")
    parser.add_argument("--keep-going-after", type=int, default=8, help="failures after which the run ends")
    parser.add_argument("--capture")
    parser.add_argument("--rmem", type=int, default=8 << 20)
    options = parser.parse_args()
    CAPTURE = options.capture
    os.chmod(ASIDE, 0o755)
    with open("/proc/sys/net/core/rmem_max", "w", encoding="ascii") as file:
        file.write(str(options.rmem))
    set_up()
    failures, passed = [], 0
    for name, server_end, command in cases(options.everything):
        if options.only not in name:
            continue
        before, began = rxe_counters(), time.monotonic()
        try:
            counters = run_pair(name, server_end, command)
            note = check_counters(counters, before)
            passed += 1
            print(f"ok     {name} ({time.monotonic() - began:.1f} s) {note}", flush=True)
        except Failed as error:
            failures.append(name)
            print(f"FAILED {name} ({time.monotonic() - began:.1f} s): {error}", flush=True)
            if len(failures) >= options.keep_going_after:
                print("interop: too many failures, stopped")
                break
    for receiver_end in ("uroce", "rxe"):
        name = f"v4-mckey-{receiver_end}-receives"
        if options.only not in name:
            continue
        before, began = rxe_counters(), time.monotonic()
        try:
            note = check_counters(check_multicast(name, receiver_end), before, receives=receiver_end == "uroce")
            passed += 1
            print(f"ok     {name} ({time.monotonic() - began:.1f} s) {note}", flush=True)
        except Failed as error:
            failures.append(name)
            print(f"FAILED {name} ({time.monotonic() - began:.1f} s): {error}", flush=True)
    if options.only in "statuses":
        began = time.monotonic()
        try:
            note = check_statuses(options.everything)
            passed += 1
            print(f"ok     statuses ({time.monotonic() - began:.1f} s) {note}", flush=True)
        except Failed as error:
            failures.append("statuses")
            print(f"FAILED statuses ({time.monotonic() - began:.1f} s): {error}", flush=True)
    for line in kernel_complaints()[-10:]:
        print(f"kernel: {line}")
    print(f"interop: {passed} passed, {len(failures)} failed {' '.join(failures)}")
    return 1 if failures or not passed else 0


CAPTURE = None
sys.exit(main())
