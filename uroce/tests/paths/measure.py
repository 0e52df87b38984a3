#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""uroce and one TCP stream (CUBIC) over the same narrow links, one after the other and beside each other. Needs root, iperf3 and
perftest. UROCE_BUILD: the build folder of uroce. UROCE_RELAY: a relay that makes all links. Options: --seconds N, --rounds N, --go-back
(as uroce does with that option), and words that a row's name must contain."""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

BUILD = os.environ.get("UROCE_BUILD", "build/uroce")
RELAY = os.environ.get("UROCE_RELAY", f"{BUILD}/tests/paths/relay")
SPACE = [f"uroce-path-{os.getpid()}-{end}" for end in "ab"]
ROUTER = f"uroce-path-{os.getpid()}-between"
ADDRESS = ["10.91.7.1", "10.91.7.2"]
ROUTER_ADDRESS = "10.91.7.3"
LEAST_OF_EIGHT = 4  # seconds: perftest leaves out the first and the last one, and processes do not start at the same time
LEAST_BESIDE = 6    # seconds: CUBIC takes some to find its share
MARGIN_BESIDE = 2   # seconds at both ends, which are not counted: the other has begun, and has not ended
MIB = 1 << 20
repair = []
PROGRAMS = {"write": "ib_write_bw", "read": "ib_read_bw", "send": "ib_send_bw"}
# Links: name, MTU, options of the relay (the delay is one way).
ROWS = [
    ("1 Gbit/s, queue 250 KB", 1500, "mbit=1000 queue=250000"),
    ("1 Gbit/s, queue 60 KB", 1500, "mbit=1000 queue=60000"),
    ("200 Mbit/s, queue 250 KB", 1500, "mbit=200 queue=250000"),
    ("200 Mbit/s, queue 60 KB", 1500, "mbit=200 queue=60000"),
    ("MTU 9000, 500 Mbit/s", 9000, "mbit=500 queue=250000"),
    ("round trip 10 ms, 500 Mbit/s", 1500, "mbit=500 queue=250000 delay_us=5000"),
    ("round trip 20 ms, 500 Mbit/s", 1500, "mbit=500 queue=250000 delay_us=10000"),
    ("round trip 50 ms, 200 Mbit/s", 1500, "mbit=200 queue=250000 delay_us=25000"),
    ("loss 0.1 %, round trip 10 ms", 1500, "mbit=500 queue=250000 delay_us=5000 loss=0.1"),
    ("loss 1 %, round trip 10 ms", 1500, "mbit=500 queue=250000 delay_us=5000 loss=1"),
    ("1 % of packets 0.3 ms late", 1500, "mbit=500 queue=250000 late=1 late_us=300"),
]


def ip(*words):
    subprocess.run(["ip", *words], check=True, timeout=20)


def inside(end, *command):
    return ["ip", "netns", "exec", SPACE[end], *command]


class NoResult(RuntimeError):
    """A program did not say how fast it was."""


def made_by_the_kernel():
    """Whether it has the queue of a link with a rate (tbf): tried in a namespace that is gone then."""
    script = "ip link set lo up && tc qdisc add dev lo root tbf rate 1gbit burst 10kb limit 100kb"
    return subprocess.run(["unshare", "-n", "sh", "-c", script], stderr=subprocess.DEVNULL, check=False, timeout=20).returncode == 0


