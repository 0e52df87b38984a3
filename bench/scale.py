#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A server with many clients, on uroce: how fast they come, how it serves them, what they cost; pool and thread per client.

usage: scale.py BUILD [--older BUILD] [--rounds N] [--quick] [--only PART] [--json | --markdown]
Each pair is measured in turn within a round; shown are the median of the rounds' ratios and min..max. --older: another build, whose
latency with many clients is measured beside this one's. --quick leaves out the 10,000 clients. --only: set_up, set_up_rate, arrival,
latency, fairness, modes, ten_thousand. Needs about 1 GiB of memory and 20,000 descriptors (ulimit -n).
"""
import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "uroce/bench"))
import rows  # noqa: E402
from peers import answer, output  # noqa: E402
from rows import Row, in_turn  # noqa: E402

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--older", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--quick", action="store_true")
parser.add_argument("--only", default="")
parser.add_argument("--one", type=lambda text: list(map(int, text.split(","))), help=argparse.SUPPRESS)
rows.add_options(parser)
options = parser.parse_args()
os.environ.update(SECURDMA_BUILD=str(options.build), SECURDMA_TEST_UROCE="1", SECURDMA_TEST_SCALE="10")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/integration"))
import conftest  # noqa: E402
from conftest import Server, find_device  # noqa: E402
from test_server import SMALL, Swarm, rss  # noqa: E402

report = rows.Report(options)


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
        """Handshakes a second."""
        return float(output(options.build / "bench" / "tls_rate", self.certs.cert("ca"), self.certs.cert("server"), self.certs.key("server"),
                            self.certs.cert("client"), self.certs.key("client"), count, 16))


def set_up(_):
    """One after the other; the bare handshakes take turns with them in one process."""
    seen = in_turn(options.rounds, {"set-up": lambda: answer(conftest.UROCE, conftest.SECURDMA, "bench", "--json", "--only", "setup",
                                                             "--connections", 200)["setup"]})["set-up"]
    report.add(Row("set-up, mTLS, p50", "us", [run["total"]["p50_us"] for run in seen], "a bare TLS handshake by OpenSSL",
                   [run["bare_total"]["p50_us"] for run in seen], most=1.1))


def set_up_rate(bench):
    seen = in_turn(options.rounds, {"bare": lambda: bench.bare_tls(1000), "ours": lambda: 1000 / bench.run(1000, 0, 0, threads=16)["seconds"]})
    report.add(Row("set-ups a second, 1,000 clients", "/s", seen["ours"], "bare OpenSSL mutual TLS 1.3 handshakes", seen["bare"], least=0.7))


def arrival(bench):
    result = bench.run(250, 0, 0, threads=250, processes=4)
    for part in ("p50", "p99"):
        report.add(Row(f"1,000 clients that arrive at once: set-up, {part}", "ms", [result[f"setup_{part}_us"] / 1000],
                       after=f"all are in after {result['seconds']:.2f} s"))


def older_run(*load):
    """The same measurement of the older build, by this script: the tests' rig takes its build folder from the environment."""
    if not options.older:
        raise rows.Missing("there is no build of the older commit (--older)")
    return answer("/usr/bin/python3", __file__, options.older, "--one", ",".join(map(str, load)), limit=300)


def latency(bench):
    seen = in_turn(options.rounds, {"few": lambda: bench.run(10, 10, 3), "many": lambda: bench.run(1000, 100, 3),
                                    "older": lambda: older_run(1000, 100, 3)})
    few, many, older = ([run["p99_us"] for run in runs] if isinstance(runs, list) else runs for runs in seen.values())
    figure = "latency p99 of 64 B, 1,000 clients, 100 of them busy"
    p50 = f"p50 {statistics.median(run['p50_us'] for run in seen['many']):.0f} us"
    report.add(Row(figure, "us", many, rows.commit_of(options.older), older, most=0.5, after=p50),
               Row(figure, "us", many, "10 clients, all busy", few, most=2, after="ten messages in flight"))


def fairness(bench):
    result = bench.run(1000, 1000, 10, threads=16)
    report.add(Row("1,000 clients all busy: messages of the slowest", "", [result["slowest"]], "the median", [result["median"]], least=0.5),
               Row("memory of each of 1,000 clients, small rings", "KiB", [result["kib_per_client"]]))


def modes(bench):
    report.say("| clients | workers | messages/s | p99 us | KiB a client | context switches a message |")
    report.say("|---:|---|---:|---:|---:|---:|")
    for clients in (10, 100, 1000):
        for workers in ("auto", "per-client"):
            runs = [bench.run(clients, clients, 3, workers, threads=16) for _ in range(min(3, options.rounds))]
            middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            report.say(f"| {clients} | {workers} | {middle['rate']:.0f} | {middle['p99_us']:.0f} | {middle['kib_per_client']:.0f} | "
                       f"{middle['switches'] / max(1, middle['messages']):.2f} |", **middle)


def ten_thousand(bench):
    result = bench.run(2500, 2500, 10, threads=16, processes=4)
    report.add(Row("memory of each of 10,000 clients beyond its rings", "KiB", [result["kib_per_client"] - 10], most=64,
                   after=f"all connected in {result['seconds']:.0f} s, and every one echoed verified messages ({result['messages']} in 10 s)"))


def main():
    device = find_device()
    with tempfile.TemporaryDirectory(prefix="securdma-bench.") as folder:
        bench = Bench(conftest.Certificates(folder, device.ipv4, [device.ipv4]), device)
        if options.one:
            print(json.dumps(bench.run(*options.one)))
            return 0
        parts = [set_up, set_up_rate, arrival, latency, fairness, modes, *(() if options.quick else (ten_thousand,))]
        for part in parts:
            if not options.only or part.__name__ == options.only:
                part(bench)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
