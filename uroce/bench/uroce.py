#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How fast uroce is, as ratios to what the same machine does without it, measured in turn in one run.

usage: uroce.py BUILD [--older BUILD] [--rounds N] [--only WORD] [--vm | --no-vm] [--json | --markdown]
  --older   another build of uroce, to be measured beside this one
  --only    the part of this name: host, ucx, tcp, udp, one-sided, threads, memory, rxe
  --vm      only the comparison with rdma_rxe, in the VM rig (minutes: the machine is emulated)
  --no-vm   without it
A round measures each side one after the other, so that a machine that drifts drifts for both. Shown is the median of
the rounds' ratios, and min..max. RXE_VM: the VM rig's run script. Needs perftest; a row whose peer (iperf3, ucx-utils, the older build)
is not there says so.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import peers
import rows
from rows import Row, in_turn

HERE = pathlib.Path(__file__).resolve().parent
KIB64, MIB = 1 << 16, 1 << 20
CONNECTIONS = 200
SIZES = {"64 KiB": KIB64, "1 MiB": MIB}
RXE = {"device": "rxe0", "gid": "1", "host": "10.77.0.1"}


def within_host(bench, older, rounds):
    """Shared memory between processes of one host, against what the machine allows without a network."""
    before = rows.commit_of(older.build)
    seen = in_turn(rounds, {
        "line": bench.cache_line,
        "latency": lambda: bench.latency(iterations=200000), "older latency": older.latency, "udp": bench.udp_latency,
        "rate": lambda: bench.message_rate(4000000), "older rate": lambda: older.message_rate(1000000),
        "read": lambda: bench.bandwidth("ib_read_bw", MIB, 10000),
        "rstream": lambda: bench.rstream(KIB64, 40000),
        "one write 64 KiB": lambda: bench.bandwidth("ib_write_bw", KIB64, 20000, "-t", "1"),
        "one read 64 KiB": lambda: bench.bandwidth("ib_read_bw", KIB64, 20000, "-t", "1"),
        "one write 1 MiB": lambda: bench.bandwidth("ib_write_bw", MIB, 2000, "-t", "1"),
        "one read 1 MiB": lambda: bench.bandwidth("ib_read_bw", MIB, 2000, "-t", "1"),
        **{f"write {name}": lambda size=size: bench.bandwidth("ib_write_bw", size, 10**10 // size) for name, size in SIZES.items()},
        **{f"older write {name}": lambda size=size: older.bandwidth("ib_write_bw", size, 2 * 10**9 // size) for name, size in SIZES.items()},
        **{f"copy {name}": lambda size=size: bench.host_copy(size) for name, size in SIZES.items()}})
    yield Row("a cache line from one processor to the other, which latency and message rate follow", "ns", seen["line"])
    yield Row("ib_send_lat 64 B, polling", "us", seen["latency"], before, seen["older latency"], most=0.2)
    yield Row("ib_send_lat 64 B, polling", "us", seen["latency"], "a bare UDP ping-pong", seen["udp"], most=0.4)
    for name in SIZES:
        yield Row(f"ib_write_bw {name}", "MB/s", seen[f"write {name}"], before, seen[f"older write {name}"], least=2)
        yield Row(f"ib_write_bw {name}", "MB/s", seen[f"write {name}"], "one process_vm_readv a transfer", seen[f"copy {name}"], least=0.8)
    yield Row("rstream 64 KiB, a socket over RDMA", "MB/s", seen["rstream"], "ib_write_bw", seen["write 64 KiB"], least=0.8)
    yield Row("ib_read_bw 1 MiB", "MB/s", seen["read"], "ib_write_bw", seen["write 1 MiB"], least=0.9)
    yield Row("READs of 1 MiB, one at a time", "MB/s", seen["one read 1 MiB"], "WRITEs, one at a time", seen["one write 1 MiB"], least=0.9)
    yield Row("READs of 64 KiB, one at a time", "MB/s", seen["one read 64 KiB"], "WRITEs, one at a time", seen["one write 64 KiB"], least=0.8)
    yield Row("messages of 64 B a second (ib_send_bw, depth 128)", "M/s", seen["rate"], before, seen["older rate"], least=3)


def beside_ucx(bench, _, rounds):
    """UCX over uroce, and UCX without it."""
    transports = {"ud": "ud_verbs,self", "rc": "rc_verbs,ud_verbs:aux,self", "tcp": "tcp,self"}
    seen = in_turn(rounds, {
        "latency": lambda: bench.latency(iterations=200000), "posix": lambda: bench.ucx("posix", "tag_lat", 64, 200000)[0],
        **{name: lambda words=words: bench.ucx(words, "tag_bw", MIB, 2000)[1] for name, words in transports.items()}})
    yield Row("ib_send_lat 64 B, polling", "us", seen["latency"], "UCX's shared memory (tag_lat, posix)", seen["posix"], most=1.5)
    yield Row("UCX over ud_verbs, 1 MiB (datagrams of 4 KiB)", "MB/s", seen["ud"], "UCX over TCP", seen["tcp"], least=0.8)
    yield Row("UCX over rc_verbs, 1 MiB", "MB/s", seen["rc"], "UCX over TCP", seen["tcp"], least=1.5)


def one_sided(bench, _, rounds):
    """Access to a target's memory must not wait for the target's program."""
    periods = {"that only polls": 0, "that polls every 10 us": 10, "that polls every 100 us": 100, "that polls every 1 ms": 1000,
               "that polls every 10 ms": 10000, "that never polls": -1}
    seen = in_turn(rounds, {"write": lambda: bench.latency("ib_write_lat", 8), "send": bench.latency,
                            **{name: lambda period=period: bench.read_latency(period) for name, period in periods.items()}})
    yield Row("ib_write_lat 8 B, polling", "us", seen["write"], "ib_send_lat", seen["send"], most=1.2)
    for name in periods:
        yield Row(f"READ of 8 B from a target {name}", "us", seen[name], most=50)


def against_tcp(bench, _, rounds):
    seen = in_turn(rounds, {"tcp": peers.iperf, **{name: lambda size=size: bench.bandwidth("ib_write_bw", size, 2 * 10**9 // size, wire=True)
                                                   for name, size in SIZES.items()}})
    for name in SIZES:
        yield Row(f"by UDP: ib_write_bw {name}, MTU 4096", "MB/s", seen[name], "one TCP stream (iperf3)", seen["tcp"], least=1)
    for name in SIZES:
        yield Row(f"by UDP: ib_write_bw {name}, half of what GSO carries without a protocol", "MB/s", seen[name], least=2600)


def against_udp(bench, _, rounds):
    seen = in_turn(rounds, {"ours": lambda: bench.latency(wire=True), "bare": bench.udp_latency, "acked": bench.udp_acked_latency})
    yield Row("by UDP: ib_send_lat 64 B, polling", "us", seen["ours"], "a bare UDP ping-pong", seen["bare"], most=1.5)
    yield Row("by UDP: ib_send_lat 64 B, polling", "us", seen["ours"], "the same with 80 bytes, and an acknowledgement of 20 behind each", seen["acked"])


def threads(bench, _, rounds):
    counts = (1, 4, 16, 64, 256)
    seen = in_turn(rounds, {**{count: lambda count=count: bench.threads(count) for count in counts},
                            "crowded": lambda: bench.threads(128, 128)})
    unit = "thousand messages/s"
    for count in counts[1:]:
        yield Row(f"{count} threads make, use and destroy queue pairs", unit, seen[count], "one thread", seen[1], least=0.5)
    yield Row("128 threads beside 128 that poll empty queues", unit, seen["crowded"], "one thread", seen[1], least=0.25)


def memory(bench, *_):
    shallow, deep = bench.queue_pairs(1), bench.queue_pairs(33)
    entry = (deep["bytes_per_qp"] - shallow["bytes_per_qp"]) / 32
    yield Row(f"memory of a queue pair beyond its queues, {shallow['qps']} connected", "bytes", [shallow["bytes_per_qp"] - entry], most=4096,
              after=f"{shallow['verified']} messages verified; with queues of one entry {shallow['bytes_per_qp']:.0f}")


# ---- in the guest, beside rdma_rxe ---------------------------------------------------------------------------------------


def separate(bench):
    """Puts uroce into a network namespace, because rdma_rxe has port 4791 in the first. Each is on the loopback of its kind."""
    for words in (["netns", "add", "uroce"], ["-n", "uroce", "link", "set", "lo", "up"]):
        subprocess.run(["ip", *words], check=True)
    bench.inside = ["ip", "netns", "exec", "uroce"]


def rxe(program, size, iterations):
    return peers.perftest((), program, "-s", str(size), "-n", str(iterations), *(["-m", "4096"] if program.endswith("_bw") else []), **RXE)


def connections_s(steps, *some):
    """Of what cmtime says: connections a second, of these steps or of all."""
    return [1e6 / sum(us for name, us in values.items() if not some or name in some) for values in steps] if isinstance(steps, list) else steps


def against_rxe(bench, rounds):
    seen = in_turn(rounds, {
        "cmtime": lambda: bench.cmtime(CONNECTIONS), "rxe cmtime": lambda: peers.cmtime((), RXE["host"], CONNECTIONS),
        "rstream": lambda: bench.rstream(KIB64, 1000), "rxe rstream": lambda: peers.rstream((), RXE["host"], KIB64, 500),
        "write": lambda: bench.bandwidth("ib_write_bw", KIB64, 1000), "rxe write": lambda: rxe("ib_write_bw", KIB64, 1000)[3] * 1.048576,
        "latency": lambda: bench.latency(iterations=2000), "rxe latency": lambda: rxe("ib_send_lat", 64, 2000)[4]})
    yield Row("in the VM: ib_write_bw 64 KiB, MTU 4096", "MB/s", seen["write"], "rdma_rxe", seen["rxe write"], least=1)
    yield Row("in the VM: rstream 64 KiB, a socket over RDMA", "MB/s", seen["rstream"], "ib_write_bw", seen["write"])
    yield Row("in the VM: rstream 64 KiB on rdma_rxe", "MB/s", seen["rxe rstream"], "ib_write_bw on rdma_rxe", seen["rxe write"])
    yield Row("in the VM: connections a second (cmtime), from making IDs to destroying them", "/s", connections_s(seen["cmtime"]), "rdma_rxe",
              connections_s(seen["rxe cmtime"]), least=1)
    yield Row("in the VM: connections a second (cmtime), connecting alone", "/s", connections_s(seen["cmtime"], "connect"), "rdma_rxe",
              connections_s(seen["rxe cmtime"], "connect"), least=1)
    yield Row("in the VM: ib_send_lat 64 B, polling", "us", seen["latency"], "rdma_rxe", seen["rxe latency"], most=0.5)


def curves(bench, rounds, wanted):
    """For plots: both devices over several sizes; the best round of each point."""
    measures = {}
    for size in wanted["latency"]:
        measures["latency", "uroce", size] = lambda size=size: bench.latency(size=size, iterations=500)
        measures["latency", "rdma_rxe", size] = lambda size=size: rxe("ib_send_lat", size, 500)[4]
    for size in wanted["bandwidth"]:
        count = max(20, (1 << 25) // size)
        measures["bandwidth", "uroce", size] = lambda size=size, count=count: bench.bandwidth("ib_write_bw", size, count)
        measures["bandwidth", "rdma_rxe", size] = lambda size=size, count=count: rxe("ib_write_bw", size, count)[3] * 1.048576
    seen = in_turn(rounds, measures)
    return {kind: {device: [best(seen[kind, device, size]) if isinstance(seen[kind, device, size], list) else None for size in wanted[kind]] for device in ("uroce", "rdma_rxe")}
            for kind, best in (("latency", min), ("bandwidth", max))}


def in_vm(build, rounds, *more):
    """Runs this script in the VM; what it says, a line each."""
    rig = os.environ.get("RXE_VM", HERE.parent.parent / "tests" / "rxe-vm" / "run")
    result = subprocess.run([rig, "--mtu", "5000", "--timeout", "900", "/usr/bin/python3", HERE / "uroce.py", build, "--guest", "--lines",
                             "--rounds", str(rounds), *more], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit("bench: the part in the VM failed")
    return list(map(json.loads, result.stdout.splitlines()))


PARTS = {"host": within_host, "ucx": beside_ucx, "one-sided": one_sided, "tcp": against_tcp, "udp": against_udp, "threads": threads,
         "memory": memory}


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--older", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--vm", action="store_true")
    parser.add_argument("--no-vm", action="store_true")
    parser.add_argument("--guest", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--curves", type=json.loads, help=argparse.SUPPRESS)
    rows.add_options(parser)
    options = parser.parse_args()
    os.environ["PATH"] = peers.TOOLS
    bench, older = peers.Bench(options.build), peers.Bench(options.older)
    report = rows.Report(options)
    if options.guest:
        separate(bench)
        if options.curves:
            print(json.dumps(curves(bench, options.rounds, options.curves)))
            return 0
        report.add(*against_rxe(bench, options.rounds))
    else:
        for name, part in PARTS.items():
            if not options.vm and options.only in name:
                report.add(*part(bench, older, options.rounds))
        if not options.no_vm and (options.vm or options.only in "rxe"):
            report.add(*map(rows.from_dict, in_vm(options.build, options.rounds)))
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