class Link:
    """A relay, or a pair of interfaces with a queue of the kernel's where that does all that is asked for: it needs no program of its
    own, which would share the processors with both ends."""

    def __init__(self, mtu, options):
        self.mtu, self.options = mtu, options.split()
        values = dict(option.split("=") for option in self.options)
        self.relay = None
        self.tbf = values if set(values) == {"mbit", "queue"} and not os.environ.get("UROCE_RELAY") and made_by_the_kernel() else None

    def make_relay(self):
        self.relay = subprocess.Popen([RELAY, *SPACE, *self.options], stdout=subprocess.PIPE, text=True)
        if self.relay.stdout.readline() != "ready\n":
            raise RuntimeError("the relay did not start")

    def make_pair(self):
        """Through a third namespace, which forwards: a TCP stream sends less when what it has sent waits in a queue of its own host (TCP
        small queues), and would leave that queue to uroce."""
        ip("netns", "add", ROUTER)
        for end in (0, 1):
            port = f"path{end}"
            ip("-n", SPACE[end], "link", "add", "path", "type", "veth", "peer", "name", port, "netns", ROUTER)
            subprocess.run(["tc", "-n", ROUTER, "qdisc", "add", "dev", port, "root", "tbf", "rate", self.tbf["mbit"] + "mbit",
                            "burst", str(max(2 * self.mtu, 4000)), "limit", self.tbf["queue"]], check=True, timeout=20)
            subprocess.run(["ip", "netns", "exec", ROUTER, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1", f"net.ipv4.conf.{port}.proxy_arp=1",
                            f"net.ipv4.neigh.{port}.proxy_delay=0"], check=True, timeout=20)
            ip("-n", ROUTER, "address", "add", ROUTER_ADDRESS, "peer", ADDRESS[end], "dev", port)
            ip("-n", ROUTER, "link", "set", port, "mtu", str(self.mtu), "txqueuelen", "5000", "up")

    def __enter__(self):
        for end in (0, 1):
            ip("netns", "add", SPACE[end])
            ip("-n", SPACE[end], "link", "set", "lo", "up")
        if self.tbf:
            self.make_pair()
        else:
            self.make_relay()
        for end in (0, 1):
            ip("-n", SPACE[end], "address", "add", ADDRESS[end], "peer", ADDRESS[1 - end], "dev", "path")
            ip("-n", SPACE[end], "link", "set", "path", "mtu", str(self.mtu), "txqueuelen", "5000", "up")
        return self

    def __exit__(self, *_):
        self.told = "" if self.relay else self.kernel_tells()
        if self.relay:
            self.relay.terminate()
            self.told, _ = self.relay.communicate(timeout=20)
        for space in SPACE if self.relay else [*SPACE, ROUTER]:
            subprocess.run(["ip", "netns", "delete", space], check=False, timeout=20)

    def kernel_tells(self):
        told = [subprocess.run(["tc", "-s", "-n", ROUTER, "qdisc", "show", "dev", f"path{end}"], stdout=subprocess.PIPE, text=True, check=True,
                               timeout=20).stdout for end in (0, 1)]
        return "".join("carried={} dropped={}\n".format(*re.search(r"(\d+) pkt \(dropped (\d+)", text).groups()) for text in told)

    def lost(self):
        """Part of the packets that the queue dropped, where it dropped most."""
        counts = [tuple(map(int, re.findall(r"(?:carried|dropped)=(\d+)", line))) for line in self.told.splitlines()]
        return max(dropped / max(1, carried + dropped) for carried, dropped in counts)


