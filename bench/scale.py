#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A server with many clients, on uroce: how fast they come, how it serves them, what they cost; pool and thread per client.

usage: scale.py BUILD [--rounds N] [--quick] [--json]
Each pair is measured in turn within a round; shown are the median of the rounds' ratios and min..max. --quick leaves out the
10,000 clients. Needs about 1 GiB of memory and 20,000 descriptors (ulimit -n).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--json", action="store_true")
options = parser.parse_args()
os.environ.update(SECURDMA_BUILD=str(options.build), SECURDMA_TEST_UROCE="1", SECURDMA_TEST_SCALE="10")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/integration"))
import conftest  # noqa: E402
from conftest import Server, find_device  # noqa: E402
from test_server import SMALL, Swarm, rss  # noqa: E402

report = []


def say(text, **facts):
    report.append({"text": text, **facts})
    if not options.json:
        print(text, flush=True)


def switches(server):
    """Context switches of all its threads so far."""
    total = 0
    for task in os.listdir(f"/proc/{server.pid}/task"):
        with open(f"/proc/{server.pid}/task/{task}/status", encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return total


class Bench:
    def __init__(self, certs, device):
        self.certs, self.device = certs, device

    def run(self, clients, busy, seconds, workers="auto", threads=10, processes=1):
        """One server, its clients in equal parts in so many processes; what came of it."""
        server = Server(self.certs, self.device, *SMALL, "--max-clients", str(clients * processes), "--workers", workers,
                        "--max-pending", "1024", "--setup-timeout-ms", "60000")
        swarms = []
        try:
            empty = rss(server)
            swarms = [Swarm(self.certs, server.port, clients, busy, seconds, threads) for _ in range(processes)]
            connected = [swarm.connected(60) for swarm in swarms]
            memory, before = rss(server) - empty, switches(server)
            for swarm in swarms:
                swarm.send_line("")
            for swarm in swarms:
                assert swarm.wait(60) == 0, swarm.log()
            answers = [json.loads(swarm.lines[1]) for swarm in swarms]
            result = {"seconds": max(c["seconds"] for c in connected), "setup_p99_us": max(c["setup_p99_us"] for c in connected),
                      "setup_p50_us": statistics.median(c["setup_p50_us"] for c in connected),
                      "kib_per_client": memory / clients / processes, "switches": switches(server) - before,
                      "messages": sum(a["messages"] for a in answers),
                      "rate": sum(a["messages_per_second"] for a in answers),
                      "p50_us": statistics.median(a["latency_p50_us"] for a in answers),
                      "p99_us": max(a["latency_p99_us"] for a in answers),
                      "slowest": min(a["slowest"] for a in answers), "median": statistics.median(a["median"] for a in answers)}
            server.stop()
            return result
        finally:
            for process in (*swarms, server):
                process.close()

    def bare_tls(self, count):
        result = subprocess.run([options.build / "bench" / "tls_rate", self.certs.cert("ca"), self.certs.cert("server"),
                                 self.certs.key("server"), self.certs.cert("client"), self.certs.key("client"), str(count), "16"],
                                capture_output=True, text=True, check=True, timeout=120)
        return float(result.stdout)


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def set_up_rate(bench):
    ratios, rates = [], []
    for _ in range(options.rounds):
        bare = bench.bare_tls(1000)
        ours = 1000 / bench.run(1000, 0, 0, threads=16)["seconds"]
        ratios.append(ours / bare)
        rates.append((ours, bare))
    ours, bare = (statistics.median(column) for column in zip(*rates))
    say(f"set-ups a second, 1,000 clients: {spread(ratios)} times bare OpenSSL mutual TLS 1.3 handshakes ({ours:.0f} to {bare:.0f}); aim at "
        f"least 0.7: {'met' if statistics.median(ratios) >= 0.7 else 'MISSED'}", ratios=ratios)


def arrival(bench):
    result = bench.run(250, 0, 0, threads=250, processes=4)
    say(f"1,000 clients that arrive at once: the set-up takes {result['setup_p50_us'] / 1000:.0f} ms (p50), {result['setup_p99_us'] / 1000:.0f} ms "
        f"(p99); all are in after {result['seconds']:.2f} s", **result)


def latency(bench):
    ratios, values = [], []
    for _ in range(options.rounds):
        few = bench.run(10, 10, 3)
        many = bench.run(1000, 100, 3)
        ratios.append(many["p99_us"] / few["p99_us"])
        values.append((few["p99_us"], many["p99_us"], few["p50_us"], many["p50_us"]))
    few, many, few50, many50 = (statistics.median(column) for column in zip(*values))
    say(f"latency p99, ten messages in flight: 1,000 clients, 100 of them busy: {spread(ratios)} times that of 10 clients ({many:.0f} to {few:.0f} us; "
        f"p50 {many50:.0f} to {few50:.0f} us); aim at most 2: {'met' if statistics.median(ratios) <= 2 else 'MISSED'}", ratios=ratios)


def fairness(bench):
    result = bench.run(1000, 1000, 10, threads=16)
    ratio = result["slowest"] / result["median"]
    say(f"fairness, 1,000 clients all busy: the slowest has {ratio:.2f} of the median's messages; aim at least 0.5: "
        f"{'met' if ratio >= 0.5 else 'MISSED'}", **result)


def modes(bench):
    say("| clients | workers | messages/s | p99 us | KiB a client | context switches a message |")
    say("|---:|---|---:|---:|---:|---:|")
    for clients in (10, 100, 1000):
        for workers in ("auto", "per-client"):
            runs = [bench.run(clients, clients, 3, workers, threads=16) for _ in range(min(3, options.rounds))]
            middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            say(f"| {clients} | {workers} | {middle['rate']:.0f} | {middle['p99_us']:.0f} | {middle['kib_per_client']:.0f} | "
                f"{middle['switches'] / max(1, middle['messages']):.2f} |", **middle)


def ten_thousand(bench):
    result = bench.run(2500, 2500, 10, threads=16, processes=4)
    say(f"10,000 clients in one server: all connected in {result['seconds']:.0f} s, every one echoed verified messages "
        f"({result['messages']} in 10 s); {result['kib_per_client']:.0f} KiB a client, of these 10 its rings and 4 its region; aim under 64 beyond "
        f"the ring: {'met' if result['kib_per_client'] - 10 < 64 else 'MISSED'}", **result)


def main():
    device = find_device()
    with tempfile.TemporaryDirectory(prefix="securdma-bench.") as folder:
        bench = Bench(conftest.Certificates(folder, device.ipv4, [device.ipv4]), device)
        for part in (set_up_rate, arrival, latency, fairness, modes, *(() if options.quick else (ten_thousand,))):
            part(bench)
    if options.json:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
