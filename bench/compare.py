#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""securdma beside perftest, on the same device, in turn, in one run; the ratios are what counts.

usage: compare.py BUILD [--rounds N] [--iterations N] [--json | --markdown]
A round measures each pair one after the other, so that a machine that drifts drifts for both; the median of the rounds'
ratios is printed. Needs perftest (ib_send_lat, ib_write_bw) and an RDMA device; `make bench` brings both.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "uroce/bench")]
import rows  # noqa: E402
from demo import gid_addresses  # noqa: E402
from peers import answer, perftest  # noqa: E402
from rows import Row, in_turn  # noqa: E402

DEADLINE = 180
DEPTH = 16


def device_of(address):
    """perftest wants the device and the index in the GID table; securdma finds both from the address."""
    words = [int(part) for part in address.split(".")]
    wanted = f"0000:0000:0000:0000:0000:ffff:{words[0]:02x}{words[1]:02x}:{words[2]:02x}{words[3]:02x}"
    for gid in pathlib.Path("/sys/class/infiniband").glob("*/ports/*/gids/*"):
        if gid.read_text().strip() == wanted and "v2" in (gid.parents[1] / "gid_attrs/types" / gid.name).read_text():
            return {"device": gid.parents[3].name, "gid": gid.name, "host": address}
    raise SystemExit(f"compare: no RoCE v2 GID for {address}")


class Securdma:
    """A polling server with throw-away credentials, and the bench command against it."""

    def __init__(self, build, address, work, spin):
        self.program = str(build / "cli" / "securdma")
        self.work = work
        for arguments in (("ca",), ("server", "--name", address), ("client",)):
            subprocess.run([self.program, "cert", *arguments, "--days", "2", "--force"], cwd=work, check=True,
                           stdout=subprocess.DEVNULL)
        self.server = subprocess.Popen(
            [self.program, "serve", "--json", "--listen", address, "--port", "0", "--cert", "server.crt", "--key",
             "server.key", "--client-ca", "ca.crt", "--spin", str(spin), "--log-level", "error"],
            cwd=work, stdout=subprocess.PIPE, text=True)
        self.address = address
        self.target = f"{address}:{json.loads(self.server.stdout.readline())['port']}"

    def bench(self, *options):
        result = subprocess.run(
            [self.program, "bench", self.target, "--ca", "ca.crt", "--cert", "client.crt", "--key", "client.key",
             "--json", *options], cwd=self.work, capture_output=True, text=True, timeout=DEADLINE, check=False)
        if result.returncode != 0:
            raise SystemExit(f"compare: securdma bench failed: {result.stderr}")
        return json.loads(result.stdout)

    def memory(self):
        """Anonymous memory of the server and what of it is registered with the device, in KiB."""
        anonymous = re.search(r"^Anonymous:\s+(\d+)", pathlib.Path(f"/proc/{self.server.pid}/smaps_rollup").read_text(),
                              re.M)
        pinned = re.search(r"^VmPin:\s+(\d+)", pathlib.Path(f"/proc/{self.server.pid}/status").read_text(), re.M)
        return int(anonymous[1]), int(pinned[1])

    def hold(self, release):
        """A client that stays, idle, after one verified message."""
        return subprocess.Popen(
            [self.program, "connect", self.target, "--ca", "ca.crt", "--cert", "client.crt", "--key", "client.key",
             "--pattern", "m", "--count", "1", "--hold-file", str(release), "--log-level", "error"],
            cwd=self.work, stdout=subprocess.DEVNULL)

    def stop(self):
        self.server.terminate()
        self.server.wait(30)