def start_tcp(seconds):
    server = subprocess.Popen(inside(1, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    client = subprocess.Popen(inside(0, "iperf3", "-c", ADDRESS[1], "-C", "cubic", "-t", str(seconds), "-O", "1", "-J"),
                              stdout=subprocess.PIPE, text=True)
    return server, client


def end_tcp(pair, seconds):
    server, client = pair
    out, _ = client.communicate(timeout=seconds + 30)
    server.wait(timeout=30)
    return json.loads(out)["end"]["sum_received"]["bits_per_second"] / 1e6


# A READ's data flows from the server to the client, so that the ends change places: all data goes the same way.
def start_end(kind, seconds, mtu, port, client, margin):
    client_end = 1 if kind == "read" else 0
    end = client_end if client else 1 - client_end
    command = [f"{BUILD}/cli/uroce", *repair, "--addr", ADDRESS[end], PROGRAMS[kind], "-d", "uroce0", "-x", "0", "-F", "-s", "65536",
               "-D", str(seconds), "-f", str(margin), "-p", str(port), "-m", "4096" if mtu >= 9000 else "1024"]
    if client:
        command.append(ADDRESS[1 - end])
    return subprocess.Popen(inside(end, *command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_uroce(kind, seconds, mtu, ports=(18515,), margin=1):
    """A server and a client for each port. The clients start together. `margin`: seconds at both ends that do not count."""
    servers = [start_end(kind, seconds, mtu, port, False, margin) for port in ports]
    time.sleep(0.7 * len(ports) ** 0.5)
    return list(zip(servers, [start_end(kind, seconds, mtu, port, True, margin) for port in ports]))


def end_uroce(processes, seconds):
    """Its rate, in Mbit/s."""
    server, client = processes
    out = ""
    try:
        out, _ = client.communicate(timeout=seconds + 40)
        server.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
            process.communicate()
    found = re.findall(r"^\s*65536\s+\d+\s+[\d.]+\s+([\d.]+)", out, re.M)
    if not found:
        print(out[-600:], file=sys.stderr)
        raise NoResult(f"no result of: {' '.join(client.args)}")
    return float(found[-1]) * MIB * 8 / 1e6


def alone(row, seconds):
    _, mtu, options = row
    result = {}
    with Link(mtu, options):
        result["tcp"] = end_tcp(start_tcp(seconds), seconds)
    for kind in PROGRAMS:
        with Link(mtu, options) as link:
            result[kind] = end_uroce(*start_uroce(kind, seconds + 2, mtu), seconds + 2)
        result[kind + " lost"] = link.lost()
    return result


def beside(kind, row, seconds):
    """uroce's rate over that of the TCP stream beside it. Each counts only while the other sends as well."""
    _, mtu, options = row
    counted = max(seconds, LEAST_BESIDE)
    with Link(mtu, options):
        uroce, = start_uroce(kind, counted + 2 * MARGIN_BESIDE, mtu, margin=MARGIN_BESIDE)
        # It begins half a second later, leaves out its own first second, and ends in uroce's margin.
        stream = end_tcp(start_tcp(counted + MARGIN_BESIDE), counted)
        return end_uroce(uroce, counted) / max(stream, 0.1)


def eight(kind, row, seconds):
    _, mtu, options = row
    with Link(mtu, options):
        pairs = start_uroce(kind, LEAST_OF_EIGHT + seconds, mtu, range(18600, 18608))
        rates = [end_uroce(pair, LEAST_OF_EIGHT + seconds) for pair in pairs]
    mean = sum(rates) / len(rates)
    return [rate / max(mean, 0.1) for rate in rates]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shares", action="store_true", help="fairness alone")
    parser.add_argument("--go-back", action="store_true")
    parser.add_argument("word", nargs="*")
    options = parser.parse_args()
    if options.go_back:
        repair.append("--go-back")
    rows = [row for row in ROWS if all(word in row[0] for word in options.word)]
    print(f"{'link':34} {'TCP Mbit/s':>10} {'write':>6} {'read':>6} {'send':>6}   dropped by the queue, %")
    for row in [] if options.shares else rows:
        rounds = [alone(row, options.seconds) for _ in range(options.rounds)]
        median = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        ratios = " ".join(f"{median[kind] / max(median['tcp'], 0.1):6.2f}" for kind in PROGRAMS)
        lost = " ".join(f"{100 * median[kind + ' lost']:5.2f}" for kind in PROGRAMS)
        print(f"{row[0]:34} {median['tcp']:10.0f} {ratios}   {lost}", flush=True)
    print("beside one TCP stream: uroce's rate over the stream's")
    for row in rows[:4] if not options.word else rows:
        ratios = " ".join(f"{beside(kind, row, options.seconds):6.2f}" for kind in PROGRAMS)
        print(f"{row[0]:34} {'':10} {ratios}", flush=True)
    print("eight pairs: each one's part of the mean")
    for kind in PROGRAMS:
        print(f"{kind:34} " + " ".join(f"{part:.2f}" for part in sorted(eight(kind, ROWS[2], options.seconds))), flush=True)


if __name__ == "__main__":
    main()
