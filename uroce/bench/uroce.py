#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How fast uroce is, as ratios to what the same machine does without it, measured in turn in one run.

usage: uroce.py BUILD [--rounds N] [--only WORD] [--vm | --no-vm] [--json]
  --vm      only the comparison with rdma_rxe, in the VM rig (minutes: the machine is emulated)
  --no-vm   without it
A round measures each side one after the other, so that a machine that drifts drifts for both. Shown is the median of
the rounds' ratios, and min..max. RXE_VM: the VM rig's run script. Needs perftest and iperf3.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 120
# A round that fails says more than one that is missing: the bench ends.
TOOLS = "/usr/bin:/usr/sbin:/bin:/sbin"


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def listening(port, pid):
    """In the network namespace of a process."""
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                if any(re.search(rf":{port:04X} \S+ 0A ", line) for line in file):
                    return True
        except OSError:
            pass
    return False


def pair(server_command, client_command, port):
    """Runs both; the client's output."""
    environment = {**os.environ, "PATH": TOOLS}
    server = subprocess.Popen(server_command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
                              start_new_session=True)
    try:
        end = time.monotonic() + 30
        while not listening(port, server.pid):
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"bench: does not listen: {' '.join(server_command)}")
            time.sleep(0.01)
        result = subprocess.run(client_command, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment)
        server.wait(20)
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"bench: {' '.join(client_command)}: {error}") from None
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    if result.returncode != 0:
        raise SystemExit(f"bench: {' '.join(client_command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


class Bench:
    def __init__(self, build, rounds):
        self.build, self.rounds = build, rounds
        self.inside = []
        self.by_udp = False

    def perftest(self, program, *options, device="uroce0", gid="0", host="127.0.0.1"):
        port = free_port()
        command = [program, "-F", "-d", device, "-x", gid, "-p", str(port), *options]
        if device == "uroce0":
            command = [*self.inside, str(self.build / "cli" / "uroce"), *(["--wire"] if self.by_udp else []), *command]
        text = pair(command, [*command, host], port)
        for line in text.splitlines():
            if re.match(r"^\s*\d+\s+\d+\s+[\d.]+", line):
                return [float(word) for word in line.split()]
        raise SystemExit(f"bench: no result of {program}:\n{text}")

    def write_bandwidth(self, size, **more):
        """MB/s (10^6); enough iterations for about a second."""
        iterations = more.pop("iterations", 2 * 10**9 // size)
        return self.perftest("ib_write_bw", "-s", str(size), "-m", "4096", "-n", str(iterations), **more)[3] * 1.048576

    def send_latency(self, iterations=20000, **more):
        """Microseconds: half of the typical round trip."""
        return self.perftest("ib_send_lat", "-s", "64", "-n", str(iterations), **more)[4]

    def write_latency(self):
        """The same for a WRITE of 8 bytes, whose target watches its memory."""
        return self.perftest("ib_write_lat", "-s", "8", "-n", "5000")[4]

    def read_latency(self, period):
        """Microseconds: the median of READs of 8 bytes from a target that looks into its queue every so many microseconds."""
        result = subprocess.run([self.build / "cli" / "uroce", "--", self.build / "bench" / "one_sided", str(period), "500"],
                                capture_output=True, text=True, timeout=LIMIT, check=True)
        return json.loads(result.stdout)["median_us"]

    def threads(self, count, pollers=0):
        """Verified messages a second of threads that make, use and destroy queue pairs, beside others that poll empty queues."""
        result = subprocess.run([self.build / "cli" / "uroce", self.build / "bench" / "many_threads", str(count), "1", str(pollers)],
                                capture_output=True, text=True, timeout=LIMIT, check=True)
        return json.loads(result.stdout)["messages_s"]

    def message_rate(self):
        """Million messages a second."""
        return self.perftest("ib_send_bw", "-s", "64", "-t", "128", "-r", "512", "-n", "500000", "-N")[4]

    def in_turn(self, program, size, iterations, *options):
        """MB/s (10^6) of requests one at a time."""
        return self.perftest(program, "-s", str(size), "-m", "4096", "-t", "1", "-n", str(iterations), *options)[3] * 1.048576

    def host_copy(self, size):
        """What one copy from another process's memory reaches: MB/s (10^6)."""
        result = subprocess.run([self.build / "bench" / "host_copy", str(size)], capture_output=True, text=True, timeout=LIMIT, check=True)
        return json.loads(result.stdout)["copy_MB_s"]

    def ucx(self, transports, test, size, iterations):
        """The overall average of ucx_perftest: microseconds, and MB/s (2^20)."""
        port = free_port()
        command = ["env", f"UCX_TLS={transports}", "UCX_WARN_UNUSED_ENV_VARS=n", "ucx_perftest", "-p", str(port), "-t", test,
                   "-s", str(size), "-n", str(iterations), "-f"]
        if "verbs" in transports:
            command = [str(self.build / "cli" / "uroce"), *command]
        text = pair(command, [*command, "127.0.0.1"], port)
        fields = [line.split() for line in text.splitlines() if re.match(r"^\s*\d+(\s+[\d.]+){7}\s*$", line)]
        if not fields:
            raise SystemExit(f"bench: no result of ucx_perftest:\n{text}")
        return float(fields[-1][3]), float(fields[-1][5])

    def iperf(self):
        port = free_port()
        text = pair(["iperf3", "-s", "-1", "-p", str(port)], ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "2", "-J"], port)
        return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 8e6

    def udp_latency(self):
        result = subprocess.run([self.build / "bench" / "udp_pingpong", "64", "20000"], capture_output=True, text=True,
                                timeout=LIMIT, check=True)
        return float(result.stdout.split()[0])

    def queue_pairs(self, depth):
        result = subprocess.run([self.build / "cli" / "uroce", self.build / "bench" / "many_qps", "uroce0", "10000", str(depth)],
                                capture_output=True, text=True, timeout=300, check=False)
        if result.returncode != 0:
            raise SystemExit(f"bench: many_qps failed:\n{result.stderr}")
        return json.loads(result.stdout)


def row(name, unit, ours, theirs, base, aim, at_most=False):
    """`theirs`: one value a round too, or None when the aim is for the value itself."""
    ratios = [a / b for a, b in zip(ours, theirs)] if theirs else ours
    middle = statistics.median(ratios)
    return {"name": name, "unit": unit, "uroce": ours, "base": base, "base_values": theirs, "ratio": middle,
            "min": min(ratios), "max": max(ratios), "aim": aim, "at_most": at_most,
            "met": middle <= aim if at_most else middle >= aim}


def show(entry):
    verdict = "met" if entry["met"] else "MISSED"
    aim = f"{'at most' if entry['at_most'] else 'at least'} {entry['aim']:g}"
    spread = f"{entry['min']:.2f}..{entry['max']:.2f}"
    if entry["base_values"]:
        print(f"{entry['name']}: {entry['ratio']:.2f} times {entry['base']} ({spread}); aim {aim}: {verdict}")
        print(f"    uroce {statistics.median(entry['uroce']):.4g} {entry['unit']} ({min(entry['uroce']):.4g}..{max(entry['uroce']):.4g}), "
              f"{entry['base']} {statistics.median(entry['base_values']):.4g} "
              f"({min(entry['base_values']):.4g}..{max(entry['base_values']):.4g})", flush=True)
    else:
        print(f"{entry['name']}: {entry['ratio']:.4g} {entry['unit']} ({spread}); aim {aim}: {verdict}", flush=True)


def against_tcp(bench):
    sizes = {"64 KiB": 1 << 16, "1 MiB": 1 << 20}
    ours, tcp = {name: [] for name in sizes}, []
    bench.by_udp = True
    for _ in range(bench.rounds):
        for name, size in sizes.items():
            ours[name].append(bench.write_bandwidth(size))
        tcp.append(bench.iperf())
    bench.by_udp = False
    for name in sizes:
        yield row(f"by UDP: ib_write_bw {name}, MTU 4096", "MB/s", ours[name], tcp, "one TCP stream (iperf3)", 1)
    for name in sizes:
        yield row(f"by UDP: ib_write_bw {name}, against the machine's raw limit", "MB/s", ours[name], None, "", 2600)


def against_udp(bench):
    ours, bare = [], []
    bench.by_udp = True
    for _ in range(bench.rounds):
        ours.append(bench.send_latency())
        bare.append(bench.udp_latency())
    bench.by_udp = False
    yield row("by UDP: ib_send_lat 64 B, polling", "us", ours, bare, "a bare UDP ping-pong", 1.5, at_most=True)


def within_host(bench):
    """Shared memory between processes of one host, against what the machine allows without a network."""
    sizes = {"64 KiB": 1 << 16, "1 MiB": 1 << 20}
    write, copy = {name: [] for name in sizes}, {name: [] for name in sizes}
    read, one_write, one_read, latency, bare = [], [], [], [], []
    for _ in range(bench.rounds):
        for name, size in sizes.items():
            write[name].append(bench.write_bandwidth(size, iterations=2 * 10**10 // size))
            copy[name].append(bench.host_copy(size))
        read.append(bench.perftest("ib_read_bw", "-s", str(1 << 20), "-m", "4096", "-n", "10000")[3] * 1.048576)
        one_write.append(bench.in_turn("ib_write_bw", 1 << 16, 20000))
        one_read.append(bench.in_turn("ib_read_bw", 1 << 16, 20000))
        latency.append(bench.send_latency(200000))
        bare.append(bench.udp_latency())
    yield row("ib_send_lat 64 B, polling", "us", latency, bare, "a bare UDP ping-pong", 0.4, at_most=True)
    for name in sizes:
        yield row(f"ib_write_bw {name}", "MB/s", write[name], copy[name], "one process_vm_readv a transfer", 0.8)
    yield row("ib_read_bw 1 MiB", "MB/s", read, write["1 MiB"], "ib_write_bw", 0.9)
    yield row("READs of 64 KiB, one at a time", "MB/s", one_read, one_write, "WRITEs, one at a time", 0.8)


def beside_ucx(bench):
    """UCX over uroce, and UCX without it."""
    if not shutil.which("ucx_perftest", path=TOOLS):
        print("(no ucx_perftest: install ucx-utils for the comparison with UCX)", flush=True)
        return
    latency, posix, ud, rc, tcp = [], [], [], [], []
    for _ in range(bench.rounds):
        latency.append(bench.send_latency(200000))
        posix.append(bench.ucx("posix", "tag_lat", 64, 200000)[0])
        ud.append(bench.ucx("ud_verbs,self", "tag_bw", 1 << 20, 2000)[1])
        rc.append(bench.ucx("rc_verbs,ud_verbs:aux,self", "tag_bw", 1 << 20, 2000)[1])
        tcp.append(bench.ucx("tcp,self", "tag_bw", 1 << 20, 2000)[1])
    yield row("ib_send_lat 64 B, polling", "us", latency, posix, "UCX's shared memory (tag_lat, posix)", 1.5, at_most=True)
    yield row("UCX over ud_verbs, 1 MiB", "MB/s", ud, tcp, "UCX over TCP", 0.8)
    yield row("UCX over rc_verbs, 1 MiB", "MB/s", rc, tcp, "UCX over TCP", 1.5)


def one_sided(bench):
    """Access to a target's memory must not wait for the target's program."""
    periods = {"that only polls": 0, "that polls every 10 us": 10, "that polls every 100 us": 100, "that polls every 1 ms": 1000,
               "that polls every 10 ms": 10000, "that never polls": -1}
    write, send, reads = [], [], {name: [] for name in periods}
    for _ in range(bench.rounds):
        write.append(bench.write_latency())
        send.append(bench.send_latency())
        for name, period in periods.items():
            reads[name].append(bench.read_latency(period))
    yield row("ib_write_lat 8 B, polling", "us", write, send, "ib_send_lat", 1.2, at_most=True)
    for name, values in reads.items():
        yield row(f"READ of 8 B from a target {name}", "us", values, None, "", 50, at_most=True)


def threads(bench):
    counts = (1, 4, 16, 64, 256)
    rates = {count: [] for count in counts}
    crowded = []
    for _ in range(bench.rounds):
        for count in counts:
            rates[count].append(bench.threads(count) / 1000)
        crowded.append(bench.threads(128, 128) / 1000)
    for count in counts[1:]:
        yield row(f"{count} threads make, use and destroy queue pairs", "thousand messages/s", rates[count], rates[1], "one thread", 0.5)
    yield row("128 threads beside 128 that poll empty queues", "thousand messages/s", crowded, rates[1], "one thread", 0.25)


def message_rate(bench):
    yield row("message rate, ib_send_bw 64 B, depth 128", "M/s", [bench.message_rate() for _ in range(bench.rounds)], None, "", 1)


def memory(bench):
    shallow, deep = bench.queue_pairs(1), bench.queue_pairs(33)
    entry = (deep["bytes_per_qp"] - shallow["bytes_per_qp"]) / 32
    beyond = shallow["bytes_per_qp"] - entry
    yield row(f"memory of each of {shallow['qps']} connected queue pairs, beyond its queues ({shallow['verified']} messages verified; "
              f"with queues of one entry: {shallow['bytes_per_qp']:.0f})", "bytes", [beyond], None, "", 4096, at_most=True)


def against_rxe(bench):
    """In the guest. Each on the loopback of its kind; uroce in a network namespace, because rdma_rxe has port 4791 in the first."""
    for words in (["netns", "add", "uroce"], ["-n", "uroce", "link", "set", "lo", "up"]):
        subprocess.run(["ip", *words], check=True)
    bench.inside = ["ip", "netns", "exec", "uroce"]
    ours, theirs, our_latency, their_latency = [], [], [], []
    rxe = {"device": "rxe0", "gid": "1", "host": "10.77.0.1"}
    for _ in range(bench.rounds):
        ours.append(bench.write_bandwidth(65536, iterations=1000))
        theirs.append(bench.write_bandwidth(65536, iterations=1000, **rxe))
        our_latency.append(bench.send_latency(2000))
        their_latency.append(bench.send_latency(2000, **rxe))
    yield row("in the VM: ib_write_bw 64 KiB, MTU 4096", "MB/s", ours, theirs, "rdma_rxe", 1)
    yield row("in the VM: ib_send_lat 64 B", "us", our_latency, their_latency, "rdma_rxe", 1, at_most=True)


PARTS = {"host": within_host, "ucx": beside_ucx, "tcp": against_tcp, "udp": against_udp, "rate": message_rate, "one-sided": one_sided, "threads": threads, "memory": memory}


def in_vm(options):
    rig = os.environ.get("RXE_VM", HERE.parent.parent / "tests" / "rxe-vm" / "run")
    result = subprocess.run([rig, "--mtu", "5000", "--timeout", "900", "/usr/bin/python3", HERE / "uroce.py", options.build, "--guest",
                             "--json", "--rounds", str(options.rounds)], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit("bench: the part in the VM failed")
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--vm", action="store_true")
    parser.add_argument("--no-vm", action="store_true")
    parser.add_argument("--guest", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["PATH"] = TOOLS
    bench = Bench(options.build, options.rounds)
    report = []

    def add(entries):
        for entry in entries:
            report.append(entry)
            if not options.json:
                show(entry)

    if options.guest:
        add(against_rxe(bench))
    else:
        if not options.vm:
            for name, part in PARTS.items():
                if options.only in name:
                    add(part(bench))
        if not options.no_vm and (options.vm or options.only in "rxe"):
            add(in_vm(options))
    if options.json:
        print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