def memory_per_client(build, address, work, clients=10):
    """KiB that each connected client costs the server at default sizes: all, and the registered part."""
    ours = Securdma(build, address, work, 0)
    release = pathlib.Path(work) / "release"
    holders = []
    try:
        before = ours.memory()
        holders = [ours.hold(release) for _ in range(clients)]
        end = time.monotonic() + DEADLINE
        seen = (0, 0)
        while time.monotonic() < end:  # all are in when nothing is added any more
            time.sleep(3)
            now = ours.memory()
            if now == seen and now[1] > before[1]:
                break
            seen = now
        release.touch()
        if any(holder.wait(DEADLINE) != 0 for holder in holders):
            raise SystemExit("compare: a client failed while memory was measured")
    finally:
        for holder in holders:
            if holder.poll() is None:
                holder.kill()
                holder.wait()
        ours.stop()
    return {"clients": clients, "total_kib": (seen[0] - before[0]) / clients, "registered_kib": (seen[1] - before[1]) / clients}


def set_ups(build, rounds):
    """Against the bare TLS handshake, which only the in-process form measures; each of them takes turns with one of it."""
    runs = [answer(build / "cli" / "securdma", "bench", "--json", "--only", "setup", "--connections", 50, limit=DEADLINE)["setup"]
            for _ in range(rounds)]
    p50 = {name: [run[name]["p50_us"] for run in runs] for name in ("total", "bare_total", "psn", "tls", "exchange", "qp")}
    yield Row("on the RDMA device: set-up, mTLS, p50", "us", p50["total"], "a bare TLS handshake by OpenSSL", p50["bare_total"], most=1.1,
              after=", ".join(f"{name} {statistics.median(p50[name]):.0f}" for name in ("tls", "exchange", "qp")))
    yield Row("on the RDMA device: drawing the PSN, p50", "us", p50["psn"], most=1000)


def beside_perftest(build, address, work, rounds, iterations):
    """perftest's latency test polls at both ends; its write test leaves the passive end asleep. So do ours. perftest calibrates the CPU's
    clock at each start; where that failed it prints zero, and that round does not count."""
    device, measured = device_of(address), []
    for spin, ours, theirs in (
            (-1, lambda server: server.bench("--only", "latency", "--sizes", "64", "--iterations", iterations)["latency"][0]["p50_us"],
             lambda: perftest((), "ib_send_lat", "-s", "64", "-n", iterations, **device)[4]),
            (0, lambda server: next(row["mib_per_s"] for row in server.bench(
                "--only", "bandwidth", "--sizes", "64K", "--rdma-depth", str(DEPTH), "--iterations", iterations)["bandwidth"]
                                    if row["operation"] == "write"),
             lambda: perftest((), "ib_write_bw", "-s", "65536", "-t", str(DEPTH), "-n", iterations, **device)[3])):
        server = Securdma(build, address, work, spin)
        try:
            seen = in_turn(rounds, {"ours": lambda server=server, ours=ours: ours(server), "theirs": theirs})
        finally:
            server.stop()
        usable = [(a, b) for a, b in zip(seen["ours"], seen["theirs"]) if b > 0]
        if not usable:
            raise SystemExit("compare: perftest measured nothing in any round")
        measured.append([list(side) for side in zip(*usable)])
    yield Row("on the RDMA device: message of 64 B, polling", "us", measured[0][0], "ib_send_lat", measured[0][1], most=1.1)
    yield Row("on the RDMA device: RDMA write of 64 KiB, 16 in flight", "MiB/s", measured[1][0], "ib_write_bw", measured[1][1], least=0.95)


def memory(build, address, work):
    seen = memory_per_client(build, address, work)
    yield Row("on the RDMA device: server memory per connected client, rings and region", "KiB", [seen["registered_kib"]], most=200,
              after=f"{seen['clients']} idle ones, default sizes; with TLS, heap and a thread's stack {seen['total_kib']:.0f} KiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=1000)
    rows.add_options(parser)
    options = parser.parse_args()
    build = options.build.resolve()
    address = next(gid_addresses(), None)
    if address is None:
        raise SystemExit("compare: no active RDMA port with an IPv4 RoCE v2 GID here; `make bench` brings one")
    report = rows.Report(options)
    with tempfile.TemporaryDirectory(prefix="securdma-bench.") as work:
        report.add(*set_ups(build, options.rounds))
        report.add(*memory(build, address, work))
        report.add(*beside_perftest(build, address, work, options.rounds, str(options.iterations)))
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
